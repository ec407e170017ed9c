import { describe, expect, it } from 'vitest'
import * as vt from '../../../../lib/index.js'
import * as spectra from '../../../../lib/systems/spectra/index.js'
import { chains, frames7 } from './helpers.js'

const text = (ids: number[]): spectra.SpectraMaskedText => ({
  inputIds: ids,
  labels: ids.map((id) => (id > 2 ? id : -100)),
})
const clip = (samples: number, code = 0): spectra.SpectraMaskedClip => ({
  samples: new Float32Array(samples).fill(0.5),
  mask: new Int8Array(frames7(samples)).fill(code),
  source: Int32Array.from({ length: frames7(samples) }, (_, i) => i),
})
const sample = (parts: Partial<spectra.SpectraPretrainingSample> = {}): spectra.SpectraPretrainingSample => ({
  history: text([0, 10, 11, 2]),
  previous: text([0, 20, 21, 2]),
  current: text([0, 30, 31, 32, 2]),
  negative: text([0, 40, 2]),
  previousWords: [['a', 1, 3, 0, 8000]],
  currentWords: [
    ['b', 1, 2, 1600, 3200],
    ['c', 2, 4, 3200, 160000],
  ],
  clips: [clip(16000, 1), clip(8000, 2), clip(4000)],
  ...parts,
})
const rows = (value: vt.Tensor) => value.toArray() as number[][]
/** Rows of a mask as the places that it has. */
const places = (value: vt.Tensor) =>
  (value.toArray() as boolean[][]).map((row) => row.flatMap((bit, i) => (bit ? [i] : [])))
const near = (values: vt.Tensor, expected: number[]) => {
  const found = values.toArray() as number[]
  expect(found.map((value) => Number(value.toFixed(6)))).toEqual(expected)
}

