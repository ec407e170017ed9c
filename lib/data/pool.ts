import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { shown } from '../base/check.js'
import { DataError } from '../base/errors.js'
import { packageDirectory } from '../native/load.js'
import type { StreamOrder } from './dataset.js'
import { asDataset, isBadRecord, openDataset, placeOf, Reader, ReadFailure } from './source.js'

/** Placeholder of a sample that could not be read. */
export class Unread {
  constructor(
    readonly error: DataError,
    /** Whether the stream skipped it by itself. */
    readonly passed: boolean,
  ) {}
}

export interface Taken {
  /** Samples, with `Unread` in the place of those that could not be read. */
  samples: unknown[]
  /** Whether the stream has no more samples for this lane. */
  done: boolean
}

/**
 * Source of a loader's samples. `request` starts to read a batch, given by its indices or, for a stream, by the number of
 * samples; `take` waits for it. Batch n is always read by lane n % lanes. `skip` samples at the beginning of a stream are passed
 * over.
 */
export interface Source {
  /** Number of samples; null for a stream. */
  readonly length: number | null
  /** Values that determine the order of a stream. */
  readonly order: StreamOrder | undefined
  readonly lanes: number
  request(batch: number, wanted: number[] | number, epoch: number, skip?: number): void
  take(batch: number): Promise<Taken>
  close(): Promise<void>
}

/** Reads on the calling thread. */
export class LocalSource implements Source {
  readonly lanes = 1
  readonly #reader: Reader
  readonly #where: string
  readonly #batches = new Map<number, Promise<Taken>>()
  #last: Promise<unknown> = Promise.resolve()

  constructor(dataset: unknown, where = 'the dataset') {
    try {
      this.#reader = new Reader(asDataset(dataset, where), 0, 1)
    } catch (error) {
      throw new DataError((error as Error).message, { cause: error })
    }
    this.#where = where
  }

  static async open(url: URL, workerData: unknown): Promise<LocalSource> {
    try {
      return new LocalSource(await openDataset(url.href, workerData), url.href)
    } catch (error) {
      throw unopened(url, error)
    }
  }

  get length(): number | null {
    return this.#reader.length
  }

  get order(): StreamOrder | undefined {
    return this.#reader.order
  }

