import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import {
  CheckpointError,
  KvCache,
  memoryStats,
  noGrad,
  scope,
  setNumThreads,
  Tokenizer,
  Whisper,
} from '../../lib/index.js'
import type { WhisperAlignmentInputs, WhisperHead } from '../../lib/models/whisper/alignment.js'
import { wordsOf } from '../../lib/models/whisper/words.js'
import { fixture, fixturePath, settledTensors, tensorsOf } from '../helpers.js'
import { get } from './decoder.js'

interface Aligned {
  name: string
  heads: WhisperHead[]
  prompt: number[]
  frames: number[]
  rows: number[][]
  times: number[][]
  sure: number[][]
}
interface Spoken {
  name: string
  sound: number
  heads: WhisperHead[]
  condition: boolean
  segments: { tokens: number[]; words: { text: string; start: number; end: number }[] }[]
}
interface Cut {
  name: string
  tokens: number[]
  language: string
  texts: string[]
  places: number[][]
}
interface Fallen {
  name: string
  sound: number
  condition: boolean
  logprob: number
  ratio: number
  silence: number
  segments: { tokens: number[]; temperature: number }[]
  tried: number[]
}

setNumThreads(1)

const file = await fixture<Aligned & Spoken & Cut & Fallen>('models/whisper-words')
const sounds = await fixture('models/whisper-generation')
const cases = (prefix: string) => file.cases.filter(({ name }) => name.startsWith(prefix))
const directory = fixturePath('models/whisper-tiny')
const model = await Whisper.fromPretrained(directory)
const END = model.tokens.endOfText
const waveOf = (sound: number) =>
  get(tensorsOf(sounds, `wave-${sound}-1-None-False`, 'in').wave)
    .to('float32')
    .div(32768)
const once = { temperature: 0, logprobThreshold: null, noSpeechThreshold: null, compressionRatioThreshold: null }

/** Multiples of 20 ms, within the rounding of the reference's float32. */
function expectTimes(actual: number[], expected: number[]) {
  expect(actual.length).toBe(expected.length)
  actual.forEach((time, i) => {
    expect(Math.abs(time - (expected[i] as number))).toBeLessThan(2e-4)
  })
}

describe('tokenTimestamps against transformers', () => {
  const features = get(tensorsOf(file, 'tokens-upper-1', 'in').features)

  it.each(cases('tokens'))(
    '$name: as a batch, and one by one',
    async ({ heads, prompt, frames, rows, times, sure }) => {
      model.alignmentHeads = heads
      const together = await model.tokenTimestamps({ inputFeatures: features, prompt, tokens: rows, frames })
      for (const [i, row] of rows.entries()) {
        const inputFeatures = features.narrow(0, i, 1)
        const inputs = { prompt, tokens: [row], frames: [frames[i] as number] }
        const [alone] = await model.tokenTimestamps({ inputFeatures, ...inputs })
        for (const found of [together[i], alone]) {
          const expected = times[i] as number[]
          expectTimes(
            get(found).map(({ time }) => time),
            expected,
          )
          get(found).forEach(({ probability }, j) => {
            expect(Math.abs(probability - (sure[i]?.[j] as number))).toBeLessThan(1e-5)
          })
        }
      }
      expect(new Set(times.flat()).size).toBeGreaterThan(3)
    },
  )

  it('takes what is known of the audio, and a single token', async () => {
    const { heads, prompt, frames, rows } = get(cases('tokens-upper-1')[0])
    model.alignmentHeads = heads
    const [, expected] = await model.tokenTimestamps({ inputFeatures: features, prompt, tokens: rows, frames })
    const known = { prompt, tokens: [get(rows[1])], frames: [get(frames[1])] }
    const { lastHiddenState } = await noGrad(() => model.encode({ inputFeatures: features.narrow(0, 1, 1) }))
    using encoderCache = new KvCache()
    for (const inputs of [{ encoderHiddenStates: lastHiddenState, encoderCache }, { encoderCache }]) {
      // Where the audio is encoded alone, products may be rounded otherwise.
      const near = get(expected).map(({ time, probability }) => ({ time, probability: expect.closeTo(probability, 5) }))
      expect(await model.tokenTimestamps({ ...inputs, ...known })).toEqual([near])
    }
    const [single] = await model.tokenTimestamps({ encoderCache, tokens: [[5]] })
    expect(get(single).map(({ time }) => time)).toEqual([0])
    const [unheard] = await model.tokenTimestamps({ encoderCache, tokens: [[5, 6, 7]], frames: [0] })
    expect(get(unheard).map(({ time }) => time)).toEqual([0, 0, 0])
    const two = await model.tokenTimestamps({ encoderCache, tokens: [[5, 6]] })
    expect(get(two[0]).map(({ time }) => time)).toEqual([0, 0])
  })

  it('refuses what cannot be aligned, and leaves no tensors', async () => {
    const inputFeatures = features.narrow(0, 0, 1)
    const before = await settledTensors()
    const refused = async (inputs: object | null, message: RegExp) => {
      await expect(model.tokenTimestamps(inputs as WhisperAlignmentInputs)).rejects.toThrow(message)
    }
    for (const tokens of [[], [[]], [[-1]], [[99999]], [[0.5]], ['a'], 'a', undefined]) {
      await refused({ inputFeatures, tokens }, /tokens: expected a non-empty list/)
    }
    for (const prompt of [[], [1e9], 'a', null])
      await refused({ inputFeatures, tokens: [[1]], prompt }, /prompt: expected a non-empty list/)
    for (const frames of [[3, 3], [-1], [21], 3, null])
      await refused({ inputFeatures, tokens: [[1]], frames }, /frames/)
    await refused({ inputFeatures, tokens: [[1], [2]] }, /row of audio/)
    await refused({ inputFeatures, tokens: [Array(48).fill(1)] }, /max_target_positions/)
    await refused({ tokens: [[1]] }, /nothing to hear/)
    await refused(null, /options to be/)
    const heads = model.alignmentHeads
    for (const wrong of [[[7, 0]], [[1, 2]], [], null]) {
      model.alignmentHeads = wrong as WhisperHead[]
      await refused({ inputFeatures, tokens: [[1, 2]] }, /alignmentHeads: expected pairs/)
    }
    model.alignmentHeads = heads
    await model.tokenTimestamps({ inputFeatures, tokens: [[1, 2, 3]] })
    expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
  })
})

