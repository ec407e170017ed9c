import { execFile } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import { promisify } from 'node:util'
import { describe, expect, it, vi } from 'vitest'
import {
  ConfigError,
  DataError,
  DataLoader,
  type DataLoaderOptions,
  memoryStats,
  padCollate,
  RandomSampler,
  randomSplit,
  scope,
  type Tensor,
  tensor,
} from '../../lib/index.js'
import { settledTensors } from '../helpers.js'
import { PATIENCE } from '../patience.js'

const numbersTo = (n: number) => Array.from({ length: n }, (_, i) => i)

async function all<T, B>(loader: DataLoader<T, B>): Promise<B[]> {
  const batches: B[] = []
  for await (const batch of loader) batches.push(batch)
  return batches
}

describe('DataLoader', () => {
  it('goes through a dataset in order', async () => {
    const loader = new DataLoader(numbersTo(5), { batchSize: 2 })
    expect(loader.length).toBe(3)
    expect(await all(loader)).toEqual([[0, 1], [2, 3], [4]])
    const full = new DataLoader(numbersTo(5), { batchSize: 2, dropLast: true })
    expect(full.length).toBe(2)
    expect(await all(full)).toEqual([
      [0, 1],
      [2, 3],
    ])
    expect(await all(new DataLoader([]))).toEqual([])
  })

  it('shuffles by seed and epoch, the same way each time', async () => {
    const options = { batchSize: 7, shuffle: true, seed: 5 }
    const loader = new DataLoader(numbersTo(100), options)
    const first = await all(loader)
    const second = await all(loader)
    expect(first.flat().sort((a, b) => a - b)).toEqual(numbersTo(100))
    expect(first.flat()).not.toEqual(numbersTo(100))
    expect(second).not.toEqual(first)
    expect(loader.epoch).toBe(2)
    const again = new DataLoader(numbersTo(100), options)
    again.setEpoch(1)
    expect(await all(again)).toEqual(second)
    expect(await all(new DataLoader(numbersTo(100), { ...options, seed: 6 }))).not.toEqual(first)
    // The orders are part of what a release promises.
    expect(await all(new DataLoader(numbersTo(8), { batchSize: 8, shuffle: true, seed: 1 }))).toEqual([
      [0, 4, 5, 1, 3, 2, 6, 7],
    ])
  })

  it('puts samples of like length together', async () => {
    const lengths = numbersTo(1000).map((i) => (i * 7919) % 100)
    const padding = (batches: number[][]) =>
      batches.reduce((sum, batch) => {
        const longest = Math.max(...batch.map((i) => lengths[i] as number))
        return sum + batch.reduce((short, i) => short + longest - (lengths[i] as number), 0)
      }, 0)
    const options = { batchSize: 8, shuffle: true, seed: 1 }
    const plain = await all(new DataLoader(numbersTo(1000), options))
    const loader = new DataLoader(numbersTo(1000), {
      ...options,
      lengthBuckets: { lengthOf: lengths, bucketSize: 200 },
    })
    const bucketed = await all(loader)
    expect(bucketed.flat().sort((a, b) => a - b)).toEqual(numbersTo(1000))
    expect(padding(bucketed)).toBeLessThan(padding(plain) / 5)
    // Short and long batches come mixed.
    const means = bucketed.map((batch) => Math.max(...batch.map((i) => lengths[i] as number)))
    expect(means.slice(0, 60).some((m) => m > 80) && means.slice(0, 60).some((m) => m < 20)).toBe(true)
    expect(await all(loader)).not.toEqual(bucketed)
    loader.setEpoch(0)
    expect(await all(loader)).toEqual(bucketed)
    const sorted = await all(
      new DataLoader(numbersTo(10), { batchSize: 5, lengthBuckets: { lengthOf: (i) => -i, bucketSize: 10 } }),
    )
    expect(sorted).toEqual([
      [9, 8, 7, 6, 5],
      [4, 3, 2, 1, 0],
    ])
  })

  it('reads in the order of a sampler', async () => {
    const loader = new DataLoader(numbersTo(10), { batchSize: 2, sampler: [3, 3, 1] })
    expect(loader.length).toBe(2)
    expect(await all(loader)).toEqual([[3, 3], [1]])
    const changing = new DataLoader(numbersTo(10), { sampler: (epoch) => [epoch] })
    expect([await all(changing), await all(changing)]).toEqual([[[0]], [[1]]])
    expect(() => changing.length).toThrow(ConfigError)
    await expect(all(new DataLoader([1], { sampler: [1] }))).rejects.toThrow(/from the sampler, got 1/)
  })

  it('frees each batch when the next is asked for, and the last', async () => {
    const samples = numbersTo(10).map((i) => ({ ids: [i, i + 1], label: i }))
    const collate = padCollate({ ids: { pad: 0 }, label: {} })
    const before = await settledTensors()
    let previous: Tensor | undefined
    for await (const batch of new DataLoader(samples, { batchSize: 2, collate })) {
      expect(memoryStats().liveTensors).toBe(before + 3)
      expect(previous?.disposed ?? true).toBe(true)
      previous = batch.ids
    }
    expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
    for await (const _ of new DataLoader(samples, { collate })) break
    expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
    await scope(async () => {
      const loader = new DataLoader(samples, { batchSize: 5, collate, freeBatches: false })
      const kept = await all(loader)
      expect(kept.map((batch) => batch.label.toArray())).toEqual([
        [0, 1, 2, 3, 4],
        [5, 6, 7, 8, 9],
      ])
    })
    expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
  })

  it('makes the next batch while the loop has this one, where it is told to', async () => {
    const samples = numbersTo(9)
    for (const freeBatches of [true, false]) {
      const told: string[] = []
      const before = await settledTensors()
      const collate = async (some: number[]) => {
        told.push(`read ${some[0]}`)
        await sleep(5)
        return tensor(some)
      }
      const loader = new DataLoader<number, Tensor>(samples, { batchSize: 3, collate, collateAhead: true, freeBatches })
      const given: number[][] = []
      const rows = loader[Symbol.asyncIterator]()
      // Each batch is asked for in a scope of its own, which ends while the next is being made.
      for (let more = true; more; ) {
        await scope(async () => {
          const { value, done } = await rows.next()
          if (done || value === undefined) {
            more = false
            return
          }
          told.push(`have ${value.size(0)}`)
          expect(loader.state().position).toBe(given.length + 1)
          given.push(value.toArray() as number[])
          const { length } = given
          if (length < 3) await vi.waitFor(() => expect(told.at(-1)).toBe(`read ${3 * length}`), PATIENCE)
        })
      }
      expect(given).toEqual([
        [0, 1, 2],
        [3, 4, 5],
        [6, 7, 8],
      ])
      expect(told).toEqual(['read 0', 'have 3', 'read 3', 'have 3', 'read 6', 'have 3'])
      expect(await settledTensors()).toBe(before)
      // What was made ahead goes with the loop, and where it fails that is told in its turn.
      for await (const _ of new DataLoader(samples, { batchSize: 2, collate, collateAhead: true })) break
      expect(await settledTensors()).toBe(before)
      const failing = new DataLoader<number, Tensor>(samples, {
        ...{ batchSize: 3, collateAhead: true },
        collate: (some) => (some[0] === 3 ? Promise.reject(new Error('three')) : collate(some)),
      })
      const seen: number[] = []
      const through = (async () => {
        for await (const batch of failing) seen.push(batch.size(0))
      })()
      await expect(through).rejects.toThrow('three')
      expect(seen).toEqual([3])
      for await (const _ of failing) break
    }
    expect(() => new DataLoader([1], { collateAhead: 1 as never })).toThrow(/collateAhead/)
  })

  it('does not free the tensors of a dataset', async () => {
    const samples = [tensor([1]), tensor([2])]
    for await (const batch of new DataLoader(samples, { collate: (list) => ({ list }) })) {
      expect(batch.list).toHaveLength(1)
    }
    expect(samples.map((sample) => sample.disposed)).toEqual([false, false])
    for (const sample of samples) sample.dispose()
  })

  it('lets timers run between batches', async () => {
    let ticks = 0
    const timer = setInterval(() => ticks++, 0)
    for await (const _ of new DataLoader(numbersTo(2000))) if (ticks > 2) break
    clearInterval(timer)
    expect(ticks).toBeGreaterThan(2)
  })

  it('says which sample failed', async () => {
    const dataset = {
      length: 10,
      get(index: number) {
        if (index >= 4) throw new RangeError(`bad row ${index}`)
        return index
      },
    }
    const seen: number[][] = []
    const run = async () => {
      for await (const batch of new DataLoader(dataset, { batchSize: 3 })) seen.push(batch)
    }
    const error = await run().catch((caught: unknown) => caught)
    expect(error).toBeInstanceOf(DataError)
    expect(error).toMatchObject({
      index: 4,
      message: expect.stringContaining('bad row 4'),
      cause: expect.any(RangeError),
    })
    expect(seen).toEqual([[0, 1, 2]])
  })

  it('refuses bad options', () => {
    const make = (options: DataLoaderOptions<number, number[]>) => () => new DataLoader([1], options)
    for (const batchSize of [0, -1, 1.5, Number.NaN]) expect(make({ batchSize })).toThrow(ConfigError)
    expect(make({ seed: -1 })).toThrow(ConfigError)
    expect(make({ workers: 2 })).toThrow(/URL/)
    expect(make({ shuffle: true, sampler: [0] })).toThrow(/got both/)
    expect(make({ batchSize: 4, lengthBuckets: { lengthOf: [1], bucketSize: 6 } })).toThrow(/multiple/)
    expect(() => new DataLoader({ length: 3 } as never)).toThrow(DataError)
  })
})

