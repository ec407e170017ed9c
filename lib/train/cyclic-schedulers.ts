import {
  argumentError,
  requireFunction,
  requireNumber,
  requireOneOf,
  requireWhole,
  withDefaults,
} from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import type { Scheduled } from './schedules.js'
import { perGroup, requireGroups, type ScheduledGroup, SteppedLR } from './stepped-lr.js'

export interface CosineAnnealingWarmRestartsOptions {
  /** Steps until the first restart. */
  t0: number
  /** Factor between the lengths of successive cycles. Default 1. */
  tMult?: number
  /** Minimum learning rate. Default 0. */
  etaMin?: number
}

/**
 * Cosine annealing with warm restarts (https://arxiv.org/abs/1608.03983):
 * `torch.optim.lr_scheduler.CosineAnnealingWarmRestarts`.
 */
export class CosineAnnealingWarmRestarts extends SteppedLR {
  declare protected readonly own: { T_0: number; T_i: number; T_mult: number; eta_min: number; T_cur: number }

  constructor(optimizer: Scheduled, options: CosineAnnealingWarmRestartsOptions) {
    const where = 'CosineAnnealingWarmRestarts'
    const { t0, tMult, etaMin } = withDefaults(where, options, { t0: undefined, tMult: 1, etaMin: 0 })
    requireWhole(where, 't0', t0, 1)
    requireWhole(where, 'tMult', tMult, 1)
    super(optimizer, { T_0: t0, T_i: t0, T_mult: tMult, eta_min: etaMin, T_cur: -1 })
    this.begin()
  }

  /** Set the rates of the next step, or those of `epoch`, which may be a fraction within an epoch. */
  override step(epoch?: number): void {
    const { own } = this
    if (epoch !== undefined) requireNumber('CosineAnnealingWarmRestarts.step', 'epoch', epoch, { least: 0 })
    if (epoch === undefined && this.lastEpoch >= 0) {
      own.T_cur++
      if (own.T_cur >= own.T_i) {
        own.T_cur %= own.T_i
        own.T_i *= own.T_mult
      }
      this.lastEpoch++
    } else {
      this.#place(epoch ?? 0)
      this.lastEpoch = Math.floor(epoch ?? 0)
    }
    this.setLrs(this.nextLrs())
  }

  #place(epoch: number): void {
    const { T_0: first, T_mult: mult } = this.own
    let [length, start] = [first, 0]
    if (mult === 1) start = Math.floor(epoch / first) * first
    else {
      while (epoch >= start + length) {
        start += length
        length *= mult
      }
    }
    this.own.T_cur = epoch - start
    this.own.T_i = length
  }

  protected override nextLrs(): number[] {
    const { T_cur, T_i, eta_min: least } = this.own
    const fraction = (1 + Math.cos((Math.PI * T_cur) / T_i)) / 2
    return this.baseLrs.map((lr) => least + (lr - least) * fraction)
  }
}

/** Set a group's momentum; for Adam that is the first of its betas. */
function setMomentum(group: ScheduledGroup, momentum: number): void {
  if (group.betas) group.betas = [momentum, group.betas[1]]
  else group.momentum = momentum
}

function requireMomentum(where: string, groups: readonly ScheduledGroup[]): void {
  if (groups.every((group) => group.betas || group.momentum !== undefined)) return
  throw new ConfigError(
    `${where}: expected an optimizer with momentum or betas, got neither. Set cycleMomentum to false`,
    {
      option: 'cycleMomentum',
    },
  )
}

export interface CyclicLROptions {
  /** Minimum learning rate, for all groups or each. */
  baseLr: number | number[]
  /** Maximum learning rate before `mode` scales it, for all groups or each. */
  maxLr: number | number[]
  /** Steps from the minimum to the maximum. Default 2000. */
  stepSizeUp?: number
  /** Steps back to the minimum. Default: `stepSizeUp`. */
  stepSizeDown?: number
  /**
   * 'triangular' (default): constant amplitude; 'triangular2': halved in each cycle; 'exp_range': scaled by `gamma` in each
   * step.
   */
  mode?: 'triangular' | 'triangular2' | 'exp_range'
  /** Factor per step of 'exp_range'. Default 1. */
  gamma?: number
  /** Amplitude as a function of the cycle's number, from 1, or of the step; replaces `mode`. Not saved in the state. */
  scaleFn?: (x: number) => number
  /** Argument of `scaleFn`. Default 'cycle'. */
  scaleMode?: 'cycle' | 'iterations'
  /** Cycle momentum inversely, from `maxMomentum` to `baseMomentum`. Default true. */
  cycleMomentum?: boolean
  /** Momentum at the maximum rate. Default 0.8. */
  baseMomentum?: number | number[]
  /** Momentum at the minimum rate. Default 0.9. */
  maxMomentum?: number | number[]
}

/** Cycles between two rates (Smith 2017, https://arxiv.org/abs/1506.01186): `torch.optim.lr_scheduler.CyclicLR`. */
export class CyclicLR extends SteppedLR {
  declare protected readonly own: {
    max_lrs: number[]
    total_size: number
    step_ratio: number
    mode: string
    gamma: number
    scale_mode: string
    cycle_momentum: boolean
    _scale_fn_custom: null
    use_beta1?: boolean
    base_momentums?: number[]
    max_momentums?: number[]
  }
  readonly #scaleFn: ((x: number) => number) | undefined

