import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { argumentError } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { type ChangesOf, functionOf, settings, type ValuesOf } from '../../../base/settings.js'
import type { Dataset } from '../../../data/dataset.js'
import { ConcatDataset, Subset } from '../../../data/datasets.js'
import { jsonRecord, recordDataset } from '../../../data/jsonl-dataset.js'
import { beginsArray } from '../../../files/json/elements.js'
import { chunksOf } from '../../../files/text.js'
import { insertMarkers, MEDIA_KEYS, parseSwiftEntry, type SwiftCause, type SwiftRecord } from './entry.js'
import { replacing } from './replace.js'

/** Number of tokens of a record: `text` counts each of its media as one token, `expanded` counts all their tokens. */
export interface SwiftLength {
  text: number
  expanded: number
}

const SETTINGS = settings({
  /** Policy for a record that cannot be used: 'skip' (default) leaves it out and counts it by cause, 'stop' throws. */
  onBadRecord: { type: ['skip', 'stop'], default: 'skip' },
  /** Whether each record needs an answer. Default true; false for questions without answers. */
  requireResponse: { type: 'boolean', default: true },
  /** Whether to put missing media markers in front of the text. Default true. Too many markers are an error in any case. */
  markers: { type: 'boolean', default: true },
  /** Base folder of media paths. If it is set, the files must exist. */
  mediaRoot: { type: 'string' },
  /** Function that counts a record's tokens, for the limits. */
  lengthOf: { type: functionOf<(record: SwiftRecord) => number | SwiftLength>() },
  /** Maximum length in tokens, where each of the media counts as one, as in ms-swift. Default: no limit. */
  maxLength: { type: 'integer', min: 1 },
  /** Maximum length with all tokens of the media. Default: no limit. */
  maxExpandedLength: { type: 'integer', min: 1 },
  /**
   * 'published': leave out no record in advance. A record that cannot be used is replaced, when it is read, by a random other one (up to
   * 20 attempts), so that an epoch keeps its length, as in ms-swift 2.6 for models with a vision encoder.
   */
  compat: { type: ['published'] },
  /** Random seed of the replacements with `compat`. Default 42. */
  seed: { type: 'integer', default: 42 },
})

/** Options of `readSwiftDataset`. @interface */
export type ReadSwiftDatasetOptions = ChangesOf<typeof SETTINGS.table>

/** Maximum number of stored errors; all errors are counted. */
const KEPT = 100

/** Records of instruction files by index, read on access. Create it with {@link readSwiftDataset}. */
export class SwiftDataset implements Dataset<SwiftRecord> {
  /** Number of records that were left out, or with `compat` replaced so far, by cause. */
  readonly dropped: Partial<Record<SwiftCause, number>> = {}
  /** Errors of the first 100 of these records. */
  readonly errors: DataError[] = []
  /** Unknown keys of records, with the number of records that have each. */
  readonly unread: Record<string, number> = {}
  /** Largest number of tokens of a record in use; 0 without `lengthOf`. */
  readonly longest: SwiftLength = { text: 0, expanded: 0 }
  #records: Dataset<SwiftRecord> | undefined

  /** @internal */
  constructor(readonly files: readonly string[]) {}

  /** @internal */
  get isOpen(): boolean {
    return this.#records !== undefined
  }

  /** @internal */
  open(records: Dataset<SwiftRecord>): this {
    this.#records = records
    return this
  }

  get length(): number {
    return this.#records?.length ?? 0
  }

