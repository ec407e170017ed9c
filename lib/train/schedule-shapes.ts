import { argumentError, requireNumber, requireOneOf, requireOptions } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import type { CosineOptions, DecayOptions, Schedule, WarmupOptions } from './schedules.js'

export interface RestartOptions extends DecayOptions {
  /** Number of times that the cosine falls from 1 to 0. Default 1. */
  numCycles?: number
}

export interface PolynomialOptions extends DecayOptions {
  /** Learning rate of the optimizer; the schedule is a factor on it. */
  lrInit: number
  /** Learning rate after the last step, below `lrInit`. Default 1e-7. */
  lrEnd?: number
  /** Power of the polynomial. Default 1: linear. */
  power?: number
}

export interface InverseSqrtOptions extends WarmupOptions {
  /** Time scale of the decay in steps. Default: `numWarmupSteps`, or 10,000 if that is 0. */
  timescale?: number
}

export interface MinimumOptions extends CosineOptions {
  /** Minimum factor. */
  minLrRate: number
}

export interface WarmupMinimumOptions extends MinimumOptions {
  /** Factor of the first step. Default: 1 / `numWarmupSteps`. */
  warmupLrRate?: number
}

/** Shape of the change from one level to another. */
export type Ramp = 'linear' | 'cosine' | '1-sqrt'

export interface StableOptions extends WarmupOptions {
  /** Number of steps of the final decay. */
  numDecaySteps: number
  /** Number of steps at the full rate; alternative to `numTrainingSteps`. */
  numStableSteps?: number
  numTrainingSteps?: number
  /** Shape of the warm-up. Default 'linear'. */
  warmupType?: Ramp
  /** Shape of the decay. Default 'cosine'. */
  decayType?: Ramp
  /** Factor at both ends. Default 0. */
  minLrRatio?: number
  /** Number of waves of a cosine decay. Default 0.5. */
  numCycles?: number
}

const RAMPS: readonly Ramp[] = ['linear', 'cosine', '1-sqrt']

/** Return a schedule with linear warm-up, then cosine decay to 0 with hard restarts (https://arxiv.org/abs/1608.03983). */
export function cosineWithHardRestartsScheduleWithWarmup(options: RestartOptions): Schedule {
  const where = 'cosineWithHardRestartsScheduleWithWarmup'
  const {
    numWarmupSteps,
    numTrainingSteps,
    numCycles = 1,
  } = counted(where, options, ['numTrainingSteps'], ['numCycles'])
  requireNumber(where, 'numCycles', numCycles, { least: 0 })
  return (step) => {
    if (step < numWarmupSteps) return climb(step, numWarmupSteps)
    const progress = (step - numWarmupSteps) / Math.max(1, numTrainingSteps - numWarmupSteps)
    return progress >= 1 ? 0 : Math.max(0, 0.5 * (1 + Math.cos(Math.PI * ((numCycles * progress) % 1))))
  }
}

/** Return a schedule with linear warm-up, then polynomial decay to `lrEnd`. */
export function polynomialDecayScheduleWithWarmup(options: PolynomialOptions): Schedule {
  const where = 'polynomialDecayScheduleWithWarmup'
  const { numWarmupSteps, numTrainingSteps, lrInit, ...rest } = counted(
    where,
    options,
    ['numTrainingSteps'],
    ['lrInit', 'lrEnd', 'power'],
  )
  const { lrEnd = 1e-7, power = 1 } = rest
  requireNumber(where, 'lrInit', lrInit, { least: 0 })
  requireNumber(where, 'lrEnd', lrEnd, { least: 0, below: lrInit })
  requireNumber(where, 'power', power, { least: 0 })
  if (numTrainingSteps <= numWarmupSteps) {
    throw new ConfigError(
      `${where}: expected numTrainingSteps to be above numWarmupSteps (${numWarmupSteps}), got ${numTrainingSteps}`,
      { option: 'numTrainingSteps' },
    )
  }
  return (step) => {
    if (step < numWarmupSteps) return climb(step, numWarmupSteps)
    if (step > numTrainingSteps) return lrEnd / lrInit
    const left = 1 - (step - numWarmupSteps) / (numTrainingSteps - numWarmupSteps)
    return ((lrInit - lrEnd) * left ** power + lrEnd) / lrInit
  }
}

/** Return a schedule with linear warm-up, then decay as 1 / √step (https://arxiv.org/abs/1706.03762, section 5.3). */
export function inverseSqrtSchedule(options: InverseSqrtOptions): Schedule {
  const { numWarmupSteps, timescale = options.numWarmupSteps || 10_000 } = counted(
    'inverseSqrtSchedule',
    options,
    [],
    ['timescale'],
  )
  requireNumber('inverseSqrtSchedule', 'timescale', timescale, { least: 1 })
  return (step) =>
    step < numWarmupSteps ? climb(step, numWarmupSteps) : 1 / Math.sqrt((step + timescale - numWarmupSteps) / timescale)
}

