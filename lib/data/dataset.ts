/**
 * Samples by index. `get` may be asynchronous, may be called for several samples at once, and should depend on nothing
 * but its arguments: what is random in it takes the epoch and the index as its seed (see `Random`).
 */
export interface Dataset<T> {
  /** Number of samples. */
  readonly length: number
  /** The sample at `index`, 0 … length - 1. `epoch` is the loader's, for augmentation that changes each time. */
  get(index: number, epoch: number): T | Promise<T>
}

/** What a stream is asked for. */
export interface StreamContext {
  epoch: number
  /** This reader's number, 0 … shards - 1, and how many read the same stream together: one for each worker. */
  shard: number
  shards: number
  /** The reader takes `BadRecord` in place of a sample. */
  takesBadRecords?: boolean
}

/**
 * Samples that come one after the other: a file larger than memory, a queue, a database. `iterate` begins anew each time,
 * and gives the same samples in the same order for the same epoch, so that a loader can go on where another stopped.
 *
 * Several workers each iterate the whole stream and keep their share, every `shards`-th sample from number `shard`, so what
 * the loader gives does not depend on the number of workers. With `sharded: true` the dataset does that itself, without
 * making the samples of others.
 */
export interface IterableDataset<T> {
  iterate(context: StreamContext): AsyncIterable<T> | Iterable<T>
  readonly sharded?: boolean
}

export { BadRecord } from './source.js'

/**
 * What a module loaded by URL exports, as `dataset` or as its default: samples, or a function that makes them. The
 * function gets the loader's `workerData`, and may be asynchronous.
 */
export type DatasetModule<T> = { dataset: DatasetExport<T> } | { default: DatasetExport<T> }

/** What a loader reads: by index, or one after the other. */
export type AnyDataset<T> = Dataset<T> | readonly T[] | IterableDataset<T> | AsyncIterable<T>

export type DatasetExport<T> = AnyDataset<T> | ((workerData: unknown) => AnyDataset<T> | Promise<AnyDataset<T>>)
