import { describe, expect, it } from 'vitest'
import {
  Adagrad,
  Adam,
  AdamW,
  CheckpointError,
  ConfigError,
  type DType,
  Lion,
  memoryStats,
  type Optimizer,
  ones,
  Parameter,
  randn,
  SGD,
  scope,
  type Tensor,
  tensor,
} from '../../lib/index.js'
import { expectClose, fixture, settledTensors, tensorsOf } from '../helpers.js'

type Options = Record<string, unknown>
const KINDS = { AdamW, Adam, SGD, Adagrad, Lion }
const camel = (options: Options) =>
  Object.fromEntries(
    Object.entries(options).map(([key, v]) => [key.replace(/_(.)/g, (_, c: string) => c.toUpperCase()), v]),
  )
const masterOf = (optimizer: Optimizer, index: number) => optimizer.stateDict().state[index]?.master_param as Tensor

describe('masterWeights against torch.optim on float32 copies', async () => {
  interface Case {
    name: string
    kind: keyof typeof KINDS
    dtype: DType
    options: Options
  }
  const file = await fixture<Case>('train/master-weights')
  const initial = tensorsOf(file, 'given', 'param')
  const gradients = tensorsOf(file, 'given', 'in')
  const keys = ['weight', 'bias'] as const

  it.each(file.cases.slice(1).map((one) => [one.name, one] as const))('%s', async (name, { kind, dtype, options }) => {
    const params = keys.map((key) => new Parameter((initial[key] as Tensor).to({ dtype }).clone()))
    using optimizer: Optimizer = new KINDS[kind](params, { ...camel(options), masterWeights: true }) as never
    const out = tensorsOf(file, name, 'out')
    for (let step = 0; step < 100; step++) {
      await scope(async () => {
        keys.forEach((key, i) => {
          const param = params[i] as Parameter
          const weight = param.detach().to({ dtype: 'float32' }).mul(4).round().div(4)
          param.grad = (gradients[key] as Tensor).at(step).add(weight).to({ dtype })
        })
        await optimizer.step()
      })
      keys.forEach((key, i) => {
        const expected = out[`${key}.${step + 1}`]
        if (!expected) return
        const master = masterOf(optimizer, i)
        expect(master.dtype).toBe('float32')
        expectClose(master, expected, 1e-5, `${key} after step ${step + 1}`)
        expect(params[i]?.dtype).toBe(dtype)
        expect(params[i]?.toArray()).toEqual(master.to({ dtype }).toArray())
      })
    }
  })
})

async function trained(optimizer: Optimizer, params: Tensor[], from: number, to: number): Promise<void> {
  for (let step = from; step < to; step++) {
    await scope(async () => {
      for (const [i, param] of params.entries()) {
        param.grad = ones(param.shape)
          .mul(Math.sin(step + i))
          .to({ dtype: param.dtype })
      }
      await optimizer.step()
    })
  }
}

