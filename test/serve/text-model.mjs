// A tiny language model in a folder of its own, for tests and child processes: random weights, a token for each byte.
// Plain JavaScript: child processes run it as it is.
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

const END = 256
const START = 257

/** The letters that byte-level tokenizers write bytes with. */
function letters() {
  const kept = [...range(33, 127), ...range(161, 173), ...range(174, 256)]
  let next = 256
  return range(0, 256).map((byte) => String.fromCodePoint(kept.includes(byte) ? byte : next++))
}
const range = (/** @type {number} */ from, /** @type {number} */ to) =>
  Array.from({ length: to - from }, (_, i) => from + i)

const TEMPLATE =
  "{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] }}</s>{% endfor %}{% if add_generation_prompt %}<s>assistant\n{% endif %}"

/**
 * @param {string} directory
 * @param {any} DecoderLM the class, of lib/ or dist/
 * @param {object} [config]
 */
export async function writeTextModel(directory, DecoderLM, config = {}) {
  mkdirSync(directory, { recursive: true })
  const sizes = {
    modelType: 'llama',
    vocabSize: 258,
    hiddenSize: 48,
    intermediateSize: 96,
    numHiddenLayers: 3,
    numAttentionHeads: 4,
    numKeyValueHeads: 2,
    maxPositionEmbeddings: 4096,
    initializerRange: 0.2,
    eosTokenId: END,
    bosTokenId: START,
    ...config,
  }
  const model = DecoderLM.fromConfig(sizes, { seed: 5 })
  model.generationConfig = { eosTokenId: END }
  await model.save(directory)
  model.dispose()
  const special = (/** @type {number} */ id, /** @type {string} */ content) => ({
    id,
    content,
    special: true,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
  })
  const whole = {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: [special(END, '</s>'), special(START, '<s>')],
    normalizer: null,
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
    post_processor: null,
    decoder: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      vocab: Object.fromEntries([...letters(), '</s>', '<s>'].map((letter, id) => [letter, id])),
      merges: [],
    },
  }
  writeFileSync(join(directory, 'tokenizer.json'), JSON.stringify(whole))
  const settings = {
    eos_token: '</s>',
    bos_token: '<s>',
    chat_template: TEMPLATE,
    tokenizer_class: 'GPT2TokenizerFast',
  }
  writeFileSync(join(directory, 'tokenizer_config.json'), JSON.stringify(settings))
}
