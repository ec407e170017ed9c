import { describe, expect, it } from 'vitest'
import * as vt from '../../../../lib/index.js'
import { cutText } from '../../../../lib/systems/spectra/data/collate.js'
import * as spectra from '../../../../lib/systems/spectra/index.js'
import { settledTensors } from '../../../helpers.js'

const wave = (length: number, value = 0.5) => vt.full([length], value, { dtype: 'float32' })
const sample = (more: Partial<spectra.SpectraSample> = {}): spectra.SpectraSample => ({
  audio: wave(2000),
  inputIds: [0, 5, 6, 7, 2],
  label: 1,
  source: 'sample',
  ...more,
})
const { mosi, iemocap } = spectra.SPECTRA_TASKS
const lists = (batch: spectra.SpectraBatch) =>
  Object.fromEntries(
    Object.entries(batch).flatMap(([name, value]) =>
      vt.isTensor(value) && name !== 'inputValues'
        ? [[name, JSON.parse(JSON.stringify(value.toArray(), (_, x) => (typeof x === 'bigint' ? Number(x) : x)))]]
        : [],
    ),
  )

describe('collator', () => {
  it('pads and cuts as published', () =>
    vt.scope(async () => {
      expect(cutText([0, 5, 6, 7, 8, 9, 2], 4)).toEqual([0, 8, 9, 2])
      const collate = spectra.spectraCollate(mosi)
      const batch = await collate([sample(), sample({ inputIds: [0, 5, 6, 7, 8, 9, 4, 2], label: -0.5 })])
      expect(lists(batch)).toEqual({
        inputIds: [
          [0, 5, 6, 7, 2, 0, 0, 0],
          [0, 5, 6, 7, 8, 9, 4, 2],
        ],
        attentionMask: [
          [true, true, true, true, true, false, false, false],
          [true, true, true, true, true, true, true, true],
        ],
        audioLengths: [2000, 2000],
        labels: [1, -0.5],
      })
      expect(batch.audiosPerText).toBe(1)
      expect(batch.inputValues.shape).toEqual([2, 2000])
      const cut = spectra.spectraCollate(iemocap, { maxTextLength: 4 })
      const short = await cut([
        sample({ inputIds: [0, 5, 6, 7, 8, 9, 2], turnIds: [0, 0, 0, 0, 1, 1, 1], historyAudio: null }),
      ])
      expect(lists(short)).toMatchObject({ inputIds: [[0, 8, 9, 2]], tokenTypeIds: [[0, 1, 1, 1]], labels: [1] })
      expect(cut.cuts).toMatchObject({ text: 1, audio: 0 })
    }))

  it('puts the clip of the turn before in front, a row of zeros where there was none', () =>
    vt.scope(async () => {
      const batch = await spectra.spectraCollate(iemocap)([
        sample({ audio: wave(1700, 1), historyAudio: wave(3000, 2), turnIds: [0, 0, 1, 1, 1] }),
        sample({ audio: wave(1800, 3), historyAudio: null, turnIds: [1, 1, 1, 1, 1] }),
      ])
      expect(batch.audiosPerText).toBe(2)
      expect(batch.audioLengths.toArray()).toEqual([3000, 1700, 0, 1800])
      expect(batch.inputValues.shape).toEqual([4, 3000])
      expect(batch.inputValues.sum([1]).toArray()).toEqual([6000, 1700, 0, 5400])
      expect(batch.inputValues.select(1, 1800).toArray()).toEqual([2, 0, 0, 0])
      const alone = await spectra.spectraCollate(iemocap, { historyAudio: false, turnIds: false })([
        sample({ historyAudio: null, turnIds: [1] }),
      ])
      expect(alone.inputValues.shape).toEqual([1, 2000])
      expect('tokenTypeIds' in alone).toBe(false)
    }))

  it('pads to ten seconds, in half precision, with compat', () =>
    vt.scope(async () => {
      const collate = spectra.spectraCollate(mosi, { compat: 'published' })
      const batch = await collate([sample({ audio: wave(160_050, 0.1), label: 0.1 }), sample()])
      expect(batch.inputValues.shape).toEqual([2, 160_000])
      expect(batch.inputValues.dtype).toBe('float32')
      expect(batch.audioLengths.toArray()).toEqual([160_000, 2000])
      expect(batch.inputValues.select(0, 0).select(0, 0).item()).toBe(0.0999755859375) // 0.1 in float16
      expect((batch.labels.toArray() as number[])[0]).toBe(0.0999755859375)
      expect(collate.cuts).toMatchObject({ audio: 1, historyAudio: 0, text: 0 })
      await collate([sample({ audio: wave(160_050, 0.1) })])
      expect(collate.cuts.audio).toBe(1) // the same sample again
    }))

  it('takes float16, float64 and lazy waveforms, and speech that is absent', () =>
    vt.scope(async () => {
      const collate = spectra.spectraCollate(mosi, { emptyAudio: 'allow' })
      const batch = await collate([
        sample({ audio: wave(1700).to({ dtype: 'float16' }) }),
        sample({ audio: { read: async () => wave(1690, 0.25).to({ dtype: 'float64' }) } }),
        sample({ audio: null }),
      ])
      expect(batch.inputValues.sum([1]).toArray()).toEqual([850, 422.5, 0])
      expect(batch.audioLengths.toArray()).toEqual([1700, 1690, 0])
      const silent = await collate([sample({ audio: null })])
      expect(silent.inputValues.shape).toEqual([1, 1680])
    }))

  it.each([
    ['NaN', { audio: vt.full([2000], Number.NaN) }, /bad: expected finite samples in the audio, got NaN or infinities/],
    [
      'infinities in history',
      { historyAudio: vt.full([2000], Number.POSITIVE_INFINITY) },
      /bad: expected finite samples in the history audio, got NaN/,
    ],
    [
      'whole numbers',
      { audio: vt.ones([2000], { dtype: 'int16' }) },
      /expected floating point \[samples\] as audio, got int16 \[2000\]/,
    ],
    ['two channels', { audio: vt.ones([2, 2000]) }, /float32 \[2,2000\]/],
    ['empty audio', { audio: null }, /bad: expected audio, got none/],
    ['no turn ids', { turnIds: undefined }, /bad: expected turnIds, .*, got none/],
    ['no history audio', { historyAudio: undefined }, /bad: expected historyAudio, .*, got none/],
  ])('refuses %s', async (_, more, message) => {
    const whole = { historyAudio: null, turnIds: [1, 1, 1, 1, 1] }
    const before = await settledTensors()
    const good = sample(whole)
    const bad = { ...good, source: 'bad', ...more } as spectra.SpectraSample
    await expect(spectra.spectraCollate(iemocap)([good, bad])).rejects.toThrow(message)
    ;(good.audio as vt.Tensor).dispose()
    expect(vt.memoryStats().liveTensors).toBeLessThanOrEqual(before)
  })
})
