import { afterEach, describe, expect, test } from 'vitest'
import {
  areDeterministicAlgorithmsEnabled,
  ConfigError,
  DecoderLM,
  getDefaultDevice,
  getDefaultDtype,
  Linear,
  ones,
  ops,
  randn,
  scope,
  setDefaultDevice,
  setDefaultDtype,
  setPrintoptions,
  tensor,
  useDeterministicAlgorithms,
  withDevice,
  zeros,
} from '../../lib/index.js'

afterEach(() => {
  setDefaultDevice(null)
  setPrintoptions({ profile: 'default' })
})

test('setDefaultDevice holds for every new tensor whose call names no device', () =>
  scope(async () => {
    expect(getDefaultDevice()).toBe('cpu')
    setDefaultDevice('meta')
    expect(getDefaultDevice()).toBe('meta')
    expect([zeros([2]), tensor([1.5]), ops.arange(3), randn([1])].map(({ device }) => device)).toEqual(
      Array(4).fill('meta'),
    )
    const layer = new Linear(2, 2)
    expect(layer.weight.device).toBe('meta')
    layer.dispose()
    expect((await ops.async.zeros([2])).device).toBe('meta')
    expect(zeros([2], { device: 'cpu' }).device).toBe('cpu')
    expect(withDevice('cpu', () => [zeros([2]).device, getDefaultDevice()])).toEqual(['cpu', 'cpu'])
    setDefaultDevice(null)
    expect(ones([1]).device).toBe('cpu')
    expect(() => setDefaultDevice('gpu' as never)).toThrow(ConfigError)
  }))

describe('setPrintoptions prints as torch does', () => {
  // repr() of torch 2.13 after torch.set_printoptions of the same options.
  test.each([
    [{ precision: 2 }, [0.123456789, 10.5], 'tensor([ 0.12, 10.50])'],
    [{ precision: 2 }, [0.125, 2.5], 'tensor([0.12, 2.50])'],
    [{ precision: 6 }, [0.123456789, 1e-6], 'tensor([1.234568e-01, 1.000000e-06])'],
    [{ sciMode: true }, [1.5, 2000.25], 'tensor([1.5000e+00, 2.0002e+03])'],
    [{ sciMode: false }, [1e-5, 2000.25], 'tensor([   0.0000, 2000.2500])'],
    [{ sciMode: true }, [1.0, 2.0], 'tensor([1.0000e+00, 2.0000e+00])'],
    [
      { threshold: 5, edgeitems: 2 },
      [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0],
      'tensor([ 0.,  1.,  ..., 10., 11.])',
    ],
    [
      { threshold: 5 },
      [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0],
      'tensor([ 0.,  1.,  2.,  ...,  9., 10., 11.])',
    ],
    [
      { linewidth: 40 },
      [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 2.75],
      'tensor([0.0000, 0.2500, 0.5000, 0.7500,\n        1.0000, 1.2500, 1.5000, 1.7500,\n        2.0000, 2.2500, 2.5000, 2.7500])',
    ],
    [{ profile: 'short' }, [0.123456, 5.0], 'tensor([0.12, 5.00])'],
  ])('%j', (options, values, expected) =>
    scope(() => {
      setPrintoptions(options as never)
      expect(tensor(values as number[], { dtype: 'float32' }).toString()).toBe(expected)
    }),
  )

  test('refuses what is no option', () => {
    expect(() => setPrintoptions({ precision: -1 })).toThrow(ConfigError)
    expect(() => setPrintoptions({ profile: 'long' as never })).toThrow(/'default', 'short', 'full'/)
    expect(() => setPrintoptions({ sciMode: 1 as never })).toThrow(ConfigError)
    expect(() => setPrintoptions({ width: 80 } as never)).toThrow(ConfigError)
  })
})

describe('setDefaultDtype', () => {
  afterEach(() => {
    setDefaultDtype('float32')
  })

  test('holds for new tensors, layers and quotients of integers', () =>
    scope(() => {
      expect(getDefaultDtype()).toBe('float32')
      setDefaultDtype('float64')
      expect(getDefaultDtype()).toBe('float64')
      const made = [zeros([2]), randn([2]), tensor([1.5]), tensor([]), tensor([1, 2]).div(2), ops.linspace(0, 1, 3)]
      expect(made.map(({ dtype }) => dtype)).toEqual(Array(6).fill('float64'))
      expect(tensor([{ re: 1, im: 0 }]).dtype).toBe('complex128')
      expect(tensor([1, 2]).dtype).toBe('int64')
      using layer = new Linear(2, 2)
      expect(layer.forward(tensor([[0.5, 2]])).dtype).toBe('float64')
      expect(zeros([1], { dtype: 'float32' }).dtype).toBe('float32')
    }))

  test.each(['float64', 'bfloat16'] as const)('%s leaves networks and their generation alone', async (dtype) => {
    const config = { vocabSize: 40, hiddenSize: 32, intermediateSize: 48, numHiddenLayers: 1, numAttentionHeads: 2 }
    using model = DecoderLM.fromConfig({ ...config, numKeyValueHeads: 2, headDim: 16 }, { seed: 3, dtype: 'float32' })
    const run = async () => {
      const { sequences } = await model.generate(
        { inputIds: tensor([[1, 2, 3]]) },
        { maxNewTokens: 6, eosTokenId: null },
      )
      const { logits } = await model.forward({ inputIds: sequences })
      return [logits?.dtype, sequences.toArray(), logits?.toArray()]
    }
    const before = await run()
    setDefaultDtype(dtype)
    expect(await run()).toEqual(before)
  })

  test('refuses other dtypes', () => {
    expect(() => setDefaultDtype('int64')).toThrow(ConfigError)
    expect(() => setDefaultDtype('double' as never)).toThrow(ConfigError)
  })
})

test('useDeterministicAlgorithms is on until it is off', () => {
  expect(areDeterministicAlgorithmsEnabled()).toBe(false)
  useDeterministicAlgorithms(true, { warnOnly: true })
  expect(areDeterministicAlgorithmsEnabled()).toBe(true)
  useDeterministicAlgorithms(false)
  expect(areDeterministicAlgorithmsEnabled()).toBe(false)
  expect(() => useDeterministicAlgorithms('yes' as never)).toThrow(ConfigError)
})
