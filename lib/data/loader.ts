import { setImmediate as macrotask } from 'node:timers/promises'
import { misuse, requireFunction, requireObject, requireOneOf, requireOptions, requireWhole } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { withContext } from '../native/context.js'
import { scope, type Tensor } from '../tensor/index.js'
import { intoScope, keepForever } from '../tensor/scope.js'
import type { AnyDataset } from './dataset.js'
import { type DataLoaderState, orderOf, refuseOtherOrder } from './loader-state.js'
import { pinned, tensorsIn, warnWithoutCuda } from './pin.js'
import { checkPlan, countBatches, type PlanOptions, planBatches, shareOf } from './plan.js'
import { LocalSource, type Source, Unread, WorkerPool } from './pool.js'
import { Random } from './random.js'
import { shuffled, streamSamples } from './stream-batches.js'

export interface DataLoaderOptions<T, B> extends PlanOptions {
  /** Makes a batch of samples, with tensors in it; see `padCollate`. Default: the array of samples as it is. */
  collate?: (samples: T[]) => B | Promise<B>
  /** Threads that read samples; needs a dataset given as a URL. Default 0: the calling thread reads. */
  workers?: number
  /** Given to the dataset module's function, in each worker; copied by structured clone. */
  workerData?: unknown
  /** Batches read ahead, for each worker. Default 2; without workers 0, or ahead by what asynchronous reads allow. */
  prefetch?: number
  /**
   * Makes the next batch while the loop is busy with this one: for a `collate` that waits for files. One batch is ahead, no
   * more. What `collate` draws from the default generator comes before the loop's draws then. Default false.
   */
  collateAhead?: boolean
  /** Free a batch's tensors when the next is asked for and when the loop is left. Default true. */
  freeBatches?: boolean
  /** Keep workers alive from one epoch to the next, until `close()`. Default false: they end with the loop. */
  persistentWorkers?: boolean
  /**
   * What happens when a sample cannot be read: 'stop' (default) throws, 'skip' leaves it out of its batch and counts it in
   * `badRecords`; a batch of which nothing is left is not given.
   */
  onBadRecord?: 'stop' | 'skip'
  /** Shuffles a stream approximately: each sample waits among this many others. Default 0: the stream's order. */
  shuffleBuffer?: number
  /**
   * Copies the tensors that `collate` made into page-locked memory, from which copies to a GPU need not wait. Where there
   * is no CUDA device this only warns, as in PyTorch.
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

/** A revoked proxy is none, and may not be asked. */
function isUrl(value: unknown): value is URL {
  try {
    return value instanceof URL
  } catch {
    return false
  }
}

/**
 * Batches of a dataset, one epoch for each `for await` loop:
 *
 * ```ts
 * const loader = new DataLoader(samples, { batchSize: 32, shuffle: true, seed: 1, collate: padCollate({ … }) })
 * for await (const { inputIds, attentionMask } of loader) { … }
 * ```
 *
 * The dataset is an array, a `Dataset`, a stream (`IterableDataset`, or anything with an asynchronous iterator), or the URL of a module that exports one (see `DatasetModule`), which worker
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
 * - **Going on where another loader stopped**: `state()` inside the loop, `loadState()` on a loader with the same options.
 *   The first loop then gives exactly the batches that were not given yet. Samples before them are not read again, but of a
 *   stream they are read and dropped.
 *
 * Errors: `DataError` with `index` and `cause` when a sample cannot be read; `ConfigError` on bad options.
 */
export class DataLoader<T, B = T[]> implements AsyncIterable<B> {
  readonly #dataset: AnyDataset<T> | URL
  readonly #options: DataLoaderOptions<T, B>
  #epoch = 0
  /** Batches of the next loop that were given before. */
  #skip = 0
  /** The last loop, until it is through: what is to be gone on with. */
  #running: { epoch: number; position: number; badBefore: number; badRecords: number; sampler: unknown } | undefined
  #badRecords = 0
  /** undefined: not known yet; null: a stream. */
  #length: number | null | undefined
  #idle: Source | undefined

