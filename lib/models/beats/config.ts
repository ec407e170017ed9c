import type { ConfigKeys } from '../config-keys.js'
import type { NetworkConfig } from '../network.js'

/**
 * The `cfg` of a published BEATs checkpoint in camelCase. Defaults are those of the published code, which are not always those of the
 * published checkpoints.
 */
export interface BeatsConfig extends NetworkConfig {
  /** Frames and bands of a patch. Default 16. */
  inputPatchSize?: number
  /** Size of a patch's embedding. Default 512. */
  embedDim?: number
  /** Whether the patches' convolution has a bias. Default false. */
  convBias?: boolean
  /** Default 12. */
  encoderLayers?: number
  /** Default 768. */
  encoderEmbedDim?: number
  /** Default 3072. */
  encoderFfnEmbedDim?: number
  /** Default 12. */
  encoderAttentionHeads?: number
  /** Default 'gelu'. */
  activationFn?: string
  /** Whether a layer normalizes its input instead of its output. Default false. */
  layerNormFirst?: boolean
  /** Deep norm: residuals are scaled by (2 · layers)^¼. Default false. */
  deepNorm?: boolean
  /** Default 0.1. */
  dropout?: number
  /** Default 0.1. */
  attentionDropout?: number
  /** Default 0. */
  activationDropout?: number
  /** Default 0. */
  dropoutInput?: number
  /** Probability that training skips a layer. Default 0. */
  encoderLayerdrop?: number
  /** Factor on the gradient that each layer passes to the previous one. Default 1. */
  layerWiseGradientDecayRatio?: number
  /** Kernel size of the convolution for positions. Default 128. */
  convPos?: number
  /** Default 16. */
  convPosGroups?: number
  /** Whether attention has a bias of relative positions. Default false. */
  relativePositionEmbedding?: boolean
  /** Number of buckets for the distances between patches. Default 320. */
  numBuckets?: number
  /** Distance in patches from which all are in the last bucket. Default 1280. */
  maxDistance?: number
  /** Whether each query scales the bias of relative positions. Default false. */
  gruRelPos?: boolean
  /** Whether the network has a predictor of classes. Default false. */
  finetunedModel?: boolean
  /** Default 0.1. */
  predictorDropout?: number
  /** Default 527. */
  predictorClass?: number
  /** Names of the classes by number. */
  id2label?: Record<string, string>
}

export const beatsKeys: ConfigKeys = {
  defaults: {
    inputPatchSize: 16,
    embedDim: 512,
    convBias: false,
    encoderLayers: 12,
    encoderEmbedDim: 768,
    encoderFfnEmbedDim: 3072,
    encoderAttentionHeads: 12,
    activationFn: 'gelu',
    layerNormFirst: false,
    deepNorm: false,
    dropout: 0.1,
    attentionDropout: 0.1,
    activationDropout: 0,
    dropoutInput: 0,
    encoderLayerdrop: 0,
    layerWiseGradientDecayRatio: 1,
    convPos: 128,
    convPosGroups: 16,
    relativePositionEmbedding: false,
    numBuckets: 320,
    maxDistance: 1280,
    gruRelPos: false,
    finetunedModel: false,
    predictorDropout: 0.1,
    predictorClass: 527,
  },
}

const base: BeatsConfig = {
  deepNorm: true,
  relativePositionEmbedding: true,
  gruRelPos: true,
  maxDistance: 800,
  dropout: 0,
  attentionDropout: 0,
  encoderLayerdrop: 0.05,
  layerWiseGradientDecayRatio: 0.6,
}

/** `'base'` is the pre-trained network; `'as2m'` has the predictor that was fine-tuned on AudioSet. */
export const beatsSizes: Record<string, BeatsConfig> = {
  base,
  as2m: { ...base, finetunedModel: true, predictorDropout: 0, predictorClass: 527 },
}
