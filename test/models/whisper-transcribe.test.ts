import { describe, expect, it, vi } from 'vitest'
import {
  ConfigError,
  type GenerationConfig,
  Generator,
  KvCache,
  memoryStats,
  ops,
  type ResampleQuality,
  randn,
  scope,
  setNumThreads,
  type Tensor,
  tensor,
  WHISPER_LANGUAGES,
  Whisper,
  type WhisperTranscription,
} from '../../lib/index.js'
import { samplesOf } from '../../lib/models/whisper/options.js'
import { expectClose, fixture, fixturePath, settledTensors, tensorsOf } from '../helpers.js'
import { get } from './decoder.js'

interface Generated {
  name: string
  beams: number
  prompt: number[]
  rows: number[][]
}
interface Segment {
  start: number
  end: number
  tokens: number[]
  sure: number
}
interface Transcribed {
  name: string
  condition: boolean
  beams: number
  language: string | null
  task: 'transcribe' | 'translate'
  detected: string
  no_speech: number
  segments: Segment[]
}

setNumThreads(1)

const file = await fixture<Generated & Transcribed>('models/whisper-generation')
const model = await Whisper.fromPretrained(fixturePath('models/whisper-tiny'))
const row = (ids: number[]) => tensor([ids.map(BigInt)])
const waveOf = (name: string) =>
  get(tensorsOf(file, `${name.slice(0, 6)}-1-None-False`, 'in').wave)
    .to('float32')
    .div(32768)
const spoken = file.cases.filter(({ segments }) => segments)
const once = { temperature: 0, logprobThreshold: null, noSpeechThreshold: null, compressionRatioThreshold: null }

