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
  /** Stack of the code that queued the job, which a failure reports. */
  site: Error
}

const pending = new Map<number, Pending>()
/** Settled promise: its reactions run after the current code, like those of any other job. */
const queued = Promise.resolve()

/** Queue a job: `encode` writes its cells, `submit` submits it and returns how to convert the decoded result. */
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
  // Every job captures its stack, so keep it short: the queueing function, its caller and some of its callers.
  const limit = Error.stackTraceLimit
  Error.stackTraceLimit = Math.min(limit, 6)
  const site = new Error()
  Error.stackTraceLimit = limit
  return new Promise((resolve, reject) => {
    pending.set(job, { resolve, reject, finish, context, args, self, site })
  })
}

/** Queue one of the addon's own jobs; returns a promise of the decoded result. */
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

/** Settle a job that native code reports as finished, possibly twice. Throws nothing, since no caller could catch it. */
export function settle(job: number): void {
  if (!pending.has(job)) return
  try {
    if (native.ranOutOfMemory(job)) retryWithMemory(job)
    else finish(job)
  } catch (error) {
    abandon(job, error)
  }
}

/** Reject a job that failed or that Node-API could not complete, so that its promise does not hang. */
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
 * Run a job again after freeing memory: unused memory often only waits for the garbage collector, so collect, let finalizers
 * run, and try once more.
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
