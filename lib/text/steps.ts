import { setImmediate } from 'node:timers/promises'
import { withDeadline } from './time-limit.js'

/** Work in steps; it yields between them, so that other work of the process can run. */
export type Steps<T> = Generator<void, T, void>

/** Characters or tokens per step: about a millisecond. */
export const STEP = 8192

/** Milliseconds of work between turns of the event loop. */
const TURN = 10

/** Run all steps without yielding. */
export function drained<T>(steps: Steps<T>): T {
  for (;;) {
    const step = steps.next()
    if (step.done) return step.value
  }
}

/**
 * Run all steps, and let the event loop turn every 10 ms.
 * @param milliseconds limit of {@link withDeadline}, not counting the work of others between steps
 * @throws the reason of `signal` when it is aborted; errors of the work
 */
export async function unhurried<T>(steps: Steps<T>, milliseconds: number, signal?: AbortSignal): Promise<T> {
  let left = milliseconds
  for (let turned = performance.now(); ; ) {
    const begun = performance.now()
    const step = withDeadline(left, () => steps.next())
    if (step.done) return step.value
    const now = performance.now()
    left -= now - begun
    if (now - turned < TURN) continue
    await setImmediate()
    signal?.throwIfAborted()
    turned = performance.now()
  }
}