  constructor(optimizer: Scheduled, options: CyclicLROptions) {
    const where = 'CyclicLR'
    const {
      baseLr,
      maxLr,
      baseMomentum = 0.8,
      maxMomentum = 0.9,
      ...rest
    } = withDefaults(where, options, {
      ...{ baseLr: undefined, maxLr: undefined, stepSizeUp: 2000, stepSizeDown: undefined, mode: 'triangular' },
      ...{ gamma: 1, scaleFn: undefined, scaleMode: 'cycle' },
      ...{ cycleMomentum: true, baseMomentum: undefined, maxMomentum: undefined },
    })
    const { stepSizeUp, stepSizeDown = stepSizeUp, mode, gamma, scaleFn, scaleMode, cycleMomentum } = rest
    requireNumber(where, 'stepSizeUp', stepSizeUp, { least: 1 })
    requireNumber(where, 'stepSizeDown', stepSizeDown, { least: 1 })
    requireOneOf(where, 'mode', mode, ['triangular', 'triangular2', 'exp_range'])
    if (scaleFn !== undefined) requireFunction(where, 'scaleFn', scaleFn)
    requireOneOf(where, 'scaleMode', scaleMode, ['cycle', 'iterations'])
    const groups = requireGroups(where, optimizer)
    const count = groups.length
    const lowest = perGroup(where, 'baseLr', baseLr, count)
    if (cycleMomentum) requireMomentum(where, groups)
    super(optimizer, {
      max_lrs: perGroup(where, 'maxLr', maxLr, count),
      total_size: stepSizeUp + stepSizeDown,
      step_ratio: stepSizeUp / (stepSizeUp + stepSizeDown),
      mode,
      gamma,
      scale_mode: scaleFn ? scaleMode : mode === 'exp_range' ? 'iterations' : 'cycle',
      cycle_momentum: cycleMomentum,
      _scale_fn_custom: null,
      ...(cycleMomentum && {
        use_beta1: groups.some((group) => group.betas),
        base_momentums: perGroup(where, 'baseMomentum', baseMomentum, count),
        max_momentums: perGroup(where, 'maxMomentum', maxMomentum, count),
      }),
    })
    this.#scaleFn = scaleFn
    this.baseLrs = lowest
    this.begin()
  }

  protected override nextLrs(): number[] {
    const { total_size: size, step_ratio: ratio, max_lrs: highest, scale_mode: by } = this.own
    const cycle = Math.floor(1 + this.lastEpoch / size)
    const x = 1 + this.lastEpoch / size - cycle
    const way = x <= ratio ? x / ratio : (x - 1) / (ratio - 1)
    const height = way * this.#scale(by === 'cycle' ? cycle : this.lastEpoch)
    const { base_momentums: low = [], max_momentums: high = [] } = this.own
    if (this.own.cycle_momentum) {
      this.groups.forEach((group, i) => {
        const [least, most] = [low[i] as number, high[i] as number]
        setMomentum(group, most - (most - least) * height)
      })
    }
    return this.baseLrs.map((lr, i) => lr + ((highest[i] as number) - lr) * height)
  }

  #scale(x: number): number {
    if (this.#scaleFn) return this.#scaleFn(x)
    if (this.own.mode === 'triangular') return 1
    return this.own.mode === 'triangular2' ? 1 / 2 ** (x - 1) : this.own.gamma ** x
  }
}

export interface OneCycleLROptions {
  /** Maximum learning rate, for all groups or each. */
  maxLr: number | number[]
  /** Steps of the whole training; alternative to the two options below. */
  totalSteps?: number
  epochs?: number
  stepsPerEpoch?: number
  /** Fraction of the steps in which the rate increases. Default 0.3. */
  pctStart?: number
  /** Shape of the phases. Default 'cos'. */
  annealStrategy?: 'cos' | 'linear'
  /** Change momentum inversely, from `maxMomentum` to `baseMomentum` and back. Default true. */
  cycleMomentum?: boolean
  /** Momentum at the maximum rate. Default 0.85. */
  baseMomentum?: number | number[]
  /** Momentum at the minimum rate. Default 0.95. */
  maxMomentum?: number | number[]
  /** Ratio of `maxLr` to the initial rate. Default 25. */
  divFactor?: number
  /** Ratio of the initial rate to the final rate. Default 1e4. */
  finalDivFactor?: number
  /**
   * Decrease to the initial rate in as many steps as the increase, then to the final rate. Default false: decrease to the final
   * rate directly.
   */
  threePhase?: boolean
}

/** Phase of the schedule: its end, and the values it interpolates between; `Lr` and `Momentum` name values of a group. */
interface Phase {
  end_step: number
  start_lr: string
  end_lr: string
  start_momentum: string
  end_momentum: string
}

