import { argumentError, requireBoolean, requireOneOf, requireWhole } from '../base/check.js'
import { ConfigError, DataError, VoxtorchError } from '../base/errors.js'
import { didYouMean } from '../base/words.js'
import { BadRecord, type IterableDataset, type StreamContext, type StreamOrder } from '../data/dataset.js'
import { Random } from '../data/random.js'
import { quoted } from '../files/byte-source.js'
import { MediaError, type MediaFeatures, withMedia } from './features.js'
import type { FileItem, RecordFile } from './record-files.js'

export interface StreamingOptions {
  /** Top-level columns to read. Default: all. */
  columns?: readonly string[]
  /**
   * Columns that hold audio or images, by name; they take precedence over those that the dataset states. Their values become
   * {@link MediaFile}s, which `decodeAudio` and `decodeImage` decode.
   */
  features?: MediaFeatures
  /** Folder that paths of media are relative to, and must stay in. Default: the dataset's folder, or the file's. */
  mediaRoot?: string
  /** Read the files in another order each epoch. Combine with the loader's `shuffleBuffer`. Default false. */
  shuffleFiles?: boolean
  /** Seed of the order of files. Default 0. */
  seed?: number
  /**
   * Action for a record that cannot be read while those after it can, such as a line that is not JSON: 'stop' (default) throws,
   * 'skip' leaves it out; a loader counts it in `badRecords`. A file that is damaged otherwise is always an error, and so is a
   * dataset of which no record can be read, as with a misspelled column.
   */
  onBadRecord?: 'stop' | 'skip'
}

/** A record, or its error, with its file and the folder that paths of its media are relative to. */
export interface LocatedItem extends FileItem {
  readonly file: string
  readonly root: string
}

/** Position in a stream: continue with the record of this number. */
type Position = Partial<StreamContext>

/**
 * Records of Parquet, JSON Lines and tar files, read from the disk in sequence: of any number of files of any size, in the memory
 * of a page of each column, a line, or a record. Created by {@link loadDataset}.
 *
 * Pass it to a `DataLoader`, which batches, shuffles (`shuffleBuffer`), divides the records among ranks (`shard`) and workers,
 * and saves its position (`state`). Resuming passes over records without decoding them, and over Parquet files without reading
 * them. Workers need a module that exports the dataset.
 *
 * ```ts
 * const loader = new DataLoader(await loadDataset('data'), { batchSize: 8, shuffleBuffer: 1000, shard: { rank, worldSize } })
 * ```
 */
export class StreamingDataset<T = Record<string, unknown>> implements IterableDataset<T> {
  readonly sharded = true
  readonly seekable = true
  /** Paths of the files in order. */
  readonly files: readonly string[]
  /** Columns that hold audio or images. */
  readonly features: MediaFeatures
  /** Values that determine the records and their order: digest of the files' names and sizes, split, order of files. */
  readonly order: StreamOrder
  readonly #files: readonly RecordFile[]
  readonly #options: StreamingOptions
  readonly #rootOf: (file: string) => string
  /** Names of the option `features` that no record has had. */
  readonly #unseen: Set<string>
  #badRecords = 0

  /** @internal */
  constructor(
    files: readonly RecordFile[],
    features: MediaFeatures,
    options: StreamingOptions,
    rootOf: (file: string) => string,
    order: StreamOrder,
  ) {
    this.#files = files
    this.files = files.map(({ file }) => file)
    this.features = features
    this.#options = options
    this.#rootOf = rootOf
    this.#unseen = new Set(Object.keys(options.features ?? {}))
    const { shuffleFiles = false, seed = 0 } = options
    this.order = { ...order, shuffleFiles, ...(shuffleFiles && { seed }) }
  }

  /** Number of records that iterations in this thread have left out, outside of a loader. */
  get badRecords(): number {
    return this.#badRecords
  }

