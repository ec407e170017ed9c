import { describe, expect, it } from 'vitest'
import {
  AdamW,
  autocast,
  CheckpointError,
  ConfigError,
  clipGradNorm,
  ExponentialMovingAverage,
  functional,
  GradScaler,
  LayerNorm,
  Linear,
  Module,
  manualSeed,
  memoryStats,
  ones,
  Parameter,
  parameterGroups,
  randn,
  Sequential,
  SGD,
  scope,
  type Tensor,
  tensor,
} from '../../lib/index.js'
import type { GradScalerState } from '../../lib/train/grad-scaler.js'
import { expectClose, fixture, here, settledTensors, tensorsOf } from '../helpers.js'

interface ScalerCase {
  name: string
  options: Record<string, number>
  unscale: boolean
  state: GradScalerState
}

const BAD: Record<number, number> = { 3: Infinity, 4: Number.NaN, 31: -Infinity, 80: Infinity }
const camel = (key: string) => key.replace(/_(.)/g, (_, letter: string) => letter.toUpperCase())

describe('GradScaler and ExponentialMovingAverage against PyTorch', async () => {
  const file = await fixture<ScalerCase>('train/scaler')
  const initial = tensorsOf(file, 'given', 'param')
  const gradients = tensorsOf(file, 'given', 'in')

  it.each(file.cases.slice(1).map((one) => [one.name, one] as const))('%s', async (name, one) => {
    const keys = ['weight', 'bias']
    const params = keys.map((key) => new Parameter((initial[key] as Tensor).clone()))
    const out = tensorsOf(file, name, 'out')
    const expected = out.scale?.toArray() as number[]
    using optimizer = new SGD(params, { lr: 0.05, momentum: 0.9 })
    using average = new ExponentialMovingAverage(params, { decay: 0.95 })
    const options = Object.fromEntries(Object.entries(one.options).map(([key, value]) => [camel(key), value]))
    let scaler = new GradScaler(options)
    for (let step = 0; step < 120; step++) {
      const taken = await scope(async () => {
        const losses = params.map((param, i) => param.mul((gradients[keys[i] as string] as Tensor).at(step)).sum())
        await scaler.scale((losses[0] as Tensor).add(losses[1] as Tensor)).backward()
        const bad = BAD[step]
        const spoilt = params[1] as Parameter
        if (bad !== undefined) (spoilt.grad as Tensor).at(1).fill_(bad)
        if (one.unscale) {
          await scaler.unscale(optimizer)
          await clipGradNorm(params, 1)
        }
        const result = await scaler.step(optimizer)
        scaler.update()
        optimizer.zeroGrad()
        await average.update()
        return result
      })
      expect(taken).toBe(!(step in BAD))
      expect(scaler.getScale(), `scale after step ${step}`).toBe(expected[step])
      keys.forEach((key, i) => {
        const weights = out[`${key}.${step}`]
        if (!weights) return
        expectClose((params[i] as Tensor).detach(), weights, 1e-5, `${key} after step ${step}`)
        expectClose(average.stateDict().averages[i] as Tensor, out[`${key}.${step}.average`] as Tensor, 1e-5)
      })
      // Halfway, another scaler goes on from the state.
      if (step === 60) {
        const saved = JSON.parse(JSON.stringify(scaler.stateDict()))
        scaler = new GradScaler()
        scaler.loadStateDict(saved)
      }
    }
    expect(scaler.stateDict()).toEqual(one.state)
  })
})

describe('GradScaler', () => {
  it('keeps gradients that float16 has no room for', async () => {
    const weight = new Parameter(tensor([[1]], { dtype: 'float32' }))
    const small = tensor([[2 ** -14]], { dtype: 'float32' })
    const loss = () =>
      autocast({ device: here(), dtype: 'float16' }, () => functional.linear(small, weight))
        .float()
        .mul(2 ** -12)
        .sum()
    await loss().backward()
    expect(weight.grad?.item()).toBe(0)
    weight.grad = null
    const scaler = new GradScaler()
    using optimizer = new SGD([weight], { lr: 1 })
    await scaler.scale(loss()).backward()
    await scaler.unscale(optimizer)
    expect((weight.grad as unknown as Tensor).item()).toBe(2 ** -26)
  })

  it('does nothing when it is not enabled', async () => {
    const weight = new Parameter(ones([2]))
    using optimizer = new SGD([weight], { lr: 1 })
    const scaler = new GradScaler({ enabled: false })
    const loss = weight.sum()
    expect(scaler.scale(loss)).toBe(loss)
    weight.grad = ones([2]).mul(Infinity)
    await scaler.unscale(optimizer)
    expect(await scaler.step(optimizer)).toBe(true)
    scaler.update()
    expect([scaler.getScale(), scaler.stateDict()]).toEqual([1, {}])
    expect(weight.toArray()).toEqual([-Infinity, -Infinity])
  })

  it('says what is wrong', async () => {
    const weight = new Parameter(ones([2]))
    using optimizer = new SGD([weight], { lr: 1 })
    const scaler = new GradScaler()
    expect(() => scaler.update()).toThrow(ConfigError)
    weight.grad = ones([2])
    await scaler.unscale(optimizer)
    await expect(scaler.unscale(optimizer)).rejects.toThrow(/expected one call .*, got a second/)
    await scaler.step(optimizer)
    await expect(scaler.step(optimizer)).rejects.toThrow(/expected one call .*, got a second/)
    await expect(scaler.unscale(optimizer)).rejects.toThrow(/before step\(\), got one after it/)
    scaler.update(8)
    expect(scaler.getScale()).toBe(8)
    await expect(scaler.step(null as never)).rejects.toThrow(ConfigError)
    expect(() => scaler.scale(3 as never)).toThrow(ConfigError)
    expect(() => scaler.loadStateDict({} as never)).toThrow(CheckpointError)
    expect(() => new GradScaler({ growthFactor: 1 })).toThrow(/growthFactor/)
    expect(() => new GradScaler({ backoffFactor: 1 })).toThrow(/backoffFactor/)
    expect(() => new GradScaler({ growthInterval: 0.5 })).toThrow(/growthInterval/)
    const half = new Parameter(ones([2], { dtype: 'float16' }))
    half.grad = ones([2], { dtype: 'float16' })
    using other = new SGD([half], { lr: 1 })
    await expect(scaler.unscale(other)).rejects.toThrow(/float16/)
  })

  it('leaves no tensors behind', async () => {
    const weight = new Parameter(ones([2]))
    using optimizer = new SGD([weight], { lr: 1 })
    weight.grad = ones([2])
    const before = await settledTensors()
    const scaler = new GradScaler()
    await scaler.step(optimizer)
    scaler.update()
    expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
  })
})

