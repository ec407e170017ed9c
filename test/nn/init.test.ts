import { describe, expect, test } from 'vitest'
import { empty, init, manualSeed, rand, scope, type Tensor } from '../../lib/index.js'
import { expectClose, fixture, numbers, tensorsOf } from '../helpers.js'
import { build } from './cases.js'

interface InitCase {
  name: string
  call: string
  construct?: unknown[]
  shape?: number[]
  args?: unknown[]
  state?: string[]
}

const laws = init as unknown as Record<string, (tensor: Tensor, ...args: unknown[]) => Tensor>

describe.each(['initial', 'initial-more'])('%s: the same seed gives the same weights as in PyTorch', async (name) => {
  const file = await fixture<InitCase>(`nn/${name}`)

  test.each(file.cases.filter(({ construct }) => construct))('$name', (item) =>
    scope(() => {
      const expected = tensorsOf(file, item.name, 'state')
      const following = tensorsOf(file, item.name, 'following').next!
      manualSeed(0)
      const module = build(item.call, item.construct!)
      const next = rand([2])
      const state = module.stateDict()
      expect(Object.keys(state)).toEqual(item.state)
      for (const [name, tensor] of Object.entries(state)) {
        expect(tensor.shape).toEqual(expected[name]!.shape)
        expect(numbers(tensor), name).toEqual(numbers(expected[name]!))
      }
      expect(numbers(next), 'random numbers drawn').toEqual(numbers(following))
      module.dispose()
    }),
  )

  test.each(file.cases.filter(({ construct }) => !construct))('$name', (item) =>
    scope(() => {
      manualSeed(0)
      const tensor = empty(item.shape!)
      const result = laws[item.call.slice('init.'.length)]!(tensor, ...item.args!)
      const next = rand([2])
      expect(result).toBe(tensor)
      const expected = tensorsOf(file, item.name, 'state').t!
      // QR and erf may round differently with the processor; everything else is drawn and scaled bit for bit.
      if (/orthogonal|trunc/.test(item.name)) expectClose(tensor, expected, 1e-6)
      else expect(numbers(tensor)).toEqual(numbers(expected))
      expect(numbers(next), 'random numbers drawn').toEqual(numbers(tensorsOf(file, item.name, 'following').next!))
    }),
  )
})

test('gains', () => {
  expect(init.calculateGain('linear')).toBe(1)
  expect(init.calculateGain('tanh')).toBe(5 / 3)
  expect(init.calculateGain('relu')).toBe(Math.SQRT2)
  expect(init.calculateGain('leakyRelu', 0.2)).toBe(Math.sqrt(2 / 1.04))
  expect(init.calculateGain('selu')).toBe(0.75)
})

test('a generator of its own leaves the default one alone', () =>
  scope(() => {
    manualSeed(0)
    const first = numbers(rand([2]))
    manualSeed(0)
    init.skipInit(() => build('nn.Linear', [3, 4])).dispose()
    expect(numbers(rand([2]))).toEqual(first)
  }))
