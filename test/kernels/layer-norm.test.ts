import { describe, expect, it } from 'vitest'
import { arange, autograd, functional, manualSeed, noGrad, ops, randn, type Tensor } from '../../lib/index.js'
import { difference } from '../helpers.js'

describe('layerNorm on the CPU', () => {
  const shapes: [size: number[], normalized: number[]][] = [
    [
      [3, 5, 7],
      [5, 7],
    ],
    [[4, 16], [16]],
    [[2, 3, 768], [768]],
    [[5, 33], [33]],
    [[40, 1000], [1000]],
  ]

  it.each(shapes)('equals ATen, gradients too: %j over %j', async (size, normalized) => {
    manualSeed(3)
    const input = randn(size).mul(3).add(20).requiresGrad_()
    const weight = randn(normalized).requiresGrad_()
    const bias = randn(normalized).requiresGrad_()
    const cotangent = randn(size)
    const ours = functional.layerNorm(input, normalized, { weight, bias })
    const theirs = ops.layerNorm(input, normalized, weight, bias)
    expect(difference(ours, theirs)).toBeLessThan(1e-5)
    const inputs = [input, weight, bias]
    const [a, b] = await Promise.all([ours, theirs].map((y) => autograd.grad(y, inputs, { gradOutputs: [cotangent] })))
    inputs.forEach((_, i) => {
      expect(difference(a?.[i] as Tensor, b?.[i] as Tensor)).toBeLessThan(1e-5)
    })
    // The same bits without a graph, whatever the number of rows that a thread gets.
    expect(noGrad(() => functional.layerNorm(input, normalized, { weight, bias })).equal(ours)).toBe(true)
  })

  it('takes neither weight nor bias', () => {
    const input = arange(24, { dtype: 'float32' }).reshape([4, 6])
    expect(difference(functional.layerNorm(input, [6]), ops.layerNorm(input, [6]))).toBeLessThan(1e-6)
  })

  it.each([16, 33, 768])('equals the rounded float32 result in bfloat16, %i wide', (width) => {
    manualSeed(6)
    const input = randn([9, width]).mul(3).add(5).to('bfloat16')
    const [weight, bias] = [randn([width]).to('bfloat16'), randn([width]).to('bfloat16')]
    const exact = ops.layerNorm(input.float(), [width], weight.float(), bias.float())
    expect(difference(functional.layerNorm(input, [width], { weight, bias }).float(), exact)).toBeLessThan(2 ** -8)
    expect(
      difference(functional.layerNorm(input, [width]).float(), ops.layerNorm(input.float(), [width])),
    ).toBeLessThan(2 ** -8)
  })

  it('keeps its digits far from zero', () => {
    manualSeed(4)
    const input = randn([8, 64]).add(1000)
    const exact = ops.layerNorm(input.to('float64'), [64])
    expect(difference(functional.layerNorm(input, [64]).to('float64'), exact)).toBeLessThan(1e-4)
  })

  it('can be differentiated twice', async () => {
    manualSeed(5)
    const input = randn([3, 10]).requiresGrad_()
    const weight = randn([10]).requiresGrad_()
    const second = async (y: Tensor) => {
      const [first] = await autograd.grad(y.pow(2).sum(), [input], { createGraph: true })
      return (await autograd.grad((first as Tensor).pow(2).sum(), [input, weight])) as Tensor[]
    }
    const ours = await second(functional.layerNorm(input, [10], { weight }))
    const theirs = await second(ops.layerNorm(input, [10], weight))
    ours.forEach((one, i) => {
      expect(difference(one, theirs[i] as Tensor)).toBeLessThan(1e-5)
    })
  })

  it('hands every other input to ATen', () => {
    const input = randn([6, 4])
    for (const other of [input.t(), input.to('float64'), input.to('bfloat16'), input.slice(0, 0, 0)]) {
      const size = [other.shape[1] as number]
      expect(functional.layerNorm(other, size).equal(ops.layerNorm(other, size))).toBe(true)
    }
  })
})
