import { describe, expect, test } from 'vitest'
import {
  AdamW,
  autograd,
  enableGrad,
  functional,
  GradientError,
  gradcheck,
  memoryStats,
  noGrad,
  ones,
  ops,
  randn,
  scope,
  slice,
  type Tensor,
  tensor,
  zeros,
} from '../../lib/index.js'
import type { BackwardOptions } from '../../lib/tensor/tensor.js'
import { expectClose, fixture, settledTensors } from '../helpers.js'
import { counts } from './counts.js'
import type { OperatorInputs } from './operator-table.js'

const all = slice()

const losses: Record<string, (inputs: OperatorInputs) => Tensor> = {
  'x.sum()': ({ x }) => x.sum(),
  '(x * y).sum()': ({ x, y }) => x.mul(y).sum(),
  '(x.exp() * y.sigmoid()).mean()': ({ x, y }) => x.exp().mul(y.sigmoid()).mean(),
  '(x @ m).relu().sum()': ({ x, m }) => x.matmul(m).relu().sum(),
  'x.softmax(1).pow(2).sum()': ({ x }) => x.softmax(1).pow(2).sum(),
  'F.cross_entropy(x @ m, t3)': ({ x, m, t3 }) => ops.crossEntropyLoss(x.matmul(m), t3),
  'x.max(1).values.sum()': ({ x }) => x.max(1).values.sum(),
  'x[:, 1:3].pow(3).sum()': ({ x }) => x.at(all, slice(1, 3)).pow(3).sum(),
  'x[t3, t3].sum()': ({ x, t3 }) => x.at(t3, t3).sum(),
  'torch.cat([x, y * 2]).tanh().sum()': ({ x, y }) =>
    ops
      .cat([x, y.mul(2)])
      .tanh()
      .sum(),
  'torch.where(mask, x, y).pow(2).sum()': ({ mask, x, y }) => ops.where(mask, x, y).pow(2).sum(),
  '(x.div(p) + p.log()).sum()': ({ x, p }) => x.div(p).add(p.log()).sum(),
  'x.t().reshape(2, 6).cumsum(1).sin().sum()': ({ x }) => x.t().reshape(2, 6).cumsum(1).sin().sum(),
  'F.conv2d(image, k2, padding=1).pow(2).mean()': ({ image, k2 }) =>
    ops.conv2d(image, k2, { padding: 1 }).pow(2).mean(),
  'F.max_pool2d(image, 2).sum() + F.avg_pool2d(image, 3).prod()': ({ image }) =>
    ops.maxPool2d(image, 2).sum().add(ops.avgPool2d(image, 3).prod()),
  'F.layer_norm(x, [4], v, v).pow(3).sum()': ({ x, v }) => ops.layerNorm(x, [4], v, v).pow(3).sum(),
  'torch.linalg.inv(spd).sum() + torch.linalg.slogdet(spd)[1]': ({ spd }) =>
    ops.linalgInv(spd).sum().add(ops.linalgSlogdet(spd).logabsdet),
  'x.expand(2, 3, 4).mul(cube).sum().square()': ({ x, cube }) => x.expand(2, 3, 4).mul(cube).sum().square(),
  'F.embedding(index, sq).pow(2).sum()': ({ index, sq }) => ops.embedding(sq, index).pow(2).sum(),
  'x.norm() + y.std() + p.var(0).sum()': ({ x, y, p }) => x.norm().add(y.std()).add(p.var(0).sum()),
  'x.sort(1).values.mul(v).sum() + x.topk(2, 1).values.sum()': ({ x, v }) =>
    x.sort(1).values.mul(v).sum().add(x.topk(2, 1).values.sum()),
  'F.scaled_dot_product_attention(cube, cube, cube).sin().sum()': ({ cube }) =>
    ops.scaledDotProductAttention(cube, cube, cube).sin().sum(),
  'torch.view_as_complex(x.view(3, 2, 2)).abs().sum()': ({ x }) =>
    ops
      .viewAsComplex(x.view(3, 2, 2))
      .abs()
      .sum(),
  'torch.fft.rfft(x).abs().pow(2).sum()': ({ x }) => ops.fftRfft(x).abs().pow(2).sum(),
  'x.clone().mul_(y).add_(x).sum()': ({ x, y }) => x.clone().mul_(y).add_(x).sum(),
  "torch.einsum('ij,jk,ik->', x, m, x @ m)": ({ x, m }) => ops.einsum('ij,jk,ik->', [x, m, x.matmul(m)]),
  'x.double().pow(2).sum()': ({ x }) => x.double().pow(2).sum(),
}

interface Case {
  name: string
  leaves: string[]
}
const python = await fixture<Case>('tensor/gradients')
const cases = python.cases.filter((item) => item.name !== 'inputs')

