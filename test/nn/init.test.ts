import { describe, expect, test } from 'vitest'
import { empty, init, manualSeed, rand, scope, type Tensor } from '../../lib/index.js'
import { expectClose, fixture, numbers, ROUNDING, tensorsOf } from '../helpers.js'
import { build } from './cases.js'

interface InitCase {
  name: string
  call: string
  construct?: unknown[]
  shape?: number[]
  args?: unknown[]
  state?: string[]
}

// What is drawn goes through log, cosine, a product and a sum, whose last bits depend on the processor; so do those of QR.
const LAST_BITS = 16 * ROUNDING.float32

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
        expectClose(tensor, expected[name]!, LAST_BITS, name)
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
      expectClose(tensor, expected, LAST_BITS)
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