describe('masterWeights', () => {
  const half = () => [
    new Parameter(ones([2, 3], { dtype: 'bfloat16' })),
    new Parameter(ones([4], { dtype: 'float16' })),
    new Parameter(ones([4])),
  ]

  it.each([
    ['AdamW', (p: Tensor[]) => new AdamW(p, { lr: 0.001, masterWeights: true })],
    ['Adam', (p: Tensor[]) => new Adam(p, { lr: 0.001, amsgrad: true, masterWeights: true })],
    ['SGD', (p: Tensor[]) => new SGD(p, { lr: 0.001, masterWeights: true })],
    ['SGD with momentum', (p: Tensor[]) => new SGD(p, { lr: 0.001, momentum: 0.9, masterWeights: true })],
    ['Lion', (p: Tensor[]) => new Lion(p, { lr: 0.001, masterWeights: true })],
    ['Adagrad', (p: Tensor[]) => new Adagrad(p, { lr: 0.001, masterWeights: true })],
  ] as const)('%s goes on bit for bit from a saved state', async (_, optimizerOf) => {
    const [whole, first] = [half(), half()]
    using a = optimizerOf(whole) as Optimizer
    await trained(a, whole, 0, 20)
    const b = optimizerOf(first) as Optimizer
    await trained(b, first, 0, 7)
    const second = first.map((param) => new Parameter(param.detach().clone()))
    using c = optimizerOf(second) as Optimizer
    c.loadStateDict(b.stateDict())
    b.dispose()
    await trained(c, second, 7, 20)
    const all = (optimizer: Optimizer, params: Tensor[]) => [
      ...params.map((param) => param.toArray()),
      masterOf(optimizer, 0).toArray(),
      masterOf(optimizer, 1).toArray(),
    ]
    expect(all(c, second)).toEqual(all(a, whole))
    expect(masterOf(a, 2)).toBeUndefined()
    expect(a.stateDict().param_groups[0]?.master_weights).toBe(true)
  })

  it('moves weights by less than their own precision, which nothing else does', async () => {
    const moved = async (masterWeights: boolean) => {
      const param = new Parameter(ones([1], { dtype: 'bfloat16' }))
      using optimizer = new SGD([param], { lr: 1e-4, masterWeights })
      for (let step = 0; step < 100; step++) {
        param.grad = ones([1], { dtype: 'bfloat16' })
        await optimizer.step()
      }
      return param.toArray() as number[]
    }
    expect(await moved(false)).toEqual([1])
    expect(await moved(true)).toEqual([0.98828125])
  })

  it('updates parameters that are not contiguous as if they were', async () => {
    const plain = new Parameter(randn([4, 3], { dtype: 'bfloat16' }))
    const turned = new Parameter(plain.detach().t().contiguous().t())
    expect(turned.isContiguous()).toBe(false)
    for (const param of [plain, turned]) {
      using optimizer = new AdamW([param], { lr: 0.1, masterWeights: true })
      for (let step = 0; step < 3; step++) {
        param.grad = tensor([...Array(12).keys()], { dtype: 'bfloat16' }).view([4, 3])
        await optimizer.step()
      }
    }
    expect(turned.detach().toArray()).toEqual(plain.detach().toArray())
  })

  it('leaves no tensors behind and frees masters and state', async () => {
    const params = half()
    const step = async (optimizer: Optimizer) => {
      await trained(optimizer, params, 0, 1)
      optimizer.zeroGrad()
    }
    const before = await settledTensors()
    const optimizer = new AdamW(params, { masterWeights: true }) as Optimizer
    await step(optimizer)
    expect(memoryStats().liveTensors).toBe(before + 3 * 3 + 2)
    for (let i = 0; i < 5; i++) await step(optimizer)
    optimizer.loadStateDict(optimizer.stateDict())
    expect(memoryStats().liveTensors).toBe(before + 3 * 3 + 2)
    optimizer.dispose()
    expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
  })

  it('refuses what it cannot do, and states that do not fit', async () => {
    const params = half()
    expect(() => new AdamW(params, { masterWeights: 1 as never })).toThrow(ConfigError)
    expect(() => new AdamW([{ params, masterWeights: 'yes' as never }])).toThrow(/masterWeights/)
    using optimizer = new AdamW(params, { masterWeights: true }) as Optimizer
    await trained(optimizer, params, 0, 1)
    const saved = optimizer.stateDict()
    using without = new AdamW(params) as Optimizer
    expect(() => without.loadStateDict(saved)).toThrow(CheckpointError)
    expect(() => without.loadStateDict(saved)).toThrow(/a float32 master of parameter 0.*masterWeights: true/)
    const bad = structuredState(saved)
    ;(bad.state[0] as Record<string, unknown>).master_param = ones([5])
    expect(() => optimizer.loadStateDict(bad)).toThrow(/master_param of parameter 0 has shape \[5\]/)
    // A state without masters begins new ones.
    using plain = new AdamW(half()) as Optimizer
    const other = plain.groups[0]?.params as Tensor[]
    await trained(plain, other, 0, 1)
    optimizer.loadStateDict(plain.stateDict())
    expect(masterOf(optimizer, 0)).toBeUndefined()
    await trained(optimizer, params, 1, 2)
    expect(masterOf(optimizer, 0).dtype).toBe('float32')
    expect(optimizer.stateDict().state[0]?.exp_avg?.dtype).toBe('float32')
  })
})

const structuredState = ({ state, param_groups }: ReturnType<Optimizer['stateDict']>) => ({
  state: Object.fromEntries(Object.entries(state).map(([key, own]) => [key, { ...own }])),
  param_groups,
})
