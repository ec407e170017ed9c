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

export type Wav2Vec2Config = SpeechEncoderConfig

const base: Wav2Vec2Config = { activationDropout: 0, featProjDropout: 0.1, layerdrop: 0 }
const largeSize = { hiddenSize: 1024, numHiddenLayers: 24, numAttentionHeads: 16, intermediateSize: 4096 }
const stable: Wav2Vec2Config = {
  ...largeSize,
  convBias: true,
  featExtractNorm: 'layer',
  doStableLayerNorm: true,
  featProjDropout: 0.1,
  layerdrop: 0.1,
}
const xlsr: Wav2Vec2Config = { ...stable, activationDropout: 0, maskTimeProb: 0.075 }

/** Published sizes by name. */
export const wav2vec2Sizes: Record<string, Wav2Vec2Config> = {
  base,
  large: { ...base, ...largeSize },
  'large-960h-lv60': stable,
  'xlsr-53': xlsr,
  'xls-r-300m': xlsr,
  'xls-r-1b': { ...xlsr, hiddenSize: 1280, numHiddenLayers: 48, intermediateSize: 5120 },
  'xls-r-2b': { ...xlsr, hiddenSize: 1920, numHiddenLayers: 48, intermediateSize: 7680 },
}

const forward = opAsync('voxtorch::wav2vec2_forward')

const kind: NetworkKind = {
  kind: 'wav2vec2',
  modelType: 'wav2vec2',
  architecture: 'Wav2Vec2Model',
  prefix: 'wav2vec2.',
  ignored: speechEncoderHeads,
  optional: speechEncoderOptional,
  rename: speechEncoderName,
}

/**
 * wav2vec 2.0 (Baevski et al. 2020, https://arxiv.org/abs/2006.11477) and its multilingual descendants XLSR-53
 * (https://arxiv.org/abs/2006.13979) and XLS-R (https://arxiv.org/abs/2111.09296), as transformers' Wav2Vec2Model; runs in
 * native code.
 *
 * Checkpoints trained with `featExtractNorm: 'layer'` (the large 960h-lv60, XLSR, XLS-R) want waveforms of mean 0 and
 * variance 1. With 'group' a clip's output depends on how far the batch pads it, whatever the mask says, because the first
 * norm takes its statistics over the whole time axis; with 'layer' a padded row equals the unpadded clip.
 */
export class Wav2Vec2 extends NativeModule {
  constructor(
    readonly config: Wav2Vec2Config,
    options: NetworkOptions & { initialize?: boolean } = {},
  ) {
    super(makeNative('wav2vec2', config, options))
  }

  /**
   * Random weights. `config` is a configuration or one of `'base'`, `'large'`, `'large-960h-lv60'`, `'xlsr-53'`,
   * `'xls-r-300m'`, `'xls-r-1b'`, `'xls-r-2b'`.
   */
  static fromConfig(config: Wav2Vec2Config | string, options: NetworkOptions = {}): Wav2Vec2 {
    return new Wav2Vec2(configOf('Wav2Vec2', config, wav2vec2Sizes), options)
  }

  /**
   * The weights of a directory in transformers' layout, or with fairseq's names. Checkpoints of models with a head on top
   * work too.
   * @throws CheckpointError that lists missing, unexpected and mis-shaped names
   */
  static fromPretrained(from: string, options: LoadNetworkOptions = {}): Promise<Wav2Vec2> {
    return loadNetwork(kind, from, options, (config, factory) => new Wav2Vec2(config, factory))
  }

  /**
   * Runs on the executor. Frames of padding are zeroed before the transformer and are no keys of its attention; their own
   * outputs mean nothing. A clip with less audio than one frame needs counts as one frame of the padded batch.
   * @throws ShapeError for audio too short for one frame, and for a mask of another shape
   */
  override forward(inputs: SpeechEncoderInputs): Promise<SpeechEncoderOutput> {
    return forward(withActiveAdapters(this), inputs) as Promise<SpeechEncoderOutput>
  }

  /** Frames that clips of these lengths, in samples, become; 0 for one too short. */
  featureLengths(lengths: readonly number[]): number[] {
    return lengths.map((length) => framesOf(this.config, length))
  }

  /** Writes config.json and model.safetensors, which transformers' Wav2Vec2Model reads. */
  save(directory: string, options: SaveNetworkOptions = {}): Promise<void> {
    return saveNetwork(kind, directory, this, this.config, options)
  }
}