describe('generate against transformers', () => {
  it('an assistant with an encoder of its own leaves the text as it is', async () => {
    const inputFeatures = get(tensorsOf(file, 'start-1', 'in').features).narrow(0, 0, 1)
    const other = new Whisper({ ...model.config, dModel: 8, encoderLayers: 1, decoderLayers: 1 }).eval()
    const inputs = { inputFeatures, inputIds: row([model.tokens.startOfTranscript]) }
    const config: GenerationConfig = { maxNewTokens: 20, assistantConfidenceThreshold: 0, numAssistantTokens: 4 }
    for (const extra of [{}, { repetitionPenalty: 1.5, returnTimestamps: true }]) {
      const { tokens } = await model.generate(inputs, { ...config, ...extra })
      for (const assistantModel of [model, other]) {
        const guessed = await model.generate(inputs, { ...config, ...extra }, { assistantModel })
        expect(guessed.tokens).toEqual(tokens)
        if (assistantModel === model) expect(get(guessed.guesses).accepted).toBe(get(guessed.guesses).drafted)
      }
    }
    await expect(model.generate(inputs, { ...config, guidanceScale: 2 })).rejects.toThrow(/for language models/)
  })

  it.each(file.cases.filter(({ rows }) => rows))(
    '$name: one by one, and as a batch',
    async ({ beams, prompt, rows }) => {
      const features = get(tensorsOf(file, 'start-1', 'in').features)
      const config: GenerationConfig = { numBeams: beams, returnTimestamps: true }
      for (const [i, expected] of rows.entries()) {
        const { tokens } = await model.generate(
          { inputFeatures: features.narrow(0, i, 1), inputIds: row(prompt) },
          config,
        )
        expect(tokens[0]).toEqual(expected.slice(0, tokens[0]?.length))
        expect(new Set(expected.slice(tokens[0]?.length))).toEqual(new Set())
      }
      const inputIds = tensor(rows.map(() => prompt.map(BigInt)))
      const { tokens } = await model.generate({ inputFeatures: features, inputIds }, config)
      expect(tokens).toEqual(rows)
    },
  )

  it('pads prompts on the left', async () => {
    const features = get(tensorsOf(file, 'start-1', 'in').features).narrow(0, 0, 2)
    const [short, long] = ['start-1', 'longer-1'].map((name) => get(file.cases.find((one) => one.name === name)))
    const pad = long!.prompt.length - short!.prompt.length
    const inputIds = tensor([[...Array(pad).fill(24), ...short!.prompt].map(BigInt), long!.prompt.map(BigInt)])
    const attentionMask = tensor([[...Array(pad).fill(0), ...short!.prompt.map(() => 1)], long!.prompt.map(() => 1)])
    const inputs = { inputFeatures: features, inputIds, attentionMask }
    const { tokens } = await model.generate(inputs, { returnTimestamps: true, maxNewTokens: 20 })
    expect(tokens).toEqual([short!.rows[0]!.slice(0, 20), long!.rows[1]!.slice(0, 20)])
  })

  it('answers of one prompt share its audio, also when some have ended', async () => {
    const inputFeatures = get(tensorsOf(file, 'start-1', 'in').features)
    const inputIds = tensor(Array.from({ length: 6 }, () => [25n, 26n, 30n]))
    const config: GenerationConfig = {
      doSample: true,
      topK: 0,
      numReturnSequences: 3,
      maxNewTokens: 12,
      eosTokenId: [24, 15, 21],
    }
    const draw = (inputFeatures: Tensor, inputIds: Tensor, config: GenerationConfig, uniforms: Tensor) =>
      model.generate({ inputFeatures, inputIds }, config, { uniforms })
    const uniforms = randn([12, 18]).sigmoid()
    const together = await draw(inputFeatures, inputIds, config, uniforms)
    for (let i = 0; i < 18; i++) {
      const clip = Math.floor(i / 3)
      const alone = await draw(
        inputFeatures.narrow(0, clip, 1),
        inputIds.narrow(0, 0, 1),
        { ...config, numReturnSequences: 1 },
        uniforms.narrow(1, i, 1),
      )
      expect(together.tokens[i]).toEqual(alone.tokens[0])
    }
    expect(new Set(together.tokens.map((one) => one.length)).size).toBeGreaterThan(2)
  })

  it('streams what it generates, and refuses more tokens than there are positions', async () => {
    const { prompt, rows } = get(file.cases.find(({ name }) => name === 'start-1'))
    const inputFeatures = get(tensorsOf(file, 'start-1', 'in').features).narrow(0, 0, 1)
    const inputs = { inputFeatures, inputIds: row(prompt) }
    const streamed: (number | null)[] = []
    for await (const { tokens } of model.stream(inputs, { returnTimestamps: true })) streamed.push(tokens[0] ?? null)
    expect(streamed).toEqual(rows[0])
    await expect(model.generate(inputs, { maxNewTokens: 47 })).rejects.toThrow(/max_target_positions 48/)
    await expect(model.generate({}, {})).rejects.toThrow(/nothing to hear/)
  })

  it('leaves a cache of the audio as it is', async () => {
    const { prompt, rows } = get(file.cases.find(({ name }) => name === 'start-4'))
    const inputFeatures = get(tensorsOf(file, 'start-1', 'in').features).narrow(0, 1, 1)
    const { lastHiddenState: encoderHiddenStates } = await model.encode({ inputFeatures })
    using encoderCache = new KvCache()
    const config = { numBeams: 4, returnTimestamps: true }
    for (const inputs of [{ encoderHiddenStates, encoderCache }, { encoderCache }, { encoderCache }]) {
      const { tokens } = await model.generate({ ...inputs, inputIds: row(prompt) }, config)
      expect(tokens[0]).toEqual(rows[1])
      expect(encoderCache.length).toBe(20)
    }
  })
})

describe('transcribe against transformers', () => {
  it.each(spoken)('$name', async ({ name, condition, beams, language, task, segments, detected, no_speech }) => {
    const result = await model.transcribe(waveOf(name), {
      ...once,
      beams,
      language,
      task,
      conditionOnPrevious: condition,
    })
    const tokenizer = get(model.tokenizer)
    const textOf = (tokens: number[]) => tokenizer.decode(tokens.filter((id) => id < 24))
    const expected = segments.filter(({ tokens }) => textOf(tokens).trim() !== '')
    expect(expected.length).toBeGreaterThan(2)
    expect(result.segments.map(({ tokens }) => tokens)).toEqual(expected.map(({ tokens }) => tokens))
    expect(result.language).toBe(language === null ? detected : language.slice(0, 2))
    const duration = waveOf(name).size(0) / 16_000
    result.segments.forEach((segment, i) => {
      const { start, end, sure } = expected[i] as Segment
      // transformers lets times run behind the end of the recording, as far as the window reaches.
      expect(segment.start).toBeCloseTo(Math.min(start, duration), 6)
      expect(segment.end).toBeCloseTo(Math.min(end, duration), 6)
      expect(Math.abs(segment.avgLogprob - sure)).toBeLessThan(1e-4)
    })
    if (!condition) expect(result.segments[0]?.noSpeechProb).toBeCloseTo(no_speech, 6)
    expect(result.text).toBe(
      result.segments
        .map(({ text }) => text)
        .join('')
        .trim(),
    )
  })
})