  get(index: number, epoch = 0): SwiftRecord | Promise<SwiftRecord> {
    return (this.#records as Dataset<SwiftRecord>).get(index, epoch)
  }

  /** Iterate over all records in order. */
  async *[Symbol.asyncIterator](): AsyncGenerator<SwiftRecord, void, void> {
    for (let i = 0; i < this.length; i++) yield await this.get(i)
  }

  /** @internal */
  count(error: DataError): void {
    const reason = causeOf(error)
    this.dropped[reason] = (this.dropped[reason] ?? 0) + 1
    if (this.errors.length < KEPT) this.errors.push(error)
  }
}

/**
 * Open instruction files: one JSON array, or a JSON value per line, with records in any format that ms-swift reads (`query` and `response`
 * with `history`, `messages`, `conversations`). Each file is scanned once for record positions and validity, and records are read on
 * access. Memory use is 20 bytes per record plus the longest record.
 * ```ts
 * const data = await readSwiftDataset('emt_data_second.json')
 * console.log(data.length, data.dropped)
 * for await (const { query, response } of data) …
 * ```
 * @throws DataError with `file` and `line` for a truncated file or one that is not JSON, and with `onBadRecord: 'stop'` for each record that
 * cannot be used
 */
export async function readSwiftDataset(
  path: string | readonly string[],
  options: ReadSwiftDatasetOptions = {},
): Promise<SwiftDataset> {
  const where = 'readSwiftDataset'
  const files = typeof path === 'string' ? [path] : path
  requireForm(where, 'path', files, ['string'])
  if (files.length === 0) throw argumentError(where, 'path', 'a file, or a list of files', path)
  const settings = checked(where, options)
  const { onBadRecord, compat, seed } = settings
  const dataset = new SwiftDataset(files)
  const parse = recordParser(settings, dataset)
  const onBad = (error: DataError) => {
    if (onBadRecord === 'stop') throw error
    dataset.count(error)
  }
  const parts: Dataset<SwiftRecord>[] = []
  for (const file of files) {
    const isArray = await beginsArray(chunksOf(file))
    parts.push(await recordDataset(file, { isArray, parse, ...(compat === undefined && { onBad }) }))
  }
  const all = parts.length === 1 ? (parts[0] as Dataset<SwiftRecord>) : new ConcatDataset(parts)
  return dataset.open(compat === undefined ? all : replacing(all, seed, (error) => dataset.count(error)))
}

function checked(where: string, options: ReadSwiftDatasetOptions): ValuesOf<typeof SETTINGS.table> {
  const values = SETTINGS.read(where, options)
  const limit = (['maxLength', 'maxExpandedLength'] as const).find((name) => values[name] !== undefined)
  if (limit === undefined || values.lengthOf) return values
  throw argumentError(where, 'lengthOf', `a function that counts a record's tokens, for ${limit}`, values.lengthOf)
}

/** Return a function that parses a record from a file's bytes, and throws if the record cannot be used. */
function recordParser(
  settings: ReturnType<typeof checked>,
  dataset: SwiftDataset,
): (bytes: Buffer, file: string, line: number) => SwiftRecord {
  return (bytes, file, line) => {
    const value = jsonRecord(bytes, file, line)
    return named(`${file} line ${line}`, { file, line }, () => usable(value, settings, dataset))
  }
}

/** Convert a JSON value to a valid record. @throws DataError with `reason` */
function usable(value: unknown, settings: ReturnType<typeof checked>, dataset: SwiftDataset): SwiftRecord {
  const { requireResponse, markers, mediaRoot, lengthOf, maxLength, maxExpandedLength } = settings
  const { record, unread } = parseSwiftEntry(value, requireResponse)
  // Records are parsed again on access; count keys only while opening.
  if (!dataset.isOpen) for (const key of unread) dataset.unread[key] = (dataset.unread[key] ?? 0) + 1
  const marked = insertMarkers(record)
  if (mediaRoot !== undefined) requireMedia(record, mediaRoot)
  if (lengthOf) {
    const length = lengthOf(marked)
    const { text, expanded } = typeof length === 'number' ? { text: length, expanded: length } : length
    requireLength(text, maxLength)
    requireLength(expanded, maxExpandedLength, EXPANDED)
    dataset.longest.text = Math.max(dataset.longest.text, text)
    dataset.longest.expanded = Math.max(dataset.longest.expanded, expanded)
  }
  return markers ? marked : record
}

/** Run `work`, and add the place of the record to the message of a DataError. */
export function named<T>(where: string, fields: object, work: () => T): T {
  try {
    return work()
  } catch (cause) {
    if (!(cause instanceof DataError)) throw cause
    throw located(cause, where, fields)
  }
}

function located(cause: DataError, where: string, fields: object): DataError {
  const { message, code: _, name: __, ...own } = cause as DataError & Record<string, unknown>
  return new DataError(`${where}: ${message}`, { ...own, ...fields, cause })
}

/** Add the data's name and the record's index (from 0) to an error. */
export const withRecordIndex = (error: DataError, name: string, place: number): DataError =>
  located(error, `${name} record ${place + 1}`, { record: place + 1 })

/**
 * Check records in memory, or of a dataset that is already open, in the same way as records of files.
 * @internal
 */
export async function checkedRecords(
  given: readonly unknown[] | SwiftDataset,
  options: ReadSwiftDatasetOptions,
): Promise<SwiftDataset> {
  const settings = checked('readSwiftDataset', options)
  const { onBadRecord, compat, seed } = settings
  const dataset = new SwiftDataset(given instanceof SwiftDataset ? given.files : [])
  const at = async (i: number) => {
    const value = given instanceof SwiftDataset ? await given.get(i) : given[i]
    return named(`record ${i + 1}`, { record: i + 1 }, () => usable(value, settings, dataset))
  }
  const all: Dataset<SwiftRecord> = { length: given.length, get: at }
  if (compat !== undefined) return dataset.open(replacing(all, seed, (error) => dataset.count(error)))
  const good: number[] = []
  for (let i = 0; i < given.length; i++) {
    try {
      await at(i)
      good.push(i)
    } catch (error) {
      if (onBadRecord === 'stop' || !(error instanceof DataError)) throw error
      dataset.count(error)
    }
  }
  return dataset.open(good.length === given.length ? all : new Subset(all, good))
}

function requireMedia(record: SwiftRecord, root: string): void {
  for (const key of MEDIA_KEYS) {
    for (const path of record[key] ?? []) {
      if (existsSync(resolve(root, path))) continue
      throw new DataError(`${key}: expected an existing file, got ${resolve(root, path)}.`, { reason: 'media', path })
    }
  }
}

const EXPANDED = 'tokens, media included'

function requireLength(length: number, most: number | undefined, what = 'tokens'): void {
  if (most === undefined || length <= most) return
  throw new DataError(`expected at most ${most} ${what}, got ${length}.`, { reason: 'length', length, most })
}

/** @throws DataError for a record with more tokens than `most`, media included */
export const requireExpanded = (length: number, most: number | undefined): void => requireLength(length, most, EXPANDED)

/** Return the cause of an error. Errors of JSON and UTF-8 have no `reason`; those of UTF-8 have a byte offset. */
function causeOf(error: DataError): SwiftCause {
  const { reason, byte } = error as DataError & { reason?: SwiftCause; byte?: unknown }
  return reason ?? (byte === undefined ? 'json' : 'encoding')
}