  constructor(dataset: AnyDataset<T> | URL, options: DataLoaderOptions<T, B> = {}) {
    requireOptions('DataLoader', options, OPTIONS)
    checkPlan(options)
    const { workers = 0, prefetch = 0, collate, onBadRecord = 'stop', shuffleBuffer = 0, pinMemory = false } = options
    const { collateAhead = false } = options
    if (typeof collateAhead !== 'boolean') throw misuse('DataLoader', 'collateAhead', 'a boolean', collateAhead)
    requireOneOf('DataLoader', 'onBadRecord', onBadRecord, ['stop', 'skip'])
    requireWhole('DataLoader', 'shuffleBuffer', shuffleBuffer)
    if (typeof pinMemory !== 'boolean') throw misuse('DataLoader', 'pinMemory', 'a boolean', pinMemory)
    if (pinMemory) warnWithoutCuda()
    requireWhole('DataLoader', 'workers', workers)
    requireWhole('DataLoader', 'prefetch', prefetch)
    if (collate !== undefined) requireFunction('DataLoader', 'collate', collate)
    if (workers > 0 && !isUrl(dataset)) {
      throw new ConfigError(
        'DataLoader can only use workers on a dataset that they can load: give the URL of a module that exports it',
        {},
      )
    }
    this.#dataset = dataset
    this.#options = options
    if (!isUrl(dataset)) this.#setLength(new LocalSource(dataset).length)
  }

  /** The epoch that the next loop runs: 0 at first. */
  get epoch(): number {
    return this.#epoch
  }

  /** Whether several processes may share the data: the options have a `shard`, or an order of the caller's own. */
  get sharded(): boolean {
    const { shard, sampler, batchSampler } = this.#options
    return Boolean(shard || sampler || batchSampler)
  }

  /** Sets the epoch of the next loop, and the batch at which it begins: those before it are not read. */
  setEpoch(epoch: number, firstBatch = 0): void {
    requireWhole('DataLoader', 'epoch', epoch)
    requireWhole('DataLoader', 'firstBatch', firstBatch)
    this.#epoch = epoch
    this.#skip = firstBatch
    this.#running = undefined
  }

  /** Samples left out so far, with `onBadRecord: 'skip'` or by a stream that passes over them itself. */
  get badRecords(): number {
    return this.#badRecords
  }

  /**
   * Where the loader is, as plain data. Inside a loop the batch that was given last counts as done; after a loop that was
   * left early, what it did not give is still to come; after a whole one the next epoch.
   */
  state(): DataLoaderState {
    const order = orderOf(this.#options, this.#length)
    const { epoch, position, badBefore, badRecords, sampler } = this.#running ?? {
      epoch: this.#epoch,
      position: this.#skip,
      badBefore: this.#badRecords,
      badRecords: this.#badRecords,
      sampler: this.#sampler()?.state?.(),
    }
    // A stream's bad records are met again when it is gone through again.
    return {
      epoch,
      position,
      badRecords: this.#length === null ? badBefore : badRecords,
      order,
      ...(sampler !== undefined && { sampler: structuredClone(sampler) }),
    }
  }

