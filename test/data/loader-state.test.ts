import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import {
  BadRecord,
  ConfigError,
  DataError,
  DataLoader,
  type DataLoaderOptions,
  type DataLoaderState,
  jsonlStream,
  memoryStats,
  padCollate,
  RandomSampler,
  type Tensor,
  TokenBatchSampler,
} from '../../lib/index.js'
import { settledTensors } from '../helpers.js'

const numbersTo = (n: number) => Array.from({ length: n }, (_, i) => i)
const url = (name: string) => new URL(`./modules/${name}.mjs`, import.meta.url)
const directory = mkdtempSync(join(tmpdir(), 'voxtorch-loader-'))
afterAll(() => rmSync(directory, { recursive: true }))

async function all<T, B>(loader: DataLoader<T, B>): Promise<B[]> {
  const batches: B[] = []
  for await (const batch of loader) batches.push(batch)
  return batches
}

/** `all`, and the state inside the loop after each batch, as a checkpoint would hold it. */
async function traced<T>(loader: DataLoader<T>): Promise<{ batches: T[][]; states: DataLoaderState[] }> {
  const batches: T[][] = []
  const states: DataLoaderState[] = []
  for await (const batch of loader) {
    batches.push(batch)
    states.push(JSON.parse(JSON.stringify(loader.state())))
  }
  return { batches, states }
}

