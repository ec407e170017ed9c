/** Milliseconds after which a loop of jobs lets timers, signals and I/O run. */
const BUSY = 10

/**
 * Lets other work run while a loop awaits jobs that may end within the call: such awaits go on as microtasks, which keep
 * timers from firing.
 */
export class Turns {
  #since = performance.now()

  /** Waits for the next turn of the event loop where the last wait was more than 10 ms ago. */
  async pass(): Promise<void> {
    if (performance.now() - this.#since < BUSY) return
    await new Promise((resolve) => setImmediate(resolve))
    this.#since = performance.now()
  }
}
