import { describe, expect, it } from 'vitest'
import {
  autocast,
  autograd,
  type DType,
  gradcheck,
  manualSeed,
  memoryStats,
  noGrad,
  ops,
  randn,
  ShapeError,
  scope,
  type Tensor,
} from '../../lib/index.js'
import { op } from '../../lib/native/call.js'
import { expectClose, here } from '../helpers.js'

const loraLinear = op('voxtorch::lora_linear') as (
  input: Tensor,
  weight: Tensor,
  bias: Tensor | null,
  A: Tensor,
  B: Tensor,
  scaling: number,
  dropout?: number,
  training?: boolean,
) => Tensor

const nativeDropout = op('aten::native_dropout')
const SCALING = 1.5
const names = ['input', 'weight', 'bias', 'A', 'B'] as const
type Leaves = Record<(typeof names)[number], Tensor>

function leaves(shape: number[], out: number, rank: number, dtype: DType, trained: readonly string[]): Leaves {
  const dim = shape.at(-1) as number
  const shapes = { input: shape, weight: [out, dim], bias: [out], A: [rank, dim], B: [out, rank] }
  return Object.fromEntries(
    names.map((name) => [name, scope(() => randn(shapes[name]).to({ dtype })).requiresGrad_(trained.includes(name))]),
  ) as Leaves
}

/** The formula in ATen's operators, which autograd differentiates. `mask` is dropout's. */
function formula({ input, weight, bias, A, B }: Leaves, mask?: Tensor, p = 0, withBias = true): Tensor {
  const dropped = mask ? input.mul(mask).mul(p < 1 ? 1 / (1 - p) : 0) : input
  return ops.linear(input, weight, withBias ? bias : null).add(ops.linear(ops.linear(dropped, A), B).mul(SCALING))
}

async function gradients(output: Tensor, given: Leaves, cotangent: Tensor): Promise<(Tensor | null)[]> {
  for (const name of names) given[name].grad = null
  await output.backward({ gradient: cotangent })
  return names.map((name) => given[name].grad)
}

const adapterOnly = ['input', 'A', 'B']
const everything = [...names]

describe.each([
  ['float64', 1e-12],
  ['float32', 1e-5],
  ['bfloat16', 4e-2],
] as [DType, number][])('in %s', (dtype, tolerance) => {
  it.each([
    ['a frozen base', [3, 5, 7], 6, 2, adapterOnly, true],
    ['no bias', [4, 7], 6, 3, adapterOnly, false],
    ['everything trained', [2, 3, 9], 4, 2, everything, true],
    ['the first layer', [5, 8], 8, 4, ['A', 'B'], true],
    ['one row without a batch', [6], 3, 1, adapterOnly, true],
    ['B alone', [3, 6], 3, 1, ['B'], true],
  ] as [string, number[], number, number, string[], boolean][])(
    '%s',
    async (_, shape, out, rank, trained, withBias) => {
      manualSeed(1)
      const given = leaves(shape, out, rank, dtype, trained)
      const output = loraLinear(given.input, given.weight, withBias ? given.bias : null, given.A, given.B, SCALING)
      const expected = formula(given, undefined, 0, withBias)
      expect(output.dtype).toBe(dtype)
      expectClose(output, expected, tolerance, 'output')
      const cotangent = randn(output.shape).to({ dtype })
      const ours = await gradients(output, given, cotangent)
      const theirs = await gradients(expected, given, cotangent)
      names.forEach((name, i) => {
        const needed = trained.includes(name) && (name !== 'bias' || withBias)
        expect(ours[i] !== null, `gradient of ${name}`).toBe(needed)
        if (needed) expectClose(ours[i] as Tensor, theirs[i] as Tensor, tolerance, `gradient of ${name}`)
      })
    },
  )

  it('with dropout, of which the generator decides', async () => {
    manualSeed(2)
    const given = leaves([4, 5, 8], 6, 2, dtype, adapterOnly)
    const call = (training: boolean) =>
      loraLinear(given.input, given.weight, given.bias, given.A, given.B, SCALING, 0.3, training)
    manualSeed(7)
    const output = call(true)
    manualSeed(7)
    const mask = (nativeDropout(given.input.detach().reshape([20, 8]), 0.3, true) as Tensor[])[1]!.reshape([4, 5, 8])
    const dropped = mask.logicalNot().sum().item() as number
    expect(dropped).toBeGreaterThan(20)
    expect(dropped).toBeLessThan(80)
    const expected = formula(given, mask, 0.3)
    expectClose(output, expected, tolerance, 'output')
    const cotangent = randn(output.shape).to({ dtype })
    const ours = await gradients(output, given, cotangent)
    const theirs = await gradients(expected, given, cotangent)
    for (const i of [0, 3, 4]) expectClose(ours[i] as Tensor, theirs[i] as Tensor, tolerance, `gradient of ${names[i]}`)
    expectClose(call(false), formula(given), tolerance, 'in evaluation')
  })
})