describe('DataLoader state', () => {
  const lengths = numbersTo(23).map((i) => (i * 7) % 11)
  const kinds: [string, () => DataLoader<number>][] = [
    ['in order', () => new DataLoader(numbersTo(23), { batchSize: 4 })],
    ['shuffled', () => new DataLoader(numbersTo(23), { batchSize: 4, shuffle: true, seed: 3 })],
    ['read ahead', () => new DataLoader(numbersTo(23), { batchSize: 4, shuffle: true, prefetch: 3 })],
    ['without a last part', () => new DataLoader(numbersTo(23), { batchSize: 4, dropLast: true, shuffle: true })],
    [
      'bucketed',
      () => new DataLoader(numbersTo(23), { batchSize: 4, shuffle: true, lengthBuckets: { lengthOf: lengths } }),
    ],
    [
      'with a sampler',
      () => new DataLoader(numbersTo(23), { batchSize: 4, sampler: new RandomSampler(23, { seed: 9 }) }),
    ],
    [
      'with batches by tokens',
      () =>
        new DataLoader(numbersTo(23), {
          batchSampler: new TokenBatchSampler({ lengths, maxTokens: 22, shuffle: true }),
        }),
    ],
    ['a stream', () => new DataLoader({ iterate: () => numbersTo(23) }, { batchSize: 4 })],
    ['a full stream', () => new DataLoader({ iterate: () => numbersTo(24) }, { batchSize: 4 })],
    ['a cut stream', () => new DataLoader({ iterate: () => numbersTo(23) }, { batchSize: 4, dropLast: true })],
    [
      'a mixed stream',
      () => new DataLoader({ iterate: () => numbersTo(23) }, { batchSize: 4, shuffleBuffer: 6, seed: 2 }),
    ],
    ['a stream in workers', () => new DataLoader(url('counting'), { batchSize: 4, workers: 2, shuffleBuffer: 5 })],
    ['in workers', () => new DataLoader(url('plain'), { workers: 2, shuffle: true })],
  ]

  it.each(kinds)('goes on exactly where it was: %s', async (_, make) => {
    const loader = make()
    const first = await traced(loader)
    const second = await traced(loader)
    expect(first.batches.length).toBeGreaterThan(1)
    for (const [epoch, { batches, states }] of [first, second].entries()) {
      for (const [i, state] of states.entries()) {
        expect(state).toMatchObject({ epoch, position: i + 1 })
        // Workers for every batch would take long.
        if (make().state().order.samples === undefined && i !== 1) continue
        const resumed = make()
        resumed.loadState(state)
        expect(await all(resumed)).toEqual(batches.slice(i + 1))
        expect(await all(resumed)).toEqual(epoch === 0 ? second.batches : await all(atEpoch(make(), 2)))
      }
    }
    expect(loader.state()).toMatchObject({ epoch: 2, position: 0 })
  })

  const atEpoch = (loader: DataLoader<number>, epoch: number) => {
    loader.setEpoch(epoch)
    return loader
  }

  it('is that of a loop that was left, until the next begins', async () => {
    const loader = new DataLoader(numbersTo(10), { batchSize: 2, shuffle: true })
    const whole = await all(new DataLoader(numbersTo(10), { batchSize: 2, shuffle: true }))
    let given = 0
    for await (const _ of loader) if (++given === 2) break
    const state = loader.state()
    expect(state).toMatchObject({ epoch: 0, position: 2 })
    const resumed = new DataLoader(numbersTo(10), { batchSize: 2, shuffle: true })
    resumed.loadState(state)
    expect(resumed.state()).toEqual(state)
    expect(await all(resumed)).toEqual(whole.slice(2))
    expect(resumed.state()).toMatchObject({ epoch: 1, position: 0 })
  })

  it('does not read what was given before', async () => {
    const read: number[] = []
    const dataset = {
      length: 10,
      get(index: number) {
        read.push(index)
        return index
      },
    }
    const loader = new DataLoader(dataset, { batchSize: 2 })
    loader.loadState({ ...loader.state(), position: 3 })
    expect(await all(loader)).toEqual([
      [6, 7],
      [8, 9],
    ])
    expect(read).toEqual([6, 7, 8, 9])
  })

  it('keeps the state of a sampler of one`s own', async () => {
    const sampler = () => {
      let drawn = 0
      return {
        length: 2,
        indices: () => [drawn++, drawn++],
        state: () => ({ drawn }),
        loadState: (state: { drawn: number }) => {
          drawn = state.drawn
        },
      }
    }
    const make = () => new DataLoader(numbersTo(10), { sampler: sampler() })
    const loader = make()
    await all(loader)
    let state: DataLoaderState | undefined
    for await (const batch of loader) {
      expect(batch).toEqual([2])
      state = loader.state()
      break
    }
    const resumed = make()
    resumed.loadState(JSON.parse(JSON.stringify(state)))
    expect([await all(resumed), await all(resumed)]).toEqual([[[3]], [[4], [5]]])
  })

  it('is refused by a loader with another order, and when damaged', () => {
    const state = new DataLoader(numbersTo(10), { batchSize: 2, shuffle: true }).state()
    const load =
      (options: DataLoaderOptions<number, number[]>, other = state, size = 10) =>
      () =>
        new DataLoader(numbersTo(size), options).loadState(other)
    expect(load({ batchSize: 2, shuffle: true })).not.toThrow()
    expect(load({ batchSize: 2, shuffle: true, prefetch: 4 })).not.toThrow()
    expect(load({ batchSize: 3, shuffle: true })).toThrow(/batchSize 3, as in this loader, got 2/)
    expect(load({ batchSize: 2, shuffle: true, seed: 1 })).toThrow(/seed/)
    expect(load({ batchSize: 2 })).toThrow(/shuffle/)
    expect(load({ batchSize: 2, shuffle: true }, state, 11)).toThrow(/samples/)
    const inOrder = new DataLoader(numbersTo(10), { batchSize: 2 }).state()
    const sampled = load({ batchSize: 2, sampler: numbersTo(10) }, inOrder)
    expect(sampled).toThrow(/expected a state with sampler ['"]indices['"], as in this loader, got ['"]none['"]/)
    for (const broken of [null, {}, { ...state, position: -1 }, { ...state, order: null }, { ...state, epoch: 'a' }]) {
      expect(load({ batchSize: 2, shuffle: true }, broken as never)).toThrow(ConfigError)
    }
  })
})

describe('DataLoader over a stream', () => {
  it('gives batches of what comes, without freeing less', async () => {
    const collate = padCollate({ ids: { pad: 0 } })
    const iterate = async function* () {
      for (const i of numbersTo(5)) yield { ids: numbersTo(i + 1) }
    }
    const before = await settledTensors()
    const shapes: number[][] = []
    for await (const { ids } of new DataLoader({ iterate }, { batchSize: 2, collate }))
      shapes.push((ids as Tensor).shape)
    expect(shapes).toEqual([
      [2, 2],
      [2, 4],
      [1, 5],
    ])
    expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
    const loader = new DataLoader(iterate(), { batchSize: 3 })
    expect((await all(loader)).map((batch) => batch.length)).toEqual([3, 2])
    expect(() => loader.length).toThrow(/expected a dataset with a length, got a stream/)
  })

  it('gives the same whatever the number of workers', async () => {
    const seen = []
    for (const workers of [0, 1, 2, 3]) {
      for (const shuffleBuffer of [0, 7]) {
        const loader = new DataLoader(url('counting'), {
          batchSize: 4,
          workers,
          shuffleBuffer,
          persistentWorkers: true,
          workerData: { epochs: true },
        })
        const epochs = [await all(loader), await all(loader)]
        loader.setEpoch(1)
        expect(await all(loader)).toEqual(epochs[1])
        await loader.close()
        seen.push({ shuffleBuffer, epochs })
      }
    }
    const [plain, mixed] = seen
    expect(plain?.epochs.map((epoch) => epoch.flat())).toEqual([numbersTo(23), numbersTo(23).map((i) => i + 100)])
    expect(mixed?.epochs[0]?.flat()).not.toEqual(numbersTo(23))
    expect(mixed?.epochs[0]?.flat().sort((a, b) => (a as number) - (b as number))).toEqual(numbersTo(23))
    for (const { shuffleBuffer, epochs } of seen) expect(epochs).toEqual((shuffleBuffer ? mixed : plain)?.epochs)
  })

  it('leaves the stream when the loop is left', async () => {
    let left = 0
    const iterate = async function* () {
      try {
        for (let i = 0; ; i++) yield i
      } finally {
        left++
      }
    }
    for await (const [i] of new DataLoader({ iterate }, { prefetch: 2 })) if (i === 5) break
    expect(left).toBe(1)
  })

  it('reports what goes wrong in it after the batches before', async () => {
    for (const workers of [0, 1, 2]) {
      const seen: unknown[] = []
      const loader = new DataLoader(url('counting'), {
        batchSize: 4,
        workers,
        workerData: { fail: 9 },
        onBadRecord: 'skip',
      })
      const run = async () => {
        for await (const batch of loader) seen.push(...batch)
      }
      const error = await run().catch((caught: unknown) => caught)
      expect(error).toBeInstanceOf(DataError)
      expect(error).toMatchObject({ message: expect.stringContaining('no number 9'), index: 9 })
      expect(seen).toEqual(numbersTo(8))
    }
    await expect(all(new DataLoader({ iterate: () => 3 as never }))).rejects.toThrow(/expected an iterator or iterable/)
  })

  it('refuses orders', () => {
    const stream = { iterate: () => [1] }
    expect(() => new DataLoader(stream, { shuffle: true })).toThrow(/shuffle: expected a dataset with random access/)
    expect(() => new DataLoader(stream, { sampler: [0] })).toThrow(ConfigError)
    expect(() => new DataLoader([1], { shuffleBuffer: 4 })).toThrow(/expected a stream/)
  })
})

describe('bad records', () => {
  it('are left out and counted when asked', async () => {
    const dataset = {
      length: 10,
      get(index: number) {
        if (index === 3 || index >= 6) throw new RangeError('bad')
        return index
      },
    }
    const loader = new DataLoader(dataset, { batchSize: 2, onBadRecord: 'skip' })
    const { batches, states } = await traced(loader)
    expect(batches).toEqual([[0, 1], [2], [4, 5]])
    expect(loader.badRecords).toBe(5)
    expect(states.map(({ position, badRecords }) => [position, badRecords])).toEqual([
      [1, 0],
      [2, 1],
      [3, 1],
    ])
    const resumed = new DataLoader(dataset, { batchSize: 2, onBadRecord: 'skip' })
    resumed.loadState(states[1] as DataLoaderState)
    expect(await all(resumed)).toEqual([[4, 5]])
    expect(resumed.badRecords).toBe(5)
    const squares = new DataLoader(url('squares'), {
      workers: 2,
      batchSize: 3,
      workerData: { fail: [4, 5, 19] },
      onBadRecord: 'skip',
    })
    expect((await all(squares)).map((batch) => batch.length)).toEqual([3, 1, 3, 3, 3, 3, 1])
    expect(squares.badRecords).toBe(3)
  })

  it('of a stream keep their place, in any number of workers', async () => {
    const file = join(directory, 'lines.txt')
    writeFileSync(
      file,
      numbersTo(20)
        .map((i) => (i % 6 === 2 ? 'bad' : String(i)))
        .join('\n'),
    )
    const kept = numbersTo(20)
      .filter((i) => i % 6 !== 2)
      .map(String)
    for (const workers of [0, 1, 2, 3]) {
      const loader = new DataLoader<string>(url('counting'), { batchSize: 3, workers, workerData: { file } })
      const { batches, states } = await traced(loader)
      expect(batches.flat()).toEqual(kept)
      expect(loader.badRecords).toBe(3)
      if (workers !== 2) continue
      const resumed = new DataLoader<string>(url('counting'), { batchSize: 3, workers: 0, workerData: { file } })
      resumed.loadState(states[2] as DataLoaderState)
      expect((await all(resumed)).flat()).toEqual(kept.slice(9))
      expect(resumed.badRecords).toBe(3)
    }
    expect(new BadRecord(new Error('x')).error.message).toBe('x')
  })

  it('name file and line', async () => {
    const file = join(directory, 'bad.jsonl')
    writeFileSync(file, '{"a":1}\n{"a":\n{"a":3}\n')
    const error = await all(new DataLoader(jsonlStream(file))).catch((caught: unknown) => caught)
    expect(error).toMatchObject({ file, line: 2, index: 1, message: expect.stringContaining(`${file}: line 2`) })
  })
})

describe('pinMemory', () => {
  it('warns where there is no CUDA device and does nothing', async () => {
    const warnings: Error[] = []
    const listen = (warning: Error) => warnings.push(warning)
    process.on('warning', listen)
    const samples = [{ x: [1, 2] }]
    const loader = new DataLoader(samples, { collate: padCollate({ x: {} }), pinMemory: true })
    for await (const { x } of loader) expect((x as Tensor).toArray()).toEqual([[1, 2]])
    process.off('warning', listen)
    // On a machine with a GPU there is nothing to warn of.
    expect(warnings.length).toBeLessThanOrEqual(1)
    if (warnings[0]) expect(warnings[0].message).toMatch(/pinMemory: expected a CUDA device, got none/)
    expect(() => new DataLoader(samples, { pinMemory: 1 as never })).toThrow(ConfigError)
  })
})
