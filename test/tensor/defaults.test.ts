import { afterEach, describe, expect, test } from 'vitest'
import {
  ConfigError,
  getDefaultDevice,
  Linear,
  ones,
  ops,
  randn,
  scope,
  setDefaultDevice,
  setPrintoptions,
  tensor,
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
