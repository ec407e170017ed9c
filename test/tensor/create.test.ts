import { describe, expect, test } from 'vitest'
import {
  ConfigError,
  DataError,
  DeviceError,
  type DType,
  DTypeError,
  IndexError,
  memoryStats,
  ones,
  type Scalar,
  scope,
  type Tensor,
  type TensorData,
  tensor,
  unique,
  zeros,
} from '../../lib/index.js'

const big = 2n ** 53n + 1n

describe('the dtype of what is given', () => {
  test.each<[string, TensorData, DType, number[]]>([
    ['whole number', 3, 'int64', []],
    ['fraction', 3.5, 'float32', []],
    ['NaN', Number.NaN, 'float32', []],
    ['Infinity', [1, Number.POSITIVE_INFINITY], 'float32', [2]],
    ['boolean', true, 'bool', []],
    ['bigint', 3n, 'int64', []],
    ['complex', { re: 1, im: 2 }, 'complex64', []],
    ['whole numbers', [1, 2], 'int64', [2]],
    ['one fraction', [[1], [2.5]], 'float32', [2, 1]],
    ['booleans', [true, false], 'bool', [2]],
    ['booleans and numbers', [true, 2], 'int64', [2]],
    ['booleans and fractions', [true, 2.5], 'float32', [2]],
    ['numbers and bigints', [1, 2n], 'int64', [2]],
    ['numbers and complex', [1, { re: 0, im: 1 }], 'complex64', [2]],
    ['nothing', [], 'float32', [0]],
    ['empty rows', [[], []], 'float32', [2, 0]],
    ['three levels', [[[1], [2]]], 'int64', [1, 2, 1]],
    ['Float32Array', Float32Array.of(1), 'float32', [1]],
    ['Float64Array', Float64Array.of(1), 'float64', [1]],
    ['Int8Array', Int8Array.of(-1), 'int8', [1]],
    ['Uint8Array', Uint8Array.of(255), 'uint8', [1]],
    ['Uint8ClampedArray', Uint8ClampedArray.of(255), 'uint8', [1]],
    ['Int16Array', Int16Array.of(-1), 'int16', [1]],
    ['Uint16Array', Uint16Array.of(65535), 'uint16', [1]],
    ['Int32Array', Int32Array.of(-1), 'int32', [1]],
    ['Uint32Array', Uint32Array.of(2 ** 32 - 1), 'uint32', [1]],
    ['BigInt64Array', BigInt64Array.of(-5n), 'int64', [1]],
    ['BigUint64Array', BigUint64Array.of(5n), 'uint64', [1]],
    ['Buffer', Buffer.of(1, 2), 'uint8', [2]],
    ['empty typed array', new Float64Array(), 'float64', [0]],
  ])('%s', (_, data, dtype, shape) =>
    scope(() => {
      const made = tensor(data)
      expect(made.dtype).toBe(dtype)
      expect(made.shape).toEqual(shape)
      if (ArrayBuffer.isView(data)) expect(made.toArray()).toEqual(Array.from(data as Uint8Array, Number))
    }),
  )

  test('requiresGrad makes whole numbers float32 and keeps fractions', () =>
    scope(() => {
      const whole = tensor([1, 2], { requiresGrad: true })
      expect([whole.dtype, whole.requiresGrad, whole.isLeaf]).toEqual(['float32', true, true])
      expect(tensor([1.5], { requiresGrad: true }).dtype).toBe('float32')
      expect(tensor([1, 2], { requiresGrad: true, dtype: 'float64' }).dtype).toBe('float64')
      expect(() => tensor([1], { dtype: 'int64', requiresGrad: true })).toThrow(/floating point/)
    }))
})