  request(batch: number, wanted: number[] | number, epoch: number, skip = 0): void {
    // Only one reader at a time can read a stream.
    const read = () => this.#reader.read(wanted, epoch, batch === 0, skip)
    const reading = typeof wanted === 'number' ? this.#last.then(read) : read()
    this.#last = reading
    const taken = reading.then(({ samples, done }) => ({ samples: samples.map((sample) => this.#named(sample)), done }))
    taken.catch(() => {})
    this.#batches.set(batch, taken)
  }

  async take(batch: number): Promise<Taken> {
    try {
      return await (this.#batches.get(batch) as Promise<Taken>)
    } finally {
      this.#batches.delete(batch)
    }
  }

  async close(): Promise<void> {
    this.#batches.clear()
    if (this.length !== null) return
    // Wait for the current read before leaving the stream. Its errors no longer matter.
    await this.#last.catch(() => {})
    await this.#reader.close().catch(() => {})
  }

  #named(sample: unknown): unknown {
    if (sample instanceof ReadFailure) return new Unread(unread(this.#where, sample.index, sample.error), false)
    if (isBadRecord(sample)) return new Unread(unread(this.#where, -1, sample.error), true)
    return sample
  }
}

/** Reads in worker threads. Batch n is always read by worker n % count, so the order does not depend on timing. */
export class WorkerPool implements Source {
  readonly #lanes: Lane[]
  readonly length: number | null

  private constructor(
    lanes: Lane[],
    length: number | null,
    readonly order: StreamOrder | undefined,
  ) {
    this.#lanes = lanes
    this.length = length
  }

  get lanes(): number {
    return this.#lanes.length
  }

  static async open(url: URL, count: number, workerData: unknown): Promise<WorkerPool> {
    const lanes = Array.from({ length: count }, (_, shard) => new Lane(url, workerData, shard, count))
    try {
      const opened = await Promise.all(lanes.map((lane) => lane.ready()))
      const lengths = opened.map(({ length }) => length)
      const length = lengths[0] as number | null
      if (lengths.some((other) => other !== length)) {
        throw new DataError(
          `DataLoader: expected the same length of ${url.href} in each worker, got ${lengths.join(', ')} samples`,
          {
            lengths,
          },
        )
      }
      return new WorkerPool(lanes, length, opened[0]?.order)
    } catch (error) {
      await Promise.all(lanes.map((lane) => lane.end()))
      throw error
    }
  }

  request(batch: number, wanted: number[] | number, epoch: number, skip = 0): void {
    this.#lane(batch).request(batch, wanted, epoch, skip)
  }

  take(batch: number): Promise<Taken> {
    return this.#lane(batch).take(batch)
  }

  async close(): Promise<void> {
    await Promise.all(this.#lanes.map((lane) => lane.end()))
  }

  #lane(batch: number): Lane {
    return this.#lanes[batch % this.#lanes.length] as Lane
  }
}

interface Described {
  name: string
  message: string
  stack?: string
  place?: object
}

/** Properties of a worker's dataset. */
interface Opened {
  length: number | null
  order?: StreamOrder
}

interface Reply extends Partial<Opened> {
  batch?: number
  samples?: unknown[]
  failures?: { place: number; index: number; error: Described }[]
  done?: boolean
  index?: number
  error?: Described
}

// Before Node 22 a worker does not inherit module hooks from the main thread, and must register them itself.
const TSX =
  Number.parseInt(process.versions.node, 10) < 22 &&
  process.execArgv.some((argument) => /[/\\]tsx[/\\]dist[/\\]|^(--import=)?tsx$/.test(argument))

/** Key under which a lane waits for the dataset's length; batches use their numbers. */
const READY = -1

/** Time in which a worker thread must exit after the request. */
const EXIT_MS = 2000

/** One worker thread and the replies that it owes. */
class Lane {
  readonly #url: URL
  readonly #worker: Worker
  readonly #waiting = new Map<number, PromiseWithResolvers<unknown>>()
  #failure: DataError | undefined
  #opened = false

  constructor(url: URL, data: unknown, shard: number, shards: number) {
    this.#url = url
    try {
      this.#worker = new Worker(join(packageDirectory, 'dist/data/worker.js'), {
        workerData: { href: url.href, data, shard, shards, tsx: TSX },
        // Workers inherit the process's options; --input-type would stop every worker that is a file.
        execArgv: process.execArgv.some((argument) => argument.startsWith('--input-type')) ? [] : undefined,
        name: 'voxtorch DataLoader',
      })
    } catch (cause) {
      throw new DataError(`DataLoader: expected to start a worker for ${url.href}, got ${messageOf(cause)}`, {
        file: url.href,
        cause,
      })
    }
    // Only a batch that is awaited keeps the process alive: an abandoned iterator must not.
    this.#worker.unref()
    this.#worker.on('message', (reply: unknown) => this.#onMessage(reply))
    this.#worker.on('messageerror', (error) => this.#fail(died(url, error)))
    this.#worker.on('error', (error) => this.#fail(this.#opened ? died(url, error) : unopened(url, error)))
    this.#worker.on('exit', (code) => this.#fail(died(url, new Error(`the thread ended with code ${code}`))))
    this.#expect(READY)
  }

  async ready(): Promise<Opened> {
    return (await this.#wait(READY)) as Opened
  }

  request(batch: number, wanted: number[] | number, epoch: number, skip = 0): void {
    this.#expect(batch)
    if (!this.#failure) this.#worker.postMessage({ batch, wanted, epoch, skip })
  }

  async take(batch: number): Promise<Taken> {
    return (await this.#wait(batch)) as Taken
  }

  /**
   * End the thread. It exits by itself, so that threads of its own, such as those that decode videos, can stop first; one that
   * is still busy after `EXIT_MS` is terminated.
   */
  async end(): Promise<void> {
    const { href } = this.#url
    this.#failure ??= new DataError(`DataLoader: the worker for ${href} was closed while a batch was read`)
    const exited = new Promise<void>((resolve) => {
      this.#worker.once('exit', () => resolve())
    })
    if (this.#worker.threadId === -1) return
    this.#worker.postMessage({ exit: true })
    this.#worker.ref()
    const timer = setTimeout(() => this.#worker.terminate(), EXIT_MS)
    await exited
    clearTimeout(timer)
  }

  #expect(key: number): void {
    const waiting = withResolvers<unknown>()
    waiting.promise.catch(() => {})
    if (this.#failure) waiting.reject(this.#failure)
    this.#waiting.set(key, waiting)
  }

  async #wait(key: number): Promise<unknown> {
    this.#worker.ref()
    try {
      return await this.#waiting.get(key)?.promise
    } finally {
      this.#waiting.delete(key)
      this.#worker.unref()
    }
  }

  /** A dataset's module has the same port as its reader, and may post to it by mistake. */
  #onMessage(reply: unknown): void {
    if (isReply(reply)) return this.#receive(reply)
    const { href } = this.#url
    this.#fail(
      new DataError(
        `DataLoader: expected no other messages on the worker's port, got ${shown(reply)} from ${href}. Use a MessageChannel of your own`,
        { file: href },
      ),
    )
  }

  #receive({ length, order, batch, samples = [], failures = [], done, index, error }: Reply): void {
    if (length !== undefined) this.#opened = true
    const waiting = this.#waiting.get(batch ?? READY)
    for (const failure of failures) {
      const { href } = this.#url
      const cause = revived(failure.error)
      samples[failure.place] = new Unread(unread(href, failure.index, cause), failure.index < 0)
    }
    if (error) waiting?.reject(unread(this.#url.href, index as number, revived(error)))
    else waiting?.resolve(length === undefined ? { samples, done } : { length, order })
  }

  #fail(error: DataError): void {
    this.#failure ??= error
    for (const waiting of this.#waiting.values()) waiting.reject(this.#failure)
  }
}

/** Return whether a value has the form of worker.js's messages. */
function isReply(value: unknown): value is Reply {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return false
  const { length, batch, samples, failures, error } = value as Record<string, unknown>
  const isError = (one: unknown) => typeof (one as Described | null)?.message === 'string'
  const isCount = (one: unknown) => Number.isSafeInteger(one) && (one as number) >= 0
  if (length !== undefined) return length === null || isCount(length)
  if (!isCount(batch)) return false
  if (error !== undefined) return isError(error)
  const isFailure = (one: unknown) => {
    const { place, index, error } = (one ?? {}) as Record<string, unknown>
    return (
      isCount(place) && (place as number) < (samples as unknown[]).length && Number.isInteger(index) && isError(error)
    )
  }
  return Array.isArray(samples) && Array.isArray(failures) && failures.every(isFailure)
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))

function unopened(url: URL, cause: unknown): DataError {
  return new DataError(`DataLoader: expected to load the dataset module ${url.href}, got ${messageOf(cause)}`, {
    file: url.href,
    cause,
  })
}

function died(url: URL, cause: unknown): DataError {
  return new DataError(`DataLoader: a worker thread for ${url.href} failed outside of get(): ${messageOf(cause)}`, {
    file: url.href,
    cause,
  })
}

/** Return the error for a sample that cannot be read; `index` is negative for a record that a stream skipped. */
function unread(where: string, index: number, cause: unknown): DataError {
  const place = cause instanceof Error ? placeOf(cause) : {}
  const what = index < 0 ? 'a record' : `sample ${index}`
  const fields = { ...(index >= 0 && { index }), ...place, cause }
  return new DataError(`DataLoader: expected to read ${what} of ${where}, got ${messageOf(cause)}`, fields)
}

function revived({ name, message, stack, place = {} }: Described): Error {
  const error = Object.assign(new Error(message), place)
  error.name = name
  if (stack) error.stack = stack
  return error
}

interface PromiseWithResolvers<T> {
  promise: Promise<T>
  resolve: (value: T) => void
  reject: (reason: unknown) => void
}

// Promise.withResolvers needs Node 22.
function withResolvers<T>(): PromiseWithResolvers<T> {
  let resolve!: (value: T) => void
  let reject!: (reason: unknown) => void
  const promise = new Promise<T>((resolved, rejected) => {
    resolve = resolved
    reject = rejected
  })
  return { promise, resolve, reject }
}
