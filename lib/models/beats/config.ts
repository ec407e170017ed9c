import type { ConfigKeys } from '../config-keys.js'
import type { NetworkConfig } from '../network.js'

/**
 * The `cfg` of a published BEATs checkpoint in camelCase; what is left out has the value that the published code gives
 * it, in brackets, which is not always that of the published checkpoints.
 */
export interface BeatsConfig extends NetworkConfig {
  /** Frames and bands of a patch [16]. */
  inputPatchSize?: number
  /** Size of a patch's embedding [512]. */
  embedDim?: number
  /** Whether the patches' convolution has a bias [false]. */
  convBias?: boolean
  /** [12] */
  encoderLayers?: number
  /** [768] */
  encoderEmbedDim?: number
  /** [3072] */
  encoderFfnEmbedDim?: number
  /** [12] */
  encoderAttentionHeads?: number
  /** ['gelu'] */
  activationFn?: string
  /** Whether a layer normalises its input instead of its output [false]. */
  layerNormFirst?: boolean
  /** Deep norm: residuals are scaled by (2 · layers)^¼ [false]. */
  deepNorm?: boolean
  /** [0.1] */
  dropout?: number
  /** [0.1] */
  attentionDropout?: number
  /** [0] */
  activationDropout?: number
  /** [0] */
  dropoutInput?: number
  /** Probability that training skips a layer [0]. */
  encoderLayerdrop?: number
  /** What part of its gradient each layer passes to the one before [1]. */
  layerWiseGradientDecayRatio?: number
  /** Kernel of the convolution that positions come from [128]. */
  convPos?: number
  /** [16] */
  convPosGroups?: number
  /** Whether attention has a bias of relative positions [false]. */
  relativePositionEmbedding?: boolean
  /** Buckets that the distances between patches fall into [320]. */
  numBuckets?: number
  /** Distance in patches from which on all are in the last bucket [1280]. */
  maxDistance?: number
  /** Whether each query scales that bias [false]. */
  gruRelPos?: boolean
  /** Whether the network has a predictor of classes [false]. */
  finetunedModel?: boolean
  /** [0.1] */
  predictorDropout?: number
  /** [527] */
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
