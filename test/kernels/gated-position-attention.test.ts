import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { describe, expect, test } from 'vitest'
import {
  arange,
  autocast,
  autograd,
  cat,
  DeviceError,
  type DType,
  DTypeError,
  eye,
  full,
  getNumThreads,
  gradcheck,
  inferenceMode,
  manualSeed,
  memoryStats,
  randn,
  ShapeError,
  scope,
  setNumThreads,
  slice,
  type Tensor,
  tensor,
  VoxtorchError,
  zeros,
} from '../../lib/index.js'
import { op, opAsync } from '../../lib/native/call.js'
import { expectClose, fixture, here, numbers, tensorsOf } from '../helpers.js'

interface Options {
  keyMask?: Tensor | null
  dropout?: number
  seed?: number
  scale?: number | null
  freeKeys?: number
}
type Inputs = [query: Tensor, key: Tensor, value: Tensor, gate: Tensor, relative: Tensor]
const direct = op('voxtorch::gated_position_attention')
const queued = opAsync('voxtorch::gated_position_attention')
const attention = (
  inputs: readonly Tensor[],
  { keyMask = null, dropout = 0, seed = 0, scale = null, freeKeys = 0 }: Options = {},
) => direct(...inputs, keyMask, dropout, seed, scale, freeKeys) as Tensor

const NAMES = ['query', 'key', 'value', 'gate', 'relative'] as const

function drawn(batch: number, heads: number, time: number, dim: number, dtype: DType = 'float64'): Inputs {
  const make = (...shape: number[]) => {
    const leaf = randn(shape).to({ dtype }).detach()
    leaf.requiresGrad = true
    return leaf
  }
  const qkv = [1, 2, 3].map(() => make(batch, heads, time, dim)) as [Tensor, Tensor, Tensor]
  return [...qkv, make(batch, heads, time), make(heads, 2 * time - 1)]
}

const mask = (...rows: number[][]) => tensor(rows).to({ dtype: 'bool' })

/** The bias of every pair, as plain operators make it: [heads, time, time]. */
const biasOf = (relative: Tensor, time: number) => relative.unfold(1, time, 1).flip([1])

/** The same in plain operators, for keys that are all attended to. */
function composed([query, key, value, gate, relative]: readonly Tensor[], freeKeys = 0): Tensor {
  const time = query!.size(2)
  const products = query!.matmul(key!.transpose(2, 3)).mul(query!.size(3) ** -0.5)
  const free = arange(time, { device: query!.device }).lt(freeKeys)
  const bias = gate!.unsqueeze(-1).mul(biasOf(relative!, time)).maskedFill(free, 0)
  return products.add(bias).softmax(-1).matmul(value!)
}

interface Case {
  name: string
  dtype: DType
  dropout: number
  seed: string
  scale: number | null
}
const TOLERANCE: Partial<Record<DType, number>> = { float32: 1e-5, bfloat16: 1e-2, float16: 2e-3 }

// Every way a [batch, heads, time, dim] tensor may lie in memory.
const LAYOUTS: Record<string, (tensor: Tensor) => Tensor> = {
  contiguous: (tensor) => tensor,
  'heads beside each other': (tensor) => tensor.transpose(1, 2).contiguous().transpose(1, 2),
  transposed: (tensor) => tensor.transpose(2, 3).contiguous().transpose(2, 3),
}

