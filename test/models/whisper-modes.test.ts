import { describe, expect, it } from 'vitest'
import {
  energyVad,
  publishedWeights,
  readClip,
  SileroVad,
  scope,
  splitOnSilence,
  tensor,
  Whisper,
} from '../../lib/index.js'
import { dataPath, hasData } from '../audio/helpers.js'
import { type Differences, differences, longSpeech, wordsOf } from './long-speech.mjs'

const NAME = 'whisper-tiny.en'
const isHere = (weights: string) => publishedWeights().some(({ name, present }) => name === weights && present)
const read = async (file: string): Promise<Float32Array> => {
  using samples = await readClip(file)
  return Float32Array.from((await samples.data()) as Float32Array)
}
const MINUTES = 10

describe.skipIf(!isHere(NAME) || !isHere('silero-vad') || !hasData('librispeech-other'))(
  `${NAME} on ${MINUTES} minutes of LibriSpeech with pauses, knocks, hiss and levels of -20 to -60 dB`,
  () => {
    const recording = longSpeech(dataPath('librispeech-other'), 60 * MINUTES, read)
    const whisper = Whisper.fromPretrained(NAME, { offline: true })
    const base = { temperature: 0 }
    const plain = Promise.all([whisper, recording]).then(async ([model, { samples }]) => {
      const stream = model.freeze().transcribeStream(samples, { ...base, conditionOnPrevious: false })
      const segments = []
      let step = await stream.next()
      for (; !step.done; step = await stream.next()) segments.push(step.value)
      return { segments, whole: step.value }
    })

    it('streamed, its segments are those of the whole, in order and within the recording', async () => {
      const { segments, whole } = await plain
      expect(segments).toEqual(whole.segments)
      expect(wordsOf(whole.text).length).toBeGreaterThan(80 * MINUTES)
      for (const { start, end } of segments) {
        expect(start).toBeLessThanOrEqual(end)
        expect(end).toBeLessThanOrEqual(60 * MINUTES)
      }
    }, 1_800_000)

    it.each([
      ['batched, SileroVad', { batchSize: 8 }],
      ['batched, energyVad', { batchSize: 8, vad: energyVad }],
      ['windowed', { conditionOnPrevious: false, timestamps: false }],
    ] as const)(
      '%s: differs from plain at borders of windows only, and says what it left out',
      async (mode, options) => {
        const { samples, clips } = await recording
        const { text, segments, skipped } = await (await whisper).transcribe(samples, { ...base, ...options })
        const words = wordsOf((await plain).whole.text)
        const found: Differences = differences(words, wordsOf(text))
        // Nothing as long as a clause is lost or made up.
        expect(found.longestDeleted, mode).toBeLessThanOrEqual(BOUNDS.row)
        expect(found.longestInserted, mode).toBeLessThanOrEqual(BOUNDS.row)
        expect(found.deleted + found.inserted + found.changed, mode).toBeLessThan(BOUNDS.share * words.length)
        for (const { end } of segments) expect(end).toBeLessThanOrEqual(60 * MINUTES)
        // Each clip is transcribed, or reported.
        for (const { start, end, name, level } of clips) {
          const covered = [...segments, ...skipped].reduce(
            (sum, one) => sum + Math.max(0, Math.min(one.end, end) - Math.max(one.start, start)),
            0,
          )
          expect(covered, `${mode}: ${name} at ${level} dB`).toBeGreaterThan(0.5 * (end - start))
        }
      },
      1_800_000,
    )

    it('both detectors find speech of all levels behind a knock at full scale', async () => {
      const { samples, clips } = await recording
      const silero = await SileroVad.fromPretrained('silero-vad', { offline: true })
      for (const vad of [silero.segments, energyVad]) {
        const pieces = await scope(() => splitOnSilence(tensor(samples), 16_000, { vad }))
        for (const { start, end, name, level } of clips) {
          const heard = pieces.reduce(
            (sum, [from, to]) => sum + Math.max(0, Math.min(to, end) - Math.max(from, start)),
            0,
          )
          expect(heard, `${name} at ${level} dB`).toBeGreaterThan(0.7 * (end - start))
        }
      }
      silero.dispose()
    })
  },
)

/** Words in a row, and of all words. */
const BOUNDS = { row: 12, share: 0.2 }
