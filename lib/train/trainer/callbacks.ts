import { argumentError, requireObject } from '../../base/check.js'
import { ConfigError } from '../../base/errors.js'
import { nearest } from '../../base/words.js'
import type { Module } from '../../nn/index.js'
import type { ResolvedArguments } from './arguments.js'
import type { TrainerOptimizer } from './optimizing.js'
import type { LogEntry, TrainerState } from './state.js'

/** Requests that callbacks may set. The Trainer clears each one after acting on it. */
export interface TrainerControl {
  /** End training after this step. */
  shouldStop: boolean
  /** End this epoch after this step. */
  shouldEpochStop: boolean
  shouldLog: boolean
  shouldEvaluate: boolean
  shouldSave: boolean
}

/** Fields of each event in addition to the {@link CallbackContext}. */
export interface TrainerEvents {
  onTrainBegin: object
  onTrainEnd: object
  onEpochBegin: object
  onEpochEnd: object
  /** Before the first batch of an optimizer step. */
  onStepBegin: object
  /** The gradients are computed and unscaled, and not yet clipped. */
  onPreOptimizerStep: object
  /** After the optimizer's step, before the gradients are cleared. */
  onOptimizerStep: object
  onStepEnd: object
  onEvaluate: { metrics: Record<string, number> }
  /** `checkpoint` is the folder of the complete checkpoint. */
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

/** Functions called at the events of a training, in the order of the callbacks. Each is awaited. */
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

/** Check a callback. @throws ConfigError for an `on…` name that is not an event, or whose value is not a function */
export function checkCallback(callback: TrainerCallback): void {
  requireObject('Trainer', 'a callback', callback)
  for (const [name, value] of Object.entries(callback)) {
    if (!/^on[A-Z]/.test(name)) continue
    if (!(EVENTS as string[]).includes(name)) {
      throw new ConfigError(
        `Trainer.callbacks: expected a known event, got '${name}'; did you mean ${nearest(name, EVENTS) ?? EVENTS.join(', ')}?`,
        {
          argument: name,
        },
      )
    }
    if (value !== undefined && typeof value !== 'function') throw argumentError('Trainer', name, 'a function', value)
  }
}

export const newControl = (): TrainerControl => ({
  shouldStop: false,
  shouldEpochStop: false,
  shouldLog: false,
  shouldEvaluate: false,
  shouldSave: false,
})
