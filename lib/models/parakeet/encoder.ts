import { shown } from '../../base/arguments.js'
import { ConfigError } from '../../base/errors.js'
import { toCamel } from '../../base/words.js'
import { isConfiguration } from '../../nn/native-module.js'
import type { Tensor } from '../../tensor/index.js'
import type { ConfigKeys } from '../config-keys.js'
import { type NetworkConfig, networkClass } from '../network.js'

/**
 * Configuration of {@link FastConformerEncoder}: keys of transformers' ParakeetEncoderConfig, in camelCase, with its defaults, and
 * two keys of NeMo for local attention.
 */
export interface FastConformerConfig extends NetworkConfig {
  /** Default 1024. */
  hiddenSize?: number
  /** Default 24. */
  numHiddenLayers?: number
  /** Default 8. */
  numAttentionHeads?: number
  /** Default 4096. */
  intermediateSize?: number
  /** Activation of the feed-forward layers and of the convolution module. Default 'silu'. */
  hiddenAct?: string
  /** Whether the attention and feed-forward layers have biases. Default true. */
  attentionBias?: boolean
  /** Whether the convolution module has biases. Default true. */
  convolutionBias?: boolean
  /** Kernel of the convolution module, odd. Default 9. */
  convKernelSize?: number
  /** Factor by which the first convolutions shorten time, a power of 2. Default 8. */
  subsamplingFactor?: number
  /** Default 256. */
  subsamplingConvChannels?: number
  /** Default 3. */
  subsamplingConvKernelSize?: number
  /** Default 2. */
  subsamplingConvStride?: number
  /** Default 80. */
  numMelBins?: number
  /** Dropout after the subsampling. Default 0.1. */
  dropout?: number
  /** Dropout of the relative positions. Default 0. */
  dropoutPositions?: number
  /** Probability that training skips a layer. Default 0.1. */
  layerdrop?: number
  /** Dropout in the feed-forward layers. Default 0.1. */
  activationDropout?: number
  /** Default 0.1. */
  attentionDropout?: number
  /** Whether the output of the subsampling is multiplied by √hiddenSize. Default true. */
  scaleInput?: boolean
  /**
   * Standard deviation of the initial weights. Default 0.02, for wide encoders. To train a small one from scratch, use about
   * 1 / √hiddenSize: with hiddenSize 144 the loss stayed at chance level with 0.02, and fell with 0.08.
   */
  initializerRange?: number
  /**
   * `'rel_pos'`: each frame attends to all; `'rel_pos_local_attn'`: to its neighbors, in memory that grows with the length instead of
   * its square. The weights are the same, so a checkpoint of one can be loaded with the other. transformers has the first only.
   * Default 'rel_pos'.
   */
  selfAttentionModel?: 'rel_pos' | 'rel_pos_local_attn'
  /** Number of frames before and after for `'rel_pos_local_attn'`; NeMo uses [128, 128]. Default [-1, -1], all. */
  attContextSize?: [before: number, after: number]
}

const DEFAULTS = {
  hiddenSize: 1024,
  numHiddenLayers: 24,
  numAttentionHeads: 8,
  intermediateSize: 4096,
  hiddenAct: 'silu',
  attentionBias: true,
  convolutionBias: true,
  convKernelSize: 9,
  subsamplingFactor: 8,
  subsamplingConvChannels: 256,
  subsamplingConvKernelSize: 3,
  subsamplingConvStride: 2,
  numMelBins: 80,
  dropout: 0.1,
  dropoutPositions: 0,
  layerdrop: 0.1,
  activationDropout: 0.1,
  attentionDropout: 0.1,
  scaleInput: true,
  initializerRange: 0.02,
  selfAttentionModel: 'rel_pos',
  attContextSize: [-1, -1],
} satisfies FastConformerConfig

export function fastConformerKeys(config: FastConformerConfig): ConfigKeys {
  const { hiddenSize = DEFAULTS.hiddenSize, numAttentionHeads = DEFAULTS.numAttentionHeads } = config
  // Native code reports what is not a number.
  const headDim = [hiddenSize, numAttentionHeads].every((one) => typeof one === 'number')
    ? hiddenSize / numAttentionHeads
    : undefined
  return {
    defaults: DEFAULTS,
    only: { numKeyValueHeads: [numAttentionHeads], headDim: [headDim] },
    // Positions are computed for any length.
    unused: ['maxPositionEmbeddings'],
  }
}

const xl: FastConformerConfig = { numHiddenLayers: 42 }
const plain: FastConformerConfig = { attentionBias: false, convolutionBias: false, scaleInput: false }

