import { type SpeechEncoderConfig, speechEncoderClass, speechKeys } from './speech-encoder.js'

export interface WavLMConfig extends SpeechEncoderConfig {
  /** Buckets that the distances between frames fall into [320]. */
  numBuckets?: number
  /** Distance in frames from which on all are in the last bucket [800]. */
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
 * With `featExtractNorm: 'group'` (base and base-plus) a clip's output depends on how far the batch pads it, whatever the
 * mask says, because the first norm takes its statistics over the whole time axis; with 'layer' (large) a padded row equals
 * the unpadded clip. WavLM-large wants waveforms of mean 0 and variance 1. `attentions` are each head's own; transformers
 * gives the mean over the heads in the place of each.
 *
 * Published sizes: `'base'`, `'base-plus'`, `'large'`. Files may have the names of the original ones.
 */
export class WavLM extends speechEncoderClass<WavLM, WavLMConfig>({
  kind: 'wavlm',
  architecture: 'WavLMModel',
  sizes: wavlmSizes,
  keys: wavlmKeys,
}) {}
