import { appendFileSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import {
  ConcatDataset,
  ConfigError,
  DataError,
  DataLoader,
  jsonlDataset,
  jsonlStream,
  MixtureDataset,
  mapDataset,
  mixtureStream,
  randomSplit,
  Subset,
} from '../../lib/index.js'

const numbersTo = (n: number) => Array.from({ length: n }, (_, i) => i)
async function gather<T>(values: AsyncIterable<T>): Promise<T[]> {
  const list: T[] = []
  for await (const value of values) list.push(value)
  return list
}
const directory = mkdtempSync(join(tmpdir(), 'voxtorch-datasets-'))
afterAll(() => rmSync(directory, { recursive: true }))
const read = async <T>(dataset: { length: number; get(index: number, epoch: number): T | Promise<T> }) =>
  Promise.all(numbersTo(dataset.length).map((i) => dataset.get(i, 0)))

describe('datasets of datasets', () => {
  it('concatenate, choose and map', async () => {
    const both = new ConcatDataset<number>([[1, 2], [], { length: 1, get: (i, epoch) => 10 * (i + 1) + epoch }, []])
    expect(await read(both)).toEqual([1, 2, 10])
    expect(both.get(2, 3)).toBe(13)
    expect(() => both.get(3)).toThrow(DataError)
    const part = new Subset(both, [2, 0, 2])
    expect(await read(part)).toEqual([10, 1, 10])
    expect(() => new Subset(both, [3])).toThrow(/expected an index from 0 to \d+, got 3/)
    const mapped = mapDataset(part, async (sample, index, epoch) => `${sample} ${index} ${epoch}`)
    expect(await read(mapped)).toEqual(['10 0 0', '1 1 0', '10 2 0'])
    expect(await mapped.get(1, 5)).toBe('1 1 5')
    for (const bad of [null, 3, {}, { iterate: () => [] }]) {
      expect(() => new ConcatDataset([bad as never])).toThrow(ConfigError)
      expect(() => new Subset(bad as never, [])).toThrow(ConfigError)
      expect(() => mapDataset(bad as never, (x) => x)).toThrow(ConfigError)
      expect(() => randomSplit(bad as never, [0])).toThrow(ConfigError)
    }
  })

  it('split at random without overlap', async () => {
    const parts = randomSplit(numbersTo(10), [0.7, 0.2, 0.1], { seed: 4 })
    expect(parts.map((part) => part.length)).toEqual([7, 2, 1])
    const values = await Promise.all(parts.map(read))
    expect(values.flat().sort((a, b) => a - b)).toEqual(numbersTo(10))
    expect(values.flat()).not.toEqual(numbersTo(10))
    expect(await Promise.all(randomSplit(numbersTo(10), [7, 2, 1], { seed: 4 }).map(read))).toEqual(values)
    expect(await Promise.all(randomSplit(numbersTo(10), [7, 2, 1], { seed: 5 }).map(read))).not.toEqual(values)
    expect(randomSplit(numbersTo(11), [0.5, 0.5]).map((part) => part.length)).toEqual([6, 5])
    expect(randomSplit([1], [1]).map((part) => part.length)).toEqual([1])
    for (const sizes of [[5, 4], [0.5, 0.4], [-1, 11], [], [Number.NaN]]) {
      expect(() => randomSplit(numbersTo(10), sizes)).toThrow(ConfigError)
    }
  })

  it('mix by ratio until the first is through', async () => {
    const [a, b] = [numbersTo(3000), numbersTo(3000).map((i) => -i - 1)]
    const mixture = new MixtureDataset([{ dataset: a, weight: 3 }, { dataset: b }], { seed: 1 })
    const values = await read(mixture)
    const ofA = values.filter((value) => value >= 0)
    expect(ofA).toEqual(a)
    expect(values.at(-1)).toBe(2999)
    // 3,000 draws of three in four: the number of others has a deviation of 37.
    expect(values.length - 3000).toBeGreaterThan(850)
    expect(values.length - 3000).toBeLessThan(1150)
    expect(values.filter((value) => value < 0)).toEqual(b.slice(0, values.length - 3000))
    expect(mixture.partOf(values.indexOf(-1))).toBe(1)
    expect(
      await read(
        new MixtureDataset(
          [
            { dataset: a, weight: 6 },
            { dataset: b, weight: 2 },
          ],
          { seed: 1 },
        ),
      ),
    ).toEqual(values)
    expect(await read(new MixtureDataset([{ dataset: a, weight: 3 }, { dataset: b }], { seed: 2 }))).not.toEqual(values)
  })

  it('mix until all were through once', async () => {
    const parts = [{ dataset: ['a', 'b'] }, { dataset: numbersTo(50).map(String) }]
    const values = await read(new MixtureDataset<string>(parts, { stoppingStrategy: 'allExhausted' }))
    expect(values.filter((value) => /\d/.test(value))).toEqual(numbersTo(50).map(String))
    const letters = values.filter((value) => /[ab]/.test(value))
    expect(letters.length).toBeGreaterThan(20)
    expect(letters).toEqual(letters.map((_, i) => 'ab'[i % 2]))
    expect(values.at(-1)).toBe('49')
    for (const bad of [[], [{ dataset: [] }], [{ dataset: [1], weight: 0 }], [{ dataset: [1], weight: -1 }], [null]]) {
      expect(() => new MixtureDataset(bad as never)).toThrow(ConfigError)
    }
    expect(() => new MixtureDataset(parts, { stoppingStrategy: 'never' as never })).toThrow(ConfigError)
    const mixed = new MixtureDataset(parts)
    for (const index of [-1, mixed.length, 0.5]) expect(() => mixed.partOf(index)).toThrow(/MixtureDataset\.partOf/)
    expect(() => mapDataset(numbersTo(3), 3 as never)).toThrow(ConfigError)
  })

  it('mix streams', async () => {
    let open = 0
    const stream = (values: string[]) => ({
      async *iterate() {
        open++
        try {
          yield* values
        } finally {
          open--
        }
      },
    })
    const letters = stream(['a', 'b'])
    const numbers = stream(numbersTo(30).map(String))
    const mixed = async (stoppingStrategy: 'firstExhausted' | 'allExhausted', epoch = 0) => {
      const mixture = mixtureStream([{ dataset: letters }, { dataset: numbers, weight: 2 }], {
        seed: 3,
        stoppingStrategy,
      })
      const loader = new DataLoader(mixture, { batchSize: 100 })
      loader.setEpoch(epoch)
      const [batch] = await gather(loader)
      return batch as string[]
    }
    const first = await mixed('firstExhausted')
    expect(first.filter((value) => /[ab]/.test(value))).toEqual(['a', 'b'])
    expect(await mixed('firstExhausted')).toEqual(first)
    expect(await mixed('firstExhausted', 1)).not.toEqual(first)
    const all = await mixed('allExhausted')
    expect(all.filter((value) => /\d/.test(value)).slice(0, 30)).toEqual(numbersTo(30).map(String))
    expect(all.filter((value) => /[ab]/.test(value)).length).toBeGreaterThan(5)
    expect(open).toBe(0)
    const empty = mixtureStream([{ dataset: stream([]) }, { dataset: numbers }], { stoppingStrategy: 'allExhausted' })
    await expect(gather(new DataLoader(empty))).rejects.toThrow(/got an empty stream/)
    expect(open).toBe(0)
    expect(() => mixtureStream([{ dataset: [1] as never }])).toThrow(ConfigError)
  })
})

describe('JSON Lines by index and as a stream', () => {
  const write = (name: string, text: string | Buffer) => {
    const file = join(directory, name)
    writeFileSync(file, text)
    return file
  }
  const descriptors = () => readdirSync('/proc/self/fd').length

  it('reads any record of a file', async () => {
    // Lines across the borders of chunks, of many lengths, in several scripts, with a mark, blanks and no last newline.
    const values = numbersTo(3000).map((i) => ({ i, text: 'ä😀x'.repeat((i * 7919) % 300) }))
    const lines = values.map((value, i) => JSON.stringify(value) + (i % 100 === 0 ? '\n  \n' : i % 3 === 0 ? '\r' : ''))
    const file = write('many.jsonl', `\ufeff${lines.join('\n')}`)
    const dataset = await jsonlDataset<{ i: number }>(file)
    expect(dataset.length).toBe(3000)
    expect(dataset.index.lines[1]).toBe(4)
    const before = descriptors()
    expect(await read(dataset)).toEqual(values)
    expect(descriptors()).toBe(before)
    const again = await jsonlDataset(file, { index: structuredClone(dataset.index) })
    expect(await again.get(1234)).toEqual(values[1234])
    expect(await gather(jsonlStream(file).iterate())).toEqual(values)
    const share = jsonlStream(file).iterate({ epoch: 0, shard: 1, shards: 3 })
    expect(await gather(share)).toEqual(values.filter((_, i) => i % 3 === 1))
    const loader = new DataLoader(dataset, { batchSize: 64, shuffle: true })
    expect(
      (await gather(loader))
        .flat()
        .map(({ i }) => i)
        .sort((a, b) => a - b),
    ).toEqual(numbersTo(3000))
    await expect(dataset.get(3000)).rejects.toThrow(DataError)
  })

  it('stops at a bad record or leaves it out', async () => {
    const file = write(
      'bad.jsonl',
      Buffer.concat([Buffer.from('{"a":1}\n\nnonsense\n{"a":2}\n"'), Buffer.from([0xff]), Buffer.from('"\n[3]\n{')]),
    )
    const strict = await jsonlDataset(file)
    expect(strict.length).toBe(6)
    expect(await strict.get(0)).toEqual({ a: 1 })
    await expect(strict.get(1)).rejects.toMatchObject({ name: 'DataError', file, line: 3 })
    await expect(strict.get(3)).rejects.toThrow(/line 5: .*not UTF-8/)
    const lenient = await jsonlDataset(file, { onBadRecord: 'skip' })
    expect(await read(lenient)).toEqual([{ a: 1 }, { a: 2 }, [3]])
    expect(lenient.badRecords).toBe(3)
    expect(lenient.badRecordErrors.map((error) => (error as { line?: number }).line)).toEqual([3, 5, 7])
    const stream = jsonlStream(file, { onBadRecord: 'skip' })
    expect(await gather(stream.iterate())).toEqual([{ a: 1 }, { a: 2 }, [3]])
    expect(stream.badRecords).toBe(3)
    const loader = new DataLoader(jsonlStream(file, { onBadRecord: 'skip' }), { batchSize: 2 })
    expect(await gather(loader)).toEqual([[{ a: 1 }, { a: 2 }], [[3]]])
    expect(loader.badRecords).toBe(3)
    await expect(gather(jsonlStream(file).iterate())).rejects.toMatchObject({ file, line: 3 })
  })

  it('notices that the file has changed, is missing or has too long lines', async () => {
    const file = write('grows.jsonl', '1\n2\n')
    const dataset = await jsonlDataset(file)
    appendFileSync(file, '3\n')
    await expect(dataset.get(0)).rejects.toThrow(/got a changed one/)
    await expect(jsonlDataset(file, { index: dataset.index })).rejects.toThrow(/got a changed one/)
    await expect(jsonlDataset(file, { index: { ...dataset.index, lines: [] } as never })).rejects.toThrow(ConfigError)
    await expect(jsonlDataset(join(directory, 'none'))).rejects.toThrow(DataError)
    await expect(jsonlDataset(directory)).rejects.toThrow(DataError)
    await expect(jsonlDataset(file, { onBadRecord: 'x' as never })).rejects.toThrow(ConfigError)
    const long = write('long.jsonl', `1\n"${'x'.repeat(600_000)}"\n`)
    await expect(jsonlDataset(long, { maxLineBytes: 500_000 })).rejects.toThrow(/line 2: .*500000 bytes/)
    await expect(gather(jsonlStream(long, { maxLineBytes: 10 }).iterate())).rejects.toMatchObject({ line: 2 })
    expect((await jsonlDataset(write('empty.jsonl', '\n \n'))).length).toBe(0)
  })
})
