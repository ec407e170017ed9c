import { describe, expect, it } from 'vitest'
import {
  CheckpointError,
  ConfigError,
  getConstantSchedule,
  getConstantScheduleWithWarmup,
  getCosineScheduleWithWarmup,
  getCosineWithHardRestartsScheduleWithWarmup,
  getCosineWithMinLrScheduleWithWarmup,
  getCosineWithMinLrScheduleWithWarmupLrRate,
  getInverseSqrtSchedule,
  getLinearScheduleWithWarmup,
  getPolynomialDecayScheduleWithWarmup,
  getScheduler,
  getWsdSchedule,
  LRScheduler,
  type SchedulerType,
  SGD,
  zeros,
} from '../../lib/index.js'
import { perEpoch } from '../../lib/train/schedule-shapes.js'
import { constantSchedule, linearScheduleWithWarmup } from '../../lib/train/schedules.js'
import { fixture, relativeError, tensorsOf } from '../helpers.js'

const MAKERS = {
  get_constant_schedule: getConstantSchedule,
  get_constant_schedule_with_warmup: getConstantScheduleWithWarmup,
  get_linear_schedule_with_warmup: getLinearScheduleWithWarmup,
  get_cosine_schedule_with_warmup: getCosineScheduleWithWarmup,
}

/** Functions of the schedules by their name for getScheduler. */
const NAMED: Partial<Record<SchedulerType, (optimizer: ReturnType<typeof defaulted>, options: never) => LRScheduler>> =
  {
    cosine_with_restarts: getCosineWithHardRestartsScheduleWithWarmup,
    polynomial: getPolynomialDecayScheduleWithWarmup,
    inverse_sqrt: getInverseSqrtSchedule,
    cosine_with_min_lr: getCosineWithMinLrScheduleWithWarmup,
    cosine_warmup_with_min_lr: getCosineWithMinLrScheduleWithWarmupLrRate,
    warmup_stable_decay: getWsdSchedule,
  }

interface ScheduleCase {
  name: string
  function: keyof typeof MAKERS
  options: Record<string, number>
  state: object
}

const camel = (key: string) => key.replace(/_(.)/g, (_, letter: string) => letter.toUpperCase())
const optimizer = () => ({ groups: [{ lr: 0.1 }, { lr: 3e-3 }] })
const defaulted = () => ({ ...optimizer(), defaults: { lr: 0.1 } })

describe('schedules against transformers', async () => {
  const file = await fixture<ScheduleCase>('train/schedules')

  it.each(file.cases.map((one) => [one.name, one] as const))('%s', (name, one) => {
    const options = Object.fromEntries(Object.entries(one.options).map(([key, value]) => [camel(key), value]))
    const bound = optimizer()
    const schedule = MAKERS[one.function](bound, options as never)
    const rates: number[][] = []
    for (let step = 0; step < 1000; step++) {
      rates.push(bound.groups.map((group) => group.lr))
      expect(schedule.lastLr).toEqual(rates.at(-1))
      schedule.step()
    }
    const expected = tensorsOf(file, name, 'out').lr?.toArray() as number[][]
    expect(relativeError(rates.flat(), expected.flat())).toBeLessThan(1e-12)
    expect(schedule.stateDict()).toMatchObject({ ...one.state, base_lrs: [0.1, 3e-3], _last_lr: schedule.lastLr })
  })
})

interface SchedulerCase {
  name: string
  kind: SchedulerType
  steps: { warmup: number; steps?: number }
  options: Record<string, number | string>
  /** Every 97th rate of the second group. */
  second: number[]
}

