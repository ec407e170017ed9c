import { describe, expect, it } from 'vitest'
import {
  CheckpointError,
  ConfigError,
  constantSchedule,
  getConstantSchedule,
  getConstantScheduleWithWarmup,
  getCosineScheduleWithWarmup,
  getLinearScheduleWithWarmup,
  LRScheduler,
} from '../../lib/index.js'
import { fixture, relativeError, tensorsOf } from '../helpers.js'

const MAKERS = {
  get_constant_schedule: getConstantSchedule,
  get_constant_schedule_with_warmup: getConstantScheduleWithWarmup,
  get_linear_schedule_with_warmup: getLinearScheduleWithWarmup,
  get_cosine_schedule_with_warmup: getCosineScheduleWithWarmup,
}

interface ScheduleCase {
  name: string
  function: keyof typeof MAKERS
  options: Record<string, number>
  state: object
}

const camel = (key: string) => key.replace(/_(.)/g, (_, letter: string) => letter.toUpperCase())
const optimizer = () => ({ groups: [{ lr: 0.1 }, { lr: 3e-3 }] })

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