/** Return a schedule with linear warm-up, then cosine decay to `minLrRate`. */
export function cosineWithMinLrScheduleWithWarmup(options: MinimumOptions): Schedule {
  const where = 'cosineWithMinLrScheduleWithWarmup'
  const {
    numWarmupSteps,
    numTrainingSteps,
    numCycles = 0.5,
    minLrRate,
  } = counted(where, options, ['numTrainingSteps'], ['numCycles', 'minLrRate'])
  requireNumber(where, 'numCycles', numCycles)
  requireNumber(where, 'minLrRate', minLrRate)
  return (step) => {
    if (step < numWarmupSteps) return climb(step, numWarmupSteps)
    const progress = (step - numWarmupSteps) / Math.max(1, numTrainingSteps - numWarmupSteps)
    return Math.max(0, wave(progress, numCycles) * (1 - minLrRate) + minLrRate)
  }
}

/** Return {@link cosineWithMinLrScheduleWithWarmup} with `warmupLrRate` instead of 0 as the factor of the first step. */
export function cosineWarmupWithMinLrSchedule(options: WarmupMinimumOptions): Schedule {
  const where = 'cosineWarmupWithMinLrSchedule'
  const {
    numWarmupSteps,
    numTrainingSteps,
    numCycles = 0.5,
    ...rest
  } = counted(where, options, ['numTrainingSteps'], ['numCycles', 'minLrRate', 'warmupLrRate'])
  const { minLrRate, warmupLrRate } = rest
  requireNumber(where, 'numCycles', numCycles)
  requireNumber(where, 'minLrRate', minLrRate)
  if (warmupLrRate !== undefined) requireNumber(where, 'warmupLrRate', warmupLrRate)
  return (step) => {
    if (step < numWarmupSteps) {
      if (warmupLrRate === undefined) return (step + 1) / Math.max(1, numWarmupSteps)
      return warmupLrRate + ((1 - warmupLrRate) * step) / Math.max(1, numWarmupSteps - 1)
    }
    const progress = (step - numWarmupSteps + 1) / Math.max(1, numTrainingSteps - numWarmupSteps)
    return Math.max(0, wave(progress, numCycles) * (1 - minLrRate) + minLrRate)
  }
}

/** Return a warm-up, stable, decay schedule (https://arxiv.org/abs/2404.06395). */
export function warmupStableDecaySchedule(options: StableOptions): Schedule {
  const where = 'warmupStableDecaySchedule'
  const { numWarmupSteps, numDecaySteps, ...rest } = counted(
    where,
    options,
    ['numDecaySteps'],
    ['numStableSteps', 'numTrainingSteps', 'warmupType', 'decayType', 'minLrRatio', 'numCycles'],
  )
  const { warmupType = 'linear', decayType = 'cosine', minLrRatio = 0, numCycles = 0.5, numTrainingSteps } = rest
  requireOneOf(where, 'warmupType', warmupType, RAMPS)
  requireOneOf(where, 'decayType', decayType, RAMPS)
  requireNumber(where, 'minLrRatio', minLrRatio)
  requireNumber(where, 'numCycles', numCycles)
  if (rest.numStableSteps === undefined && numTrainingSteps === undefined) {
    throw argumentError(where, 'numStableSteps or numTrainingSteps', 'a number of at least 0', undefined)
  }
  const numStableSteps = rest.numStableSteps ?? (numTrainingSteps as number) - numWarmupSteps - numDecaySteps
  if (rest.numStableSteps !== undefined) requireNumber(where, 'numStableSteps', numStableSteps, { least: 0 })
  else requireNumber(where, 'numTrainingSteps', numTrainingSteps, { least: 0 })
  const raised = (factor: number) => Math.max(0, factor * (1 - minLrRatio) + minLrRatio)
  return (step) => {
    if (step < numWarmupSteps) {
      const progress = climb(step, numWarmupSteps)
      if (warmupType === 'linear') return raised(progress)
      return raised(warmupType === 'cosine' ? 0.5 * (1 - Math.cos(Math.PI * progress)) : 1 - Math.sqrt(1 - progress))
    }
    if (step < numWarmupSteps + numStableSteps) return 1
    if (step >= numWarmupSteps + numStableSteps + numDecaySteps) return minLrRatio
    const progress = (step - numWarmupSteps - numStableSteps) / Math.max(1, numDecaySteps)
    if (decayType === 'linear') return raised(1 - progress)
    return raised(decayType === 'cosine' ? wave(progress, numCycles) : 1 - Math.sqrt(progress))
  }
}

/** Return a schedule that counts epochs, for `step()` after every iteration: constant within an epoch. */
export function perEpoch(schedule: Schedule, stepsPerEpoch: number): Schedule {
  if (typeof schedule !== 'function') throw argumentError('perEpoch', 'schedule', 'a function', schedule)
  requireNumber('perEpoch', 'stepsPerEpoch', stepsPerEpoch, { least: 1 })
  return (step) => schedule(Math.floor(step / stepsPerEpoch))
}

const climb = (step: number, numWarmupSteps: number) => step / Math.max(1, numWarmupSteps)

const wave = (progress: number, numCycles: number) => 0.5 * (1 + Math.cos(Math.PI * numCycles * 2 * progress))

function counted<O extends WarmupOptions>(
  where: string,
  options: O,
  counts: (keyof O & string)[],
  others: (keyof O & string)[],
): O {
  const needed = ['numWarmupSteps' as const, ...counts] as (keyof O & string)[]
  requireOptions(where, options, [...needed, ...others])
  for (const count of needed) requireNumber(where, count, options[count], { least: 0 })
  return options
}
