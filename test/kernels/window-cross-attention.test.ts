import { describe, expect, test } from 'vitest'
import {
  arange,
  autocast,
  autograd,
  type DType,
  DTypeError,
  empty,
  getNumThreads,
  gradcheck,
  memoryStats,
  randn,
  ShapeError,
  scope,
  setNumThreads,
  type Tensor,
  tensor,
  VoxtorchError,
} from '../../lib/index.js'
import { op, opAsync } from '../../lib/native/call.js'
import { expectClose, here, numbers, settledTensors } from '../helpers.js'

const direct = op('voxtorch::window_cross_attention')
const queued = opAsync('voxtorch::window_cross_attention')

interface Size {
  batch: number
  windows: number
  queries: number
  heads: number
  dim: number
  time: number
  window: number
  stride: number
  lengths?: number[]
}
const SIZES: Record<string, Size> = {
  beside: { batch: 2, windows: 3, queries: 1, heads: 2, dim: 4, time: 15, window: 5, stride: 5 },
  'a remainder': { batch: 2, windows: 4, queries: 2, heads: 3, dim: 5, time: 17, window: 5, stride: 5 },
  overlapping: { batch: 2, windows: 4, queries: 3, heads: 2, dim: 17, time: 13, window: 7, stride: 2 },
  gaps: { batch: 1, windows: 3, queries: 2, heads: 1, dim: 3, time: 11, window: 2, stride: 4 },
  lengths: { batch: 3, windows: 4, queries: 2, heads: 2, dim: 8, time: 14, window: 5, stride: 3, lengths: [14, 7, 1] },
  'one window': {
    batch: 2,
    windows: 1,
    queries: 4,
    heads: 2,
    dim: 70,
    time: 9,
    window: 20,
    stride: 1,
    lengths: [9, 4],
  },
  // Beyond what CUDA has a kernel for.
  'a wide head': {
    batch: 2,
    windows: 3,
    queries: 2,
    heads: 1,
    dim: 260,
    time: 9,
    window: 4,
    stride: 3,
    lengths: [9, 2],
  },
}
type Inputs = [query: Tensor, key: Tensor, value: Tensor]

function drawn({ batch, windows, queries, heads, dim, time }: Size, dtype: DType = 'float64'): Inputs {
  const make = (...shape: number[]) => {
    const leaf = randn(shape).to({ dtype }).detach()
    leaf.requiresGrad = true
    return leaf
  }
  return [make(batch, windows, queries, heads, dim), make(batch, time, heads, dim), make(batch, time, heads, dim)]
}

const lengthsOf = ({ lengths }: Size) => (lengths ? tensor(lengths, { dtype: 'int64' }) : null)
const attend = (size: Size, inputs: readonly Tensor[], dropout = 0, seed = 0) =>
  direct(...inputs, size.window, size.stride, lengthsOf(size), dropout, seed) as Tensor

/** The same over windows that unfold copied: frames first padded to whole windows, then masked. */
function unfolded(size: Size, [query, key, value]: readonly Tensor[]): Tensor {
  const { batch, windows, dim, time, window, stride, heads } = size
  const whole = Math.max(time, (windows - 1) * stride + window)
  const cut = (frames: Tensor) => {
    const longer = empty([batch, whole, heads, dim], { dtype: frames.dtype }).zero_()
    const filled = longer.narrow(1, time, whole - time)
    const all = whole === time ? frames : (op('aten::cat')([frames, filled], 1) as Tensor)
    // [batch, windows, heads, dim, window]
    return all.unfold(1, window, stride).narrow(1, 0, windows)
  }
  const scores = query!
    .transpose(2, 3)
    .matmul(cut(key!))
    .mul(dim ** -0.5) // [batch, windows, heads, queries, window]
  const places = arange(windows).mul(stride).unsqueeze(1).add(arange(window)).view([1, windows, 1, 1, window])
  const ends = tensor(size.lengths ?? Array.from({ length: batch }, () => time)).view([batch, 1, 1, 1, 1])
  const beyond = places.ge(ends.clampMax(time))
  const none = beyond.all(-1, true)
  const masked = scores.maskedFill(beyond, Number.NEGATIVE_INFINITY).maskedFill(none, 0)
  const weights = masked.softmax(-1).maskedFill(beyond, 0)
  return weights.matmul(cut(value!).transpose(3, 4)).transpose(2, 3)
}

