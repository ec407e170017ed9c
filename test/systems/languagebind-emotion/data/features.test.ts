import { appendFileSync, mkdtempSync, readdirSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { BusyError, DataError, noGrad } from '../../../../lib/index.js'
import type { EmotionDialog } from '../../../../lib/kit/emotion/dialog.js'
import { FeatureCache } from '../../../../lib/systems/languagebind-emotion/data/features.js'
import { clipSource } from '../../../../lib/systems/languagebind-emotion/network/towers.js'
import { dialogs, hot, TinyTower } from '../tiny.js'

const folder = () => mkdtempSync(join(tmpdir(), 'voxtorch-emotion-cache-'))
const data = dialogs(5, ['joy', 'fear'])
const facts = (dialog: EmotionDialog, place: number) =>
  place === 3 ? undefined : hot(8, place, Number(dialog.id) * 10 + place)
const tower = (size = 6) => {
  const made = new TinyTower('text', size, facts, { tower: 'tiny', version: 1 }, true)
  noGrad(() => made.network?.table.weight.fill_(0.25))
  noGrad(() => made.network?.table.bias?.zero_())
  return made
}

async function using<T>(where: string, work: (cache: FeatureCache) => Promise<T>): Promise<T> {
  const cache = FeatureCache.open(where)
  try {
    return await work(cache)
  } finally {
    await cache.close()
  }
}

describe('FeatureCache', () => {
  it('computes each utterance once, whoever asks', async () => {
    const where = folder()
    const first = tower()
    const found = await using(where, (cache) => cache.vectors(first, data, { batchSize: 4 }))
    expect(found.map((rows) => rows.map((row) => row?.length))).toEqual(data.map(() => [6, 6, 6, undefined]))
    expect([first.encoded, first.reads]).toEqual([15, 15])
    const row = facts(data[1]!, 2) as number[]
    const wanted = row.reduce((sum, value) => sum + 0.25 * value, 0)
    for (const value of (found[1] as Float32Array[])[2] as Float32Array) expect(value).toBeCloseTo(wanted, 5)
    const second = tower()
    const states: number[][] = []
    const again = await using(where, (cache) =>
      cache.vectors(second, data, { onProgress: ({ done, total, hits }) => void states.push([done, total, hits]) }),
    )
    expect(again).toEqual(found)
    expect(second.reads).toBe(0)
    expect(states).toEqual([[20, 20, 15]])
    // The same words in another dialog are the same words.
    const copied = [...data, { ...data[0]!, source: 'elsewhere' }]
    expect((await using(folder(), (cache) => cache.vectors(tower(), copied)))[5]).toEqual(found[0])
  })

  it('misses where the input, the recipe, the weights, the dtype or the size is another', async () => {
    const where = folder()
    await using(where, (cache) => cache.vectors(tower(), data))
    const encoded = async (made: TinyTower, some = data) => {
      await using(where, (cache) => cache.vectors(made, some))
      return made.encoded
    }
    expect(await encoded(tower())).toBe(0)
    expect(
      await encoded(
        new TinyTower(
          'text',
          6,
          (dialog, place) => facts(dialog, place)?.map((v, i) => (i === 0 && place === 0 ? v + 1 : v)),
          { tower: 'tiny', version: 1 },
          true,
        ),
      ),
    ).toBe(15)
    const changed = new TinyTower(
      'text',
      6,
      (dialog, place) => facts(dialog, place)?.map((v) => (place === 0 ? v + 1 : v)),
      { tower: 'tiny', version: 1 },
      true,
    )
    changed.network?.loadStateDict(tower().network!.stateDict())
    expect(await encoded(changed)).toBe(5)
    const recipe = new TinyTower('text', 6, facts, { tower: 'tiny', version: 2 }, true)
    recipe.network?.loadStateDict(tower().network!.stateDict())
    expect(await encoded(recipe)).toBe(15)
    const weights = tower()
    noGrad(() => weights.network?.table.weight.select(0, 5).select(0, 7).fill_(0.2500001))
    expect(await encoded(weights)).toBe(15)
    expect(await encoded(tower(5))).toBe(15)
    const half = tower()
    half.network?.to({ dtype: 'float64' })
    expect(await FeatureCache.keyOf(half)).not.toBe(await FeatureCache.keyOf(tower()))
  })

  it('goes on behind what a kill left, and cuts off what is half written or damaged', async () => {
    const where = folder()
    const found = await using(where, (cache) => cache.vectors(tower(), data, { batchSize: 5 }))
    const file = join(where, readdirSync(where).find((name) => name.endsWith('.vectors')) as string)
    const { size } = statSync(file)
    const record = size / 15
    truncateSync(file, Math.floor(record * 7.5))
    const after = tower()
    expect(await using(where, (cache) => cache.vectors(after, data))).toEqual(found)
    expect(after.encoded).toBe(8)
    expect(statSync(file).size).toBe(size)
    appendFileSync(file, Buffer.alloc(3 * record, 7))
    const third = tower()
    expect(await using(where, (cache) => cache.vectors(third, data))).toEqual(found)
    expect([third.encoded, statSync(file).size]).toEqual([0, size])
    // What was aborted is as what was killed.
    const other = folder()
    const stop = new AbortController()
    const cut = tower()
    const aborted = using(other, (cache) =>
      cache.vectors(cut, data, {
        batchSize: 2,
        signal: stop.signal,
        onProgress: ({ done }) => done > 8 && stop.abort(),
      }),
    )
    await expect(aborted).rejects.toThrow()
    const rest = tower()
    expect(await using(other, (cache) => cache.vectors(rest, data))).toEqual(found)
    expect(cut.encoded + rest.encoded).toBe(15)
  })

  it('has one writer, and refuses vectors that are no numbers', async () => {
    const where = folder()
    const cache = FeatureCache.open(where)
    expect(() => FeatureCache.open(where)).toThrow(BusyError)
    const broken = new TinyTower('text', 8, () => hot(8, 0, 0).map((v, i) => (i === 2 ? Number.NaN : v)))
    await expect(cache.vectors(broken, data)).rejects.toThrow(/its text gives NaN/)
    await cache.close()
    await FeatureCache.open(where).close()
  })

  it('knows clips by their bytes and times', async () => {
    const file = join(folder(), 'a.wav')
    writeFileSync(file, 'one')
    const one = await clipSource(file)
    expect(await clipSource(file, { start: 1 })).not.toBe(one)
    writeFileSync(file, 'other')
    expect(await clipSource(file)).not.toBe(one)
    const frames = folder()
    writeFileSync(join(frames, '1.png'), 'a')
    expect(await clipSource(frames)).toMatch(/^[0-9a-f]{64} /)
    await expect(clipSource('/no/such.wav')).rejects.toThrow(DataError)
  })
})
