import { afterEach, describe, expect, it } from 'vitest'
import {
  autocast,
  functional,
  getNumThreads,
  inferenceMode,
  manualSeed,
  noGrad,
  ops,
  randn,
  ShapeError,
  setNumThreads,
  type Tensor,
  tensor,
} from '../../lib/index.js'
import { op } from '../../lib/native/call.js'
import { here, relativeError } from '../helpers.js'

// Large synchronous operators borrow all intra-op threads while the executor has no work (native/core/runtime/wide_call.h).

const threadsFor = (input?: Tensor): number => Number(op('voxtorch::parallel_threads')(...(input ? [input] : [])))
const [LARGE, SMALL] = [1 << 18, 1 << 10]
const before = getNumThreads()
const values = (one: Tensor) => [...(one.flatten().toArray() as number[])]
const bytes = (one: Tensor) => {
  const { buffer, byteOffset, byteLength } = one.dataSync()
  return Buffer.from(buffer as ArrayBuffer, byteOffset, byteLength)
}
/** A computation with these inputs. */
const of =
  <Inputs extends Tensor[]>(compute: (...inputs: Inputs) => Tensor, ...inputs: Inputs) =>
  () =>
    compute(...inputs)

afterEach(() => setNumThreads(before))

describe.skipIf(here() === 'cuda')('a large synchronous operator', () => {
  it('runs on as many threads as setNumThreads says, and a small one on one', () => {
    const [large, small] = [randn([LARGE]), randn([SMALL])]
    for (const threads of [2, 3, 1, 4]) {
      setNumThreads(threads)
      expect(threadsFor(large)).toBe(threads)
      expect(threadsFor(small)).toBe(1)
      expect(threadsFor()).toBe(1)
    }
  })

  it('runs on the calling thread while other work is queued, and does not wait for it', async () => {
    setNumThreads(2)
    const a = randn([2048, 2048])
    let ended = false
    const queued = Promise.all([0, 1, 2].map(() => ops.async.matmul(a, a))).then(() => {
      ended = true
    })
    expect(threadsFor(randn([LARGE]))).toBe(1)
    expect(ended).toBe(false)
    await queued
    expect(threadsFor(randn([LARGE]))).toBe(2)
  })

  const losses: Record<string, (x: Tensor, y: Tensor, reduction: 'mean' | 'sum') => Tensor> = {
    mseLoss: (x, y, reduction) => functional.mseLoss(x, y, { reduction }),
    l1Loss: (x, y, reduction) => functional.l1Loss(x, y, { reduction }),
    smoothL1Loss: (x, y, reduction) => functional.smoothL1Loss(x, y, { reduction }),
    huberLoss: (x, y, reduction) => functional.huberLoss(x, y, { reduction }),
    klDiv: (x, y, reduction) => functional.klDiv(x, ops.softmax(y, 1), { reduction }),
    binaryCrossEntropy: (x, y, reduction) => functional.binaryCrossEntropy(x.sigmoid(), y.sigmoid(), { reduction }),
    binaryCrossEntropyWithLogits: (x, y, reduction) =>
      functional.binaryCrossEntropyWithLogits(x, y.sigmoid(), { reduction }),
    poissonNllLoss: (x, y, reduction) => functional.poissonNllLoss(x, y.abs(), { reduction }),
    gaussianNllLoss: (x, y, reduction) => functional.gaussianNllLoss(x, y, y.abs().add(1), { reduction }),
    softMarginLoss: (x, y, reduction) => functional.softMarginLoss(x, y.sign(), { reduction }),
    hingeEmbeddingLoss: (x, y, reduction) => functional.hingeEmbeddingLoss(x, y.sign(), { reduction }),
    marginRankingLoss: (x, y, reduction) => functional.marginRankingLoss(x, y, x.sign(), { reduction }),
    multilabelSoftMarginLoss: (x, y, reduction) =>
      functional.multilabelSoftMarginLoss(x, y.gt(0).float(), { reduction }),
    cosineEmbeddingLoss: (x, y, reduction) =>
      functional.cosineEmbeddingLoss(x, y, x.select(1, 0).sign(), { reduction }),
    tripletMarginLoss: (x, y, reduction) => functional.tripletMarginLoss(x, y, x.mul(y), { reduction }),
    crossEntropy: (x, y, reduction) => functional.crossEntropy(x, y.argmax(1), { reduction }),
  }
  const reductions: Record<string, (x: Tensor, dim: number) => Tensor> = {
    sum: (x, dim) => x.sum([dim]),
    mean: (x, dim) => x.mean([dim]),
    prod: (x, dim) => x.prod(dim),
    std: (x, dim) => x.std([dim]),
    linalgVectorNorm: (x, dim) => x.linalgVectorNorm({ ord: 2, dim: [dim] }),
    logsumexp: (x, dim) => x.logsumexp([dim]),
  }
  const shapes: [number[], number][] = [
    [[2, 1 << 17], 1],
    [[1 << 17, 2], 0],
    [[3, 70_001], 1],
    [[70_001, 3], 0],
    [[511, 257], 1],
    [[511, 257], 0],
    [[5, 333, 77], 1],
    [[5, 333, 77], 0],
    [[5, 333, 77], 2],
    [[2, 40_000, 3], 1],
    [[33, 3, 1027], 1],
    [[7, 9, 11, 13, 17], 2],
  ]
  // Rows and elements are divided among threads, and none is computed in two parts. Products are the libraries'. Each makes its
  // inputs once, and returns what is computed again and again.
  const exact: [string, () => () => Tensor][] = [
    ['gelu', () => of(ops.gelu, randn([512, 1024]))],
    ['add', () => of((a, b) => a.add(b), randn([1024, 1024]), randn([1024, 1024]))],
    ['softmax', () => of((x) => ops.softmax(x, -1), randn([512, 1024]))],
    [
      'layerNorm',
      () =>
        of(
          (x, weight, bias) => ops.layerNorm(x, [1024], weight, bias),
          randn([512, 1024]),
          randn([1024]),
          randn([1024]),
        ),
    ],
    // Over all elements: parts of a fixed size (native/core/kernels/full_reduction.h).
    ...(['float32', 'float64', 'bfloat16', 'float16', 'complex64', 'int64'] as const).flatMap(
      (dtype): [string, () => () => Tensor][] => [
        [`sum of ${dtype}`, () => of((x) => x.sum(), randn([1_000_003]).mul(10).to(dtype))],
        [
          `sum of ${dtype} that is not dense`,
          () => of((x) => x.narrow(1, 3, 900).sum(), randn([1003, 999]).mul(10).to(dtype)),
        ],
      ],
    ),
    ['mean', () => of((x) => x.mean(), randn([1_000_003]))],
    [
      'mean of a transposed tensor over all dimensions',
      () => of((x) => x.t().mean([0, 1], { keepdim: true }), randn([1003, 999])),
    ],
    ...Object.entries(losses).flatMap(([name, loss]) =>
      (['mean', 'sum'] as const).map((reduction): [string, () => () => Tensor] => [
        `${name}, ${reduction}`,
        () => of((x, y) => loss(x, y, reduction), randn([401, 1009]), randn([401, 1009])),
      ]),
    ),
    // Reductions along dimensions, whose rows are divided: inner, outer and middle ones, contiguous or not, few or many.
    ...Object.entries(reductions).flatMap(([name, reduce]) =>
      shapes.flatMap(([shape, dim]) =>
        [false, true].map((turned): [string, () => () => Tensor] => [
          `${name} of [${shape}]${turned ? ', transposed,' : ''} over ${dim}`,
          () => {
            const x = name === 'prod' ? randn(shape).mul(1e-3).add(1) : randn(shape)
            return of((x) => reduce(x, dim), turned ? x.transpose(0, -1).contiguous().transpose(0, -1) : x)
          },
        ]),
      ),
    ),
  ]
  it.each(exact)('gives the same bits on 1, 2, 3, 4 and 8 threads: %s', (_, make) => {
    const compute = make()
    const found = [1, 2, 3, 4, 8].map((threads) => {
      setNumThreads(threads)
      return compute()
    })
    for (const other of found.slice(1)) {
      expect([other.shape, other.dtype]).toEqual([found[0]?.shape, found[0]?.dtype])
      expect(bytes(other).equals(bytes(found[0] as Tensor))).toBe(true)
    }
  })

  const products: [string, (dtype: 'float32' | 'float64') => Tensor][] = [
    [
      'matmul',
      (dtype) =>
        randn([300, 700])
          .to(dtype)
          .matmul(randn([700, 300]).to(dtype)),
    ],
    ['conv1d', (dtype) => ops.conv1d(randn([4, 64, 600]).to(dtype), randn([64, 64, 3]).to(dtype))],
    [
      'scaledDotProductAttention',
      (dtype) => {
        const [q, k, v] = [0, 1, 2].map(() => randn([2, 4, 160, 32]).to(dtype)) as [Tensor, Tensor, Tensor]
        return ops.scaledDotProductAttention(q, k, v)
      },
    ],
  ]
  it.each(products)('gives the values of float64 within float32’s rounding on any number of threads: %s', (_, make) => {
    const of = (dtype: 'float32' | 'float64') => {
      manualSeed(2)
      return values(make(dtype))
    }
    const expected = of('float64')
    for (const threads of [1, 2, 4]) {
      setNumThreads(threads)
      expect(relativeError(of('float32'), expected)).toBeLessThan(1e-5)
    }
  })

  it('keeps the order of the graph: gradients are those of one thread, to the bit', async () => {
    const gradients = async (threads: number) => {
      manualSeed(3)
      const [x, w] = [randn([512, 512]).requiresGrad_(), randn([512, 512]).requiresGrad_()]
      setNumThreads(threads)
      // Small and large operators alternate, and paths join.
      const scale = tensor([0.5]).requiresGrad_()
      const hidden = ops.gelu(x.mul(w)).mul(scale)
      const joined = hidden.add(x).add(ops.softmax(hidden, -1)).mul(w)
      // Backward of the same number of threads in both: its own sums are divided among them.
      setNumThreads(2)
      await joined.sum().backward()
      return [x, w, scale].map(({ grad }) => values(grad as Tensor))
    }
    expect(await gradients(2)).toEqual(await gradients(1))
  })

  it('throws the errors of the operator', () => {
    setNumThreads(2)
    const message = (size: number) => {
      try {
        randn([size, 512]).matmul(randn([size + 1, 512]))
      } catch (error) {
        expect(error).toBeInstanceOf(ShapeError)
        return (error as Error).message.replaceAll(/\d{2,}/g, 'N')
      }
      return 'nothing was thrown'
    }
    expect(message(600)).toBe(message(10))
    expect(threadsFor(randn([LARGE]))).toBe(2)
  })

  it('follows noGrad, inferenceMode and autocast', () => {
    setNumThreads(2)
    const x = randn([LARGE]).requiresGrad_()
    const m = randn([512, 512])
    expect(ops.gelu(x).requiresGrad).toBe(true)
    expect(noGrad(() => ops.gelu(x)).requiresGrad).toBe(false)
    expect(inferenceMode(() => ops.gelu(x)).requiresGrad).toBe(false)
    expect(ops.gelu(x).requiresGrad).toBe(true)
    expect(autocast({ device: 'cpu', dtype: 'bfloat16' }, () => m.matmul(m)).dtype).toBe('bfloat16')
    expect(m.matmul(m).dtype).toBe('float32')
  })

  it('writes in place, and into the tensor that it was called on', () => {
    setNumThreads(2)
    const x = randn([1024, 1024])
    const expected = x.clamp({ min: 0 })
    expect(ops.relu_(x)).toBe(x)
    expect(x.equal(expected)).toBe(true)
  })
})
