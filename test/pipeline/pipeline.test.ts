// Each task against the numbers of the network that stands behind it; what those are worth is tested with the networks.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Segment } from '../../lib/audio/silence.js'
import * as vt from '../../lib/index.js'
import * as sp from '../../lib/systems/spectra/index.js'
import { SpectraForSequenceClassification } from '../../lib/systems/spectra/index.js'
import { expectClose, fixturePath, settledTensors } from '../helpers.js'
import { smallSpectra } from '../systems/spectra/network.js'
import { tinyTokenizer } from '../systems/spectra/tiny.js'

vt.setNumThreads(1)
const folder = mkdtempSync(join(tmpdir(), 'voxtorch-pipeline-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const at = (name: string) => join(folder, name)
const whisper = fixturePath('models/whisper-tiny')

const speech = {
  hiddenSize: 8,
  numHiddenLayers: 2,
  numAttentionHeads: 2,
  intermediateSize: 12,
  convDim: [8, 8],
  convKernel: [10, 3],
  convStride: [5, 2],
  numConvPosEmbeddings: 8,
  numConvPosEmbeddingGroups: 2,
  initializerRange: 1,
}
const text = { vocabSize: 10, hiddenSize: 8, numHiddenLayers: 2, numAttentionHeads: 2, intermediateSize: 12 }
const id2label = { 0: 'calm', 1: 'glad', 2: 'sad' }
const vocab = { '<pad>': 0, '<s>': 1, '</s>': 2, '<unk>': 3, '|': 4, A: 5, B: 6, C: 7 }
const TEMPLATE = "{% for m in messages %}{{ m['content'] }} {% endfor %}{% if add_generation_prompt %}a {% endif %}"

const wave = (samples: number, seed: number) => {
  const random = new vt.Random(seed)
  return Float32Array.from({ length: samples }, () => random.float() - 0.5)
}
const samplesOf = (input: Float32Array) => vt.tensor(input)
let tokenizer: vt.Tokenizer
/** Other model types of DecoderLM. */
const FAMILIES = ['mistral', 'qwen2', 'phi3', 'internlm2'] as const

beforeAll(async () => {
  tokenizer = await tinyTokenizer(at('tokenizer'))
  vt.manualSeed(5)
  const save = async (name: string, network: { save(directory: string): Promise<void> }) => {
    await network.save(at(name))
    if (/roberta|llama/.test(name)) tokenizer.saveTo(at(name))
  }
  await save('ctc', vt.WavLMForCTC.fromConfig({ ...speech, vocabSize: 8 }))
  writeFileSync(at('ctc/vocab.json'), JSON.stringify(vocab))
  await save('emotions', vt.Wav2Vec2ForSequenceClassification.fromConfig({ ...speech, id2label }))
  writeFileSync(at('emotions/preprocessor_config.json'), '{"do_normalize": false}')
  await save(
    'tags',
    vt.WavLMForSequenceClassification.fromConfig({ ...speech, problemType: 'multi_label_classification' }),
  )
  await save('wavlm', vt.WavLM.fromConfig(speech))
  const { convDim: _, convKernel, convStride, numConvPosEmbeddings, numConvPosEmbeddingGroups, ...spectra } = speech
  const small = { ...spectra, convDepthwiseKernelSize: 3, featureProjectionInputDim: 16 }
  const relatives = [
    ['hubert', vt.Hubert, vt.HubertForCTC, vt.HubertForSequenceClassification, speech],
    ['data2vec', vt.Data2VecAudio, vt.Data2VecAudioForCTC, vt.Data2VecAudioForSequenceClassification, speech],
    [
      'conformer',
      vt.Wav2Vec2Conformer,
      vt.Wav2Vec2ConformerForCTC,
      vt.Wav2Vec2ConformerForSequenceClassification,
      speech,
    ],
    ['w2v-bert', vt.Wav2Vec2Bert, vt.Wav2Vec2BertForCTC, vt.Wav2Vec2BertForSequenceClassification, small],
  ] as const
  for (const [name, Network, ForCTC, Classifier, config] of relatives) {
    await save(name, Network.fromConfig(config))
    await save(`${name}-ctc`, (ForCTC as unknown as typeof vt.HubertForCTC).fromConfig({ ...config, vocabSize: 8 }))
    writeFileSync(at(`${name}-ctc/vocab.json`), JSON.stringify(vocab))
    await save(
      `${name}-emotions`,
      (Classifier as unknown as typeof vt.HubertForSequenceClassification).fromConfig({ ...config, id2label }),
    )
  }
  await save('roberta', vt.Roberta.fromConfig({ ...text, maxPositionEmbeddings: 16 }))
  await save('roberta-moods', vt.RobertaForSequenceClassification.fromConfig({ ...text, id2label }))
  await save(
    'llama',
    vt.DecoderLM.fromConfig({ ...text, modelType: 'llama', numKeyValueHeads: 2, initializerRange: 1 }),
  )
  for (const modelType of FAMILIES) {
    await save(`llama-as-${modelType}`, vt.DecoderLM.fromConfig({ ...text, modelType, numKeyValueHeads: 2 }))
  }
})

describe("pipeline('automatic-speech-recognition')", () => {
  it('writes what transcribe of Whisper writes, with times in the form of transformers.js', async () => {
    using transcriber = await vt.pipeline('automatic-speech-recognition', whisper)
    const audio = wave(16000 * 2, 1)
    const options = { temperature: 0, logprobThreshold: null, noSpeechThreshold: null, language: 'en' }
    const { text, segments } = await (transcriber.model as vt.Whisper).transcribe(audio, options)
    expect(text).not.toBe('')
    expect(await transcriber(audio, options)).toEqual({ text })
    const chunks = segments.map((segment) => ({ text: segment.text, timestamp: [segment.start, segment.end] }))
    const snake = { temperature: 0, logprob_threshold: null, no_speech_threshold: null, language: 'en' }
    expect(await transcriber([audio], { ...snake, return_timestamps: true })).toEqual([{ text, chunks }])
    const timed = await transcriber(audio, { ...options, returnTimestamps: 'word' })
    const words = (await (transcriber.model as vt.Whisper).transcribe(audio, { ...options, timestamps: 'word' }))
      .segments
    expect(timed.chunks?.map((chunk) => chunk.text)).toEqual(
      words.flatMap((segment) => segment.words ?? []).map((word) => word.text),
    )
    // What has no text is said.
    const pieces = { ...options, batchSize: 2, vad: async (): Promise<Segment[]> => [[0.5, 0.8]] }
    const { skipped } = await (transcriber.model as vt.Whisper).transcribe(audio, pieces)
    expect(skipped.length).toBeGreaterThan(0)
    expect((await transcriber(audio, pieces)).skipped).toEqual(skipped)
  })

  it('writes what transcribe of a CTC network writes', async () => {
    using transcriber = await vt.pipeline('automatic-speech-recognition', at('ctc'))
    const model = transcriber.model as vt.WavLMForCTC
    const audio = wave(1200, 2)
    const { text, words = [] } = await model.transcribe(samplesOf(audio), { timestamps: 'word', beamWidth: 4 })
    const chunks = words.map((word) => ({ text: word.text, timestamp: [word.start, word.end] }))
    expect(await transcriber(audio, { return_timestamps: 'word', beam_width: 4 })).toEqual({ text, chunks })
    const pieces = await model.transcribe(samplesOf(audio), { chunkSeconds: 0.02, strideSeconds: 0.002 })
    expect(await transcriber(audio, { chunk_length_s: 0.02, stride_length_s: 0.002 })).toEqual({ text: pieces.text })
    await expect(transcriber(audio, { returnTimestamps: true })).rejects.toThrow(
      /returnTimestamps: expected .*"word".* for WavLMForCTC, got true/,
    )
  })
})

describe.each(['hubert', 'data2vec', 'conformer', 'w2v-bert'])('%s', (name) => {
  const audio = wave(6000, 12)
  const inputsOf = async () =>
    (name === 'w2v-bert'
      ? { inputFeatures: (await vt.seamlessFeatures(samplesOf(audio), { nMels: 8 })).unsqueeze(0) }
      : { inputValues: (await vt.normalizeWav2Vec2(samplesOf(audio))).unsqueeze(0) }) as { inputValues: vt.Tensor }

  it('transcribes, recognizes emotions and gives features, each with the input that it reads', async () => {
    using transcriber = await vt.pipeline('automatic-speech-recognition', at(`${name}-ctc`))
    const model = transcriber.model as vt.WavLMForCTC
    const best = (await model.forward(await inputsOf())).logits.argmax(-1).select(0, 0).toArray() as bigint[]
    const { text, chunks = [] } = await transcriber(audio, { returnTimestamps: 'char' })
    expect(text).toBe(model.tokenizer?.decode(best.map(Number)))
    expect(text.length).toBeGreaterThan(0)
    // A token every 10 samples, or every 20 ms.
    const step = name === 'w2v-bert' ? 320 / 16000 : 10 / 16000
    for (const { timestamp } of chunks) {
      expect(timestamp[1] / step).toBeCloseTo(Math.round(timestamp[1] / step), 6)
    }
    expect((await transcriber(audio, { chunkLengthS: 0.2, strideLengthS: 0.04 })).text).toEqual(expect.any(String))

    using classifier = await vt.pipeline('emotion-recognition', at(`${name}-emotions`))
    const { logits } = await (classifier.model as vt.WavLMForSequenceClassification).forward(await inputsOf())
    const scores = (logits.softmax(-1).toArray() as number[][])[0]!.sort((a, b) => b - a)
    ;(await classifier(audio)).forEach(({ score }, i) => void expect(score).toBeCloseTo(scores[i]!, 6))

    using extractor = await vt.pipeline('feature-extraction', at(name))
    const { lastHiddenState } = await vt.noGrad(async () => (extractor.model as vt.WavLM).forward(await inputsOf()))
    expectClose(await extractor(audio), lastHiddenState)
  })
})

describe("pipeline('audio-classification')", () => {
  it('gives the softmax of the classes, the most probable first, of audio as preprocessor_config.json wants it', async () => {
    using classifier = await vt.pipeline('audio-classification', at('emotions'))
    const audio = wave(1500, 3)
    const { logits } = await (classifier.model as vt.Wav2Vec2ForSequenceClassification).forward({
      inputValues: samplesOf(audio).unsqueeze(0),
    })
    const expected = (logits.softmax(-1).toArray() as number[][])[0]!
      .map((score, i) => ({ label: ['calm', 'glad', 'sad'][i], score }))
      .sort((a, b) => b.score - a.score)
    const found = await classifier(audio)
    expect(found.map(({ label }) => label)).toEqual(expected.map(({ label }) => label))
    found.forEach(({ score }, i) => void expect(score).toBeCloseTo(expected[i]!.score, 6))
    expect(await classifier([audio, audio], { top_k: 1 })).toEqual([[found[0]], [found[0]]])
    expect(await classifier(audio, { topK: null })).toEqual(found)
  })

  it('gives each class its own probability where they do not exclude each other, and normalises audio by default', async () => {
    using classifier = await vt.pipeline('audio-classification', at('tags'))
    const audio = wave(1500, 4)
    const inputValues = (await vt.normalizeWav2Vec2(samplesOf(audio))).unsqueeze(0)
    const { logits } = await (classifier.model as vt.WavLMForSequenceClassification).forward({ inputValues })
    const expected = (logits.sigmoid().toArray() as number[][])[0]!
    for (const { label, score } of await classifier(audio)) {
      expect(score).toBeCloseTo(expected[Number(label.slice('LABEL_'.length))]!, 6)
    }
  })

  it('tags by BEATs as it does', async () => {
    vt.manualSeed(1)
    const size = { encoderEmbedDim: 8, encoderAttentionHeads: 2, encoderLayers: 1, encoderFfnEmbedDim: 16, embedDim: 8 }
    using beats = vt.Beats.fromConfig({
      ...size,
      finetunedModel: true,
      predictorClass: 6,
      convPos: 8,
      convPosGroups: 2,
    })
    const classifier = await vt.pipeline('audio-classification', beats)
    const audio = wave(8000, 5)
    const tags = await beats.tag(samplesOf(audio), { topK: 2 })
    expect(await classifier(audio, { top_k: 2 })).toEqual(
      tags.map(({ label, probability }) => ({ label, score: probability })),
    )
  })
})

describe("pipeline('emotion-recognition')", () => {
  it('asks a fine-tuned SPECTRA, a network that hears and one that reads', async () => {
    vt.manualSeed(3)
    const network = SpectraForSequenceClassification.fromConfig(smallSpectra(10, { numLabels: 3 }))
    const task = sp.spectraTask({ name: 'mood', kind: 'classification', labels: ['calm', 'glad', 'sad'] })
    using spectra = new sp.SpectraClassifier(network, { tokenizer, task })
    await spectra.save(at('spectra'))
    using recognizer = await vt.pipeline('emotion-recognition', at('spectra'))
    const turn = { text: 'ab a', audio: wave(9000, 6) }
    const [answer] = await spectra.classify([turn])
    if (answer?.kind !== 'classification') throw new Error('classes were asked for')
    const [best] = await recognizer(turn)
    expect(best?.label).toBe(answer.label)
    expect(best?.score).toBeCloseTo(answer.probability, 6)

    using hears = await vt.pipeline('emotion-recognition', at('emotions'))
    using classifier = await vt.pipeline('audio-classification', at('emotions'))
    expect(await hears(turn.audio)).toEqual(await classifier(turn.audio))

    using reads = await vt.pipeline('emotion-recognition', at('roberta-moods'))
    const inputIds = vt.tensor([tokenizer.encode('ab a').inputIds.map(BigInt)])
    const { logits } = await (reads.model as vt.RobertaForSequenceClassification).forward({ inputIds })
    const scores = (logits.softmax(-1).toArray() as number[][])[0]!
    const found = await reads('ab a')
    expect(found).toHaveLength(3)
    for (const { label, score } of found) {
      expect(score).toBeCloseTo(scores[['calm', 'glad', 'sad'].indexOf(label)]!, 6)
    }
    await expect(reads(turn)).rejects.toThrow(/input to be a text, since the network is a text encoder/)
  })

  it('refuses a SPECTRA that tells a quantity', async () => {
    const network = SpectraForSequenceClassification.fromConfig(smallSpectra(10, { numLabels: 1 }))
    const task = sp.spectraTask({ name: 'sentiment', kind: 'regression' })
    using spectra = new sp.SpectraClassifier(network, { tokenizer, task })
    await expect(vt.pipeline('emotion-recognition', spectra)).rejects.toThrow(/got one that predicts a quantity/)
  })
})

describe("pipeline('text-generation')", () => {
  const greedy = { maxNewTokens: 5, eosTokenId: null }

  it('goes on from texts as generate does, alone and together', async () => {
    using generator = await vt.pipeline('text-generation', at('llama'))
    const answerTo = async (prompt: string) => {
      const row = tokenizer.encode(prompt).inputIds
      const { tokens } = await generator.model.generate({ inputIds: vt.tensor([row.map(BigInt)]) }, greedy)
      const read = (ids: number[]) => tokenizer.decode(ids, { skipSpecialTokens: true })
      return read([...row, ...tokens[0]!]).slice(read(row).length)
    }
    const [short, long] = [await answerTo('a'), await answerTo('b ab c')]
    expect(short).not.toBe('')
    expect(await generator('a', greedy)).toEqual([{ generated_text: `a${short}` }])
    const snake = { max_new_tokens: 5, eos_token_id: null, return_full_text: false }
    expect(await generator(['a', 'b ab c'], snake)).toEqual([[{ generated_text: short }], [{ generated_text: long }]])
    const drawn = await generator('a', { ...greedy, do_sample: true, num_return_sequences: 3 })
    expect(drawn).toHaveLength(3)
    expect(await generator([], greedy)).toEqual([])
  })

  it.each(FAMILIES)('loads a folder of type %s', async (modelType) => {
    using generator = await vt.pipeline('text-generation', at(`llama-as-${modelType}`))
    expect(generator.model.config.modelType).toBe(modelType)
    const [{ generated_text }] = (await generator('a', greedy)) as [vt.TextGenerationOutput]
    expect(generated_text.startsWith('a')).toBe(true)
  })

  it('answers conversations by the template of the tokenizer', async () => {
    const own = await vt.Tokenizer.fromPretrained(at('llama'))
    own.chatTemplate = TEMPLATE
    using generator = await vt.pipeline('text-generation', at('llama'), { tokenizer: own })
    const messages = [{ role: 'user', content: 'b c' }]
    const [{ generated_text }] = (await generator(messages, greedy)) as [vt.ChatGenerationOutput]
    const [plain] = await generator('b c a ', { ...greedy, returnFullText: false, addSpecialTokens: false })
    expect(generated_text).toEqual([...messages, { role: 'assistant', content: plain?.generated_text }])
    expect(await generator([messages, messages], greedy)).toEqual([[{ generated_text }], [{ generated_text }]])
  })
})

describe("pipeline('feature-extraction')", () => {
  it('gives the states of a text, or their mean, as long as 1', async () => {
    using extractor = await vt.pipeline('feature-extraction', at('roberta'))
    const model = extractor.model as vt.Roberta
    const states = async (text: string) => {
      const inputIds = vt.tensor([tokenizer.encode(text).inputIds.map(BigInt)])
      return (await model.forward({ inputIds })).lastHiddenState.detach()
    }
    const [short, long] = [await states('a'), await states('b ab c')]
    expectClose(await extractor('b ab c'), long)
    const both = await extractor(['a', 'b ab c'])
    expectClose(both.narrow(0, 1, 1), long)
    expectClose(both.narrow(0, 0, 1).narrow(1, 0, short.size(1)), short)
    expect(
      both
        .narrow(0, 0, 1)
        .narrow(1, short.size(1), long.size(1) - short.size(1))
        .abs()
        .sum()
        .item(),
    ).toBe(0)
    const mean = long.mean([1])
    expectClose(await extractor('b ab c', { pooling: 'mean' }), mean)
    const unit = mean.div(mean.pow(2).sum().sqrt())
    expectClose(await extractor('b ab c', { pooling: 'mean', normalize: true }), unit)
    expectClose(await extractor('b ab c', { pooling: 'cls' }), long.select(1, 0))
    // No more than the network has positions for.
    expect((await extractor('a b '.repeat(20))).shape).toEqual([1, 14, 8])
  })

  it('gives the frames of audio by WavLM and by the encoder of Whisper', async () => {
    using extractor = await vt.pipeline('feature-extraction', at('wavlm'), { normalizeAudio: false })
    const audio = wave(1500, 7)
    const inputValues = samplesOf(audio).unsqueeze(0)
    const { lastHiddenState } = await (extractor.model as vt.WavLM).forward({ inputValues })
    expectClose(await extractor({ samples: samplesOf(audio), sampleRate: 16000 }), lastHiddenState.detach())
    using encoder = await vt.pipeline('feature-extraction', whisper)
    const network = encoder.model as vt.WhisperEncoder
    const length = 2 * (network.config.maxSourcePositions as number) * 160
    const inputFeatures = await vt.logMelSpectrogram(samplesOf(audio), {
      nMels: network.config.numMelBins as number,
      length,
    })
    const frames = (await network.forward({ inputFeatures: inputFeatures.unsqueeze(0) })).lastHiddenState
    expectClose(await encoder(audio), frames.detach())
  })
})

describe('pipeline', () => {
  it('leaves no tensors behind but those that it gives, and frees the network that it loaded', async () => {
    const before = await settledTensors()
    const audio = wave(1500, 8)
    {
      using transcriber = await vt.pipeline('automatic-speech-recognition', at('ctc'))
      using classifier = await vt.pipeline('emotion-recognition', at('emotions'))
      using generator = await vt.pipeline('text-generation', at('llama'))
      using extractor = await vt.pipeline('feature-extraction', at('roberta'))
      using reads = await vt.pipeline('emotion-recognition', at('roberta-moods'))
      const loaded = await settledTensors()
      await transcriber(audio)
      await classifier(audio)
      await generator('a')
      await reads('a')
      const states = await extractor(['a', 'b c'])
      expect(states.requiresGrad).toBe(false)
      expect((await settledTensors()) - loaded).toBe(1)
      states.dispose()
      expect(await settledTensors()).toBe(loaded)
    }
    expect(await settledTensors()).toBe(before)
    // A misspelled option is the error that TypeScript reports, and an answer goes on with a conversation.
    const typed = async (
      transcriber: vt.SpeechRecognitionPipeline,
      generator: vt.TextGenerationPipeline,
      messages: { role: string; content: string }[],
    ) => {
      // @ts-expect-error: 'returnTimestamp' does not exist
      await transcriber('a.wav', { returnTimestamp: true })
      const [answer] = await generator(messages)
      if (answer) messages.push(answer.generated_text.at(-1))
    }
    expect(typed).toBeTypeOf('function')
    const ended = await vt.pipeline('emotion-recognition', at('emotions'))
    ended.dispose()
    await expect(ended(audio)).rejects.toThrow(vt.DisposedError)
    await expect(ended(audio)).rejects.toThrow(/expected a pipeline in use, got a disposed one/)
  })

  it('leaves a network that it was given to its owner', async () => {
    using model = await vt.DecoderLM.fromPretrained(at('llama'))
    const generator = await vt.pipeline('text-generation', model.train(), { tokenizer })
    expect([generator.task, generator.tokenizer, model.training]).toEqual(['text-generation', tokenizer, false])
    generator.dispose()
    expect((await generator('a'))[0]?.generated_text).toMatch(/^a/)
    await expect(vt.pipeline('text-generation', model)).rejects.toThrow(
      /tokenizer: expected the tokenizer of the loaded DecoderLM, got none/,
    )
    await expect(vt.pipeline('text-generation', model, { tokenizer, dtype: 'float32' })).rejects.toThrow(
      /dtype: expected no loading options for a loaded network/,
    )
  })

  it.each([
    [
      'text-generaton',
      'x',
      {},
      /expected one of the tasks 'automatic.*, got "text-generaton"; did you mean 'text-generation'\?/,
    ],
    [7, 'x', {}, /expected one of the tasks .*, got 7/],
    ['speech-to-text', 'x', {}, /got "speech-to-text"; did you mean 'automatic-speech-recognition'\?/],
    [
      'automatic-speech-recognition',
      undefined,
      {},
      /expected a model as the second argument, got none\. .* For example: 'whisper-base'\./,
    ],
    ['text-generation', null, {}, /expected DecoderLM, got null/],
    [
      'text-generation',
      at('llama'),
      { device: 'gpu' },
      /device: expected a device, .* got "gpu"\. Did you mean 'cuda'\?/,
    ],
    ['text-generation', at('llama'), { dtype: 'fp16' }, /got "fp16"\. Did you mean 'float16'\?/],
    [
      'text-generation',
      at('llama'),
      { dtype: 'q4' },
      /got "q4"\. Quantization is another option: \{ quantize: 'nf4' \}\./,
    ],
    ['text-generation', at('nowhere'), {}, /nowhere/],
    ['text-generation', whisper, {}, /expected DecoderLM, got Whisper.* It is for 'automatic-speech-recognition'/],
    [
      'audio-classification',
      at('ctc'),
      {},
      /got WavLMForCTC\. It is for 'automatic-speech-recognition' and 'feature-extraction'/,
    ],
    [
      'automatic-speech-recognition',
      at('wavlm'),
      {},
      /expected Whisper, Wav2Vec2ForCTC, WavLMForCTC, .*ParakeetForTDT, .*got WavLM/,
    ],
    ['text-generation', { eval() {} }, {}, /got Object/],
    ['text-generation', at('llama'), { dtyp: 'float32' }, /did you mean 'dtype'/],
    ['text-generation', at('llama'), { tokenizer: {} }, /tokenizer to be a Tokenizer/],
    ['audio-classification', at('emotions'), { normalizeAudio: 1 }, /normalizeAudio to be true or false/],
  ])('%j of %j with %j is refused', async (task, model, options, message) => {
    const call = vt.pipeline(task as 'text-generation', model as string, options as object)
    await expect(call).rejects.toThrow(message)
    await expect(call).rejects.toBeInstanceOf(vt.VoxtorchError)
  })

  it.each([
    ['text-generation', 'llama', 'a', { max_new_token: 3 }, /did you mean/],
    [
      'text-generation',
      'llama',
      'a',
      { maxNewTokens: 3, max_new_tokens: 3 },
      /expected one spelling, got "maxNewTokens" and "max_new_tokens"/,
    ],
    ['text-generation', 'llama', 7, {}, /to be a text or a list of messages/],
    ['text-generation', 'llama', 'a', null, /options to be an object/],
    ['text-generation', 'llama', 'a', { returnFullText: 1 }, /returnFullText to be true or false/],
    ['automatic-speech-recognition', 'ctc', 'nowhere.wav', {}, /nowhere\.wav/],
    [
      'automatic-speech-recognition',
      'ctc',
      'audio',
      { timestamps: 'word' },
      /expected returnTimestamps, its name in a pipeline, got timestamps/,
    ],
    ['automatic-speech-recognition', 'ctc', 'audio', { returnTimestamp: true }, /did you mean 'returnTimestamps'/],
    ['text-generation', 'llama', 'a', { stream: true }, /got 'stream'\. Use model\.stream, and streamText for text/],
    ['text-generation', 'llama', [{ role: 'usr', content: 'a' }], {}, /messages\[0\]\.role: .* Did you mean 'user'\?/],
    ['text-generation', 'llama', [{ content: 'a' }], {}, /messages\[0\]\.role to be a role/],
    ['automatic-speech-recognition', 'ctc', {}, {}, /audio to be/],
    ['audio-classification', 'emotions', 'audio', { topk: 2 }, /did you mean 'topK'/],
    ['audio-classification', 'emotions', 'audio', { topK: 0 }, /topK to be an integer of at least 1/],
    ['feature-extraction', 'roberta', 'a', { pooling: 'max' }, /pooling to be/],
    ['feature-extraction', 'roberta', 'a', { normalize: true }, /normalize to be left out without pooling/],
    ['feature-extraction', 'roberta', [], {}, /at least one/],
    ['feature-extraction', 'roberta', 7, {}, /to be a text/],
  ])('%s of %s refuses %j with %j', async (task, name, input, options, message) => {
    const run = (await vt.pipeline(task as 'text-generation', at(name))) as unknown as ((
      ...values: unknown[]
    ) => Promise<unknown>) &
      Disposable
    using _ = run
    const call = run(input === 'audio' ? wave(900, 1) : input, options)
    await expect(call).rejects.toThrow(message)
    await expect(call).rejects.toBeInstanceOf(vt.VoxtorchError)
  })
})