test('every case of Python has its twin', () => {
  expect(Object.keys(losses)).toEqual(cases.map((item) => item.name))
})

describe('gradients as Python', () => {
  test.each(cases)('$name', ({ name, leaves }) =>
    scope(async () => {
      const inputs = Object.fromEntries(
        Object.entries(python.tensors)
          .filter(([key]) => key.startsWith('inputs/in/'))
          .map(([key, value]) => [
            key.slice('inputs/in/'.length),
            value.isFloatingPoint() ? value.clone().requiresGrad_() : value,
          ]),
      ) as OperatorInputs
      const loss = losses[name]!(inputs)
      expectClose(loss, python.tensors[`${name}/out/loss`]!, 1e-6)
      await loss.backward()
      const got = Object.entries(inputs).filter(([, value]) => value.isFloatingPoint() && value.grad !== null)
      expect(got.map(([key]) => key).sort()).toEqual([...leaves].sort())
      for (const [key, value] of got) expectClose(value.grad!, python.tensors[`${name}/grad/${key}`]!, 2e-6, key)
    }),
  )
})

const leaf = (...values: number[]) => tensor(values, { requiresGrad: true })

describe('backward', () => {
  test('accumulates until the gradient is cleared', () =>
    scope(async () => {
      const x = leaf(1, 2)
      expect(x.grad).toBeNull()
      await x.mul(3).sum().backward()
      await x.mul(3).sum().backward()
      expect(x.grad!.toArray()).toEqual([6, 6])
      x.grad = null
      expect(x.grad).toBeNull()
      await x.sum().backward()
      expect(x.grad!.toArray()).toEqual([1, 1])
      x.grad!.zero_()
      expect(x.grad!.toArray()).toEqual([0, 0])
      x.grad = tensor([5, 7], { dtype: 'float32' })
      await x.sum().backward()
      expect(x.grad!.toArray()).toEqual([6, 8])
    }))

  test('with a gradient of its own', () =>
    scope(async () => {
      const x = leaf(1, 2)
      await x.mul(2).backward({ gradient: tensor([1, 10], { dtype: 'float32' }) })
      expect(x.grad!.toArray()).toEqual([2, 20])
      await expect(x.mul(2).backward()).rejects.toThrow(GradientError)
      const y = leaf(1, 2)
      await y.mul(3).backward(tensor([1, -2], { dtype: 'float32' }))
      expect(y.grad!.toArray()).toEqual([3, -6])
      await expect(x.mul(2).backward({ gradient: ones([3]) })).rejects.toThrow(
        expect.objectContaining({ code: expect.stringMatching(/^ERR_(SHAPE|GRADIENT)$/) }),
      )
    }))

  test('only into `inputs`', () =>
    scope(async () => {
      const [x, y] = [leaf(1), leaf(2)]
      await x
        .mul(y)
        .sum()
        .backward({ inputs: [y] })
      expect(x.grad).toBeNull()
      expect(y.grad!.toArray()).toEqual([1])
    }))

  test('of several tensors at once', () =>
    scope(async () => {
      const x = leaf(1, 2)
      await autograd.backward([x.sum(), x.mul(x)], { gradients: [null, ones([2])] })
      expect(x.grad!.toArray()).toEqual([3, 5])
    }))

  test('a second pass needs retainGraph', () =>
    scope(async () => {
      const x = leaf(3)
      const y = x.mul(x).sum()
      await y.backward({ retainGraph: true })
      await y.backward()
      expect(x.grad!.toArray()).toEqual([12])
      await expect(y.backward()).rejects.toThrow(
        expect.objectContaining({ name: 'GradientError', code: 'ERR_GRADIENT' }),
      )
    }))

  test('what recorded nothing', async () => {
    const error = expect.objectContaining({ name: 'GradientError' })
    await scope(async () => {
      await expect(ones([1]).backward()).rejects.toThrow(error)
      await expect(noGrad(() => leaf(1).mul(2)).backward()).rejects.toThrow(error)
      await expect(leaf(1).detach().sum().backward()).rejects.toThrow(error)
      await expect(leaf(1).gt(0).backward()).rejects.toThrow(error)
    })
  })

  test('arguments of the wrong kind reject, and do not throw', async () => {
    await scope(async () => {
      const y = leaf(1).mul(2)
      const wrong = (options: unknown) => y.backward(options as BackwardOptions)
      await expect(wrong({ gradient: 1 })).rejects.toThrow(expect.objectContaining({ code: 'ERR_CONFIG' }))
      await expect(wrong({ inputs: [null] })).rejects.toThrow(expect.objectContaining({ code: 'ERR_CONFIG' }))
      await expect(wrong({ inputs: 3 })).rejects.toThrow(expect.objectContaining({ code: 'ERR_CONFIG' }))
      await expect(wrong({ retainGraph: 'yes' })).rejects.toThrow(expect.objectContaining({ code: 'ERR_CONFIG' }))
    })
  })

  test('in-place change of what backward needs', () =>
    scope(async () => {
      const x = leaf(1, 2)
      const y = x.exp()
      const z = y.sum()
      y.mul_(2)
      await expect(z.add(y.sum()).backward()).rejects.toThrow(/modified by an inplace operation/)
      expect(() => x.add_(1)).toThrow(GradientError)
      noGrad(() => x.add_(1))
      expect(x.toArray()).toEqual([2, 3])
    }))

  test('gradFn, isLeaf, retainGrad', () =>
    scope(async () => {
      const x = leaf(2)
      const y = x.mul(x)
      expect([x.isLeaf, x.gradFn, y.isLeaf, y.gradFn, y.requiresGrad]).toEqual([
        true,
        null,
        false,
        'MulBackward0',
        true,
      ])
      expect(y.detach().requiresGrad).toBe(false)
      await y.retainGrad().mul(3).sum().backward()
      expect(y.grad!.toArray()).toEqual([3])
      expect(x.grad!.toArray()).toEqual([12])
      expect(() => {
        y.requiresGrad = false
      }).toThrow(GradientError)
      expect(() => tensor([1]).requiresGrad_()).toThrow(/floating point/)
      expect(() => ones([1]).retainGrad()).toThrow(GradientError)
    }))

  test('a gradient must fit its tensor', () =>
    scope(() => {
      const x = leaf(1, 2)
      const set = (gradient: unknown) => () => {
        x.grad = gradient as Tensor
      }
      expect(set(ones([3]))).toThrow(expect.objectContaining({ code: 'ERR_SHAPE' }))
      expect(set(ones([2], { dtype: 'float64' }))).toThrow(expect.objectContaining({ code: 'ERR_DTYPE' }))
      expect(set(ones([2], { device: 'meta' }))).toThrow(expect.objectContaining({ code: 'ERR_DEVICE' }))
      expect(set(3)).toThrow(expect.objectContaining({ code: 'ERR_CONFIG' }))
      expect(set(x)).toThrow(expect.objectContaining({ code: expect.stringMatching(/^ERR_/) }))
      expect(x.grad).toBeNull()
    }))

  test('a chain of 100,000 operators is freed without a deep stack', async () => {
    await scope(async () => {
      const x = leaf(1)
      const y = scope(() => {
        let value = x.mul(1)
        for (let i = 0; i < 100_000; i += 1) {
          const next = value.add(1)
          value.dispose()
          value = next
        }
        return value
      })
      await y.backward()
      expect(x.grad!.toArray()).toEqual([1])
    })
  })
})

