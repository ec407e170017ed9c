import { argumentError, requireNumber, requireOneOf, requireOptions, requireWhole } from '../base/check.js'
import { Tensor } from '../tensor/index.js'
import type { Scheduled } from './schedules.js'
import { perGroup, requireGroups, type SchedulerState, stateEntries, takeOwn } from './stepped-lr.js'

export interface ReduceLROnPlateauOptions {
  /** Whether a lower metric is better (default) or a higher one. */
  mode?: 'min' | 'max'
  /** Factor on the rate at each reduction, below 1. Default 0.1. */
  factor?: number
  /** Steps without improvement before the rate is reduced. Default 10. */
  patience?: number
  /** Minimum change that counts as improvement. Default 1e-4. */
  threshold?: number
  /** Whether `threshold` is relative to the best metric (default) or absolute. */
  thresholdMode?: 'rel' | 'abs'
  /** Steps after a reduction that are not counted. Default 0. */
  cooldown?: number
  /** Minimum learning rate, for all groups or each. Default 0. */
  minLr?: number | number[]
  /** Changes of the rate up to this size are skipped. Default 1e-8. */
  eps?: number
}

/** Reduces the rate when a metric stops improving: `torch.optim.lr_scheduler.ReduceLROnPlateau`. */
export class ReduceLROnPlateau {
  /** Optimizer whose learning rates are set. */
  readonly optimizer: Scheduled
  readonly #own: {
    factor: number
    default_min_lr: number | null
    min_lrs: number[]
    patience: number
    cooldown: number
    eps: number
    last_epoch: number
    _last_lr: number[]
    mode_worse: number
    mode: string
    threshold: number
    threshold_mode: string
    best: number
    cooldown_counter: number
    num_bad_epochs: number
  }

  constructor(optimizer: Scheduled, options: ReduceLROnPlateauOptions = {}) {
    const where = 'ReduceLROnPlateau'
    requireGroups(where, optimizer)
    requireOptions(where, options, OPTIONS)
    const { mode = 'min', factor = 0.1, patience = 10, threshold = 1e-4, thresholdMode = 'rel', ...rest } = options
    const { cooldown = 0, minLr = 0, eps = 1e-8 } = rest
    requireOneOf(where, 'mode', mode, ['min', 'max'])
    requireNumber(where, 'factor', factor, { below: 1 })
    requireWhole(where, 'patience', patience)
    requireWhole(where, 'cooldown', cooldown)
    requireNumber(where, 'threshold', threshold)
    requireOneOf(where, 'thresholdMode', thresholdMode, ['rel', 'abs'])
    requireNumber(where, 'eps', eps)
    const worst = mode === 'min' ? Number.POSITIVE_INFINITY : Number.NEGATIVE_INFINITY
    this.optimizer = optimizer
    this.#own = {
      factor,
      default_min_lr: typeof minLr === 'number' ? minLr : null,
      min_lrs: perGroup(where, 'minLr', minLr, optimizer.groups.length),
      patience,
      cooldown,
      eps,
      last_epoch: 0,
      _last_lr: optimizer.groups.map(({ lr }) => lr),
      mode_worse: worst,
      mode,
      threshold,
      threshold_mode: thresholdMode,
      best: worst,
      cooldown_counter: 0,
      num_bad_epochs: 0,
    }
  }

  /** Learning rate of each group after the last step. */
  get lastLr(): number[] {
    return [...this.#own._last_lr]
  }

  /** Record the metric of a step or epoch; a loss is a Tensor with one element. */
  step(metric: number | Tensor): void {
    const value = metric instanceof Tensor ? Number(metric.item()) : metric
    if (typeof value !== 'number') throw argumentError('ReduceLROnPlateau.step', 'metric', 'a number', metric)
    const state = this.#own
    state.last_epoch++
    if (this.#isBetter(value)) {
      state.best = value
      state.num_bad_epochs = 0
    } else state.num_bad_epochs++
    if (state.cooldown_counter > 0) {
      state.cooldown_counter--
      state.num_bad_epochs = 0
    }
    if (state.num_bad_epochs > state.patience) {
      this.#reduce()
      state.cooldown_counter = state.cooldown
      state.num_bad_epochs = 0
    }
    state._last_lr = this.optimizer.groups.map(({ lr }) => lr)
  }

  /** Return the state as plain data under PyTorch's keys. */
  stateDict(): SchedulerState {
    return structuredClone(this.#own)
  }

  /** Load a state. @throws CheckpointError that names a key that is missing, unknown or of another type */
  loadStateDict(state: SchedulerState): void {
    const { best, mode_worse, ...given } = stateEntries('ReduceLROnPlateau', state)
    const worst = given.mode === 'max' ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY
    // JSON cannot store infinities.
    Object.assign(
      this.#own,
      takeOwn('ReduceLROnPlateau', { ...given, best: best ?? worst, mode_worse: worst }, this.#own),
    )
  }

  #isBetter(value: number): boolean {
    const { mode, threshold_mode, threshold, best } = this.#own
    if (mode === 'min') return value < (threshold_mode === 'rel' ? best * (1 - threshold) : best - threshold)
    return value > (threshold_mode === 'rel' ? best * (1 + threshold) : best + threshold)
  }

  #reduce(): void {
    const { factor, min_lrs, default_min_lr, eps } = this.#own
    this.optimizer.groups.forEach((group, i) => {
      const lr = Math.max(group.lr * factor, min_lrs[i] ?? default_min_lr ?? 0)
      if (group.lr - lr > eps) group.lr = lr
    })
  }
}

const OPTIONS = ['mode', 'factor', 'patience', 'threshold', 'thresholdMode', 'cooldown', 'minLr', 'eps']
