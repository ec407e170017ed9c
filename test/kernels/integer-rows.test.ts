import { describe, expect, it } from 'vitest'
import { cat, manualSeed, noGrad, ops, randn, scope, type Tensor, tensor, VoxtorchError } from '../../lib/index.js'
import { op } from '../../lib/native/call.js'
import { type BlockScheme, blockFacts } from '../../lib/nn/quantized-weight.js'
import { difference } from '../helpers.js'
import { decode, encode, linear, type Packed, packed, product } from './blocks.js'
import { integerInputs } from './integer-inputs.js'

// Products with GGUF's blocks as they are, against float64 of the blocks' values with inputs of whole steps.

const lookUp = op('voxtorch::quantized_embedding') as (...args: unknown[]) => Tensor
const adapted = op('voxtorch::adapted_quantized_linear') as (...args: unknown[]) => Tensor
const exact = (input: Tensor, { values }: Packed, bias: Tensor | null) =>
  ops.linear(integerInputs(input, input.size(0) > 4), values.double(), bias?.double() ?? null)

// Rows of 32 have half of the blocks that are taken at once, 96 and 800 an odd number.
const of32 = [
  [1, 32, 3],
  [2, 96, 17],
  [4, 800, 401],
  [5, 800, 401],
  [8, 2048, 33],
  [11, 576, 50],
]
const of256 = [
  [1, 256, 3],
  [4, 768, 401],
  [5, 768, 401],
  [11, 2048, 33],
]
const cases = (['q8_0', 'q4_0', 'q4_1', 'q4_k', 'q6_k'] as const).flatMap((scheme) =>
  (blockFacts(scheme).block === 32 ? of32 : of256).map((sizes) => [scheme, ...sizes] as [BlockScheme, ...number[]]),
)

