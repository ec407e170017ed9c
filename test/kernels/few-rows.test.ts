import { describe, expect, it } from 'vitest'
import {
  cat,
  type DType,
  functional,
  Linear,
  manualSeed,
  memoryStats,
  noGrad,
  ops,
  quantize,
  randn,
  type Tensor,
  VoxtorchError,
} from '../../lib/index.js'
import { op } from '../../lib/native/call.js'
import { difference, expectAsExact, settledTensors } from '../helpers.js'
import { integerInputs } from './integer-inputs.js'

const dequantizeInt8 = op('voxtorch::dequantize_int8') as (codes: Tensor, absmax: Tensor) => Tensor
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
    [13, 2048, 301],
    [64, 768, 401],
    [65, 333, 257],
  ])('%i rows of %i to %i equal the float64 product', (rows, from, to) => {
    manualSeed(1)
    noGrad(() => {
      const input = randn([rows, from])
      const weight = randn([to, from])
      const bias = randn([to])
      for (const offset of [bias, null]) {
        const of = (dtype: DType) =>
          [input, weight, offset].map((x) => x?.to(dtype) ?? null) as [Tensor, Tensor, Tensor | null]
        for (const given of [of('float32'), of('bfloat16'), of('float16')]) {
          expectAsExact(functional.linear(...given), ops.linear(...given), exact(...given), from, given[0].dtype)
        }
      }
    })
  })

  // Up to 16 in float32; in half precision at least 8, where the processor multiplies it.
  it.each([
    ['float32', 16],
    ['bfloat16', 8],
    ['float16', 8],
  ] as const)('%s: a row has the same bits with up to %i in all', (dtype, most) => {
    manualSeed(2)
    noGrad(() => {
      const input = randn([most, 330]).to(dtype)
      const weight = randn([300, 330]).to(dtype)
      const alone = cat(Array.from({ length: most }, (_, i) => functional.linear(input.slice(0, i, i + 1), weight)))
      for (let rows = 2; rows <= most; rows++) {
        expect(functional.linear(input.slice(0, 0, rows), weight).equal(alone.slice(0, 0, rows)), `${rows} rows`).toBe(
          true,
        )
      }
      expect(functional.linear(input.view([most, 1, 330]), weight).shape).toEqual([most, 1, 300])
    })
  })

  it.each(['float32', 'bfloat16'] as const)('multiplies int8 weights without making them wider, %s', async (dtype) => {
    manualSeed(3)
    const layer = new Linear(300, 401)
    const input = randn([2, 300])
    await quantize(layer, { scheme: 'int8' })
    const half = input.to(dtype)
    const rows = noGrad(() => layer.to({ dtype }).forward(half))
    const values = dequantizeInt8(layer.weight, layer.namedBuffers()[0]![1]).double()
    expect(rows.dtype).toBe(dtype)
    // The CPU multiplies whole steps of the input; a GPU makes values of the weight.
    const steps = half.device === 'cpu' ? integerInputs(half) : half
    expect(difference(rows.double(), exact(steps, values, layer.bias))).toBeLessThan(
      dtype === 'float32' ? 1e-6 : 2 ** -7,
    )
    // Of an input of normal numbers, steps are off by 1 % of their size at most in the mean.
    const whole = exact(half, values, layer.bias)
    const off = rows.double().sub(whole).square().mean().div(whole.square().mean()).sqrt()
    expect(Number(off.item())).toBeLessThan(0.01)
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

type Tensors = Record<'codes' | 'absmax' | 'offset', Tensor>
const quantizeNf4 = op('voxtorch::quantize_nf4') as (x: Tensor, options: object) => Tensors
const quantizeScales = op('voxtorch::quantize_scales') as (scales: Tensor) => Tensors
const dequantizeNf4 = op('voxtorch::dequantize_nf4') as (c: Tensor, a: Tensor, shape: number[], o: object) => Tensor
const dequantizeScales = op('voxtorch::dequantize_scales') as (c: Tensor, a: Tensor, offset: Tensor) => Tensor
const packedLinear = op('voxtorch::quantized_linear') as (...args: unknown[]) => Tensor
const adaptedLinear = op('voxtorch::adapted_quantized_linear') as (...args: unknown[]) => Tensor

/** A random weight in NF4: the arguments that say how it is packed, and its values. */
function nf4({ from, to, block = 64, nested = false }: { from: number; to: number; block?: number; nested?: boolean }) {
  const shape = [to, from]
  const { codes, absmax } = quantizeNf4(randn(shape), { blockSize: block })
  const how = { scheme: 'nf4', blockSize: block }
  if (!nested) return { codes, absmax, shape, how, values: dequantizeNf4(codes, absmax, shape, { blockSize: block }) }
  const scales = quantizeScales(absmax)
  const values = dequantizeNf4(codes, dequantizeScales(scales.codes, scales.absmax, scales.offset), shape, {
    blockSize: block,
  })
  const nestedHow = { ...how, nestedAbsmax: scales.absmax, nestedOffset: scales.offset }
  return { codes, absmax: scales.codes, shape, how: nestedHow, values }
}

type Packed = ReturnType<typeof nf4>
const product = (input: Tensor, { codes, absmax, shape, how }: Packed, bias: Tensor | null = null) =>
  packedLinear(input, codes, absmax, shape, bias, how)

describe.each([false, true])('few rows of an NF4 weight, double quantisation %s', (nested) => {
  // Rows of 192 with blocks of 128, and 320 with 256: a block goes on in the next row.
  const taken = [
    [1, 768, 256, 64],
    [2, 192, 401, 128],
    [3, 320, 257, 256],
    [8, 1024, 130, 64],
  ] as const
  // Many rows, rows or blocks that are no multiples of 64, an odd number of weights.
  const left = [
    [9, 512, 256, 64],
    [2, 300, 401, 64],
    [1, 333, 257, 64],
    [2, 768, 256, 32],
    [2, 768, 256, 96],
  ] as const

  it.each([...taken, ...left])('%i rows of %i to %i in blocks of %i equal the product of the values', (...sizes) => {
    const [rows, from, to, block] = sizes
    manualSeed(4)
    noGrad(() => {
      const weight = nf4({ from, to, block, nested })
      const input = randn([rows, from])
      const bias = randn([to])
      for (const offset of [bias, null]) {
        const theirs = ops.linear(input, weight.values, offset)
        expectAsExact(product(input, weight, offset), theirs, exact(input, weight.values, offset), from)
        const half = [input, offset].map((x) => x?.to('bfloat16') ?? null) as [Tensor, Tensor | null]
        const ours = product(half[0], weight, half[1])
        expect(ours.dtype).toBe('bfloat16')
        expect(difference(ours.double(), exact(half[0], weight.values, half[1]))).toBeLessThan(2 ** -7)
      }
    })
  })

  it.each(taken)('%i rows of %i to %i in blocks of %i never make values in bfloat16', (rows, from, to, block) => {
    manualSeed(5)
    noGrad(() => {
      const weight = nf4({ from, to, block, nested })
      const input = randn([rows, from]).to('bfloat16')
      // Values rounded to bfloat16 would give other bits.
      expect(product(input, weight).equal(product(input.float(), weight).to('bfloat16'))).toBe(true)
    })
  })

  it('gives a row the same bits whatever comes with it', () => {
    manualSeed(6)
    noGrad(() => {
      const weight = nf4({ from: 320, to: 300, nested })
      const input = randn([7, 320])
      const alone = Array.from({ length: 7 }, (_, i) => product(input.slice(0, i, i + 1), weight))
      expect(product(input, weight).equal(cat(alone))).toBe(true)
      expect(product(input.view([7, 1, 320]), weight).shape).toEqual([7, 1, 300])
      expect(product(input.t().contiguous().t(), weight).equal(cat(alone))).toBe(true)
      expect(product(input.slice(0, 0, 0), weight).shape).toEqual([0, 300])
    })
  })

  it('goes with an adapter', () => {
    manualSeed(7)
    noGrad(() => {
      const { codes, absmax, shape, how, values } = nf4({ from: 320, to: 300, nested })
      const [input, a, b, bias] = [randn([2, 320]), randn([4, 320]), randn([300, 4]), randn([300])]
      const ours = adaptedLinear(input, codes, absmax, shape, bias, [a], [b], [0.5], how)
      const merged = values.double().add(b.double().matmul(a.double()).mul(0.5))
      expectAsExact(ours, ops.linear(input, merged.float(), bias), exact(input, merged, bias), 320)
    })
  })

  it('leaves gradients alone, and no tensors', async () => {
    const weight = nf4({ from: 320, to: 300, nested })
    const input = randn([2, 320], { requiresGrad: true })
    const live = await settledTensors()
    noGrad(() => product(input, weight)).dispose()
    expect(memoryStats().liveTensors).toBe(live)
    await product(input, weight).sum().backward()
    const gradient = weight.values.double().sum(0).expand([2, 320])
    expect(difference(input.grad as Tensor, gradient)).toBeLessThan(1e-5)
  })
})

it.each(['nf4', 'int8'] as const)('refuses scales of another number than the weight needs: %s', (scheme) => {
  const { codes, absmax } = (op(`voxtorch::quantize_${scheme}`) as typeof quantizeNf4)(randn([300, 320]), {})
  for (const scales of [absmax.slice(0, 0, 7), cat([absmax, absmax])]) {
    const call = () => noGrad(() => packedLinear(randn([1, 320]), codes, scales, [300, 320], null, { scheme }))
    expect(call).toThrow(VoxtorchError)
    expect(call).toThrow(scheme === 'nf4' ? /shape \[1500\]/ : /shape \[300\]/)
  }
})