  /**
   * The next loop goes on from there; those after it are the epochs that follow.
   * @throws ConfigError when it is no state, or one of a loader with another order: another seed, batch size, …
   */
  loadState(state: DataLoaderState): void {
    requireObject('DataLoader.loadState', 'state', state)
    requireWhole('DataLoader.loadState', 'state.epoch', state.epoch)
    requireWhole('DataLoader.loadState', 'state.position', state.position)
    requireWhole('DataLoader.loadState', 'state.badRecords', state.badRecords)
    refuseOtherOrder(state.order, orderOf(this.#options, this.#length))
    if (state.sampler !== undefined) this.#sampler()?.loadState?.(structuredClone(state.sampler) as never)
    this.#epoch = state.epoch
    this.#skip = state.position
    this.#badRecords = state.badRecords
    this.#running = undefined
  }

  /** Batches in an epoch. For a dataset given as a URL it is known after `ready()`, for a sampler function never. */
  get length(): number {
    const count = typeof this.#length === 'number' ? countBatches(this.#length, this.#options) : undefined
    if (count === undefined) {
      if (this.#length === null) throw new ConfigError('The length of a DataLoader over a stream is unknown', {})
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
    const { collate, workers = 0, prefetch = workers ? 2 : 0, freeBatches = true, pinMemory = false } = this.#options
    const { collateAhead = false } = this.#options
    const running = {
      epoch: this.#epoch++,
      position: this.#skip,
      badBefore: this.#badRecords,
      badRecords: this.#badRecords,
      sampler: this.#sampler()?.state?.(),
    }
    this.#skip = 0
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
      const { samples, position } = value
      const made = collate && samples.length > 0 && (await scope(() => this.#make(collate, samples, pinMemory)))
      const tensors = made ? [...made.tensors] : []
      if (freeBatches) for (const tensor of tensors) keepForever(tensor)
      return { batch: made ? made.batch : (samples as B), tensors, position, badRecords: this.#badRecords }
    }
    let next: ReturnType<typeof take> | undefined
    try {
      for (;;) {
        const taken = await (next ?? take())
        next = undefined
        if (taken === undefined) break
        const { batch, tensors, position, badRecords } = taken
        if (freeBatches) owned.push(...tensors)
        else if (collateAhead) for (const tensor of tensors) intoScope(tensor)
        Object.assign(running, { position, badRecords })
        if (collateAhead) {
          // A scope of the loop's body may be over before the batch is made.
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

  /** A batch, and the tensors in it that the samples did not hold already. */
  async #make(collate: NonNullable<DataLoaderOptions<T, B>['collate']>, samples: T[], pin: boolean) {
    const batch = pin ? pinned(await collate(samples)) : await collate(samples)
    const tensors = tensorsIn(batch)
    for (const tensor of tensorsIn(samples)) tensors.delete(tensor)
    return { batch, tensors }
  }

  /** The samples of one batch after the other, read by index, and how many batches the epoch has then had. */
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
      if (good.length > 0 || this.#options.shard) yield { samples: good as T[], position }
      if (ahead === 0) request()
    }
  }

  /** The same of a stream. */
  async *#streamed(source: Source, running: { epoch: number; position: number }, ahead: number) {
    const { batchSize = 1, dropLast = false, seed = 0, shuffleBuffer = 0 } = this.#options
    const { epoch } = running
    const shared = (whole: T[], position: number) => ({ samples: shareOf(whole, this.#options.shard), position })
    const read = streamSamples(source, epoch, batchSize, ahead)
    const samples =
      shuffleBuffer > 0 ? shuffled(this.#good(read), shuffleBuffer, new Random(seed, epoch)) : this.#good(read)
    let { position } = running
    let drop = position
    let batch: T[] = []
    for await (const sample of samples) {
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

  async *#good(samples: AsyncIterable<unknown>) {
    for await (const sample of samples) if (this.#readable(sample)) yield sample
  }

  /** Whether something is a sample; one that could not be read is counted or thrown. */
  #readable(sample: unknown): boolean {
    if (!(sample instanceof Unread)) return true
    // A stream cannot go on after an error of its own.
    if (!sample.passed && (this.#length === null || this.#options.onBadRecord !== 'skip')) throw sample.error
    this.#badRecords++
    return false
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
    try {
      this.#setLength(source.length)
    } catch (error) {
      await source.close()
      throw error
    }
    return source
  }

  #setLength(length: number | null): void {
    const { shuffleBuffer, shuffle, sampler, batchSampler, lengthBuckets } = this.#options
    if (length !== null && shuffleBuffer) {
      throw new ConfigError('shuffleBuffer of a DataLoader is for streams; this dataset has a length: use shuffle', {})
    }
    const orders = { shuffle, sampler, batchSampler, lengthBuckets }
    const order = length === null && Object.entries(orders).find(([, value]) => value)
    if (order) {
      throw new ConfigError(
        `A DataLoader over a stream cannot have ${order[0]}, as it reads what comes; shuffleBuffer mixes it`,
        { argument: order[0] },
      )
    }
    this.#length = length
  }

  #sampler(): { state?(): unknown; loadState?(state: never): void } | undefined {
    const { sampler, batchSampler } = this.#options
    return batchSampler ?? (sampler as { state?(): unknown } | undefined)
  }
}

function free(tensors: Tensor[]): void {
  for (const tensor of tensors.splice(0)) tensor.dispose()
}