describe('values survive a round trip', () => {
  const signed = [-128, -1, 0, 1, 127]
  const cases: [DType, Scalar[]][] = [
    ['float32', [0.1, -0, 1e-45, 3.4e38, Number.NaN, Number.NEGATIVE_INFINITY].map(Math.fround)],
    ['float64', [0.1, -0, 5e-324, 1.7e308, Number.NaN, Number.POSITIVE_INFINITY]],
    ['float16', [0.5, -0, 65504, 2 ** -24, 0.0999755859375, Number.NaN]],
    ['bfloat16', [0.5, -0, 3.3895313892515355e38, 2 ** -133, Number.NEGATIVE_INFINITY]],
    ['int8', signed],
    ['uint8', [0, 255]],
    ['int16', [-32768, 32767]],
    ['uint16', [0, 65535]],
    ['int32', [-(2 ** 31), 2 ** 31 - 1]],
    ['uint32', [0, 2 ** 32 - 1]],
    ['int64', [Number.MIN_SAFE_INTEGER, 0, Number.MAX_SAFE_INTEGER]],
    ['int64', [big, -big, 2n ** 63n - 1n, -(2n ** 63n)]],
    ['uint64', [0, big, 2n ** 64n - 1n]],
    ['bool', [true, false, true]],
    [
      'complex64',
      [
        { re: 0.5, im: -2 },
        { re: -0, im: Number.POSITIVE_INFINITY },
      ],
    ],
    ['complex128', [{ re: 0.1, im: -1e300 }]],
    ['float8_e4m3fn', [0.5, -448, 2 ** -9]],
    ['float8_e5m2', [0.5, -57344, 2 ** -16]],
  ]

  test.each(cases)('%s %o', async (dtype, values) => {
    const made = tensor(values, { dtype })
    expect(made.dtype).toBe(dtype)
    expect(made.toArray()).toEqual(values)
    const now = made.dataSync()
    expect(await made.data()).toEqual(now)
    expect(now.length).toBe(dtype.startsWith('complex') ? 2 * values.length : values.length)
    // A view of one element, whatever the offset.
    values.forEach((value, i) => {
      expect(made.at(i).item()).toEqual(value)
      expect(made.at(i).toArray()).toEqual(value)
    })
    // What was read is a copy.
    now.fill(now[0]!.constructor(1) as never)
    expect(made.toArray()).toEqual(values)
    made.dispose()
  })

  test('what is given is copied', () =>
    scope(() => {
      const source = Float32Array.of(1, 2)
      const made = tensor(source)
      source[0] = 9
      expect(made.toArray()).toEqual([1, 2])
    }))

  test('a typed array is converted to another dtype', () =>
    scope(() => {
      expect(tensor(Float64Array.of(0.5, -2), { dtype: 'float16' }).toArray()).toEqual([0.5, -2])
      expect(tensor(Uint8Array.of(0, 3), { dtype: 'bool' }).toArray()).toEqual([false, true])
      expect(tensor(Int32Array.of(7), { dtype: 'int64' }).dtype).toBe('int64')
    }))

  test('a view on the middle of an ArrayBuffer, and one on a SharedArrayBuffer', () =>
    scope(() => {
      const { buffer } = Int32Array.of(1, 2, 3, 4)
      expect(tensor(new Int32Array(buffer, 4, 2)).toArray()).toEqual([2, 3])
      const shared = new Float32Array(new SharedArrayBuffer(8))
      shared.set([1.5, 2.5])
      expect(tensor(shared).toArray()).toEqual([1.5, 2.5])
    }))

  test('strided and conjugated tensors are read in row-major order', () =>
    scope(() => {
      const x = tensor([
        [1, 2],
        [3, 4],
      ]).t()
      expect(x.strides).toEqual([1, 2])
      expect(Array.from(x.dataSync() as BigInt64Array)).toEqual([1n, 3n, 2n, 4n])
      expect(
        tensor([{ re: 1, im: 2 }])
          .conj()
          .toArray(),
      ).toEqual([{ re: 1, im: -2 }])
      expect(tensor([1, 2, 3, 4]).at(1).add(0).item()).toBe(2)
    }))
})

describe('Buffers hold raw bytes', () => {
  test.each<[DType, number[], Scalar[]]>([
    ['float32', [0, 0, 128, 63, 0, 0, 0, 192], [1, -2]],
    ['bfloat16', [128, 63, 0, 192], [1, -2]],
    ['float16', [0, 60, 0, 192], [1, -2]],
    ['int64', [255, 255, 255, 255, 255, 255, 255, 255], [-1]],
    ['bool', [1, 0], [true, false]],
    ['complex64', [0, 0, 128, 63, 0, 0, 0, 192], [{ re: 1, im: -2 }]],
    ['float8_e5m2', [60, 192], [1, -2]],
  ])('%s', (dtype, bytes, values) =>
    scope(() => {
      const made = tensor(Buffer.from(bytes), { dtype })
      expect(made.toArray()).toEqual(values)
      expect(tensor(Buffer.from(bytes), { dtype, shape: [values.length, 1] }).shape).toEqual([values.length, 1])
    }),
  )

  test('bytes that are no whole values', () => {
    expect(() => tensor(Buffer.alloc(7), { dtype: 'float32' })).toThrow(DataError)
    expect(() => tensor(Buffer.alloc(8), { dtype: 'float32', shape: [3] })).toThrow(/8 bytes.*12/)
  })

  test('bool bytes other than 0 and 1 become true', () =>
    scope(() => {
      const made = tensor(Buffer.from([0, 1, 2, 255]), { dtype: 'bool' })
      expect(made.toArray()).toEqual([false, true, true, true])
      expect(made.sum().item()).toBe(3)
    }))
})

