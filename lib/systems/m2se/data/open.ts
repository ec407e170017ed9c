import { requireNumber } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import type { Dataset } from '../../../data/dataset.js'
import { Subset } from '../../../data/datasets.js'
import { indicesBelow, Random } from '../../../data/random.js'
import { type ReadSwiftDatasetOptions, readSwiftDataset, SwiftDataset } from './dataset.js'
import { insertMarkers, parseSwiftEntry, type SwiftRecord } from './entry.js'

/** Instruction data: files, or records that are there. */
export type EmoVerseRecords = string | readonly string[] | readonly SwiftRecord[] | SwiftDataset

export interface OpenedRecords {
  records: Dataset<SwiftRecord>
  /** What was left out and why, in sentences. */
  notes: string[]
}

/** Data in whatever form as records by index. @throws DataError for records that are none */
export async function openRecords(given: EmoVerseRecords, options: ReadSwiftDatasetOptions): Promise<OpenedRecords> {
  const isFiles = typeof given === 'string' || (Array.isArray(given) && typeof given[0] === 'string')
  const records =
    given instanceof SwiftDataset
      ? given
      : isFiles
        ? await readSwiftDataset(given as string | string[], options)
        : checkedRecords(given as readonly SwiftRecord[], options)
  return { records, notes: records instanceof SwiftDataset ? notesOf(records) : [] }
}

function checkedRecords(
  given: readonly SwiftRecord[],
  { requireResponse = true, markers = true }: ReadSwiftDatasetOptions,
): Dataset<SwiftRecord> {
  if (!Array.isArray(given)) throw new DataError('The data is neither a file nor a list of records', { data: given })
  const records = given.map((value, i) => {
    try {
      const { record } = parseSwiftEntry(value, requireResponse)
      const marked = insertMarkers(record)
      return markers ? marked : record
    } catch (cause) {
      if (!(cause instanceof DataError)) throw cause
      throw new DataError(`record ${i + 1}: ${cause.message}`, { record: i + 1, cause })
    }
  })
  return { length: records.length, get: (i) => records[i] as SwiftRecord }
}

const REASONS: Readonly<Record<string, string>> = {
  json: 'are no JSON',
  encoding: 'are no UTF-8',
  form: 'have no form that is known',
  response: 'have no response',
  markers: 'have other markers than media',
  media: 'name files that are not there',
  length: 'are too long',
}

function notesOf({ dropped, unread, files, length }: SwiftDataset): string[] {
  const notes = Object.entries(dropped).map(([cause, count]) => `${count} that ${REASONS[cause]}`)
  const keys = Object.entries(unread).map(([key, count]) => `${key} (${count})`)
  const name = files.join(', ')
  return [
    ...(notes.length > 0 ? [`${name}: ${length} records, without ${notes.join(', ')}`] : []),
    ...(keys.length > 0 ? [`${name}: nobody reads the keys ${keys.join(', ')}`] : []),
  ]
}

/** Some of the data to validate with, drawn by the seed: a share, but one record at least; none of a share of 0. */
export function splitRecords<T>(
  records: Dataset<T>,
  { share, seed }: { share: number; seed: number },
): { train: Dataset<T>; valid: Dataset<T> | undefined } {
  requireNumber('splitRecords', 'share', share, { least: 0, below: 1 })
  const count = share === 0 ? 0 : Math.max(1, Math.floor(share * records.length))
  if (count === 0 || records.length < 2) return { train: records, valid: undefined }
  const order = new Random(seed).shuffle(indicesBelow('splitRecords', records.length))
  const part = (from: number, to: number) => new Subset<T>(records, order.slice(from, to).sort())
  return { train: part(count, records.length), valid: part(0, count) }
}
