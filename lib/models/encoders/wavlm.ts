import { opAsync } from '../../native/call.js'
import { makeNative, NativeModule, withActiveAdapters } from '../../nn/native-module.js'
import type { NetworkOptions } from '../../nn/parameter.js'
import { configOf } from '../config.js'
import {
  type LoadNetworkOptions,
  loadNetwork,
  type NetworkKind,
  type SaveNetworkOptions,
  saveNetwork,
} from '../pretrained.js'
import {
  framesOf,
  type SpeechEncoderConfig,
  type SpeechEncoderInputs,
  type SpeechEncoderOutput,
  speechEncoderHeads,
  speechEncoderName,
  speechEncoderOptional,
} from './speech-encoder.js'

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

const forward = opAsync('voxtorch::wavlm_forward')

const kind: NetworkKind = {
  kind: 'wavlm',
  modelType: 'wavlm',
  architecture: 'WavLMModel',
  prefix: 'wavlm.',
  ignored: speechEncoderHeads,
  optional: speechEncoderOptional,
  rename: speechEncoderName,
}

/**
 * WavLM (Chen et al. 2021, https://arxiv.org/abs/2110.13900), as transformers' WavLMModel; runs in native code.
 *
 * With `featExtractNorm: 'group'` (base and base-plus) a clip's output depends on how far the batch pads it, whatever the
 * mask says, because the first norm takes its statistics over the whole time axis; with 'layer' (large) a padded row equals
 * the unpadded clip. WavLM-large wants waveforms of mean 0 and variance 1.
 */
export class WavLM extends NativeModule {
  constructor(
    readonly config: WavLMConfig,
    options: NetworkOptions & { initialize?: boolean } = {},
  ) {
    super(makeNative('wavlm', config, options))
  }

  /** Random weights. `config` is a configuration or one of `'base'`, `'base-plus'`, `'large'`. */
  static fromConfig(config: WavLMConfig | string, options: NetworkOptions = {}): WavLM {
    return new WavLM(configOf('WavLM', config, wavlmSizes), options)
  }

  /**
   * The weights of a directory in transformers' layout, or with the names of the original files. Checkpoints of models
   * with a head on top work too.
   * @throws CheckpointError that lists missing, unexpected and mis-shaped names
   */
  static fromPretrained(from: string, options: LoadNetworkOptions = {}): Promise<WavLM> {
    return loadNetwork(kind, from, options, (config, factory) => new WavLM(config, factory))
  }

  /**
   * Runs on the executor. Frames of padding are zeroed before the transformer and are no keys of its attention; their own
   * outputs mean nothing. A clip with less audio than one frame needs counts as one frame of the padded batch.
   * `attentions` are each head's own; transformers gives the mean over the heads in the place of each.
   * @throws ShapeError for audio too short for one frame, and for a mask of another shape
   */
  override forward(inputs: SpeechEncoderInputs): Promise<SpeechEncoderOutput> {
    return forward(withActiveAdapters(this), inputs) as Promise<SpeechEncoderOutput>
  }

  /** Frames that clips of these lengths, in samples, become; 0 for one too short. */
  featureLengths(lengths: readonly number[]): number[] {
    return lengths.map((length) => framesOf(this.config, length))
  }

  /** Writes config.json and model.safetensors, which transformers' WavLMModel reads. */
  save(directory: string, options: SaveNetworkOptions = {}): Promise<void> {
    return saveNetwork(kind, directory, this, this.config, options)
  }
}
