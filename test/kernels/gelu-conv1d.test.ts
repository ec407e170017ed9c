import { describe, expect, it } from 'vitest'
import { autograd, functional, gradcheck, manualSeed, ops, randn, type Tensor } from '../../lib/index.js'
import { op } from '../../lib/native/call.js'
import { difference } from '../helpers.js'

const geluConv1d = op('voxtorch::gelu_conv1d') as (...args: unknown[]) => Tensor

describe('gelu_conv1d', () => {
  // The first two are longer than a piece, the last is one step.
  it.each([
    { time: 3000, inputs: 512, outputs: 8, kernel: 3, stride: 2, bias: false },
    { time: 2601, inputs: 512, outputs: 6, kernel: 2, stride: 2, bias: true },
    { time: 40, inputs: 3, outputs: 5, kernel: 5, stride: 1, bias: true },
    { time: 41, inputs: 4, outputs: 5, kernel: 2, stride: 5, bias: false },
    { time: 7, inputs: 2, outputs: 3, kernel: 7, stride: 3, bias: true },
  ])('equals conv1d of gelu, gradients too: $time × $inputs, kernel $kernel, stride $stride', async (shape) => {
    manualSeed(5)
    const input = randn([2, shape.time, shape.inputs]).requiresGrad_()
    const weight = randn([shape.outputs, shape.inputs, shape.kernel]).requiresGrad_()
    const bias = shape.bias ? randn([shape.outputs]).requiresGrad_() : null
    const ours = geluConv1d(input, weight, bias, { stride: shape.stride })
    const theirs = ops.conv1d(functional.gelu(input).transpose(1, 2), weight, bias, [shape.stride]).transpose(1, 2)
    expect(ours.shape).toEqual(theirs.shape)
    expect(difference(ours, theirs)).toBeLessThan(1e-5)
    const cotangent = randn(ours.shape)
    const inputs = bias ? [input, weight, bias] : [input, weight]
    const [a, b] = await Promise.all([ours, theirs].map((y) => autograd.grad(y, inputs, { gradOutputs: [cotangent] })))
    inputs.forEach((_, i) => {
      expect(difference(a?.[i] as Tensor, b?.[i] as Tensor)).toBeLessThan(1e-5)
    })
  })

  it('has right derivatives, of its gradient too', async () => {
    manualSeed(6)
    const make = (size: number[]) => randn(size, { dtype: 'float64' }).requiresGrad_()
    const inputs = [make([2, 9, 3]), make([4, 3, 3]), make([4])]
    const run = (x: Tensor, w: Tensor, b: Tensor) => geluConv1d(x, w, b, { stride: 2 })
    expect(await gradcheck(run as never, inputs as never)).toBe(true)
    const y = run(...(inputs as [Tensor, Tensor, Tensor]))
    const [first] = await autograd.grad(y.sum(), [inputs[0] as Tensor], { createGraph: true })
    const [second] = await autograd.grad((first as Tensor).pow(2).sum(), [inputs[1] as Tensor])
    const plain = ops.conv1d(functional.gelu(inputs[0] as Tensor).transpose(1, 2), inputs[1] as Tensor, inputs[2], [2])
    const [g] = await autograd.grad(plain.sum(), [inputs[0] as Tensor], { createGraph: true })
    const [expected] = await autograd.grad((g as Tensor).pow(2).sum(), [inputs[1] as Tensor])
    expect(difference(second as Tensor, expected as Tensor)).toBeLessThan(1e-10)
  })

  it('says what does not fit', () => {
    const x = randn([1, 4, 3])
    const w = randn([2, 3, 5])
    expect(() => geluConv1d(x, w)).toThrow(/4 frames, fewer than its kernel of 5/)
    expect(() => geluConv1d(x, randn([2, 4, 2]))).toThrow(/gelu_conv1d takes input/)
    expect(() => geluConv1d(x, randn([2, 3, 2]), randn([3]))).toThrow(/bias/)
    expect(() => geluConv1d(x, randn([2, 3, 2]), null, { stride: 0 })).toThrow(/positive stride/)
  })
})