describe('as PyTorch operators compute it', async () => {
  const file = await fixture<Case>('kernels/gated-position-attention')
  const cases = file.cases.flatMap((entry) => Object.keys(LAYOUTS).map((layout) => ({ ...entry, layout })))

  test.each(cases)('$name, $layout', ({ name, dtype, dropout, seed, scale, layout }) =>
    scope(async () => {
      const lay = (tensor: Tensor) => (tensor.dim() === 4 ? LAYOUTS[layout]!(tensor) : tensor)
      const given = tensorsOf(file, name, 'in')
      const leaves = NAMES.map((key) => {
        const leaf = lay(given[key]!.to({ dtype })).detach()
        leaf.requiresGrad = true
        return leaf
      })
      const output = attention(leaves, { keyMask: given.keyMask ?? null, dropout, seed: Number(seed), scale })
      expectClose(output.float(), tensorsOf(file, name, 'out').output!, TOLERANCE[dtype]!, 'output')
      expect(output.dtype).toBe(dtype)
      const cotangent = lay(tensorsOf(file, name, 'cotangent').output!.to({ dtype }))
      const gradients = await autograd.grad([output], leaves, { gradOutputs: [cotangent] })
      const expected = tensorsOf(file, name, 'grad')
      NAMES.forEach((key, i) => {
        expect(gradients[i]!.dtype).toBe(dtype)
        expectClose(gradients[i]!.float(), expected[key]!, TOLERANCE[dtype]!, `gradient of ${key}`)
      })
    }),
  )
})

describe('keys without a bias', () => {
  test.each(['float64', 'float32', 'bfloat16', 'float16'] as const)('%s, forward and gradients', (dtype) =>
    scope(async () => {
      for (const [time, freeKeys] of [
        [9, 1],
        [70, 1],
        [70, 17],
        [5, 9],
      ] as const) {
        const inputs = drawn(2, 3, time, 8, dtype)
        const output = attention(inputs, { freeKeys })
        const exact = inputs.map((one) => {
          const leaf = one.detach().double()
          leaf.requiresGrad = true
          return leaf
        })
        const wanted = composed(exact, freeKeys)
        const tolerance = dtype === 'float64' ? 1e-12 : (TOLERANCE[dtype] as number)
        expectClose(output.double(), wanted, tolerance, `output of ${time}`)
        const cotangent = randn(output.shape)
        const found = await autograd.grad([output], inputs, { gradOutputs: [cotangent.to({ dtype })] })
        const right = await autograd.grad([wanted], exact, { gradOutputs: [cotangent.to({ dtype }).double()] })
        // The biases' gradients are sums of terms of both signs over all queries.
        found.forEach((one, i) => {
          expectClose(one!.double(), right[i]!, (i < 3 ? 2 : 8) * tolerance, `${NAMES[i]} of ${time}`)
        })
      }
    }),
  )

  test('masked ones, finite differences, second order, and a number that is none', () =>
    scope(async () => {
      const inputs = drawn(1, 2, 5, 2)
      const keyMask = mask([0, 1, 1, 0, 1])
      expect(await gradcheck((...leaves) => attention(leaves, { keyMask, freeKeys: 2 }), inputs)).toBe(true)
      const second = async (output: Tensor) => {
        const first = await autograd.grad([output.pow(3).sum()], inputs, { createGraph: true })
        const squares = first.map((gradient) => gradient!.pow(2).sum()).reduce((sum, term) => sum.add(term))
        return autograd.grad([squares], inputs)
      }
      const actual = await second(attention(inputs, { freeKeys: 1 }))
      const expected = await second(composed(inputs, 1))
      actual.forEach((gradient, i) => {
        expectClose(gradient!, expected[i]!, 1e-9, NAMES[i])
      })
      expect(() => attention(inputs, { freeKeys: -1 })).toThrow(/free_keys/)
    }))
})

