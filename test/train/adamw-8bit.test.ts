import { execFileSync } from 'node:child_process'
import { describe, expect, it } from 'vitest'
import {
  AdamW8bit,
  CheckpointError,
  ConfigError,
  memoryStats,
  type Optimizer,
  Parameter,
  randn,
  scope,
  type Tensor,
  zeros,
} from '../../lib/index.js'
import { op } from '../../lib/native/call.js'
import type { OptimizerState } from '../../lib/train/optimizer-state.js'
import { expectClose, fixture, settledTensors, tensorsOf } from '../helpers.js'

const codeBook = op('voxtorch::dynamic_code_book') as (options: object) => Tensor
const quantize = op('voxtorch::quantize_blockwise') as (x: Tensor, options: object) => { codes: Tensor; absmax: Tensor }
const dequantize = op('voxtorch::dequantize_blockwise') as (x: Tensor, absmax: Tensor, options: object) => Tensor

interface Case {
  name: string
  options?: { lr: number; betas: [number, number]; eps: number; weight_decay: number }
}
const file = await fixture<Case>('train/adamw-8bit')
const books = tensorsOf(file, 'books', 'out') as { signed: Tensor; unsigned: Tensor }

describe('the dynamic 8-bit type against bitsandbytes', () => {
  it.each([
    ['signed', true],
    ['unsigned', false],
  ] as const)('%s: code book, codes, scales and values are equal', (name, signed) => {
    expect(codeBook({ signed }).toArray()).toEqual(books[name].toArray())
    const { values } = tensorsOf(file, name, 'in') as { values: Tensor }
    const out = tensorsOf(file, name, 'out') as { codes: Tensor; absmax: Tensor; values: Tensor }
    const { codes, absmax } = quantize(values, { signed })
    expect(absmax.toArray()).toEqual(out.absmax.toArray())
    expect(codes.toArray()).toEqual(out.codes.toArray())
    expect(dequantize(codes, absmax, { signed }).toArray()).toEqual(out.values.toArray())
  })

  it('has the same code book on every processor', () => {
    const program = `
      import '${new URL('../../dist/modules/index.js', import.meta.url)}'
      import { op } from '${new URL('../../dist/modules/native/call.js', import.meta.url)}'
      console.log(JSON.stringify(op('voxtorch::dynamic_code_book')({ signed: true }).toArray()))`
    const out = execFileSync(process.execPath, ['--input-type=module', '-e', program], {
      env: { ...process.env, ATEN_CPU_CAPABILITY: 'default' },
      encoding: 'utf8',
    })
    expect(JSON.parse(out)).toEqual(books.signed.toArray())
  })

  it('takes the nearest code of every number, found one by one', () => {
    const book = books.signed.toArray() as number[]
    const values = randn([64]).mul(randn([64]))
    const { codes, absmax } = quantize(values, { signed: true })
    const scale = absmax.item() as number
    const found = codes.toArray() as number[]
    for (const [i, value] of (values.toArray() as number[]).entries()) {
      const distances = book.map((code) => Math.abs(code - value / scale))
      expect(distances[found[i] as number] as number).toBeCloseTo(Math.min(...distances), 6)
    }
  })

  it('refuses what does not fit', () => {
    expect(() => quantize(zeros([4], { dtype: 'int64' }), {})).toThrow(/float32, bfloat16 or float16/)
    expect(() => quantize(zeros([4]), { blockSize: 0 })).toThrow(/block size/)
    expect(() => quantize(zeros([4]), { blockSize: -2 })).toThrow(/block size/)
    expect(() => dequantize(zeros([4], { dtype: 'uint8' }), zeros([2]), {})).toThrow(/absmax must be float32/)
    expect(() => dequantize(zeros([4]), zeros([1]), {})).toThrow(/codes must be/)
    expect(quantize(zeros([0]), {}).codes.shape).toEqual([0])
  })
})

