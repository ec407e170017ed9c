// A program in an empty project that has the package installed: makes up recordings, tokenizers and tiny networks with it,
// from which scripts/check-package.mjs has its commands train. `node package-data.mjs FOLDER TOKENIZER-OF-A-LANGUAGE-MODEL`
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Salmonn, scope, Tokenizer, tensor, writeWav } from 'voxtorch'
import { convertHumDialFile } from 'voxtorch/salmonn'

const [folder, languageModel] = process.argv.slice(2)
const at = (...path) => join(folder, ...path)
const write = (name, value) => writeFileSync(at(name), typeof value === 'string' ? value : JSON.stringify(value))
const jsonl = (rows) => `${rows.map((row) => JSON.stringify(row)).join('\n')}\n`
const speak = (name, pitch) =>
  scope(() => {
    const sound = Float32Array.from({ length: 3200 }, (_, t) => 0.4 * Math.sin((2 * Math.PI * pitch * t) / 16000))
    return writeWav(at(name), tensor(sound), { sampleRate: 16_000 })
  })
for (const name of ['', 'voices', 'words']) mkdirSync(at(name), { recursive: true })

// SPECTRA: a low and a high voice of three speakers, said in ten tokens.
const turns = []
for (const [s, speaker] of ['x', 'y', 'z'].entries()) {
  for (let i = 0; i < 8; i++) {
    const audio = join('voices', `${speaker}${i}.wav`)
    await speak(audio, (i % 2 === 0 ? 300 : 1200) + 20 * s + i)
    turns.push({ audio: at(audio), text: 'a b c', label: i % 2 === 0 ? 'low' : 'high', speaker })
  }
}
write('turns.jsonl', jsonl(turns))
const special = ['<s>', '<pad>', '</s>', '<unk>']
const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true }
write('words/tokenizer.json', {
  version: '1.0',
  added_tokens: special.map((content, id) => ({ id, content, special: true, normalized: false })),
  pre_tokenizer: byteLevel,
  decoder: byteLevel,
  model: {
    type: 'BPE',
    unk_token: '<unk>',
    vocab: Object.fromEntries([...special, 'a', 'b', 'c', 'ab', 'Ġ', 'Ġa'].map((token, id) => [token, id])),
    merges: ['a b', 'Ġ a'],
  },
})
const shape = { hiddenSize: 32, numAttentionHeads: 2, intermediateSize: 64, numHiddenLayers: 1 }
write('spectra.json', {
  textConfig: { ...shape, maxPositionEmbeddings: 130, typeVocabSize: 2, padTokenId: 1 },
  audioConfig: {
    ...shape,
    ...{ convDim: [16, 16, 16], convKernel: [10, 8, 4], convStride: [10, 8, 4], convBias: true },
    ...{ featExtractNorm: 'layer', numConvPosEmbeddings: 8, numConvPosEmbeddingGroups: 2 },
  },
  maxTextLength: 128,
})

// SALMONN: eight dialogs of two turns, and a network of a few thousand weights.
const dialogs = Array.from({ length: 8 }, (_, d) => ({
  dialogue_id: `en_${d}`,
  turns: ['neutral', 'sad'].map((emotion, t) => {
    return { turn_id: t + 1, text: `say ${d}`, emotion, split_audio_file: `voices/${d}-${t}.wav`, response_txt: 'so it is' } // biome-ignore format: one line
  }),
}))
for (const { turns } of dialogs)
  for (const [i, { split_audio_file }] of turns.entries()) await speak(split_audio_file, 300 + 100 * i)
write('challenge.jsonl', jsonl(dialogs))
await convertHumDialFile(at('challenge.jsonl'), at('dialogs.json'), { valid: 0.25, test: 0.25 })
write(
  'salmonn.yaml',
  `data:
  train: ${at('dialogs.json')}
  valid: ${at('dialogs.valid.json')}
  test: ${at('dialogs.test.json')}
training: { epochs: 1, batchSize: 2, iterationsPerEpoch: data, learningRate: 0.01, warmupSteps: 1 }
generation: { maxNewTokens: 4, numBeams: 1 }
`,
)
const width = { hiddenSize: 16, intermediateSize: 24, numHiddenLayers: 2, numAttentionHeads: 4 }
const model = Salmonn.fromConfig({
  whisper: {
    ...{ vocabSize: 11, numMelBins: 80, dModel: 8, encoderLayers: 2, encoderAttentionHeads: 2, encoderFfnDim: 12 },
    ...{
      decoderLayers: 1,
      decoderAttentionHeads: 2,
      decoderFfnDim: 12,
      maxSourcePositions: 100,
      maxTargetPositions: 8,
    },
    ...{ padTokenId: 0, bosTokenId: 0, eosTokenId: 0, decoderStartTokenId: 0 },
  },
  beats: {
    ...{ embedDim: 6, encoderLayers: 2, encoderEmbedDim: 8, encoderFfnEmbedDim: 10, encoderAttentionHeads: 2 },
    ...{ convPos: 8, convPosGroups: 4, numBuckets: 12, maxDistance: 9, predictorClass: 7 },
  },
  llm: { ...width, vocabSize: 99, maxPositionEmbeddings: 512, bosTokenId: 1, eosTokenId: 2 },
  qformer: { ...width, encoderWidth: 16 },
})
model.tokenizer = await Tokenizer.fromPretrained(languageModel)
await model.save(at('salmonn'), { whole: true })
