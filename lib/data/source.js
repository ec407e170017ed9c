// @ts-check
// This file and worker.js are plain JavaScript: a worker thread loads them unchanged, from the sources as from the build,
// whatever compiler the main thread uses.

/** @typedef {import('./dataset.js').Dataset<unknown>} Dataset */
/** @typedef {import('./dataset.js').IterableDataset<unknown>} IterableDataset */

/** Error of a sample that could not be read, with its index. */
export class ReadFailure {
  /**
   * @param {number} index
   * @param {unknown} error
   */
  constructor(index, error) {
    this.index = index
    this.error = error
  }
}

/**
 * Placeholder that a stream yields for a record that it skips, so that a loader counts it. Only for readers that accept it, see
 * `StreamContext`.
 */
export class BadRecord {
  /** @param {Error} error */
  constructor(error) {
    /** @readonly */
    this.error = error
    /** @readonly */
    this[BAD] = true
  }
}

// A worker has this file and a bundled copy of it from the package that its dataset imports: two classes, one symbol.
const BAD = Symbol.for('voxtorch.BadRecord')

/**
 * @param {unknown} value
 * @returns {value is BadRecord}
 */
export const isBadRecord = (value) =>
  typeof value === 'object' && value !== null && /** @type {Record<symbol, unknown>} */ (value)[BAD] === true

/** Fields of an error that say where in a file a record is. */
const PLACES = ['file', 'line', 'rowGroup', 'row', 'column', 'key']

/**
 * Return the position of a record, which an error states in its fields.
 * @param {object} error
 * @returns {Record<string, string | number>}
 */
export const placeOf = (error) =>
  Object.fromEntries(
    PLACES.map((name) => [name, /** @type {Record<string, any>} */ (error)[name]]).filter(
      ([, value]) => typeof value === 'string' || typeof value === 'number',
    ),
  )

/**
 * @param {unknown} value a dataset, or an array of samples
 * @param {string} where for the error
 * @returns {Dataset | IterableDataset}
 */
export function asDataset(value, where) {
  // The length of a sparse array is larger than its number of samples; V8 holds dense arrays only below 2^27.
  const isSparse = Array.isArray(value) && value.length > 0 && !(value.length - 1 in value && value.length < 2 ** 27)
  if (Array.isArray(value) && !isSparse) return { length: value.length, get: (index) => value[index] }
  if (typeof (/** @type {Partial<IterableDataset> | null | undefined} */ (value)?.iterate) === 'function') {
    return /** @type {IterableDataset} */ (value)
  }
  const dataset = /** @type {Partial<Dataset> | null | undefined} */ (value)
  const length = dataset?.length
  if (typeof dataset?.get === 'function' && Number.isSafeInteger(length) && Number(length) >= 0) {
    return /** @type {Dataset} */ (dataset)
  }
  const stream = /** @type {Partial<AsyncIterable<unknown>> | null | undefined} */ (value)
  if (typeof stream?.[Symbol.asyncIterator] === 'function') {
    return { iterate: () => /** @type {AsyncIterable<unknown>} */ (stream) }
  }
  throw new TypeError(
    `${where}: expected a dataset: an array, an object with length and get(index), or one with iterate() for a stream.`,
  )
}

/**
 * Load the module at `href` and return its dataset.
 * @param {string} href
 * @param {unknown} workerData
 */
export async function openDataset(href, workerData) {
  const module = await import(/* @vite-ignore */ href)
  const exported = module.dataset ?? module.default
  const value = typeof exported === 'function' ? await exported(workerData) : exported
  return asDataset(value, `The export "dataset" (or default) of ${href}`)
}

/**
 * Result of a read: samples, failures in their places, and whether a stream has ended.
 * @typedef {{ samples: (unknown | ReadFailure)[], done: boolean }} Reading
 */

/** Reads a dataset or a stream for one shard of a loader. */
export class Reader {
  /** @type {AsyncIterator<unknown> | Iterator<unknown> | undefined} */
  #iterator
  #count = 0
  /** Number of the first sample of a stream that is returned. */
  #first = 0

  /**
   * @param {Dataset | IterableDataset} dataset
   * @param {number} shard
   * @param {number} shards
   */
  constructor(dataset, shard, shards) {
    this.dataset = dataset
    this.shard = shard
    this.shards = shards
  }

  /** Number of samples; null for a stream. */
  get length() {
    return 'iterate' in this.dataset ? null : this.dataset.length
  }

  /** Values that determine the order of a stream. */
  get order() {
    return 'iterate' in this.dataset ? this.dataset.order : undefined
  }

  /**
   * Read one batch, or the next `wanted` samples of a stream. The asynchronous reads of a batch run concurrently.
   * @param {number[] | number} wanted
   * @param {number} epoch
   * @param {boolean} begin whether to start the stream over
   * @param {number} skip number of samples of the whole stream to pass over at its beginning
   * @returns {Promise<Reading>}
   */
  async read(wanted, epoch, begin, skip = 0) {
    if (typeof wanted === 'number') return this.#next(wanted, epoch, begin, skip)
    const dataset = /** @type {Dataset} */ (this.dataset)
    const samples = await Promise.all(
      wanted.map(async (index) => {
        try {
          return await dataset.get(index, epoch)
        } catch (error) {
          return new ReadFailure(index, error)
        }
      }),
    )
    return { samples, done: false }
  }

  /**
   * @param {number} wanted
   * @param {number} epoch
   * @param {boolean} begin
   * @param {number} skip
   * @returns {Promise<Reading>}
   */
  async #next(wanted, epoch, begin, skip) {
    /** @type {unknown[]} */
    const samples = []
    try {
      if (begin) await this.#begin(epoch, skip)
      while (samples.length < wanted) {
        const step = await this.#iterator?.next()
        if (!step || step.done) {
          this.#iterator = undefined
          return { samples, done: true }
        }
        const { sharded } = /** @type {IterableDataset} */ (this.dataset)
        const count = this.#count++
        const number = sharded ? count * this.shards + this.shard : count
        if (number >= this.#first && number % this.shards === this.shard) samples.push(step.value)
      }
    } catch (error) {
      this.#iterator = undefined
      const { sharded } = /** @type {IterableDataset} */ (this.dataset)
      samples.push(new ReadFailure(sharded ? this.#count * this.shards + this.shard : this.#count, error))
      return { samples, done: true }
    }
    return { samples, done: false }
  }

  /**
   * @param {number} epoch
   * @param {number} skip
   */
  async #begin(epoch, skip) {
    await this.close()
    const { shard, shards } = this
    const dataset = /** @type {IterableDataset} */ (this.dataset)
    this.#first = skip
    this.#count = !dataset.seekable ? 0 : dataset.sharded ? Math.max(0, Math.ceil((skip - shard) / shards)) : skip
    const stream = dataset.iterate({
      epoch,
      shard,
      shards,
      takesBadRecords: true,
      ...(dataset.seekable && { skip }),
    })
    const either = /** @type {Partial<AsyncIterable<unknown> & Iterable<unknown>> | null} */ (stream)
    const begin = either?.[Symbol.asyncIterator] ?? either?.[Symbol.iterator]
    if (typeof begin !== 'function') throw new TypeError('iterate() of the dataset: expected an iterator or iterable')
    this.#iterator = /** @type {() => AsyncIterator<unknown>} */ (begin).call(stream)
  }

  /** Close a stream that has not ended, so that it frees its resources. */
  async close() {
    const iterator = this.#iterator
    this.#iterator = undefined
    await iterator?.return?.()
  }
}
