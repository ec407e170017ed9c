import { setImmediate as macrotask } from 'node:timers/promises'
import {
  argumentError,
  requireFunction,
  requireObject,
  requireOneOf,
  requireOptions,
  requireWhole,
} from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { withContext } from '../native/context.js'
import { scope, type Tensor } from '../tensor/index.js'
import { intoScope, keepForever } from '../tensor/scope.js'
import type { AnyDataset, StreamOrder } from './dataset.js'
import { type DataLoaderState, orderOf, refuseOtherOrder } from './loader-state.js'
import { pinned, tensorsIn, warnWithoutCuda } from './pin.js'
import { checkPlan, countBatches, type PlanOptions, planBatches, shareOf } from './plan.js'
import { LocalSource, type Source, Unread, WorkerPool } from './pool.js'
import { Random } from './random.js'
import { inOrder, type StreamPosition, shuffled, streamSamples } from './stream-batches.js'

export interface DataLoaderOptions<T, B> extends PlanOptions {
  /** Combine samples into a batch of tensors; see `padCollate`. Default: the array of samples. */
  collate?: (samples: T[]) => B | Promise<B>
  /** Number of threads that read samples; needs a dataset given as a URL. Default 0: the calling thread reads. */
  workers?: number
  /** Argument of the dataset module's function in each worker; copied by structured clone. */
  workerData?: unknown
  /** Number of batches that each worker prefetches. Default 2; without workers 0, or as asynchronous reads allow. */
  prefetch?: number
  /**
   * Build the next batch while the loop is busy with the current one, for a `collate` that waits for files. Only one batch is
   * built ahead. Random numbers that `collate` draws from the default generator then come before the loop's draws. Default
   * false.
   */
  collateAhead?: boolean
  /** Free a batch's tensors when the next one is requested and when the loop is left. Default true. */
  freeBatches?: boolean
  /** Keep workers alive between epochs, until `close()`. Default false: they end with the loop. */
  persistentWorkers?: boolean
  /**
   * Action for a sample that cannot be read: 'stop' (default) throws, 'skip' leaves it out of its batch and counts it in
   * `badRecords`; an empty batch is skipped.
   */
  onBadRecord?: 'stop' | 'skip'
  /** Shuffle a stream approximately with a buffer of this many samples. Default 0: the stream's order. */
  shuffleBuffer?: number
  /**
   * Copy the tensors of `collate` into page-locked memory, which makes asynchronous copies to a GPU possible. Without a CUDA
   * device this only warns, as in PyTorch.
   */
  pinMemory?: boolean
}

const OPTIONS: readonly (keyof DataLoaderOptions<unknown, unknown>)[] = [
  'batchSize',
  'shuffle',
  'seed',
  'dropLast',
  'lengthBuckets',
  'sampler',
  'batchSampler',
  'shard',
  'collate',
  'workers',
  'workerData',
  'prefetch',
  'collateAhead',
  'freeBatches',
  'persistentWorkers',
  'onBadRecord',
  'shuffleBuffer',
  'pinMemory',
]

/** Return whether a value is a URL. False for a revoked proxy, where `instanceof` throws. */
function isUrl(value: unknown): value is URL {
  try {
    return value instanceof URL
  } catch {
    return false
  }
}

/**
 * Iterates over batches of a dataset, one epoch per `for await` loop:
 *
 * ```ts
 * const loader = new DataLoader(samples, { batchSize: 32, shuffle: true, seed: 1, collate: padCollate({ … }) })
 * for await (const { inputIds, attentionMask } of loader) { … }
 * ```
 *
 * The dataset is an array, a `Dataset`, a stream (`IterableDataset`, or anything with an asynchronous iterator), or the URL of
 * a module that exports one (see `DatasetModule`), which worker threads load: `new DataLoader(new URL('./dataset.js',
 * import.meta.url), { workers: 2 })`. Typed arrays in a sample return from a worker as views on shared memory; other values by
 * structured clone; class instances are not supported.
 *
 * - **Order** depends on (seed, epoch, options) alone, never on timing. Each loop runs the next epoch; `setEpoch` sets it.
 * - **Freeing batches**: with `freeBatches` the tensors of a batch belong to the loader, in whatever scope the loop runs. They
 *   are disposed when the next batch is requested or the loop is left. Clone tensors to keep them. Create tensors in `collate`:
 *   those that a dataset's `get` returns belong to the dataset.
 * - **Leaving the loop**, by break, return or error, ends the workers. The loop yields to the event loop before each batch, so
 *   that timers, input and garbage collection can run.
 *
 * - **Resuming**: call `state()` inside the loop, and `loadState()` on a loader with the same options. The first loop then
 *   returns exactly the batches that were not returned yet. The samples before them are not read again, except in a stream that
 *   is not `seekable`, where they are read and dropped.
 *
 * @throws DataError with `index` and `cause` if a sample cannot be read; ConfigError for invalid options
 */
