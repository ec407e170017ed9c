/**
 * Samples by index. `get` may be asynchronous and may be called for several samples at once. It should depend only on its
 * arguments: seed random augmentation with the epoch and the index (see `Random`).
 */
export interface Dataset<T> {
  /** Number of samples. */
  readonly length: number
  /** Return the sample at `index`, 0 … length - 1. `epoch` is the loader's, for augmentation that changes each time. */
  get(index: number, epoch: number): T | Promise<T>
}

/** Context of an iteration over a stream. */
export interface StreamContext {
  epoch: number
  /** Number of this reader, 0 … shards - 1, and number of readers of the same stream: one for each worker. */
  shard: number
  shards: number
  /** Number of records of the whole stream to pass over; only a `seekable` dataset receives one above 0. */
  skip?: number
  /** Whether the reader accepts `BadRecord` in place of a sample. */
  takesBadRecords?: boolean
}

/**
 * Samples as a stream: from a file larger than memory, a queue, a database. `iterate` starts over each time, and yields the
 * same samples in the same order for the same epoch, so that a loader can resume.
 *
 * Each of several workers iterates the whole stream and keeps every `shards`-th sample from number `shard`, so the loader's
 * output does not depend on the number of workers. With `sharded: true` the dataset does that itself, without producing the
 * other workers' samples.
 */
export interface IterableDataset<T> {
  iterate(context: StreamContext): AsyncIterable<T> | Iterable<T>
  readonly sharded?: boolean
  /**
   * Whether `iterate` begins with record number `skip` of its context, so that a loader that resumes does not read those before
   * it. Default false: the reader drops them.
   */
  readonly seekable?: boolean
  /**
   * Values that determine the records and their order, such as a digest of the files. A loader's state contains them, and a
   * loader whose stream has others rejects the state.
   */
  readonly order?: StreamOrder
}

/** Values that determine the order of a stream, by name. */
export type StreamOrder = Readonly<Record<string, string | number | boolean>>

export { BadRecord } from './source.js'

/**
 * Exports of a dataset module that is loaded by URL, as `dataset` or as its default: samples, or a function that returns them.
 * The function receives the loader's `workerData`, and may be asynchronous.
 */
export type DatasetModule<T> = { dataset: DatasetExport<T> } | { default: DatasetExport<T> }

/** Dataset of a loader: by index, or a stream. */
export type AnyDataset<T> = Dataset<T> | readonly T[] | IterableDataset<T> | AsyncIterable<T>

export type DatasetExport<T> = AnyDataset<T> | ((workerData: unknown) => AnyDataset<T> | Promise<AnyDataset<T>>)
