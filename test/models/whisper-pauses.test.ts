import { describe, expect, it, vi } from 'vitest'
import { ConfigError, memoryStats, scope, setNumThreads, type TranscribeOptions, Whisper } from '../../lib/index.js'
import { endOfSpeech, withoutPauses } from '../../lib/models/whisper/pauses.js'
import { fixture, fixturePath, settledTensors, tensorsOf } from '../helpers.js'
import { get } from './decoder.js'

type Word = [text: string, start: number, end: number, probability: number]
interface Window {
  spokenUntil: number
  given: { seek: number; start: number; end: number; pieces: Word[] }[]
  expected: { start: number; end: number; words: Word[] }[]
  /** Where its last word ends. */
  ends: number
}

setNumThreads(1)
const file = await fixture<{ name: string; windows: Window[] }>('models/whisper-pauses')
const windows = file.cases.flatMap((one) => one.windows)

describe('words without pauses, against openai/whisper', () => {
  it.each(file.cases)('$name', ({ windows }) => {
    for (const { spokenUntil, given, expected, ends } of windows) {
      const segments = given.map(({ seek, start, end, pieces }) => ({
        start,
        end,
        pieces: pieces.map(([text, start, end, probability], i) => ({
          text,
          start: seek / 100 + start,
          end: seek / 100 + end,
          probability,
          places: [i],
        })),
      }))
      const before = structuredClone(segments)
      const spoken = withoutPauses(segments, spokenUntil)
      expect(segments).toEqual(before)
      const numbersOf = (one: { start: number; end: number; words: number[][] }) => [
        one.start,
        one.end,
        ...one.words.flat(),
      ]
      const found = spoken.map(({ words, ...one }) => ({
        ...one,
        words: words.map(({ start, end, probability }) => [start, end, probability]),
      }))
      const wanted = expected.map(({ words, ...one }) => ({ ...one, words: words.map(([, ...numbers]) => numbers) }))
      expect(spoken.map(({ words }) => words.map(({ text }) => text))).toEqual(
        expected.map(({ words }) => words.map(([text]) => text)),
      )
      found.forEach((one, i) => {
        const [a, b] = [numbersOf(one), numbersOf(get(wanted[i]))]
        expect(a.length).toBe(b.length)
        for (const [j, number] of a.entries()) expect(number).toBeCloseTo(b[j] as number, 6)
      })
      expect(endOfSpeech(spoken)).toBeCloseTo(ends, 6)
    }
  })

  it('has cases of every kind', () => {
    const words = windows.flatMap(({ given, expected }) => given.map((one, i) => ({ ...one, told: get(expected[i]) })))
    expect(words.filter(({ start, told }) => told.words.length > 0 && told.start !== start).length).toBeGreaterThan(15)
    expect(words.filter(({ end, told }) => told.words.length > 0 && told.end !== end).length).toBeGreaterThan(15)
    expect(words.filter(({ pieces, told }) => told.words.length < pieces.length).length).toBeGreaterThan(15)
    expect(words.filter(({ told }) => told.words.length === 0).length).toBeGreaterThan(5)
  })
})

describe('transcribe', async () => {
  const model = await Whisper.fromPretrained(fixturePath('models/whisper-tiny'))
  const sounds = await fixture('models/whisper-generation')
  const wave = get(tensorsOf(sounds, 'wave-2-1-None-False', 'in').wave)
    .to('float32')
    .div(32768)
  const options: TranscribeOptions = {
    timestamps: 'word',
    language: 'en',
    conditionOnPrevious: false,
    temperature: 0,
    logprobThreshold: null,
    noSpeechThreshold: null,
    compressionRatioThreshold: null,
  }

  it('gives the same words in other times with trimPauses', async () => {
    const plain = await model.transcribe(wave, options)
    const { segments } = await model.transcribe(wave, { ...options, trimPauses: true })
    const wordsOf = ({ segments }: typeof plain) => segments.map(({ words = [] }) => words.map(({ text }) => text))
    expect(segments.length).toBeGreaterThan(3)
    expect(segments.map(({ tokens }) => tokens)).toEqual(plain.segments.map(({ tokens }) => tokens))
    expect(wordsOf({ ...plain, segments })).toEqual(wordsOf(plain))
    const times = (all: typeof segments) => all.flatMap(({ words = [] }) => words.map(({ start, end }) => [start, end]))
    expect(times(segments)).not.toEqual(times(plain.segments))
    for (const { start, end, words = [] } of segments) {
      // Or else a word reached beyond its segment by half a second, which is more than this model's window.
      expect([start, end]).toEqual([words[0]?.start, words.at(-1)?.end])
      expect(Math.max(...words.map(({ start, end }) => end - start))).toBeLessThan(1.4)
      for (const { probability } of words) expect(probability > 0 && probability <= 1).toBe(true)
    }
  })

  it('takes each window together, and knows where the one before it ended', async () => {
    // Words that reach so far into the next window that there is no pause before it.
    const timestamps = vi
      .spyOn(model, 'tokenTimestamps')
      .mockImplementation(async ({ tokens }) =>
        tokens.map((row) => row.map((_, i) => ({ time: i === 0 ? 0 : 0.5 + 0.04 * i, probability: 0.5 }))),
      )
    // Without punctuation the plain words are the pieces.
    const marks = ['.', ','].map((mark) => get(model.tokenizer).tokenToId(mark) as number)
    const unmarked = { ...options, generation: { suppressTokens: [3, 25, ...marks] } }
    const plain = await model.transcribe(wave, unmarked)
    const { segments } = await model.transcribe(wave, { ...unmarked, trimPauses: true })
    const windows: (typeof segments)[] = []
    for (const [i, segment] of plain.segments.entries()) {
      if (segment.avgLogprob === plain.segments[i - 1]?.avgLogprob) windows.at(-1)?.push(segment)
      else windows.push([segment])
    }
    expect(windows.length).toBeGreaterThan(3)
    const expected = (carries: boolean) => {
      let spokenUntil = 0
      return windows.flatMap((window) => {
        const aligned = window.map(({ start, end, words = [] }) => {
          return { start, end, pieces: words.map((word, i) => ({ ...word, places: [i] })) }
        })
        const spoken = withoutPauses(aligned, carries ? spokenUntil : 0)
        spokenUntil = endOfSpeech(spoken) as number
        return spoken
      })
    }
    const found = segments.map(({ start, end, words }) => ({ start, end, words }))
    expect(found).toEqual(expected(true))
    expect(found).not.toEqual(expected(false))
    timestamps.mockRestore()
  })

  it('refuses trimPauses without words, and leaves no tensors', async () => {
    for (const wrong of [{ timestamps: true }, { trimPauses: 1 }, { timestamps: false }]) {
      const given = { ...options, trimPauses: true, ...wrong } as TranscribeOptions
      await expect(model.transcribe(wave, given)).rejects.toThrow(ConfigError)
    }
    const run = () => scope(() => model.transcribe(wave, { ...options, trimPauses: true }))
    await run()
    const before = await settledTensors()
    await run()
    expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
  })
})