describe('shape', () => {
  test('of a flat typed array', () =>
    scope(() => {
      expect(tensor(Float32Array.of(1, 2, 3, 4, 5, 6), { shape: [3, 2] }).toArray()).toEqual([
        [1, 2],
        [3, 4],
        [5, 6],
      ])
      expect(tensor(Float32Array.of(1), { shape: [] }).item()).toBe(1)
      expect(tensor(new Float32Array(), { shape: [0, 3] }).shape).toEqual([0, 3])
    }))

  test.each<[string, number[]]>([
    ['too few', [2]],
    ['too many', [7]],
    ['negative', [-1, -3]],
    ['inferred', [3, -1]],
    ['huge', [2 ** 52, 2 ** 52]],
    ['fraction', [1.5, 2]],
    ['NaN', [Number.NaN]],
  ])('%s', (_, shape) => {
    expect(() => tensor(Float32Array.of(1, 2, 3), { shape })).toThrow(
      expect.objectContaining({ code: expect.stringMatching(/^ERR_(SHAPE|CONFIG|DATA)$/) }),
    )
  })

  test.each<[number[], unknown]>([
    [[0], []],
    [
      [2, 0],
      [[], []],
    ],
    [[0, 3], []],
    [[1, 0, 2], [[]]],
  ])('%j has no elements', (shape, nested) =>
    scope(() => {
      const made = zeros(shape)
      expect(made.numel()).toBe(0)
      expect(made.toArray()).toEqual(nested)
      expect(made.dataSync()).toEqual(new Float32Array())
      expect(() => made.item()).toThrow(expect.objectContaining({ code: expect.stringMatching(/^ERR_/) }))
    }),
  )

  test('64 dimensions', () =>
    scope(() => {
      expect(zeros(new Array(64).fill(1)).ndim).toBe(64)
    }))
})

describe('what cannot be a tensor', () => {
  test.each<[string, unknown, RegExp, number[]]>([
    ['a short row', [[1, 2], [3]], /\[1\]/, [1]],
    ['a long row', [[1], [2, 3]], /\[1\]/, [1]],
    ['a number for a row', [[1], 2], /\[1\]/, [1]],
    ['a row for a number', [1, [2]], /\[1\]/, [1]],
    [
      'a deep row',
      [
        [[1], [2]],
        [[3], [4, 5]],
      ],
      /\[1\]\[1\]/,
      [1, 1],
    ],
    ['a string', [1, 'two'], /\[1\]/, [1]],
    ['null', [[0], [null]], /\[1\]\[0\]/, [1, 0]],
    ['undefined', [1, undefined], /\[1\]/, [1]],
    ['a hole', Array.from<number>({ length: 0 }).concat([1], new Array(1)), /\[1\]/, [1]],
  ])('%s', (_, data, pattern, path) => {
    expect(() => tensor(data as TensorData)).toThrow(DataError)
    expect(() => tensor(data as TensorData)).toThrow(
      expect.objectContaining({ message: expect.stringMatching(pattern), path }),
    )
  })

  test.each<[string, unknown]>([
    ['undefined', undefined],
    ['null', null],
    ['a string', '1'],
    ['an object', {}],
    ['a function', () => 1],
    ['a symbol', Symbol('s')],
    ['a Map', new Map()],
    ['an ArrayBuffer', new ArrayBuffer(4)],
    ['a DataView', new DataView(new ArrayBuffer(4))],
  ])('%s', (_, data) => {
    expect(() => tensor(data as TensorData)).toThrow(
      expect.objectContaining({ code: expect.stringMatching(/^ERR_(DATA|DTYPE|CONFIG)$/) }),
    )
  })

  test.each<[unknown, DType]>([
    [[1.5], 'int32'],
    [[1, 2.5], 'int64'],
    [[Number.NaN], 'uint8'],
    [[Number.POSITIVE_INFINITY], 'int64'],
    [[256], 'uint8'],
    [[-1], 'uint8'],
    [[128], 'int8'],
    [[2 ** 31], 'int32'],
    [[2n ** 63n], 'int64'],
    [[2 ** 63], 'int64'],
    [[-1n], 'uint64'],
    [[{ re: 1, im: 1 }], 'float32'],
    [[{ re: 1, im: 1 }], 'int64'],
    [[{ re: 1, im: 1 }], 'bool'],
  ])('%o as %s', (data, dtype) => {
    expect(() => tensor(data as TensorData, { dtype })).toThrow(DTypeError)
  })

  test('options that are wrong', () => {
    expect(() => tensor([1], { dtype: 'float31' as DType })).toThrow(ConfigError)
    expect(() => tensor([1], { dtype: 'toString' as DType })).toThrow(ConfigError)
    expect(() => tensor([1], { device: 'gpu' as 'cpu' })).toThrow(
      expect.objectContaining({ code: expect.stringMatching(/^ERR_(CONFIG|DEVICE)$/) }),
    )
    expect(() => zeros([1], { device: 'gpu' as 'cpu' })).toThrow(
      expect.objectContaining({ code: expect.stringMatching(/^ERR_(CONFIG|DEVICE)$/) }),
    )
    expect(() => tensor(zeros([1]) as never)).toThrow(ConfigError)
    expect(() => zeros([-1])).toThrow(expect.objectContaining({ code: expect.stringMatching(/^ERR_/) }))
    expect(() => zeros([2 ** 60, 2 ** 60])).toThrow(expect.objectContaining({ code: expect.stringMatching(/^ERR_/) }))
    expect(() => zeros('3' as never)).toThrow(ConfigError)
    expect(() => zeros([1.5])).toThrow(ConfigError)
  })

  test('too much memory', () => {
    expect(() => zeros([2 ** 46])).toThrow(
      expect.objectContaining({ name: 'OutOfMemoryError', code: 'ERR_OUT_OF_MEMORY' }),
    )
  })

  test('CUDA where there is none says why', () => {
    expect(() => zeros([1], { device: 'cuda' })).toThrow(DeviceError)
    expect(() => tensor([1], { device: 'cuda:0' })).toThrow(DeviceError)
    expect(() => zeros([1]).to('cuda')).toThrow(/CPU variant|CPU build|NVIDIA/)
  })
})

