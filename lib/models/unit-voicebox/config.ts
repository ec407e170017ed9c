import type { ConfigKeys } from '../config-keys.js'
import type { NetworkConfig } from '../network.js'

/** The published config.json in camelCase; what is left out has the value in brackets, the published model's. */
export interface UnitVoiceboxConfig extends NetworkConfig {
  /** Bands of the mel spectrogram [80]. */
  nFeats?: number
  /** Units; one more row of the embedding stands for none [10000]. */
  nTokens?: number
  /** Size of a unit's embedding [1280]. */
  embeddingDim?: number
  /** [1024] */
  hiddenSize?: number
  /** [4096] */
  intermediateSize?: number
  /** [16] */
  numAttentionHeads?: number
  /** An even number [24]. */
  numHiddenLayers?: number
  /** Kernel of the convolutions that positions come from [31]. */
  convposWidth?: number
  /** [16] */
  convposGroups?: number
  /** How many of them there are, one after another [2]. */
  convposDepth?: number
  /** [0] */
  attentionDropout?: number
  /** [0.1] */
  activationDropout?: number
  /** [0] */
  hiddenDropout?: number
  /** How much noise is left at the end of a path [1e-4]. */
  sigmaMin?: number
}

/** Of the log-mel spectrograms that the published model was trained on, by which they are normalised. @internal */
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

/** The original keeps `solver` and never reads it: which of the two solves the equation is an option of `generate`, here as there. */
export const unitVoiceboxKeys: ConfigKeys = { defaults: published, only: { solver: ['euler', 'heun'] } }
