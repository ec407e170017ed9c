export const SIGNALS = ['SIGINT', 'SIGTERM'] as const

/**
 * Catches SIGINT and SIGTERM while a training runs. The first one is recorded, so that a checkpoint can be written; a second
 * one of the same kind ends the process.
 */
export class Signals {
  #received: NodeJS.Signals | undefined
  readonly #onSignal = (signal: NodeJS.Signals) => {
    this.#received ??= signal
    process.removeListener(signal, this.#onSignal)
  }

  constructor() {
    for (const signal of SIGNALS) process.on(signal, this.#onSignal)
  }

  get received(): NodeJS.Signals | undefined {
    return this.#received
  }

  /** Record a signal that another process has received. */
  receive(signal: NodeJS.Signals): void {
    this.#received ??= signal
  }

  close(): void {
    for (const signal of SIGNALS) process.removeListener(signal, this.#onSignal)
  }
}

/** End the process by a signal, as if it had not been caught; the caller's own listeners are called. */
export async function passOn(signal: NodeJS.Signals): Promise<void> {
  process.kill(process.pid, signal)
  // The signal is delivered through the event loop.
  await new Promise((resolve) => setTimeout(resolve, 100))
}
