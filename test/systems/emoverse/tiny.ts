import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DecoderLM, InternVL, type InternVLConfig, manualSeed, Tokenizer } from '../../../lib/index.js'
import { EmoVerse, type EmoVerseParts, SpeechBranch, type SwiftRecord } from '../../../lib/systems/emoverse/index.js'

const CHATML = ['<|im_start|>', '<|im_end|>'] as const

/**
 * A tokenizer of single bytes with the tokens around turns, of which the last ends them: every text is as many tokens as bytes.
 * `<s>` among `more` begins texts.
 */
export async function byteTokenizer(
  more: readonly string[] = [],
  specials: readonly string[] = CHATML,
): Promise<Tokenizer> {
  const folder = mkdtempSync(join(tmpdir(), 'voxtorch-bytes-'))
  const letters = byteLetters()
  const [end, begin] = [specials.at(-1), more.includes('<s>') ? '<s>' : undefined]
  const tokens = [...specials, ...letters, ...more]
  const vocab = Object.fromEntries(tokens.map((token, id) => [token, id]))
  writeFileSync(
    join(folder, 'tokenizer.json'),
    JSON.stringify({
      version: '1.0',
      added_tokens: [...specials, ...more].map((content) => ({ id: vocab[content], content, special: true, normalized: false, single_word: false, lstrip: false, rstrip: false })),
      normalizer: null,
      pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false },
      post_processor: begin === undefined ? null : {
        type: 'TemplateProcessing',
        single: [{ SpecialToken: { id: begin, type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
        pair: [{ SpecialToken: { id: begin, type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }, { Sequence: { id: 'B', type_id: 1 } }],
        special_tokens: { [begin]: { id: begin, ids: [vocab[begin]], tokens: [begin] } },
      },
      decoder: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false },
      model: { type: 'BPE', vocab, merges: [] },
    }),
  ) // biome-ignore format: one token a line is no help
  writeFileSync(
    join(folder, 'tokenizer_config.json'),
    JSON.stringify({
      tokenizer_class: 'PreTrainedTokenizerFast',
      ...{ eos_token: end, pad_token: end },
      ...(begin && { bos_token: begin }),
    }),
  )
  return Tokenizer.fromPretrained(folder)
}

/** GPT-2's letter for each byte. */
function byteLetters(): string[] {
  let next = 256
  return Array.from({ length: 256 }, (_, byte) => {
    const isPlain = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174
    return String.fromCodePoint(isPlain ? byte : next++)
  })
}

export const TINY = {
  vocabSize: 258,
  hiddenSize: 32,
  intermediateSize: 64,
  numHiddenLayers: 2,
  numAttentionHeads: 4,
  numKeyValueHeads: 2,
  maxPositionEmbeddings: 512,
}

/** An EmoVerse of two small layers over bytes, which reads words alone; with the same seed the same. */
export async function tinyEmoVerse(
  options: { seed?: number; dtype?: 'float32' | 'float64'; system?: string | null; media?: 'read' | 'ignore' } = {},
) {
  const { seed = 1, dtype = 'float32', system = null, media = 'ignore' } = options
  manualSeed(seed)
  const tokenizer = await byteTokenizer()
  return new EmoVerse({ model: DecoderLM.fromConfig(TINY, { dtype, seed }), tokenizer, system, media })
}

/** An InternVL of a small vision part and two small layers: tiles of 28 x 28 pixels are four tokens. */
export const TINY_SEEING = {
  visionConfig: {
    hiddenSize: 16,
    numHiddenLayers: 2,
    numAttentionHeads: 2,
    intermediateSize: 32,
    imageSize: 28,
    patchSize: 7,
    qkvBias: true,
    qkNormalization: false,
    normType: 'layer_norm',
    initializerFactor: 1,
  },
  llmConfig: { ...TINY, modelType: 'qwen2', vocabSize: 261, architectures: ['Qwen2ForCausalLM'] },
  forceImageSize: 28,
  template: 'Hermes-2',
} as const satisfies InternVLConfig

interface SeeingOptions {
  seed?: number
  dtype?: 'float32' | 'float64'
  system?: string | null
  /** Of all weights: with those of 0.02 no frozen head can be sure of anything. */
  initializerRange?: number
  sizes?: InternVLConfig & { llmConfig: object }
}

/** An EmoVerse that sees; with the same seed the same. */
export async function seeingEmoVerse(options: SeeingOptions & Partial<EmoVerseParts> = {}) {
  const { seed = 1, dtype = 'float32', system = null, initializerRange = 0.02, sizes = TINY_SEEING, ...rest } = options
  const tokenizer = await byteTokenizer(['<img>', '</img>', '<IMG_CONTEXT>'])
  const { visionConfig, llmConfig, ...config } = sizes
  const parts = {
    visionConfig: { ...visionConfig, initializerRange },
    llmConfig: {
      ...(llmConfig as (typeof TINY_SEEING)['llmConfig']),
      architectures: ['Qwen2ForCausalLM'],
      initializerRange,
    },
  }
  const model = InternVL.fromConfig({ ...config, ...parts }, { dtype, seed })
  return new EmoVerse({ model, tokenizer, system, ...rest })
}

/** Ears of one layer each, which hear two seconds at once. */
export const TINY_EARS = {
  whisper: {
    ...{ dModel: 16, encoderLayers: 1, encoderAttentionHeads: 2, encoderFfnDim: 32, decoderAttentionHeads: 2 },
    ...{ initStd: 0.2, maxSourcePositions: 100, dropout: 0 },
  },
  qformer: {
    ...{ hiddenSize: 16, numHiddenLayers: 1, numAttentionHeads: 2, intermediateSize: 32, initializerRange: 0.2 },
    ...{ hiddenDropoutProb: 0, attentionProbsDropoutProb: 0 },
  },
}

/** An EmoVerse that sees and hears; with the same seed the same. */
export async function hearingEmoVerse(
  options: { seed?: number; dtype?: 'float32' | 'float64'; audio?: 'read' | 'ignore' } = {},
) {
  const { seed = 1, dtype = 'float32', audio = 'read' } = options
  const speech = await SpeechBranch.begin({ ...TINY_EARS, seed }, TINY.hiddenSize, { dtype })
  return seeingEmoVerse({ seed, dtype, initializerRange: 0.2, speech, audio })
}

/** A voice of one pitch, at 16 kHz. */
export const voice = (pitch: number, seconds: number, phase = 0): Float32Array =>
  Float32Array.from(
    { length: Math.round(16000 * seconds) },
    (_, i) => 0.3 * Math.sin((2 * Math.PI * pitch * i) / 16000 + phase),
  )

/** A picture as the bytes of a PPM file, by the colour of each place. */
export function ppm(width: number, height: number, at: (x: number, y: number) => Iterable<number>): Buffer {
  const places = Array.from({ length: width * height }, (_, i) => [i % width, Math.floor(i / width)] as const)
  return Buffer.concat([
    Buffer.from(`P6\n${width} ${height}\n255\n`),
    Buffer.from(places.flatMap(([x, y]) => [...at(x, y)])),
  ])
}

/** Short questions whose answers their words tell. */
export const asked = (count: number): SwiftRecord[] =>
  Array.from({ length: count }, (_, i) =>
    i % 3 === 0
      ? { query: `'${'ab'[(i / 3) % 2]}' <sentiment>`, response: ['Pos.', 'Neg.'][(i / 3) % 2] as string }
      : { query: `'${'xyz'[i % 3]}' <emotion>`, response: ['Joy.', 'Fear.', 'Sad.'][i % 3] as string },
  )
