import { describe, expect, it } from 'vitest'
import { DataLoader, type DataLoaderOptions, Random } from '../../lib/index.js'

const data = Array.from({ length: 41 }, (_, i) => i)
const read = async (options: DataLoaderOptions<number, number[]>, epoch = 0, from = 0, source: unknown = data) => {
  const loader = new DataLoader<number, number[]>(source as number[], options)
  loader.setEpoch(epoch, from)
  const batches: number[][] = []
  for await (const batch of loader) batches.push(batch)
  return batches
}
/** The shares of one batch put back together. */
const dealt = (shares: number[][][]) =>
  (shares[0] as number[][]).map((_, b) => {
    const parts = shares.map((share) => share[b] as number[])
    return Array.from(
      { length: parts.flat().length },
      (_, i) => parts[i % parts.length]?.[Math.floor(i / parts.length)],
    )
  })

describe('shard', () => {
  const random = new Random(4)
  const lengths = data.map(() => random.below(30))
  const orders: [string, DataLoaderOptions<number, number[]>][] = [
    ['in order', {}],
    ['shuffled', { shuffle: true, seed: 3 }],
    ['in buckets', { shuffle: true, lengthBuckets: { lengthOf: lengths } }],
    ['without the last', { shuffle: true, dropLast: true }],
    ['of a sampler', { sampler: [...data].reverse() }],
  ]
  it.each(orders)('divides the batches of one process, %s', async (_, options) => {
    for (const worldSize of [2, 4]) {
      for (const [epoch, from] of [
        [0, 0],
        [2, 3],
      ] as const) {
        const whole = await read({ ...options, batchSize: 8 }, epoch, from)
        const ranks = await Promise.all(
          Array.from({ length: worldSize }, (_, rank) =>
            read({ ...options, batchSize: 8, shard: { rank, worldSize } }, epoch, from),
          ),
        )
        // 41 samples: the batch of one is empty for all ranks but the first, and keeps its place.
        for (const share of ranks) expect(share.length).toBe(whole.length)
        expect(dealt(ranks)).toEqual(whole)
      }
    }
  })

  it('divides streams and whole batches', async () => {
    const stream = {
      async *[Symbol.asyncIterator]() {
        yield* data
      },
    }
    const batchSampler = { batches: () => [[5, 6, 7], [8], [1, 2]] }
    const shares = (options: DataLoaderOptions<number, number[]>, source: unknown) =>
      Promise.all([0, 1].map((rank) => read({ ...options, shard: { rank, worldSize: 2 } }, 0, 0, source)))
    expect(dealt(await shares({ batchSize: 8 }, stream))).toEqual(await read({ batchSize: 8 }))
    expect(await shares({ batchSampler }, data)).toEqual([
      [[5, 7], [8], [1]],
      [[6], [], [2]],
    ])
  })

  it('does not collate what is empty, and says whether data is divided', async () => {
    const shard = { rank: 1, worldSize: 2 }
    const loader = new DataLoader<number, number>([1, 2, 3], { batchSize: 2, shard, collate: ([first]) => first! * 10 })
    const batches: unknown[] = []
    for await (const batch of loader) batches.push(batch)
    expect(batches).toEqual([20, []])
    expect([loader.sharded, new DataLoader(data).sharded]).toEqual([true, false])
  })

  it('refuses what is no shard', () => {
    const make = (shard: unknown, batchSize = 4) => new DataLoader(data, { batchSize, shard: shard as never })
    expect(() => make({ rank: 2, worldSize: 2 })).toThrow(/shard\.rank/)
    expect(() => make({ rank: 0, worldSize: 0 })).toThrow(/shard\.worldSize/)
    expect(() => make({ rank: 0, worldSize: 3 })).toThrow(/multiple of shard\.worldSize 3/)
    expect(() => make(7)).toThrow(/shard/)
  })
})
