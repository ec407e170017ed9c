import { describe, expect, it } from 'vitest'
import {
  ChainedScheduler,
  CheckpointError,
  ConfigError,
  ConstantLR,
  CosineAnnealingLR,
  CosineAnnealingWarmRestarts,
  CyclicLR,
  ExponentialLR,
  LambdaLR,
  LinearLR,
  MultiplicativeLR,
  MultiStepLR,
  OneCycleLR,
  PolynomialLR,
  ReduceLROnPlateau,
  SequentialLR,
  StepLR,
} from '../../lib/index.js'
import { fixture, relativeError, tensorsOf } from '../helpers.js'

const KINDS = {
  ConstantLR,
  CosineAnnealingLR,
  CosineAnnealingWarmRestarts,
  CyclicLR,
  ExponentialLR,
  LinearLR,
  MultiStepLR,
  OneCycleLR,
  PolynomialLR,
  ReduceLROnPlateau,
  StepLR,
}
interface Part {
  kind: keyof typeof KINDS
  options: Record<string, unknown>
}
interface SchedulerCase extends Part {
  name: string
  factor?: number
  parts?: Part[]
  milestones?: number[]
  state: Record<string, unknown>
}
interface AnyScheduler {
  step(metric?: number | undefined): void
  readonly lastLr: number[]
  stateDict(): Record<string, unknown>
  loadStateDict(state: object): void
}
type Group = { lr: number; momentum?: number; betas?: [number, number] }

const [STEPS, SAVED] = [40, 17]
const HALF = [1, 0.8, 0.81, 0.82, 0.7, 0.7, 0.7, 0.7, 0.69, 0.69, 0.9, 0.9, 0.5, 0.5, 0.51, 0.52, 0.53, 0.54, 0.55, 0.4]
const METRICS = [...HALF, ...HALF]
const camel = (key: string) => key.replace(/^T_/, 't_').replace(/_(.)/g, (_, letter: string) => letter.toUpperCase())
const optimizerOf = (name: string): { groups: Group[] } => {
  const momentum = () => (name.endsWith('adam') ? { betas: [0.9, 0.999] as [number, number] } : { momentum: 0.5 })
  return {
    groups: [
      { lr: 0.1, ...momentum() },
      { lr: 0.03, ...momentum() },
    ],
  }
}

function part({ kind, options }: Part, optimizer: object): AnyScheduler {
  const named = Object.fromEntries(Object.entries(options).map(([key, value]) => [camel(key), value]))
  return new (KINDS[kind] as new (...args: unknown[]) => AnyScheduler)(optimizer, named)
}

function make(one: SchedulerCase, optimizer: { groups: Group[] }): AnyScheduler {
  if (one.name === 'lambda') return new LambdaLR(optimizer, (step) => (one.factor as number) ** step)
  if (one.name === 'multiplicative') return new MultiplicativeLR(optimizer, () => one.factor as number)
  const parts = one.parts?.map((each) => part(each, optimizer)) as never
  if (one.milestones) return new SequentialLR(optimizer, parts, { milestones: one.milestones })
  return one.parts ? new ChainedScheduler(parts) : part(one, optimizer)
}

/** Every number of the expected value, with its place. */
function flat(value: unknown, path = ''): [string, unknown][] {
  if (typeof value !== 'object' || value === null) return [[path, value]]
  return Object.entries(value).flatMap(([key, item]) => flat(item, `${path}/${key}`))
}