describe('autograd.grad', () => {
  test('touches no grad', () =>
    scope(async () => {
      const [x, y] = [leaf(2), leaf(3)]
      const [dx, dy] = await autograd.grad(x.mul(y), [x, y])
      expect([dx!.toArray(), dy!.toArray()]).toEqual([[3], [2]])
      expect([x.grad, y.grad]).toEqual([null, null])
    }))

  test('of what takes no part', () =>
    scope(async () => {
      const [x, y] = [leaf(2), leaf(3)]
      await expect(autograd.grad(x.mul(2), [x, y])).rejects.toThrow(GradientError)
      const [dx, dy] = await autograd.grad(x.mul(2), [x, y], { allowUnused: true })
      expect(dx!.toArray()).toEqual([2])
      expect(dy).toBeNull()
      await expect(autograd.grad(x.mul(2), [zeros([1])])).rejects.toThrow(GradientError)
      await expect(autograd.grad(x.mul(2), [])).rejects.toThrow(
        expect.objectContaining({ code: expect.stringMatching(/^ERR_/) }),
      )
    }))

  test('several outputs, with gradients', () =>
    scope(async () => {
      const x = leaf(1, 2)
      const [dx] = await autograd.grad([x.mul(2), x.sum()], x, {
        gradOutputs: [tensor([1, 10], { dtype: 'float32' }), null],
      })
      expect(dx!.toArray()).toEqual([3, 21])
    }))

  test('of inner tensors', () =>
    scope(async () => {
      const x = leaf(3)
      const inner = x.mul(x)
      const [d] = await autograd.grad(inner.pow(2), inner)
      expect(d!.toArray()).toEqual([18])
    }))

  test('higher orders', () =>
    scope(async () => {
      const x = leaf(2)
      let y: Tensor = x.pow(4)
      const found: unknown[] = []
      for (let order = 1; order <= 4; order += 1) {
        const [d] = await autograd.grad(y, x, { createGraph: true })
        found.push(d!.item())
        y = d!
      }
      expect(found).toEqual([32, 48, 48, 24])
      // And through backward().
      await x.pow(3).backward({ createGraph: true })
      expect(x.grad!.requiresGrad).toBe(true)
      const [d2] = await autograd.grad(x.grad!, x)
      expect(d2!.item()).toBe(12)
      x.grad = null
    }))

  test('without createGraph there is no graph', () =>
    scope(async () => {
      const x = leaf(2)
      const [d] = await autograd.grad(x.pow(3), x)
      expect(d!.requiresGrad).toBe(false)
    }))
})

