import { argumentError, listOf, requireFunction, requireNumber, requireWhole, withDefaults } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import type { Schedule, Scheduled } from './schedules.js'
import { SteppedLR } from './stepped-lr.js'

function schedulesOf(where: string, lrLambda: Schedule | Schedule[], count: number): Schedule[] {
  const list = Array.isArray(lrLambda) ? [...lrLambda] : Array<Schedule>(count).fill(lrLambda)
  for (const one of list) requireFunction(where, 'lrLambda', one)
  if (list.length === count) return list
  throw new ConfigError(`${where}: expected one function for each of ${count} parameter groups, got ${list.length}`, {})
}

/**
 * Multiplies the initial rate by a function of the step: `torch.optim.lr_scheduler.LambdaLR`. The function is not saved in the
 * state.
 */
export class LambdaLR extends SteppedLR {
  readonly #schedules: Schedule[]

  /** @param lrLambda one function for all groups, or one for each */
  constructor(optimizer: Scheduled, lrLambda: Schedule | Schedule[]) {
    super(optimizer, {})
    this.#schedules = schedulesOf('LambdaLR', lrLambda, this.groups.length)
    this.begin()
  }

  protected override nextLrs(): number[] {
    return this.baseLrs.map((lr, i) => lr * (this.#schedules[i] as Schedule)(this.lastEpoch))
  }
}

/** Multiplies the previous rate by a function of the step: `torch.optim.lr_scheduler.MultiplicativeLR`. */
export class MultiplicativeLR extends SteppedLR {
  readonly #schedules: Schedule[]

  /** @param lrLambda one function for all groups, or one for each */
  constructor(optimizer: Scheduled, lrLambda: Schedule | Schedule[]) {
    super(optimizer, {})
    this.#schedules = schedulesOf('MultiplicativeLR', lrLambda, this.groups.length)
    this.begin()
  }

  protected override nextLrs(): number[] {
    if (this.isInitial) return this.groups.map(({ lr }) => lr)
    return this.groups.map(({ lr }, i) => lr * (this.#schedules[i] as Schedule)(this.lastEpoch))
  }
}

/** Base class of schedulers that multiply the rate by one factor for all groups. */
abstract class FactorLR extends SteppedLR {
  /** Return the factor on the previous step's rate. */
  protected abstract factor(): number
  /** Return the factor on the initial rate. */
  protected abstract totalFactor(): number

  protected override nextLrs(): number[] {
    const factor = this.factor()
    return this.groups.map(({ lr }) => lr * factor)
  }

  protected override closedForm(): number[] {
    const share = this.totalFactor()
    return this.baseLrs.map((lr) => lr * share)
  }
}

export interface StepLROptions {
  /** Steps between decays. */
  stepSize: number
  /** Factor of each decay. Default 0.1. */
  gamma?: number
}

/** Decays the rate by `gamma` every `stepSize` steps: `torch.optim.lr_scheduler.StepLR`. */
export class StepLR extends FactorLR {
  declare protected readonly own: { step_size: number; gamma: number }

  constructor(optimizer: Scheduled, options: StepLROptions) {
    const { stepSize, gamma } = withDefaults('StepLR', options, { stepSize: undefined, gamma: 0.1 })
    requireWhole('StepLR', 'stepSize', stepSize, 1)
    super(optimizer, { step_size: stepSize, gamma })
    this.begin()
  }

  protected override factor(): number {
    return this.lastEpoch === 0 || this.lastEpoch % this.own.step_size !== 0 ? 1 : this.own.gamma
  }

  protected override totalFactor(): number {
    return this.own.gamma ** Math.floor(this.lastEpoch / this.own.step_size)
  }
}

export interface MultiStepLROptions {
  /** Steps at which the rate decays. */
  milestones: Iterable<number>
  /** Factor of each decay. Default 0.1. */
  gamma?: number
}

/** Decays the rate by `gamma` at each milestone: `torch.optim.lr_scheduler.MultiStepLR`. */
export class MultiStepLR extends FactorLR {
  /** Number of times that each step occurs in the milestones. */
  declare protected readonly own: { milestones: Record<string, number>; gamma: number }

  constructor(optimizer: Scheduled, options: MultiStepLROptions) {
    const { milestones, gamma } = withDefaults('MultiStepLR', options, { milestones: undefined, gamma: 0.1 })
    const counts: Record<string, number> = {}
    for (const step of listOf('MultiStepLR', 'milestones', milestones, 'steps')) {
      requireWhole('MultiStepLR', 'a milestone', step)
      counts[step] = (counts[step] ?? 0) + 1
    }
    super(optimizer, { milestones: counts, gamma })
    this.begin()
  }

  protected override factor(): number {
    const count = this.own.milestones[this.lastEpoch]
    return count === undefined ? 1 : this.own.gamma ** count
  }

  protected override totalFactor(): number {
    const past = Object.entries(this.own.milestones).filter(([step]) => Number(step) <= this.lastEpoch)
    return this.own.gamma ** past.reduce((sum, [, count]) => sum + count, 0)
  }
}

export interface ConstantLROptions {
  /** Factor on the rate until `totalIters`, from 0 to 1. Default 1/3. */
  factor?: number
  /** Steps with the reduced rate. Default 5. */
  totalIters?: number
}

/** Multiplies the rate by a constant for some steps: `torch.optim.lr_scheduler.ConstantLR`. */
export class ConstantLR extends FactorLR {
  declare protected readonly own: { factor: number; total_iters: number }

  constructor(optimizer: Scheduled, options: ConstantLROptions = {}) {
    const { factor, totalIters } = withDefaults('ConstantLR', options, { factor: 1 / 3, totalIters: 5 })
    totalFactor('ConstantLR', 'factor', factor, true)
    requireWhole('ConstantLR', 'totalIters', totalIters)
    super(optimizer, { factor, total_iters: totalIters })
    this.begin()
  }

  protected override factor(): number {
    if (this.lastEpoch === 0) return this.own.factor
    return this.lastEpoch === this.own.total_iters ? 1 / this.own.factor : 1
  }

  protected override totalFactor(): number {
    return this.lastEpoch >= this.own.total_iters ? 1 : this.own.factor
  }
}

export interface LinearLROptions {
  /** Factor on the rate at first, above 0 and at most 1. Default 1/3. */
  startFactor?: number
  /** Factor on the rate at the end, from 0 to 1. Default 1. */
  endFactor?: number
  /** Steps from the first factor to the last. Default 5. */
  totalIters?: number
}

/** Changes a factor on the rate linearly: `torch.optim.lr_scheduler.LinearLR`. */
export class LinearLR extends FactorLR {
  declare protected readonly own: { start_factor: number; end_factor: number; total_iters: number }

  constructor(optimizer: Scheduled, options: LinearLROptions = {}) {
    const where = 'LinearLR'
    const { startFactor, endFactor, totalIters } = withDefaults(where, options, {
      startFactor: 1 / 3,
      endFactor: 1,
      totalIters: 5,
    })
    totalFactor(where, 'startFactor', startFactor)
    totalFactor(where, 'endFactor', endFactor, true)
    requireWhole(where, 'totalIters', totalIters, 1)
    super(optimizer, { start_factor: startFactor, end_factor: endFactor, total_iters: totalIters })
    this.begin()
  }

  protected override factor(): number {
    const { start_factor: start, end_factor: end, total_iters: total } = this.own
    if (this.lastEpoch === 0) return start
    if (this.isInitial || this.lastEpoch > total) return 1
    return 1 + (end - start) / (total * start + (this.lastEpoch - 1) * (end - start))
  }

  protected override totalFactor(): number {
    const { start_factor: start, end_factor: end, total_iters: total } = this.own
    return start + ((end - start) * Math.min(total, this.lastEpoch)) / total
  }
}

export interface ExponentialLROptions {
  /** Factor of each step. */
  gamma: number
}

/** Decays the rate by `gamma` every step: `torch.optim.lr_scheduler.ExponentialLR`. */
export class ExponentialLR extends FactorLR {
  declare protected readonly own: { gamma: number }

  constructor(optimizer: Scheduled, options: ExponentialLROptions) {
    const { gamma } = withDefaults('ExponentialLR', options, { gamma: undefined })
    requireNumber('ExponentialLR', 'gamma', gamma)
    super(optimizer, { gamma })
    this.begin()
  }

  protected override factor(): number {
    return this.isInitial ? 1 : this.own.gamma
  }

  protected override totalFactor(): number {
    return this.own.gamma ** this.lastEpoch
  }
}

export interface PolynomialLROptions {
  /** Steps until the rate is 0. Default 5. */
  totalIters?: number
  /** Power of the polynomial. Default 1: linear. */
  power?: number
}

/** Decays the rate to 0 as a power of the fraction of remaining steps: `torch.optim.lr_scheduler.PolynomialLR`. */
export class PolynomialLR extends FactorLR {
  declare protected readonly own: { total_iters: number; power: number }

  constructor(optimizer: Scheduled, options: PolynomialLROptions = {}) {
    const { totalIters, power } = withDefaults('PolynomialLR', options, { totalIters: 5, power: 1 })
    requireWhole('PolynomialLR', 'totalIters', totalIters, 1)
    super(optimizer, { total_iters: totalIters, power })
    this.begin()
  }

  protected override factor(): number {
    const { total_iters: total, power } = this.own
    if (this.isInitial || this.lastEpoch > total) return 1
    return ((1 - this.lastEpoch / total) / (1 - (this.lastEpoch - 1) / total)) ** power
  }

  protected override totalFactor(): number {
    const { total_iters: total, power } = this.own
    return (1 - Math.min(total, this.lastEpoch) / total) ** power
  }
}

export interface CosineAnnealingLROptions {
  /** Steps from the maximum rate to the minimum. */
  tMax: number
  /** Minimum learning rate. Default 0. */
  etaMin?: number
}

/** Decays the rate to `etaMin` along a cosine, and back: `torch.optim.lr_scheduler.CosineAnnealingLR`. */
export class CosineAnnealingLR extends SteppedLR {
  declare protected readonly own: { T_max: number; eta_min: number }

  constructor(optimizer: Scheduled, options: CosineAnnealingLROptions) {
    const { tMax, etaMin } = withDefaults('CosineAnnealingLR', options, { tMax: undefined, etaMin: 0 })
    requireWhole('CosineAnnealingLR', 'tMax', tMax, 1)
    super(optimizer, { T_max: tMax, eta_min: etaMin })
    this.begin()
  }

  protected override nextLrs(): number[] {
    const { T_max: half, eta_min: least } = this.own
    if (this.isInitial) return this.groups.map(({ lr }) => lr)
    if (this.stepCount === 1 && this.lastEpoch > 0) return this.closedForm()
    // At the minimum the recursive formula divides by 0.
    if ((this.lastEpoch - 1 - half) % (2 * half) === 0) {
      const climb = (1 - Math.cos(Math.PI / half)) / 2
      return this.groups.map(({ lr }, i) => lr + ((this.baseLrs[i] as number) - least) * climb)
    }
    const height = (step: number) => 1 + Math.cos((Math.PI * step) / half)
    const factor = height(this.lastEpoch) / height(this.lastEpoch - 1)
    return this.groups.map(({ lr }) => factor * (lr - least) + least)
  }

  protected override closedForm(): number[] {
    const { T_max: half, eta_min: least } = this.own
    const share = (1 + Math.cos((Math.PI * this.lastEpoch) / half)) / 2
    return this.baseLrs.map((lr) => least + (lr - least) * share)
  }
}

function totalFactor(where: string, name: string, value: number, zero = false): void {
  requireNumber(where, name, value, { least: 0 })
  if (value > 1 || (value === 0 && !zero)) throw argumentError(where, name, 'a factor above 0 and at most 1', value)
}