/** Encoders of the published Parakeet models. */
export const fastConformerSizes: Record<string, FastConformerConfig> = {
  'parakeet-ctc-0.6b': {},
  'parakeet-ctc-1.1b': xl,
  'parakeet-rnnt-0.6b': {},
  'parakeet-rnnt-1.1b': xl,
  'parakeet-tdt-1.1b': xl,
  'parakeet-tdt-0.6b-v2': { ...plain, numMelBins: 128 },
  'parakeet-tdt-0.6b-v3': { ...plain, numMelBins: 128 },
}

export interface FastConformerInputs {
  /** Log-mel features [batch, time, numMelBins], as of `nemoLogMel`; converted to the network's dtype. */
  inputFeatures: Tensor
  /** [batch, time], 1 for valid frames and 0 for padding, which comes after them. */
  attentionMask?: Tensor | null
  outputHiddenStates?: boolean
  outputAttentions?: boolean
}

export interface FastConformerOutput {
  /** [batch, frames, hiddenSize]; undefined values where the mask is false. */
  lastHiddenState: Tensor
  /** bool [batch, frames], true for valid frames; null without a mask. */
  attentionMask: Tensor | null
  /** Input of the first layer and output of each layer, each [batch, frames, hiddenSize]; [] without `outputHiddenStates`. */
  hiddenStates: Tensor[]
  /** Attention of each layer, [batch, heads, frames, frames]; [] without `outputAttentions`. A skipped layer has none. */
  attentions: Tensor[]
}

export const PARAKEET_TYPES = ['parakeet_ctc', 'parakeet_rnnt', 'parakeet_tdt']

/**
 * FastConformer (Rekesh et al. 2023, https://arxiv.org/abs/2305.05084), the encoder of Parakeet, as transformers' ParakeetEncoder;
 * runs in native code. It also loads the encoder of a folder of {@link ParakeetForCTC}, {@link ParakeetForRNNT} or
 * {@link ParakeetForTDT}.
 *
 * ```ts
 * const { inputFeatures, attentionMask } = await nemoLogMel(samples)
 * const { lastHiddenState } = await encoder.forward({ inputFeatures, attentionMask })
 * ```
 *
 * The batch norms of the convolution module see padding in training, as in transformers, so a batch's loss depends on its padding then.
 * In evaluation mode a padded row equals the unpadded clip.
 */
export class FastConformerEncoder extends networkClass<
  FastConformerEncoder,
  FastConformerConfig,
  FastConformerInputs,
  FastConformerOutput
>({
  kind: 'fast_conformer',
  forward: 'voxtorch::fast_conformer_forward',
  modelType: 'parakeet_encoder',
  alike: PARAKEET_TYPES,
  architecture: 'ParakeetEncoder',
  sizes: fastConformerSizes,
  keys: fastConformerKeys,
  prefix: 'encoder.',
  ignored: [/^(ctc_head|encoder_projector|decoder|joint)\./],
  optional: [/\.num_batches_tracked$/],
  found: encoderConfigOf,
}) {
  /** Return the number of frames for features of these lengths. */
  featureLengths(lengths: readonly number[]): number[] {
    return lengths.map((length) => subsampledLength(this.config, length))
  }
}

/** Return the encoder's part of the configuration of a whole model. */
export function encoderConfigOf(config: NetworkConfig): FastConformerConfig {
  const { encoderConfig } = config
  if (encoderConfig === undefined || encoderConfig === null) return config
  if (isConfiguration(encoderConfig)) return toCamel(encoderConfig)
  throw new ConfigError(`encoderConfig: expected an object, got ${shown(encoderConfig)}. Correct the configuration.`, {
    key: 'encoderConfig',
  })
}

/** Return the number of frames that the subsampling makes of a number of feature frames. */
export function subsampledLength(config: FastConformerConfig, length: number): number {
  if (!Number.isInteger(length) || length < 0) {
    throw new ConfigError(`featureLengths: expected a number of frames, got ${shown(length)}. Pass integers.`, {
      length,
    })
  }
  const {
    subsamplingFactor,
    subsamplingConvKernelSize: kernel,
    subsamplingConvStride: stride,
  } = { ...DEFAULTS, ...config }
  let frames = length
  for (let left = subsamplingFactor; left > 1 && frames > 0; left /= 2) {
    frames = Math.max(0, Math.floor((frames + 2 * Math.floor((kernel - 1) / 2) - kernel) / stride) + 1)
  }
  return frames
}

/** Return the number of feature frames from one frame of the encoder to the next. */
export function subsamplingOf(config: FastConformerConfig): number {
  const { subsamplingFactor, subsamplingConvStride } = { ...DEFAULTS, ...config }
  return subsamplingConvStride ** Math.round(Math.log2(subsamplingFactor))
}
