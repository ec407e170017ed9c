// Trainings in stages that the tests kill: `node stages-run.mjs OUTPUT MEDIA`, two stages with the pictures of a folder, whose features
// go to OUTPUT/features; where it has sounds too, a stage of the ears alone stands before, they train beside the adapter in the next, and
// stay as they are in the last. Prints "step N" after each step, and "NAME ends" when a stage is over. There is dropout in the adapters
// and the ears, so that generators count.

import { mkdtempSync, readdirSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import * as vt from 'voxtorch'
import { EmoVerse, SpeechBranch, trainEmoVerse } from 'voxtorch/emoverse'

const [outputDir, media] = process.argv.slice(2)
vt.setNumThreads(1)
const specials = ['<|im_start|>', '<|im_end|>', '<unk>', '<img>', '</img>', '<IMG_CONTEXT>']
const words = [...specials, 'user', 'assistant', 'a', 'b', 'c', 'Joy', 'Fear', 'sad']
const folder = mkdtempSync(join(tmpdir(), 'voxtorch-words-'))
const special = specials.map((content, id) => ({ id, content, special: true, normalized: false }))
const model = { type: 'WordLevel', unk_token: '<unk>', vocab: Object.fromEntries(words.map((word, id) => [word, id])) }
const tokenizer = { version: '1.0', added_tokens: special, pre_tokenizer: { type: 'WhitespaceSplit' }, model }
writeFileSync(join(folder, 'tokenizer.json'), JSON.stringify(tokenizer))
writeFileSync(join(folder, 'tokenizer_config.json'), JSON.stringify({ eos_token: '<|im_end|>', unk_token: '<unk>' }))
const sizes = { hiddenSize: 16, intermediateSize: 32, numHiddenLayers: 2, numAttentionHeads: 2, numKeyValueHeads: 1 }
const llmConfig = { ...sizes, modelType: 'qwen2', vocabSize: words.length, maxPositionEmbeddings: 128 }
const sight = {
  hiddenSize: 8,
  numHiddenLayers: 1,
  numAttentionHeads: 2,
  intermediateSize: 16,
  imageSize: 28,
  patchSize: 14,
}
const visionConfig = { ...sight, qkvBias: true, qkNormalization: false, normType: 'layer_norm' }
const config = { visionConfig, llmConfig, forceImageSize: 28 }
const files = readdirSync(media).sort()
const [images, audios] = ['.ppm', '.wav'].map((ending) => files.filter((name) => name.endsWith(ending)))
const whisper = {
  ...{ dModel: 16, encoderLayers: 1, encoderAttentionHeads: 2, encoderFfnDim: 32, decoderAttentionHeads: 2 },
  ...{ maxSourcePositions: 100, dropout: 0 },
}
const qformer = {
  ...{ hiddenSize: 16, numHiddenLayers: 1, numAttentionHeads: 2, intermediateSize: 32 },
  ...{ hiddenDropoutProb: 0.1, attentionProbsDropoutProb: 0.1 },
}
const emoverse = new EmoVerse({
  model: vt.InternVL.fromConfig(config, { seed: 5 }),
  tokenizer: await vt.Tokenizer.fromPretrained(folder),
  system: null,
  speech: audios.length > 0 ? await SpeechBranch.begin({ whisper, qformer, seed: 5 }, sizes.hiddenSize) : null,
})
const records = Array.from({ length: 24 }, (_, i) => ({
  query: ` ${['a', 'b', 'c'][i % 3]} a b`,
  response: ` ${['Joy', 'Fear', 'sad'][i % 3]} `,
  images: [images[i % images.length]],
  ...(audios.length > 0 && { audios: [audios[i % audios.length]] }),
}))
const recipe = {
  ...{ learningRate: 1e-2, epochs: 2, batchSize: 4, accumulation: 1, logSteps: 3, saveSteps: 2, evalSteps: 4 },
  gradientCheckpointing: false,
}
const seeing = [
  { data: records, recipe: { ...recipe, validationShare: 0.2 } },
  { data: records, recipe, lora: { r: 4 }, projector: 'whole' },
]
const hearing = [
  { data: records, recipe: { ...recipe, validationShare: 0.2 }, speech: 'alone' },
  { data: records, recipe: { ...recipe, validationShare: 0.2 }, speech: 'whole', projector: 'whole' },
  { data: records, recipe, lora: { r: 4 } },
]
await trainEmoVerse(emoverse, {
  ...{ outputDir, mediaRoot: media, visionCache: join(outputDir, 'features') },
  stages: audios.length > 0 ? hearing : seeing,
  args: { progress: false, reportTo: ['jsonl'] },
  callbacks: [
    {
      onStepEnd({ state }) {
        console.log(`step ${state.globalStep}`)
      },
      onTrainEnd({ args }) {
        console.log(`${basename(args.outputDir)} ends`)
      },
    },
  ],
})
console.log('done')
