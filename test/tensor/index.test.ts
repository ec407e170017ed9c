import { describe, expect, test } from 'vitest'
import {
  arange,
  type Index,
  IndexError,
  memoryStats,
  ones,
  scope,
  slice,
  type Tensor,
  tensor,
  zeros,
} from '../../lib/index.js'
import { expressions } from './expressions.js'

type Names =
  'x row flags threes fours square mask values rows columns last last3 grid column zero one empty bytes_ scalar'
type Inputs = Record<Words<Names>, Tensor>
type Words<T extends string> = T extends `${infer First} ${infer Rest}` ? First | Words<Rest> : T

const all = slice()

const reads: Record<string, (inputs: Inputs) => Tensor> = {
  'x[0]': ({ x }) => x.at(0),
  'x[-1]': ({ x }) => x.at(-1),
  'x[1, 2]': ({ x }) => x.at(1, 2),
  'x[1, 2, 3]': ({ x }) => x.at(1, 2, 3),
  'x[-2, -3, -4]': ({ x }) => x.at(-2, -3, -4),
  'x[:]': ({ x }) => x.at(all),
  'x[1:]': ({ x }) => x.at(slice(1)),
  'x[:1]': ({ x }) => x.at(slice(null, 1)),
  'x[-1:]': ({ x }) => x.at(slice(-1)),
  'x[0:2, 1:3]': ({ x }) => x.at(slice(0, 2), slice(1, 3)),
  'x[:, 1]': ({ x }) => x.at(all, 1),
  'x[:, -1, :]': ({ x }) => x.at(all, -1, all),
  'x[:, :, 2]': ({ x }) => x.at(all, all, 2),
  'x[:, ::2]': ({ x }) => x.at(all, slice(null, null, 2)),
  'x[:, 1::2, ::3]': ({ x }) => x.at(all, slice(1, null, 2), slice(null, null, 3)),
  'x[:, :, 1:-1]': ({ x }) => x.at(all, all, slice(1, -1)),
  'x[:, :, -3:]': ({ x }) => x.at(all, all, slice(-3)),
  'x[:, :, 10:]': ({ x }) => x.at(all, all, slice(10)),
  'x[:, :, 3:1]': ({ x }) => x.at(all, all, slice(3, 1)),
  'x[:, -100:100]': ({ x }) => x.at(all, slice(-100, 100)),
  'x[5:9]': ({ x }) => x.at(slice(5, 9)),
  'x[...]': ({ x }) => x.at('...'),
  'x[..., 0]': ({ x }) => x.at('...', 0),
  'x[0, ...]': ({ x }) => x.at(0, '...'),
  'x[1, ..., 2]': ({ x }) => x.at(1, '...', 2),
  'x[..., 1:3]': ({ x }) => x.at('...', slice(1, 3)),
  'x[..., None]': ({ x }) => x.at('...', null),
  'x[None]': ({ x }) => x.at(null),
  'x[:, None]': ({ x }) => x.at(all, null),
  'x[None, 0, :, None, 1]': ({ x }) => x.at(null, 0, all, null, 1),
  'x[..., None, :, 2]': ({ x }) => x.at('...', null, all, 2),
  'x[0, 1, 2, ...]': ({ x }) => x.at(0, 1, 2, '...'),
  'x[True]': ({ x }) => x.at(true),
  'x[False]': ({ x }) => x.at(false),
  'x[0, True]': ({ x }) => x.at(0, true),
  'x[None, ..., None]': ({ x }) => x.at(null, '...', null),
  'x[flags]': ({ x, flags }) => x.at(flags),
  'x[mask]': ({ x, mask }) => x.at(mask),
  'x[0, square]': ({ x, square }) => x.at(0, square),
  'x[:, threes]': ({ x, threes }) => x.at(all, threes),
  'x[:, :, fours]': ({ x, fours }) => x.at(all, all, fours),
  'x[flags, 1]': ({ x, flags }) => x.at(flags, 1),
  'x[flags, :, 1:3]': ({ x, flags }) => x.at(flags, all, slice(1, 3)),
  'x[1, threes, ::2]': ({ x, threes }) => x.at(1, threes, slice(null, null, 2)),
  'x[threes.nonzero()[0, 0]]': ({ x, threes }) => x.at(threes.nonzero().at(0, 0)),
  'x[rows]': ({ x, rows }) => x.at(rows),
  'x[rows, columns]': ({ x, rows, columns }) => x.at(rows, columns),
  'x[:, columns]': ({ x, columns }) => x.at(all, columns),
  'x[:, :, last]': ({ x, last }) => x.at(all, all, last),
  'x[rows, :, last3]': ({ x, rows, last3 }) => x.at(rows, all, last3),
  'x[:, columns, last3]': ({ x, columns, last3 }) => x.at(all, columns, last3),
  'x[0, columns, last3]': ({ x, columns, last3 }) => x.at(0, columns, last3),
  'x[rows, columns, last3]': ({ x, rows, columns, last3 }) => x.at(rows, columns, last3),
  'x[grid]': ({ x, grid }) => x.at(grid),
  'x[:, grid]': ({ x, grid }) => x.at(all, grid),
  'x[grid, 1]': ({ x, grid }) => x.at(grid, 1),
  'x[grid, :, grid]': ({ x, grid }) => x.at(grid, all, grid),
  'x[:, grid, :, None]': ({ x, grid }) => x.at(all, grid, all, null),
  'x[column, columns]': ({ x, column, columns }) => x.at(column, columns),
  'x[column, :, last]': ({ x, column, last }) => x.at(column, all, last),
  'x[..., last]': ({ x, last }) => x.at('...', last),
  'x[..., last, None]': ({ x, last }) => x.at('...', last, null),
  'x[None, rows]': ({ x, rows }) => x.at(null, rows),
  'x[:, None, columns]': ({ x, columns }) => x.at(all, null, columns),
  'x[rows, None, columns]': ({ x, rows, columns }) => x.at(rows, null, columns),
  'x[[0, 1, 0]]': ({ x }) => x.at([0, 1, 0]),
  'x[:, [2, 0], 1:3]': ({ x }) => x.at(all, [2, 0], slice(1, 3)),
  'x[:, [-1, -2]]': ({ x }) => x.at(all, [-1, -2]),
  'x[zero]': ({ x, zero }) => x.at(zero),
  'x[zero, one]': ({ x, zero, one }) => x.at(zero, one),
  'x[zero, 1:]': ({ x, zero }) => x.at(zero, slice(1)),
  'x[empty]': ({ x, empty }) => x.at(empty),
  'x[:, empty]': ({ x, empty }) => x.at(all, empty),
  'x[flags & ~flags]': ({ x, flags }) => x.at(flags.logicalAnd(flags.logicalNot())),
  'x[x > 0]': ({ x }) => x.at(x.gt(0)),
  'bytes_[1:3]': ({ bytes_ }) => bytes_.at(slice(1, 3)),
  'x[:, :, last.to(torch.int32)]': ({ x, last }) => x.at(all, all, last.to('int32')),
  'x[0][1:][None, 0]': ({ x }) => x.at(0).at(slice(1)).at(null, 0),
  'scalar[...]': ({ scalar }) => scalar.at('...'),
  'scalar[None]': ({ scalar }) => scalar.at(null),
  'scalar[True]': ({ scalar }) => scalar.at(true),
  'scalar[False]': ({ scalar }) => scalar.at(false),
  'scalar[None, None, ...]': ({ scalar }) => scalar.at(null, null, '...'),
}