describe('words against transformers', () => {
  it.each(cases('words'))('$name: a long recording', async ({ sound, heads, condition, segments }) => {
    model.alignmentHeads = heads
    const options = { ...once, language: 'en', conditionOnPrevious: condition, timestamps: 'word' as const }
    const result = await model.transcribe(waveOf(sound), options)
    const tokenizer = get(model.tokenizer)
    const expected = segments.filter(({ tokens }) => tokenizer.decode(tokens.filter((id) => id < END)).trim() !== '')
    expect(expected.length).toBeGreaterThan(2)
    expect(result.segments.map(({ tokens }) => tokens)).toEqual(expected.map(({ tokens }) => tokens))
    result.segments.forEach(({ words = [], text }, i) => {
      const wanted = get(expected[i]).words
      expect(words.map((word) => word.text)).toEqual(wanted.map((word) => word.text))
      expect(words.map((word) => word.text).join('')).toBe(text)
      expectTimes(
        words.flatMap(({ start, end }) => [start, end]),
        wanted.flatMap(({ start, end }) => [start, end]),
      )
      for (const { probability } of words) expect(probability > 0 && probability <= 1).toBe(true)
    })
    const plain = await model.transcribe(waveOf(sound), { ...options, timestamps: true })
    expect(plain.segments).toEqual(result.segments.map(({ words: _, ...rest }) => rest))
  })

  it('cuts text into words, also where characters have several tokens', async () => {
    const tokenizer = await Tokenizer.fromPretrained(fixturePath('models/whisper-bytes'))
    const cuts = cases('cut')
    expect(cuts.length).toBe(20)
    for (const { name, tokens, language, texts, places } of cuts) {
      const words = wordsOf(tokenizer, tokens, language)
      expect(
        words.map(({ text }) => text),
        name,
      ).toEqual(texts)
      expect(
        words.map((word) => word.places),
        name,
      ).toEqual(places)
    }
    expect(wordsOf(tokenizer, [], 'en')).toEqual([])
  })

  it('leaves no tensors behind', async () => {
    const wave = waveOf(0)
    const run = () => scope(() => model.transcribe(wave, { ...once, timestamps: 'word' }))
    await run()
    const before = await settledTensors()
    await run()
    expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
  })

  it('the heads are those of the file, saved again', async () => {
    expect((await Whisper.fromPretrained(directory)).alignmentHeads).toEqual([
      [1, 0],
      [1, 1],
    ])
    const folder = mkdtempSync(join(tmpdir(), 'whisper-heads-'))
    try {
      model.alignmentHeads = [[0, 1]]
      await model.save(folder)
      expect((await Whisper.fromPretrained(folder)).alignmentHeads).toEqual([[0, 1]])
      const name = join(folder, 'generation_config.json')
      const settings = JSON.parse(readFileSync(name, 'utf8'))
      for (const alignment_heads of [[[2, 0]], [[0]], [], 'all', [[0, -1]]]) {
        writeFileSync(name, JSON.stringify({ ...settings, alignment_heads }))
        await expect(Whisper.fromPretrained(folder)).rejects.toThrow(CheckpointError)
      }
    } finally {
      rmSync(folder, { recursive: true })
    }
  })
})

describe('falls back on higher temperatures as transformers, with the same draws', () => {
  const numbers = get(tensorsOf(file, 'uniforms', 'in').uniforms)

  it.each(cases('fallback'))('$name', async ({ sound, condition, logprob, ratio, silence, segments, tried }) => {
    const drawing = await Whisper.fromPretrained(directory)
    const generate = drawing.generate.bind(drawing)
    const temperatures: number[] = []
    let used = 0
    drawing.generate = async (inputs, config = {}, options) => {
      temperatures.push(config.doSample ? (config.temperature as number) : 0)
      if (!config.doSample) return generate(inputs, config, options)
      const uniforms = numbers.narrow(0, used, 48).unsqueeze(1)
      const output = await generate(inputs, config, { ...options, uniforms })
      used += get(output.tokens[0]).length
      return output
    }
    const result = await drawing.transcribe(waveOf(sound), {
      language: 'en',
      conditionOnPrevious: condition,
      logprobThreshold: logprob,
      compressionRatioThreshold: ratio,
      noSpeechThreshold: silence,
    })
    expect(temperatures).toEqual(tried)
    const tokenizer = get(drawing.tokenizer)
    const expected = segments.filter(({ tokens }) => tokenizer.decode(tokens.filter((id) => id < END)).trim() !== '')
    expect(result.segments.map(({ tokens, temperature }) => ({ tokens, temperature }))).toEqual(expected)
  })

  it('each of the three thresholds decides somewhere', () => {
    for (const reason of ['unlikely', 'repeats', 'both']) {
      const tried = cases('fallback').flatMap((one) => (one.name.includes(reason) ? one.tried : []))
      expect(Math.max(...tried), reason).toBeGreaterThan(0)
    }
    const unlikely = cases('fallback-0-unlikely-False')[0]
    expect(cases('fallback-0-silence-False')[0]?.segments.length).toBeLessThan(get(unlikely).segments.length)
  })
})