describe('AdamW8bit', () => {
  const { options } = file.cases.find(({ name }) => name === 'steps') as Required<Case>
  const rule = { lr: options.lr, betas: options.betas, eps: options.eps, weightDecay: options.weight_decay }
  const initial = tensorsOf(file, 'steps', 'param') as { large: Tensor; small: Tensor }
  const gradients = tensorsOf(file, 'steps', 'in') as { large: Tensor; small: Tensor }
  const out = tensorsOf(file, 'steps', 'out')
  const state = tensorsOf(file, 'steps', 'state')
  const keys = ['large', 'small'] as const
  const make = (dtype: 'float32' | 'bfloat16' = 'float32') =>
    keys.map((key) => new Parameter(initial[key].to({ dtype }).clone()))

  async function trained(optimizer: Optimizer, params: Tensor[], from: number, to: number): Promise<void> {
    for (let step = from; step < to; step++) {
      await scope(async () => {
        keys.forEach((key, i) => {
          const param = params[i] as Tensor
          param.grad = gradients[key]
            .flatten()
            .roll([7 * step])
            .view(param.shape)
            .to({ dtype: param.dtype })
            .clone()
        })
        await optimizer.step()
      })
    }
  }

  it('takes the steps of bitsandbytes', async () => {
    const params = make()
    using optimizer = new AdamW8bit(params, rule) as Optimizer
    await trained(optimizer, params, 0, 1)
    keys.forEach((key, i) => {
      expectClose((params[i] as Tensor).detach(), out[`${key}.1`] as Tensor, 1e-6, key)
    })
    await trained(optimizer, params, 1, 50)
    const own = optimizer.stateDict().state
    // float32 moments are as exact as AdamW's. A packed one is rounded by up to some per cent of itself: where another
    // order of products lands on the other side of the border between two codes, that parameter's next steps (of lr
    // 0.01, weights up to 4) differ by some per cent. It happens to few, and the difference does not grow.
    expectClose((params[1] as Tensor).detach(), out['small.50'] as Tensor, 1e-6, 'small')
    const large = (params[0] as Tensor).detach()
    expectClose(large, out['large.50'] as Tensor, 1e-3, 'large')
    const moved = large
      .sub(out['large.50'] as Tensor)
      .abs()
      .gt(1e-5)
      .sum()
      .item()
    expect(moved, 'parameters that differ').toBeLessThanOrEqual(4)
    expect(own[1]?.state1?.dtype).toBe('float32')
    expectClose(own[1]?.state2 as Tensor, state['1.state2'] as Tensor, 1e-6, 'second moment')
    for (const key of ['absmax1', 'absmax2'])
      expectClose(own[0]?.[key] as Tensor, state[`0.${key}`] as Tensor, 1e-3, key)
    for (const key of ['state1', 'state2']) {
      const [a, b] = [own[0]?.[key], state[`0.${key}`]].map((one) => (one as Tensor).flatten().toArray() as number[])
      const apart = (a as number[]).filter((code, i) => code !== b?.[i])
      expect(apart.length, `${key} codes that differ`).toBeLessThanOrEqual(4)
    }
  })

  it('loads the state that bitsandbytes saves, code books and all', async () => {
    using optimizer = new AdamW8bit(make(), rule) as Optimizer
    const saved = optimizer.stateDict()
    const of = (index: number) =>
      Object.fromEntries(
        Object.entries(state).flatMap(([key, value]) =>
          key.startsWith(`${index}.`) ? [[key.slice(2), value] as const] : [],
        ),
      )
    // Made on another processor, with other last bits.
    const maps = { qmap1: books.signed.mul(1 + 2 ** -23), qmap2: books.unsigned }
    const foreign = (first: object): OptimizerState =>
      ({
        state: { 0: { step: 50, ...of(0), ...first }, 1: { step: 50, ...of(1) } },
        param_groups: saved.param_groups,
      }) as never
    optimizer.loadStateDict(foreign(maps))
    const own = optimizer.stateDict().state
    expect(Object.keys(own[0] as object).sort()).toEqual(['absmax1', 'absmax2', 'state1', 'state2', 'step'])
    expect(own[0]?.state1?.toArray()).toEqual(state['0.state1']?.toArray())
    expect(own[0]?.step?.item()).toBe(50)
    expect(() => optimizer.loadStateDict(foreign({ qmap1: books.unsigned }))).toThrow(
      /code book .* state qmap1 .* other values/,
    )
    expect(() => optimizer.loadStateDict(foreign({ absmax1: zeros([3]) }))).toThrow(CheckpointError)
    expect(() => optimizer.loadStateDict(foreign({ state2: zeros([41, 100]) }))).toThrow(
      /Optimizer\.loadStateDict: expected uint8, but state state2 of parameter 0 is float32/,
    )
  })

  it.each([
    ['float32', false],
    ['bfloat16', false],
    ['bfloat16', true],
  ] as const)('%s, masterWeights %s, goes on bit for bit from a saved state', async (dtype, masterWeights) => {
    const [whole, first] = [make(dtype), make(dtype)]
    using a = new AdamW8bit(whole, { ...rule, masterWeights }) as Optimizer
    await trained(a, whole, 0, 12)
    const b = new AdamW8bit(first, { ...rule, masterWeights }) as Optimizer
    await trained(b, first, 0, 5)
    const second = first.map((param) => new Parameter(param.detach().clone()))
    using c = new AdamW8bit(second, { ...rule, masterWeights }) as Optimizer
    c.loadStateDict(b.stateDict())
    b.dispose()
    await trained(c, second, 5, 12)
    expect(second.map((param) => param.toArray())).toEqual(whole.map((param) => param.toArray()))
    const codes = (optimizer: Optimizer) => optimizer.stateDict().state[0]?.state2?.toArray()
    expect(codes(c)).toEqual(codes(a))
    expect(c.stateDict().state[0]?.state1?.dtype).toBe('uint8')
  })

  it('updates parameters that are not contiguous as if they were', async () => {
    const plain = new Parameter(initial.large.clone())
    const turned = new Parameter(initial.large.t().contiguous().t())
    for (const param of [plain, turned]) {
      using optimizer = new AdamW8bit([param], rule)
      for (let step = 0; step < 3; step++) {
        param.grad = gradients.large.clone()
        await optimizer.step()
      }
    }
    expect(turned.isContiguous()).toBe(false)
    expect(turned.detach().toArray()).toEqual(plain.detach().toArray())
  })

  it('keeps moments of 0 as the code of 0', async () => {
    const param = new Parameter(randn([4096]))
    using optimizer = new AdamW8bit([param], rule) as Optimizer
    param.grad = zeros([4096])
    await optimizer.step()
    const { state1, state2 } = optimizer.stateDict().state[0] as unknown as { state1: Tensor; state2: Tensor }
    expect(state1.toArray()).toEqual(quantize(zeros([4096]), { signed: true }).codes.toArray())
    expect(state2.toArray()).toEqual(quantize(zeros([4096]), { signed: false }).codes.toArray())
  })

  it('a backward through weights that a step has changed since is refused, as in PyTorch', async () => {
    const param = new Parameter(randn([3]))
    using optimizer = new AdamW8bit([param], rule) as Optimizer
    const loss = param.mul(param).sum()
    param.grad = zeros([3])
    await optimizer.step()
    await expect(loss.backward()).rejects.toThrow(/modified by an inplace operation/)
  })

  it('goes the other way with maximize', async () => {
    const [down, up] = [0, 1].map(() => new Parameter(zeros([4096]))) as [Parameter, Parameter]
    using a = new AdamW8bit([down], rule)
    using b = new AdamW8bit([up], { ...rule, maximize: true })
    const grad = randn([4096])
    for (const [param, optimizer] of [
      [down, a],
      [up, b],
    ] as const) {
      param.grad = grad.clone()
      await optimizer.step()
    }
    expectClose(up.detach(), down.detach().neg(), 0)
  })

  it('leaves no tensors behind and frees its state', async () => {
    const params = make()
    const before = await settledTensors()
    const optimizer = new AdamW8bit(params) as Optimizer
    const step = async () => {
      await trained(optimizer, params, 0, 1)
      optimizer.zeroGrad()
    }
    await step()
    expect(memoryStats().liveTensors).toBe(before + 5 + 3)
    for (let i = 0; i < 3; i++) await step()
    optimizer.loadStateDict(optimizer.stateDict())
    expect(memoryStats().liveTensors).toBe(before + 5 + 3)
    optimizer.dispose()
    expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
  })

  it('refuses what it cannot do', async () => {
    const [param] = make() as [Parameter]
    expect(() => new AdamW8bit([param], { betas: [0.9, 1] })).toThrow(/betas/)
    expect(() => new AdamW8bit([param], { min8bitSize: -1 })).toThrow(/min8bitSize/)
    expect(() => new AdamW8bit([param], { amsgrad: true } as never)).toThrow(/amsgrad/)
    expect(() => new AdamW8bit([new Parameter(zeros([3], { dtype: 'float64' }))])).toThrow(ConfigError)
    using optimizer = new AdamW8bit([param], { min8bitSize: 0 }) as Optimizer
    expect(() => optimizer.addGroup({ params: [new Parameter(zeros([3], { dtype: 'float64' }))] })).toThrow(/float64/)
    expect(optimizer.groups.length).toBe(1)
  })
})