  /**
   * Iterate over the records of an epoch: number `skip` and those after it, of them every `shards`-th from number `shard`.
   * @throws DataError with `file`, and the row, line or key where they are known
   */
  async *iterate({ takesBadRecords = false, ...position }: Position = {}): AsyncGenerator<T, void, void> {
    const { onBadRecord = 'stop' } = this.#options
    let isUsable = false
    let firstError: DataError | undefined
    for await (const { record, error } of this.located(position)) {
      if (error === undefined) {
        isUsable = true
        yield record as T
        continue
      }
      if (onBadRecord === 'stop') throw error
      firstError ??= error
      if (takesBadRecords) yield new BadRecord(error) as T
      else this.#badRecords++
    }
    if (isUsable && !position.skip && (position.shards ?? 1) === 1 && this.#unseen.size > 0) this.#warnOfFeatures()
    if (firstError !== undefined && !isUsable && !(await this.#hasUsable())) throw firstError
  }

  /** Iterate like `iterate`, with the file and place of each record, and the error of each that cannot be read. @internal */
  async *located({
    epoch = 0,
    shard = 0,
    shards = 1,
    skip = 0,
  }: Position = {}): AsyncGenerator<LocatedItem, void, void> {
    const { shuffleFiles = false, seed = 0 } = this.#options
    const order = shuffleFiles ? new Random(seed, epoch).shuffle([...this.#files]) : this.#files
    let start = 0
    for (const file of order) {
      const count = start < skip ? await file.count() : undefined
      if (count !== undefined && start + count <= skip) {
        start += count
        continue
      }
      const first = start
      const root = this.#rootOf(file.file)
      const items = file.records(Math.max(0, skip - first), (record) => (first + record) % shards === shard)
      try {
        for (;;) {
          const step = await items.next()
          if (step.done) {
            start += step.value
            break
          }
          yield { ...this.#withMedia(file.file, step.value), file: file.file, root }
        }
      } finally {
        await items.return(0)
      }
    }
  }

  #warnOfFeatures(): void {
    const names = [...this.#unseen].map(quoted).join(', ')
    this.#unseen.clear()
    process.emitWarning(`${this.files[0]}: no record has a column ${names}, which features name`, 'DatasetWarning')
  }

  /** Return whether any record can be read, of all files. */
  async #hasUsable(): Promise<boolean> {
    for await (const { error } of this.located()) if (error === undefined) return true
    return false
  }

  #withMedia(file: string, item: FileItem): FileItem {
    const { record, place } = item
    if (record === undefined) return item
    try {
      for (const [name, feature] of Object.entries(this.features)) {
        if (!Object.hasOwn(record, name)) continue
        this.#unseen.delete(name)
        record[name] = withMedia(feature, record[name], this.#rootOf(file), name)
      }
      return item
    } catch (cause) {
      if (cause instanceof VoxtorchError || !(cause instanceof MediaError)) throw cause
      const where = Object.entries(place).map(([key, value]) => `${key} ${String(value)}, `)
      const fields = { file, ...place, column: cause.column }
      return {
        error: new DataError(`${file}: ${where.join('')}column '${cause.column}': ${cause.what}`, fields),
        place,
      }
    }
  }
}

/** Names of the options. @internal */
export const STREAMING_OPTIONS = [
  'columns',
  'features',
  'mediaRoot',
  'shuffleFiles',
  'seed',
  'onBadRecord',
] as const satisfies readonly (keyof StreamingOptions)[]

/** Check options whose values no other function checks. @internal */
export function checkStreaming(where: string, options: StreamingOptions): void {
  const { columns, features, shuffleFiles, seed, onBadRecord } = options
  if (shuffleFiles !== undefined) requireBoolean(where, 'shuffleFiles', shuffleFiles)
  if (seed !== undefined) requireWhole(where, 'seed', seed)
  if (onBadRecord !== undefined) requireOneOf(where, 'onBadRecord', onBadRecord, ['stop', 'skip'])
  if (seed !== undefined && shuffleFiles !== true) {
    throw new ConfigError(`${where}: expected seed with shuffleFiles: true, got it without. Leave it out`, {
      argument: 'seed',
    })
  }
  if (features === undefined) return
  requireFeatures(where, 'features', features, 0)
  const other = Object.keys(features).find((name) => columns !== undefined && !columns.includes(name))
  if (other === undefined) return
  throw new ConfigError(
    `${where}: features: expected names of columns (${columns?.map(quoted).join(', ')}), got ${quoted(other)}${didYouMean(other, columns ?? [])}`,
    { argument: 'features' },
  )
}

function requireFeatures(where: string, name: string, value: unknown, depth: number): void {
  if (depth > 0 && (value === 'audio' || value === 'image')) return
  if (typeof value !== 'object' || value === null || Array.isArray(value) || depth > 32) {
    throw argumentError(
      where,
      name,
      depth === 0 ? "an object such as { audio: 'audio' }" : "'audio', 'image' or an object",
      value,
    )
  }
  for (const [key, inner] of Object.entries(value)) requireFeatures(where, `${name}.${key}`, inner, depth + 1)
}