describe('spectraPretrainingCollate', () => {
  it('gives the golden example of the specification', () => {
    vt.scope(() => {
      const current = text([0, 405, 18, 627, 2])
      const currentWords = [["it's", 1, 3, 0, 8000] as const, ['the', 3, 4, 6400, 9600] as const]
      const one = sample({ history: text([0]), previous: text([0, 2]), previousWords: [], current, currentWords })
      const batch = spectra.spectraPretrainingCollate({ frames: frames7 })([one])
      near(batch.starts, [0, 0.04])
      near(batch.ends, [0.05, 0.06])
      expect(rows(batch.inputIds)[0]).toEqual([0, 2, 405, 18, 627, 2])
      expect([places(batch.startMask), places(batch.endMask)]).toEqual([[[2, 4]], [[3, 4]]])
    })
  })

  it('joins history, previous turn and answer; pads with 0; types change after the previous turn, in each row its own', () => {
    vt.scope(() => {
      const short = sample({ history: text([0]), previous: text([0, 50, 2]) })
      const batch = spectra.spectraPretrainingCollate({ frames: frames7 })([sample(), short])
      expect(rows(batch.inputIds)).toEqual([
        [0, 10, 11, 2, 20, 21, 2, 30, 31, 32, 2],
        [0, 10, 11, 2, 20, 21, 2, 40, 2, 0, 0],
        [0, 50, 2, 30, 31, 32, 2, 0, 0, 0, 0],
        [0, 50, 2, 40, 2, 0, 0, 0, 0, 0, 0],
      ])
      expect(places(batch.attentionMask).map((row) => row.length)).toEqual([11, 9, 7, 5])
      expect(rows(batch.tokenTypeIds)).toEqual([
        [0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1],
        [0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1],
        [0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1],
        [0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1],
      ])
      expect(rows(batch.mlmLabels)).toEqual([
        [-100, 10, 11, -100, 20, 21, -100, 30, 31, 32, -100],
        [-100, 50, -100, 30, 31, 32, -100, -100, -100, -100, -100],
      ])
      expect(places(batch.startMask)).toEqual([
        [4, 7, 8],
        [1, 3, 4],
      ])
      expect(places(batch.endMask)).toEqual([
        [5, 7, 9],
        [2, 3, 5],
      ])
      near(batch.starts, [0, 0.01, 0.02, 0, 0.01, 0.02])
      near(batch.ends, [0.05, 0.02, 1, 0.05, 0.02, 1])
      expect([batch.starts.dtype, batch.attentionMask.dtype, batch.mamMask.dtype, batch.mamSource.dtype]).toEqual([
        'float32',
        'bool',
        'int8',
        'int64',
      ])
    })
  })

  it('keeps <s> and the last tokens of a text that is too long, and drops the words before with their labels', () => {
    vt.scope(() => {
      const batch = spectra.spectraPretrainingCollate({ frames: frames7, maxLength: 7 })([sample()])
      expect(rows(batch.inputIds)).toEqual([
        [0, 21, 2, 30, 31, 32, 2],
        [0, 2, 20, 21, 2, 40, 2],
      ])
      // off_cur = ml - (len - 1) - 1, for each row by its own answer
      expect(rows(batch.tokenTypeIds)).toEqual([
        [0, 0, 0, 1, 1, 1, 1],
        [0, 0, 0, 0, 0, 1, 1],
      ])
      expect(rows(batch.mlmLabels)).toEqual([[-100, 21, -100, 30, 31, 32, -100]])
      // The previous turn's word has lost its first sub-word, so it has no label at all.
      expect([places(batch.startMask), places(batch.endMask)]).toEqual([[[3, 4]], [[3, 5]]])
      near(batch.starts, [0.01, 0.02])
    })
  })

  it('takes previous and current turns that are longer together than 512, and one that alone is', () => {
    vt.scope(() => {
      const long = (count: number, from: number) => text([0, ...Array.from({ length: count }, (_, i) => from + i), 2])
      const words = (count: number) =>
        Array.from({ length: count }, (_, i) => [`w${i}`, i + 1, i + 2, 16 * i, 16 * i + 16] as const)
      const both = sample({
        previous: long(300, 1000),
        previousWords: words(300),
        current: long(300, 2000),
        currentWords: words(300),
      })
      const alone = sample({ ...both, current: long(600, 3000), currentWords: words(600) })
      const batch = spectra.spectraPretrainingCollate({ frames: frames7 })([both, alone])
      expect(batch.inputIds.shape).toEqual([4, 512])
      const [starts, ends] = [places(batch.startMask), places(batch.endMask)]
      // 512 = <s>, 210 of the previous turn's words and </s>, 300 words and </s> - without one for the cut-off
      expect(starts[0]).toHaveLength(509)
      expect(starts[1]).toHaveLength(510)
      expect(ends).toEqual(starts)
      expect(batch.starts.shape).toEqual([509 + 510])
      expect(batch.ends.shape).toEqual([509 + 510])
      const ids = rows(batch.inputIds)
      expect(ids[0]!.slice(0, 3)).toEqual([0, 1091, 1092])
      expect(ids[2]!.slice(0, 3)).toEqual([0, 3090, 3091])
      const types = rows(batch.tokenTypeIds)
      expect(types[0]!.indexOf(1)).toBe(512 - 301)
      expect(types[2]).toEqual([0, ...new Array(511).fill(1)])
      // Each label stands at its own word's place.
      near(
        batch.starts.narrow(0, 0, 3),
        [91, 92, 93].map((i) => Number(((16 * i) / 160000).toFixed(3))),
      )
    })
  })

  it('pads audio to the longest clip, or to a length, and frames with it', () => {
    vt.scope(() => {
      const one = sample({ clips: [clip(0), clip(16000, 2), clip(400, 3)] })
      one.clips[1].source.fill(7)
      const batch = spectra.spectraPretrainingCollate({ frames: frames7 })([one])
      expect(batch.inputValues.shape).toEqual([3, 16000])
      expect(batch.audioLengths.toArray()).toEqual([0, 16000, 400])
      expect(batch.mamMask.shape).toEqual([3, 49])
      const mask = rows(batch.mamMask)
      expect(mask.map((row) => row.filter(Boolean).length)).toEqual([0, 49, 1])
      expect(rows(batch.mamSource)[1]).toEqual(new Array(49).fill(7))
      expect(rows(batch.inputValues)[2]!.filter(Boolean)).toHaveLength(400)
      const fixed = spectra.spectraPretrainingCollate({ frames: frames7, padToSamples: 160000 })([one])
      expect(fixed.inputValues.shape).toEqual([3, 160000])
      expect(fixed.mamMask.shape).toEqual([3, 499])
      expect(() => spectra.spectraPretrainingCollate({ frames: frames7, padToSamples: 8000 })([one])).toThrow(
        vt.ConfigError,
      )
    })
  })

  it('takes a batch without a word, rounds times as Python does, and leaves no tensor', () => {
    const before = vt.memoryStats().liveTensors
    vt.scope(() => {
      const collate = spectra.spectraPretrainingCollate({ frames: frames7 })
      const none = collate([sample({ previousWords: [], currentWords: [] })])
      expect([none.starts.shape, none.ends.shape]).toEqual([[0], [0]])
      // 0.0625 -> 0.062, 0.1875 -> 0.188 (halves to even); 0.0005 is a little more than a half
      const ties = [['x', 1, 2, 10000, 30000] as const, ['y', 2, 3, 80, 240] as const]
      const batch = collate([sample({ previousWords: [], currentWords: ties })])
      near(batch.starts, [0.062, 0.001])
      near(batch.ends, [0.188, 0.002])
      expect(() => collate([])).toThrow(vt.DataError)
    })
    expect(vt.memoryStats().liveTensors).toBeLessThanOrEqual(before)
  })

  it('shares the corruption of history and previous turn between both texts', async () => {
    const { source } = chains(6, 6)
    const dataset = new spectra.SpectraPretrainingDataset(source, { frames: frames7, mlm: { probability: 0.5 } })
    const collate = spectra.spectraPretrainingCollate({ frames: frames7 })
    const one = await dataset.get(4)
    vt.scope(() => {
      const { inputIds } = collate([one])
      const [pos, neg] = rows(inputIds)
      const context = one.history.inputIds.length + one.previous.inputIds.length - 1
      expect(pos!.slice(0, context)).toEqual(neg!.slice(0, context))
      expect(pos!.slice(0, context)).toContain(50264)
      expect(pos).not.toEqual(neg)
    })
  })
})
