import { describe, expect, it } from 'vitest'
import * as vt from '../../../../lib/index.js'
import * as spectra from '../../../../lib/systems/spectra/index.js'
import { chains, entry, frames7 } from './helpers.js'

const unmasked = { frames: frames7, mlm: { probability: 0 } }
const clipNumber = (clip: spectra.SpectraMaskedClip) => Math.round((clip.samples[0] as number) * 1000)

describe('SpectraPretrainingDataset', () => {
  it('walks six turns further back, the oldest first, without their <s>', async () => {
    const { entries, source } = chains(12)
    const dataset = new spectra.SpectraPretrainingDataset(source, unmasked)
    expect(dataset.length).toBe(11)
    const { history, previous, current } = await dataset.get(10)
    expect(current.inputIds).toEqual(entries[11]!.inputIds)
    expect(previous.inputIds).toEqual(entries[10]!.inputIds)
    expect(history.inputIds).toEqual([0, ...[4, 5, 6, 7, 8, 9].flatMap((i) => entries[i]!.inputIds.slice(1))])
    expect((await dataset.get(0)).history.inputIds).toEqual([0])
    const short = await new spectra.SpectraPretrainingDataset(source, { ...unmasked, numTurns: 3 }).get(10)
    expect(short.history.inputIds).toEqual([0, ...entries[9]!.inputIds.slice(1)])
  })

  it('stops at a broken link; turns without one before them are only context and negatives', async () => {
    const { entries, source } = chains(4, 1, 3)
    const dataset = new spectra.SpectraPretrainingDataset(source, unmasked)
    expect(dataset.length).toBe(3 + 0 + 2)
    const { history, current } = await dataset.get(4)
    expect(current.inputIds).toEqual(entries[7]!.inputIds)
    expect(history.inputIds).toEqual([0, ...entries[5]!.inputIds.slice(1)])
    const negatives = new Set<number>()
    for (let epoch = 0; epoch < 200; epoch++) negatives.add(clipNumber((await dataset.get(0, epoch)).clips[2]))
    expect([...negatives].sort()).toEqual([2, 3, 4, 5, 6, 7])
  })

  it('never draws the current or the previous turn as a negative, any other as often, text and audio by themselves', async () => {
    // The link skips an entry, so that previous is not the index before.
    const entries = [entry(0, -1), entry(1, -1), entry(2, 0), entry(3, -1), entry(4, -1), entry(5, -1)]
    let draws = 0
    const source = spectra.spectraPretrainingSource(entries, ({ audio }) =>
      new Float32Array(400).fill(Number(audio) / 1000),
    )
    const dataset = new spectra.SpectraPretrainingDataset(source, unmasked)
    const pairs = new Map<string, number>()
    for (let epoch = 0; epoch < 10_000; epoch++) {
      const { negative, clips } = await dataset.get(0, epoch)
      const text = Math.floor(((negative.inputIds[1] as number) - 100) / 10)
      const key = `${text} ${clipNumber(clips[2])}`
      pairs.set(key, (pairs.get(key) ?? 0) + 1)
      draws++
    }
    const others = [1, 3, 4, 5]
    expect([...pairs.keys()].sort()).toEqual(others.flatMap((a) => others.map((b) => `${a} ${b}`)).sort())
    const expected = draws / 16
    const chiSquare = [...pairs.values()].reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0)
    expect(chiSquare).toBeLessThan(38) // 15 degrees of freedom: exceeded once in a thousand times
  })

  it('depends on seed, epoch and index alone', async () => {
    const { source } = chains(6, 6)
    const make = (seed: number) => new spectra.SpectraPretrainingDataset(source, { frames: frames7, seed })
    const [one, two] = [make(4), make(4)]
    const later = await Promise.all([3, 1, 2].map((i) => one.get(i, 5)))
    expect(await two.get(2, 5)).toEqual(later[2])
    expect(await two.get(3, 5)).toEqual(later[0])
    expect(await two.get(3, 6)).not.toEqual(later[0])
    expect(await make(5).get(3, 5)).not.toEqual(later[0])
  })

  it('cuts audio at ten seconds, and drops words past its end with a count', async () => {
    const long = { ...entry(2, 1, 3), samples: 200000 }
    const words = [
      ['a', 1, 2, 150000, 159000],
      ['b', 2, 3, 159000, 170000],
      ['c', 3, 4, 160000, 180000],
    ] as const
    const entries = [entry(0, -1), entry(1, 0), { ...long, words }]
    const source = spectra.spectraPretrainingSource(entries, ({ samples }) => new Float32Array(samples as number))
    const dataset = new spectra.SpectraPretrainingDataset(source, unmasked)
    const { clips, currentWords } = await dataset.get(1)
    expect(clips[1].samples).toHaveLength(160000)
    expect(clips[1].mask).toHaveLength(499)
    expect(currentWords).toEqual([words[0], ['b', 2, 3, 159000, 160000]])
    expect(dataset.skippedWords).toBe(1)
  })

  it('refuses a current turn or a negative without audio, and takes an empty previous one', async () => {
    const entries = [entry(0, -1), entry(1, 0), entry(2, -1)]
    const only = (empty: string) =>
      new spectra.SpectraPretrainingDataset(
        spectra.spectraPretrainingSource(entries, ({ audio }) => new Float32Array(audio === empty ? 0 : 16000)),
        unmasked,
      )
    await expect(only('1').get(0)).rejects.toThrow(/entry 1: expected audio, got none/)
    await expect(only('2').get(0)).rejects.toThrow(vt.DataError)
    const { clips, previousWords } = await only('0').get(0)
    expect(clips.map((clip) => clip.samples.length)).toEqual([0, 16000, 16000])
    expect(clips[0].mask).toHaveLength(0)
    expect(previousWords).toEqual([])
  })

  it('refuses data without dialogs, with too few entries, and entries that are not sound', () => {
    const make = (entries: spectra.SpectraEntry[]) =>
      new spectra.SpectraPretrainingDataset(
        spectra.spectraPretrainingSource(entries, () => new Float32Array(1)),
        unmasked,
      )
    expect(() => make([entry(0, -1), entry(1, -1), entry(2, -1)])).toThrow(/expected dialogs/)
    expect(() => make([entry(0, -1), entry(1, 0)])).toThrow(/negatives/)
    expect(() => make([entry(0, 0)])).toThrow(vt.DataError)
    expect(() => make([entry(0, 7)])).toThrow(/entry 0: previous/)
    const twice = { ...entry(0, -1), words: [['a', 1, 2, 0, 1] as const, ['b', 1, 2, 0, 1] as const] }
    expect(() => make([twice])).toThrow(/words\[1\]: expected/)
  })
})
