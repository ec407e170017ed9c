import { setImmediate } from 'node:timers/promises'
import { withDeadline } from './time-limit.js'

/** Work that yields where other work of the process may run. */
export type Steps<T> = Generator<void, T, void>

/** Characters, or tokens, between two places where work yields: about a millisecond. */
export const STEP = 8192

/** Milliseconds of work without a turn of the event loop. */
const TURN = 10

/** Do all steps at once. */
export function drained<T>(steps: Steps<T>): T {
  for (;;) {
    const step = steps.next()
    if (step.done) return step.value
  }
}

/**
 * Do all steps, and let the event loop turn every 10 ms.
 * @param milliseconds the limit of {@link withDeadline} for the work alone, whatever runs in between
 * @throws the signal's reason once it is aborted, and what the work throws
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