it('passes gradcheck, and its second derivatives are those of the formula', async () => {
  manualSeed(3)
  const given = leaves([2, 3, 4], 5, 2, 'float64', everything)
  const inputs = names.map((name) => given[name])
  expect(
    await gradcheck((...all: Tensor[]) => {
      const [input, weight, bias, A, B] = all as [Tensor, Tensor, Tensor, Tensor, Tensor]
      return loraLinear(input, weight, bias, A, B, SCALING)
    }, inputs),
  ).toBe(true)
  const second = async (output: Tensor) => {
    const first = await autograd.grad([output.pow(2).sum()], inputs, { createGraph: true })
    const sum = first.map((grad) => (grad as Tensor).pow(2).sum()).reduce((a, b) => a.add(b))
    return autograd.grad([sum], inputs)
  }
  const ours = await second(loraLinear(given.input, given.weight, given.bias, given.A, given.B, SCALING))
  const theirs = await second(formula(given))
  ours.forEach((grad, i) => void expectClose(grad as Tensor, theirs[i] as Tensor, 1e-11, names[i]))
})

it('a float32 adapter on a bfloat16 layer gets float32 gradients', async () => {
  manualSeed(4)
  const { input, weight, bias } = leaves([6, 8], 4, 2, 'bfloat16', ['input'])
  const { A, B } = leaves([6, 8], 4, 2, 'float32', ['A', 'B'])
  const output = loraLinear(input, weight, bias, A, B, SCALING)
  expect(output.dtype).toBe('bfloat16')
  await output.sum().backward()
  expect([A.grad?.dtype, B.grad?.dtype, input.grad?.dtype]).toEqual(['float32', 'float32', 'bfloat16'])
})

it('computes in the dtype of autocast', () => {
  const given = leaves([6, 8], 4, 2, 'float32', adapterOnly)
  const call = () => loraLinear(given.input, given.weight, given.bias, given.A, given.B, SCALING)
  const output = autocast({ device: here(), dtype: 'bfloat16' }, call)
  expect(output.dtype).toBe('bfloat16')
  expectClose(output.to({ dtype: 'float32' }), call(), 4e-2)
})

it('makes no rows of nothing, and no temporaries', () => {
  const given = leaves([0, 8], 4, 2, 'float32', adapterOnly)
  const before = memoryStats().liveTensors
  const output = loraLinear(given.input, given.weight, given.bias, given.A, given.B, SCALING)
  expect(output.shape).toEqual([0, 4])
  expect(memoryStats().liveTensors - before).toBe(1)
})

it('says which shapes do not fit', () => {
  const { input, weight, bias, A, B } = leaves([6, 8], 4, 2, 'float32', [])
  const wrong = (call: () => Tensor, message: RegExp) => {
    expect(() => noGrad(call)).toThrow(message)
    expect(() => noGrad(call)).toThrow(ShapeError)
  }
  wrong(() => loraLinear(input.t(), weight, bias, A, B, 1), /input must have shape \[\.\.\., 8\]/)
  wrong(() => loraLinear(input, weight, bias, A.t(), B, 1), /lora_A must have shape \[rank, 8\]/)
  wrong(() => loraLinear(input, weight, bias, A, B.t(), 1), /lora_B must have shape \[4, 2\]/)
  expect(() => loraLinear(input, weight, bias, A, B, 1, 1.5, true)).toThrow(/probability/)
})
