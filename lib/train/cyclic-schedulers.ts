import { misuse, requireFunction, requireNumber, requireOneOf, requireWhole } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import type { Scheduled } from './schedules.js'
import { perGroup, requireGroups, type ScheduledGroup, SteppedLR, schedulerOptions } from './stepped-lr.js'

export interface CosineAnnealingWarmRestartsOptions {
  /** Steps until the first restart. */
  t0: number
  /** How much longer each stretch is than the one before. Default 1. */
  tMult?: number
  /** The lowest rate. Default 0. */
  etaMin?: number
}

/**
 * Down along a cosine, again and again (https://arxiv.org/abs/1608.03983):
 * `torch.optim.lr_scheduler.CosineAnnealingWarmRestarts`.
 */
export class CosineAnnealingWarmRestarts extends SteppedLR {
  declare protected readonly own: { T_0: number; T_i: number; T_mult: number; eta_min: number; T_cur: number }

  constructor(optimizer: Scheduled, options: CosineAnnealingWarmRestartsOptions) {
    const where = 'CosineAnnealingWarmRestarts'
    const { t0, tMult = 1, etaMin = 0 } = schedulerOptions(where, options, 't0', 'tMult', 'etaMin')
    requireWhole(where, 't0', t0, 1)
    requireWhole(where, 'tMult', tMult, 1)
    requireNumber(where, 'etaMin', etaMin)
    super(optimizer, { T_0: t0, T_i: t0, T_mult: tMult, eta_min: etaMin, T_cur: -1 })
    this.begin()
  }

  /** Sets the rates of the next step; or those of `epoch`, which may be a fraction, as after part of an epoch. */
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
    const share = (1 + Math.cos((Math.PI * T_cur) / T_i)) / 2
    return this.baseLrs.map((lr) => least + (lr - least) * share)
  }
}

/** Sets a group's momentum: Adam's is the first of its betas. */
function setMomentum(group: ScheduledGroup, momentum: number): void {
  if (group.betas) group.betas = [momentum, group.betas[1]]
  else group.momentum = momentum
}

function requireMomentum(where: string, groups: readonly ScheduledGroup[]): void {
  if (groups.every((group) => group.betas || group.momentum !== undefined)) return
  throw new ConfigError(`${where}: the optimiser has neither momentum nor betas: set cycleMomentum to false`, {
    option: 'cycleMomentum',
  })
}

export interface CyclicLROptions {
  /** The lowest rate, for all groups or each. */
  baseLr: number | number[]
  /** The highest, before `mode` scales it. */
  maxLr: number | number[]
  /** Steps from the lowest to the highest. Default 2000. */
  stepSizeUp?: number
  /** Steps back. Default: as many. */
  stepSizeDown?: number
  /** 'triangular' (default): always as high; 'triangular2': half as high each cycle; 'exp_range': by `gamma` each step. */
  mode?: 'triangular' | 'triangular2' | 'exp_range'
  /** Default 1. */
  gamma?: number
  /** The height by the number of the cycle, from 1, or of the step, in place of `mode`; not in the state. */
  scaleFn?: (x: number) => number
  /** What `scaleFn` is given. Default 'cycle'. */
  scaleMode?: 'cycle' | 'iterations'
  /** Moves momentum the other way, from `maxMomentum` to `baseMomentum`. Default true. */
  cycleMomentum?: boolean
  /** Default 0.8. */
  baseMomentum?: number | number[]
  /** Default 0.9. */
  maxMomentum?: number | number[]
}

