import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { autograd, getNumThreads, manualSeed, noGrad, ops, randn, setNumThreads, type Tensor } from '../../lib/index.js'
import { op } from '../../lib/native/call.js'
import { difference, here } from '../helpers.js'

// Attention of float32 of this library (native/core/kernels/float_attention), which processors of AMD use by default.

const ownProducts = op('voxtorch::own_products')
const before = { own: ownProducts() as boolean, threads: getNumThreads() }

interface Options {
  mask?: Tensor
  causal?: boolean
  scale?: number
}

/** Output and the three gradients. */
async function attended([query, key, value]: Tensor[], grad: Tensor, { mask, causal, scale }: Options) {
  const leaves = [query, key, value].map((one) => (one as Tensor).detach().requiresGrad_(true)) as [
    Tensor,
    Tensor,
    Tensor,
  ]
  const output = ops.scaledDotProductAttention(...leaves, { attnMask: mask ?? null, isCausal: causal ?? false, scale })
  return [output.detach(), ...(await autograd.grad(output, leaves, { gradOutputs: [grad] }))] as Tensor[]
}

/** The same by its formula, in float64. */
async function expected([query, key, value]: Tensor[], grad: Tensor, { mask, causal, scale }: Options) {
  const leaves = [query, key, value].map((one) => (one as Tensor).detach().double().requiresGrad_(true)) as [
    Tensor,
    Tensor,
    Tensor,
  ]
  const [q, k, v] = leaves
  let scores = q.matmul(k.transpose(-1, -2)).mul(scale ?? q.size(-1) ** -0.5)
  if (mask) scores = scores.add(mask.double())
  if (causal)
    scores = scores.maskedFill(ops.onesLike(scores, { dtype: 'bool' }).tril().logicalNot(), Number.NEGATIVE_INFINITY)
  // A query that sees nothing has zeros.
  const unseen = scores.isneginf().all(-1, true)
  const output = scores.maskedFill(unseen, 0).softmax(-1).maskedFill(unseen, 0).matmul(v)
  return [output.detach(), ...(await autograd.grad(output, leaves, { gradOutputs: [grad.double()] }))] as Tensor[]
}

const hidden = (scores: Tensor, share: number) =>
  ops.zerosLike(scores).maskedFill(ops.randLike(scores).lt(share), Number.NEGATIVE_INFINITY)

describe.skipIf(here() === 'cuda' || ownProducts(true) === false)('attention in float32', () => {
  beforeAll(() => void ownProducts(true))
  afterAll(() => {
    ownProducts(before.own)
    setNumThreads(before.threads)
  })

  const heads = (batch: number, count: number, length: number, width: number, apart = false) =>
    apart ? randn([batch, length, count, width]).transpose(1, 2) : randn([batch, count, length, width])

  async function same(tensors: Tensor[], options: Options) {
    const grad = randn([...tensors[0]!.shape.slice(0, 3), tensors[2]!.size(-1)])
    const [own, exact] = [await attended(tensors, grad, options), await expected(tensors, grad, options)]
    ownProducts(false)
    const theirs = await attended(tensors, grad, options)
    ownProducts(true)
    for (const [i, one] of own.entries()) {
      const bound = difference((theirs[i] as Tensor).double(), exact[i] as Tensor)
      expect(difference(one.double(), exact[i] as Tensor), ['output', 'query', 'key', 'value'][i]).toBeLessThan(
        8 * bound + 2e-6,
      )
    }
  }

  // Around the sizes of panels and blocks (64 queries, 240 keys).
  it.each([
    [1, 1, 16, 16, 16, 16],
    [2, 3, 64, 240, 64, 64],
    [1, 2, 65, 241, 33, 17],
    [2, 2, 200, 500, 80, 48],
    [1, 1, 129, 31, 128, 96],
    [1, 3, 31, 700, 24, 72],
  ])(
    'is that of float64: %i × %i heads, %i queries, %i keys, %i and %i wide',
    async (batch, count, queries, keys, width, wide) => {
      manualSeed(queries)
      for (const apart of [false, true]) {
        const tensors = [
          heads(batch, count, queries, width, apart),
          heads(batch, count, keys, width),
          heads(batch, count, keys, wide, apart),
        ]
        await same(tensors, {})
        await same(tensors, { scale: 0.7 })
        await same(tensors, { causal: true })
        const scores = randn([batch, count, queries, keys])
        await same(tensors, { mask: scores })
        await same(tensors, { mask: hidden(scores, 0.5) })
        await same(tensors, { mask: hidden(scores.select(0, 0).select(0, 0), 0.3) })
        // Keys that one of the batch does not see, as padding has it.
        await same(tensors, { mask: hidden(scores.narrow(1, 0, 1).narrow(2, 0, 1), 0.3) })
      }
    },
  )

  it('has zeros for a query that sees no key, and large scores do not overflow', async () => {
    manualSeed(7)
    const tensors = [heads(1, 2, 70, 32), heads(1, 2, 250, 32), heads(1, 2, 250, 32)]
    const mask = randn([70, 250])
    mask.narrow(0, 3, 2).fill_(Number.NEGATIVE_INFINITY)
    mask.narrow(1, 0, 245).select(0, 9).fill_(Number.NEGATIVE_INFINITY)
    await same(tensors, { mask })
    const output = ops.scaledDotProductAttention(tensors[0]!, tensors[1]!, tensors[2]!, { attnMask: mask })
    expect(output.narrow(2, 3, 2).abs().max().item()).toBe(0)
    await same([tensors[0]!.mul(300), tensors[1]!, tensors[2]!], {})
  })

  it('shows a number that is none in the rows that see it', () => {
    noGrad(() => {
      const tensors = [heads(1, 1, 70, 32), heads(1, 1, 250, 32), heads(1, 1, 250, 32)] as const
      const none = (options: Options) =>
        ops
          .scaledDotProductAttention(...tensors, { attnMask: null, isCausal: options.causal ?? false })
          .isnan()
          .any(-1)
          .flatten()
          .toArray() as boolean[]
      tensors[0].select(2, 5).select(-1, 3).fill_(Number.NaN)
      expect(none({})).toEqual(Array.from({ length: 70 }, (_, i) => i === 5))
      tensors[1].select(2, 40).select(-1, 3).fill_(Number.NaN)
      expect(none({ causal: true })).toEqual(Array.from({ length: 70 }, (_, i) => i === 5 || i >= 40))
    })
  })

  it('has the same bits on any number of threads', async () => {
    manualSeed(8)
    const tensors = [heads(1, 3, 400, 64), heads(1, 3, 500, 64), heads(1, 3, 500, 64)]
    const grad = randn([1, 3, 400, 64])
    const results: Tensor[][] = []
    for (const threads of [1, 2, 3, 4, 8]) {
      setNumThreads(threads)
      results.push(await attended(tensors, grad, { causal: true }))
    }
    setNumThreads(before.threads)
    for (const other of results.slice(1)) {
      for (const [i, one] of other.entries()) expect(one.equal(results[0]![i]!)).toBe(true)
    }
  })
})
