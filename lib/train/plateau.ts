import { misuse, requireNumber, requireOneOf, requireOptions, requireWhole } from '../base/check.js'
import { Tensor } from '../tensor/index.js'
import type { Scheduled } from './schedules.js'
import { perGroup, requireGroups, type SchedulerState, stateEntries, takeOwn } from './stepped-lr.js'

export interface ReduceLROnPlateauOptions {
  /** Whether a lower metric is better (default) or a higher one. */
  mode?: 'min' | 'max'
  /** What the rate is multiplied with, below 1. Default 0.1. */
  factor?: number
  /** Steps without improvement that are let pass. Default 10. */
  patience?: number
  /** What counts as improvement. Default 1e-4. */
  threshold?: number
  /** Whether `threshold` is a share of the best metric (default) or an amount. */
  thresholdMode?: 'rel' | 'abs'
  /** Steps after a fall in which none are counted. Default 0. */
  cooldown?: number
  /** The lowest rate, for all groups or each. Default 0. */
  minLr?: number | number[]
  /** The rate stays where it would change by no more. Default 1e-8. */
  eps?: number
}

/** Lowers the rate when a metric no longer gets better: `torch.optim.lr_scheduler.ReduceLROnPlateau`. */
export class ReduceLROnPlateau {
  /** Whose rates it sets. */
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

  /** The learning rate of each group, as it was after the last step. */
  get lastLr(): number[] {
    return [...this.#own._last_lr]
  }

  /** Looks at the metric of a step, or epoch; a loss is a Tensor of one element. */
  step(metric: number | Tensor): void {
    const value = metric instanceof Tensor ? Number(metric.item()) : metric
    if (typeof value !== 'number') throw misuse('ReduceLROnPlateau.step', 'metric', 'a number', metric)
    const own = this.#own
    own.last_epoch++
    if (this.#isBetter(value)) {
      own.best = value
      own.num_bad_epochs = 0
    } else own.num_bad_epochs++
    if (own.cooldown_counter > 0) {
      own.cooldown_counter--
      own.num_bad_epochs = 0
    }
    if (own.num_bad_epochs > own.patience) {
      this.#reduce()
      own.cooldown_counter = own.cooldown
      own.num_bad_epochs = 0
    }
    own._last_lr = this.optimizer.groups.map(({ lr }) => lr)
  }

  /** Plain data under PyTorch's keys. */
  stateDict(): SchedulerState {
    return structuredClone(this.#own)
  }

  /** @throws CheckpointError naming the key that is missing, of another kind, or not of this scheduler */
  loadStateDict(state: SchedulerState): void {
    const { best, mode_worse, ...given } = stateEntries('ReduceLROnPlateau', state)
    const worst = given.mode === 'max' ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY
    // JSON has no infinities.
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
