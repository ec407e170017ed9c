import { describe, expect, test } from 'vitest'
import {
  autocast,
  autograd,
  DeviceError,
  type DType,
  DTypeError,
  gradcheck,
  memoryStats,
  ones,
  randn,
  ShapeError,
  scope,
  type Tensor,
  VoxtorchError,
  zeros,
} from '../../lib/index.js'
import { op } from '../../lib/native/call.js'
import { expectClose, fixture, here, tensorsOf } from '../helpers.js'

interface Outputs {
  output: Tensor
  residualOutput: Tensor
}
const rmsNormResidual = op('voxtorch::rms_norm_residual') as unknown as (
  input: Tensor,
  residual?: Tensor | null,
  weight?: Tensor | null,
  eps?: number,
) => Outputs

/** The same in plain operators. */
function composed(input: Tensor, residual: Tensor | null, weight: Tensor | null, eps: number): Outputs {
  const residualOutput = residual ? input.add(residual) : input.clone()
  const scale = residualOutput.mul(residualOutput).mean([-1], { keepdim: true }).add(eps).rsqrt()
  const normed = residualOutput.mul(scale)
  return { output: weight ? normed.mul(weight) : normed, residualOutput }
}

const double = { dtype: 'float64', requiresGrad: true } as const

interface Case {
  name: string
  dtype: DType
  eps: number
  inputs: ('input' | 'residual' | 'weight')[]
}
const TOLERANCE: Partial<Record<DType, number>> = { float32: 1e-5, bfloat16: 1e-2, float16: 2e-3 }

describe('as PyTorch operators compute it', async () => {
  const file = await fixture<Case>('kernels/rms-norm-residual')

  test.each(file.cases)('$name', ({ name, dtype, eps, inputs }) =>
    scope(async () => {
      const tolerance = TOLERANCE[dtype]!
      const leaves: Partial<Record<string, Tensor>> = {}
      for (const [key, value] of Object.entries(tensorsOf(file, name, 'in'))) {
        leaves[key] = value.to({ dtype }).detach()
        leaves[key].requiresGrad = true
      }
      const outputs = rmsNormResidual(leaves.input!, leaves.residual, leaves.weight, eps)
      const expected = tensorsOf(file, name, 'out')
      expectClose(outputs.output.float(), expected.output!, tolerance, 'output')
      expectClose(outputs.residualOutput.float(), expected.residualOutput!, tolerance, 'residualOutput')
      expect([outputs.output.dtype, outputs.residualOutput.dtype]).toEqual([dtype, dtype])

      const cotangents = tensorsOf(file, name, 'cotangent')
      const gradients = await autograd.grad(
        [outputs.output, outputs.residualOutput],
        inputs.map((key) => leaves[key]!),
        { gradOutputs: [cotangents.output!.to({ dtype }), cotangents.residualOutput!.to({ dtype })] },
      )
      const expectedGradients = tensorsOf(file, name, 'grad')
      inputs.forEach((key, i) => {
        expectClose(gradients[i]!.float(), expectedGradients[key]!, tolerance, `gradient of ${key}`)
      })
    }),
  )
})

