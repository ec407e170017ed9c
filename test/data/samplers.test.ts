import { describe, expect, it } from 'vitest'
import { packBins } from '../../lib/data/pack.js'
import {
  BatchSampler,
  ConfigError,
  DataError,
  DataLoader,
  PackedBatchSampler,
  RandomSampler,
  SequentialSampler,
  TokenBatchSampler,
  WeightedRandomSampler,
} from '../../lib/index.js'

const numbersTo = (n: number) => Array.from({ length: n }, (_, i) => i)
const sorted = (list: Iterable<number>) => [...list].sort((a, b) => a - b)

async function all<T, B>(loader: DataLoader<T, B>): Promise<B[]> {
  const batches: B[] = []
  for await (const batch of loader) batches.push(batch)
  return batches
}

describe('samplers', () => {
  it('go through a dataset in order or at random', async () => {
    expect([...new SequentialSampler([7, 8, 9]).indices()]).toEqual([0, 1, 2])
    const sampler = new RandomSampler(50, { seed: 3 })
    const [first, second] = [[...sampler.indices(0)], [...sampler.indices(1)]]
    expect(sorted(first)).toEqual(numbersTo(50))
    expect(first).not.toEqual(numbersTo(50))
    expect(second).not.toEqual(first)
    expect([...new RandomSampler(50, { seed: 3 }).indices(0)]).toEqual(first)
    expect([...new RandomSampler(50, { seed: 4 }).indices(0)]).not.toEqual(first)
    const long = [...new RandomSampler(10, { numSamples: 25 }).indices(0)]
    expect(sorted(long.slice(0, 10))).toEqual(numbersTo(10))
    expect(sorted(long.slice(10, 20))).toEqual(numbersTo(10))
    expect(new Set(long.slice(20)).size).toBe(5)
    const loader = new DataLoader(numbersTo(50), { batchSize: 7, sampler })
    expect(loader.length).toBe(8)
    expect((await all(loader)).flat()).toEqual(first)
    expect((await all(loader)).flat()).toEqual(second)
  })

  it('draw uniformly with replacement', () => {
    const drawn = [...new RandomSampler(10, { replacement: true, numSamples: 20_000, seed: 1 }).indices(0)]
    const counts = numbersTo(10).map((i) => drawn.filter((index) => index === i).length)
    // Chi-squared with 9 degrees of freedom: above 27.9 once in a thousand.
    expect(counts.reduce((sum, count) => sum + (count - 2000) ** 2 / 2000, 0)).toBeLessThan(27.9)
    expect(new Set(drawn.slice(0, 10)).size).toBeLessThan(10)
  })

  it('draw in proportion to weights', () => {
    const weights = [1, 0, 4, 2.5, 0.5, 2]
    const drawn = [...new WeightedRandomSampler(weights, 20_000, { seed: 2 }).indices(0)]
    const counts = weights.map((_, i) => drawn.filter((index) => index === i).length)
    expect(counts[1]).toBe(0)
    const chi = weights.reduce((sum, weight, i) => {
      const expected = weight * 2000
      return expected === 0 ? sum : sum + ((counts[i] as number) - expected) ** 2 / expected
    }, 0)
    // Four degrees of freedom: above 18.5 once in a thousand.
    expect(chi).toBeLessThan(18.5)
    expect([...new WeightedRandomSampler(weights, 100, { seed: 2 }).indices(0)]).toEqual(drawn.slice(0, 100))
    expect([...new WeightedRandomSampler(weights, 100, { seed: 2 }).indices(1)]).not.toEqual(drawn.slice(0, 100))
  })

  it('draw weights without replacement one after the other', () => {
    // Two of the weights 1, 2, 3: {0, 1} comes with probability 1/6 · 2/5 + 2/6 · 1/4 = 0.15.
    const pairs = { '0,1': 0, '0,2': 0, '1,2': 0 }
    const sampler = new WeightedRandomSampler([1, 2, 3], 2, { replacement: false, seed: 5 })
    for (let epoch = 0; epoch < 10_000; epoch++) pairs[sorted(sampler.indices(epoch)).join() as keyof typeof pairs]++
    const expected = { '0,1': 1500, '0,2': 10_000 * (1 / 10 + 1 / 6), '1,2': 10_000 * (1 / 4 + 1 / 3) }
    const chi = Object.entries(pairs).reduce((sum, [key, count]) => {
      const wanted = expected[key as keyof typeof expected]
      return sum + (count - wanted) ** 2 / wanted
    }, 0)
    expect(chi).toBeLessThan(13.8)
  })

  it('make batches', async () => {
    const batches = new BatchSampler(new SequentialSampler(5), { batchSize: 2 })
    expect(batches.length).toBe(3)
    const loader = new DataLoader(numbersTo(5), { batchSampler: batches })
    expect(loader.length).toBe(3)
    expect(await all(loader)).toEqual([[0, 1], [2, 3], [4]])
    const full = new BatchSampler(numbersTo(5), { batchSize: 2, dropLast: true })
    expect([full.length, [...full.batches(0)].length]).toEqual([2, 2])
    const odd = new BatchSampler((epoch) => [epoch, 9], { batchSize: 1 })
    expect(odd.length).toBeUndefined()
    const wrong = new DataLoader(numbersTo(5), { batchSampler: odd })
    expect(() => wrong.length).toThrow(ConfigError)
    await expect(all(wrong)).rejects.toThrow(/from the sampler, got 9/)
    await expect(all(wrong)).rejects.toThrow(DataError)
  })

  it('fill batches with tokens', () => {
    const lengths = numbersTo(500).map((i) => 1 + ((i * 7919) % 97))
    const sampler = new TokenBatchSampler({ lengths, maxTokens: 300, maxSamples: 20, shuffle: true, seed: 1 })
    const orders = [0, 1].map((epoch) => [...sampler.batches(epoch)])
    for (const batches of orders) {
      expect(batches).toHaveLength(sampler.length)
      expect(sorted(batches.flat())).toEqual(numbersTo(500))
      for (const batch of batches) {
        expect(Math.max(...batch.map((i) => lengths[i] as number)) * batch.length).toBeLessThanOrEqual(300)
        expect(batch.length).toBeLessThanOrEqual(20)
      }
      const padded = batches.reduce((sum, b) => sum + Math.max(...b.map((i) => lengths[i] as number)) * b.length, 0)
      expect(padded).toBeLessThan(1.05 * lengths.reduce((sum, length) => sum + length, 0))
    }
    expect(orders[0]).not.toEqual(orders[1])
    expect([...sampler.batches(0)]).toEqual(orders[0])
    expect([...new TokenBatchSampler({ lengths: [3, 1, 2], maxTokens: 4 }).batches(0)]).toEqual([[1, 2], [0]])
    expect([...new TokenBatchSampler({ lengths: [], maxTokens: 4 }).batches(0)]).toEqual([])
    expect(() => new TokenBatchSampler({ lengths: [2, 9], maxTokens: 8 })).toThrow(/got 9 for sample 1/)
  })

  it('refuse what makes no sense', () => {
    expect(() => new SequentialSampler(-1)).toThrow(ConfigError)
    expect(() => new RandomSampler(0, { numSamples: 1 })).toThrow(ConfigError)
    expect(() => new WeightedRandomSampler([1, -1], 1)).toThrow(/weights\[1\]/)
    expect(() => new WeightedRandomSampler([0, 0], 1)).toThrow(/sum of the weights above 0, got 0/)
    expect(() => new WeightedRandomSampler([1e308, 1e308], 1)).toThrow(ConfigError)
    expect(() => new WeightedRandomSampler([1, 0], 2, { replacement: false })).toThrow(ConfigError)
    expect(() => new BatchSampler(3 as never, { batchSize: 1 })).toThrow(ConfigError)
    const batchSampler = new BatchSampler([0], { batchSize: 1 })
    expect(() => new DataLoader([1], { batchSampler, batchSize: 2 })).toThrow(/got both/)
    expect(() => new DataLoader([1], { batchSampler: {} as never })).toThrow(ConfigError)
  })
})

