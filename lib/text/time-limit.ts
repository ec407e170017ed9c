import { createContext, Script } from 'node:vm'

const context = createContext({ work: undefined as (() => void) | undefined })
const runner = new Script('work()')

let deadline = Number.POSITIVE_INFINITY

/** All that runs under {@link withinTime} inside of `work` ends at one time, however many pieces it is. */
export function withDeadline<T>(milliseconds: number, work: () => T): T {
  const outer = deadline
  deadline = Math.min(outer, performance.now() + milliseconds)
  try {
    return work()
  } finally {
    deadline = outer
  }
}

/** Whether the time of {@link withDeadline} is over. */
export const isOverdue = (): boolean => performance.now() > deadline

/**
 * Runs what a file asks for, and has V8 end it after so many milliseconds: a regular expression that backtracks without
 * end, or a template that never stops, must not stop the process. Costs about 0.2 ms.
 * @throws Error `Script execution timed out`, and what `work` throws
 */
export function withinTime<T>(milliseconds: number, work: () => T): T {
  let result: T
  const timeout = Math.min(milliseconds, Math.ceil(deadline - performance.now()))
  if (timeout <= 0) throw new Error('Script execution timed out with all that came before it')
  const outer = context.work
  context.work = () => {
    result = work()
  }
  try {
    runner.runInContext(context, { timeout })
    return result!
  } finally {
    context.work = outer
  }
}
