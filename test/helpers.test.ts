import { describe, expect, it } from 'vitest'
import { functional, QFormer, randn, type Tensor } from '../lib/index.js'
import { expectAsExact, expectAsNear, fixture, tensorsOf } from './helpers.js'
import { camelKeys, expectGradients, loadParameters } from './models/networks.js'

// The tolerances that a processor's rounding may not break still see a fault of 1e-4, and smaller ones.

it.each([1e-4, 1e-5])('a fused product that is %d off is seen', (fault) => {
  const [x, weight] = [randn([9, 512]), randn([64, 512])]
  const exact = functional.linear(x.double(), weight.double())
  const theirs = functional.linear(x, weight)
  expectAsExact(theirs, theirs, exact, 512)
  expect(() => expectAsExact(theirs.mul(1 + fault), theirs, exact, 512)).toThrow()
})

it('a pass that rounds much more coarsely than another is seen', () => {
  const exact = randn([64, 64], { dtype: 'float64' })
  const rounded = (share: number) => exact.add(randn([64, 64], { dtype: 'float64' }).mul(share))
  expectAsNear(rounded(0.02), rounded(0.02), exact)
  for (const share of [0.04, Number.NaN]) expect(() => expectAsNear(rounded(share), rounded(0.02), exact)).toThrow()
})

describe('a gradient', async () => {
  const file = await fixture<{ name: string; config: Record<string, unknown> }>('models/q-former')
  const name = 'overlapping'
  const config = file.cases.find((one) => one.name === name)?.config ?? {}
  const { frames } = tensorsOf(file, name, 'in')
  const cotangent = tensorsOf(file, name, 'cotangent').last as Tensor

  const check = async (change: { everywhere?: number; float32?: number; exact?: number }) => {
    const model = new QFormer(camelKeys(config))
    loadParameters(model, file, name)
    const back = async (input: Tensor, factor = 1) => {
      const { lastHiddenState } = await model.forward({ encoderHiddenStates: input, compat: 'published' })
      await lastHiddenState.mul(cotangent).mul(factor).sum().backward()
    }
    await back(frames as Tensor, change.everywhere ?? change.float32)
    await expectGradients(model, file, name, {
      again: async (as) => back(as(frames as Tensor), change.everywhere ?? change.exact),
    })
  }

  it('that is right passes', () => check({}))
  it.each([1e-4, 1e-6])('that is %d off in every dtype is seen', (fault) =>
    expect(check({ everywhere: 1 + fault })).rejects.toThrow(/float64 gradient of/),
  )
  it('that is 1e-4 off in float32 alone is seen', () =>
    expect(check({ float32: 1 + 1e-4 })).rejects.toThrow(/float32 gradient of/))
})
