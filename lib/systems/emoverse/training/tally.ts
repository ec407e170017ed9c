import type { EmoVerseTask } from '../published/wording.js'

/** Training statistics of one task between two logs. */
export interface TaskNumbers {
  records: number
  tokens: number
  /** Mean loss per label token. */
  loss: number
  /** Fraction of records with every token correct, as in ms-swift's `acc_strategy sentence`. */
  accuracy: number
  /** Fraction of correct tokens. */
  tokenAccuracy: number
  /** Compute time. A step's time is split by the number of tokens of its records, prompts included. */
  seconds: number
}

export interface TaskLogEntry {
  step: number
  tasks: Partial<Record<EmoVerseTask | 'other', TaskNumbers>>
}

interface Sums {
  records: number
  whole: number
  loss: number
  tokens: number
  right: number
  seconds: number
}

interface TallyState {
  open: Record<string, Sums>
  history: TaskLogEntry[]
}

/** Loss, accuracy and time by task between logs. Its state is part of checkpoints. */
export class TaskTally {
  #open: Record<string, Sums> = {}
  #history: TaskLogEntry[] = []
  /** Tokens since the step began. */
  #since: Record<string, number> = {}
  #clock: number | undefined

  /**
   * Add the records of a batch.
   * @param table for each record the sum of its losses, the number of its label tokens, and the number of correct ones
   * @param lengths number of all tokens of each record
   */
  add(
    tasks: readonly string[],
    table: readonly (readonly [loss: number, tokens: number, right: number])[],
    lengths: readonly number[],
  ): void {
    for (const [i, task] of tasks.entries()) {
      const [loss, tokens, right] = table[i] as [number, number, number]
      const sums = this.#open[task] ?? { records: 0, whole: 0, loss: 0, tokens: 0, right: 0, seconds: 0 }
      this.#open[task] = sums
      sums.records += 1
      sums.whole += tokens === right ? 1 : 0
      sums.loss += loss
      sums.tokens += tokens
      sums.right += right
      this.#since[task] = (this.#since[task] ?? 0) + (lengths[i] as number)
    }
  }

  beginStep(): void {
    this.#since = {}
    this.#clock = performance.now()
  }

  endStep(): void {
    if (this.#clock === undefined) return
    const seconds = (performance.now() - this.#clock) / 1000
    const all = Object.values(this.#since).reduce((sum, tokens) => sum + tokens, 0)
    for (const [task, tokens] of Object.entries(this.#since)) {
      const sums = this.#open[task]
      if (sums && all > 0) sums.seconds += (seconds * tokens) / all
    }
    this.#clock = undefined
  }

  /** Close the current sums into a log entry, and return all entries. */
  log(step: number): readonly TaskLogEntry[] {
    const tasks = Object.entries(this.#open).map(([task, sums]) => [task, numbersOf(sums)])
    if (tasks.length > 0) this.#history.push({ step, tasks: Object.fromEntries(tasks) })
    this.#open = {}
    return this.#history
  }

  stateDict(): TallyState {
    return structuredClone({ open: this.#open, history: this.#history })
  }

  loadStateDict({ open, history }: TallyState): void {
    this.#open = structuredClone(open)
    this.#history = structuredClone(history)
  }
}

/** Convert sums to means. */
export const numbersOf = ({ records, whole, loss, tokens, right, seconds }: Sums): TaskNumbers => ({
  records,
  tokens,
  loss: tokens > 0 ? loss / tokens : 0,
  accuracy: whole / records,
  tokenAccuracy: tokens > 0 ? right / tokens : 0,
  seconds,
})