interface Square {
  index: number
  epoch: number
  threadId: number
  values: Float32Array
  bytes: Uint8Array
  big: BigInt64Array
  words: string[]
}

describe('DataLoader with workers', () => {
  const url = (name: string) => new URL(`./modules/${name}.mjs`, import.meta.url)
  const squares = <B = Square[]>(options: DataLoaderOptions<Square, B> = {}) =>
    new DataLoader<Square, B>(url('squares'), { workers: 2, batchSize: 3, ...options })

  it('gives what one thread gives, in the same order, whatever the timing', async () => {
    const workerData = { slow: { 0: 60, 4: 30, 7: 1 } }
    const loader = await squares({ workerData }).ready()
    expect(loader.length).toBe(7)
    const [there, here] = [await all(loader), await all(squares({ workers: 0 }))]
    expect(there.map((batch) => batch.map(({ threadId, ...rest }) => rest))).toEqual(
      here.map((batch) => batch.map(({ threadId, bytes, ...rest }) => ({ ...rest, bytes: new Uint8Array(bytes) }))),
    )
    expect(there.map((batch) => new Set(batch.map(({ threadId }) => threadId)).size)).toEqual([1, 1, 1, 1, 1, 1, 1])
    expect(new Set(there.flat().map(({ threadId }) => threadId)).size).toBe(2)
  })

  it('shares the memory of typed arrays and makes tensors of them', async () => {
    const [batch] = (await all(squares({ batchSize: 20 }))) as [Square[]]
    const buffers = new Set(batch.flatMap(({ values, bytes, big }) => [values.buffer, bytes.buffer, big.buffer]))
    expect(buffers.size).toBe(1)
    expect([...buffers][0]).toBeInstanceOf(SharedArrayBuffer)
    const before = await settledTensors()
    const collate = padCollate({ values: { pad: -1 }, index: {} })
    const shapes: number[][] = []
    for await (const { values, index } of squares({ collate, shuffle: true })) {
      shapes.push(values.shape)
      const [first] = index.toArray() as number[]
      expect((values.toArray() as number[][])[0]?.slice(0, (first as number) + 1)).toEqual(
        numbersTo((first as number) + 1).map((i) => i * i),
      )
    }
    expect(shapes).toHaveLength(7)
    expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
  })

  it('loads arrays and default exports, in workers and without', async () => {
    for (const workers of [0, 1]) {
      expect(await all(new DataLoader(url('plain'), { workers, batchSize: 2 }))).toEqual([[10, 20], [30]])
    }
    expect(() => new DataLoader(url('plain')).length).toThrow(/ready/)
  })

  it('gives the epoch to the dataset', async () => {
    const loader = squares({ batchSize: 20, workers: 1 })
    loader.setEpoch(3)
    expect((await all(loader))[0]?.[0]?.epoch).toBe(3)
    expect((await all(loader))[0]?.[0]?.epoch).toBe(4)
  })

  it('reports a sample that fails, its index and the cause, after the batches before it', async () => {
    const seen: number[] = []
    const run = async () => {
      for await (const batch of squares({ workerData: { fail: [11, 10], slow: { 10: 20 } } })) {
        seen.push(...batch.map(({ index }) => index))
      }
    }
    const error = await run().catch((caught: unknown) => caught)
    expect(error).toBeInstanceOf(DataError)
    expect(error).toMatchObject({ index: 10, message: expect.stringContaining('no square for 10') })
    expect((error as Error).cause).toMatchObject({ name: 'RangeError', stack: expect.stringContaining('squares.mjs') })
    expect(seen).toEqual(numbersTo(9))
  })

  it('reports what cannot leave a worker', async () => {
    await expect(all(squares({ workerData: { bad: 1 } }))).rejects.toThrow(
      /sample 1 .*a Map at sample\.nested\[0\]\.map/,
    )
  })

  it('reports a worker that ends and modules that do not load', async () => {
    await expect(all(squares({ workerData: { exit: 5 } }))).rejects.toThrow(/ended with code 3/)
    for (const workers of [0, 2]) {
      await expect(all(new DataLoader(url('broken'), { workers }))).rejects.toThrow(
        /expected to load the dataset module .*, got the file is gone/,
      )
      await expect(all(new DataLoader(url('nothing'), { workers }))).rejects.toThrow(/expected a dataset/)
      await expect(all(new DataLoader(url('missing'), { workers }))).rejects.toThrow(DataError)
    }
  })

  it('keeps workers between epochs when asked to', async () => {
    const loader = squares({ persistentWorkers: true })
    const threads = (batches: Square[][]) => new Set(batches.flat().map(({ threadId }) => threadId))
    const first = threads(await all(loader))
    expect(threads(await all(loader))).toEqual(first)
    await loader.close()
    expect(threads(await all(loader))).not.toEqual(first)
    await loader.close()
  })

  it('ends its workers when the loop is left, and never keeps the process alive', async () => {
    const script = `
      import { DataLoader } from ${JSON.stringify(new URL('../../dist/modules/data/index.js', import.meta.url).href)}
      const make = (workerData) => new DataLoader(new URL(${JSON.stringify(url('squares').href)}), { workers: 2, workerData })
      const workers = () => process.getActiveResourcesInfo().filter((name) => name === 'MessagePort').length
      for await (const [{ index }] of make({ length: 1000, delay: 1 })) if (index === 5) break
      await new Promise((resolve) => setTimeout(resolve, 50))
      console.log('left', workers())
      const iterator = make({ length: 1000, delay: 1 })[Symbol.asyncIterator]()
      await iterator.next()
      await make({}).ready()
      console.log('abandoned')
    `
    const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '--eval', script], {
      timeout: PATIENCE,
    })
    expect(stdout.trim().split('\n')).toEqual(['left 0', 'abandoned'])
  })
})