describe('gradients', () => {
  test('float64 against finite differences', () =>
    scope(async () => {
      expect(await gradcheck((...inputs) => attention(inputs), drawn(2, 2, 5, 3))).toBe(true)
      const keyMask = mask([1, 0, 1, 1, 0], [0, 0, 0, 0, 0])
      expect(await gradcheck((...inputs) => attention(inputs, { keyMask, scale: 0.3 }), drawn(2, 1, 5, 2))).toBe(true)
    }))

  test('with dropout the backward draws what the forward drew', () =>
    scope(async () => {
      const dropped = (...inputs: Tensor[]) => attention(inputs, { dropout: 0.4, seed: 12 })
      expect(await gradcheck(dropped, drawn(1, 2, 6, 2))).toBe(true)
    }))

  test('second order equals that of plain operators, dropout included', () =>
    scope(async () => {
      const inputs = drawn(2, 2, 6, 3)
      const second = async (output: Tensor) => {
        const first = await autograd.grad([output.pow(3).sum()], inputs, { createGraph: true })
        const squares = first.map((gradient) => gradient!.pow(2).sum()).reduce((sum, term) => sum.add(term))
        return autograd.grad([squares], inputs)
      }
      const actual = await second(attention(inputs))
      const expected = await second(composed(inputs))
      actual.forEach((gradient, i) => {
        expectClose(gradient!, expected[i]!, 1e-9, NAMES[i])
      })

      // With dropout: the first gradient of the formula in plain operators is that of the kernel.
      const options = { dropout: 0.3, seed: 5, keyMask: mask([1, 1, 0, 1, 1, 0], [0, 0, 0, 0, 0, 0]) }
      const loss = () => attention(inputs, options).pow(2).sum()
      const plain = await autograd.grad([loss()], inputs)
      const again = await autograd.grad([loss()], inputs, { createGraph: true })
      again.forEach((gradient, i) => {
        expectClose(gradient!, plain[i]!, 1e-12, NAMES[i])
      })
    }))

  test('only the bias, or none', () =>
    scope(async () => {
      const inputs = drawn(1, 2, 4, 3)
      const fixed = inputs.map((input) => input.detach())
      const [gradient] = await autograd.grad([attention([...fixed.slice(0, 4), inputs[4]]).sum()], [inputs[4]])
      const [expected] = await autograd.grad([composed([...fixed.slice(0, 4), inputs[4]]).sum()], [inputs[4]])
      expectClose(gradient!, expected!, 1e-9)
      expect(attention(fixed).requiresGrad).toBe(false)
      expectClose(
        inferenceMode(() => attention(fixed)),
        composed(fixed),
        1e-12,
      )
    }))

  test('a row that attends to nothing gives zeros and no gradient, whatever its inputs hold', () =>
    scope(async () => {
      const inputs = drawn(2, 1, 3, 2, 'float32')
      const [query, key, value, gate, relative] = inputs
      const bad = full([1, 1, 3, 2], Number.NaN)
      const spoilt = [query, key.detach(), value.detach()].map((input, i) =>
        i === 0 ? input : cat([input.at(slice(0, 1)), bad]),
      )
      const output = attention([...spoilt, gate, relative], { keyMask: mask([1, 1, 1], [0, 0, 0]) })
      expect(numbers(output.at(1))).toEqual([0, 0, 0, 0, 0, 0])
      const gradients = await autograd.grad([output.sum()], [query, gate, relative])
      for (const gradient of gradients) expect(numbers(gradient!).every((value) => Number.isFinite(value))).toBe(true)
      expect(numbers(gradients[0]!.at(1))).toEqual([0, 0, 0, 0, 0, 0])
    }))

  test('whatever masked keys and values hold, also where gradients are differentiated again', () =>
    scope(async () => {
      const [query, key, value, gate, relative] = drawn(1, 2, 3, 2)
      const bad = full([1, 2, 1, 2], Number.NaN).to({ dtype: 'float64' })
      const spoilt = [key, value].map((input) => cat([input.detach().at(slice(), slice(), slice(0, 2)), bad], 2))
      const leaves = [query, ...spoilt, gate, relative]
      for (const leaf of leaves) leaf.requiresGrad = true
      const loss = () =>
        attention(leaves, { keyMask: mask([1, 1, 0]) })
          .pow(2)
          .sum()
      const plain = await autograd.grad([loss()], leaves)
      const again = await autograd.grad([loss()], leaves, { createGraph: true })
      plain.forEach((gradient, i) => {
        expect(numbers(gradient!).every(Number.isFinite), NAMES[i]).toBe(true)
        expectClose(again[i]!, gradient!, 1e-12, NAMES[i])
      })
    }))
})

