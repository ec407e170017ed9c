import { argumentError, requireFunction, requireNumber, requireOptions } from '../base/check.js'
import { CheckpointError, ConfigError } from '../base/errors.js'

/** Return the factor on the initial learning rate for a step, counted from 0. */
export type Schedule = (step: number) => number

export interface WarmupOptions {
  /** Steps over which the rate increases from 0 to the initial one. */
  numWarmupSteps: number
}

export interface DecayOptions extends WarmupOptions {
  /** Steps of the whole training, warm-up included. */
  numTrainingSteps: number
}

export interface CosineOptions extends DecayOptions {
  /** Number of waves of the cosine. Default 0.5: from the maximum to 0 once. */
  numCycles?: number
}

/** Constant schedule: always 1. */
export const constantSchedule: Schedule = () => 1

/** Return a schedule with linear warm-up from 0, then constant 1. */
export function constantScheduleWithWarmup(options: WarmupOptions): Schedule {
  const { numWarmupSteps } = checked('getConstantScheduleWithWarmup', options, ['numWarmupSteps'], [])
  return (step) => (step < numWarmupSteps ? step / Math.max(1, numWarmupSteps) : 1)
}

/** Return a schedule with linear warm-up from 0, then linear decay to 0 at the last step. */
export function linearScheduleWithWarmup(options: DecayOptions): Schedule {
  const { numWarmupSteps, numTrainingSteps } = checked('getLinearScheduleWithWarmup', options, COUNTS, [])
  return (step) =>
    step < numWarmupSteps
      ? step / Math.max(1, numWarmupSteps)
      : Math.max(0, (numTrainingSteps - step) / Math.max(1, numTrainingSteps - numWarmupSteps))
}

/** Return a schedule with linear warm-up from 0, then cosine decay to 0. */
export function cosineScheduleWithWarmup(options: CosineOptions): Schedule {
  const {
    numWarmupSteps,
    numTrainingSteps,
    numCycles = 0.5,
  } = checked('getCosineScheduleWithWarmup', options, COUNTS, ['numCycles'])
  requireNumber('getCosineScheduleWithWarmup', 'numCycles', numCycles)
  return (step) => {
    if (step < numWarmupSteps) return step / Math.max(1, numWarmupSteps)
    const progress = (step - numWarmupSteps) / Math.max(1, numTrainingSteps - numWarmupSteps)
    return Math.max(0, 0.5 * (1 + Math.cos(Math.PI * numCycles * 2 * progress)))
  }
}

const COUNTS = ['numWarmupSteps', 'numTrainingSteps'] as const

function checked<O extends object>(
  where: string,
  options: O,
  counts: readonly (keyof O & string)[],
  others: readonly (keyof O & string)[],
): O {
  requireOptions(where, options, [...counts, ...others])
  for (const count of counts) requireNumber(where, count, options[count], { least: 0 })
  return options
}

/** Interface that a schedule needs of an optimizer. */
export interface Scheduled {
  groups: { lr: number; initialLr?: number }[]
  /** Default options of the groups. */
  defaults?: { readonly lr: number }
}

/** State as in PyTorch's `LambdaLR.state_dict()`. */
export interface LRSchedulerState {
  base_lrs: number[]
  last_epoch: number
  _step_count: number
  _last_lr: number[]
}

/**
 * Sets the learning rate of each parameter group to its initial one times the schedule: PyTorch's `LambdaLR`. The constructor
 * sets the rate of the first step; call `step()` after each `optimizer.step()`.
 */
export class LRScheduler {
  readonly #optimizer: Scheduled
  readonly #schedules: Schedule[]
  #baseLrs: number[]
  #lastEpoch = 0

  /** @param schedule one for all groups, or one for each */
  constructor(optimizer: Scheduled, schedule: Schedule | Schedule[]) {
    if (!Array.isArray(optimizer?.groups)) throw argumentError('LRScheduler', 'optimizer', 'an optimizer', optimizer)
    for (const group of optimizer.groups) requireNumber('LRScheduler', "the optimizer's lr", group?.lr)
    this.#optimizer = optimizer
    this.#schedules = Array.isArray(schedule) ? schedule : optimizer.groups.map(() => schedule)
    for (const one of this.#schedules) requireFunction('LRScheduler', 'schedule', one)
    if (this.#schedules.length !== optimizer.groups.length) {
      throw new ConfigError(
        `LRScheduler: expected one schedule for each of ${optimizer.groups.length} parameter groups, got ${this.#schedules.length}`,
        {},
      )
    }
    for (const group of optimizer.groups) group.initialLr ??= group.lr
    this.#baseLrs = optimizer.groups.map((group) => group.initialLr as number)
    this.#apply()
  }

  /** Learning rate of each group. */
  get lastLr(): number[] {
    return this.#baseLrs.map((lr, i) => lr * (this.#schedules[i] as Schedule)(this.#lastEpoch))
  }

  step(): void {
    this.#lastEpoch++
    this.#apply()
  }

  /** Return the state as plain numbers that JSON can store, under PyTorch's keys. */
  stateDict(): LRSchedulerState {
    const { lastLr } = this
    return {
      base_lrs: [...this.#baseLrs],
      last_epoch: this.#lastEpoch,
      _step_count: this.#lastEpoch + 1,
      _last_lr: lastLr,
    }
  }

  loadStateDict(state: LRSchedulerState): void {
    const count = this.#optimizer.groups.length
    if (!Array.isArray(state?.base_lrs) || state.base_lrs.length !== count || !Number.isSafeInteger(state.last_epoch)) {
      throw new CheckpointError(
        `LRScheduler.loadStateDict: expected last_epoch and base_lrs for the optimizer's ${count} groups`,
        {},
      )
    }
    for (const lr of state.base_lrs) requireNumber('LRScheduler', 'base_lrs', lr)
    this.#baseLrs = [...state.base_lrs]
    this.#lastEpoch = state.last_epoch
    this.#apply()
  }

  #apply(): void {
    const { lastLr } = this
    lastLr.forEach((lr, i) => {
      const group = this.#optimizer.groups[i]
      if (group) group.lr = lr
    })
  }
}

/** Create a constant schedule: transformers' `get_constant_schedule`. */
export const getConstantSchedule = (optimizer: Scheduled): LRScheduler => new LRScheduler(optimizer, constantSchedule)

/** Create a schedule of linear warm-up from 0, then the full rate: transformers' `get_constant_schedule_with_warmup`. */
export const getConstantScheduleWithWarmup = (optimizer: Scheduled, options: WarmupOptions): LRScheduler =>
  new LRScheduler(optimizer, constantScheduleWithWarmup(options))

/** Create a schedule of linear warm-up from 0, then linear decay to 0: transformers' `get_linear_schedule_with_warmup`. */
export const getLinearScheduleWithWarmup = (optimizer: Scheduled, options: DecayOptions): LRScheduler =>
  new LRScheduler(optimizer, linearScheduleWithWarmup(options))

/** Create a schedule of linear warm-up from 0, then cosine decay to 0: transformers' `get_cosine_schedule_with_warmup`. */
export const getCosineScheduleWithWarmup = (optimizer: Scheduled, options: CosineOptions): LRScheduler =>
  new LRScheduler(optimizer, cosineScheduleWithWarmup(options))
