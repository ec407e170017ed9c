import { createContext, Script } from 'node:vm'

const context = createContext({ work: undefined as (() => void) | undefined })
const runner = new Script('work()')

let deadline = Number.POSITIVE_INFINITY

/** Run `work` with a common deadline for all its calls of {@link withinTime}. */
export function withDeadline<T>(milliseconds: number, work: () => T): T {
  const outer = deadline
  deadline = Math.min(outer, performance.now() + milliseconds)
  try {
    return work()
  } finally {
    deadline = outer
  }
}

/** Whether the deadline of {@link withDeadline} has passed. */
export const isOverdue = (): boolean => performance.now() > deadline

/**
 * Run work with a time limit that V8 enforces, because a backtracking regular expression of a file must not block the process.
 * Costs about 0.2 ms.
 * @throws Error `Script execution timed out`, and the errors of `work`
 */
export function withinTime<T>(milliseconds: number, work: () => T): T {
  let result: T
  const timeout = Math.min(milliseconds, Math.ceil(deadline - performance.now()))
  if (timeout <= 0) throw new Error('Script execution timed out: the common deadline has passed')
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
