import { requireWhole } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import type { TrainerCallback } from '../../../train/trainer/callbacks.js'
import type { Stateful } from '../../../train/trainer/checkpoint.js'
import type { SpectraTask } from '../evaluation/task.js'

interface StoppingState {
  /** The best value of each criterion so far. */
  best: number[]
  bestEpoch: number
  /** Number of evaluated epochs. */
  epochs: number
}

/**
 * Early stopping of the original. After each epoch's validation it compares several criteria. Training stops if none of them has reached its
 * best value for `patience` epochs, or if the last criterion is still 0 after the third epoch. The criteria are the negative loss, the
 * accuracy, for sentiment also `accA2Non0`, and five times the accuracy minus the loss.
 *
 * Use it with a Trainer that evaluates once per epoch: pass `callback` in `callbacks`, and the object itself in `extraState`, so that a
 * resumed training continues to count.
 */
export class SpectraEarlyStopping implements Stateful {
  readonly #task: SpectraTask
  readonly #patience: number
  #state: StoppingState

  constructor(task: SpectraTask, patience: number) {
    requireWhole('SpectraEarlyStopping', 'patience', patience, 1)
    this.#task = task
    this.#patience = patience
    const count = this.#sentiment ? 4 : 3
    this.#state = { best: [-10, ...Array<number>(count - 1).fill(0)], bestEpoch: 0, epochs: 0 }
  }

  get #sentiment(): boolean {
    return this.#task.name === 'mosi' || this.#task.name === 'mosei'
  }

  /** The epoch, from 0, in which a criterion last reached its best value. */
  get bestEpoch(): number {
    return this.#state.bestEpoch
  }

  /** Record an epoch. @param loss the validation loss. @returns whether training should stop after this epoch */
  observe(loss: number, metrics: Readonly<Record<string, number>>): boolean {
    const accuracy = this.#metric(metrics, this.#task.accuracyMetric ?? this.#task.keyMetric)
    const values = [
      -loss,
      accuracy,
      ...(this.#sentiment ? [this.#metric(metrics, 'accA2Non0')] : []),
      5 * accuracy - loss,
    ]
    const { best } = this.#state
    const epoch = this.#state.epochs
    for (const [i, value] of values.entries()) {
      if (!(value >= best[i]!)) continue
      best[i] = value
      this.#state.bestEpoch = epoch
    }
    this.#state.epochs += 1
    return epoch - this.#state.bestEpoch >= this.#patience || (best.at(-1) === 0 && epoch === 2)
  }

  #metric(metrics: Readonly<Record<string, number>>, name: string): number {
    const value = metrics[name] ?? metrics[`eval${name.charAt(0).toUpperCase()}${name.slice(1)}`]
    if (value === undefined) {
      throw new DataError(
        `SpectraEarlyStopping: expected the metric ${name} for ${this.#task.name}, got ${Object.keys(metrics)}`,
        { metric: name },
      )
    }
    return value
  }

  /** A callback for a Trainer's `callbacks`. */
  readonly callback: TrainerCallback = {
    onEvaluate: ({ metrics, control }) => {
      if (this.observe(metrics.evalLoss as number, metrics)) control.shouldStop = true
    },
  }

  stateDict(): StoppingState {
    return structuredClone(this.#state)
  }

  loadStateDict(state: never): void {
    const { best, bestEpoch, epochs } = state as StoppingState
    requireWhole('SpectraEarlyStopping', 'bestEpoch', bestEpoch)
    requireWhole('SpectraEarlyStopping', 'epochs', epochs)
    this.#state = { best: [...best], bestEpoch, epochs }
  }
}
