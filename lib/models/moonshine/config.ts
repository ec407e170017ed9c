import type { ConfigKeys } from '../config-keys.js'
import { type PlainRopeConfig, plainRopeKeys } from '../rope.js'

/** Configuration of {@link Moonshine}: keys of transformers' MoonshineConfig, in camelCase, with its defaults (those of `'tiny'`). */
export interface MoonshineConfig extends PlainRopeConfig {
  vocabSize?: number
  hiddenSize?: number
  /** Size of the feed-forward layers. In the decoder, whose feed-forward layers are gated, the first one has twice this size. */
  intermediateSize?: number
  encoderNumHiddenLayers?: number
  decoderNumHiddenLayers?: number
  /** Number of heads of both parts. */
  encoderNumAttentionHeads?: number
  /** Must equal `encoderNumAttentionHeads`, as in transformers. */
  decoderNumAttentionHeads?: number
  /** Default 'gelu'. */
  encoderHiddenAct?: string
  /** Default 'silu'. */
  decoderHiddenAct?: string
  /** Limit on the tokens of a text, with the start token. */
  maxPositionEmbeddings?: number
  /** Fraction of each head's dimensions, from the first, that the rotary positions rotate. Default 0.9. */
  partialRotaryFactor?: number
  /** Whether the projections of queries, keys and values have biases. Default false. */
  attentionBias?: boolean
  attentionDropout?: number
  /** Standard deviation of the initial weights. */
  initializerRange?: number
  decoderStartTokenId?: number
  bosTokenId?: number | null
  eosTokenId?: number | number[] | null
  padTokenId?: number | null
  tieWordEmbeddings?: boolean
}

const DEFAULTS: MoonshineConfig = {
  vocabSize: 32768,
  hiddenSize: 288,
  intermediateSize: 1152,
  encoderNumHiddenLayers: 6,
  decoderNumHiddenLayers: 6,
  encoderNumAttentionHeads: 8,
  encoderHiddenAct: 'gelu',
  decoderHiddenAct: 'silu',
  maxPositionEmbeddings: 512,
  ropeTheta: 10000,
  partialRotaryFactor: 0.9,
  ropeParameters: null,
  attentionBias: false,
  attentionDropout: 0,
  initializerRange: 0.02,
  decoderStartTokenId: 1,
  bosTokenId: 1,
  eosTokenId: 2,
  padTokenId: null,
  tieWordEmbeddings: true,
}

export const moonshineKeys: ConfigKeys = {
  defaults: ({ encoderNumAttentionHeads: heads = DEFAULTS.encoderNumAttentionHeads }) => ({
    ...DEFAULTS,
    ...{ decoderNumAttentionHeads: heads, encoderNumKeyValueHeads: heads, decoderNumKeyValueHeads: heads },
  }),
  nullable: ['padTokenId', 'bosTokenId', 'eosTokenId', 'ropeParameters'],
  only: { isEncoderDecoder: [true], ropeScaling: [null] },
  parts: { ropeParameters: plainRopeKeys },
  // The padding of heads is for kernels, and gives the same numbers.
  unused: ['padHeadDimToMultipleOf'],
}

export const moonshineSizes: Record<string, MoonshineConfig> = {
  tiny: { maxPositionEmbeddings: 194, padTokenId: 2 },
  base: {
    hiddenSize: 416,
    intermediateSize: 1664,
    encoderNumHiddenLayers: 8,
    decoderNumHiddenLayers: 8,
    partialRotaryFactor: 0.62,
  },
}

/** Number of samples of the first frame, and from a frame to the next. */
export const FIRST_SAMPLES = 895
export const SAMPLES_PER_FRAME = 384
