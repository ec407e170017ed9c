import { mkdtemp, readFile, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { transcribeRule } from '../../lib/cli/transcribe.js'
import { noGrad, pipeline, quantize, randn, type Tensor, Tokenizer, writeWav } from '../../lib/index.js'
import { FastConformerEncoder, ParakeetForCTC, ParakeetForRNNT, ParakeetForTDT } from '../../lib/models/index.js'
import { segmentsOf, timedTokens, wordsOf } from '../../lib/models/parakeet/transcribe.js'
import { expectClose, fixture, fixturePath, settledTensors, tensorsOf } from '../helpers.js'
import { camelKeys, loadParameters } from './networks.js'

interface TimesCase {
  name: 'rnnt' | 'tdt'
  blank: number
  text: string
  times: { token: string; start: number; end: number }[]
  tokenizer: object
}
const times = await fixture<TimesCase>('models/parakeet-timestamps')
const heads = await fixture<{ name: string; config: Record<string, unknown> }>('models/parakeet-heads')

const folder = () => mkdtemp(join(tmpdir(), 'parakeet-'))
async function tokenizerOf(one: TimesCase): Promise<Tokenizer> {
  const file = join(await folder(), 'tokenizer.json')
  await writeFile(file, JSON.stringify(one.tokenizer))
  return Tokenizer.fromFile(file)
}

describe('timestamps', () => {
  it.each(times.cases)('of $name are those of transformers', async (one) => {
    const tokenizer = await tokenizerOf(one)
    const { tokens: ids, durations: spans } = tensorsOf(times, one.name, 'in') as Record<string, Tensor>
    const hypothesis = { tokens: [] as number[], starts: [] as number[], durations: [] as number[] }
    const durations = (spans!.toArray() as (number | bigint)[]).map(Number)
    let frame = 0
    for (const [i, token] of (ids!.toArray() as (number | bigint)[]).map(Number).entries()) {
      if (token !== one.blank) {
        hypothesis.tokens.push(token)
        hypothesis.starts.push(frame)
        hypothesis.durations.push(one.name === 'rnnt' ? 1 : (durations[i] as number))
      }
      frame += durations[i] as number
    }
    expect(tokenizer.decode(hypothesis.tokens, { skipSpecialTokens: true })).toBe(one.text)
    const found = timedTokens(tokenizer, hypothesis, { frameSeconds: 0.08, movesPunctuation: one.name === 'tdt' })
    expect(found.map(({ text }) => text)).toEqual(one.times.map(({ token }) => token))
    for (const [i, { start, end }] of found.entries()) {
      expect(start).toBeCloseTo(one.times[i]!.start, 9)
      expect(end).toBeCloseTo(one.times[i]!.end, 9)
    }
  })

  it('of tokens become those of words and segments', () => {
    const token = (text: string, start: number) => ({ text, start, end: start + 1 })
    const words = wordsOf([
      token('hel', 0),
      token('lo', 1),
      token(' ', 2),
      token('you', 3),
      token('.', 4),
      token(' so', 6),
    ])
    expect(words).toEqual([
      { text: 'hello', start: 0, end: 2 },
      { text: 'you.', start: 2, end: 5 },
      { text: 'so', start: 6, end: 7 },
    ])
    expect(segmentsOf(words)).toEqual([
      { text: 'hello you.', start: 0, end: 5 },
      { text: 'so', start: 6, end: 7 },
    ])
    expect(segmentsOf(words, 1).map(({ text }) => text)).toEqual(['hello you.', 'so'])
    const paused = [words[0]!, { text: 'so', start: 3, end: 4 }]
    expect(segmentsOf(paused)).toHaveLength(1)
    expect(segmentsOf(paused, 0.5)).toEqual(paused)
    expect(wordsOf([])).toEqual([])
  })
})

type Kind = 'ctc' | 'rnnt' | 'tdt'
// One type for all: their static methods have the same arguments.
const CLASSES = { ctc: ParakeetForCTC, rnnt: ParakeetForRNNT, tdt: ParakeetForTDT } as unknown as Record<
  Kind,
  typeof ParakeetForTDT
>

/** A model of the fixture whose tokens are the first pieces of the tokenizer. */
async function modelOf(kind: Kind) {
  const name = { ctc: 'ctc-sum', rnnt: 'rnnt-mean-volume', tdt: 'tdt-mean' }[kind]
  const { encoder_config: encoderConfig, ...rest } = heads.cases.find((one) => one.name === name)!.config
  const model = new CLASSES[kind]({
    ...camelKeys(rest),
    encoderConfig: camelKeys(encoderConfig as object as Record<string, unknown>),
  })
  loadParameters(model, heads, name)
  model.tokenizer = await tokenizerOf(times.cases[0] as TimesCase)
  return model.eval()
}

describe.each(['ctc', 'rnnt', 'tdt'] as const)('transcribe with %s', (kind) => {
  it('finds what decoding of its features finds, with times, also from its folder', async () => {
    const model = await modelOf(kind)
    const samples = randn([16000]).mul(0.1)
    const { inputFeatures, attentionMask } = await model.extractFeatures([samples])
    const [hypothesis] = await model.generate({ inputFeatures, attentionMask })
    const text = model.tokenizer?.decode(hypothesis!.tokens).trim()
    const found = await model.transcribe(samples, { timestamps: 'char' })
    expect(found.text).toBe(text)
    expect(Object.keys(found)).toEqual(['text', 'words', 'chars'])
    expect(Object.keys(await model.transcribe(samples))).toEqual(['text'])
    for (const { start, end } of found.chars ?? []) {
      expect(start).toBeGreaterThanOrEqual(0)
      expect(end).toBeGreaterThanOrEqual(start)
    }
    const at = await folder()
    await model.save(at)
    const again = await CLASSES[kind].fromPretrained(at)
    expect(await again.transcribe(samples, { timestamps: 'char' })).toEqual(found)
    const encoder = await FastConformerEncoder.fromPretrained(at)
    await noGrad(async () => {
      const wanted = (await model.encoder.forward({ inputFeatures, attentionMask })).lastHiddenState
      expectClose((await encoder.forward({ inputFeatures, attentionMask })).lastHiddenState, wanted, 1e-6)
    })

    using transcriber = await pipeline('automatic-speech-recognition', at)
    expect(await transcriber(samples)).toEqual({ text })
    if (kind !== 'ctc') {
      const beams = { numBeams: 3, lengthPenalty: 0.5 }
      const searched = await model.transcribe(samples, { ...beams, timestamps: 'word' })
      expect(searched.text).toBe(
        model.tokenizer
          ?.decode((await model.generate({ inputFeatures, attentionMask }, beams))[0]!.tokens, {
            skipSpecialTokens: true,
          })
          .trim(),
      )
      expect(searched.words?.map((word) => word.text).join(' ')).toBe(searched.text)
      expect(await transcriber(samples, beams)).toEqual({ text: searched.text })
    }
    const chunks = (found.words ?? []).map(({ text: word, start, end }) => ({ text: word, timestamp: [start, end] }))
    expect(await transcriber(samples, { returnTimestamps: 'word' })).toEqual({ text, chunks })
    const { chunks: segments } = await transcriber(samples, { returnTimestamps: true })
    expect(segments?.map((one) => one.text).join(' ')).toBe(found.words?.map((one) => one.text).join(' '))
  })

  it('reads a long recording in pieces, and leaves no tensor', async () => {
    const model = await modelOf(kind)
    const samples = randn([60000]).mul(0.1)
    const whole = await model.transcribe(samples, { chunkSeconds: 10, timestamps: 'segment' })
    expect(whole).toEqual(await model.transcribe(samples, { timestamps: 'segment' }))
    const before = await settledTensors()
    const pieces = await model.transcribe(samples, { chunkSeconds: 1.6, strideSeconds: 0.4, timestamps: 'segment' })
    expect(pieces.text.length).toBeGreaterThanOrEqual(0)
    expect(await settledTensors()).toBe(before)
  })

  it('refuses what does not fit', async () => {
    const model = await modelOf(kind)
    const refused = (options: object, samples = randn([4000])) => expect(model.transcribe(samples, options)).rejects
    await refused({ beamWidth: 2 }).toThrow(/beamWidth/)
    await refused({ numBeams: 0 }).toThrow(/numBeams/)
    await refused({ numBeams: 257 }).toThrow(/numBeams.*257/)
    await refused({ lengthPenalty: 1 }).toThrow(/lengthPenalty: expected 0 without beams, got 1/)
    if (kind === 'ctc') await refused({ numBeams: 2 }).toThrow(/numBeams: expected 1 for a CTC model, got 2/)
    await refused({ timestamps: 'sentence' }).toThrow(/timestamps to be 'word'.*"sentence"/)
    await refused({ strideSeconds: 1 }).toThrow(/strideSeconds: expected undefined without chunkSeconds/)
    await refused({ chunkSeconds: 1, strideSeconds: 0.6 }).toThrow(/less than half/)
    await refused({}, randn([300])).toThrow(/expected at least 320 samples, got 300/)
    model.tokenizer = null
    await refused({}).toThrow(/tokenizer/)
  })
})

describe('quantization', () => {
  it('is of the encoder, and refused in the layers that decoding reads itself', async () => {
    const at = await folder()
    await (await modelOf('tdt')).save(at)
    const model = await ParakeetForTDT.fromPretrained(at, { quantize: 'int8' })
    const samples = randn([8000]).mul(0.1)
    expect(typeof (await model.transcribe(samples)).text).toBe('string')
    await quantize(model, { scheme: 'int8', modules: 'joint.head' })
    await expect(model.transcribe(samples)).rejects.toThrow(
      /joint\.head: expected a layer without adapters and quantization/,
    )
  })
})

describe('NeMo archives', () => {
  it.each(['ctc', 'tdt'] as const)('%s: configuration, weights and tokenizer', async (kind) => {
    const file = fixturePath(`models/parakeet-${kind}.nemo`)
    const model = await CLASSES[kind].fromPretrained(file)
    const state = model.stateDict()
    const expected = tensorsOf(heads, `${kind}-mean`, 'param')
    expect(Object.keys(state).sort()).toEqual(Object.keys(expected).sort())
    for (const [name, value] of Object.entries(expected)) expect(state[name]?.toArray(), name).toEqual(value.toArray())
    expect(model.encoder.config).toMatchObject({
      intermediateSize: 12,
      scaleInput: false,
      layerdrop: 0,
      numMelBins: 16,
    })
    expect(model.config.vocabSize).toBe(7)
    if (kind === 'tdt')
      expect(model.config).toMatchObject({ blankTokenId: 6, padTokenId: 0, durations: [0, 1, 2, 3, 4] })
    expect(model.features).toMatchObject({ winLength: 400, hopLength: 160, featureSize: 16 })
    expect(model.tokenizer?.decode([1, 2, 3])).toBe('he')
    using transcriber = await pipeline('automatic-speech-recognition', file)
    const samples = randn([8000])
    expect(await transcriber(samples)).toEqual(await model.transcribe(samples))
    const at = await folder()
    await model.save(at)
    const saved = JSON.parse(await readFile(join(at, 'config.json'), 'utf8')) as Record<string, unknown>
    expect(saved).toMatchObject({
      model_type: `parakeet_${kind}`,
      encoder_config: { model_type: 'parakeet_encoder', hidden_size: 8 },
    })
    expect(await (await CLASSES[kind].fromPretrained(at)).transcribe(samples)).toEqual(await model.transcribe(samples))
  })

  it('of another head, and files that are none, are refused by name', async () => {
    await expect(ParakeetForRNNT.fromPretrained(fixturePath('models/parakeet-tdt.nemo'))).rejects.toThrow(
      /expected a model for ParakeetForRNNT, got one of TDT\. Load it with ParakeetForTDT/,
    )
    const broken = join(await folder(), 'broken.nemo')
    await writeFile(broken, (await readFile(fixturePath('models/parakeet-tdt.nemo'))).subarray(0, 30_000))
    await expect(ParakeetForTDT.fromPretrained(broken)).rejects.toThrow(/broken\.nemo/)
    await writeFile(broken, 'no archive')
    await expect(ParakeetForTDT.fromPretrained(broken)).rejects.toThrow(/broken\.nemo/)
    await expect(ParakeetForTDT.fromPretrained(join(await folder(), 'missing.nemo'))).rejects.toThrow(/missing\.nemo/)
  })
})

describe('published sizes', () => {
  // As transformers counts its models of the same configurations (parakeet_files_check.py).
  it.each([
    ['parakeet-ctc-0.6b', ParakeetForCTC, 608_799_745],
    ['parakeet-ctc-1.1b', ParakeetForCTC, 1_062_540_289],
    ['parakeet-rnnt-0.6b', ParakeetForRNNT, 616_692_225],
    ['parakeet-tdt-0.6b-v2', ParakeetForTDT, 617_825_926],
    ['parakeet-tdt-0.6b-v3', ParakeetForTDT, 627_008_134],
  ] as const)('%s', (size, Network, parameters) => {
    const model = (Network as unknown as typeof ParakeetForTDT).fromConfig(size, { device: 'meta' })
    expect(model.parameters().reduce((sum, one) => sum + one.numel(), 0)).toBe(parameters)
  })
})

describe('voxtorch transcribe', () => {
  it('takes a folder of Parakeet, and refuses options of Whisper', async () => {
    const at = await folder()
    const model = await modelOf('tdt')
    await model.save(at)
    const file = join(at, 'clip.wav')
    await writeWav(file, randn([24000]).mul(0.1).clamp(-1, 1), { sampleRate: 16000 })
    const lines: string[] = []
    const log = console.log
    console.log = (line: string) => void lines.push(line)
    try {
      const run = (options: object) => transcribeRule.run({ model: at, ...options } as never, [file], {} as never)
      expect(await run({ format: 'json', words: true, quiet: true })).toBe(0)
      const { text, segments, words } = JSON.parse(lines.join('')) as Record<string, unknown>
      expect({ text, segments, words }).toMatchObject({ text: (await model.transcribe(file)).text })
      expect(Array.isArray(words) && Array.isArray(segments)).toBe(true)
      lines.length = 0
      expect(await run({ format: 'text', beams: 3, quiet: true })).toBe(0)
      expect(lines).toEqual([(await model.transcribe(file, { numBeams: 3 })).text])
      await expect(run({ language: 'de' })).rejects.toThrow(/--language: expected none for ParakeetForTDT, got "de"/)
    } finally {
      console.log = log
    }
  })
})