describe('gradients', () => {
  test('float64 against finite differences, with and without the optional inputs', () =>
    scope(async () => {
      const [input, residual, weight] = [randn([2, 3, 5], double), randn([2, 3, 5], double), randn([5], double)]
      const both = ({ output, residualOutput }: Outputs) => [output, residualOutput]
      expect(await gradcheck((x, r, w) => both(rmsNormResidual(x!, r, w, 1e-3)), [input, residual, weight])).toBe(true)
      expect(await gradcheck((x) => both(rmsNormResidual(x!, null, null, 1e-3)), [input])).toBe(true)
      expect(await gradcheck((x) => rmsNormResidual(x!).output, [input])).toBe(true)
    }))

  test('second order equals that of plain operators', () =>
    scope(async () => {
      const inputs = [randn([3, 7], double), randn([3, 7], double), randn([7], double)]
      const second = async (outputs: Outputs) => {
        const loss = outputs.output.pow(3).sum().add(outputs.residualOutput.pow(2).sum())
        const first = await autograd.grad([loss], inputs, { createGraph: true })
        const squares = first.map((gradient) => gradient!.pow(2).sum()).reduce((sum, term) => sum.add(term))
        return autograd.grad([squares], inputs)
      }
      const [x, r, w] = inputs
      const actual = await second(rmsNormResidual(x!, r, w, 1e-3))
      const expected = await second(composed(x!, r!, w!, 1e-3))
      actual.forEach((gradient, i) => {
        expectClose(gradient!, expected[i]!, 1e-9)
      })
    }))

  test('only the weight, or only through residualOutput', () =>
    scope(async () => {
      const [x, weight] = [randn([4, 6], { dtype: 'float64' }), randn([6], double)]
      const [gradient] = await autograd.grad([rmsNormResidual(x, null, weight).output.sum()], [weight])
      expectClose(gradient!, composed(x, null, null, 1e-6).output.sum([0]), 1e-9)
      const leaf = randn([4, 6], double)
      const [passed] = await autograd.grad([rmsNormResidual(leaf, x, weight).residualOutput.sum()], [leaf])
      expectClose(passed!, ones([4, 6], { dtype: 'float64' }), 0)
    }))

  test('autocast computes in the widest dtype given', () =>
    scope(() =>
      autocast({ device: here(), dtype: 'bfloat16' }, () => {
        const input = randn([2, 8]).to({ dtype: 'bfloat16' })
        expect(rmsNormResidual(input, null, ones([8])).output.dtype).toBe('float32')
        expect(rmsNormResidual(input).output.dtype).toBe('bfloat16')
      }),
    ))
})

describe('shapes', () => {
  test('meta tensors infer shape and dtype', () =>
    scope(() => {
      const input = zeros([2, 3, 8], { device: 'meta', dtype: 'bfloat16' })
      const { output, residualOutput } = rmsNormResidual(input, input, input.at(0, 0))
      for (const tensor of [output, residualOutput]) {
        expect([tensor.shape, tensor.dtype, tensor.device]).toEqual([[2, 3, 8], 'bfloat16', 'meta'])
      }
    }))

  test('strided inputs, empty batches and results that share no memory', () =>
    scope(() => {
      const input = randn([4, 6])
      const strided = rmsNormResidual(input.t(), input.t())
      expectClose(strided.output, composed(input.t(), input.t(), null, 1e-6).output)
      expect(rmsNormResidual(zeros([0, 8])).output.shape).toEqual([0, 8])
      const { residualOutput } = rmsNormResidual(input)
      residualOutput.zero_()
      expect(Number(input.abs().sum().item())).toBeGreaterThan(0)
    }))

  test('frees what it makes', () => {
    const before = memoryStats().liveTensors
    scope(() => {
      rmsNormResidual(randn([4, 6]), null, ones([6]))
    })
    expect(memoryStats().liveTensors).toBe(before)
  })
})

const float64 = { dtype: 'float64' } as const
const bad: [string, new (...args: never[]) => VoxtorchError, RegExp, () => unknown][] = [
  [
    'residual of another shape',
    ShapeError,
    /residual.*\[2, 3\].*\[3\]/,
    () => rmsNormResidual(ones([2, 3]), ones([3])),
  ],
  [
    'weight too long',
    ShapeError,
    /weight must have shape \[3\].*got \[4\]/,
    () => rmsNormResidual(ones([2, 3]), null, ones([4])),
  ],
  ['no dimension', ShapeError, /input.*one dimension/, () => rmsNormResidual(ones([]))],
  ['integers', DTypeError, /input.*int64/, () => rmsNormResidual(ones([3], { dtype: 'int64' }))],
  [
    'weight of another dtype',
    DTypeError,
    /weight is float64 but input is float32/,
    () => rmsNormResidual(ones([3]), null, ones([3], float64)),
  ],
  [
    'residual on another device',
    DeviceError,
    /residual is on meta/,
    () => rmsNormResidual(ones([3]), zeros([3], { device: 'meta' })),
  ],
  ['negative eps', VoxtorchError, /eps.*-1/, () => rmsNormResidual(ones([3]), null, null, -1)],
]
test.each(bad)('refuses: %s', (_, Class, sentence, call) =>
  scope(() => {
    expect(call).toThrow(Class)
    expect(call).toThrow(sentence)
  }),
)
