import type { ConfigKeys } from '../config-keys.js'
import type { NetworkConfig } from '../network.js'

/** The published config.json in camelCase. Defaults are those of the published model. */
export interface UnitVoiceboxConfig extends NetworkConfig {
  /** Bands of the mel spectrogram. Default 80. */
  nFeats?: number
  /** Number of units; the embedding has one more row, the null unit. Default 10000. */
  nTokens?: number
  /** Size of a unit's embedding. Default 1280. */
  embeddingDim?: number
  /** Default 1024. */
  hiddenSize?: number
  /** Default 4096. */
  intermediateSize?: number
  /** Default 16. */
  numAttentionHeads?: number
  /** An even number. Default 24. */
  numHiddenLayers?: number
  /** Kernel size of the convolutions for positions. Default 31. */
  convposWidth?: number
  /** Default 16. */
  convposGroups?: number
  /** Number of these convolutions in sequence. Default 2. */
  convposDepth?: number
  /** Default 0. */
  attentionDropout?: number
  /** Default 0.1. */
  activationDropout?: number
  /** Default 0. */
  hiddenDropout?: number
  /** Remaining noise at the end of a path. Default 1e-4. */
  sigmaMin?: number
}

/** Mean and standard deviation of the log-mel spectrograms in the training of the published model, for normalization. @internal */
export const MEL = { mean: -5.5419, std: 2.1575 }

const published: UnitVoiceboxConfig = {
  nFeats: 80,
  nTokens: 10000,
  embeddingDim: 1280,
  hiddenSize: 1024,
  intermediateSize: 4096,
  numAttentionHeads: 16,
  numHiddenLayers: 24,
  convposWidth: 31,
  convposGroups: 16,
  convposDepth: 2,
  attentionDropout: 0,
  activationDropout: 0.1,
  hiddenDropout: 0,
  sigmaMin: 1e-4,
}

/** The size of `naver-ai/xlsr-token-Voicebox`. */
export const unitVoiceboxSizes: Record<string, UnitVoiceboxConfig> = { 'xlsr-token-voicebox': published }

/** The original keeps `solver` but never reads it. As there, the solver is an option of `generate`. */
export const unitVoiceboxKeys: ConfigKeys = { defaults: published, only: { solver: ['euler', 'heun'] } }
