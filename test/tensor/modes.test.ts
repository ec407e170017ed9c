import { describe, expect, test } from 'vitest'
import {
  autocast,
  autograd,
  type DType,
  detectAnomaly,
  enableGrad,
  inferenceMode,
  isGradEnabled,
  noGrad,
  ones,
  ops,
  scope,
  type Tensor,
  tensor,
  withDevice,
  zeros,
} from '../../lib/index.js'
import { fixture } from '../helpers.js'
import type { OperatorInputs } from './operator-table.js'

const tick = () => new Promise((resolve) => setImmediate(resolve))
const leaf = () => ones([2], { requiresGrad: true })

describe('grad modes', () => {
  test('nest, and come back after errors', () =>
    scope(() => {
      const x = leaf()
      const recorded = () => x.mul(2).requiresGrad
      expect([recorded(), isGradEnabled()]).toEqual([true, true])
      noGrad(() => {
        expect([recorded(), isGradEnabled()]).toEqual([false, false])
        enableGrad(() => {
          expect(recorded()).toBe(true)
          noGrad(() => expect(recorded()).toBe(false))
          expect(recorded()).toBe(true)
        })
        expect(recorded()).toBe(false)
        expect(() =>
          enableGrad(() => {
            throw new Error('x')
          }),
        ).toThrow('x')
        expect(recorded()).toBe(false)
      })
      expect(recorded()).toBe(true)
    }))

  test('return what the function returns', async () => {
    expect(noGrad(() => 3)).toBe(3)
    expect(await enableGrad(async () => 4)).toBe(4)
    expect(inferenceMode(() => 'x')).toBe('x')
    await expect(noGrad(async () => Promise.reject(new Error('later')))).rejects.toThrow('later')
  })

  test('last across await, and only there', () =>
    scope(async () => {
      const x = leaf()
      const recorded = () => x.mul(2).requiresGrad
      const inside = noGrad(async () => {
        const seen = [recorded()]
        await tick()
        seen.push(recorded())
        await enableGrad(async () => {
          await tick()
          seen.push(recorded())
        })
        seen.push(recorded())
        return seen
      })
      expect(recorded()).toBe(true)
      await tick()
      expect(recorded()).toBe(true)
      expect(await inside).toEqual([false, false, true, false])
      expect(recorded()).toBe(true)
    }))

  test('inference tensors take no part in autograd, even later', () =>
    scope(async () => {
      const x = leaf()
      const y = inferenceMode(() => x.mul(2))
      expect(y.requiresGrad).toBe(false)
      expect(y.isInference()).toBe(true)
      expect(() => x.mul(y)).toThrow(expect.objectContaining({ name: 'GradientError' }))
      expect(() => y.add_(1)).toThrow(expect.objectContaining({ name: 'GradientError' }))
      inferenceMode(() => {
        expect(y.add_(1)).toBe(y)
        expect(enableGrad(() => x.mul(2).requiresGrad)).toBe(false)
      })
      expect(x.mul(y.clone()).requiresGrad).toBe(true)
      // Data that a user brings may be trained on, wherever it was read.
      expect(inferenceMode(() => tensor([1])).isInference()).toBe(false)
      expect(inferenceMode(() => zeros([1])).isInference()).toBe(true)
    }))

  test('are carried into queued jobs', () =>
    scope(async () => {
      const x = leaf()
      expect((await ops.async.mul(x, 2)).requiresGrad).toBe(true)
      expect((await noGrad(() => ops.async.mul(x, 2))).requiresGrad).toBe(false)
      const queued = noGrad(() => ops.async.mul(x, 2))
      const other = ops.async.mul(x, 2)
      expect([(await queued).requiresGrad, (await other).requiresGrad]).toEqual([false, true])
      expect((await inferenceMode(() => ops.async.mul(x, 2))).isInference()).toBe(true)
    }))

  test('requiresGrad may be set under noGrad, and backward run there', () =>
    scope(async () => {
      const x = leaf()
      const y = x.mul(x).sum()
      await noGrad(() => y.backward())
      expect(x.grad!.toArray()).toEqual([2, 2])
      expect(noGrad(() => ones([1], { requiresGrad: true })).requiresGrad).toBe(true)
    }))
})