describe('what no loader can do', () => {
  const endless = { length: 1e15, get: (index: number) => index }

  it('a dataset of 1e15 samples is read in turn, and no other order of it can be held', async () => {
    const loader = new DataLoader(endless, { batchSize: 3 })
    expect(loader.length).toBe(Math.ceil(1e15 / 3))
    for await (const batch of loader) {
      expect(batch).toEqual([0, 1, 2])
      break
    }
    const first = async (options: object) => {
      for await (const batch of new DataLoader(endless, options)) return batch
    }
    for (const options of [{ shuffle: true }, { lengthBuckets: { lengthOf: () => 1 } }, { batchSize: 1e15 }]) {
      await expect(first(options)).rejects.toThrow(ConfigError)
    }
    expect(() => new RandomSampler(endless)).toThrow(ConfigError)
    expect(() => randomSplit(endless, [0.5, 0.5])).toThrow(ConfigError)
  })

  it.each([
    'null',
    '7',
    "'text'",
    '[]',
    '{}',
    '{ batch: 0 }',
    '{ batch: 0, samples: 5 }',
    '{ length: -1 }',
    '{ batch: 0, samples: [], failures: [{ place: 9 }] }',
  ])('a dataset module that posts %s to the loader is a DataError, and the process goes on', async (message) => {
    const folder = mkdtempSync(join(tmpdir(), 'voxtorch-posts-'))
    const file = join(folder, 'posts.mjs')
    writeFileSync(
      file,
      `import { parentPort } from 'node:worker_threads'
        export const dataset = {
          length: 4,
          get(index) {
            parentPort.postMessage(${message})
            return new Promise((resolve) => setTimeout(resolve, 50, index))
          },
        }`,
    )
    try {
      const all = async () => {
        for await (const _ of new DataLoader(pathToFileURL(file), { workers: 1 }));
      }
      await expect(all()).rejects.toThrow(DataError)
      await expect(all()).rejects.toThrow(/no other messages on the worker's port, got .* from .*posts\.mjs/)
    } finally {
      rmSync(folder, { recursive: true })
    }
  })
})
