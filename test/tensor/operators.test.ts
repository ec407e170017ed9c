import { afterAll, describe, expect, test } from 'vitest'
import {
  asFloat,
  type DType,
  full,
  memoryStats,
  ones,
  ops,
  type Scalar,
  scope,
  Tensor,
  tensor,
  zeros,
} from '../../lib/index.js'
import { op } from '../../lib/native/call.js'
import { fixture } from '../helpers.js'
import { expressions } from './expressions.js'
import { operators } from './operator-table.js'

const python = await expressions('operators')

test('every case of Python has its twin', () => {
  expect(Object.keys(operators)).toEqual(python.cases.map((item) => item.name))
})

describe('as Python', () => {
  // Decompositions differ in the last bits between processors.
  test.each(python.cases)('$name', (item) => python.check(item, operators, item.name.includes('linalg') ? 1e-5 : 1e-6))
})

describe('results', () => {
  test('have the schema’s names', () =>
    scope(() => {
      const x = tensor([
        [3, 1, 2],
        [4, 6, 5],
      ])
      const { values, indices } = x.max(1)
      expect([values.toArray(), indices.toArray()]).toEqual([
        [3, 6],
        [0, 1],
      ])
      expect(Object.keys(x.sort())).toEqual(['values', 'indices'])
      expect(Object.keys(x.topk(2))).toEqual(['values', 'indices'])
      expect(Object.keys(x.aminmax())).toEqual(['min', 'max'])
      expect(Object.keys(ops.linalgSvd(x.float()))).toEqual(['U', 'S', 'Vh'])
      expect(Object.keys(ops.linalgQr(x.float()))).toEqual(['Q', 'R'])
      expect(Object.keys(ops.linalgSlogdet(x.matmul(x.t()).float()))).toEqual(['sign', 'logabsdet'])
    }))

  test('without names are arrays', () =>
    scope(() => {
      expect(Array.isArray(ops.varMean(ones([2])))).toBe(true)
      expect(Array.isArray(ones([4]).split(2))).toBe(true)
      expect(ones([2, 3]).unbind()).toHaveLength(2)
    }))

  test('that are numbers and booleans', () =>
    scope(() => {
      const x = ones([2, 3])
      expect(x.numel()).toBe(6)
      expect(x.size(-1)).toBe(3)
      expect(x.equal(x)).toBe(true)
      expect(x.isComplex()).toBe(false)
      expect(x.storageOffset()).toBe(0)
    }))

  test('in place are the tensor itself', () =>
    scope(() => {
      const x = zeros([2])
      expect(x.add_(1)).toBe(x)
      expect(x.mul_(2).sub_(1)).toBe(x)
      expect(ops.add_(x, 1)).toBe(x)
      expect(x.requiresGrad_(true)).toBe(x)
      expect(x.detach_()).toBe(x)
      expect(x.fill_(0)).toBe(x)
      expect(x.unsqueeze_(0)).toBe(x)
      expect(x.shape).toEqual([1, 2])
      expect(op('aten::_foreach_add_')([x], 1)).toBeUndefined()
      expect(x.toArray()).toEqual([[1, 1]])
    }))

  test('with `out` are the tensor given', () =>
    scope(() => {
      const out = zeros([2])
      expect(ops.add(ones([2]), 1, { out } as never)).toBe(out)
      expect(out.toArray()).toEqual([2, 2])
      const values = zeros([0])
      const indices = zeros([0], { dtype: 'int64' })
      const result = ops.max(tensor([[1.5, 0.5]]), 1, { max: values, maxValues: indices } as never) as {
        values: Tensor
        indices: Tensor
      }
      expect(values.toArray()).toEqual([1.5])
      expect(result.values.toArray()).toEqual([1.5])
      expect(indices.toArray()).toEqual([0])
      expect(() => ops.add(ones([2]), 1, { out: zeros([2], { dtype: 'int64' }) } as never)).toThrow(
        expect.objectContaining({ code: 'ERR_DTYPE' }),
      )
    }))

  test('of a subclass’s method are plain tensors', () =>
    scope(() => {
      expect(ones([1]).add(1)).toBeInstanceOf(Tensor)
    }))
})

