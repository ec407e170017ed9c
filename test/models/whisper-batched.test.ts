import { describe, expect, it } from 'vitest'
import type { Segment } from '../../lib/audio/silence.js'
import { ConfigError, energyVad, memoryStats, scope, setNumThreads, Whisper } from '../../lib/index.js'
import { fixture, fixturePath, settledTensors, tensorsOf } from '../helpers.js'
import { get } from './decoder.js'

setNumThreads(1)

const file = await fixture<{ name: string }>('models/whisper-generation')
const model = await Whisper.fromPretrained(fixturePath('models/whisper-tiny'))
const { name } = get(file.cases.find((one) => one.name.startsWith('wave-0')))
const wave = () =>
  get(tensorsOf(file, name, 'in').wave)
    .to('float32')
    .div(32768)
const plain = { temperature: 0, logprobThreshold: null, noSpeechThreshold: null, compressionRatioThreshold: null }
// A window is 0.4 s.
const speech: Segment[] = [
  [0.05, 0.25],
  [0.3, 0.4],
  [0.45, 0.8],
  [0.85, 1.05],
  [1.1, 1.28],
]
const pieces: Segment[] = [
  [0.05, 0.4],
  [0.45, 0.8],
  [0.85, 1.05],
  [1.1, 1.28],
]
const vad = async () => speech

