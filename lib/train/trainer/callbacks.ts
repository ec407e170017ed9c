import { misuse, requireObject } from '../../base/check.js'
import { ConfigError } from '../../base/errors.js'
import { nearest } from '../../base/words.js'
import type { Module } from '../../nn/index.js'
import type { ResolvedArguments } from './arguments.js'
import type { TrainerOptimizer } from './optimizing.js'
import type { LogEntry, TrainerState } from './state.js'

/** What callbacks may set. The Trainer clears each wish when it is met. */
export interface TrainerControl {
  /** End training after this step. */
  shouldStop: boolean
  /** End this epoch after this step. */
  shouldEpochStop: boolean
  shouldLog: boolean
  shouldEvaluate: boolean
  shouldSave: boolean
}

/** What each event tells beside the {@link CallbackContext}. */
export interface TrainerEvents {
  onTrainBegin: object
  onTrainEnd: object
  onEpochBegin: object
  onEpochEnd: object
  /** Before the first batch of an optimiser step. */
  onStepBegin: object
  /** The gradients are there, unscaled and not yet clipped. */
  onPreOptimizerStep: object
  /** After the optimiser's step, before the gradients are dropped. */
  onOptimizerStep: object
  onStepEnd: object
  onEvaluate: { metrics: Record<string, number> }
  /** `checkpoint` is the folder, which is whole. */
  onSave: { checkpoint: string }
  onLog: { logs: LogEntry }
}

export interface CallbackContext {
  readonly args: Readonly<ResolvedArguments>
  readonly state: Readonly<TrainerState>
  readonly control: TrainerControl
  readonly model: Module
  readonly optimizer: TrainerOptimizer
}

/** Functions that are called at events of a training, in the order of the callbacks; each is awaited. */
export type TrainerCallback = {
  [E in keyof TrainerEvents]?: (event: CallbackContext & TrainerEvents[E]) => void | Promise<void>
}

const EVENTS: (keyof TrainerEvents)[] = [
  'onTrainBegin',
  'onTrainEnd',
  'onEpochBegin',
  'onEpochEnd',
  'onStepBegin',
  'onPreOptimizerStep',
  'onOptimizerStep',
  'onStepEnd',
  'onEvaluate',
  'onSave',
  'onLog',
]

/** @throws ConfigError for an `on…` that is no event or no function. */
export function checkCallback(callback: TrainerCallback): void {
  requireObject('Trainer', 'a callback', callback)
  for (const [name, value] of Object.entries(callback)) {
    if (!/^on[A-Z]/.test(name)) continue
    if (!(EVENTS as string[]).includes(name)) {
      throw new ConfigError(
        `Trainer has no event ${name}; did you mean ${nearest(name, EVENTS) ?? EVENTS.join(', ')}?`,
        {
          argument: name,
        },
      )
    }
    if (value !== undefined && typeof value !== 'function') throw misuse('Trainer', name, 'a function', value)
  }
}

export const newControl = (): TrainerControl => ({
  shouldStop: false,
  shouldEpochStop: false,
  shouldLog: false,
  shouldEvaluate: false,
  shouldSave: false,
})