describe('getScheduler against transformers.get_scheduler', async () => {
  const file = await fixture<SchedulerCase>('train/scheduler')

  it.each(file.cases.map((one) => [one.name, one] as const))('%s', (name, one) => {
    const bound = defaulted()
    const options = Object.fromEntries(Object.entries(one.options).map(([key, value]) => [camel(key), value]))
    const steps = { numWarmupSteps: one.steps.warmup, numTrainingSteps: one.steps.steps }
    const schedule = getScheduler(one.kind, bound, { ...steps, schedulerSpecificOptions: options })
    const named = NAMED[one.kind]?.(defaulted(), { ...steps, ...options } as never)
    const rates: number[][] = []
    for (let step = 0; step < 1000; step++) {
      rates.push(bound.groups.map((group) => group.lr))
      if (named) expect(named.lastLr).toEqual(schedule.lastLr)
      schedule.step()
      named?.step()
    }
    const expected = tensorsOf(file, name, 'out').lr?.toArray() as number[]
    const of = (group: number) => rates.map((rate) => rate[group] as number)
    expect(relativeError(of(0), expected)).toBeLessThan(1e-12)
    expect(
      relativeError(
        of(1).filter((_, i) => i % 97 === 0),
        one.second,
      ),
    ).toBeLessThan(1e-12)
  })

  it('takes the rate that the optimiser was made with', () => {
    using sgd = new SGD([{ params: [zeros([1])], lr: 0.5 }, { params: [zeros([1])] }], { lr: 0.1 })
    const schedule = getScheduler('polynomial', sgd, {
      numWarmupSteps: 0,
      numTrainingSteps: 10,
      schedulerSpecificOptions: { lrEnd: 0.05 },
    })
    for (let step = 0; step < 20; step++) schedule.step()
    expect(sgd.groups.map((group) => group.lr)).toEqual([0.25, 0.05])
  })

  it('goes by epochs where asked to', () => {
    const [a, b] = [optimizer(), optimizer()]
    const byEpoch = getScheduler('linear', a, { numWarmupSteps: 2, numTrainingSteps: 5, stepsPerEpoch: 7 })
    const whole = getScheduler('linear', b, { numWarmupSteps: 2, numTrainingSteps: 5 })
    for (let step = 0; step < 35; step++) {
      expect(byEpoch.lastLr).toEqual(whole.lastLr)
      byEpoch.step()
      if (step % 7 === 6) whole.step()
    }
    expect(byEpoch.lastLr).toEqual([0, 0])
    expect(() => perEpoch(linearScheduleWithWarmup({ numWarmupSteps: 1, numTrainingSteps: 2 }), 0)).toThrow(ConfigError)
  })

  it('refuses what it does not know', () => {
    const all = { numWarmupSteps: 1, numTrainingSteps: 9 }
    const get = getScheduler as (...args: unknown[]) => unknown
    expect(() => get('cosin', optimizer(), all)).toThrow(/'cosine'/)
    expect(() => get('linear', optimizer(), { numWarmupSteps: 1 })).toThrow(/numTrainingSteps/)
    expect(() => get('cosine', optimizer(), { ...all, schedulerSpecificOptions: { power: 2 } })).toThrow(
      /getScheduler: expected an option of the schedule 'cosine' \(numCycles\), got 'power'/,
    )
    expect(() => get('cosine_with_min_lr', optimizer(), all)).toThrow(/minLr and minLrRate/)
    expect(() => get('warmup_stable_decay', optimizer(), all)).toThrow(/numDecaySteps/)
    expect(() => get('polynomial', optimizer(), { ...all, schedulerSpecificOptions: { lrEnd: 1 } })).toThrow(/lrEnd/)
    expect(() => get('polynomial', optimizer(), { numWarmupSteps: 9, numTrainingSteps: 9 })).toThrow(ConfigError)
    expect(() => get('linear', {}, all)).toThrow(ConfigError)
    expect(() => get('polynomial', {}, all)).toThrow(ConfigError)
    expect(() => get('linear', optimizer(), null)).toThrow(ConfigError)
  })
})

describe('LRScheduler', () => {
  const options = { numWarmupSteps: 3, numTrainingSteps: 20 }

  it('goes on from a saved state', () => {
    const [a, b] = [optimizer(), optimizer()]
    const first = getLinearScheduleWithWarmup(a, options)
    for (let step = 0; step < 8; step++) first.step()
    const second = getLinearScheduleWithWarmup(b, options)
    second.loadStateDict(JSON.parse(JSON.stringify(first.stateDict())))
    expect(b.groups.map((group) => group.lr)).toEqual(a.groups.map((group) => group.lr))
    first.step()
    second.step()
    expect(b).toEqual(a)
    const one = new LRScheduler({ groups: [{ lr: 1 }] }, constantSchedule)
    expect(() => one.loadStateDict(first.stateDict())).toThrow(CheckpointError)
  })

  it('takes one schedule for each group', () => {
    const bound = optimizer()
    new LRScheduler(bound, [constantSchedule, (step) => 1 / (step + 1)]).step()
    expect(bound.groups.map((group) => group.lr)).toEqual([0.1, 1.5e-3])
    expect(() => new LRScheduler(bound, [constantSchedule])).toThrow(ConfigError)
    expect(() => getLinearScheduleWithWarmup(bound, { ...options, numWarmupSteps: Number.NaN })).toThrow(ConfigError)
  })
})
