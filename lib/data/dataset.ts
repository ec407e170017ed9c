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

/**
 * What a module loaded by URL exports, as `dataset` or as its default: samples, or a function that makes them. The
 * function gets the loader's `workerData`, and may be asynchronous.
 */
export type DatasetModule<T> = { dataset: DatasetExport<T> } | { default: DatasetExport<T> }

export type DatasetExport<T> =
  | Dataset<T>
  | readonly T[]
  | ((workerData: unknown) => Dataset<T> | readonly T[] | Promise<Dataset<T> | readonly T[]>)
