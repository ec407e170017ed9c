/** Milliseconds after which a loop of jobs lets timers, signals and I/O run. */
const BUSY = 10

/**
 * Yields to the event loop while a loop awaits jobs that may end within the call: such awaits continue as microtasks, which
 * keep timers from firing.
 */
export class Turns {
  #since = performance.now()

  /** Wait for the next turn of the event loop if the last wait was more than 10 ms ago. */
  async pass(): Promise<void> {
    if (performance.now() - this.#since < BUSY) return
    await new Promise((resolve) => setImmediate(resolve))
    this.#since = performance.now()
  }
}