export class DataLoader<T, B = T[]> implements AsyncIterable<B> {
  readonly #dataset: AnyDataset<T> | URL
  readonly #options: DataLoaderOptions<T, B>
  #epoch = 0
  /** Number of batches that the next loop skips. */
  #skip = 0
  /** Position in the stream at which the next loop begins. Undefined: after `#skip` batches. */
  #records: StreamPosition | undefined
  /** Position in the last loop, until it is finished. */
  #running:
    | {
        epoch: number
        position: number
        records: StreamPosition | undefined
        badBefore: number
        badRecords: number
        sampler: unknown
      }
    | undefined
  #badRecords = 0
  /** undefined: not known yet; null: a stream. */
  #length: number | null | undefined
  #order: StreamOrder | undefined
  /** Order of a state that is compared with the dataset once that is loaded. */
  #saved: DataLoaderState['order'] | undefined
  #idle: Source | undefined

  constructor(dataset: AnyDataset<T> | URL, options: DataLoaderOptions<T, B> = {}) {
    requireOptions('DataLoader', options, OPTIONS)
    checkPlan(options)
    const { workers = 0, prefetch = 0, collate, onBadRecord = 'stop', shuffleBuffer = 0, pinMemory = false } = options
    const { collateAhead = false } = options
    if (typeof collateAhead !== 'boolean') throw argumentError('DataLoader', 'collateAhead', 'a boolean', collateAhead)
    requireOneOf('DataLoader', 'onBadRecord', onBadRecord, ['stop', 'skip'])
    requireWhole('DataLoader', 'shuffleBuffer', shuffleBuffer)
    if (typeof pinMemory !== 'boolean') throw argumentError('DataLoader', 'pinMemory', 'a boolean', pinMemory)
    if (pinMemory) warnWithoutCuda()
    requireWhole('DataLoader', 'workers', workers)
    requireWhole('DataLoader', 'prefetch', prefetch)
    if (collate !== undefined) requireFunction('DataLoader', 'collate', collate)
    if (workers > 0 && !isUrl(dataset)) {
      throw new ConfigError(
        'DataLoader.workers: expected a dataset that workers can load. Pass the URL of a module that exports it',
        {},
      )
    }
    this.#dataset = dataset
    this.#options = options
    if (!isUrl(dataset)) this.#setSource(new LocalSource(dataset))
  }

  /** Epoch of the next loop, from 0. */
  get epoch(): number {
    return this.#epoch
  }

  /** Whether several processes may use the data: the options have a `shard`, or an order that the caller defines. */
  get sharded(): boolean {
    const { shard, sampler, batchSampler } = this.#options
    return Boolean(shard || sampler || batchSampler)
  }

  /** Set the epoch of the next loop, and the batch at which it begins: those before it are not read. */
  setEpoch(epoch: number, firstBatch = 0): void {
    requireWhole('DataLoader', 'epoch', epoch)
    requireWhole('DataLoader', 'firstBatch', firstBatch)
    this.#epoch = epoch
    this.#skip = firstBatch
    this.#records = undefined
    this.#saved = undefined
    this.#running = undefined
  }

  /** Number of samples left out so far, with `onBadRecord: 'skip'` or by a stream itself. */
  get badRecords(): number {
    return this.#badRecords
  }

  /**
   * Return the position as plain data. Inside a loop the last returned batch counts as done. After a loop that was left early,
   * the state continues it; after a finished one, it starts the next epoch.
   */
  state(): DataLoaderState {
    const order = orderOf(this.#options, this.#length, this.#order)
    const { epoch, position, records, badBefore, badRecords, sampler } = this.#running ?? {
      epoch: this.#epoch,
      position: this.#skip,
      records: this.#records,
      badBefore: this.#badRecords,
      badRecords: this.#badRecords,
      sampler: this.#sampler()?.state?.(),
    }
    return {
      epoch,
      position,
      ...(records && { records: { ...records } }),
      // Without a position in a stream, it is read again, and its bad records are counted again.
      badRecords: this.#length === null && !records ? badBefore : badRecords,
      order,
      ...(sampler !== undefined && { sampler: structuredClone(sampler) }),
    }
  }