describe('transcribe({ batchSize })', () => {
  it.each([1, 2, 3, 8])('%i pieces at once have the text of each alone', async (batchSize) => {
    const samples = wave()
    expect(samples.size(0)).toBe(20_800)
    for (const more of [
      { language: 'de' },
      { language: 'en', beams: 2 },
      { timestamps: 'word' as const, language: 'fr' },
    ]) {
      const together = await model.transcribe(samples, { ...plain, ...more, batchSize, vad })
      const alone = []
      for (const [start, end] of pieces) {
        const piece = samples.narrow(0, Math.round(start * 16_000), Math.round((end - start) * 16_000))
        const { segments } = await model.transcribe(piece, {
          ...plain,
          ...more,
          batchSize: 1,
          vad: async () => [[0, end - start]],
        })
        alone.push(...segments.map((one) => ({ ...one, start: one.start + start, end: one.end + start })))
      }
      expect(together.segments.map(({ tokens }) => tokens)).toEqual(alone.map(({ tokens }) => tokens))
      expect(alone.length).toBeGreaterThan(3)
      for (const [i, segment] of together.segments.entries()) {
        expect(segment.start).toBeCloseTo(alone[i]!.start, 6)
        expect(segment.end).toBeCloseTo(alone[i]!.end, 6)
        expect(segment.avgLogprob).toBeCloseTo(alone[i]!.avgLogprob, 4)
        expect(segment.noSpeechProb).toBeCloseTo(alone[i]!.noSpeechProb, 4)
        expect(segment.words?.map(({ text }) => text)).toEqual(alone[i]!.words?.map(({ text }) => text))
      }
      expect(together.language).toBe(more.language)
    }
  })

  it('a piece of one window has the text of that window, as transformers says it', async () => {
    const clip = wave().narrow(0, 0, 6400)
    const options = { ...plain, language: 'en', timestamps: false } as const
    const { segments } = await model.transcribe(clip, options)
    const whole = await model.transcribe(clip, { ...options, batchSize: 4, vad: async () => [[0, 0.4]] })
    expect(whole.segments).toEqual(segments)
  })

  it.each([1, 4])('loses nothing behind a pair of timestamps, %i at once', async (batchSize) => {
    let pairs = 0
    for (const start of [0, 0.2, 0.4, 0.6, 0.8]) {
      const clip = wave().narrow(0, start * 16_000, 6400)
      for (const language of ['en', 'de', 'fr']) {
        const options = { ...plain, language, conditionOnPrevious: false }
        // Window by window as transformers, where each begins at the last pair of the one before.
        const { segments } = await model.transcribe(clip, options)
        const { conditionOnPrevious: _, ...rest } = options
        const whole = await model.transcribe(clip, { ...rest, batchSize, vad: async () => [[0, 0.4]] })
        const left = whole.skipped.reduce((sum, { start, end }) => sum + end - start, 0)
        // Only the end of a word, less than a tenth of a second, is left out, and that is said.
        const heard = segments.filter((one) => one.start < 0.4 - left - 1e-6)
        expect(whole.segments).toEqual(heard)
        expect(left).toBeLessThan(0.1)
        if (new Set(whole.segments.map(({ avgLogprob }) => avgLogprob)).size > 1) pairs += 1
      }
    }
    expect(pairs).toBeGreaterThan(3)
  })

  it('reports what is between pieces and what the network takes for silence', async () => {
    const settings = { ...plain, language: 'de', batchSize: 4, vad }
    const { skipped } = await model.transcribe(wave(), settings)
    const between = [
      [0, 0.05],
      [0.4, 0.45],
      [0.8, 0.85],
      [1.05, 1.1],
      [1.28, 1.3],
    ] as const
    for (const [start, end] of between) {
      const found = skipped.find((one) => one.start <= start + 1e-6 && one.end >= end - 1e-6)
      expect(found?.reason).toBe('vad')
    }
    const silent = await model.transcribe(wave(), { ...settings, noSpeechThreshold: 0, logprobThreshold: 0 })
    expect(silent.skipped.filter(({ reason }) => reason === 'noSpeech').length).toBeGreaterThan(2)
    const seconds = silent.skipped.reduce((sum, { start, end }) => sum + end - start, 0)
    expect(seconds).toBeCloseTo(1.3, 1)
  })

  it('reports what the network wrote nothing about, also without batchSize', async () => {
    const nothing = { allowedTokens: [24], beginSuppressTokens: [] }
    const settings = { ...plain, language: 'de', timestamps: false as const, generation: nothing }
    const { text, segments, skipped } = await model.transcribe(wave(), settings)
    expect({ text, segments, skipped }).toEqual({
      text: '',
      segments: [],
      skipped: [{ start: 0, end: 1.3, reason: 'noText' }],
    })
  })

  it('tries only the doubtful pieces again, and leaves silence out', async () => {
    const settings = { ...plain, language: 'de', batchSize: 4, vad }
    const greedy = await model.transcribe(wave(), settings)
    const sure = greedy.segments.map(({ avgLogprob }) => avgLogprob).sort((a, b) => a - b)
    const bound = ((sure[0] as number) + (sure.at(-1) as number)) / 2
    const mixed = await model.transcribe(wave(), { ...settings, temperature: [0, 0.5], logprobThreshold: bound })
    const warm = new Set(mixed.segments.map(({ temperature }) => temperature))
    expect(warm).toEqual(new Set([0, 0.5]))
    const kept = mixed.segments.filter(({ temperature }) => temperature === 0).map(({ tokens }) => tokens)
    expect(greedy.segments.map(({ tokens }) => tokens)).toEqual(expect.arrayContaining(kept))
    const silent = await model.transcribe(wave(), { ...settings, noSpeechThreshold: 0 })
    expect(silent.segments).toEqual([])
    const unheard = await model.transcribe(wave(), { ...settings, vad: async () => [] })
    expect([unheard.text, unheard.skipped]).toEqual(['', [{ start: 0, end: 1.3, reason: 'vad' }]])
    const { segments } = await model.transcribe(wave(), { ...plain, batchSize: 2, vad: energyVad })
    expect(segments.length).toBeGreaterThan(2)
  })

  it('refuses what has no meaning, and leaves no tensors behind', async () => {
    const refused = (options: object) => expect(model.transcribe(wave(), options)).rejects.toThrow(ConfigError)
    await refused({ batchSize: 0 })
    await refused({ vad })
    await refused({ batchSize: 2, vad: 'energy' })
    await refused({ batchSize: 2, conditionOnPrevious: true })
    await refused({ batchSize: 2, vad: async () => [[0, 90]] })
    const samples = wave()
    const run = () => scope(() => model.transcribe(samples, { language: 'en', batchSize: 3, vad }))
    await run()
    const before = await settledTensors()
    await run()
    await model.transcribe(samples, { language: 'en', batchSize: 3, vad, timestamps: 'word' })
    expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
  })
})
