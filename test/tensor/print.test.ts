import { inspect } from 'node:util'
import { afterAll, describe, expect, test } from 'vitest'
import { type DType, memoryStats, noGrad, ones, ops, scope, type Tensor, tensor, zeros } from '../../lib/index.js'
import { fixture } from '../helpers.js'

interface Case {
  name: string
  dtype: DType
  text: string
  requiresGrad?: boolean
}

const { cases, tensors } = await fixture<Case>('tensor/print')

/** The fixture holds complex numbers as pairs, bfloat16 as int16 of the same bits, long whole numbers as int16. */
function restored({ name, dtype }: Case): Tensor {
  const stored = tensors[`${name}/in/x`]!
  if (dtype.startsWith('complex')) return ops.viewAsComplex(stored)
  return dtype === 'bfloat16' ? stored.view(dtype) : stored.to(dtype)
}

describe('prints what PyTorch prints', () => {
  test.each(cases)('$name', (item) =>
    scope(() => {
      const value = item.requiresGrad ? restored(item).detach().requiresGrad_() : restored(item)
      expect(String(value)).toBe(item.text)
      expect(inspect(value)).toBe(item.text)
    }),
  )
  afterAll(() => {
    for (const value of Object.values(tensors)) value.dispose()
  })
})

test('strides, conjugation and views do not change the text', () =>
  scope(() => {
    const x = tensor([
      [1, 2],
      [3, 4],
    ])
    expect(String(x.t())).toBe('tensor([[1, 3],\n        [2, 4]])')
    expect(String(tensor([{ re: 1, im: 2 }]).conj())).toBe('tensor([1.-2.j])')
    expect(String(x.at(1))).toBe('tensor([3, 4])')
  }))

test('names the function that made it', () =>
  scope(() => {
    const x = ones([2], { requiresGrad: true })
    expect(String(x.mul(x))).toBe('tensor([1., 1.], grad_fn=<MulBackward0>)')
    expect(String(noGrad(() => x.mul(x)))).toBe('tensor([1., 1.])')
  }))

test('a tensor without values', () =>
  scope(() => {
    expect(String(zeros([2, 3], { device: 'meta' }))).toBe("tensor(..., device='meta', size=(2, 3))")
    expect(String(zeros([4], { device: 'meta', dtype: 'int64' }))).toBe(
      "tensor(..., device='meta', size=(4,), dtype=torch.int64)",
    )
    expect(String(zeros([], { device: 'meta' }))).toBe("tensor(..., device='meta', size=())")
  }))

test('printing a disposed tensor in a debugger does not throw, String does', () => {
  const x = ones([1])
  x.dispose()
  expect(inspect(x)).toBe('Tensor(disposed)')
  expect(() => String(x)).toThrow(expect.objectContaining({ name: 'DisposedError' }))
})

test('a sparse tensor can be looked at', () =>
  scope(() => {
    expect(inspect(ones([2, 2]).toSparse())).toMatch(/^tensor\(/)
  }))

test('leaves no temporaries', () => {
  const values = [
    ones([2000]),
    tensor([{ re: 1, im: 2 }]),
    ones([3], { dtype: 'bfloat16' }),
    ones([2], { requiresGrad: true }),
  ]
  const before = memoryStats().liveTensors
  for (const value of values) String(value)
  expect(memoryStats().liveTensors).toBe(before)
})