describe('gradcheck', () => {
  const x = () => randn([2, 3], { dtype: 'float64', requiresGrad: true })

  test('passes for right gradients', () =>
    scope(async () => {
      expect(await gradcheck((a, b) => a.mul(b).tanh(), [x(), x()])).toBe(true)
      expect(await gradcheck((a) => [a.exp(), a.sum()], [x()])).toBe(true)
    }))

  test('fails for wrong ones, naming the element', () =>
    scope(async () => {
      const wrong = (a: Tensor) => a.mul(a.detach()).sum()
      await expect(gradcheck(wrong, [x()])).rejects.toThrow(
        expect.objectContaining({ name: 'GradientError', input: 0, element: 0 }),
      )
    }))

  test('needs float64 and something to check', () =>
    scope(async () => {
      await expect(gradcheck((a) => a, [ones([1], { requiresGrad: true })])).rejects.toThrow(/float64/)
      await expect(gradcheck((a) => a, [ones([1])])).rejects.toThrow(expect.objectContaining({ code: 'ERR_CONFIG' }))
    }))

  test('changes and leaves nothing', async () => {
    const input = x()
    const values = input.toArray()
    const before = counts()
    await gradcheck((a) => a.sin(), [input])
    await expect(gradcheck((a) => a.mul(a.detach()), [input])).rejects.toThrow(GradientError)
    await expect(
      gradcheck(() => {
        throw new Error('mine')
      }, [input]),
    ).rejects.toThrow('mine')
    expect(counts()).toEqual(before)
    expect(input.toArray()).toEqual(values)
    expect(input.grad).toBeNull()
    input.dispose()
  })

  test('inside noGrad', () =>
    scope(async () => {
      const input = x()
      expect(await noGrad(() => gradcheck((a) => a.sin(), [input]))).toBe(true)
      expect(noGrad(() => enableGrad(() => input.mul(2).requiresGrad))).toBe(true)
    }))
})

test('passes leave nothing', async () => {
  const x = leaf(1, 2)
  const before = await settledTensors()
  await scope(async () => {
    await x.mul(2).sum().backward()
    await autograd.grad(x.mul(2).sum(), x)
    await expect(ones([1]).backward()).rejects.toThrow(/does not require grad/)
  })
  expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
  // The gradient has no handle until it is asked for.
  const gradient = x.grad!
  expect(memoryStats().liveTensors).toBe(before + 1)
  gradient.dispose()
  expect(x.grad!.toArray()).toEqual([2, 2])
})

describe('gradients have memory', () => {
  test.each(['sgn', 'sign', 'floor', 'round'] as const)('%s, whose gradient is zero', async (name) =>
    scope(async () => {
      const x = tensor([1.5, -2], { requiresGrad: true })
      const w = tensor([[1, 0.5]], { requiresGrad: true })
      await functional.layerNorm(functional.linear(x, w), [1])[name]().sum().backward()
      expect([x.grad!.toArray(), w.grad!.toArray()]).toEqual([[0, 0], [[0, 0]]])
      const optimizer = new AdamW([x, w], { weightDecay: 0 })
      await optimizer.step()
      expect(x.toArray()).toEqual([1.5, -2])
      const [again] = await autograd.grad(x[name]().sum(), x)
      expect(again!.add_(1).toArray()).toEqual([1, 1])
    }),
  )

  test('of conjugates are settled', async () =>
    scope(async () => {
      const z = ops.complex(tensor([1.5, 2]), tensor([0.5, -1])).requiresGrad_(true)
      const weights = ops.complex(tensor([1.5, -2]), tensor([3.5, 1]))
      // d Re(Σ w conj(z)) / dz, by PyTorch's convention: w itself, conjugated once for the product and once for z.
      await ops.real(z.conj().mul(weights)).sum().backward()
      expect(z.grad!.isConj()).toBe(false)
      expect(z.grad!.toArray()).toEqual([
        { re: 1.5, im: 3.5 },
        { re: -2, im: 1 },
      ])
    }))
})