/** Up and down between two rates (Smith 2017, https://arxiv.org/abs/1506.01186): `torch.optim.lr_scheduler.CyclicLR`. */
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
      stepSizeUp = 2000,
      mode = 'triangular',
      gamma = 1,
      scaleFn,
      ...rest
    } = schedulerOptions(
      where,
      options,
      'baseLr',
      'maxLr',
      'stepSizeUp',
      'stepSizeDown',
      'mode',
      'gamma',
      'scaleFn',
      'scaleMode',
      'cycleMomentum',
      'baseMomentum',
      'maxMomentum',
    )
    const { stepSizeDown = stepSizeUp, cycleMomentum = true, baseMomentum = 0.8, maxMomentum = 0.9 } = rest
    requireNumber(where, 'stepSizeUp', stepSizeUp, { least: 1 })
    requireNumber(where, 'stepSizeDown', stepSizeDown, { least: 1 })
    requireNumber(where, 'gamma', gamma)
    requireOneOf(where, 'mode', mode, ['triangular', 'triangular2', 'exp_range'])
    if (scaleFn !== undefined) requireFunction(where, 'scaleFn', scaleFn)
    const { scaleMode = 'cycle' } = rest
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
  /** The highest rate, for all groups or each. */
  maxLr: number | number[]
  /** Steps of the whole training; or give the two below. */
  totalSteps?: number
  epochs?: number
  stepsPerEpoch?: number
  /** Share of the steps on the way up. Default 0.3. */
  pctStart?: number
  /** Default 'cos'. */
  annealStrategy?: 'cos' | 'linear'
  /** Moves momentum the other way, from `maxMomentum` to `baseMomentum` and back. Default true. */
  cycleMomentum?: boolean
  /** Default 0.85. */
  baseMomentum?: number | number[]
  /** Default 0.95. */
  maxMomentum?: number | number[]
  /** The first rate is `maxLr` through this. Default 25. */
  divFactor?: number
  /** The last is the first through this. Default 1e4. */
  finalDivFactor?: number
  /** Down to the first rate on the same way, then on to the last. Default false: straight to the last. */
  threePhase?: boolean
}

/** A phase's end, and what it leads from and to; `Lr` and `Momentum` name values of a group. */
interface Phase {
  end_step: number
  start_lr: string
  end_lr: string
  start_momentum: string
  end_momentum: string
}

/** Up to the highest rate and down again, once (Smith 2018, https://arxiv.org/abs/1708.07120): `torch.optim.lr_scheduler.OneCycleLR`. */
export class OneCycleLR extends SteppedLR {
  declare protected readonly own: {
    total_steps: number
    _schedule_phases: Phase[]
    _anneal_func_type: string
    cycle_momentum: boolean
    use_beta1?: boolean
  }
  /** Of each group, by the names that phases have. */
  readonly #values: Record<string, number>[]

  constructor(optimizer: Scheduled, options: OneCycleLROptions) {
    const where = 'OneCycleLR'
    const {
      maxLr,
      pctStart = 0.3,
      annealStrategy = 'cos',
      cycleMomentum = true,
      ...rest
    } = schedulerOptions(
      where,
      options,
      'maxLr',
      'totalSteps',
      'epochs',
      'stepsPerEpoch',
      'pctStart',
      'annealStrategy',
      'cycleMomentum',
      'baseMomentum',
      'maxMomentum',
      'divFactor',
      'finalDivFactor',
      'threePhase',
    )
    const { baseMomentum = 0.85, maxMomentum = 0.95, divFactor = 25, finalDivFactor = 1e4, threePhase = false } = rest
    if (rest.totalSteps === undefined && (rest.epochs === undefined || rest.stepsPerEpoch === undefined)) {
      throw misuse(where, 'totalSteps, or epochs and stepsPerEpoch', 'a whole number', undefined)
    }
    const totalSteps = rest.totalSteps ?? (rest.epochs as number) * (rest.stepsPerEpoch as number)
    requireWhole(where, rest.totalSteps === undefined ? 'epochs · stepsPerEpoch' : 'totalSteps', totalSteps, 1)
    requireNumber(where, 'pctStart', pctStart, { least: 0 })
    if (pctStart > 1) throw misuse(where, 'pctStart', 'a share from 0 to 1', pctStart)
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
      throw new ConfigError(`OneCycleLR was made for ${total} steps, this would be step ${step}`, { totalSteps: total })
    }
    const at = Math.max(
      0,
      all.findIndex(({ end_step }, i) => step <= end_step || i === all.length - 1),
    )
    const phase = all[at] as Phase
    const start = at === 0 ? 0 : (all[at - 1] as Phase).end_step
    const share = (step - start) / (phase.end_step - start)
    return this.#values.map((values, i) => {
      const between = (from: string, to: string) => this.#anneal(values[from] as number, values[to] as number, share)
      if (momentum) {
        setMomentum(this.groups[i] as ScheduledGroup, between(phase.start_momentum, phase.end_momentum))
      }
      return between(phase.start_lr, phase.end_lr)
    })
  }

  #anneal(start: number, end: number, share: number): number {
    if (this.own._anneal_func_type === 'linear') return (end - start) * share + start
    return end + ((start - end) / 2) * (Math.cos(Math.PI * share) + 1)
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