describe('interleaved tasks keep their own', () => {
  test('grad mode, autocast, default device', () =>
    scope(async () => {
      const x = leaf()
      const a = ones([2, 2])
      const look = () => [x.mul(2).requiresGrad, a.matmul(a).dtype, zeros([1]).device]
      const outside = [true, 'float32', 'cpu']
      const tasks: [string, (fn: () => Promise<void>) => Promise<void>, unknown[]][] = [
        ['noGrad', (fn) => noGrad(fn), [false, 'float32', 'cpu']],
        ['bfloat16', (fn) => autocast({ dtype: 'bfloat16' }, fn), [true, 'bfloat16', 'cpu']],
        ['float16', (fn) => autocast({ dtype: 'float16' }, fn), [true, 'float16', 'cpu']],
        ['meta', (fn) => withDevice('meta', fn), [true, 'float32', 'meta']],
        ['inference', (fn) => inferenceMode(fn), [false, 'float32', 'cpu']],
        ['all', (fn) => withDevice('meta', () => noGrad(() => autocast({}, fn))), [false, 'bfloat16', 'meta']],
        ['none', (fn) => fn(), outside],
      ]
      const turns: string[] = []
      await Promise.all(
        tasks.map(([name, enter, expected]) =>
          enter(async () => {
            for (let turn = 0; turn < 5; turn += 1) {
              expect(look(), `${name}, turn ${turn}`).toEqual(expected)
              const queued = await ops.async.matmul(a, a)
              expect(queued.dtype, `${name}, queued`).toBe(expected[1])
              turns.push(name)
              await tick()
            }
          }),
        ),
      )
      expect(new Set(turns.slice(0, tasks.length)).size).toBe(tasks.length)
      expect(look()).toEqual(outside)
    }))

  test('a callback that is kept runs in the context of whoever made it', () =>
    scope(async () => {
      const x = leaf()
      const seen: boolean[] = []
      await new Promise<void>((resolve) => {
        noGrad(() =>
          setTimeout(() => {
            seen.push(x.mul(1).requiresGrad)
            resolve()
          }, 1),
        )
      })
      expect(seen).toEqual([false])
    }))

  test('hooks and custom functions run outside autocast and default device', () =>
    scope(async () => {
      const a = ones([2, 2], { requiresGrad: true })
      const seen: string[] = []
      a.registerHook((gradient) => {
        seen.push(gradient.matmul(gradient).dtype, zeros([1]).device)
      })
      await autocast({}, () => withDevice('meta', () => a.mul(a).sum().backward()))
      expect(seen).toEqual(['float32', 'cpu'])
    }))
})