describe('item', () => {
  test('of each kind', () =>
    scope(() => {
      expect(tensor(2.5).item()).toBe(2.5)
      expect(tensor([[7]]).item()).toBe(7)
      expect(tensor(big).item()).toBe(big)
      expect(tensor(-(2n ** 63n)).item()).toBe(-(2n ** 63n))
      expect(tensor(true).item()).toBe(true)
      expect(tensor({ re: 1, im: -2 }).item()).toEqual({ re: 1, im: -2 })
      expect(tensor(0.1, { dtype: 'float16' }).item()).toBe(0.0999755859375)
      expect(tensor(2n ** 64n - 1n, { dtype: 'uint64' }).item()).toBe(2n ** 64n - 1n)
      expect(Object.is(tensor(-0.5).mul(0).item(), -0)).toBe(true)
      expect(tensor(Number.NaN).item()).toBeNaN()
      expect(ones([1], { requiresGrad: true }).item()).toBe(1)
    }))

  test('needs one element', () => {
    expect(() => tensor([1, 2]).item()).toThrow(expect.objectContaining({ code: expect.stringMatching(/^ERR_/) }))
  })
})

test('no temporaries, one handle for each tensor', () => {
  const before = memoryStats().liveTensors
  const made = [
    tensor([1, 2]),
    tensor([1.5], { dtype: 'float16' }),
    tensor(Float64Array.of(1), { dtype: 'float32' }),
    tensor({ re: 1, im: 1 }, { dtype: 'complex32' }),
    tensor([1], { requiresGrad: true }),
    zeros([2], { requiresGrad: true }),
    tensor([2], { device: 'meta' }),
  ]
  for (const value of made.slice(0, 6)) {
    value.toArray()
    value.dataSync()
  }
  expect(memoryStats().liveTensors - before).toBe(made.length)
  for (const value of made) value.dispose()
  expect(memoryStats().liveTensors).toBe(before)
})

test('an error of creation leaves nothing', () => {
  const before = memoryStats().liveTensors
  expect(() => tensor([[1], [2, 3]])).toThrow(DataError)
  expect(() => tensor(Float32Array.of(1), { shape: [2] })).toThrow(/4 bytes.*8/)
  expect(() => tensor(Int32Array.of(1), { dtype: 'float31' as DType })).toThrow(ConfigError)
  expect(() => zeros([2], { dtype: 'int64', requiresGrad: true })).toThrow(/floating point/)
  expect(() => tensor([2], { dtype: 'int64', requiresGrad: true })).toThrow(/floating point/)
  expect(memoryStats().liveTensors).toBe(before)
})

test('unique: values, where each element is among them, and how often each comes', () => {
  const lists = (results: Tensor[]) => results.map((result) => result.toArray())
  const x = tensor([
    [3, 1],
    [2, 3],
    [3, 1],
  ])
  expect(lists(unique(x, { returnInverse: true, returnCounts: true }))).toEqual([
    [1, 2, 3],
    [
      [2, 0],
      [1, 2],
      [2, 0],
    ],
    [2, 1, 3],
  ])
  expect(lists(unique(x, { dim: 0, returnInverse: true, returnCounts: true }))).toEqual([
    [
      [2, 3],
      [3, 1],
    ],
    [1, 0, 1],
    [1, 2],
  ])
  expect(unique(x).map((result) => result.numel())).toEqual([3, 0, 0])
  expect(() => unique(x, { dim: 2 })).toThrow(IndexError)
})