const TOLERANCE: [DType, number][] = [
  ['float64', 1e-12],
  ['float32', 1e-5],
  ['bfloat16', 1e-2],
  ['float16', 2e-3],
]
const cases = Object.keys(SIZES).flatMap((name) => TOLERANCE.map(([dtype, most]) => ({ name, dtype, most })))

describe('against windows that unfold copied', () => {
  test.each(cases)('$name, $dtype', ({ name, dtype, most }) =>
    scope(async () => {
      const size = SIZES[name] as Size
      const inputs = drawn(size, dtype)
      const exact = inputs.map((input) => {
        const leaf = input.detach().double()
        leaf.requiresGrad = true
        return leaf
      })
      const [output, wanted] = [attend(size, inputs), unfolded(size, exact)]
      expect(output.dtype).toBe(dtype)
      expectClose(output.double(), wanted, most, 'output')
      const cotangent = randn(output.shape).to({ dtype })
      const found = await autograd.grad([output], inputs, { gradOutputs: [cotangent] })
      const expected = await autograd.grad([wanted], exact, { gradOutputs: [cotangent.double()] })
      found.forEach((gradient, i) => {
        expect(gradient?.dtype).toBe(dtype)
        expectClose((gradient as Tensor).double(), expected[i] as Tensor, most, `gradient ${i}`)
      })
    }),
  )

  test('frames lie as they like in memory', () =>
    scope(async () => {
      const size = SIZES.overlapping as Size
      const [query, key, value] = drawn(size, 'float32')
      const wanted = attend(size, [query, key, value])
      const heads = (frames: Tensor) => frames.transpose(1, 2).contiguous().transpose(1, 2)
      const last = (frames: Tensor) => frames.transpose(1, 3).contiguous().transpose(1, 3)
      expect(attend(size, [query, heads(key), last(value)]).equal(wanted)).toBe(true)
      const rows = last(query.transpose(1, 2)).transpose(1, 2)
      expect(attend(size, [rows, key, value]).equal(wanted)).toBe(true)
      expect(((await queued(query, key, value, size.window, size.stride)) as Tensor).equal(wanted)).toBe(true)
    }))
})

describe('gradients', () => {
  test.each(['overlapping', 'gaps', 'lengths', 'a remainder'])('%s, by differences, twice', async (name) => {
    const size = { ...(SIZES[name] as Size), dim: 3, heads: 2 }
    const inputs = drawn(size)
    expect(await gradcheck((...given: Tensor[]) => attend(size, given), inputs)).toBe(true)
    expect(await gradcheck((...given: Tensor[]) => attend(size, given, 0.3, 7), inputs)).toBe(true)
    const [small] = [{ ...size, batch: 1, queries: 1, lengths: size.lengths?.slice(1, 2) } as Size]
    const leaves = drawn(small)
    // The gradient of a gradient, which goes through plain operators, with dropout too.
    const [first] = await autograd.grad([attend(small, leaves, 0.3, 7).square().sum()], leaves, { createGraph: true })
    const again = await autograd.grad([(first as Tensor).square().sum()], leaves)
    const step = 1e-6
    const value = async (shift: number) => {
      const moved = leaves.map((leaf, i) => {
        const copy = leaf.detach().clone()
        if (i === 1) copy.view([-1]).narrow(0, 0, 1).add_(shift)
        copy.requiresGrad = true
        return copy
      })
      const [gradient] = await autograd.grad([attend(small, moved, 0.3, 7).square().sum()], moved)
      return (gradient as Tensor).square().sum().item() as number
    }
    const slope = ((await value(step)) - (await value(-step))) / (2 * step)
    expect(numbers((again[1] as Tensor).view([-1]).narrow(0, 0, 1))[0]).toBeCloseTo(slope, 4)
  })

  test('dropout keeps its share, is a function of the seed, and the gradient has the same', () =>
    scope(async () => {
      const size: Size = { batch: 4, windows: 8, queries: 4, heads: 4, dim: 1, time: 64, window: 8, stride: 8 }
      const [query, key] = drawn(size, 'float64')
      const value = key.detach().mul(0).add(1)
      value.requiresGrad = true
      const inputs = [query.detach().mul(0), key, value]
      const output = attend(size, inputs, 0.25, 5)
      // Each output is the share of the 8 frames that stayed, times 4/3.
      expect(output.mean().item()).toBeCloseTo(1, 1)
      expect(attend(size, inputs, 0.25, 5).equal(output)).toBe(true)
      expect(attend(size, inputs, 0.25, 6).equal(output)).toBe(false)
      expect(attend(size, inputs, 1, 5).abs().sum().item()).toBe(0)
      const [gradient] = await autograd.grad([output.sum()], [value])
      expect((gradient as Tensor).sum().item()).toBeCloseTo(output.sum().item() as number, 6)
    }))
})

