import { describe, expect, it } from 'vitest'
import {
  Adadelta,
  Adafactor,
  Adagrad,
  Adam,
  Adamax,
  AdamW,
  ASGD,
  CheckpointError,
  ConfigError,
  clipGradNorm,
  clipGradValue,
  functional,
  GradientError,
  getLinearScheduleWithWarmup,
  LBFGS,
  Lion,
  memoryStats,
  NAdam,
  type Optimizer,
  ones,
  Parameter,
  RAdam,
  RMSprop,
  Rprop,
  randn,
  SGD,
  scope,
  type Tensor,
  TransformersAdafactor,
  tensor,
  zeros,
} from '../../lib/index.js'
import { expectClose, fixture, settledTensors, tensorsOf } from '../helpers.js'

type Options = Record<string, unknown>
interface OptimizerCase {
  name: string
  kind: keyof typeof KINDS
  options: Options
  second: Options | null
  groups: Options[]
  dtype: 'float32' | 'float64'
}

const KINDS = {
  AdamW,
  Adam,
  SGD,
  Adagrad,
  Lion,
  RMSprop,
  RAdam,
  NAdam,
  Adamax,
  Adadelta,
  ASGD,
  Rprop,
  Adafactor,
  TransformersAdafactor,
}
const camel = (options: Options) =>
  Object.fromEntries(
    Object.entries(options).map(([key, v]) => [key.replace(/_(.)/g, (_, c: string) => c.toUpperCase()), v]),
  )

describe.each(['optimizers', 'optimizers-more'])('%s against torch.optim', async (fixtureName) => {
  const file = await fixture<OptimizerCase>(`train/${fixtureName}`)
  const given = tensorsOf(file, 'given', 'param')
  // State is numbered in the order of the parameters; the file's order is another.
  const initial = ['weight', 'bias', 'scalar', 'late', 'never'].map((key) => [key, given[key] as Tensor] as const)
  const gradients = tensorsOf(file, 'given', 'in')

  it.each(file.cases.slice(1).map((one) => [one.name, one] as const))('%s', async (name, one) => {
    const params = Object.fromEntries(
      initial.map(([key, value]) => [key, new Parameter(value.to({ dtype: one.dtype }).clone())]),
    )
    const { bias, scalar, ...others } = params as Record<string, Parameter> & { bias: Parameter; scalar: Parameter }
    const groups = one.second
      ? [{ params: Object.values(others) }, { params: [bias, scalar], ...camel(one.second) }]
      : Object.values(params)
    using optimizer: Optimizer = new KINDS[one.kind](groups as never, camel(one.options)) as never
    const schedule = name.endsWith('schedule')
      ? getLinearScheduleWithWarmup(optimizer, { numWarmupSteps: 10, numTrainingSteps: 100 })
      : undefined
    const tolerance = one.dtype === 'float64' ? 1e-6 : 1e-5
    const out = tensorsOf(file, name, 'out')
    for (let step = 0; step < (gradients.weight?.size(0) ?? 0); step++) {
      await scope(async () => {
        for (const [key, values] of Object.entries(gradients)) {
          const param = params[key] as Parameter
          if (key !== 'late' || step >= 2) param.grad = values.at(step).to({ dtype: one.dtype }).clone()
        }
        await optimizer.step()
        optimizer.zeroGrad()
        schedule?.step()
      })
      for (const [key, param] of Object.entries(params)) {
        const expected = out[`${key}.${step + 1}`]
        if (expected) expectClose(param.detach(), expected, tolerance, `${key} after step ${step + 1}`)
      }
    }
    const saved = optimizer.stateDict()
    const state = tensorsOf(file, name, 'state')
    const own = Object.entries(saved.state).flatMap(([i, values]) =>
      Object.entries(values).map(([k, v]) => [`${i}.${k}`, v]),
    )
    expect(own.map(([key]) => key).sort()).toEqual(Object.keys(state).sort())
    for (const [key, value] of own)
      expectClose(value as Tensor, state[key as string] as Tensor, tolerance, key as string)
    one.groups.forEach((group, i) => {
      const { fused, foreach, betas, etas, step_sizes, eps, ...rest } = group
      const lr = group.lr ?? 0
      delete rest.lr
      expect(saved.param_groups[i]).toMatchObject(rest)
      expect(saved.param_groups[i]?.lr).toBeCloseTo(lr as number, 12)
      // transformers' Adafactor cannot maximise.
      const names = new Set([...Object.keys(group), 'maximize'])
      expect(Object.keys(saved.param_groups[i] as Options).sort()).toEqual([...names].sort())
    })
  })
})