test('heads wider than what CUDA has a kernel for, there composed of other operators', () =>
  scope(async () => {
    const inputs = drawn(2, 2, 5, 130)
    const [output, expected] = [attention(inputs), composed(inputs)]
    expectClose(output, expected, 1e-12)
    const gradients = await autograd.grad([output.pow(2).sum()], inputs)
    const wanted = await autograd.grad([expected.pow(2).sum()], inputs)
    gradients.forEach((gradient, i) => {
      expectClose(gradient!, wanted[i]!, 1e-12, NAMES[i])
    })
    const nothing = attention(inputs, { keyMask: mask([1, 1, 1, 1, 0], [0, 0, 0, 0, 0]) })
    expect(numbers(nothing.at(1)).every((value) => value === 0)).toBe(true)
  }))

test('scores hundreds apart, as after long training, lose nothing', () =>
  scope(async () => {
    const [query, ...rest] = drawn(1, 2, 40, 8, 'float32')
    const steep = query.detach().mul(60)
    steep.requiresGrad = true
    const inputs = [steep, ...rest]
    const exact = inputs.map((input) => input.detach().double())
    for (const leaf of exact) leaf.requiresGrad = true
    const [output, expected] = [attention(inputs), composed(exact)]
    expectClose(output.double(), expected, 2e-5)
    const gradients = await autograd.grad([output.pow(2).sum()], inputs)
    const wanted = await autograd.grad([expected.pow(2).sum()], exact)
    gradients.forEach((gradient, i) => {
      expectClose(gradient!.double(), wanted[i]!, 2e-4, NAMES[i])
    })
  }))

describe('dropout', () => {
  const [batch, heads, time] = [2, 3, 200]
  // With scores of zero and the identity for values, the output is the dropped probabilities themselves.
  const drawnProbabilities = (dropout: number, seed: number, dtype: DType = 'float32') => {
    const none = zeros([batch, heads, time, time], { dtype })
    const value = eye(time, { dtype }).expand([batch, heads, time, time])
    const bias = [zeros([batch, heads, time], { dtype }), zeros([heads, 2 * time - 1], { dtype })]
    return attention([none, none, value, ...bias], { dropout, seed }).mul(time)
  }

  test('keeps the right share, everywhere, and scales it', () =>
    scope(() => {
      const drawn = drawnProbabilities(0.3, 1)
      expect(Number(drawn.max().item())).toBeCloseTo(1 / 0.7, 5)
      const kept = drawn.gt(0).double()
      // Five standard deviations of a mean of so many draws.
      const close = (part: Tensor, draws: number) => {
        const off = part.sub(0.7).abs().max().item()
        expect(Number(off)).toBeLessThan(5 * Math.sqrt((0.3 * 0.7) / draws))
      }
      close(kept.mean(), batch * heads * time * time)
      close(kept.mean([2, 3]), time * time)
      close(kept.mean([0, 1, 2]), batch * heads * time)
      close(kept.mean([0, 1, 3]), batch * heads * time)
      // Neighbours in time, in heads and in the batch are drawn apart.
      for (const dim of [0, 1, 2, 3]) {
        const size = kept.size(dim)
        const both = kept.narrow(dim, 0, size - 1).mul(kept.narrow(dim, 1, size - 1))
        expect(Math.abs(Number(both.mean().item()) - 0.49)).toBeLessThan(0.005)
      }
    }))

  test('the seed decides, whatever the dtype', () =>
    scope(() => {
      const kept = (seed: number, dtype?: DType) => drawnProbabilities(0.5, seed, dtype).gt(0)
      expect(kept(3).equal(kept(3))).toBe(true)
      expect(kept(3).equal(kept(3, 'float64'))).toBe(true)
      expect(kept(3).equal(kept(3, 'bfloat16'))).toBe(true)
      for (const other of [4, 3 + 2 ** 40, -3]) {
        const same = Number(kept(3).eq(kept(other)).double().mean().item())
        expect(Math.abs(same - 0.5)).toBeLessThan(0.01)
      }
    }))

  test('all or none', () =>
    scope(() => {
      expect(Number(drawnProbabilities(1, 1).abs().sum().item())).toBe(0)
      expect(drawnProbabilities(0, 1).equal(drawnProbabilities(0, 2))).toBe(true)
    }))
})

