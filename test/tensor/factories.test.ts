import { describe, expect, test } from 'vitest'
import {
  arange,
  asFloat,
  ConfigError,
  empty,
  eye,
  full,
  fullLike,
  Generator,
  linspace,
  manualSeed,
  ones,
  onesLike,
  rand,
  randint,
  randn,
  randperm,
  scope,
  tensor,
  VoxtorchError,
  withDevice,
  zeros,
  zerosLike,
} from '../../lib/index.js'

describe('factories', () => {
  test('fill', () =>
    scope(() => {
      expect(zeros([2, 1]).toArray()).toEqual([[0], [0]])
      expect(ones([2], { dtype: 'bool' }).toArray()).toEqual([true, true])
      expect(full([2], 7).dtype).toBe('int64')
      expect(full([2], 7.5).dtype).toBe('float32')
      expect(full([1], true).dtype).toBe('bool')
      expect(full([1], { re: 1, im: 2 }).toArray()).toEqual([{ re: 1, im: 2 }])
      expect(full([1], 2n ** 53n + 1n).item()).toBe(2n ** 53n + 1n)
      expect(full([1], asFloat(2)).dtype).toBe('float32')
      expect(empty([3, 2], { dtype: 'int16' }).shape).toEqual([3, 2])
      expect(arange(3).toArray()).toEqual([0, 1, 2])
      expect(arange(1, 2, 0.5).toArray()).toEqual([1, 1.5])
      expect(arange(3, { dtype: 'float64' }).dtype).toBe('float64')
      expect(arange(1, 3, { requiresGrad: true, dtype: 'float32' }).requiresGrad).toBe(true)
      expect(linspace(0, 1, 3).toArray()).toEqual([0, 0.5, 1])
      expect(eye(2).toArray()).toEqual([
        [1, 0],
        [0, 1],
      ])
      expect(eye(1, 2, { dtype: 'int32' }).toArray()).toEqual([[1, 0]])
      expect(eye(2, { dtype: 'bool' }).dtype).toBe('bool')
      expect(zeros([2], { requiresGrad: true }).requiresGrad).toBe(true)
      expect(zeros([2], { requiresGrad: false }).requiresGrad).toBe(false)
      expect(zeros([]).shape).toEqual([])
    }))

  test('like another', () =>
    scope(() => {
      const like = ones([2, 3], { dtype: 'float64' })
      expect(zerosLike(like).dtype).toBe('float64')
      expect(onesLike(like, { dtype: 'int8' }).dtype).toBe('int8')
      expect(fullLike(like, 2, { requiresGrad: true }).requiresGrad).toBe(true)
      expect(zerosLike(like, { device: 'meta' }).device).toBe('meta')
    }))

  test('randint counts from 0 unless there are two bounds', () =>
    scope(() => {
      const draw = (make: () => { toArray(): unknown }) => {
        manualSeed(3)
        return make().toArray()
      }
      expect(draw(() => randint(7, [5]))).toEqual(draw(() => randint(0, 7, [5])))
      expect(draw(() => randint(7, [5], { dtype: 'int32' }))).toEqual(draw(() => randint(0, 7, [5])))
      expect(() => randint(7 as never, 8 as never)).toThrow(VoxtorchError)
    }))

  test('a generator lives as long as somebody has it', async () => {
    const generator = new Generator({ seed: 3 })
    for (let i = 0; i < 3; i += 1) {
      ;(globalThis.gc as () => void)()
      // Finalizers run in a later turn of the loop.
      await new Promise((resolve) => setImmediate(resolve))
    }
    expect(generator.seed).toBe(3)
  })

  test('random numbers follow the seed and the generator', () =>
    scope(() => {
      manualSeed(3)
      const first = [rand([4]).toArray(), randn([4]).toArray(), randint(0, 100, [4]).toArray(), randperm(8).toArray()]
      manualSeed(3)
      expect([
        rand([4]).toArray(),
        randn([4]).toArray(),
        randint(0, 100, [4]).toArray(),
        randperm(8).toArray(),
      ]).toEqual(first)
      const generator = new Generator({ seed: 5 })
      const a = randn([4], { generator }).toArray()
      const state = generator.getState()
      const b = randn([4], { generator }).toArray()
      expect(b).not.toEqual(a)
      expect(randn([4], { generator: generator.setState(state) }).toArray()).toEqual(b)
      expect(randn([4], { generator: generator.manualSeed(5n) }).toArray()).toEqual(a)
      expect(generator.seed).toBe(5)
      expect((randperm(8).toArray() as number[]).sort()).toEqual([0, 1, 2, 3, 4, 5, 6, 7])
      generator.dispose()
      expect(() => randn([4], { generator })).toThrow(expect.objectContaining({ code: 'ERR_DISPOSED' }))
    }))

  test('as PyTorch draws them', () =>
    scope(() => {
      // torch.manual_seed(0): torch.randn(3), torch.rand(2), torch.randperm(5)
      manualSeed(0)
      expect(randn([3]).toArray()).toEqual([1.5409960746765137, -0.293428897857666, -2.1787893772125244])
    }))

  test('on the device of the context', () =>
    scope(() => {
      withDevice('meta', () => {
        expect(zeros([2]).device).toBe('meta')
        expect(tensor([1, 2]).device).toBe('meta')
        expect(arange(3).device).toBe('meta')
        expect(zeros([2], { device: 'cpu' }).device).toBe('cpu')
        expect(zerosLike(zeros([2], { device: 'cpu' })).device).toBe('cpu')
      })
      expect(zeros([2]).device).toBe('cpu')
    }))

  test('wrong seeds', () => {
    for (const seed of [1.5, Number.NaN, '1', null, 2 ** 60]) {
      expect(() => manualSeed(seed as number), String(seed)).toThrow(ConfigError)
      expect(() => new Generator({ seed: seed as number }), String(seed)).toThrow(ConfigError)
    }
  })
})
