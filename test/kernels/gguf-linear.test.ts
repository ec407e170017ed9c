import { expect, it } from 'vitest'
import { manualSeed, noGrad, ops, randn, scope } from '../../lib/index.js'
import type { BlockScheme } from '../../lib/nn/quantized-weight.js'
import { difference } from '../helpers.js'
import { packed, product } from './blocks.js'
import { integerInputs } from './integer-inputs.js'

// Many rows, against float64: of inputs in whole steps, or on processors with AMX of inputs and weights rounded to bfloat16.
// Outputs that fill no panel, rows that fill no tile, inputs of several panels, every kind of block.
const cases = (['q8_0', 'q4_0', 'q4_1', 'q4_k', 'q6_k'] as const).flatMap((scheme) =>
  [
    [9, 256, 64],
    [24, 256, 3],
    [32, 768, 401],
    [45, 512, 330],
    [100, 2304, 64],
  ].map((sizes) => [scheme, ...sizes] as [BlockScheme, ...number[]]),
)

it.each(cases)('%s: %i rows of %i to %i equal the float64 product', (scheme, rows = 0, from = 0, to = 0) => {
  manualSeed(1)
  noGrad(() =>
    scope(() => {
      const weight = packed(scheme, to, from)
      const [input, bias] = [randn([rows, from]), randn([to])]
      const short = (x: typeof input) => x.to('bfloat16').double()
      for (const offset of [bias, null]) {
        const made = product(input, weight, offset).double()
        const expected = [
          ops.linear(integerInputs(input, true), weight.values.double(), offset?.double() ?? null),
          ops.linear(short(input), short(weight.values), offset?.double() ?? null),
        ]
        expect(Math.min(...expected.map((one) => difference(made, one)))).toBeLessThan(1e-5)
      }
      expect(product(input.view([1, rows, from]), weight).shape).toEqual([1, rows, to])
      const half = product(input.to('bfloat16'), weight)
      expect(half.dtype).toBe('bfloat16')
      const whole = ops.linear(short(input), weight.values.double())
      expect(difference(half.double(), whole)).toBeLessThan(2 ** -6)
      const bad = input.clone()
      bad.select(0, 7).select(0, 5).fill_(Number.NaN)
      const none = product(bad, weight).isnan()
      expect(none.any(1).toArray()).toEqual(Array.from({ length: rows }, (_, i) => i === 7))
      expect(none.select(0, 7).all().item()).toBe(true)
    }),
  )
})

it.each(['q8_0', 'q4_0', 'q4_1', 'q4_k', 'q6_k'] as const)(
  '%s: a row has the same bits with any 8 to 10 others',
  (scheme) => {
    manualSeed(3)
    noGrad(() =>
      scope(() => {
        const weight = packed(scheme, 70, 512)
        const input = randn([11, 512])
        const whole = product(input, weight)
        for (const [first, count] of [
          [0, 9],
          [2, 9],
          [1, 10],
        ] as const) {
          const part = product(input.narrow(0, first, count), weight)
          expect(part.equal(whole.narrow(0, first, count))).toBe(true)
        }
      }),
    )
  },
)