test('any number of threads gives the same bits', async () => {
  const threads = getNumThreads()
  try {
    for (const [batch, heads, time] of [
      [3, 2, 130],
      [1, 1, 300],
    ] as const) {
      await scope(async () => {
        manualSeed(4)
        const inputs = drawn(batch, heads, time, 16, 'float32')
        const cotangent = randn([batch, heads, time, 16])
        const run = async (count: number) => {
          setNumThreads(count)
          const output: Tensor = await queued(...inputs, null, 0.1, 9)
          return [output, ...(await autograd.grad([output], inputs, { gradOutputs: [cotangent] }))]
        }
        const [one, three] = [await run(1), await run(3)]
        one.forEach((result, i) => {
          expect(result!.equal(three[i]!), ['output', ...NAMES][i]).toBe(true)
        })
      })
    }
  } finally {
    setNumThreads(threads)
  }
})

test('autocast lowers the products and leaves a float32 bias alone', () =>
  scope(() =>
    autocast({ device: here(), dtype: 'bfloat16' }, async () => {
      const inputs = drawn(1, 2, 6, 8, 'float32')
      const output = attention(inputs)
      expect(output.dtype).toBe('bfloat16')
      const lowered = inputs.slice(0, 3).map((input) => input.to({ dtype: 'bfloat16' }))
      expect(output.equal(attention([...lowered, inputs[3], inputs[4]]))).toBe(true)
      const gradients = await autograd.grad([output.float().sum()], inputs)
      expect(gradients.map((gradient) => gradient!.dtype)).toEqual(NAMES.map(() => 'float32'))
    }),
  ))

describe('shapes', () => {
  test('meta tensors infer shape, dtype and layout', () =>
    scope(() => {
      const make = (...shape: number[]) => zeros(shape, { device: 'meta', dtype: 'float16' })
      const inputs = [make(2, 3, 7, 4), make(2, 3, 7, 4), make(2, 3, 7, 4), make(2, 3, 7), make(3, 13)]
      const output = attention(inputs)
      expect([output.shape, output.dtype, output.device]).toEqual([[2, 3, 7, 4], 'float16', 'meta'])
      // The heads of a frame lie side by side, so that joining them is a view.
      expect(output.transpose(1, 2).isContiguous()).toBe(true)
      expect(
        attention(drawn(2, 3, 7, 4))
          .transpose(1, 2)
          .isContiguous(),
      ).toBe(true)
    }))

  test('empty batches', () =>
    scope(async () => {
      const inputs = drawn(0, 2, 3, 4)
      const output = attention(inputs)
      expect(output.shape).toEqual([0, 2, 3, 4])
      const gradients = await autograd.grad([output.sum()], inputs)
      expect(gradients.map((gradient) => gradient!.shape)).toEqual(inputs.map((input) => input.shape))
      expect(Number(gradients[4]!.abs().sum().item())).toBe(0)
    }))

  test('frees what it makes', () => {
    const before = memoryStats().liveTensors
    scope(() => {
      attention(drawn(1, 2, 3, 4))
    })
    expect(memoryStats().liveTensors).toBe(before)
  })
})