  /**
   * Continue at a saved position in the next loop; later loops run the epochs that follow.
   * @throws ConfigError for a value that is not a state, or the state of a loader with another order: another seed, batch size,
   *   …
   */
  loadState(state: DataLoaderState): void {
    requireObject('DataLoader.loadState', 'state', state)
    requireWhole('DataLoader.loadState', 'state.epoch', state.epoch)
    requireWhole('DataLoader.loadState', 'state.position', state.position)
    requireWhole('DataLoader.loadState', 'state.badRecords', state.badRecords)
    if (state.records !== undefined) {
      requireObject('DataLoader.loadState', 'state.records', state.records)
      const { drawn, length } = state.records
      requireWhole('DataLoader.loadState', 'state.records.drawn', drawn)
      if (length !== undefined) requireWhole('DataLoader.loadState', 'state.records.length', length, drawn)
    }
    refuseOtherOrder(state.order, orderOf(this.#options, this.#length, this.#order))
    this.#saved = this.#length === undefined ? { ...state.order } : undefined
    if (state.sampler !== undefined) this.#sampler()?.loadState?.(structuredClone(state.sampler) as never)
    this.#epoch = state.epoch
    this.#skip = state.position
    this.#records = state.records && { ...state.records }
    this.#badRecords = state.badRecords
    this.#running = undefined
  }

  /** Number of batches in an epoch. Known after `ready()` for a dataset given as a URL, and never for a sampler function. */
  get length(): number {
    const count = typeof this.#length === 'number' ? countBatches(this.#length, this.#options) : undefined
    if (count === undefined) {
      if (this.#length === null)
        throw new ConfigError('DataLoader.length: expected a dataset with a length, got a stream', {})
      throw new ConfigError(
        this.#length === undefined
          ? 'DataLoader.length: expected a loaded dataset module. Await loader.ready() first'
          : 'DataLoader.length: expected a sampler with a length, got one without',
        {},
      )
    }
    return count
  }

  /** Load the dataset module, so that `length` is known; the first loop uses it. */
  async ready(): Promise<this> {
    if (this.#length === undefined) this.#idle = await this.#open()
    return this
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<B, void, undefined> {
    const { collate, workers = 0, prefetch = workers ? 2 : 0, freeBatches = true, pinMemory = false } = this.#options
    const { collateAhead = false } = this.#options
    const running = {
      epoch: this.#epoch++,
      position: this.#skip,
      records: this.#records,
      badBefore: this.#badRecords,
      badRecords: this.#badRecords,
      sampler: this.#sampler()?.state?.(),
    }
    this.#skip = 0
    this.#records = undefined
    this.#running = running
    const source = await this.#open()
    const owned: Tensor[] = []
    let complete = false
    const ahead = prefetch * Math.max(1, workers)
    const batches =
      source.length === null
        ? this.#streamed(source, running, ahead)
        : this.#planned(source, source.length, running, ahead)
    const take = async () => {
      const { value, done } = await batches.next()
      if (done || value === undefined) return undefined
      await macrotask()
      const { samples, position, records } = value
      const made = collate && samples.length > 0 && (await scope(() => this.#make(collate, samples, pinMemory)))
      const tensors = made ? [...made.tensors] : []
      if (freeBatches) for (const tensor of tensors) keepForever(tensor)
      return { batch: made ? made.batch : (samples as B), tensors, position, records, badRecords: this.#badRecords }
    }
    let next: ReturnType<typeof take> | undefined
    try {
      for (;;) {
        const taken = await (next ?? take())
        next = undefined
        if (taken === undefined) break
        const { batch, tensors, position, records, badRecords } = taken
        if (freeBatches) owned.push(...tensors)
        else if (collateAhead) for (const tensor of tensors) intoScope(tensor)
        Object.assign(running, { position, records, badRecords })
        if (collateAhead) {
          // The scope of the loop's body may end before the batch is built.
          next = withContext({ scope: null }, take)
          next.catch(() => {})
        }
        yield batch
        free(owned)
      }
      complete = true
      if (this.#running === running) this.#running = undefined
    } finally {
      free(owned)
      free((await next?.catch(() => undefined))?.tensors ?? [])
      await batches.return()
      if (complete && this.#options.persistentWorkers && !this.#idle) this.#idle = source
      else await source.close()
    }
  }

  /** Build a batch; also returns its tensors that the samples did not contain already. */
  async #make(collate: NonNullable<DataLoaderOptions<T, B>['collate']>, samples: T[], pin: boolean) {
    const batch = pin ? pinned(await collate(samples)) : await collate(samples)
    const tensors = tensorsIn(batch)
    for (const tensor of tensorsIn(samples)) tensors.delete(tensor)
    return { batch, tensors }
  }

  /** Yield the samples of each batch, read by index, with the number of batches so far in the epoch. */
  async *#planned(source: Source, length: number, running: { epoch: number; position: number }, ahead: number) {
    const { epoch } = running
    let { position } = running
    const plan = planBatches(length, this.#options, epoch)
    for (let i = 0; i < position && !plan.next().done; i++);
    let requested = 0
    const request = () => {
      const next = plan.next()
      if (!next.done) source.request(requested++, next.value, epoch)
      return !next.done
    }
    for (let i = 0; i < Math.max(1, ahead) && request(); i++);
    for (let batch = 0; batch < requested; batch++) {
      const { samples } = await source.take(batch)
      if (ahead > 0) request()
      const good = samples.filter((sample) => this.#readable(sample))
      position++
      if (good.length > 0 || this.#options.shard) yield { samples: good as T[], position, records: undefined }
      if (ahead === 0) request()
    }
  }

  /** Yield the samples of each batch of a stream, with the number of batches so far in the epoch. */
  async *#streamed(
    source: Source,
    running: { epoch: number; position: number; records: StreamPosition | undefined },
    ahead: number,
  ) {
    const { batchSize = 1, dropLast = false, seed = 0, shuffleBuffer = 0 } = this.#options
    const { epoch } = running
    const at: StreamPosition = { ...(running.records ?? { drawn: 0 }) }
    const shared = (whole: T[], position: number) => ({
      samples: shareOf(whole, this.#options.shard),
      position,
      records: { ...at },
    })
    const read = (skip: number) => this.#unbroken(streamSamples(source, epoch, batchSize, ahead, skip))
    const samples = shuffleBuffer > 0 ? shuffled(read, shuffleBuffer, new Random(seed, epoch), at) : inOrder(read, at)
    let { position } = running
    let drop = running.records ? 0 : position
    let batch: T[] = []
    for await (const sample of samples) {
      if (!this.#readable(sample)) continue
      batch.push(sample as T)
      if (batch.length < batchSize) continue
      const full = batch
      batch = []
      if (drop-- > 0) continue
      position++
      yield shared(full, position)
    }
    if (batch.length === 0 || dropLast || drop > 0) return
    yield shared(batch, position + 1)
  }

  /** Yield the samples of a stream, which cannot continue after an error of its own. */
  async *#unbroken(samples: AsyncIterable<unknown>) {
    for await (const sample of samples) {
      if (sample instanceof Unread && !sample.passed) throw sample.error
      yield sample
    }
  }

  /** Return whether a value is a sample. One that could not be read is counted or thrown. */
  #readable(sample: unknown): boolean {
    if (!(sample instanceof Unread)) return true
    if (!sample.passed && this.#options.onBadRecord !== 'skip') throw sample.error
    this.#badRecords++
    return false
  }

  /** End workers that wait for a loop: those of `persistentWorkers`, or of a `ready()` without a loop after it. */
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
    try {
      this.#setSource(source)
      if (this.#saved) refuseOtherOrder(this.#saved, orderOf(this.#options, this.#length, this.#order))
      this.#saved = undefined
    } catch (error) {
      await source.close()
      throw error
    }
    return source
  }

  #setSource({ length, order: stream }: Source): void {
    const { shuffleBuffer, shuffle, sampler, batchSampler, lengthBuckets } = this.#options
    if (length !== null && shuffleBuffer) {
      throw new ConfigError('DataLoader.shuffleBuffer: expected a stream, got a dataset with a length. Use shuffle', {})
    }
    const orders = { shuffle, sampler, batchSampler, lengthBuckets }
    const order = length === null && Object.entries(orders).find(([, value]) => value)
    if (order) {
      throw new ConfigError(
        `DataLoader.${order[0]}: expected a dataset with random access, got a stream. Use shuffleBuffer`,
        { argument: order[0] },
      )
    }
    this.#length = length
    this.#order = stream && { ...stream }
  }

  #sampler(): { state?(): unknown; loadState?(state: never): void } | undefined {
    const { sampler, batchSampler } = this.#options
    return batchSampler ?? (sampler as { state?(): unknown } | undefined)
  }
}

function free(tensors: Tensor[]): void {
  for (const tensor of tensors.splice(0)) tensor.dispose()
}
