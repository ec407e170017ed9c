import { createContext, Script } from 'node:vm'

const context = createContext({ work: undefined as (() => void) | undefined })
const runner = new Script('work()')

/**
 * Runs what a file asks for, and has V8 end it after so many milliseconds: a regular expression that backtracks without
 * end, or a template that never stops, must not stop the process. Costs about 0.2 ms.
 * @throws Error `Script execution timed out`, and what `work` throws
 */
export function withinTime<T>(milliseconds: number, work: () => T): T {
  let result: T
  const outer = context.work
  context.work = () => {
    result = work()
  }
  try {
    runner.runInContext(context, { timeout: milliseconds })
    return result!
  } finally {
    context.work = outer
  }
}
