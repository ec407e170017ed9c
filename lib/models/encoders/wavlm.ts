import { type SpeechEncoderConfig, speechEncoderClass, speechKeys } from './speech-encoder.js'

export interface WavLMConfig extends SpeechEncoderConfig {
  /** Number of buckets for distances between frames. Default 320. */
  numBuckets?: number
  /** Distance in frames from which all fall into the last bucket. Default 800. */
  maxBucketDistance?: number
}

const base: WavLMConfig = { activationDropout: 0, featProjDropout: 0.1, layerdrop: 0.05 }
/** Published sizes by name. */
export const wavlmSizes: Record<string, WavLMConfig> = {
  base,
  'base-plus': base,
  large: {
    hiddenSize: 1024,
    numHiddenLayers: 24,
    numAttentionHeads: 16,
    intermediateSize: 4096,
    featExtractNorm: 'layer',
    doStableLayerNorm: true,
    activationDropout: 0,
    featProjDropout: 0.1,
    layerdrop: 0.1,
    maskTimeProb: 0.075,
  },
}

export const wavlmKeys = speechKeys({
  ctcLossReduction: 'mean',
  numBuckets: 320,
  maxBucketDistance: 800,
  adapterAttnDim: null,
})

/**
 * WavLM (Chen et al. 2021, https://arxiv.org/abs/2110.13900), as transformers' WavLMModel; runs in native code.
 *
 * With `featExtractNorm: 'group'` (base and base-plus) a clip's output depends on the padding of the batch despite the mask, because
 * the first norm computes statistics over the whole time axis. With 'layer' (large) a padded row equals the unpadded clip. WavLM-large
 * needs waveforms with mean 0 and variance 1. `attentions` has the values of each head; transformers returns their mean for each.
 *
 * Published sizes: `'base'`, `'base-plus'`, `'large'`. Files with the original names work too.
 */
export class WavLM extends speechEncoderClass<WavLM, WavLMConfig>({
  kind: 'wavlm',
  architecture: 'WavLMModel',
  sizes: wavlmSizes,
  keys: wavlmKeys,
}) {}
