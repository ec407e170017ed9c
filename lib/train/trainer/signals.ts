export const SIGNALS = ['SIGINT', 'SIGTERM'] as const

/**
 * Catches SIGINT and SIGTERM while a training runs: the first is remembered, so that a checkpoint can be written; a second one
 * of the same kind ends the process as always.
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

  /** Remembers a signal that another process has received. */
  receive(signal: NodeJS.Signals): void {
    this.#received ??= signal
  }

  close(): void {
    for (const signal of SIGNALS) process.removeListener(signal, this.#onSignal)
  }
}

/** Ends the process by a signal, as if none had caught it; where the caller has listeners of its own, they are called. */
export async function passOn(signal: NodeJS.Signals): Promise<void> {
  process.kill(process.pid, signal)
  // The signal arrives through the event loop.
  await new Promise((resolve) => setTimeout(resolve, 100))
}
