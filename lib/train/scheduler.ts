import { optionsOf } from '../base/arguments.js'
import { argumentError, listOf, requireNumber, requireObject, requireOneOf, requireOptions } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import {
  cosineWarmupWithMinLrSchedule,
  cosineWithHardRestartsScheduleWithWarmup,
  cosineWithMinLrScheduleWithWarmup,
  inverseSqrtSchedule,
  perEpoch,
  polynomialDecayScheduleWithWarmup,
  type Ramp,
  warmupStableDecaySchedule,
} from './schedule-shapes.js'
import {
  constantSchedule,
  constantScheduleWithWarmup,
  cosineScheduleWithWarmup,
  type DecayOptions,
  LRScheduler,
  linearScheduleWithWarmup,
  type Schedule,
  type Scheduled,
  type WarmupOptions,
} from './schedules.js'
import { SCHEDULER_TYPES, type SchedulerType } from './training-names.js'

export { SCHEDULER_TYPES, type SchedulerType }

export interface SchedulerOptions {
  /** Warm-up steps; required by every schedule except 'constant'. */
  numWarmupSteps?: number
  /** Steps of the whole training; required by schedules that decay to the end. */
  numTrainingSteps?: number
  /** If set, the two counts above and those below are epochs of this many steps, and the rate changes once per epoch. */
  stepsPerEpoch?: number
  /** Options of the named schedule: transformers' `lr_scheduler_kwargs`. */
  schedulerSpecificOptions?: SchedulerSpecificOptions
}

export interface SchedulerSpecificOptions {
  /** For the cosine schedules and 'warmup_stable_decay'. */
  numCycles?: number
  /** For 'polynomial'. */
  lrEnd?: number
  power?: number
  /** For 'inverse_sqrt'. */
  timescale?: number
  /** For 'cosine_with_min_lr' and 'cosine_warmup_with_min_lr': set one of the two. */
  minLr?: number
  minLrRate?: number
  warmupLrRate?: number
  /** For 'warmup_stable_decay'. */
  numDecaySteps?: number
  numStableSteps?: number
  warmupType?: Ramp
  decayType?: Ramp
  minLrRatio?: number
}

const OPTIONS = ['numWarmupSteps', 'numTrainingSteps', 'stepsPerEpoch', 'schedulerSpecificOptions']

const SPECIFIC: Record<SchedulerType, readonly (keyof SchedulerSpecificOptions)[]> = {
  linear: [],
  cosine: ['numCycles'],
  cosine_with_restarts: ['numCycles'],
  polynomial: ['lrEnd', 'power'],
  constant: [],
  constant_with_warmup: [],
  inverse_sqrt: ['timescale'],
  cosine_with_min_lr: ['numCycles', 'minLr', 'minLrRate'],
  cosine_warmup_with_min_lr: ['numCycles', 'minLr', 'minLrRate', 'warmupLrRate'],
  warmup_stable_decay: ['numDecaySteps', 'numStableSteps', 'warmupType', 'decayType', 'minLrRatio', 'numCycles'],
}

/**
 * Create a schedule by name and bind it to an optimizer: `transformers.get_scheduler`. Call `step()` on it after each
 * `optimizer.step()`, with `stepsPerEpoch` too.
 * @throws ConfigError for an unknown name or option, or if an option is missing
 */
export function getScheduler(name: SchedulerType, optimizer: Scheduled, options: SchedulerOptions = {}): LRScheduler {
  requireOneOf('getScheduler', 'name', name, SCHEDULER_TYPES)
  requireOptions('getScheduler', options, OPTIONS)
  const { stepsPerEpoch } = options
  const schedule = scheduleOf(name, optimizer, options)
  return new LRScheduler(optimizer, stepsPerEpoch === undefined ? schedule : perEpoch(schedule, stepsPerEpoch))
}

type Specific<K extends keyof SchedulerSpecificOptions> = Pick<SchedulerSpecificOptions, K>
type MinimumRate = Specific<'numCycles' | 'minLr' | 'minLrRate'>

const STEPS = ['numWarmupSteps', 'numTrainingSteps']

function named<O extends WarmupOptions>(where: string, name: SchedulerType) {
  return (optimizer: Scheduled, options: O & { numTrainingSteps?: number }): LRScheduler => {
    const { numWarmupSteps, numTrainingSteps, ...specific } = optionsOf(options, where, [...STEPS, ...SPECIFIC[name]])
    const steps = { numWarmupSteps, ...(numTrainingSteps !== undefined && { numTrainingSteps }) }
    return getScheduler(name, optimizer, { ...steps, schedulerSpecificOptions: specific })
  }
}

/** Create a cosine schedule with hard restarts: transformers' `get_cosine_with_hard_restarts_schedule_with_warmup`. */
export const getCosineWithHardRestartsScheduleWithWarmup = named<DecayOptions & Specific<'numCycles'>>(
  'getCosineWithHardRestartsScheduleWithWarmup',
  'cosine_with_restarts',
)