async function trained(optimizer: Optimizer, params: Tensor[], from: number, to: number): Promise<void> {
  for (let step = from; step < to; step++) {
    await scope(async () => {
      for (const [i, param] of params.entries()) param.grad = ones(param.shape).mul(Math.sin(step + i))
      await optimizer.step()
    })
  }
}

describe('optimiser', () => {
  const make = () => [new Parameter(ones([2, 3])), new Parameter(ones([4]))]

  it.each([
    ['AdamW', (p: Tensor[]) => new AdamW(p, { amsgrad: true, lr: 0.01 })],
    ['SGD', (p: Tensor[]) => new SGD(p, { momentum: 0.9, lr: 0.01 })],
    ['Lion', (p: Tensor[]) => new Lion(p, { lr: 0.01, weightDecay: 0.1 })],
    ['Adagrad', (p: Tensor[]) => new Adagrad(p, { lr: 0.1, lrDecay: 0.1 })],
    ['RMSprop', (p: Tensor[]) => new RMSprop(p, { momentum: 0.9, centered: true })],
    ['RAdam', (p: Tensor[]) => new RAdam(p, { weightDecay: 0.1 })],
    ['NAdam', (p: Tensor[]) => new NAdam(p)],
    ['Adamax', (p: Tensor[]) => new Adamax(p)],
    ['Adadelta', (p: Tensor[]) => new Adadelta(p)],
    ['ASGD', (p: Tensor[]) => new ASGD(p, { t0: 3 })],
    ['Rprop', (p: Tensor[]) => new Rprop(p)],
    ['Adafactor', (p: Tensor[]) => new Adafactor(p)],
    ['TransformersAdafactor', (p: Tensor[]) => new TransformersAdafactor(p, { beta1: 0.9 })],
  ] as const)('%s goes on bit for bit from a saved state', async (_, optimizerOf) => {
    const [whole, first] = [make(), make()]
    const a = optimizerOf(whole) as Optimizer
    await trained(a, whole, 0, 20)
    const b = optimizerOf(first) as Optimizer
    await trained(b, first, 0, 7)
    const second = first.map((param) => new Parameter(param.detach().clone()))
    const c = optimizerOf(second) as Optimizer
    c.loadStateDict(b.stateDict())
    b.dispose()
    await trained(c, second, 7, 20)
    expect(second.map((param) => param.toArray())).toEqual(whole.map((param) => param.toArray()))
  })

  it('updates parameters that are not contiguous as if they were', async () => {
    const plain = new Parameter(randn([4, 3]))
    const turned = new Parameter(plain.detach().t().contiguous().t())
    expect(turned.isContiguous()).toBe(false)
    for (const param of [plain, turned]) {
      using optimizer = new SGD([param], { lr: 0.1, momentum: 0.9 })
      for (let step = 0; step < 3; step++) {
        param.grad = tensor([...Array(12).keys()], { dtype: 'float32' }).view([4, 3])
        await optimizer.step()
      }
    }
    expectClose(turned.detach(), plain.detach())
  })

  it('takes a new learning rate from its group', async () => {
    const param = new Parameter(zeros([1]))
    using optimizer = new SGD([param], { lr: 1 })
    param.grad = ones([1])
    await optimizer.step()
    ;(optimizer.groups[0] as { lr: number }).lr = 0.5
    await optimizer.step()
    expect(param.toArray()).toEqual([-1.5])
  })

  it('leaves no tensors behind and frees its state', async () => {
    const params = make()
    const step = async (optimizer: Optimizer) => {
      for (const param of params) param.grad = null
      await trained(optimizer, params, 0, 1)
      await clipGradNorm(params, 1)
      await clipGradValue(params, 1)
      optimizer.zeroGrad()
    }
    const before = await settledTensors()
    const optimizer = new AdamW(params) as Optimizer
    await step(optimizer)
    expect(memoryStats().liveTensors).toBe(before + 6)
    for (let i = 0; i < 5; i++) await step(optimizer)
    optimizer.loadStateDict(optimizer.stateDict())
    expect(memoryStats().liveTensors).toBe(before + 6)
    optimizer.dispose()
    expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
  })

  it('keeps state that is made inside a scope', async () => {
    const params = make()
    const optimizer = new AdamW(params) as Optimizer
    await trained(optimizer, params, 0, 3)
    expect(optimizer.stateDict().state[0]?.step?.item()).toBe(3)
    optimizer.dispose()
  })

  it('refuses what it cannot train', () => {
    const [a, b] = make() as [Parameter, Parameter]
    expect(() => new AdamW([])).toThrow(ConfigError)
    expect(() => new AdamW([a, a])).toThrow(/twice/)
    expect(() => new AdamW([{ params: [a] }, { params: [b, a] }])).toThrow(/twice/)
    expect(() => new AdamW([a, { params: [b] }] as never)).toThrow(ConfigError)
    expect(() => new AdamW([a.mul(2)])).toThrow(/leaf/)
    expect(() => new AdamW([zeros([2], { dtype: 'int64' })])).toThrow(/floating/)
    expect(() => new AdamW(['weight'] as never)).toThrow(ConfigError)
    expect(() => new AdamW([a], { lr: -1 })).toThrow(/lr to be a number of at least 0, got -1/)
    expect(() => new AdamW([a], { lr: Number.NaN })).toThrow(ConfigError)
    expect(() => new AdamW([a], { betas: [0.9, 1] })).toThrow(/betas/)
    expect(() => new SGD([a], { nesterov: true })).toThrow(/momentum/)
    const other = new AdamW([a]).stateDict()
    expect(() => new AdamW([a, b]).loadStateDict(other)).toThrow(CheckpointError)
  })

  it('refuses a sparse gradient, in words, and takes its dense form', async () => {
    const weight = new Parameter(ones([5, 3]))
    const read = () =>
      functional.embeddingBag(tensor([[0, 2]], { dtype: 'int64' }), weight, { mode: 'sum', sparse: true })
    await read().sum().backward()
    const loss = async () => read().sum()
    for (const kind of [SGD, Adam, AdamW, Adagrad, Adafactor, Lion, RMSprop, LBFGS] as never[]) {
      const optimizer = new (kind as typeof SGD)([weight], { lr: 0.5 })
      await expect(kind === LBFGS ? optimizer.step(...([loss] as unknown as [])) : optimizer.step()).rejects.toThrow(
        /^Optimizer: expected a dense gradient .*\[5,3\], got a sparse one/,
      )
    }
    await expect(clipGradNorm([weight], 1)).rejects.toThrow(GradientError)
    await expect(clipGradValue([weight], 1)).rejects.toThrow(GradientError)
    expect(weight.detach().toArray()).toEqual(ones([5, 3]).toArray())

    weight.grad = (weight.grad as Tensor).toDense()
    await new SGD([weight], { lr: 0.5 }).step()
    expect(weight.detach().toArray()).toEqual([0.5, 1, 0.5, 1, 1].map((value) => [value, value, value]))
  })

  it('refuses state of another shape', async () => {
    const params = make()
    const optimizer = new AdamW(params) as Optimizer
    await trained(optimizer, params, 0, 1)
    const other = new AdamW([new Parameter(ones([3, 2])), params[1] as Parameter])
    expect(() => other.loadStateDict(optimizer.stateDict())).toThrow(/exp_avg of parameter 0/)
    optimizer.dispose()
  })
})

