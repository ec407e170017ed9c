import { expect, test } from 'vitest'
import {
  ConfigError,
  DTypeError,
  fft,
  functional,
  linalg,
  ops,
  randn,
  ShapeError,
  scope,
  special,
  tensor,
  zeros,
} from '../../lib/index.js'

test('sizes, devices and orders of memory as PyTorch states them', () =>
  scope(() => {
    const x = zeros([2, 3, 4], { dtype: 'float64' })
    expect([x.itemsize, x.elementSize(), x.nbytes, x.ndimension(), x.nelement()]).toEqual([8, 8, 192, 3, 24])
    expect([x.isCpu, x.isCuda, x.isMeta]).toEqual([true, false, false])
    expect(zeros([2], { device: 'meta' }).isMeta).toBe(true)
    expect(zeros([3], { dtype: 'bfloat16' }).nbytes).toBe(6)
    expect(x.dimOrder()).toEqual([0, 1, 2])
    // torch.zeros(2, 3, 4).transpose(0, 2).dim_order() is (2, 1, 0)
    expect(x.transpose(0, 2).dimOrder()).toEqual([2, 1, 0])
    expect(
      tensor([
        [1, 2],
        [3, 4],
      ]).tolist(),
    ).toEqual([
      [1, 2],
      [3, 4],
    ])
  }))

test('conversions, as by `to`', () =>
  scope(() => {
    const x = tensor([1.5, 2.5])
    expect([x.byte(), x.char(), x.short(), x.cfloat(), x.cdouble()].map(({ dtype }) => dtype)).toEqual([
      ...['uint8', 'int8', 'int16', 'complex64', 'complex128'],
    ])
    expect(tensor([0, 3, 0]).toSparseCoo().toDense().toArray()).toEqual([0, 3, 0])
  }))

test('H is the conjugate transpose of a matrix, and of nothing else', () =>
  scope(() => {
    const x = tensor([
      [
        { re: 1, im: 2 },
        { re: 3, im: 4 },
      ],
    ])
    expect(x.H.toArray()).toEqual([[{ re: 1, im: -2 }], [{ re: 3, im: -4 }]])
    expect(() => zeros([2, 2, 2]).H).toThrow(ShapeError)
  }))

test('newTensor takes dtype and device of its tensor', () =>
  scope(() => {
    const x = zeros([1], { dtype: 'float64' })
    expect(x.newTensor([1, 2]).dtype).toBe('float64')
    expect(x.newTensor([1, 2], { dtype: 'int32' }).dtype).toBe('int32')
  }))

test('unique and polygamma as methods', () =>
  scope(() => {
    const [values, , counts] = tensor([3, 1, 3]).unique({ returnCounts: true })
    expect([values.toArray(), counts.toArray()]).toEqual([
      [1, 3],
      [1, 2],
    ])
    // torch.tensor([1.0]).polygamma(1) is π² / 6.
    expect(tensor([1], { dtype: 'float64' }).polygamma(1).item()).toBeCloseTo(Math.PI ** 2 / 6, 8)
  }))

test('apply_ and map_ change elements by a function, in place and on the CPU', () =>
  scope(() => {
    const x = tensor(
      [
        [1, 2],
        [3, 4],
      ],
      { dtype: 'float32' },
    )
    expect(x.apply_((value) => value * 10)).toBe(x)
    expect(
      x
        .t()
        .map_(tensor([1, 2]), (value, other) => value + other)
        .toArray(),
    ).toEqual([
      [11, 32],
      [21, 42],
    ])
    expect(x.toArray()).toEqual([
      [11, 21],
      [32, 42],
    ])
    expect(() => x.apply_(1 as never)).toThrow(ConfigError)
    expect(() => tensor([1.5], { requiresGrad: true }).apply_((value) => value)).toThrow(ConfigError)
    expect(() => tensor([{ re: 1, im: 0 }]).apply_((value) => value)).toThrow(DTypeError)
  }))

test('functions take options by position, by name and both, but no option twice or unknown', () =>
  scope(() => {
    const x = randn([1, 2, 6])
    const w = randn([3, 2, 3])
    const expected = functional.conv1d(x, w, { stride: 2, padding: 1 }).toArray()
    expect(functional.conv1d(x, w, null, 2, 1).toArray()).toEqual(expected)
    expect(functional.conv1d(x, w, null, { stride: 2, padding: 1 }).toArray()).toEqual(expected)
    expect(() => functional.conv1d(x, w, null, 2, { stride: 2 } as never)).toThrow(/conv1d: expected stride once/)
    expect(() => functional.conv1d(x, w, { strid: 2 } as never)).toThrow(/'strid'; did you mean 'stride'/)
    expect(() => functional.gelu(x, 'tanh' as never)).toThrow(
      /expected options to be an object, got "tanh". Write { approximate }/,
    )
    expect(() => (functional.elu as (...args: unknown[]) => unknown)(x, 1, false, 3)).toThrow(
      /expected at most 3 arguments, got 4/,
    )
    expect(() => functional.relu(x, 1 as never)).toThrow(/relu: expected inplace to be true or false/)
    // A module as options gives `training`; positions go before its other fields.
    class Own {
      training = false
      p = 0.9
    }
    expect(functional.dropout(x, 0.5, new Own()).toArray()).toEqual(x.toArray())
  }))

test("types take PyTorch's arguments by position and by name, and nothing else", () =>
  scope(() => {
    const x = zeros([1, 1, 4])
    functional.elu(x, 0.5, false)
    functional.elu(x, 0.5, { inplace: false })
    functional.threshold(x, { threshold: 0, value: 1 })
    functional.softmax(x, { dim: -1 })
    const [output, indices] = functional.maxPool1d(x, 2, { returnIndices: true })
    expect([output.shape, indices.shape, functional.maxPool1d(x, { kernelSize: 2 }).shape]).toEqual([
      [1, 1, 2],
      [1, 1, 2],
      [1, 1, 2],
    ])
    // @ts-expect-error: dim is required
    expect(() => functional.softmax(x)).toThrow()
    // @ts-expect-error: alpha is a number
    expect(() => functional.elu(x, 'a')).toThrow()
    // @ts-expect-error: no option of that name
    expect(() => functional.relu(x, { inPlace: true })).toThrow(ConfigError)
  }))

test('the namespaces are the operators, which tell named results apart', () =>
  scope(() => {
    expect(fft.rfft).toBe(ops.fftRfft)
    expect(special.expit).toBe(ops.specialExpit)
    const { U, S, Vh } = linalg.svd(randn([3, 2]), false)
    expect([U.shape, S.shape, Vh.shape]).toEqual([[3, 2], [2], [2, 2]])
  }))

test('polynomials of special bound their degree, which bounds their time', () =>
  scope(() => {
    const x = tensor([0.5], { dtype: 'float64' })
    expect(special.legendrePolynomialP(x, 2).item()).toBeCloseTo(-0.125, 12)
    expect(special.chebyshevPolynomialT(0.5, tensor([3, 0])).toArray()).toEqual([-1, 1])
    for (const n of [1e12, Number.NaN, Number.POSITIVE_INFINITY, tensor([1, 1e9]), tensor([Number.NaN])]) {
      expect(() => special.hermitePolynomialH(x, n)).toThrow(/degrees n of at most 10000/)
    }
  }))
