import type { ConfigKeys } from '../config-keys.js'
import type { NetworkConfig } from '../network.js'

/** The keys of a published config.json in camelCase. Defaults are those of transformers' WhisperConfig. */
export interface WhisperConfig extends NetworkConfig {
  vocabSize?: number
  /** 80, or 128 for large-v3 and its derivatives. */
  numMelBins?: number
  dModel?: number
  encoderLayers?: number
  encoderAttentionHeads?: number
  encoderFfnDim?: number
  decoderLayers?: number
  decoderAttentionHeads?: number
  decoderFfnDim?: number
  /** Maximum number of encoder frames of 20 ms: 1500 for 30 seconds. */
  maxSourcePositions?: number
  /** Maximum number of decoder tokens, prompt included. */
  maxTargetPositions?: number
  activationFunction?: string
  dropout?: number
  attentionDropout?: number
  activationDropout?: number
  encoderLayerdrop?: number
  decoderLayerdrop?: number
  initStd?: number
  /** Row of the token embeddings that gets no gradient. */
  padTokenId?: number | null
  bosTokenId?: number | null
  eosTokenId?: number | null
  decoderStartTokenId?: number
  tieWordEmbeddings?: boolean
  /** Width of the median filter of `tokenTimestamps` in frames; odd. Default 7. */
  medianFilterWidth?: number
  /** Apply SpecAugment to the spectrogram in training. */
  applySpecAugment?: boolean
  maskTimeProb?: number
  maskTimeLength?: number
  maskTimeMinMasks?: number
  maskFeatureProb?: number
  maskFeatureLength?: number
  maskFeatureMinMasks?: number
}

export const whisperKeys: ConfigKeys = {
  defaults: {
    vocabSize: 51865,
    numMelBins: 80,
    dModel: 384,
    encoderLayers: 4,
    encoderAttentionHeads: 6,
    encoderFfnDim: 1536,
    decoderLayers: 4,
    decoderAttentionHeads: 6,
    decoderFfnDim: 1536,
    maxSourcePositions: 1500,
    maxTargetPositions: 448,
    activationFunction: 'gelu',
    dropout: 0,
    attentionDropout: 0,
    activationDropout: 0,
    encoderLayerdrop: 0,
    decoderLayerdrop: 0,
    initStd: 0.02,
    padTokenId: 50256,
    bosTokenId: 50256,
    eosTokenId: 50256,
    decoderStartTokenId: 50257,
    tieWordEmbeddings: true,
    medianFilterWidth: 7,
    applySpecAugment: false,
    maskTimeProb: 0.05,
    maskTimeLength: 10,
    maskTimeMinMasks: 2,
    maskFeatureProb: 0,
    maskFeatureLength: 10,
    maskFeatureMinMasks: 0,
  },
  nullable: ['padTokenId', 'bosTokenId', 'eosTokenId'],
  only: { isEncoderDecoder: [true] },
  // Keys of audio classification; transformers ignores `scale_embedding` in Whisper.
  unused: ['useWeightedLayerSum', 'classifierProjSize', 'numHiddenLayers', 'scaleEmbedding', 'forcedDecoderIds'],
}

const ofSize = (dModel: number, layers: number, heads: number): WhisperConfig => ({
  vocabSize: 51865,
  dModel,
  encoderLayers: layers,
  encoderAttentionHeads: heads,
  encoderFfnDim: 4 * dModel,
  decoderLayers: layers,
  decoderAttentionHeads: heads,
  decoderFfnDim: 4 * dModel,
  padTokenId: 50257,
  bosTokenId: 50257,
  eosTokenId: 50257,
  decoderStartTokenId: 50258,
})

const english: WhisperConfig = {
  vocabSize: 51864,
  padTokenId: 50256,
  bosTokenId: 50256,
  eosTokenId: 50256,
  decoderStartTokenId: 50257,
}
/** One more language, Cantonese, and spectrograms with 128 bins. */
const third: WhisperConfig = { vocabSize: 51866, numMelBins: 128, padTokenId: 50256 }

const tiny = ofSize(384, 4, 6)
const base = ofSize(512, 6, 8)
const small = ofSize(768, 12, 12)
const medium = ofSize(1024, 24, 16)
const large = ofSize(1280, 32, 20)

/** Return the configuration for native code, in which -1 stands for a `padTokenId` of null. */
export const nativeWhisper = (config: WhisperConfig): NetworkConfig =>
  config.padTokenId === null ? { ...config, padTokenId: -1 } : config

/** Published sizes by name. */
export const sizes: Record<string, WhisperConfig> = {
  tiny,
  'tiny.en': { ...tiny, ...english },
  base,
  'base.en': { ...base, ...english },
  small,
  'small.en': { ...small, ...english },
  medium,
  'medium.en': { ...medium, ...english },
  large,
  'large-v2': large,
  'large-v3': { ...large, ...third },
  'large-v3-turbo': { ...large, ...third, decoderLayers: 4 },
  'distil-large-v3': { ...large, ...third, decoderLayers: 2 },
  'distil-large-v2': { ...large, decoderLayers: 2 },
  'distil-medium.en': { ...medium, ...english, decoderLayers: 2 },
  'distil-small.en': { ...small, ...english, decoderLayers: 4 },
}

export const melBinsOf = (config: WhisperConfig): number => config.numMelBins ?? 80
/** Return the number of spectrogram steps in one window. */
export const windowOf = (config: WhisperConfig): number => 2 * (config.maxSourcePositions ?? 1500)
export const positionsOf = (config: WhisperConfig): number => config.maxTargetPositions ?? 448