describe('clipping against torch.nn.utils', async () => {
  const file = await fixture<{ name: string; maxNorm: number; normType: number | 'inf' }>('train/clip')

  it.each(file.cases.map((one) => [one.name, one] as const))('%s', async (name, { maxNorm, normType }) => {
    const given = tensorsOf(file, name, 'in')
    const { norm, ...out } = tensorsOf(file, name, 'out')
    const params = Object.entries(given).map(([key, grad]) => [key, new Parameter(zeros(grad.shape)), grad] as const)
    const list = params.map(([, param]) => param)
    const setGradients = () => {
      for (const [, param, grad] of params) param.grad = grad.clone()
    }
    const compare = (suffix: string) => {
      for (const [key, param] of params) expectClose(param.grad as Tensor, out[key + suffix] as Tensor, 1e-5, key)
    }
    setGradients()
    const p = normType === 'inf' ? Number.POSITIVE_INFINITY : normType
    const returned = await clipGradNorm(list, maxNorm, { normType: p })
    expectClose(tensor(returned, { dtype: 'float32' }), norm as Tensor)
    compare('')
    setGradients()
    await clipGradValue(list, 0.3)
    compare('.value')
  })

  it('refuses a norm that is not finite when asked to', async () => {
    const param = new Parameter(zeros([2]))
    param.grad = tensor([1, Number.POSITIVE_INFINITY])
    await expect(clipGradNorm([param], 1, { errorIfNonfinite: true })).rejects.toThrow(GradientError)
    expect(param.grad.toArray()).toEqual([1, Number.POSITIVE_INFINITY])
    expect(await clipGradNorm([new Parameter(zeros([2]))], 1)).toBe(0)
    await expect(clipGradNorm([param], -1)).rejects.toThrow(ConfigError)
  })
})