describe('products with blocks on the CPU', () => {
  it.each(cases)('%s: %i rows of %i to %i', (scheme, rows = 1, from = 1, to = 1) => {
    manualSeed(1)
    noGrad(() =>
      scope(() => {
        const weight = packed(scheme, to, from)
        const input = randn([rows, from])
        const bias = randn([to])
        for (const offset of [bias, null]) {
          expect(difference(product(input, weight, offset).double(), exact(input, weight, offset))).toBeLessThan(1e-6)
          const half = [input, offset].map((x) => x?.to('bfloat16') ?? null) as [Tensor, Tensor | null]
          const ours = product(half[0], weight, half[1])
          expect(ours.dtype).toBe('bfloat16')
          expect(difference(ours.double(), exact(half[0], weight, half[1]))).toBeLessThan(2 ** -7)
        }
      }),
    )
  })

  it('are off by less than a hundredth from those with the inputs as they are', () => {
    manualSeed(2)
    noGrad(() => {
      const weight = packed('q8_0', 300, 768)
      const input = randn([4, 768])
      const whole = ops.linear(input.double(), weight.values.double())
      const off = product(input, weight).double().sub(whole).square().mean().div(whole.square().mean()).sqrt()
      expect(Number(off.item())).toBeLessThan(0.01)
    })
  })

  it.each(['q8_0', 'q4_0', 'q4_1', 'q4_k', 'q6_k'] as const)(
    '%s: a row has the same bits among 1 to 4, and among 5 and more',
    (scheme) => {
      manualSeed(3)
      noGrad(() => {
        const weight = packed(scheme, 300, 512)
        const input = randn([4, 512])
        const alone = Array.from({ length: 4 }, (_, i) => product(input.slice(0, i, i + 1), weight))
        expect(product(input, weight).equal(cat(alone))).toBe(true)
        expect(product(input.view([4, 1, 512]), weight).shape).toEqual([4, 1, 300])
        expect(product(input.t().contiguous().t(), weight).equal(cat(alone))).toBe(true)
        const many = randn([40, 512])
        const whole = product(many, weight)
        for (const rows of [5, 8, 11]) {
          expect(product(many.slice(0, 0, rows), weight).equal(whole.slice(0, 0, rows))).toBe(true)
        }
        expect(product(input.slice(0, 0, 0), weight).shape).toEqual([0, 300])
      })
    },
  )

  it('the largest codes and inputs fit, and zeros are zeros', () => {
    noGrad(() => {
      const signs = tensor(
        Array.from({ length: 64 }, (_, i) => (i % 3 === 0 ? -1 : 1)),
        { dtype: 'float32' },
      )
      const values = signs.expand([5, 64]).contiguous()
      for (const scheme of ['q8_0', 'q4_0'] as const) {
        const { code, bytes } = blockFacts(scheme)
        const codes = encode(values, code).view([5, 2 * bytes])
        // -128, which no encoder writes.
        if (scheme === 'q8_0') codes.narrow(1, 2, 32).fill_(128)
        const weight: Packed = { scheme, shape: [5, 64], codes, values: decode(codes.flatten(), code, [5, 64]) }
        for (const input of [signs.view([1, 64]), signs.view([1, 64]).mul(-3e30)]) {
          expect(difference(product(input, weight).double(), exact(input, weight, null))).toBeLessThan(1e-6)
        }
        expect(
          product(signs.view([1, 64]).mul(0), weight)
            .abs()
            .max()
            .item(),
        ).toBe(0)
      }
    })
  })

  it('of what is no number are none, and nothing else is', () => {
    noGrad(() => {
      const weight = packed('q8_0', 40, 96)
      const input = randn([4, 96])
      const good = product(input, weight)
      const bad = input.clone()
      bad.select(0, 1).select(0, 70).fill_(Number.NaN)
      bad.select(0, 2).select(0, 3).fill_(Number.POSITIVE_INFINITY)
      const result = product(bad, weight)
      expect(result.isnan().any(1).toArray()).toEqual([false, true, true, false])
      expect(result.isnan().all(1).toArray()).toEqual([false, true, true, false])
      expect(result.select(0, 3).equal(good.select(0, 3))).toBe(true)
    })
  })

  it('with gradients go through the values', async () => {
    manualSeed(4)
    const weight = packed('q4_0', 40, 96)
    const input = randn([3, 96], { requiresGrad: true })
    const bias = randn([40], { requiresGrad: true })
    const output = product(input, weight, bias)
    expect(
      difference(
        output.detach().double(),
        ops.linear(input.detach().double(), weight.values.double(), bias.detach().double()),
      ),
    ).toBeLessThan(1e-6)
    await output.sum().backward()
    expect(difference(input.grad as Tensor, weight.values.double().sum(0).expand([3, 96]))).toBeLessThan(1e-5)
    expect(bias.grad?.toArray()).toEqual(Array(40).fill(3))
  })

  it('go with an adapter, and are looked up', () => {
    manualSeed(5)
    noGrad(() => {
      const weight = packed('q8_0', 40, 96)
      const [input, a, b] = [randn([2, 96]), randn([4, 96]), randn([40, 4])]
      const ours = adapted(input, weight.codes, null, weight.shape, null, [a], [b], [0.5], { scheme: 'q8_0' })
      const added = ops.linear(ops.linear(input.double(), a.double()), b.double()).mul(0.5)
      expect(difference(ours.double(), exact(input, weight, null).add(added))).toBeLessThan(1e-6)
      const ids = tensor(
        [
          [3, 0],
          [39, 3],
        ],
        { dtype: 'int64' },
      )
      const rows = lookUp(ids, weight.codes, weight.shape, { scheme: 'q8_0' })
      expect(rows.equal(ops.embedding(weight.values, ids))).toBe(true)
      expect(lookUp(ids, weight.codes, weight.shape, { scheme: 'q8_0', dtype: 'bfloat16' }).dtype).toBe('bfloat16')
    })
  })

  it('are refused where sizes, types or indices do not fit', () => {
    noGrad(() => {
      const { codes, shape } = packed('q8_0', 40, 96)
      const input = randn([2, 96])
      const refused = (call: () => unknown, says: RegExp) => {
        expect(call).toThrow(VoxtorchError)
        expect(call).toThrow(says)
      }
      refused(() => linear(input, codes, null, [40, 128], null, { scheme: 'q8_0' }), /\[40, 136\]/)
      refused(() => linear(input, codes, null, [40, 95], null, { scheme: 'q8_0' }), /not a multiple of a block of 32/)
      refused(() => linear(input, codes, null, shape, null, { scheme: 'q9_0' }), /no scheme 'q9_0'/)
      refused(() => linear(input, codes.to('int8'), null, shape, null, { scheme: 'q8_0' }), /uint8/)
      refused(() => linear(input, codes, randn([40]), shape, null, { scheme: 'q8_0' }), /stand in its blocks/)
      refused(() => linear(input, codes, null, shape, null, { scheme: 'int8' }), /absmax/)
      refused(() => linear(randn([2, 64]), codes, null, shape, null, { scheme: 'q8_0' }), /as wide as the weight/)
      for (const id of [40, -1]) {
        refused(() => lookUp(tensor([id], { dtype: 'int64' }), codes, shape, { scheme: 'q8_0' }), /index/)
      }
    })
  })
})