describe('the operator', () => {
  test('gives the same bits with any number of threads', async () => {
    const size: Size = { batch: 3, windows: 40, queries: 2, heads: 4, dim: 64, time: 700, window: 17, stride: 17 }
    const inputs = drawn(size, 'float32')
    const run = async () => {
      const output = (await queued(...inputs, size.window, size.stride)) as Tensor
      return [output, ...(await autograd.grad([output.square().sum()], inputs))] as Tensor[]
    }
    const threads = getNumThreads()
    setNumThreads(1)
    const one = await run()
    setNumThreads(2)
    const two = await run()
    setNumThreads(threads)
    one.forEach((found, i) => {
      expect(found.equal(two[i] as Tensor)).toBe(true)
    })
  })

  test('takes empty batches, windows and sequences', () => {
    const size = SIZES.beside as Size
    for (const change of [{ batch: 0 }, { windows: 0 }, { queries: 0 }, { heads: 0 }]) {
      const other = { ...size, ...change }
      expect(attend(other, drawn(other)).numel()).toBe(0)
    }
    const none = { ...size, time: 0 }
    expect(attend(none, drawn(none)).abs().sum().item()).toBe(0)
    const short = { ...size, lengths: [0, 3] }
    expect(attend(short, drawn(short)).select(0, 0).abs().sum().item()).toBe(0)
  })

  test('knows its shape on meta, and the dtype of autocast', () => {
    const size = SIZES.overlapping as Size
    const meta = drawn(size, 'float32').map((input) => input.detach().to({ device: 'meta' }))
    expect((direct(...meta, size.window, size.stride) as Tensor).shape).toEqual([2, 4, 3, 2, 17])
    const inputs = drawn(size, 'float32')
    const lowered = autocast({ device: here(), dtype: 'bfloat16' }, () => attend(size, inputs))
    expect(lowered.dtype).toBe('bfloat16')
  })

  test('refuses what does not fit', () => {
    const size = SIZES.beside as Size
    const [query, key, value] = drawn(size, 'float32')
    const call =
      (...given: unknown[]) =>
      () =>
        direct(...given)
    expect(call(query.select(1, 0), key, value, 5, 5)).toThrow(ShapeError)
    expect(call(query, key.narrow(0, 0, 1), value, 5, 5)).toThrow(/key must have shape/)
    expect(call(query, key, value.narrow(1, 0, 3), 5, 5)).toThrow(/15 frames but value has 3/)
    expect(call(query, key.double(), value, 5, 5)).toThrow(DTypeError)
    for (const [window, stride] of [
      [0, 5],
      [5, 0],
      [-1, 1],
      [2 ** 40, 1],
    ]) {
      expect(call(query, key, value, window, stride)).toThrow(/window and stride/)
    }
    expect(call(query, key, value, 5, 5, tensor([1, 2, 3], { dtype: 'int64' }))).toThrow(/lengths must be int64/)
    expect(call(query, key, value, 5, 5, tensor([1, 2], { dtype: 'float32' }))).toThrow(VoxtorchError)
    expect(call(query, key, value, 5, 5, null, 1.5)).toThrow(/dropout/)
  })

  test('leaves nothing behind', async () => {
    const size = SIZES.lengths as Size
    const before = await settledTensors()
    await scope(async () => {
      const inputs = drawn(size)
      await attend(size, inputs).sum().backward()
    })
    expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
  })
})