describe('schedulers against torch.optim.lr_scheduler', async () => {
  const file = await fixture<SchedulerCase>('train/torch-schedulers')

  it.each(file.cases.map((one) => [one.name, one] as const))('%s', (name, one) => {
    const { lr, momentum } = tensorsOf(file, name, 'out')
    const expected = { lr: lr?.toArray() as number[][], momentum: momentum?.toArray() as number[][] }
    const optimizer = optimizerOf(name)
    const momentumOf = (group: Group) => (group.betas?.[0] ?? group.momentum) as number
    const scheduler = make(one, optimizer)
    const follow = (from: number, bound: { groups: Group[] }, by: AnyScheduler) => {
      for (let step = from; step < STEPS; step++) {
        const label = `step ${step}`
        const rates = bound.groups.map((group) => group.lr)
        expect(relativeError(rates, expected.lr[step] as number[]), label).toBeLessThan(1e-12)
        expect(relativeError(bound.groups.map(momentumOf), expected.momentum[step] as number[]), label).toBeLessThan(
          1e-12,
        )
        if (step === SAVED && from === 0) {
          const state = new Map(flat(by.stateDict()))
          for (const [path, value] of flat(one.state)) {
            if (/verbose|_is_initial|_get_lr_called|lr_lambdas/.test(path)) continue
            if (typeof value === 'number') expect(state.get(path), path).toBeCloseTo(value, 12)
            else expect(state.get(path), path).toEqual(value)
          }
        }
        by.step(one.kind === 'ReduceLROnPlateau' ? METRICS[step] : undefined)
      }
    }
    follow(0, optimizer, scheduler)

    // The rates come with the optimiser's state.
    const second = optimizerOf(name)
    const resumed = make(one, second)
    resumed.loadStateDict(JSON.parse(JSON.stringify(one.state)))
    second.groups.forEach((group, i) => {
      group.lr = expected.lr[SAVED]?.[i] as number
      const value = expected.momentum[SAVED]?.[i] as number
      if (group.betas) group.betas = [value, group.betas[1]]
      else group.momentum = value
    })
    follow(SAVED, second, resumed)
  })

  it('refuses states of others by name, and changes nothing', () => {
    const bound = optimizerOf('sgd')
    const step = new StepLR(bound, { stepSize: 3 })
    const before = step.stateDict()
    const cases: [object, RegExp][] = [
      [{ ...before, milestones: {} }, /the state of a StepLR, got one with milestones/],
      [new ExponentialLR(optimizerOf('sgd'), { gamma: 0.5 }).stateDict(), /step_size/],
      [{ ...before, gamma: 'x' }, /gamma to be a number/],
      [{ ...before, base_lrs: [1] }, /base_lrs to be 2 numbers/],
      [{ ...before, last_epoch: null }, /last_epoch/],
      [[], /stateDict/],
    ]
    for (const [state, message] of cases) {
      expect(() => step.loadStateDict(state as never)).toThrow(message)
      expect(() => step.loadStateDict(state as never)).toThrow(CheckpointError)
    }
    expect(step.stateDict()).toEqual(before)
    const chained = new ChainedScheduler([step, new ExponentialLR(bound, { gamma: 0.5 })])
    const whole = chained.stateDict()
    expect(() => chained.loadStateDict({ _schedulers: [before, before] })).toThrow(CheckpointError)
    expect(chained.stateDict()).toEqual(whole)
    expect(() => new ReduceLROnPlateau(bound).loadStateDict(before)).toThrow(CheckpointError)
  })

  it('refuses what makes no schedule', () => {
    const bound = optimizerOf('sgd')
    const any = (value: unknown) => value as never
    const wrong = [
      () => new StepLR(bound, any({})),
      () => new StepLR(bound, any({ stepSize: 3, gama: 1 })),
      () => new StepLR(any({}), { stepSize: 1 }),
      () => new LinearLR(bound, { startFactor: 0 }),
      () => new ConstantLR(bound, { factor: 2 }),
      () => new OneCycleLR(bound, { maxLr: 1 }),
      () => new OneCycleLR(bound, { maxLr: [1], totalSteps: 5 }),
      () => new OneCycleLR({ groups: [{ lr: 1 }] }, { maxLr: 1, totalSteps: 5 }),
      () => new CyclicLR(bound, { baseLr: 1, maxLr: 2, mode: any('square') }),
      () => new ReduceLROnPlateau(bound, { factor: 1 }),
      () => new ReduceLROnPlateau(bound).step(any('x')),
      () => new ChainedScheduler([]),
      () => new ChainedScheduler([any(new ReduceLROnPlateau(bound))]),
      () => new SequentialLR(bound, [new StepLR(bound, { stepSize: 1 })], { milestones: [3] }),
      () => new SequentialLR(optimizerOf('sgd'), [new StepLR(bound, { stepSize: 1 })], { milestones: [] }),
      () => new LambdaLR(bound, any(3)),
      () => new MultiStepLR(bound, { milestones: [1.5] }),
    ]
    for (const call of wrong) expect(call).toThrow(ConfigError)
    const once = new OneCycleLR(bound, { maxLr: 1, totalSteps: 1, cycleMomentum: false })
    once.step()
    expect(() => once.step()).toThrow(/at most 1 steps, got step/)
  })
})
