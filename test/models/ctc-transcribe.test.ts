import { mkdtemp, readFile, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { transcribeRule } from '../../lib/cli/transcribe.js'
import {
  CtcTokenizer,
  ctcBeamSearch,
  loadSafetensors,
  manualSeed,
  pipeline,
  randn,
  saveSafetensors,
  tensor,
  Wav2Vec2ForCTC,
  WavLMForCTC,
  writeWav,
} from '../../lib/index.js'
import type { SpeechEncoderInputs } from '../../lib/models/encoders/speech-encoder.js'
import type { SpeechHeadConfig } from '../../lib/models/encoders/speech-head.js'
import {
  Data2VecAudioForCTC,
  HubertForCTC,
  Wav2Vec2BertForCTC,
  Wav2Vec2ConformerForCTC,
} from '../../lib/models/index.js'
import { settledTensors } from '../helpers.js'

const tiny: SpeechHeadConfig = {
  hiddenSize: 8,
  numHiddenLayers: 2,
  numAttentionHeads: 2,
  intermediateSize: 12,
  convDim: [8, 8],
  convKernel: [10, 3],
  convStride: [5, 2],
  numConvPosEmbeddings: 8,
  numConvPosEmbeddingGroups: 2,
  featExtractNorm: 'layer',
  doStableLayerNorm: true,
  vocabSize: 8,
}
const vocab = { '<pad>': 0, '<s>': 1, '</s>': 2, '<unk>': 3, '|': 4, A: 5, B: 6, C: 7 }

function make(): Wav2Vec2ForCTC {
  manualSeed(11)
  const model = new Wav2Vec2ForCTC({ ...tiny, initializerRange: 1 }).eval()
  model.tokenizer = new CtcTokenizer({ vocab })
  return model
}
const clip = () => {
  manualSeed(3)
  return randn([1200])
}

describe('transcribe of a CTC network', () => {
  it('writes the likeliest token of each frame, with times of words', async () => {
    const model = make()
    const samples = clip()
    const normalised = samples.sub(samples.mean()).div(samples.var({ correction: 0 }).add(1e-7).sqrt())
    const { logits } = await model.forward({ inputValues: normalised.unsqueeze(0) })
    const ids = (logits.at(0).argmax(-1).toArray() as (number | bigint)[]).map(Number)
    const { text, words, chars } = model.tokenizer!.decodeWithOffsets(ids)
    expect(new Set(ids).size).toBeGreaterThan(3)
    const timed = await model.transcribe(samples, { timestamps: 'char' })
    expect(timed.text).toBe(text)
    // Ten samples from one frame to the next.
    const seconds = (offsets: typeof words) =>
      offsets.map((one) => ({ text: one.text, start: (one.start * 10) / 16000, end: (one.end * 10) / 16000 }))
    expect(timed.words).toEqual(seconds(words))
    expect(timed.chars).toEqual(seconds(chars))
    expect(await model.transcribe({ samples, sampleRate: 16000 })).toEqual({ text })
  })

  it('with beams gives the texts of ctcBeamSearch, and times by alignment', async () => {
    const model = make()
    const samples = clip()
    model.normalizesAudio = false
    const { logits } = await model.forward({ inputValues: samples.unsqueeze(0) })
    const expected = await ctcBeamSearch(logits.at(0).logSoftmax(-1), { beamWidth: 20, nBest: 3 })
    const { text, words, hypotheses } = await model.transcribe(samples, { beamWidth: 20, nBest: 3, timestamps: 'word' })
    expect(hypotheses?.map(({ tokens }) => tokens)).toEqual(expected.map(({ tokens }) => tokens))
    expect(hypotheses?.[0]?.text).toBe(text)
    expect(words?.map((word) => word.text).join(' ')).toBe(text)
  })

  it('hears long recordings in pieces that overlap, each frame once', async () => {
    const model = make()
    const samples = clip()
    model.normalizesAudio = false
    const whole = await model.transcribe(samples, { timestamps: 'char' })
    // Pieces of 40 frames; 14 of each neighbour: all that the positions and attention of a frame can tell apart is near.
    const chunkSeconds = (40 * 10) / 16000
    const pieces = await model.transcribe(samples, {
      timestamps: 'char',
      chunkSeconds,
      strideSeconds: chunkSeconds / 3,
    })
    expect(pieces.chars?.at(-1)?.end).toBeLessThanOrEqual(whole.chars?.at(-1)?.end as number)
    expect(pieces.chars?.length).toBeGreaterThan((whole.chars?.length as number) / 2)
    const one = await model.transcribe(samples, { timestamps: 'char', chunkSeconds: 10 })
    expect(one).toEqual(whole)
  })

  it('a piece of its own gives the frames that are its own', async () => {
    const model = make()
    model.normalizesAudio = false
    const seen: number[][] = []
    const { forward } = model
    model.forward = async (inputs) => {
      const output = await forward.call(model, inputs)
      seen.push([(inputs as SpeechEncoderInputs).inputValues.size(1), output.logits.size(1)])
      return output
    }
    const step = 10 / 16000
    const { chars } = await model.transcribe(clip(), {
      timestamps: 'char',
      chunkSeconds: 40 * step,
      strideSeconds: 5 * step,
    })
    // 1200 samples: pieces from 0, 300, 600 and 900.
    expect(seen.map(([samples]) => samples)).toEqual([400, 400, 400, 300])
    expect(chars?.at(-1)?.end).toBeLessThanOrEqual(model.featureLengths([1200])[0]! * step)
  })

  it('leaves no tensor', async () => {
    const model = make()
    const samples = clip()
    await model.transcribe(samples, { beamWidth: 4 })
    const before = await settledTensors()
    await model.transcribe(samples, { beamWidth: 4, timestamps: 'word', chunkSeconds: 0.025 })
    expect(await settledTensors()).toBe(before)
  })

  it('refuses what it does not know, by name', async () => {
    const model = make()
    const bad = (options: object) => expect(model.transcribe(clip(), options)).rejects
    await bad({ beams: 4 }).toThrow(/expected a known option, got 'beams'/)
    await bad({ nBest: 2 }).toThrow(/nBest: expected at most beamWidth \(1\)/)
    await bad({ timestamps: 'phrase' }).toThrow(/timestamps: expected/)
    await bad({ strideSeconds: 1 }).toThrow(/chunkSeconds/)
    await bad({ chunkSeconds: 0.001 }).toThrow(/strideSeconds: expected at least 2 frames/)
    await expect(model.transcribe(tensor([0.5]))).rejects.toThrow(/expected enough samples for one frame, got 1/)
    await expect(model.transcribe(tensor([[0.5]]))).rejects.toThrow(
      /Wav2Vec2ForCTC\.transcribe: audio: expected \[samples\], one channel, got float32 \[1, 1\]/,
    )
    model.tokenizer = null
    await expect(model.transcribe(clip())).rejects.toThrow(/tokenizer: expected a CtcTokenizer/)
    const aborted = AbortSignal.abort(new Error('enough'))
    model.tokenizer = new CtcTokenizer({ vocab })
    await expect(model.transcribe(clip(), { signal: aborted })).rejects.toThrow('enough')
  })
})

describe('files of a CTC network', () => {
  const directory = () => mkdtemp(join(tmpdir(), 'voxtorch-ctc-'))

  it('come back with the tokenizer, and say whether audio is normalised', async () => {
    const folder = await directory()
    const model = make()
    model.normalizesAudio = false
    await model.save(folder)
    const back = await Wav2Vec2ForCTC.fromPretrained(folder)
    expect(back.normalizesAudio).toBe(false)
    expect(back.tokenizer?.vocab).toEqual(vocab)
    expect(await back.transcribe(clip())).toEqual(await model.transcribe(clip()))
    const config = JSON.parse(await readFile(join(folder, 'config.json'), 'utf8'))
    expect([config.architectures, config.model_type]).toEqual([['Wav2Vec2ForCTC'], 'wav2vec2'])
  })

  it('a language brings its adapter and its vocabulary', async () => {
    const folder = await directory()
    manualSeed(5)
    const model = new Wav2Vec2ForCTC({ ...tiny, adapterAttnDim: 4 })
    model.tokenizer = new CtcTokenizer({ vocab: { eng: vocab, deu: { '<pad>': 0, '|': 1, ß: 2, ä: 3 } } })
    await model.save(folder)
    await model.saveAdapter(folder, 'eng')
    const { tensors } = await loadSafetensors(join(folder, 'adapter.eng.safetensors'))
    expect(
      Object.keys(tensors)
        .filter((name) => name.includes('.layers.0.'))
        .sort(),
    ).toEqual(
      ['linear_1.bias', 'linear_1.weight', 'linear_2.bias', 'linear_2.weight', 'norm.bias', 'norm.weight'].map(
        (name) => `wav2vec2.encoder.layers.0.adapter_layer.${name}`,
      ),
    )
    const german = Object.fromEntries(
      Object.entries(tensors).map(([name, value]) => [
        name,
        name.startsWith('lm_head') ? value.narrow(0, 0, 4) : value.add(1),
      ]),
    )
    await saveSafetensors(join(folder, 'adapter.deu.safetensors'), german)
    const back = await Wav2Vec2ForCTC.fromPretrained(folder, { targetLang: 'deu' })
    expect([back.lm_head.outFeatures, back.config.vocabSize, back.tokenizer?.targetLang]).toEqual([4, 4, 'deu'])
    for (const [name, value] of Object.entries(german)) expect(back.stateDict()[name]?.equal(value)).toBe(true)
    await back.loadAdapter('eng')
    expect([back.lm_head.outFeatures, back.tokenizer?.targetLang]).toEqual([8, 'eng'])
    for (const [name, value] of Object.entries(tensors)) expect(back.stateDict()[name]?.equal(value)).toBe(true)
    await expect(back.loadAdapter('fra')).rejects.toThrow(/adapter.fra.safetensors/)
    await expect(back.loadAdapter('../eng')).rejects.toThrow(/language: expected letters/)
    const { [Object.keys(tensors)[0] as string]: _, ...less } = tensors
    await saveSafetensors(join(folder, 'adapter.spa.safetensors'), less)
    await expect(back.loadAdapter('spa')).rejects.toMatchObject({
      name: 'CheckpointError',
      missing: [Object.keys(tensors)[0]],
    })
    await expect(make().loadAdapter('eng')).rejects.toThrow(/expected a network with adapters \(adapterAttnDim\)/)
  })

  it('takes old names of weight normalisation, and fairseq’s', async () => {
    const folder = await directory()
    const model = make()
    await model.save(folder)
    const file = join(folder, 'model.safetensors')
    const { tensors } = await loadSafetensors(file)
    const old = Object.entries(tensors).map(([name, value]) => {
      const renamed = name
        .replace('parametrizations.weight.original0', 'weight_g')
        .replace('parametrizations.weight.original1', 'weight_v')
      return [renamed, value.clone()] as const
    })
    expect(old.filter(([name]) => name.endsWith('weight_g'))).toHaveLength(1)
    await saveSafetensors(file, Object.fromEntries(old))
    expect(await (await Wav2Vec2ForCTC.fromPretrained(folder)).transcribe(clip())).toEqual(
      await model.transcribe(clip()),
    )
    const fairseq = old.map(([name, value]) => [name.replace('lm_head.', 'w2v_encoder.proj.'), value] as const)
    await saveSafetensors(file, Object.fromEntries(fairseq))
    expect(await (await Wav2Vec2ForCTC.fromPretrained(folder)).transcribe(clip())).toEqual(
      await model.transcribe(clip()),
    )
  })

  it('refuses adapters that a network has not', () => {
    expect(() => new WavLMForCTC({ ...tiny, adapterAttnDim: 4 })).toThrow(/WavLM does not have/)
    expect(() => new Wav2Vec2ForCTC({ ...tiny, doStableLayerNorm: false, adapterAttnDim: 4 })).toThrow(
      /do_stable_layer_norm/,
    )
  })
})

describe('voxtorch transcribe and pipeline', () => {
  const bert: SpeechHeadConfig = {
    ...{ hiddenSize: 8, numHiddenLayers: 1, numAttentionHeads: 2, intermediateSize: 12, vocabSize: 8 },
    initializerRange: 1,
  }
  it.each([
    { Network: Wav2Vec2ForCTC, config: tiny },
    { Network: WavLMForCTC, config: tiny },
    { Network: HubertForCTC, config: tiny },
    { Network: Data2VecAudioForCTC, config: { ...tiny, convPosKernelSize: 3 } },
    { Network: Wav2Vec2ConformerForCTC, config: { ...tiny, convDepthwiseKernelSize: 5 } },
    { Network: Wav2Vec2BertForCTC, config: bert },
  ])('take a folder of $Network.name', async ({ Network, config }) => {
    manualSeed(11)
    const model = new (Network as unknown as typeof Wav2Vec2ForCTC)({ ...config, initializerRange: 1 }).eval()
    model.tokenizer = new CtcTokenizer({ vocab })
    const folder = await mkdtemp(join(tmpdir(), 'voxtorch-ctc-'))
    await model.save(folder)
    const file = join(folder, 'clip.wav')
    await writeWav(file, randn([16000]).mul(0.1).clamp(-1, 1), { sampleRate: 16000 })
    const { text, words } = await model.transcribe(file, { timestamps: 'word' })
    using transcriber = await pipeline('automatic-speech-recognition', folder)
    expect((await transcriber(file)).text).toBe(text)

    const lines: string[] = []
    const log = console.log
    console.log = (line: string) => void lines.push(line)
    try {
      const run = (options: object) =>
        transcribeRule.run({ model: folder, quiet: true, ...options } as never, [file], {} as never)
      expect(await run({ format: 'json', words: true })).toBe(0)
      const found = JSON.parse(lines.splice(0).join('')) as {
        text: string
        words: object[]
        segments: { text: string }[]
      }
      expect(found.text).toBe(text)
      expect(found.words).toHaveLength(words?.length as number)
      expect(found.segments.map((one) => one.text).join(' ')).toBe(words?.map((one) => one.text).join(' '))
      expect(await run({ format: 'text', beams: 4 })).toBe(0)
      expect(lines.splice(0)).toEqual([(await model.transcribe(file, { beamWidth: 4 })).text])
      await expect(run({ language: 'de' })).rejects.toThrow(`--language: expected none for ${Network.name}, got "de"`)
      const path = join(folder, 'config.json')
      const saved = JSON.parse(await readFile(path, 'utf8')) as object
      await writeFile(
        path,
        JSON.stringify({ ...saved, architectures: [Network.name.replace('CTC', 'SequenceClassification')] }),
      )
      await expect(run({})).rejects.toThrow(/--model: expected \w+ForCTC, got \w+ForSequenceClassification/)
    } finally {
      console.log = log
    }
  })
})