describe('transcribe', () => {
  const wave = () => waveOf('wave-0')

  it('asks the decoder for the language once, and for nothing else beside the text', async () => {
    for (const [language, passes] of [
      [null, 1],
      ['de', 0],
    ] as const) {
      const forward = vi.spyOn(model, 'forward')
      const seeks = vi.spyOn(model, 'encode')
      await model.transcribe(wave(), { ...once, language })
      expect(seeks.mock.calls.length).toBeGreaterThan(2)
      expect(forward.mock.calls.length).toBe(passes)
      forward.mockRestore()
      seeks.mockRestore()
    }
  })

  it('tells silence behind the start of the transcript, at every temperature, with beams and a text before it', async () => {
    const { endOfText: _, ...tokens } = model.tokens
    const inputFeatures = get(tensorsOf(file, 'start-1', 'in').features).narrow(0, 0, 1)
    const prompt = [tokens.startOfPrevious, 3, 4, 5, tokens.startOfTranscript]
    const { logits } = await model.forward({ inputFeatures, decoderInputIds: row(prompt), logitsToKeep: 1 })
    const inputs = { inputFeatures, inputIds: row([...prompt, tokens.languages.de as number, tokens.transcribe]) }
    for (const config of [{}, { numBeams: 3 }, { doSample: true, numReturnSequences: 2 }]) {
      const { promptLogits } = await model.generate(inputs, { ...config, maxNewTokens: 3 }, { promptLogitsAt: 4 })
      expectClose(promptLogits as Tensor, get(logits).select(1, 0), 1e-5)
    }
    expect((await model.generate(inputs, { maxNewTokens: 1 })).promptLogits).toBeNull()
    await expect(model.generate(inputs, {}, { promptLogitsAt: 7 })).rejects.toThrow(/the prompt has no token 7/)
    await expect(model.generate(inputs, {}, { promptLogitsAt: -1 })).rejects.toThrow(ConfigError)
  })

  it('streams the same segments; leaving the loop or the signal gives up', async () => {
    const whole = await model.transcribe(wave(), once)
    const streamed = []
    const stream = model.transcribeStream(wave(), once)
    let step = await stream.next()
    for (; !step.done; step = await stream.next()) streamed.push(step.value)
    expect(streamed).toEqual(whole.segments)
    expect(step.value).toEqual(whole)
    const before = await settledTensors()
    for await (const segment of model.transcribeStream(wave().clone(), once)) {
      expect(segment).toEqual(whole.segments[0])
      break
    }
    expect(memoryStats().liveTensors - before).toBeLessThanOrEqual(4) // those of the test itself
    const controller = new AbortController()
    await expect(async () => {
      for await (const _ of model.transcribeStream(wave(), { ...once, signal: controller.signal })) controller.abort()
    }).rejects.toThrow(/abort/i)
  })

  it('leaves no tensors behind', async () => {
    const samples = wave()
    const run = () => scope(() => model.transcribe(samples, { language: 'en', beams: 2 }))
    await run()
    const before = await settledTensors()
    await run()
    await model.transcribe(samples, { language: 'en' })
    expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
  })

  it('tries higher temperatures where the text is unlikely or repeats itself, as a seed decides', async () => {
    const drawn = (seed: number) =>
      model.transcribe(wave(), {
        logprobThreshold: 0,
        noSpeechThreshold: null,
        generator: new Generator({ seed }),
      })
    const first = await drawn(1)
    expect(new Set(first.segments.map(({ temperature }) => temperature))).toEqual(new Set([1]))
    expect(first).toEqual(await drawn(1))
    expect(first).not.toEqual(await drawn(2))
    const repeats = await model.transcribe(wave(), { ...once, temperature: [0, 0.7], compressionRatioThreshold: 0 })
    expect(repeats.segments.every(({ temperature }) => temperature === 0.7)).toBe(true)
    const cold = await model.transcribe(wave(), { ...once, temperature: [1e-4] })
    const greedy = await model.transcribe(wave(), { ...once, conditionOnPrevious: false })
    expect(cold.segments.length).toBeGreaterThan(0)
    // Nearly without chance it is what is likeliest, and as likely as that.
    const colder = await model.transcribe(wave(), { ...once, temperature: [1e-4], conditionOnPrevious: false })
    expect(colder.segments.map(({ tokens }) => tokens)).toEqual(greedy.segments.map(({ tokens }) => tokens))
    colder.segments.forEach(({ avgLogprob }, i) => {
      expect(Math.abs(avgLogprob - (greedy.segments[i]?.avgLogprob as number))).toBeLessThan(2e-2)
    })
  })

  it('leaves silence out', async () => {
    const { text, segments } = await model.transcribe(wave(), {
      logprobThreshold: 0,
      noSpeechThreshold: 0,
      temperature: 0,
    })
    expect([text, segments]).toEqual(['', []])
    expect((await model.transcribe(new Float32Array(0), once)).segments).toEqual([])
  })

  it('a short clip, without timestamps, with a prompt, at another rate', async () => {
    const clip = wave().narrow(0, 0, 4000)
    const short = await model.transcribe(clip, { ...once, timestamps: false, language: 'fr' })
    expect(short.segments.map(({ start, end }) => [start, end])).toEqual([[0, 0.24]])
    const prompted = await model.transcribe(wave(), { ...once, initialPrompt: 'the bad cat' })
    expect(prompted.segments).not.toEqual((await model.transcribe(wave(), once)).segments)
    const fast = await model.transcribe({ samples: wave(), sampleRate: 32000 }, once)
    expect(fast.segments.at(-1)?.end).toBeLessThan(0.8)
    const few = await model.transcribe(wave(), { ...once, maxNewTokens: 5 })
    expect(Math.max(...few.segments.map(({ tokens }) => tokens.length))).toBeLessThanOrEqual(5)
  })

  it('segments end with the recording', async () => {
    const duration = 1.3
    expect(
      spoken.some(
        ({ name, segments }) => name.startsWith('wave-0') && segments.some(({ end }) => end > duration + 0.01),
      ),
    ).toBe(true)
    for (const batchSize of [undefined, 2]) {
      const batched =
        batchSize === undefined ? {} : { batchSize, vad: async () => [[0, duration]] as [number, number][] }
      for (const timestamps of [true, false, 'word'] as const) {
        const { segments } = await model.transcribe(wave(), { ...once, ...batched, timestamps })
        expect(segments.length).toBeGreaterThan(2)
        for (const { start, end, words = [] } of segments) {
          expect(end).toBeLessThanOrEqual(duration)
          expect(start).toBeLessThanOrEqual(end)
          for (const word of words) expect(word.end).toBeLessThanOrEqual(duration)
        }
      }
    }
  })

  it('limits tokens by generation too, and refuses there what has an option of its own', async () => {
    const few = await model.transcribe(wave(), { ...once, generation: { maxNewTokens: 5 } })
    expect(few).toEqual(await model.transcribe(wave(), { ...once, maxNewTokens: 5 }))
    expect(few).not.toEqual(await model.transcribe(wave(), once))
    const before = model.generationConfig
    model.generationConfig = { ...before, maxLength: 5 }
    expect(await model.transcribe(wave(), once)).toEqual(few)
    model.generationConfig = { ...before, numBeams: 4 }
    expect(await model.transcribe(wave(), once)).toEqual(await model.transcribe(wave(), { ...once, beams: 4 }))
    model.generationConfig = before
    for (const key of ['temperature', 'numBeams', 'returnTimestamps', 'maxLength', 'numReturnSequences'] as const) {
      const generation = { [key]: key === 'returnTimestamps' ? true : 2 } as object
      await expect(model.transcribe(wave(), { ...once, generation })).rejects.toThrow(`generation.${key}: expected`)
    }
    await expect(
      model.transcribe(wave(), { ...once, maxNewTokens: 4, generation: { maxNewTokens: 5 } }),
    ).rejects.toThrow(/Set only one of them/)
    await expect(model.transcribe(wave(), { ...once, generation: { topKay: 2 } as object })).rejects.toThrow(/topK/)
  })

  it("refuses a prompt that spells special tokens, as transformers' get_prompt_ids", async () => {
    for (const initialPrompt of ['a <|de|> b', '<|endoftext|>', '<|0.10|>', '<|startoftranscript|><|en|>']) {
      const refused = model.transcribe(wave(), { ...once, initialPrompt })
      await expect(refused).rejects.toThrow(/initialPrompt: expected text without special tokens, got ["']?<\|/)
      await expect(refused).rejects.toThrow(ConfigError)
    }
    await model.transcribe(wave(), { ...once, initialPrompt: 'a <|xx|> b' })
  })

  it('carries the prompt to every window, as openai/whisper', async () => {
    const prompts: number[][] = []
    const generate = vi.spyOn(model, 'generate').mockImplementation(async (inputs, ...rest) => {
      prompts.push((get(inputs.inputIds).select(0, 0).toArray() as bigint[]).map(Number))
      return Whisper.prototype.generate.call(model, inputs, ...rest)
    })
    const { startOfPrevious, startOfTranscript } = model.tokens
    const textBefore = (ids: number[]) => ids.slice(1, ids.indexOf(startOfTranscript))
    const prompt = get(model.tokenizer).encode(' the bad cat', { addSpecialTokens: false }).inputIds
    const carried = await model.transcribe(wave(), {
      ...once,
      language: 'de',
      initialPrompt: 'the bad cat',
      carryInitialPrompt: true,
    })
    expect(prompts.length).toBeGreaterThan(2)
    // 48 positions: 23 tokens stand before the start; the prompt, then as many of the last tokens as there is room for.
    const most = 23
    expect(textBefore(get(prompts[0]))).toEqual(prompt)
    for (const ids of prompts.slice(1)) {
      expect(ids[0]).toBe(startOfPrevious)
      expect(textBefore(ids).slice(0, prompt.length)).toEqual(prompt)
      expect(textBefore(ids).length).toBeLessThanOrEqual(most)
    }
    expect(textBefore(get(prompts[2])).length).toBe(most)
    prompts.length = 0
    const first = await model.transcribe(wave(), { ...once, language: 'de', initialPrompt: 'the bad cat' })
    expect(textBefore(get(prompts[2])).slice(0, prompt.length)).not.toEqual(prompt)
    expect(carried.segments[0]).toEqual(first.segments[0])
    generate.mockRestore()
    await expect(model.transcribe(wave(), { ...once, carryInitialPrompt: true })).rejects.toThrow(/an initialPrompt/)
  })

  it('detects the language in several windows, with its probability', async () => {
    const clip = wave()
    const alone: WhisperTranscription[] = []
    for (const from of [0, 6400, 12_800]) {
      const window = clip.narrow(0, from, Math.min(6400, 20_800 - from))
      alone.push(await model.transcribe(window, { ...once, language: null }))
    }
    const first = await model.transcribe(clip, { ...once, language: null })
    expect(first.languageProbability).toBeCloseTo(get(alone[0]).languageProbability as number, 2)
    expect((await model.transcribe(clip, { ...once, language: 'de' })).languageProbability).toBeNull()
    const probabilities = alone.map(({ languageProbability }) => languageProbability as number)
    for (const probability of probabilities) {
      expect(probability).toBeGreaterThan(1 / 3)
      expect(probability).toBeLessThanOrEqual(1)
    }
    // None is sure enough: most windows decide.
    const voted = await model.transcribe(clip, {
      ...once,
      language: null,
      languageDetectionSegments: 3,
      languageDetectionThreshold: 1,
    })
    const counts = alone.map(({ language }) => alone.filter((one) => one.language === language).length)
    expect(counts[alone.findIndex(({ language }) => language === voted.language)]).toBe(Math.max(...counts))
    // The first that is sure enough decides, also before the others.
    const encode = vi.spyOn(model, 'encode')
    const sure = await model.transcribe(clip, {
      ...once,
      language: null,
      languageDetectionSegments: 3,
      languageDetectionThreshold: 0,
    })
    expect(sure).toEqual(first)
    const passes = encode.mock.calls.length
    encode.mockClear()
    await model.transcribe(clip, { ...once, language: null })
    expect(passes).toBe(encode.mock.calls.length + 1)
    encode.mockRestore()
  })

  it('raises the rate of speech without a mirror image above its band', async () => {
    // As energies from 4.1 to 8 kHz over all, in decibels: a tone at 3.8 kHz of telephone speech has its image at 4.2.
    const image = (samples: Tensor): number => {
      const spectrum = ops
        .fftRfft(samples.narrow(0, 2000, 4000))
        .abs()
        .square()
      const [above, all] = [spectrum.narrow(0, 1025, 976).sum().item(), spectrum.sum().item()] as [number, number]
      return 10 * Math.log10(above / all)
    }
    const samples = Float32Array.from({ length: 8000 }, (_, i) => 0.5 * Math.sin((2 * Math.PI * 3800 * i) / 8000))
    const heard = (sampleRate: number, resampling?: ResampleQuality) =>
      samplesOf(model, { samples, sampleRate }, resampling)
    // soxr's HQ recipe has no more than -120 dB of it; the measurement has no window and leaks more.
    expect(image(await heard(8000, 'high'))).toBeLessThan(-40)
    expect(image(await heard(8000, 'sinc'))).toBeGreaterThan(-12)
    expect((await heard(8000)).toArray()).toEqual((await heard(8000, 'high')).toArray())
    expect((await heard(24_000)).toArray()).toEqual((await heard(24_000, 'sinc')).toArray())
    const clip = { samples, sampleRate: 8000 }
    const byDefault = await model.transcribe(clip, { ...once, language: 'de' })
    expect(byDefault).toEqual(await model.transcribe(clip, { ...once, language: 'de', resampling: 'high' }))
    expect(byDefault).not.toEqual(await model.transcribe(clip, { ...once, language: 'de', resampling: 'sinc' }))
    await expect(model.transcribe(clip, { ...once, resampling: 'best' as never })).rejects.toThrow(/resampling/)
  })

  it('refuses wrong options in one sentence', async () => {
    const refused = async (options: object, message: RegExp) => {
      await expect(model.transcribe(wave(), options)).rejects.toThrow(message)
      await expect(model.transcribe(wave(), options)).rejects.toThrow(ConfigError)
    }
    await refused({ lanugage: 'en' }, /expected a known option, got 'lanugage'; did you mean 'language'/)
    await refused(
      { language: 'frensh' },
      /language: expected a language of this Whisper, got 'frensh'\. Did you mean 'french'\?/,
    )
    await refused({ task: 'sing' }, /task/)
    await refused({ temperature: -1 }, /temperature/)
    await refused({ timestamps: 1 }, /timestamps/)
    await expect(model.transcribe(randn([2, 100]))).rejects.toThrow(
      /audio: expected \[samples\], one channel, got float32 \[2, 100\]/,
    )
    await expect(Whisper.fromConfig({ ...model.config }).transcribe(wave())).rejects.toThrow(/tokenizer/)
    await expect(model.generate({}, { returnTimestamps: true, eosTokenId: [] })).rejects.toThrow(
      /expected noTimestampsTokenId and eosTokenId with returnTimestamps/,
    )
  })

  it('knows the published tokens', () => {
    expect(Object.keys(WHISPER_LANGUAGES)).toHaveLength(100)
    const { tokens } = Whisper.fromConfig('tiny', { device: 'meta' })
    expect(tokens).toMatchObject({ endOfText: 50257, startOfTranscript: 50258, translate: 50358, transcribe: 50359 })
    expect(tokens).toMatchObject({ startOfPrevious: 50361, noSpeech: 50362, noTimestamps: 50363 })
    expect([Object.keys(tokens.languages).length, tokens.languages.en, tokens.languages.su]).toEqual([99, 50259, 50357])
    const third = Whisper.fromConfig('large-v3', { device: 'meta' }).tokens
    expect([third.languages.yue, third.transcribe, third.noTimestamps]).toEqual([50358, 50360, 50364])
    const english = Whisper.fromConfig('tiny.en', { device: 'meta' }).tokens
    expect([english.noTimestamps, english.startOfTranscript, english.languages]).toEqual([50362, 50257, {}])
    expect(model.tokens.languages).toEqual({ en: 26, de: 27, fr: 28 })
  })
})
