import { describe, expect, it } from 'vitest'
import {
  cat,
  functional,
  Linear,
  manualSeed,
  memoryStats,
  noGrad,
  ops,
  quantize,
  randn,
  type Tensor,
} from '../../lib/index.js'
import { difference, settledTensors } from '../helpers.js'

const exact = (x: Tensor, weight: Tensor, bias: Tensor | null) =>
  ops.linear(x.double(), weight.double(), bias?.double() ?? null)

describe('linear of a few rows without gradients', () => {
  // 300 and 333 leave parts of blocks at the end.
  it.each([
    [1, 768, 256],
    [2, 300, 401],
    [3, 333, 257],
    [8, 1024, 130],
    [9, 512, 512],
  ])('%i rows of %i to %i equal the float64 product', (rows, from, to) => {
    manualSeed(1)
    noGrad(() => {
      const input = randn([rows, from])
      const weight = randn([to, from])
      const bias = randn([to])
      for (const offset of [bias, null]) {
        expect(difference(functional.linear(input, weight, offset), exact(input, weight, offset))).toBeLessThan(1e-6)
        const half = [input, weight, offset].map((x) => x?.to('bfloat16') ?? null) as [Tensor, Tensor, Tensor | null]
        const ours = functional.linear(...half)
        expect(ours.dtype).toBe('bfloat16')
        expect(difference(ours.double(), exact(...half))).toBeLessThan(2 ** -8)
      }
    })
  })

  it('gives a row the same bits whatever comes with it', () => {
    manualSeed(2)
    noGrad(() => {
      const input = randn([7, 320])
      const weight = randn([300, 320])
      const alone = Array.from({ length: 7 }, (_, i) => functional.linear(input.slice(0, i, i + 1), weight))
      expect(functional.linear(input, weight).equal(cat(alone))).toBe(true)
      expect(functional.linear(input.view([7, 1, 320]), weight).shape).toEqual([7, 1, 300])
    })
  })

  it.each(['float32', 'bfloat16'] as const)('multiplies int8 weights without making them wider, %s', async (dtype) => {
    manualSeed(3)
    const layer = new Linear(300, 401)
    const input = randn([2, 300])
    await quantize(layer, { scheme: 'int8' })
    const rows = noGrad(() => layer.to({ dtype }).forward(input.to(dtype)))
    // Nine rows make the values and multiply those.
    const many = noGrad(() => layer.forward(cat([input, randn([7, 300])]).to(dtype)))
    expect(rows.dtype).toBe(dtype)
    expect(difference(rows.double(), many.slice(0, 0, 2).double())).toBeLessThan(dtype === 'float32' ? 1e-6 : 2 ** -7)
  })

  it('leaves gradients and autocast alone, and no tensors', async () => {
    const layer = new Linear(300, 401)
    const input = randn([2, 300])
    const live = await settledTensors()
    noGrad(() => layer.forward(input)).dispose()
    expect(memoryStats().liveTensors).toBe(live)
    await layer.forward(input).sum().backward()
    expect(layer.weight.grad?.shape).toEqual([401, 300])
  })
})