/** Create a schedule of polynomial decay to `lrEnd`: transformers' `get_polynomial_decay_schedule_with_warmup`. */
export const getPolynomialDecayScheduleWithWarmup = named<DecayOptions & Specific<'lrEnd' | 'power'>>(
  'getPolynomialDecayScheduleWithWarmup',
  'polynomial',
)

/** Create a schedule of decay as 1 / √step: transformers' `get_inverse_sqrt_schedule`. */
export const getInverseSqrtSchedule = named<WarmupOptions & Specific<'timescale'>>(
  'getInverseSqrtSchedule',
  'inverse_sqrt',
)

/** Create a cosine schedule to a minimum rate: transformers' `get_cosine_with_min_lr_schedule_with_warmup`. */
export const getCosineWithMinLrScheduleWithWarmup = named<DecayOptions & MinimumRate>(
  'getCosineWithMinLrScheduleWithWarmup',
  'cosine_with_min_lr',
)

/** Create a cosine schedule between a first and a minimum rate: transformers' `get_cosine_with_min_lr_schedule_with_warmup_lr_rate`. */
export const getCosineWithMinLrScheduleWithWarmupLrRate = named<DecayOptions & MinimumRate & Specific<'warmupLrRate'>>(
  'getCosineWithMinLrScheduleWithWarmupLrRate',
  'cosine_warmup_with_min_lr',
)

/** Create a warm-up, stable, decay schedule: transformers' `get_wsd_schedule`. */
export const getWsdSchedule = named<
  WarmupOptions &
    Specific<'numStableSteps' | 'warmupType' | 'decayType' | 'minLrRatio' | 'numCycles'> & { numDecaySteps: number }
>('getWsdSchedule', 'warmup_stable_decay')

function scheduleOf(name: SchedulerType, optimizer: Scheduled, options: SchedulerOptions): Schedule {
  const specific = options.schedulerSpecificOptions ?? {}
  requireObject('getScheduler', 'schedulerSpecificOptions', specific)
  for (const key of Object.keys(specific)) {
    if (SPECIFIC[name].includes(key as keyof SchedulerSpecificOptions)) continue
    const known = SPECIFIC[name].join(', ') || 'none'
    throw new ConfigError(`getScheduler: expected an option of the schedule '${name}' (${known}), got '${key}'`, {
      option: key,
    })
  }
  const { minLr: _, ...relative } = specific
  const warmup = { numWarmupSteps: options.numWarmupSteps as number }
  const steps = {
    ...warmup,
    numTrainingSteps: options.numTrainingSteps as number,
  }
  switch (name) {
    case 'constant':
      return constantSchedule
    case 'constant_with_warmup':
      return constantScheduleWithWarmup(warmup)
    case 'linear':
      return linearScheduleWithWarmup(steps)
    case 'cosine':
      return cosineScheduleWithWarmup({ ...steps, ...specific })
    case 'cosine_with_restarts':
      return cosineWithHardRestartsScheduleWithWarmup({ ...steps, ...specific })
    case 'polynomial':
      return polynomialDecayScheduleWithWarmup({ ...steps, ...specific, lrInit: defaultLr(optimizer) })
    case 'inverse_sqrt':
      return inverseSqrtSchedule({ ...warmup, ...specific })
    case 'cosine_with_min_lr':
      return cosineWithMinLrScheduleWithWarmup({ ...steps, ...relative, minLrRate: lowest(specific, optimizer) })
    case 'cosine_warmup_with_min_lr':
      return cosineWarmupWithMinLrSchedule({ ...steps, ...relative, minLrRate: lowest(specific, optimizer) })
    case 'warmup_stable_decay':
      return warmupStableDecaySchedule({ ...steps, ...specific, numDecaySteps: specific.numDecaySteps as number })
  }
}

/** Return the optimizer's default rate. Absolute rates are relative to it, independent of the groups' rates. */
function defaultLr(optimizer: Scheduled): number {
  const groups = listOf('getScheduler', "the optimizer's groups", optimizer?.groups ?? [], 'groups')
  const lr = optimizer.defaults?.lr ?? groups[0]?.initialLr ?? groups[0]?.lr
  requireNumber('getScheduler', "the optimizer's lr", lr)
  return lr as number
}

function lowest({ minLr, minLrRate }: SchedulerSpecificOptions, optimizer: Scheduled): number {
  if ((minLr === undefined) === (minLrRate === undefined)) {
    throw argumentError('getScheduler', 'one of minLr and minLrRate', 'set and the other left out', {
      minLr,
      minLrRate,
    })
  }
  if (minLrRate !== undefined) return minLrRate
  requireNumber('getScheduler', 'minLr', minLr)
  return (minLr as number) / defaultLr(optimizer)
}