const writes: Record<string, (inputs: Inputs) => Tensor> = {
  'x[0] = 5': ({ x }) => x.setAt([0], 5),
  'x[-1] = -2.5': ({ x }) => x.setAt([-1], -2.5),
  'x[1, 2, 3] = 9': ({ x }) => x.setAt([1, 2, 3], 9),
  'x[:] = 1': ({ x }) => x.setAt([all], 1),
  'x[...] = 0.25': ({ x }) => x.setAt(['...'], 0.25),
  'x[:, 1] = 7': ({ x }) => x.setAt([all, 1], 7),
  'x[:, ::2, 1] = -1': ({ x }) => x.setAt([all, slice(null, null, 2), 1], -1),
  'x[..., 2] = 4': ({ x }) => x.setAt(['...', 2], 4),
  'x[0, 1:3] = row': ({ x, row }) => x.setAt([0, slice(1, 3)], row),
  'x[:, :, 1] = row[:3]': ({ x, row }) => x.setAt([all, all, 1], row.at(slice(null, 3))),
  'x[1] = x[0]': ({ x }) => x.setAt([1], x.at(0)),
  'x[:, 0] = x[:, 1] * 2': ({ x }) => x.setAt([all, 0], x.at(all, 1).mul(2)),
  'x[1:2] = x[0:1]': ({ x }) => x.setAt([slice(1, 2)], x.at(slice(0, 1))),
  'x[mask] = 0': ({ x, mask }) => x.setAt([mask], 0),
  'x[x > 0] = -1': ({ x }) => x.setAt([x.gt(0)], -1),
  'x[flags] = row': ({ x, flags, row }) => x.setAt([flags], row),
  'x[flags, 1] = 3': ({ x, flags }) => x.setAt([flags, 1], 3),
  'x[0, square] = 8': ({ x, square }) => x.setAt([0, square], 8),
  'x[rows] = 6': ({ x, rows }) => x.setAt([rows], 6),
  'x[rows, columns] = row': ({ x, rows, columns, row }) => x.setAt([rows, columns], row),
  'x[:, columns] = row': ({ x, columns, row }) => x.setAt([all, columns], row),
  'x[rows, columns, last3] = 10': ({ x, rows, columns, last3 }) => x.setAt([rows, columns, last3], 10),
  'x[:, [0, 2]] = 11': ({ x }) => x.setAt([all, [0, 2]], 11),
  'x[grid, 1] = row': ({ x, grid, row }) => x.setAt([grid, 1], row),
  'x[0, 0, last] = row': ({ x, last, row }) => x.setAt([0, 0, last], row),
  'x[None] = 2': ({ x }) => x.setAt([null], 2),
  'x[..., None] = 3': ({ x }) => x.setAt(['...', null], 3),
  'x[True] = 12': ({ x }) => x.setAt([true], 12),
  'x[False] = 12': ({ x }) => x.setAt([false], 12),
  'x[:, 3:1] = 99': ({ x }) => x.setAt([all, slice(3, 1)], 99),
  'x[empty] = 99': ({ x, empty }) => x.setAt([empty], 99),
  'x[0] = True': ({ x }) => x.setAt([0], true),
  'x[0, 0] = nan': ({ x }) => x.setAt([0, 0], Number.NaN),
  'x[zero] = one': ({ x, zero, one }) => x.setAt([zero], one),
  'x[0, 0, 0] = one': ({ x, one }) => x.setAt([0, 0, 0], one),
  'x[:, :, :] = x.flip(0)': ({ x }) => x.setAt([all, all, all], x.flip(0)),
  'x[mask] = values': ({ x, mask, values }) => x.setAt([mask], values),
}

