import { writeAtomically } from '../../../base/atomic.js'
import { argumentError, requireOptions, requireString, requireWhole } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { jsonFor } from '../../../files/json/json.js'
import { writeJsonl } from '../../../files/json/jsonl.js'
import { parseSwiftEntry, type SwiftRecord } from './entry.js'

export interface WriteSwiftDatasetOptions {
  /** Indentation of a JSON array: spaces per level, 0 … 10. Default 4, as in the published files. */
  indent?: number
}

/** Number of characters that are buffered before a write. */
const BATCH = 1 << 20

/**
 * Write an instruction file: JSON Lines if the name ends in `.jsonl`, otherwise one JSON array, byte for byte as Python's
 * `json.dump(…, indent=4, ensure_ascii=False)` writes it. Keys keep their order. The file is written atomically, with about a megabyte
 * buffered in memory.
 * @returns the number of records
 * @throws DataError naming the record that is invalid
 */
export async function writeSwiftDataset(
  path: string,
  records: Iterable<SwiftRecord> | AsyncIterable<SwiftRecord>,
  options: WriteSwiftDatasetOptions = {},
): Promise<number> {
  const where = 'writeSwiftDataset'
  requireString(where, 'path', path)
  requireOptions(where, options, ['indent'])
  const { indent = 4 } = options
  requireWhole(where, 'indent', indent)
  if (indent > 10) throw argumentError(where, 'indent', 'at most 10', indent)
  const source = records as Partial<Iterable<unknown> & AsyncIterable<unknown>> | null | undefined
  if (typeof records === 'string' || !(source?.[Symbol.asyncIterator] ?? source?.[Symbol.iterator])) {
    throw argumentError(where, 'records', 'an iterable of records', records)
  }
  let count = 0
  async function* good() {
    for await (const record of records) {
      count += 1
      try {
        parseSwiftEntry(record, false)
      } catch (cause) {
        if (!(cause instanceof DataError)) throw cause
        throw new DataError(`${path}, record ${count}: ${cause.message}`, { file: path, cause })
      }
      yield record
    }
  }
  if (path.toLowerCase().endsWith('.jsonl')) await writeJsonl(path, good())
  else await writeArray(path, good(), indent)
  return count
}

async function writeArray(path: string, records: AsyncIterable<SwiftRecord>, indent: number): Promise<void> {
  const inner = indent > 0 ? `\n${' '.repeat(indent)}` : ''
  await writeAtomically(path, DataError, async (write) => {
    let text = '['
    let line = 1
    for await (const record of records) {
      // Line breaks in texts are escaped, so the remaining ones are JSON's indentation.
      const item = jsonFor(path, record, indent, line)
      text += `${line++ > 1 ? ',' : ''}${inner}${indent > 0 ? item.replaceAll('\n', inner) : item}`
      if (text.length < BATCH) continue
      await write(Buffer.from(text))
      text = ''
    }
    await write(Buffer.from(`${text}${line > 1 && indent > 0 ? '\n' : ''}]`))
  })
}