const casts: Record<string, (inputs: OperatorInputs) => Tensor> = {
  'x @ m': ({ x, m }) => x.matmul(m),
  'torch.mm(x, m)': ({ x, m }) => x.mm(m),
  'torch.addmm(bias5, x, m)': ({ bias5, x, m }) => ops.addmm(bias5, x, m),
  'cube.bmm(cube.transpose(1, 2))': ({ cube }) => cube.bmm(cube.transpose(1, 2)),
  'F.linear(x, m.t(), bias5)': ({ x, m, bias5 }) => ops.linear(x, m.t(), bias5),
  'F.conv1d(sequence, k1)': ({ sequence, k1 }) => ops.conv1d(sequence, k1),
  'F.conv2d(image, k2)': ({ image, k2 }) => ops.conv2d(image, k2),
  "torch.einsum('ij,jk->ik', x, m)": ({ x, m }) => ops.einsum('ij,jk->ik', [x, m]),
  'F.scaled_dot_product_attention(cube, cube, cube)': ({ cube }) => ops.scaledDotProductAttention(cube, cube, cube),
  'x + y': ({ x, y }) => x.add(y),
  '(x @ m) + bias5': ({ x, m, bias5 }) => x.matmul(m).add(bias5),
  '(x @ m) * (x @ m)': ({ x, m }) => x.matmul(m).mul(x.matmul(m)),
  'x.exp()': ({ x }) => x.exp(),
  '(x @ m).exp()': ({ x, m }) => x.matmul(m).exp(),
  '(x @ m).softmax(-1)': ({ x, m }) => x.matmul(m).softmax(-1),
  '(x @ m).log_softmax(-1)': ({ x, m }) => x.matmul(m).logSoftmax(-1),
  '(x @ m).sum()': ({ x, m }) => x.matmul(m).sum(),
  '(x @ m).cumsum(0)': ({ x, m }) => x.matmul(m).cumsum(0),
  '(x @ m).norm()': ({ x, m }) => x.matmul(m).norm(),
  '(x @ m).relu()': ({ x, m }) => x.matmul(m).relu(),
  'F.gelu(x @ m)': ({ x, m }) => ops.gelu(x.matmul(m)),
  'F.layer_norm(x @ m, [5])': ({ x, m }) => ops.layerNorm(x.matmul(m), [5]),
  'F.layer_norm(x, [4])': ({ x }) => ops.layerNorm(x, [4]),
  'F.mse_loss(x @ m, x @ m)': ({ x, m }) => ops.mseLoss(x.matmul(m), x.matmul(m)),
  'F.cross_entropy(x @ m, t3)': ({ x, m, t3 }) => ops.crossEntropyLoss(x.matmul(m), t3),
  'F.binary_cross_entropy_with_logits(x @ m, x @ m)': ({ x, m }) =>
    ops.binaryCrossEntropyWithLogits(x.matmul(m), x.matmul(m)),
  'torch.cat([x @ m, bias5[None]])': ({ x, m, bias5 }) => ops.cat([x.matmul(m), bias5.at(null)]),
  'torch.stack([x, y])': ({ x, y }) => ops.stack([x, y]),
  '(x @ m).pow(2)': ({ x, m }) => x.matmul(m).pow(2),
  '(x @ m).mean()': ({ x, m }) => x.matmul(m).mean(),
  'F.avg_pool2d(image, 2)': ({ image }) => ops.avgPool2d(image, 2),
  'F.avg_pool3d(image[None], 2)': ({ image }) => ops.avgPool3d(image.at(null), 2),
  'F.embedding(index, sq)': ({ index, sq }) => ops.embedding(sq, index),
  'torch.linalg.inv(spd)': ({ spd }) => ops.linalgInv(spd),
  'torch.fft.fft(v)': ({ v }) => ops.fftFft(v),
  'x.double() @ m.double()': ({ x, m }) => x.double().matmul(m.double()),
  'i @ j.t()': ({ i, j }) => i.matmul(j.t()),
}

