import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { DataError } from '../native/errors.js'
import { packageDirectory } from '../native/load.js'
import type { Dataset } from './dataset.js'
import { asDataset, openDataset, type ReadFailure, readSamples } from './source.js'

/** Where a loader's samples come from: `request` starts to read a batch, `take` waits for it. */
export interface Source {
  readonly length: number
  request(batch: number, indices: number[], epoch: number): void
  take(batch: number): Promise<unknown[]>
  close(): Promise<void>
}

/** Reads on the calling thread. */
export class LocalSource implements Source {
  readonly #dataset: Dataset<unknown>
  readonly #where: string
  readonly #batches = new Map<number, Promise<unknown[]>>()

  constructor(dataset: unknown, where = 'the dataset') {
    try {
      this.#dataset = asDataset(dataset, where)
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

  get length(): number {
    return this.#dataset.length
  }

  request(batch: number, indices: number[], epoch: number): void {
    const reading = readSamples(this.#dataset, indices, epoch)
    reading.catch(() => {})
    this.#batches.set(batch, reading)
  }

  async take(batch: number): Promise<unknown[]> {
    try {
      return await (this.#batches.get(batch) as Promise<unknown[]>)
    } catch (failure) {
      const { index, error } = failure as ReadFailure
      throw unread(this.#where, index, error)
    } finally {
      this.#batches.delete(batch)
    }
  }

  async close(): Promise<void> {
    this.#batches.clear()
  }
}

/** Reads in worker threads: batch n is always worker n % count's, so what arrives does not depend on timing. */
export class WorkerPool implements Source {
  readonly #lanes: Lane[]
  readonly length: number

  private constructor(lanes: Lane[], length: number) {
    this.#lanes = lanes
    this.length = length
  }

  static async open(url: URL, count: number, workerData: unknown): Promise<WorkerPool> {
    const lanes = Array.from({ length: count }, () => new Lane(url, workerData))
    try {
      const lengths = await Promise.all(lanes.map((lane) => lane.ready()))
      const length = lengths[0] as number
      if (lengths.some((other) => other !== length)) {
        throw new DataError(`Workers disagree on the length of ${url.href}: ${lengths.join(', ')} samples`, {
          lengths,
        })
      }
      return new WorkerPool(lanes, length)
    } catch (error) {
      await Promise.all(lanes.map((lane) => lane.end()))
      throw error
    }
  }

  request(batch: number, indices: number[], epoch: number): void {
    this.#lane(batch).request(batch, indices, epoch)
  }

  take(batch: number): Promise<unknown[]> {
    return this.#lane(batch).take(batch)
  }

  async close(): Promise<void> {
    await Promise.all(this.#lanes.map((lane) => lane.end()))
  }

  #lane(batch: number): Lane {
    return this.#lanes[batch % this.#lanes.length] as Lane
  }
}

interface Reply {
  length?: number
  batch?: number
  samples?: unknown[]
  index?: number
  error?: { name: string; message: string; stack?: string }
}

/** The length of the dataset is waited for under this key, batches under their numbers. */
const READY = -1

/** One worker thread and what is waited for from it. */
class Lane {
  readonly #url: URL
  readonly #worker: Worker
  readonly #waiting = new Map<number, PromiseWithResolvers<unknown>>()
  #failure: DataError | undefined
  #opened = false

  constructor(url: URL, data: unknown) {
    this.#url = url
    try {
      this.#worker = new Worker(join(packageDirectory, 'dist/data/worker.js'), {
        workerData: { href: url.href, data },
        // Workers inherit the process's options, and this one of them stops every worker that is a file.
        execArgv: process.execArgv.some((argument) => argument.startsWith('--input-type')) ? [] : undefined,
        name: 'voxtorch DataLoader',
      })
    } catch (cause) {
      throw new DataError(`No worker could be started for ${url.href}: ${messageOf(cause)}`, { file: url.href, cause })
    }
    // Only a batch that someone waits for keeps the process alive: an abandoned iterator must not.
    this.#worker.unref()
    this.#worker.on('message', (reply: Reply) => this.#receive(reply))
    this.#worker.on('error', (error) => this.#fail(this.#opened ? died(url, error) : unopened(url, error)))
    this.#worker.on('exit', (code) => this.#fail(died(url, new Error(`the thread ended with code ${code}`))))
    this.#expect(READY)
  }

  async ready(): Promise<number> {
    return (await this.#wait(READY)) as number
  }

  request(batch: number, indices: number[], epoch: number): void {
    this.#expect(batch)
    if (!this.#failure) this.#worker.postMessage({ batch, indices, epoch })
  }

  async take(batch: number): Promise<unknown[]> {
    return (await this.#wait(batch)) as unknown[]
  }

  async end(): Promise<void> {
    this.#failure ??= new DataError(`The worker for ${this.#url.href} was ended while a batch was read`)
    await this.#worker.terminate()
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

  #receive({ length, batch, samples, index, error }: Reply): void {
    if (length !== undefined) this.#opened = true
    const waiting = this.#waiting.get(batch ?? READY)
    if (error) waiting?.reject(unread(this.#url.href, index as number, revived(error)))
    else waiting?.resolve(length ?? samples)
  }

  #fail(error: DataError): void {
    this.#failure ??= error
    for (const waiting of this.#waiting.values()) waiting.reject(this.#failure)
  }
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))

function unopened(url: URL, cause: unknown): DataError {
  return new DataError(`The dataset module ${url.href} could not be loaded: ${messageOf(cause)}`, {
    file: url.href,
    cause,
  })
}

function died(url: URL, cause: unknown): DataError {
  return new DataError(`A worker thread for ${url.href} failed outside of get(): ${messageOf(cause)}`, {
    file: url.href,
    cause,
  })
}

function unread(where: string, index: number, cause: unknown): DataError {
  return new DataError(`Sample ${index} of ${where} could not be read: ${messageOf(cause)}`, { index, cause })
}

function revived({ name, message, stack }: { name: string; message: string; stack?: string }): Error {
  const error = new Error(message)
  error.name = name
  if (stack) error.stack = stack
  return error
}

interface PromiseWithResolvers<T> {
  promise: Promise<T>
  resolve: (value: T) => void
  reject: (reason: unknown) => void
}

// Promise.withResolvers came with Node 22.
function withResolvers<T>(): PromiseWithResolvers<T> {
  let resolve!: (value: T) => void
  let reject!: (reason: unknown) => void
  const promise = new Promise<T>((resolved, rejected) => {
    resolve = resolved
    reject = rejected
  })
  return { promise, resolve, reject }
}