describe('arguments', () => {
  test('by place, by name, in any mixture', () =>
    scope(() => {
      const x = tensor([
        [1, 2],
        [3, 4],
      ])
      const expected = [[3], [7]]
      expect(x.sum([1], true).toArray()).toEqual(expected)
      expect(x.sum([1], { keepdim: true }).toArray()).toEqual(expected)
      expect(x.sum({ dim: [1], keepdim: true } as never).toArray()).toEqual(expected)
      expect(ops.sum(x, 1, { keepdim: true }).toArray()).toEqual(expected)
      expect(x.sum([1], { keepdim: true, dtype: undefined }).toArray()).toEqual(expected)
      expect(x.float().softmax(1, undefined).dtype).toBe('float32')
      expect(x.sum({}).item()).toBe(10)
    }))

  test('number lists as arguments of their own', () =>
    scope(() => {
      const x = ones([2, 3])
      expect(x.view(3, 2).shape).toEqual([3, 2])
      expect(x.view(6).shape).toEqual([6])
      expect(x.reshape(1, -1).shape).toEqual([1, 6])
      expect(x.permute(1, 0).shape).toEqual([3, 2])
      expect(x.expand(4, 2, 3).shape).toEqual([4, 2, 3])
      expect(x.repeat(2, 2).shape).toEqual([4, 6])
      expect(x.view(Int32Array.of(3, 2) as never).shape).toEqual([3, 2])
      expect(x.reshape(3n as never, 2n as never).shape).toEqual([3, 2])
      expect(ones([1]).view([]).shape).toEqual([])
    }))

  test('numbers where tensors are expected', () =>
    scope(() => {
      const x = tensor([1.5, 2.5])
      expect(x.maximum(2 as never).toArray()).toEqual([2, 2.5])
      expect(ops.where(x.gt(2), 1, 0).toArray()).toEqual([0, 1])
      expect(ops.add(1 as never, x).toArray()).toEqual([2.5, 3.5])
      // As in Python, a number does not widen the tensor.
      expect(x.to('float16').maximum(2 as never).dtype).toBe('float16')
      expect(tensor([1, 2]).maximum(1.5 as never).dtype).toBe('float32')
    }))

  test('whole numbers stay whole, double() marks a float', () =>
    scope(() => {
      const x = tensor([1, 2])
      expect(x.mul(2).dtype).toBe('int64')
      expect(x.mul(2.5).dtype).toBe('float32')
      expect(x.mul(asFloat(2)).dtype).toBe('float32')
      expect(x.mul(2n).dtype).toBe('int64')
      expect(x.add(2n ** 53n + 1n).toArray()).toEqual([2n ** 53n + 2n, 2n ** 53n + 3n])
      expect(x.add(true).toArray()).toEqual([2, 3])
      expect(x.mul({ re: 0, im: 1 }).dtype).toBe('complex64')
      expect(full([1], 1).mul(1e300).toArray()).toEqual([Number.POSITIVE_INFINITY])
    }))

  test.each<[string, () => unknown, string | RegExp]>([
    ['a missing one', () => (ops.matmul as unknown as (x: Tensor) => void)(ones([1])), 'ERR_CONFIG'],
    ['one too many', () => ops.neg(...([ones([1]), 1] as unknown as [Tensor])), 'ERR_CONFIG'],
    ['a string for a tensor', () => ones([1]).add('1' as never), 'ERR_CONFIG'],
    ['null for a tensor', () => ones([1]).add(null as never), 'ERR_CONFIG'],
    ['a fraction for a size', () => ones([2]).view(0.5), 'ERR_CONFIG'],
    ['NaN for a dimension', () => ones([2]).sum(Number.NaN), 'ERR_CONFIG'],
    ['2^63 for a dimension', () => ones([2]).sum(2 ** 63), 'ERR_CONFIG'],
    ['a bigint beyond 64 bits', () => ones([2]).add(2n ** 64n), 'ERR_CONFIG'],
    ['an unknown option', () => ones([2]).sum([0], { keepDims: true } as never), 'ERR_CONFIG'],
    ['an option of the wrong type', () => ones([2]).sum([0], { keepdim: 1 } as never), 'ERR_CONFIG'],
    ['an unknown dtype', () => ones([2]).to('float31' as DType), /^ERR_(CONFIG|DTYPE)$/],
    ['a function', () => ones([2]).add((() => 1) as never), 'ERR_CONFIG'],
    ['a symbol', () => ones([2]).add(Symbol('x') as never), 'ERR_CONFIG'],
    ['a plain array for a tensor', () => ones([2]).add([1, 2] as never), 'ERR_CONFIG'],
    ['tensors with a hole', () => ops.cat([ones([1]), undefined] as never), 'ERR_CONFIG'],
    ['an unrelated object', () => ones([2]).add(new Map() as never), 'ERR_CONFIG'],
    ['shapes that do not broadcast', () => ones([2]).add(ones([3])), 'ERR_SHAPE'],
    ['matrices that do not fit', () => ones([2, 3]).matmul(ones([2, 3])), 'ERR_SHAPE'],
    ['a view of another size', () => ones([6]).view(4), 'ERR_SHAPE'],
    ['a dimension out of range', () => ones([2]).sum(3), 'ERR_INDEX'],
    ['dtypes that do not fit', () => ones([2, 2]).matmul(ones([2, 2], { dtype: 'float64' })), 'ERR_DTYPE'],
    ['softmax of integers', () => tensor([1, 2]).softmax(0), 'ERR_NOT_IMPLEMENTED'],
    ['in-place promotion', () => tensor([1, 2]).add_(0.5), 'ERR_DTYPE'],
    ['a singular matrix', () => ops.linalgInv(zeros([2, 2])), /^ERR_/],
    ['an index out of range', () => ones([2]).indexSelect(0, tensor([5])), 'ERR_INDEX'],
    ['a class out of range', () => ops.crossEntropyLoss(ones([1, 2]), tensor([5])), 'ERR_INDEX'],
    ['an embedding out of range', () => ops.embedding(ones([2, 2]), tensor([2])), 'ERR_INDEX'],
  ])('%s', (_, call, code) => {
    const before = memoryStats().liveScopes
    expect(() => scope(call)).toThrow(
      expect.objectContaining({ code: typeof code === 'string' ? code : expect.stringMatching(code) }),
    )
    expect(memoryStats().liveScopes).toBe(before)
  })

  test('an error names the operator and is no C++ listing', () => {
    const failing = () => scope(() => ones([2, 3]).matmul(ones([2, 3])))
    expect(failing).toThrow(expect.objectContaining({ op: 'matmul', name: 'ShapeError' }))
    expect(failing).toThrow(/^matmul: /)
    expect(failing).toThrow(
      expect.objectContaining({ message: expect.not.stringMatching(/Exception raised|\.cpp|0x[0-9a-f]{6}/) }),
    )
  })

  test('many, and a long text', () =>
    scope(() => {
      const many = Array.from({ length: 20_000 }, (_, i) => i)
      expect(
        ones([20_000]).reshape(
          many
            .map(() => 1)
            .slice(0, 60)
            .concat(20_000),
        ).ndim,
      ).toBe(61)
      const parts = Array.from({ length: 5000 }, () => ones([1]))
      expect(ops.cat(parts).shape).toEqual([5000])
      expect(ones([40_000]).split(1)).toHaveLength(40_000)
      expect(() => ops.einsum('ß'.repeat(10_000), [ones([1])])).toThrow(
        expect.objectContaining({ code: expect.stringMatching(/^ERR_/) }),
      )
    }))

  test('an operator that is not there', () => {
    expect(() => op('aten::no_such_operator')(1)).toThrow(/no operator 'aten::no_such_operator'.*2\.13/)
  })

  test('a failed argument does not disturb the next call', () =>
    scope(() => {
      const trap = {
        get alpha(): number {
          // An operator inside another one's arguments.
          return Number(ones([2]).sum().item())
        },
      }
      expect(
        ones([1])
          .add(ones([1]), trap)
          .toArray(),
      ).toEqual([3])
      const broken = {
        get alpha(): number {
          throw new RangeError('mine')
        },
      }
      expect(() => ones([1]).add(ones([1]), broken)).toThrow(
        expect.objectContaining({ name: 'ConfigError', cause: expect.any(RangeError) }),
      )
      expect(
        ones([1])
          .add(ones([1]), { alpha: 2 })
          .toArray(),
      ).toEqual([3])
    }))
})

