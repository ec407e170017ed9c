import { asTyped } from '../base/arguments.js'
import { OutOfMemoryError } from '../base/errors.js'
import { collectGarbage } from '../base/heap.js'
import { native } from './addon.js'
import { cells, checkStatus, DONE, emitWarnings, enter, JOB, moveTop, STATUS, top, WARNED } from './buffer.js'
import { type Context, currentContext } from './context.js'
import { decode } from './decode.js'
import { put } from './encode.js'
import { failure } from './failure.js'
import type { Handle } from './handle.js'

interface Pending {
  resolve(value: unknown): void
  reject(error: unknown): void
  finish(result: unknown): unknown
  context: Context
  args: ArrayLike<unknown>
  self: Handle | undefined
  /** Holds the stack of the code that queued the job: a failure should point there. */
  site: Error
}

const pending = new Map<number, Pending>()
/** Its reactions run after the code that is running now, like those of any other job. */
const queued = Promise.resolve()

/** Queues a job: `encode` writes its cells, `submit` hands it over and tells what to make of the decoded result. */
export function queue(
  encode: () => void,
  submit: () => (result: unknown) => unknown,
  args: ArrayLike<unknown>,
  self: Handle | undefined,
): Promise<unknown> {
  const context = currentContext()
  const base = top
  try {
    encode()
    enter(base, context)
  } catch (error) {
    moveTop(base)
    return Promise.reject(asTyped('voxtorch', error))
  }
  moveTop(base)
  let finish: ReturnType<typeof submit>
  try {
    finish = submit()
    if (cells[STATUS] !== 0) throw failure()
  } catch (error) {
    return Promise.reject(error)
  }
  const job = cells[JOB]!
  if (cells[DONE] === 1) queued.then(() => settle(job))
  // Every job pays for its stack, so it is short: the queueing function, the one that called it and some of its callers.
  const limit = Error.stackTraceLimit
  Error.stackTraceLimit = Math.min(limit, 6)
  const site = new Error()
  Error.stackTraceLimit = limit
  return new Promise((resolve, reject) => {
    pending.set(job, { resolve, reject, finish, context, args, self, site })
  })
}

/** Queues one of the addon's own jobs: cells in, a promise of the decoded result out. */
export function queueNative(submit: () => void, ...values: unknown[]): Promise<unknown> {
  return queue(
    () => {
      for (const value of values) put(value)
    },
    () => {
      submit()
      return (result) => result
    },
    values,
    undefined,
  )
}

/** Ends a job that native code says is over, which it may say twice. Throws nothing: nobody is there to catch it. */
export function settle(job: number): void {
  if (!pending.has(job)) return
  try {
    if (native.ranOutOfMemory(job)) retryWithMemory(job)
    else finish(job)
  } catch (error) {
    abandon(job, error)
  }
}

/** The job failed, or Node-API refused something on the way: whatever it was, the promise must not hang. */
function abandon(job: number, error: unknown): void {
  const entry = pending.get(job)
  pending.delete(job)
  entry?.reject(error)
}

function finish(job: number): void {
  const entry = pending.get(job)
  if (entry === undefined) return
  const base = top
  const scope = enter(base, entry.context)
  native.settle(job)
  if (cells[WARNED] !== 0) emitWarnings()
  if (cells[STATUS] === 2) checkStatus()
  if (cells[STATUS] !== 0) {
    const error = failure()
    if (error instanceof OutOfMemoryError) {
      const { liveTensors, liveBytes } = native.memory()
      error.message += `; JavaScript holds ${liveTensors} tensors with ${liveBytes} bytes of CPU memory`
    }
    if ('op' in error) {
      error.stack = `${error.name}: ${error.message}\n${entry.site.stack?.split('\n').slice(1).join('\n') ?? ''}`
    }
    throw error
  }
  entry.resolve(entry.finish(decode(base, scope, entry.args, entry.self)))
  pending.delete(job)
}

/**
 * Memory that nobody needs any more is often only waiting for the garbage collector: collect, let finalizations run, and
 * try once more before giving up.
 */
function retryWithMemory(job: number): void {
  collectGarbage()
  setImmediate(() => {
    try {
      if (!native.retry(job)) finish(job)
    } catch (error) {
      abandon(job, error)
    }
  })
}
