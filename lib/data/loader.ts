import { setImmediate as macrotask } from 'node:timers/promises'
import { ConfigError } from '../native/errors.js'
import { scope, Tensor } from '../tensor/index.js'
import { keepForever } from '../tensor/scope.js'
import { requireFunction, requireObject, requireWhole } from './check.js'
import type { Dataset } from './dataset.js'
import { checkPlan, countBatches, type PlanOptions, planBatches } from './plan.js'
import { LocalSource, type Source, WorkerPool } from './pool.js'

export interface DataLoaderOptions<T, B> extends PlanOptions {
  /** Makes a batch of samples, with tensors in it; see `padCollate`. Default: the array of samples as it is. */
  collate?: (samples: T[]) => B | Promise<B>
  /** Threads that read samples; needs a dataset given as a URL. Default 0: the calling thread reads. */
  workers?: number
  /** Given to the dataset module's function, in each worker; copied by structured clone. */
  workerData?: unknown
  /** Batches read ahead, for each worker. Default 2; without workers 0, or ahead by what asynchronous reads allow. */
  prefetch?: number
  /** Free a batch's tensors when the next is asked for and when the loop is left. Default true. */
  freeBatches?: boolean
  /** Keep workers alive from one epoch to the next, until `close()`. Default false: they end with the loop. */
  persistentWorkers?: boolean
}

/**
 * Batches of a dataset, one epoch for each `for await` loop:
 *
 * ```ts
 * const loader = new DataLoader(samples, { batchSize: 32, shuffle: true, seed: 1, collate: padCollate({ … }) })
 * for await (const { inputIds, attentionMask } of loader) { … }
 * ```
 *
 * The dataset is an array, a `Dataset`, or the URL of a module that exports one (see `DatasetModule`), which worker
 * threads load: `new DataLoader(new URL('./dataset.js', import.meta.url), { workers: 2 })`. Typed arrays in a sample
 * come back from a worker as views on shared memory; other values by structured clone; class instances cannot.
 *
 * - **Order** depends on (seed, epoch, options) alone, never on timing. Each loop is the next epoch; `setEpoch` sets it.
 * - **A loader frees the batch**: with `freeBatches` the tensors of a batch belong to the loader, whatever scope the
 *   loop runs in, and are disposed when the next batch is asked for or the loop is left. Clone what has to live on.
 *   Tensors are best made in `collate`: those that a dataset's `get` returns stay the dataset's.
 * - **Leaving the loop**, by break, return or error, ends the workers. The loop gives up a macrotask before each batch,
 *   so that timers, input and garbage collection get their turn.
 *
 * Errors: `DataError` with `index` and `cause` when a sample cannot be read; `ConfigError` on bad options.
 */
export class DataLoader<T, B = T[]> implements AsyncIterable<B> {
  readonly #dataset: Dataset<T> | readonly T[] | URL
  readonly #options: DataLoaderOptions<T, B>
  #epoch = 0
  #length: number | undefined
  #idle: Source | undefined

  constructor(dataset: Dataset<T> | readonly T[] | URL, options: DataLoaderOptions<T, B> = {}) {
    requireObject('DataLoader', 'options', options)
    checkPlan(options)
    const { workers = 0, prefetch = 0, collate } = options
    requireWhole('DataLoader', 'workers', workers)
    requireWhole('DataLoader', 'prefetch', prefetch)
    if (collate !== undefined) requireFunction('DataLoader', 'collate', collate)
    if (workers > 0 && !(dataset instanceof URL)) {
      throw new ConfigError(
        'DataLoader can only use workers on a dataset that they can load: give the URL of a module that exports it',
        {},
      )
    }
    this.#dataset = dataset
    this.#options = options
    if (!(dataset instanceof URL)) this.#length = new LocalSource(dataset).length
  }

  /** The epoch that the next loop runs: 0 at first. */
  get epoch(): number {
    return this.#epoch
  }

  setEpoch(epoch: number): void {
    requireWhole('DataLoader', 'epoch', epoch)
    this.#epoch = epoch
  }

  /** Batches in an epoch. For a dataset given as a URL it is known after `ready()`, for a sampler function never. */
  get length(): number {
    const count = this.#length === undefined ? undefined : countBatches(this.#length, this.#options)
    if (count === undefined) {
      throw new ConfigError(
        this.#length === undefined
          ? 'The length of a DataLoader over a module is unknown until it is loaded: await loader.ready() first'
          : 'The length of a DataLoader is unknown when its sampler is a function or has no length',
        {},
      )
    }
    return count
  }

  /** Loads the dataset module, so that `length` is known; the first loop uses what was loaded. */
  async ready(): Promise<this> {
    if (this.#length === undefined) this.#idle = await this.#open()
    return this
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<B, void, undefined> {
    const { collate, workers = 0, prefetch = workers ? 2 : 0, freeBatches = true, persistentWorkers } = this.#options
    const epoch = this.#epoch++
    const source = await this.#open()
    const owned: Tensor[] = []
    let complete = false
    try {
      const plan = planBatches(source.length, this.#options, epoch)
      const ahead = Math.max(1, prefetch * Math.max(1, workers))
      let requested = 0
      const request = () => {
        const next = plan.next()
        if (!next.done) source.request(requested++, next.value, epoch)
        return !next.done
      }
      for (let i = 0; i < ahead && request(); i++);
      for (let batch = 0; batch < requested; batch++) {
        const samples = (await source.take(batch)) as T[]
        if (prefetch > 0) request()
        await macrotask()
        const result = collate ? await scope(() => collate(samples)) : (samples as B)
        if (collate && freeBatches) owned.push(...made(result, samples))
        for (const tensor of owned) keepForever(tensor)
        yield result
        free(owned)
        if (prefetch === 0) request()
      }
      complete = true
    } finally {
      free(owned)
      if (complete && persistentWorkers && !this.#idle) this.#idle = source
      else await source.close()
    }
  }

  /** Ends workers that are waiting for a loop: those of `persistentWorkers`, or of a `ready()` that none followed. */
  async close(): Promise<void> {
    const idle = this.#idle
    this.#idle = undefined
    await idle?.close()
  }

  async #open(): Promise<Source> {
    const idle = this.#idle
    this.#idle = undefined
    if (idle) return idle
    const { workers, workerData } = this.#options
    const dataset = this.#dataset
    if (!(dataset instanceof URL)) return new LocalSource(dataset)
    const source = await (workers
      ? WorkerPool.open(dataset, workers, workerData)
      : LocalSource.open(dataset, workerData))
    this.#length = source.length
    return source
  }
}

/** The tensors that collate made: those in the batch that the samples did not hold already. */
function made(batch: unknown, samples: unknown[]): Set<Tensor> {
  const tensors = tensorsIn(batch)
  for (const tensor of tensorsIn(samples)) tensors.delete(tensor)
  return tensors
}

/** The tensors in arrays, maps and an object's own fields. */
function tensorsIn(value: unknown, found = new Set<Tensor>()): Set<Tensor> {
  if (value instanceof Tensor) return found.add(value)
  if (typeof value !== 'object' || value === null || ArrayBuffer.isView(value)) return found
  if (Array.isArray(value) && typeof value[0] === 'number') return found
  const items = Array.isArray(value) ? value : value instanceof Map ? value.values() : Object.values(value)
  for (const item of items) tensorsIn(item, found)
  return found
}

function free(tensors: Tensor[]): void {
  for (const tensor of tensors.splice(0)) tensor.dispose()
}
