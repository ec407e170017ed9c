import { describe, expect, test } from 'vitest'
import {
  autograd,
  DeviceError,
  type DType,
  DTypeError,
  gradcheck,
  memoryStats,
  ops,
  randn,
  ShapeError,
  scope,
  type Tensor,
  tensor,
  VoxtorchError,
  zeros,
} from '../../lib/index.js'
import { op } from '../../lib/native/call.js'
import { expectAsExact, expectClose, fixture, numbers, tensorsOf } from '../helpers.js'

const snake = op('voxtorch::anti_aliased_snake') as unknown as (
  input: Tensor,
  frequency: Tensor,
  magnitude: Tensor,
  upFilter: Tensor,
  downFilter: Tensor,
) => Tensor

/** The same in plain operators, which have gradients of their own. */
function composed(x: Tensor, frequency: Tensor, magnitude: Tensor, up: Tensor, down: Tensor): Tensor {
  const [channels, time] = [x.size(1), x.size(2)]
  const each = (filter: Tensor) => filter.to(x.dtype).reshape([1, 1, -1]).expand([channels, 1, -1])
  const raised = ops.convTranspose1d(ops.pad(x, [5, 5], 'replicate'), each(up), null, 2, 0, 0, channels).mul(2)
  const doubled = raised.narrow(2, 15, 2 * time)
  const waves = doubled.mul(frequency.unsqueeze(-1)).sin().square()
  const activated = doubled.add(waves.mul(magnitude.unsqueeze(-1)))
  return ops.conv1d(ops.pad(activated, [5, 6], 'replicate'), each(down), null, 2, 0, 1, channels)
}

const leafOf = (values: Tensor, dtype: DType = 'float64') => {
  const leaf = values.detach().to({ dtype }).clone()
  leaf.requiresGrad = true
  return leaf
}

const file = await fixture('kernels/anti-aliased-snake')
const filter = tensorsOf(file, 'one', 'out').filter as Tensor
const NAMES = ['x', 'alpha', 'beta'] as const
const TOLERANCE: Partial<Record<DType, number>> = { float64: 3e-7, float32: 1e-5, bfloat16: 2e-2, float16: 3e-3 }

describe("as NVIDIA's code computes it", () => {
  const dtypes = Object.keys(TOLERANCE) as DType[]
  // Half precision has no room for arguments of hundreds.
  const cases = file.cases.flatMap(({ name }) =>
    dtypes.filter((dtype) => name !== 'large' || /64|32/.test(dtype)).map((dtype) => ({ name: name as string, dtype })),
  )
  test.each(cases)('$name, $dtype', ({ name, dtype }) =>
    scope(async () => {
      const given = tensorsOf(file, name, 'in')
      const kept = dtype === 'float64' ? 'float64' : 'float32'
      const leaves = NAMES.map((key) => leafOf(given[key] as Tensor, key === 'x' ? dtype : kept))
      const [x, alpha, beta] = leaves as [Tensor, Tensor, Tensor]
      const output = snake(x, alpha.exp(), beta.exp().add(1e-9).reciprocal(), filter, filter)
      expect(output.dtype).toBe(dtype)
      // Angles of a thousand are rounded by 3e-5 before their sine is taken.
      const tolerance = name === 'large' && dtype === 'float32' ? 1e-4 : (TOLERANCE[dtype] as number)
      expectClose(output.to('float32'), tensorsOf(file, name, 'out').output as Tensor, tolerance, 'output')
      const cotangent = (tensorsOf(file, name, 'cotangent').output as Tensor).to({ dtype })
      const gradients = await autograd.grad([output], leaves, { gradOutputs: [cotangent] })
      const expected = tensorsOf(file, name, 'grad')
      // A sum over time of terms of both signs is as far off as its terms are, not as it is.
      const sums = 3
      NAMES.forEach((key, i) => {
        const limit = key === 'x' ? tolerance : sums * tolerance
        expectClose((gradients[i] as Tensor).to('float32'), expected[key] as Tensor, limit, `gradient of ${key}`)
      })
    }),
  )

  test.each([1, 2, 3, 15, 16, 17, 509, 510, 511, 512, 513, 515, 516, 1023, 1024, 1027, 20000])(
    'float32 of %i steps is as exact as plain operators',
    (time) =>
      scope(async () => {
        const x = randn([1, 3, time])
        const [frequency, magnitude] = [randn([3]).exp(), randn([3]).exp()]
        const given = [x, frequency, magnitude] as const
        const exact = composed(x.double(), frequency.double(), magnitude.double(), filter, filter)
        expectAsExact(snake(...given, filter, filter), composed(...given, filter, filter), exact, 24, 'output')
        const cotangent = randn([1, 3, time])
        const gradients = (run: typeof snake, dtype: DType) => {
          const leaves = given.map((one) => leafOf(one, dtype))
          const output = run(leaves[0] as Tensor, leaves[1] as Tensor, leaves[2] as Tensor, filter, filter)
          return autograd.grad([output], leaves, { gradOutputs: [cotangent.to({ dtype })] })
        }
        const [ours, theirs, wanted] = [
          await gradients(snake, 'float32'),
          await gradients(composed, 'float32'),
          await gradients(composed, 'float64'),
        ]
        ours.forEach((one, i) => {
          expectAsExact(one as Tensor, theirs[i] as Tensor, wanted[i] as Tensor, i === 0 ? 48 : 48 * time, NAMES[i])
        })
      }),
  )
})