describe('packing', () => {
  it('puts each length into the first bin with room', () => {
    expect(packBins([4, 8, 1, 4, 2, 1], 10)).toEqual([
      [0, 2, 3, 5],
      [1, 4],
    ])
    expect(packBins([], 10)).toEqual([])
    expect(packBins([0, 10, 0], 10)).toEqual([[0, 1, 2]])
    expect(() => packBins([11], 10)).toThrow(ConfigError)
    // The tree finds what looking at every bin finds.
    const lengths = numbersTo(300).map((i) => ((i * 7919) % 60) + 1)
    const plain: number[][] = []
    const sum = (bin: number[]) => bin.reduce((total, i) => total + (lengths[i] as number), 0)
    lengths.forEach((length, i) => {
      const bin = plain.find((one) => sum(one) + length <= 100)
      if (bin) bin.push(i)
      else plain.push([i])
    })
    expect(packBins(lengths, 100)).toEqual(plain)
  })

  it('makes rows of nearly full length, the same number each epoch', () => {
    const lengths = numbersTo(400).map((i) => ((i * 7919) % 90) + 1)
    const sampler = new PackedBatchSampler({ lengths, maxLength: 128, shuffle: true, seed: 2 })
    const total = lengths.reduce((sum, length) => sum + length, 0)
    expect(sampler.length).toBeLessThan(1.05 * Math.ceil(total / 128))
    const epochs = [0, 1].map((epoch) => [...sampler.batches(epoch)])
    for (const rows of epochs) {
      expect(rows).toHaveLength(sampler.length)
      expect(sorted(rows.flat())).toEqual(numbersTo(400))
      for (const row of rows) expect(row.reduce((sum, i) => sum + (lengths[i] as number), 0)).toBeLessThanOrEqual(128)
    }
    expect(epochs[0]).not.toEqual(epochs[1])
  })
})