describe('type promotion', async () => {
  interface Promotion {
    name: string
    dtypes: DType[]
    tensors: Record<DType, DType[]>
    dimensionless: Record<DType, DType[]>
    numbers: Record<string, DType[]>
  }
  const { cases } = await fixture<Promotion>('tensor/dtypes')
  const { dtypes, tensors, dimensionless, numbers } = cases[0]!

  test.each(dtypes)('%s with tensors', (a) =>
    scope(() => {
      const x = ones([1], { dtype: a })
      expect(dtypes.map((b) => x.add(ones([1], { dtype: b })).dtype)).toEqual(tensors[a])
      expect(dtypes.map((b) => x.add(ones([], { dtype: b })).dtype)).toEqual(dimensionless[a])
    }),
  )

  const given: Record<string, Scalar> = { true: true, '2': 2, '2.5': 2.5, '{re:1,im:1}': { re: 1, im: 1 } }
  test.each(Object.keys(numbers))('numbers: %s', (text) =>
    scope(() => {
      expect(dtypes.map((dtype) => ones([1], { dtype }).mul(given[text]!).dtype)).toEqual(numbers[text])
    }),
  )
})

test('one handle for each result and none for what fails', () => {
  const x = ones([2, 3])
  const before = memoryStats().liveTensors
  const made = [x.add(1), ...Object.values(x.max(1)), ...x.split(1)]
  expect(memoryStats().liveTensors - before).toBe(5)
  x.add_(1)
  expect(() => x.matmul(x)).toThrow(/cannot be multiplied/)
  const wide = x.expand([50_000, 2, 3])
  made.push(wide)
  try {
    for (const part of wide.split(1)) part.dispose()
  } catch {
    // Whether so many results are possible is another test's question.
  }
  expect(x.numel()).toBe(6)
  expect(memoryStats().liveTensors - before).toBe(6)
  for (const value of made) value.dispose()
  expect(memoryStats().liveTensors).toBe(before)
})