const bad: [string, new (...args: never[]) => VoxtorchError, RegExp, (inputs: Inputs) => unknown][] = [
  [
    'a query of three dimensions',
    ShapeError,
    /query must have shape.*got \[1, 2, 3\]/,
    ([, ...rest]) => attention([zeros([1, 2, 3]), ...rest]),
  ],
  [
    'no frame',
    ShapeError,
    /query.*time.*at least 1.*\[1, 2, 0, 4\]/,
    ([, ...rest]) => attention([zeros([1, 2, 0, 4]), ...rest]),
  ],
  [
    'a key of another length',
    ShapeError,
    /key must have shape.*\[1, 2, 3, 4\].*got \[1, 2, 5, 4\]/,
    ([q, , ...rest]) => attention([q, zeros([1, 2, 5, 4]), ...rest]),
  ],
  [
    'a gate per key dimension',
    ShapeError,
    /gate must have shape.*\[1, 2, 3\].*got \[1, 2, 3, 4\]/,
    ([q, k, v, , r]) => attention([q, k, v, zeros([1, 2, 3, 4]), r]),
  ],
  [
    'too few distances',
    ShapeError,
    /relative must have shape.*\[2, 5\].*got \[2, 3\]/,
    ([q, k, v, g]) => attention([q, k, v, g, zeros([2, 3])]),
  ],
  [
    'a mask of another length',
    ShapeError,
    /key_mask.*\[1, 3\].*got \[1, 4\]/,
    (inputs) => attention(inputs, { keyMask: mask([1, 1, 1, 1]) }),
  ],
  [
    'a mask of numbers',
    DTypeError,
    /key_mask.*bool.*int64/,
    (inputs) => attention(inputs, { keyMask: tensor([[1, 1, 0]]) }),
  ],
  [
    'integers',
    DTypeError,
    /query.*int64/,
    ([, ...rest]) => attention([zeros([1, 2, 3, 4], { dtype: 'int64' }), ...rest]),
  ],
  [
    'a value of another dtype',
    DTypeError,
    /value is float64 but query is float32/,
    ([q, k, v, ...rest]) => attention([q, k, v.double(), ...rest]),
  ],
  [
    'a gate of another dtype',
    DTypeError,
    /gate is float64 but query is float32/,
    ([q, k, v, g, r]) => attention([q, k, v, g.double(), r]),
  ],
  [
    'a key on another device',
    DeviceError,
    /key is on meta/,
    ([q, , ...rest]) => attention([q, zeros([1, 2, 3, 4], { device: 'meta' }), ...rest]),
  ],
  ['dropout above 1', VoxtorchError, /dropout.*1\.5/, (inputs) => attention(inputs, { dropout: 1.5 })],
  ['dropout NaN', VoxtorchError, /dropout.*nan/, (inputs) => attention(inputs, { dropout: Number.NaN })],
  [
    'an infinite scale',
    VoxtorchError,
    /scale.*inf/,
    (inputs) => attention(inputs, { scale: Number.POSITIVE_INFINITY }),
  ],
]
test.each(bad)('refuses: %s', (_, Class, sentence, call) =>
  scope(() => {
    const inputs = drawn(1, 2, 3, 4, 'float32')
    expect(() => call(inputs)).toThrow(Class)
    expect(() => call(inputs)).toThrow(sentence)
  }),
)

const root = new URL('../../', import.meta.url).pathname
const inChild = async (program: string, environment = {}) => {
  const args = ['--input-type=module', '-e', program, root]
  return (await promisify(execFile)(process.execPath, args, { env: { ...process.env, ...environment } })).stdout
}

test.runIf(process.platform === 'linux')('holds no [time, time] of any head', async () => {
  // 8 heads of 4,000 x 4,000 float32 scores would be 488 MiB.
  const peak = await inChild(`
    import { readFileSync } from 'node:fs'
    const root = process.argv[1]
    const { autograd, randn } = await import(root + 'dist/index.js')
    const { opAsync } = await import(root + 'dist/native/call.js')
    const attention = opAsync('voxtorch::gated_position_attention')
    const peak = () => Number(/VmHWM:\\s*(\\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1]) / 1024
    const inputs = (time) => [[1, 8, time, 16], [1, 8, time, 16], [1, 8, time, 16], [1, 8, time], [8, 2 * time - 1]]
      .map((shape) => randn(shape, { requiresGrad: true }))
    const run = async (leaves) => autograd.grad([(await attention(...leaves, null, 0.1, 1)).sum()], leaves)
    await run(inputs(64))
    const leaves = inputs(4000)
    const before = peak()
    await run(leaves)
    console.log(peak() - before)`)
  expect(Number(peak)).toBeLessThan(48)
})
