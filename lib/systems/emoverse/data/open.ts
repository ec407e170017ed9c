import { requireNumber, shown } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import type { Dataset } from '../../../data/dataset.js'
import { Subset } from '../../../data/datasets.js'
import { indicesBelow, Random } from '../../../data/random.js'
import {
  checkedRecords,
  type ReadSwiftDatasetOptions,
  readSwiftDataset,
  SwiftDataset,
  type SwiftLength,
} from './dataset.js'
import type { SwiftRecord } from './entry.js'

/** Instruction data: files, or records in memory. */
export type EmoVerseRecords = string | readonly string[] | readonly SwiftRecord[] | SwiftDataset

export interface OpenedRecords {
  records: Dataset<SwiftRecord>
  /** Name of the data in messages. */
  name: string
  /** Largest numbers of tokens of a record, if they were counted. */
  longest: Readonly<SwiftLength>
  /** Sentences about records that were left out, and why. */
  notes: string[]
}

/**
 * Open data of any form as records by index, without those that cannot be used.
 * @throws DataError for another type, and with `onBadRecord: 'stop'` for a record that cannot be used
 */
export async function openRecords(given: EmoVerseRecords, options: ReadSwiftDatasetOptions): Promise<OpenedRecords> {
  const isFiles = typeof given === 'string' || (Array.isArray(given) && typeof given[0] === 'string')
  if (!isFiles && !Array.isArray(given) && !(given instanceof SwiftDataset)) throw invalidData(given)
  const records = isFiles
    ? await readSwiftDataset(given as string | string[], options)
    : await checkedRecords(given as readonly SwiftRecord[] | SwiftDataset, options)
  const before = given instanceof SwiftDataset ? notesOf(given) : []
  const notes = [...before, ...notesOf(records)]
  return { records, name: nameOf(records), longest: records.longest, notes }
}

export const invalidData = (data: unknown) =>
  new DataError(`data: expected a file or a list of records, got ${shown(data)}.`, { data })

const REASONS: Readonly<Record<string, string>> = {
  json: 'are not JSON',
  encoding: 'are not UTF-8',
  form: 'have an unknown format',
  response: 'have no response',
  markers: 'have different numbers of markers and media',
  media: 'refer to missing files',
  length: 'are too long',
}

const nameOf = ({ files }: SwiftDataset): string => (files.length > 0 ? files.join(', ') : 'the data')

/** Records that turn out to be unusable when they are read: the count for each reason, and the first of them. */
export class LeftOut {
  readonly #found = new Map<string, { count: number; first: string }>()

  add(why: string, first: string): void {
    const before = this.#found.get(why)
    this.#found.set(why, { count: (before?.count ?? 0) + 1, first: before?.first ?? first })
  }

  notes(what = 'were left out'): string[] {
    return [...this.#found].map(([why, { count, first }]) => `${count} records ${what} ${why}, the first: ${first}`)
  }
}

function notesOf(dataset: SwiftDataset): string[] {
  const { dropped, unread, length } = dataset
  const notes = Object.entries(dropped).map(([cause, count]) => `${count} that ${REASONS[cause]}`)
  const keys = Object.entries(unread).map(([key, count]) => `${key} (${count})`)
  const name = nameOf(dataset)
  return [
    ...(notes.length > 0 ? [`${name}: ${length} records, without ${notes.join(', ')}`] : []),
    ...(keys.length > 0 ? [`${name}: ignored unknown keys ${keys.join(', ')}`] : []),
  ]
}

/** Split off a random fraction of the data for validation, at least one record; none if `share` is 0. */
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
