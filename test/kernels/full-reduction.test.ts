import { describe, expect, it } from 'vitest'
import { type DType, full, ops, randn, type Tensor, tensor } from '../../lib/index.js'
import { here } from '../helpers.js'

// Sums and means over all elements of a CPU tensor (native/core/kernels/full_reduction.h). ATen's own path starts below.
const FROM = 1 << 15

// Unit roundoff, and how many of them an answer may differ from the sum in float64, in terms of the sum of magnitudes.
const ROUNDOFF: Partial<Record<DType, number>> = {
  float32: 2 ** -24,
  float64: 2 ** -53,
  bfloat16: 2 ** -8,
  float16: 2 ** -11,
}

describe.skipIf(here() === 'cuda')('a sum over all elements', () => {
  const layouts: Record<string, (x: Tensor) => Tensor> = {
    contiguous: (x) => x,
    transposed: (x) => x.t(),
    'with an offset': (x) => x.narrow(0, 3, x.size(0) - 3),
    strided: (x) => x.narrow(1, 1, x.size(1) - 2),
    expanded: (x) =>
      x
        .select(1, 0)
        .unsqueeze(1)
        .expand([x.size(0), x.size(1)]),
  }
  for (const [dtype, roundoff] of Object.entries(ROUNDOFF) as [DType, number][]) {
    for (const [layout, of] of Object.entries(layouts)) {
      it.each([
        [128, 255],
        [128, 256],
        [181, 182],
        [1009, 997],
      ])(`is within rounding of the sum in float64: ${dtype}, ${layout}, %i × %i`, (rows, columns) => {
        const x = of(randn([rows, columns]).to(dtype))
        const exact = x.to('float64')
        // Summed by rows, which ATen does.
        const expected = exact.sum([1]).toArray() as number[]
        const total = expected.reduce((sum, one) => sum + one, 0)
        const magnitude = (exact.abs().sum([1]).toArray() as number[]).reduce((sum, one) => sum + one, 0)
        const bound = roundoff * Math.abs(total) + 64 * (dtype === 'float64' ? 2 ** -53 : 2 ** -24) * magnitude
        for (const [found, scale] of [
          [x.sum(), 1],
          [x.sum([0, 1]), 1],
          [x.sum([-1, 0], { keepdim: true }), 1],
          [ops.sum(x, []), 1],
          [x.mean(), x.numel()],
          [x.mean([1, 0]), x.numel()],
        ] as [Tensor, number][]) {
          expect(found.dtype).toBe(dtype)
          expect(Math.abs(found.item() * scale - total)).toBeLessThanOrEqual(2 * bound)
        }
      })
    }
  }

  it('has the shape that is asked for, and the dtype', () => {
    const x = randn([2, 64, 512])
    expect(x.sum().shape).toEqual([])
    expect(x.sum([0, 1, 2], { keepdim: true }).shape).toEqual([1, 1, 1])
    expect(x.mean([0, 1, 2], { keepdim: true }).shape).toEqual([1, 1, 1])
    expect(x.sum([0, 1]).shape).toEqual([512])
    expect(x.sum({ dtype: 'float64' }).dtype).toBe('float64')
    expect(x.to('int32').sum().dtype).toBe('int64')
    expect(x.to('bfloat16').mean({ dtype: 'float32' }).dtype).toBe('float32')
  })

  it('refuses dimensions as below that size', () => {
    for (const x of [randn([2, 4]), randn([2, FROM])]) {
      expect(() => x.sum([0, 0])).toThrow(/dim 0 appears multiple times/)
      expect(() => x.mean([0, 2])).toThrow(/out of range|range of/i)
    }
  })

  it('carries infinity and NaN, and goes to infinity where the dtype ends', () => {
    for (const dtype of ['float32', 'float64', 'bfloat16', 'float16'] as const) {
      const x = full([FROM + 5], 1, { dtype })
      expect(x.index([tensor([7])]).item()).toBe(1)
      const withOne = (value: number) => {
        const changed = x.clone()
        changed.narrow(0, FROM + 2, 1).fill_(value)
        return changed
      }
      expect(withOne(Number.POSITIVE_INFINITY).sum().item()).toBe(Number.POSITIVE_INFINITY)
      expect(withOne(Number.NEGATIVE_INFINITY).mean().item()).toBe(Number.NEGATIVE_INFINITY)
      expect(withOne(Number.NaN).sum().item()).toBeNaN()
    }
    expect(full([FROM], 60_000, { dtype: 'float16' }).sum().item()).toBe(Number.POSITIVE_INFINITY)
    expect(full([FROM], 60_000, { dtype: 'float16' }).mean().item()).toBe(60_000)
    expect(full([FROM], 3e38).sum().item()).toBe(Number.POSITIVE_INFINITY)
  })

  it('has the gradient of a sum, and a second one', async () => {
    const x = randn([FROM + 1]).requiresGrad_()
    await x.square().mean().backward()
    const expected = x.detach().mul(2 / (FROM + 1))
    expect(ops.allclose(x.grad as Tensor, expected)).toBe(true)
  })
})