/** One-cycle policy (Smith 2018, https://arxiv.org/abs/1708.07120): `torch.optim.lr_scheduler.OneCycleLR`. */
export class OneCycleLR extends SteppedLR {
  declare protected readonly own: {
    total_steps: number
    _schedule_phases: Phase[]
    _anneal_func_type: string
    cycle_momentum: boolean
    use_beta1?: boolean
  }
  /** Values of each group, by the names that phases use. */
  readonly #values: Record<string, number>[]

  constructor(optimizer: Scheduled, options: OneCycleLROptions) {
    const where = 'OneCycleLR'
    const { maxLr, pctStart, annealStrategy, cycleMomentum, ...rest } = withDefaults(where, options, {
      ...{ maxLr: undefined, totalSteps: undefined, epochs: undefined, stepsPerEpoch: undefined, pctStart: 0.3 },
      ...{ annealStrategy: 'cos', cycleMomentum: true, baseMomentum: undefined, maxMomentum: undefined },
      ...{ divFactor: 25, finalDivFactor: 1e4, threePhase: false },
    })
    const { baseMomentum = 0.85, maxMomentum = 0.95, divFactor, finalDivFactor, threePhase } = rest
    if (rest.totalSteps === undefined && (rest.epochs === undefined || rest.stepsPerEpoch === undefined)) {
      throw argumentError(where, 'totalSteps, or epochs and stepsPerEpoch', 'an integer', undefined)
    }
    const totalSteps = rest.totalSteps ?? (rest.epochs as number) * (rest.stepsPerEpoch as number)
    requireWhole(where, rest.totalSteps === undefined ? 'epochs · stepsPerEpoch' : 'totalSteps', totalSteps, 1)
    requireNumber(where, 'pctStart', pctStart, { least: 0 })
    if (pctStart > 1) throw argumentError(where, 'pctStart', 'a fraction from 0 to 1', pctStart)
    requireOneOf(where, 'annealStrategy', annealStrategy, ['cos', 'linear'])
    for (const [name, value] of Object.entries({ divFactor, finalDivFactor })) {
      requireNumber(where, name, value, { least: Number.MIN_VALUE })
    }
    const groups = requireGroups(where, optimizer)
    const count = groups.length
    const highest = perGroup(where, 'maxLr', maxLr, count)
    if (cycleMomentum) requireMomentum(where, groups)
    const low = perGroup(where, 'baseMomentum', baseMomentum, count)
    const high = perGroup(where, 'maxMomentum', maxMomentum, count)
    for (const [i, group] of groups.entries()) group.initialLr = (highest[i] as number) / divFactor
    super(optimizer, {
      total_steps: totalSteps,
      _schedule_phases: phases(totalSteps, pctStart, threePhase),
      _anneal_func_type: annealStrategy,
      cycle_momentum: cycleMomentum,
      ...(cycleMomentum && { use_beta1: groups.some((group) => group.betas) }),
    })
    this.#values = highest.map((max, i) => ({
      initial_lr: max / divFactor,
      max_lr: max,
      min_lr: max / divFactor / finalDivFactor,
      base_momentum: low[i] as number,
      max_momentum: high[i] as number,
    }))
    this.begin()
  }

  protected override nextLrs(): number[] {
    const { total_steps: total, _schedule_phases: all, cycle_momentum: momentum } = this.own
    const step = this.lastEpoch
    if (step > total) {
      throw new ConfigError(`OneCycleLR.step: expected at most ${total} steps, got step ${step}`, { totalSteps: total })
    }
    const at = Math.max(
      0,
      all.findIndex(({ end_step }, i) => step <= end_step || i === all.length - 1),
    )
    const phase = all[at] as Phase
    const start = at === 0 ? 0 : (all[at - 1] as Phase).end_step
    const fraction = (step - start) / (phase.end_step - start)
    return this.#values.map((values, i) => {
      const between = (from: string, to: string) => this.#anneal(values[from] as number, values[to] as number, fraction)
      if (momentum) {
        setMomentum(this.groups[i] as ScheduledGroup, between(phase.start_momentum, phase.end_momentum))
      }
      return between(phase.start_lr, phase.end_lr)
    })
  }

  #anneal(start: number, end: number, fraction: number): number {
    if (this.own._anneal_func_type === 'linear') return (end - start) * fraction + start
    return end + ((start - end) / 2) * (Math.cos(Math.PI * fraction) + 1)
  }
}

function phases(total: number, pctStart: number, three: boolean): Phase[] {
  const phase = (end_step: number, lrs: [string, string], momenta: [string, string]): Phase => ({
    end_step,
    start_lr: lrs[0],
    end_lr: lrs[1],
    start_momentum: momenta[0],
    end_momentum: momenta[1],
  })
  const up = phase(pctStart * total - 1, ['initial_lr', 'max_lr'], ['max_momentum', 'base_momentum'])
  const back: [string, string] = ['base_momentum', 'max_momentum']
  if (!three) return [up, phase(total - 1, ['max_lr', 'min_lr'], back)]
  return [
    up,
    phase(2 * pctStart * total - 2, ['max_lr', 'initial_lr'], back),
    phase(total - 1, ['initial_lr', 'min_lr'], ['max_momentum', 'max_momentum']),
  ]
}