const python = await expressions('index')
const table = { ...reads, ...writes }

test('every case of Python has its twin', () => {
  expect(Object.keys(table)).toEqual(python.cases.map((item) => item.name))
})

describe('as Python', () => {
  test.each(python.cases)('$name', (item) => python.check(item, table, 0))
})

test('numbers and slices give views, masks and index tensors copies', () =>
  scope(() => {
    const x = zeros([3, 4])
    x.at(1, slice(1, 3)).fill_(5)
    x.at('...', null).at(0, 0, 0).fill_(6)
    x.at(tensor([2])).fill_(7)
    x.at(x.eq(0)).fill_(8)
    expect(x.toArray()).toEqual([
      [6, 0, 0, 0],
      [0, 5, 5, 0],
      [0, 0, 0, 0],
    ])
  }))

test('setAt returns the tensor and writes into what it is a view of', () =>
  scope(() => {
    const x = zeros([2, 2])
    const row = x.at(1)
    expect(row.setAt([0], 3)).toBe(row)
    expect(x.toArray()).toEqual([
      [0, 0],
      [3, 0],
    ])
  }))

test('values of other dtypes become the tensor’s', () =>
  scope(() => {
    const x = zeros([3], { dtype: 'int64' })
    x.setAt([0], 2n ** 53n + 1n)
    x.setAt([1], tensor(2.75))
    x.setAt([2], true)
    expect(x.toArray()).toEqual([2n ** 53n + 1n, 2, 1])
    const z = zeros([1], { dtype: 'complex64' }).setAt([0], { re: 1, im: 2 })
    expect(z.toArray()).toEqual([{ re: 1, im: 2 }])
  }))

