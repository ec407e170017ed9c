import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import {
  energyVad,
  Generator,
  publishedWeights,
  readClip,
  SileroVad,
  scope,
  splitOnSilence,
  tensor,
  Whisper,
  type WhisperSegment,
  type WhisperTranscription,
} from '../../lib/index.js'
import { dataPath, hasData } from '../audio/helpers.js'
import { fixturePath } from '../helpers.js'
import { differences, type LongSpeech, longSpeech, untoldClips, wordsOf } from './long-speech.mjs'

const NAME = 'whisper-tiny.en'
const isHere = (weights: string) => publishedWeights().some(({ name, present }) => name === weights && present)
const read = async (file: string): Promise<Float32Array> => {
  using samples = await readClip(file)
  return Float32Array.from((await samples.data()) as Float32Array)
}
const MINUTES = 10
/** Words in a row that are lost or made up, words of plain mode that are lost, and words that differ from those of the clips. */
const BOUNDS = { row: 10, lost: 0.05, all: 0.25 }
const texts: Record<string, string> = JSON.parse(readFileSync(fixturePath('models/whisper-published.json'), 'utf8'))[
  NAME
]
const draws = () => ({ generator: new Generator({ seed: 1 }) })

describe.skipIf(!isHere(NAME) || !isHere('silero-vad') || !hasData('librispeech-other'))(
  `${NAME} on ${MINUTES} minutes of LibriSpeech with pauses, knocks, hiss and levels of -20 to -60 dB`,
  () => {
    let samples: Float32Array
    let clips: LongSpeech['clips']
    let whisper: Whisper
    let plain: { segments: WhisperSegment[]; whole: WhisperTranscription }

    beforeAll(async () => {
      const recording = await longSpeech(dataPath('librispeech-other'), 60 * MINUTES, read)
      samples = recording.samples
      clips = recording.clips
      whisper = (await Whisper.fromPretrained(NAME, { offline: true, dtype: 'float32' })).freeze()
      const stream = whisper.transcribeStream(samples, { ...draws(), conditionOnPrevious: false })
      const segments: WhisperSegment[] = []
      let step = await stream.next()
      for (; !step.done; step = await stream.next()) segments.push(step.value)
      plain = { segments, whole: step.value }
    }, 1_800_000)
    afterAll(() => whisper?.dispose())

    it('streamed, its segments are those of the whole, in order and within the recording', () => {
      const { segments, whole } = plain
      expect(segments).toEqual(whole.segments)
      expect(wordsOf(whole.text).length).toBeGreaterThan(80 * MINUTES)
      for (const { start, end } of segments) {
        expect(start).toBeLessThanOrEqual(end)
        expect(end).toBeLessThanOrEqual(60 * MINUTES)
      }
    })

    it.each([
      ['SileroVad', { batchSize: 8 }],
      ['energyVad', { batchSize: 8, vad: energyVad }],
    ] as const)(
      'batched, with %s: has what plain has but for words at borders, and says what it left out',
      async (mode, options) => {
        const { text, segments, skipped } = await whisper.transcribe(samples, { ...draws(), ...options })
        const [words, plainWords] = [wordsOf(text), wordsOf(plain.whole.text)]
        // Plain mode hears less: of a window with a loud and a soft speaker this network often writes the loud one alone.
        const lost = differences(plainWords, words)
        expect(lost.longestDeleted, `${mode}: ${JSON.stringify(lost)}`).toBeLessThanOrEqual(BOUNDS.row)
        expect(lost.deleted, `${mode}: ${JSON.stringify(lost)}`).toBeLessThan(BOUNDS.lost * plainWords.length)
        // What transformers writes about each clip alone, at its own level.
        const clipWords = clips.flatMap(({ name }) => wordsOf(texts[name] as string))
        const found = differences(clipWords, words)
        expect(found.longestInserted, `${mode}: ${JSON.stringify(found)}`).toBeLessThanOrEqual(BOUNDS.row)
        const all = found.deleted + found.inserted + found.changed
        expect(all, `${mode}: ${JSON.stringify(found)}`).toBeLessThan(BOUNDS.all * clipWords.length)
        for (const { end } of segments) expect(end).toBeLessThanOrEqual(60 * MINUTES)
        expect(untoldClips(clips, texts, { segments, skipped }), mode).toEqual([])
      },
      1_800_000,
    )

    it('plain, each clip has a text or is reported', () => {
      expect(untoldClips(clips, texts, plain.whole)).toEqual([])
    })

    // Of a window with two speakers this network writes one, and nothing in the text says so.
    it.each([
      ['plain', { conditionOnPrevious: false }],
      ['batched', { batchSize: 8 }],
    ] as const)(
      '%s, without timestamps, each clip has a text or is reported',
      async (_, options) => {
        const found = await whisper.transcribe(samples, { ...draws(), ...options, timestamps: false })
        expect(untoldClips(clips, texts, found)).toEqual([])
        expect(found.skipped.some(({ reason }) => reason === 'noText')).toBe(true)
      },
      1_800_000,
    )

    it('both detectors find speech of all levels behind a knock at full scale', async () => {
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