describe('ExponentialMovingAverage', () => {
  it('swaps in and out bit for bit', async () => {
    manualSeed(1)
    const weight = new Parameter(randn([5]))
    const started = weight.toArray()
    const average = new ExponentialMovingAverage([weight], { decay: 0.5 })
    await average.update()
    scope(() => weight.detach().add_(1))
    const moved = weight.toArray()
    expect(await average.with(() => weight.toArray())).toEqual(started)
    expect(weight.toArray()).toEqual(moved)
    await expect(average.with(() => Promise.reject(new Error('stop')))).rejects.toThrow('stop')
    expect(weight.toArray()).toEqual(moved)
    await average.swap()
    await expect(average.update()).rejects.toThrow(/got the averages/)
    expect(() => average.stateDict()).toThrow(/swap/)
    await average.swap()

    const other = new ExponentialMovingAverage([weight])
    other.loadStateDict(average.stateDict())
    expect([other.count, other.stateDict().averages[0]?.toArray()]).toEqual([1, started])
    const small = new ExponentialMovingAverage([new Parameter(ones([2]))])
    expect(() => small.loadStateDict(average.stateDict())).toThrow(CheckpointError)
    expect(() => small.loadStateDict(null as never)).toThrow(CheckpointError)
    average.dispose()
    other.dispose()
    small.dispose()
  })

  it('frees what it owns', async () => {
    const weight = new Parameter(ones([2]))
    const before = await settledTensors()
    const average = new ExponentialMovingAverage([weight])
    for (let i = 0; i < 3; i++) await average.update()
    await average.with(() => {})
    expect(memoryStats().liveTensors).toBe(before + 1)
    average.dispose()
    expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
  })

  it('says what is wrong', () => {
    const weight = new Parameter(ones([2]))
    expect(() => new ExponentialMovingAverage([])).toThrow(ConfigError)
    expect(() => new ExponentialMovingAverage([weight], { decay: 1.5 })).toThrow(/decay/)
    expect(() => new ExponentialMovingAverage([3 as never])).toThrow(ConfigError)
    expect(() => new ExponentialMovingAverage([ones([2], { dtype: 'int64' })])).toThrow(/floating/)
  })
})

describe('parameterGroups', () => {
  class Block extends Module {
    dense = new Linear(2, 3)
    second = new LayerNorm(3)
    layer_norm = new Linear(3, 3, { bias: false })
    normal = new Linear(3, 3, { bias: false })
    gain = new Parameter(ones([1]))
    override forward(x: Tensor): Tensor {
      return x
    }
  }

  it('gives biases and norms no decay, as transformers', () => {
    const model = new Sequential(new Block(), new Linear(3, 1))
    const names = new Map([...model.namedParameters()].map(([name, param]) => [param, name]))
    const groups = parameterGroups(model, { weightDecay: 0.1 })
    expect(groups.map(({ weightDecay }) => weightDecay)).toEqual([0.1, 0])
    expect(groups.map(({ params }) => params.map((param) => names.get(param as Parameter)).sort())).toEqual([
      ['0.dense.weight', '0.gain', '0.normal.weight', '1.weight'],
      ['0.dense.bias', '0.layer_norm.weight', '0.second.bias', '0.second.weight', '1.bias'],
    ])
    using optimizer = new AdamW(groups, { lr: 1e-3, weightDecay: 1 })
    expect(optimizer.groups.map(({ weightDecay }) => weightDecay)).toEqual([0.1, 0])
  })

  it('takes patterns, and leaves frozen parameters out', () => {
    const model = new Block()
    model.gain.requiresGrad_(false)
    const groups = parameterGroups(model, { weightDecay: 0.1, noDecay: [/^dense/g, 'NORMAL'] })
    expect(groups.map(({ params }) => params.length)).toEqual([2, 4])
    expect(parameterGroups(model, { weightDecay: 1, noDecay: ['.'] }).map(({ weightDecay }) => weightDecay)).toEqual([
      0,
    ])
    const [thin] = parameterGroups(model, { weightDecay: 0, noDecay: (_, { ndim }) => ndim >= 2 })
    expect(thin?.params.every(({ ndim }) => ndim < 2)).toBe(true)
    const wrong = parameterGroups as (...args: unknown[]) => unknown
    expect(() => wrong({}, { weightDecay: 1 })).toThrow(ConfigError)
    expect(() => wrong(model, {})).toThrow(/weightDecay/)
    expect(() => wrong(model, { weightDecay: 1, noDecay: [3] })).toThrow(/pattern/)
  })
})
