import { writeAtomically } from '../../base/atomic.js'
import { argumentError, requireOptions, requireString, requireWhole } from '../../base/check.js'
import { DataError } from '../../base/errors.js'
import { type Chunks, chunksOf, countLines, faultIn, LONGEST_LINE, utf8, withoutMark } from '../text.js'
import { jsonFor, jsonValue, refuseTooMuch } from './json.js'
import { JsonScan } from './scan.js'

export interface ReadJsonlOptions {
  /** Skip lines that are empty or contain only blanks, instead of throwing. Default false. */
  skipBlank?: boolean
  /** Maximum line length in bytes. Default 64 MiB; the maximum is 511 MiB, JavaScript's longest string. */
  maxLineBytes?: number
}

/**
 * Read a JSON Lines file, each line as `readJson` reads a file. Uses a few hundred kilobytes of memory and the longest line,
 * for files of any size; leaving the loop closes the file.
 *
 * ```ts
 * for await (const row of readJsonl('train.jsonl')) …
 * ```
 * @throws DataError with `file` and `line` (and `column`), when the loop reaches the fault
 */
export function readJsonl(path: string, options: ReadJsonlOptions = {}): AsyncIterableIterator<unknown> {
  requireString('readJsonl', 'path', path)
  requireOptions('readJsonl', options, ['skipBlank', 'maxLineBytes'])
  const { skipBlank = false, maxLineBytes = 1 << 26 } = options
  if (typeof skipBlank !== 'boolean') throw argumentError('readJsonl', 'skipBlank', 'a boolean', skipBlank)
  requireWhole('readJsonl', 'maxLineBytes', maxLineBytes, 1)
  return parseJsonl(chunksOf(path), path, { skipBlank, maxLineBytes: Math.min(maxLineBytes, LONGEST_LINE) })
}

/** Parse JSON Lines that arrive in pieces. Errors name `file`. */
export async function* parseJsonl(
  chunks: Chunks,
  file: string,
  { skipBlank, maxLineBytes }: Required<ReadJsonlOptions>,
): AsyncGenerator<unknown, void, void> {
  let line = 1
  for await (const bytes of wholeLines(chunks, file, maxLineBytes)) {
    const text = utf8(bytes, file, line)
    const scan = new JsonScan()
    const deep = scan.push(bytes) >= 0
    refuseTooMuch(scan, file, line)
    for (const item of (text.endsWith('\n') ? text.slice(0, -1) : text).split('\n')) {
      // A UTF-16 unit has at most three bytes in UTF-8.
      if (item.length * 3 > maxLineBytes && Buffer.byteLength(item) > maxLineBytes)
        throw tooLong(file, maxLineBytes, line)
      if (item.trim() !== '') yield jsonValue(item, deep || (scan.wide && WIDE.test(item)), file, line)
      else if (!skipBlank)
        throw faultIn(file, 'expected a JSON value, got a blank line. Set skipBlank: true to skip such lines', { line })
      line++
    }
  }
}

const WIDE = /[0-9]{16}/

const tooLong = (file: string, longest: number, line: number): DataError =>
  faultIn(file, `expected a line of at most ${longest} bytes, got a longer one. Raise maxLineBytes`, { line })

/** Yield pieces that end at line ends. */
async function* wholeLines(chunks: Chunks, file: string, longest: number): AsyncGenerator<Uint8Array, void, void> {
  let open: Uint8Array[] = []
  let size = 0
  let line = 1
  let first = true
  for await (const chunk of chunks) {
    const bytes = first ? withoutMark(chunk) : chunk
    first = false
    const end = bytes.lastIndexOf(10) + 1
    if (end > 0) {
      const whole = Buffer.concat([...open, bytes.subarray(0, end)])
      yield whole
      line += countLines(whole)
      open = []
      size = 0
    }
    if (end < bytes.length) open.push(bytes.subarray(end))
    size += bytes.length - end
    if (size > longest) throw tooLong(file, longest, line)
  }
  if (size > 0) yield Buffer.concat(open)
}

/** Number of bytes gathered before they are written. */
const BATCH = 1 << 20

/**
 * Write one JSON value per line, each as `writeJson` writes it. The file is written atomically: if `rows` throws, nothing is
 * written. Uses about a megabyte of memory for lines.
 *
 * @throws DataError if JSON cannot store a row (with its `line` and `path`) or the file cannot be written; the errors of `rows`
 *   unchanged
 */
export async function writeJsonl(path: string, rows: Iterable<unknown> | AsyncIterable<unknown>): Promise<void> {
  requireString('writeJsonl', 'path', path)
  const source = rows as Partial<Iterable<unknown> & AsyncIterable<unknown>> | null | undefined
  // A typed array is one value, and a detached one cannot be read.
  const isValue = typeof rows === 'string' || ArrayBuffer.isView(rows)
  if (isValue || !(source?.[Symbol.asyncIterator] ?? source?.[Symbol.iterator])) {
    throw argumentError('writeJsonl', 'rows', 'an iterable of values', rows)
  }
  await writeAtomically(path, DataError, async (write) => {
    let batch: string[] = []
    let size = 0
    let line = 1
    for await (const row of rows) {
      const text = jsonFor(path, row, 0, line++)
      batch.push(text, '\n')
      size += text.length
      if (size < BATCH) continue
      await write(Buffer.from(batch.join('')))
      batch = []
      size = 0
    }
    await write(Buffer.from(batch.join('')))
  })
}
