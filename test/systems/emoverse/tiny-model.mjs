// A tiny EmoVerse with random weights, for processes that tests start: plain JavaScript on the built package.

import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as vt from 'voxtorch'
import { EmoVerse, EmoVerseChat, SpeechBranch } from 'voxtorch/emoverse'

const SPECIALS = ['<|im_start|>', '<|im_end|>', '<unk>', '<img>', '</img>', '<IMG_CONTEXT>']

/** Of a few words; all others are one token. */
function wordTokenizer() {
  const words = [...SPECIALS, 'user', 'assistant', 'a', 'b', 'c', 'Joy', 'Fear', 'sad']
  const folder = mkdtempSync(join(tmpdir(), 'voxtorch-words-'))
  const special = SPECIALS.map((content, id) => ({ id, content, special: true, normalized: false }))
  const model = {
    type: 'WordLevel',
    unk_token: '<unk>',
    vocab: Object.fromEntries(words.map((word, id) => [word, id])),
  }
  const tokenizer = { version: '1.0', added_tokens: special, pre_tokenizer: { type: 'WhitespaceSplit' }, model }
  writeFileSync(join(folder, 'tokenizer.json'), JSON.stringify(tokenizer))
  writeFileSync(join(folder, 'tokenizer_config.json'), JSON.stringify({ eos_token: '<|im_end|>', unk_token: '<unk>' }))
  return vt.Tokenizer.fromPretrained(folder)
}

const sizes = { hiddenSize: 16, intermediateSize: 32, numHiddenLayers: 2, numAttentionHeads: 2, numKeyValueHeads: 1 }
const sight = {
  ...{ hiddenSize: 8, numHiddenLayers: 1, numAttentionHeads: 2, intermediateSize: 16, imageSize: 28, patchSize: 14 },
  ...{ qkvBias: true, qkNormalization: false, normType: 'layer_norm' },
}
const whisper = {
  ...{ dModel: 16, encoderLayers: 1, encoderAttentionHeads: 2, encoderFfnDim: 32, decoderAttentionHeads: 2 },
  ...{ maxSourcePositions: 100, dropout: 0 },
}
const qformer = {
  ...{ hiddenSize: 16, numHiddenLayers: 1, numAttentionHeads: 2, intermediateSize: 32 },
  ...{ hiddenDropoutProb: 0.1, attentionProbsDropoutProb: 0.1 },
}

/** With tiles of 28 pixels, a token each; the same each time. @param {{ hears?: boolean }} [options] */
export async function tinyModel({ hears = false } = {}) {
  const tokenizer = await wordTokenizer()
  const llmConfig = { ...sizes, modelType: 'qwen2', vocabSize: tokenizer.vocabSize, maxPositionEmbeddings: 128 }
  const model = vt.InternVL.fromConfig({ visionConfig: sight, llmConfig, forceImageSize: 28 }, { seed: 5 })
  const speech = hears ? await SpeechBranch.begin({ whisper, qformer, seed: 5 }, sizes.hiddenSize) : null
  return new EmoVerse({ model, tokenizer, system: null, speech })
}

/** For `test/serve/process.mjs`. */
export async function chat() {
  const model = await tinyModel()
  return Object.assign(new EmoVerseChat(model), { forget: () => model.prefixCaches.dispose() })
}