describe('autocast', async () => {
  interface Case {
    name: string
    dtypes: Record<string, DType>
  }
  const { cases } = await fixture<Case>('tensor/dtypes')
  const { tensors } = await fixture('tensor/operators')
  const inputs = Object.fromEntries(
    Object.entries(tensors)
      .filter(([key]) => key.startsWith('inputs/in/'))
      .map(([key, value]) => [key.slice('inputs/in/'.length), value]),
  ) as OperatorInputs

  for (const { name, dtypes } of cases.filter((item) => item.name.startsWith('autocast '))) {
    test.each(Object.keys(dtypes))(`${name}: %s`, (text) =>
      scope(() => {
        const dtype = name.split(' ')[1] as 'bfloat16'
        expect(autocast({ dtype }, () => casts[text]!(inputs)).dtype).toBe(dtypes[text])
      }),
    )
  }

  test('nests, switches off, and takes only what it knows', () =>
    scope(() => {
      const a = ones([2, 2])
      const dtype = () => a.matmul(a).dtype
      autocast({ dtype: 'bfloat16' }, () => {
        autocast({ dtype: 'float16' }, () => expect(dtype()).toBe('float16'))
        expect(dtype()).toBe('bfloat16')
        autocast({ enabled: false }, () => expect(dtype()).toBe('float32'))
        expect(autocast({ device: 'cuda', dtype: 'float16' }, dtype)).toBe('bfloat16')
      })
      expect(dtype()).toBe('float32')
      expect(() => autocast({ device: 'tpu' as 'cpu' }, dtype)).toThrow(expect.objectContaining({ code: 'ERR_CONFIG' }))
      expect(() => autocast({ dtype: 'int8' as 'bfloat16' }, dtype)).toThrow(
        expect.objectContaining({ code: expect.stringMatching(/^ERR_(CONFIG|DTYPE)$/) }),
      )
      expect(() => autocast({ dtype: 'half' as 'bfloat16' }, dtype)).toThrow(
        expect.objectContaining({ code: 'ERR_CONFIG' }),
      )
    }))

  test('a weight that changes between two steps is cast anew', () =>
    scope(async () => {
      const weight = ones([2, 2], { requiresGrad: true })
      const x = ones([1, 2])
      const step = () => autocast({}, () => x.matmul(weight).sum().item())
      expect(step()).toBe(4)
      noGrad(() => weight.add_(1))
      expect(step()).toBe(8)
    }))

  test('a weight freed and another in its place', () =>
    scope(() => {
      autocast({}, () => {
        for (let i = 1; i <= 20; i += 1) {
          scope(() => {
            const weight = ones([2, 2]).mul(i).requiresGrad_()
            expect(ones([1, 2]).matmul(weight).sum().item()).toBe(4 * i)
          })
        }
      })
    }))

  test('gradients have the leaves’ dtype', () =>
    scope(async () => {
      const weight = ones([2, 2], { requiresGrad: true })
      const loss = autocast({}, () => ones([1, 2]).matmul(weight).float().sum())
      await loss.backward()
      expect(weight.grad!.dtype).toBe('float32')
      expect(weight.grad!.toArray()).toEqual([
        [1, 1],
        [1, 1],
      ])
    }))
})

describe('default device', () => {
  test('nests and comes back', () => {
    scope(() => {
      const made = () => zeros([1]).device
      withDevice('meta', () => {
        expect(made()).toBe('meta')
        expect(withDevice('cpu', made)).toBe('cpu')
        expect(made()).toBe('meta')
        expect(() =>
          withDevice('cpu', () => {
            throw new Error('x')
          }),
        ).toThrow('x')
        expect(made()).toBe('meta')
      })
      expect(made()).toBe('cpu')
    })
  })

  test('that is none', () => {
    expect(() => withDevice('gpu' as 'cpu', () => 0)).toThrow(
      expect.objectContaining({ code: expect.stringMatching(/^ERR_(CONFIG|DEVICE)$/) }),
    )
    expect(() => withDevice('cuda', () => zeros([1]))).toThrow(
      expect.objectContaining({ name: 'DeviceError', message: expect.stringMatching(/CPU variant|CPU build|NVIDIA/) }),
    )
  })
})

describe('detectAnomaly', () => {
  test('names the function that gave NaN', async () => {
    await scope(async () => {
      const x = tensor([-1, 4], { requiresGrad: true })
      const failing = detectAnomaly(() => x.sqrt().sum().backward())
      await expect(failing).rejects.toThrow(
        expect.objectContaining({ name: 'GradientError', message: expect.stringMatching(/SqrtBackward0.*nan/i) }),
      )
      // Off again.
      x.grad = null
      await x.sqrt().sum().backward()
      expect((x.grad as unknown as Tensor).toArray()).toEqual([Number.NaN, 0.25])
    })
  })

  test('lets sound passes through, returns results, ends after errors', async () => {
    await scope(async () => {
      const x = tensor([4], { requiresGrad: true })
      const gradient = await detectAnomaly(async () => (await autograd.grad(x.sqrt(), x))[0]!.item())
      expect(gradient).toBe(0.25)
      await expect(detectAnomaly(() => Promise.reject(new Error('mine')))).rejects.toThrow('mine')
      const bad = tensor([-1], { requiresGrad: true })
      await bad.sqrt().sum().backward()
      expect(bad.grad!.item()).toBeNaN()
    })
  })
})
