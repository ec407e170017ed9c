import type { EmoVerseTask } from '../published/wording.js'

/** What was learnt of one task between two logs. */
export interface TaskNumbers {
  records: number
  tokens: number
  /** The mean over its tokens. */
  loss: number
  /** The share of records of which every token was right, as `acc_strategy sentence` of ms-swift. */
  accuracy: number
  /** The share of tokens. */
  tokenAccuracy: number
  /** Of computing: a step's time is divided by the tokens of its records, prompts too. */
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

/** Loss, accuracy and time by task, from log to log. A checkpoint holds where it stands. */
export class TaskTally {
  #open: Record<string, Sums> = {}
  #history: TaskLogEntry[] = []
  /** Tokens since the clock was read. */
  #since: Record<string, number> = {}
  #clock: number | undefined

  /**
   * @param table for each record the sum of its losses, the tokens that are learnt of it, and those that are right
   * @param lengths all tokens of each
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

  /** Closes what is open into a line of the log. */
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

/** Sums as means. */
export const numbersOf = ({ records, whole, loss, tokens, right, seconds }: Sums): TaskNumbers => ({
  records,
  tokens,
  loss: tokens > 0 ? loss / tokens : 0,
  accuracy: whole / records,
  tokenAccuracy: tokens > 0 ? right / tokens : 0,
  seconds,
})