describe('gradients', () => {
  const drawn = (batch: number, channels: number, time: number) => [
    leafOf(randn([batch, channels, time])),
    leafOf(randn([channels]).exp()),
    leafOf(randn([channels]).exp()),
  ]
  const run = (x: Tensor, f: Tensor, m: Tensor) => snake(x, f, m, filter.double(), filter.double())

  test('float64 against finite differences', () =>
    scope(async () => {
      expect(await gradcheck((x, f, m) => run(x!, f!, m!), drawn(2, 2, 7))).toBe(true)
      expect(await gradcheck((x, f, m) => run(x!, f!, m!), drawn(1, 1, 1))).toBe(true)
    }))

  test('second order equals that of plain operators', () =>
    scope(async () => {
      const inputs = drawn(2, 2, 9)
      const second = async (output: Tensor) => {
        const first = await autograd.grad([output.pow(3).sum()], inputs, { createGraph: true })
        const squares = first.map((gradient) => gradient!.pow(2).sum()).reduce((sum, term) => sum.add(term))
        return autograd.grad([squares], inputs)
      }
      const [x, f, m] = inputs as [Tensor, Tensor, Tensor]
      const actual = await second(run(x, f, m))
      const expected = await second(composed(x, f, m, filter.double(), filter.double()))
      actual.forEach((gradient, i) => {
        expectClose(gradient!, expected[i]!, 1e-9, NAMES[i])
      })
    }))

  test('filters of another length, and those that learn, go through plain operators', () =>
    scope(async () => {
      const [x, f, m] = drawn(1, 2, 9) as [Tensor, Tensor, Tensor]
      const short = tensor([0.1, 0.4, 0.4, 0.1], { dtype: 'float64' })
      // Taps beyond a short filter's are zeros of a long one, which is centred in the same way.
      const long = ops.constantPadNd(short, [4, 4])
      expectClose(snake(x, f, m, short, short).detach(), snake(x, f, m, long, long).detach(), 1e-12)
      const learnt = leafOf(filter.flatten())
      const output = snake(x, f, m, learnt, filter.double())
      expectClose(output.detach(), run(x, f, m).detach(), 1e-12)
      expect(await gradcheck((taps) => snake(x, f, m, taps!, filter.double()), [learnt])).toBe(true)
    }))
})

describe('arguments', () => {
  test('meta tensors, strided inputs and empty batches', () =>
    scope(() => {
      const none = (...shape: number[]) => zeros(shape, { device: 'meta' })
      const meta = snake(none(2, 3, 8), none(3), none(3), none(12), none(12))
      expect([meta.shape, meta.device]).toEqual([[2, 3, 8], 'meta'])
      const x = randn([2, 9, 3])
      const [f, m] = [randn([3]).exp(), randn([3]).exp()]
      const turned = x.transpose(1, 2)
      expectClose(snake(turned, f, m, filter, filter), snake(turned.contiguous(), f, m, filter, filter), 0)
      expect(snake(zeros([0, 3, 5]), f, m, filter, filter).shape).toEqual([0, 3, 5])
    }))

  test('what does not fit is named', () => {
    const before = memoryStats().liveTensors
    scope(() => {
      const x = randn([2, 3, 8])
      const f = randn([3])
      expect(() => snake(x, randn([4]), f, filter, filter)).toThrow(ShapeError)
      expect(() => snake(x, f, randn([2]), filter, filter)).toThrow(/magnitude/)
      expect(() => snake(x.select(0, 0), f, f, filter, filter)).toThrow(/\[batch, channels, time\]/)
      expect(() => snake(x, f, f, filter.flatten().narrow(0, 0, 11), filter)).toThrow(/up_filter.*even/)
      expect(() => snake(zeros([1, 3, 0]), f, f, filter, filter)).toThrow(VoxtorchError)
      expect(() => snake(x, f.double(), f, filter, filter)).toThrow(DTypeError)
      expect(() => snake(x.to('int64'), f, f, filter, filter)).toThrow(/dtype/)
      expect(() => snake(x, zeros([3], { device: 'meta' }), f, filter, filter)).toThrow(DeviceError)
    })
    expect(memoryStats().liveTensors).toBe(before)
  })

  test('NaN and infinity stay where they are seen', () =>
    scope(() => {
      const x = randn([1, 1, 40])
      const spoilt = x.clone()
      spoilt.select(2, 20).fill_(Number.NaN)
      const one = tensor([1], { dtype: 'float32' })
      const out = numbers(snake(spoilt, one, one, filter, filter)).map(Number)
      const clean = numbers(snake(x, one, one, filter, filter)).map(Number)
      expect(out.map(Number.isNaN).flatMap((nan, i) => (nan ? [i] : []))).toEqual([
        15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25,
      ])
      expect(out.filter((_, i) => i < 15 || i > 25)).toEqual(clean.filter((_, i) => i < 15 || i > 25))
    }))
})

// In a process each: the kernel is chosen when it is first called.