const disposed = ones([1])
disposed.dispose()
afterAll(() => disposed.dispose())

test.each<[string, (x: Tensor) => unknown]>([
  ['a method', (x) => x.add(1)],
  ['an argument', (x) => ones([1]).add(x)],
  ['a list', (x) => ops.cat([ones([1]), x])],
  ['an option', (x) => ones([1]).clamp({ min: x } as never)],
  ['shape', (x) => x.shape],
  ['dtype', (x) => x.dtype],
  ['device', (x) => x.device],
  ['strides', (x) => x.strides],
  ['requiresGrad', (x) => x.requiresGrad],
  ['grad', (x) => x.grad],
  ['gradFn', (x) => x.gradFn],
  ['isLeaf', (x) => x.isLeaf],
  ['item', (x) => x.item()],
  ['toArray', (x) => x.toArray()],
  ['dataSync', (x) => x.dataSync()],
  ['at', (x) => x.at(0)],
  ['an index', (x) => ones([1]).at(x)],
  ['setAt', (x) => x.setAt([0], 1)],
  ['a value', (x) => ones([1]).setAt([0], x)],
  ['setData', (x) => x.setData(ones([1]))],
  ['a source', (x) => ones([1]).setData(x)],
  ['toString', (x) => String(x)],
  ['to', (x) => x.to('float64')],
  ['in place', (x) => x.add_(1)],
  ['registerHook', (x) => x.registerHook(() => {})],
])('a disposed tensor in %s', (_, use) => {
  expect(() => scope(() => use(disposed))).toThrow(
    expect.objectContaining({ name: 'DisposedError', code: 'ERR_DISPOSED' }),
  )
})

test('a disposed tensor in what is queued', async () => {
  const error = expect.objectContaining({ name: 'DisposedError' })
  await expect(disposed.data()).rejects.toEqual(error)
  await expect(disposed.backward()).rejects.toEqual(error)
  await expect(ops.async.add(disposed, 1)).rejects.toEqual(error)
})

test('what only looks like a tensor', () => {
  const forged = Object.create(Tensor.prototype) as Tensor
  expect(() => forged.add(1)).toThrow(
    expect.objectContaining({ code: expect.stringMatching(/^ERR_(CONFIG|DISPOSED)$/) }),
  )
  expect(() => ones([1]).add(forged)).toThrow(expect.objectContaining({ code: 'ERR_CONFIG' }))
  expect(() => ones([1]).add({ shape: [1] } as never)).toThrow(expect.objectContaining({ code: 'ERR_CONFIG' }))
})
