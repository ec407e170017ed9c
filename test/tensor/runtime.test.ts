import { describe, expect, test } from 'vitest'
import {
  cuda,
  DeviceError,
  getRngState,
  manualSeed,
  ones,
  ops,
  profile,
  randn,
  scope,
  setRngState,
  zeros,
} from '../../lib/index.js'

describe('random numbers', () => {
  test('the state is saved and restored', () =>
    scope(() => {
      manualSeed(1)
      randn([3])
      const state = getRngState()
      expect(state.dtype).toBe('uint8')
      const first = randn([5]).toArray()
      expect(randn([5]).toArray()).not.toEqual(first)
      setRngState(state)
      expect(randn([5]).toArray()).toEqual(first)
    }))

  test('queued jobs draw from the same seed, in their order', () =>
    scope(async () => {
      const draw = async () => {
        manualSeed(9)
        const [a, b] = await Promise.all([ops.async.randn([3]), ops.async.rand([3])])
        return [a.toArray(), b.toArray()]
      }
      expect(await draw()).toEqual(await draw())
    }))

  test('a state that is none', () =>
    scope(() => {
      expect(() => setRngState(ones([3]))).toThrow(expect.objectContaining({ code: expect.stringMatching(/^ERR_/) }))
      expect(() => setRngState(zeros([8], { dtype: 'uint8' }))).toThrow(
        expect.objectContaining({ code: expect.stringMatching(/^ERR_/) }),
      )
      expect(() => setRngState(3 as never)).toThrow(expect.objectContaining({ code: 'ERR_CONFIG' }))
    }))
})

describe('profile', () => {
  test('measures calls and jobs, and counts them', () =>
    scope(async () => {
      const { result, rows } = await profile(async () => {
        ones([2, 2]).matmul(ones([2, 2]))
        return (await ops.async.matmul(ones([2, 2]), ones([2, 2]))).sum().item()
      })
      expect(result).toBe(8)
      expect(rows.find((row) => row.name === 'aten::matmul')!.calls).toBe(2)
      expect(rows.find((row) => row.name === 'aten::ones')!.calls).toBe(4)
      for (const row of rows) expect(row.totalMicroseconds).toBeGreaterThanOrEqual(row.selfMicroseconds)
    }))

  test('does not nest, and ends after errors', async () => {
    await expect(profile(() => profile(() => 1))).rejects.toThrow(/nest/)
    await expect(
      profile(() => {
        throw new Error('mine')
      }),
    ).rejects.toThrow('mine')
    expect((await profile(() => 5)).result).toBe(5)
  })
})

describe.skipIf(cuda.isAvailable())('without CUDA', () => {
  test('says why', () => {
    expect(cuda.deviceCount()).toBe(0)
    expect(cuda.unavailableReason()).toMatch(/CPU variant|CPU build|NVIDIA/)
    expect(() => cuda.synchronize()).toThrow(DeviceError)
  })
})