test('gradients flow through at and setAt', async () => {
  await scope(async () => {
    const x = ones([2, 3], { requiresGrad: true })
    const value = ones([2], { requiresGrad: true })
    const y = x.mul(2).setAt([0, slice(1)], value.mul(3))
    await y.at(0).sum().backward()
    expect(x.grad!.toArray()).toEqual([
      [2, 0, 0],
      [0, 0, 0],
    ])
    expect(value.grad!.toArray()).toEqual([3, 3])
    expect(() => x.setAt([0], 1)).toThrow(expect.objectContaining({ name: 'GradientError' }))
  })
})

describe('indices that are wrong', () => {
  const x = zeros([2, 3])
  test.each<[string, Index[]]>([
    ['past the end', [2]],
    ['before the start', [-3]],
    ['past the end of the second dimension', [0, 3]],
    ['too many', [0, 0, 0]],
    ['too many slices', [slice(), slice(), slice()]],
    ['index tensor past the end', [tensor([0, 5])]],
    ['index array past the end', [[5]]],
    ['a float index tensor', [tensor([0.5])]],
    ['index tensors that do not broadcast', [tensor([0, 1]), tensor([0, 1, 2])]],
    ['a mask of another size', [tensor([true, false, true])]],
    [
      'a mask of another shape',
      [
        tensor([
          [true, false],
          [true, false],
        ]),
      ],
    ],
  ])('%s', (_, indices) => {
    expect(() => x.at(...indices)).toThrow(IndexError)
    expect(() => x.setAt(indices, 1)).toThrow(IndexError)
  })

  test.each<[string, unknown]>([
    ['a fraction', 0.5],
    ['NaN', Number.NaN],
    ['2^53', 2 ** 53],
    ['undefined', undefined],
    ['a string', 'a'],
    ['an object', {}],
    ['an array of fractions', [0.5]],
    ['a nested array', [[0]]],
    ['a function', () => 0],
  ])('%s', (_, index) => {
    const code = expect.stringMatching(/^ERR_(CONFIG|INDEX)$/)
    expect(() => x.at(index as Index)).toThrow(expect.objectContaining({ code }))
    expect(() => x.setAt([index as Index], 1)).toThrow(expect.objectContaining({ code }))
  })

  test('steps that are not positive', () => {
    expect(() => x.at(slice(null, null, -1))).toThrow(
      expect.objectContaining({ code: expect.stringMatching(/^ERR_(CONFIG|INDEX)$/) }),
    )
    expect(() => x.at(slice(null, null, 0))).toThrow(
      expect.objectContaining({ code: expect.stringMatching(/^ERR_(CONFIG|INDEX)$/) }),
    )
    expect(() => slice(0.5)).toThrow(expect.objectContaining({ name: 'ConfigError' }))
  })

  test('values that do not fit', () => {
    expect(() => x.setAt([0], zeros([2]))).toThrow(expect.objectContaining({ code: 'ERR_SHAPE' }))
    expect(() => x.setAt([0, 0], zeros([2]))).toThrow(expect.objectContaining({ code: 'ERR_SHAPE' }))
    expect(() => x.setAt([tensor([true, true])], zeros([3, 3]))).toThrow(
      expect.objectContaining({ code: expect.stringMatching(/^ERR_(SHAPE|INDEX)$/) }),
    )
    expect(() => x.setAt([0], 'a' as never)).toThrow(expect.objectContaining({ code: 'ERR_CONFIG' }))
    expect(() => x.setAt([0], { re: 1, im: 1 })).toThrow(
      expect.objectContaining({ code: expect.stringMatching(/^ERR_/) }),
    )
    expect(() => zeros([]).at(0)).toThrow(IndexError)
  })
})

test('leaves no temporaries', () => {
  const x = arange(12).reshape(3, 4)
  const mask = x.gt(5)
  const before = memoryStats().liveTensors
  const made = [x.at(0), x.at([0, 1]), x.at(mask), x.at('...', null, slice(1))]
  x.setAt([[0, 1]], 3)
  expect(() => x.at([0], [0, 1, 2], 99)).toThrow(IndexError)
  expect(memoryStats().liveTensors - before).toBe(made.length)
})
