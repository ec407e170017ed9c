import { ConfigError } from '../../base/errors.js'
import type { MakeOptions } from '../../nn/parameter.js'
import { ops, type Tensor } from '../../tensor/index.js'
import type { ConfigKeys } from '../config-keys.js'
import { type LabelConfig, withLabelNames } from '../labels.js'
import { headClass, type NetworkLayout } from '../network.js'
import { Data2VecAudio, data2vecAudioKeys, data2vecAudioSizes } from './data2vec-audio.js'
import { Hubert, hubertKeys, hubertSizes } from './hubert.js'
import {
  convolutionsOf,
  fieldOf,
  framesOf,
  type SpeechEncoder,
  type SpeechEncoderConfig,
  type SpeechEncoderInputs,
  type SpeechEncoderOutput,
  type SpeechFeatureInputs,
  speechEncoderName,
  speechEncoderOptional,
} from './speech-encoder.js'
import { Wav2Vec2, wav2vec2Keys, wav2vec2Sizes } from './wav2vec2.js'
import { Wav2Vec2Bert, wav2vec2BertKeys, wav2vec2BertSizes } from './wav2vec2-bert.js'
import { Wav2Vec2Conformer, wav2vec2ConformerKeys, wav2vec2ConformerSizes } from './wav2vec2-conformer.js'
import { WavLM, wavlmKeys, wavlmSizes } from './wavlm.js'

/** Configuration of heads over a speech encoder, in addition to that of the encoder. */
export interface SpeechHeadConfig extends SpeechEncoderConfig, LabelConfig {
  /** Number of tokens of the CTC head. Default 32. */
  vocabSize?: number
  /** Id of CTC's blank token. Default 0. */
  padTokenId?: number | null
  /** Default 'mean' for WavLM, 'sum' for the others. */
  ctcLossReduction?: 'sum' | 'mean' | 'none'
  /** Whether the loss of clips that are too short for their labels is 0 instead of infinity. Default false. */
  ctcZeroInfinity?: boolean
  /** Dropout before the CTC head. Default 0.1. */
  finalDropout?: number
  /** Whether a classifier reads a learned mean of all layers instead of the last one. Default false. */
  useWeightedLayerSum?: boolean
  /** Default 256. */
  classifierProjSize?: number
  /** Sizes of the x-vector network's layers. Default [512, 512, 512, 512, 1500]. */
  tdnnDim?: number[]
  /** Default [5, 3, 3, 1, 1]. */
  tdnnKernel?: number[]
  /** Default [1, 2, 3, 1, 1]. */
  tdnnDilation?: number[]
  /** Default 512. */
  xvectorOutputDim?: number
}

type SpeechTrunkNetwork = SpeechEncoder<SpeechEncoderConfig, SpeechEncoderInputs | SpeechFeatureInputs>

/** An encoder under a head. */
export interface SpeechTrunk {
  /** transformers' model type. */
  modelType: string
  /** Begin of transformers' class names. */
  prefix: string
  Network: new (config: SpeechEncoderConfig, options?: MakeOptions) => SpeechTrunkNetwork
  sizes: Record<string, SpeechEncoderConfig>
  keys: ConfigKeys
}

export const wav2vec2: SpeechTrunk = {
  modelType: 'wav2vec2',
  prefix: 'Wav2Vec2',
  Network: Wav2Vec2,
  sizes: wav2vec2Sizes,
  keys: wav2vec2Keys,
}
export const wavlm: SpeechTrunk = {
  modelType: 'wavlm',
  prefix: 'WavLM',
  Network: WavLM,
  sizes: wavlmSizes,
  keys: wavlmKeys,
}
export const hubert: SpeechTrunk = {
  modelType: 'hubert',
  prefix: 'Hubert',
  Network: Hubert,
  sizes: hubertSizes,
  keys: hubertKeys,
}
export const data2vecAudio: SpeechTrunk = {
  modelType: 'data2vec-audio',
  prefix: 'Data2VecAudio',
  Network: Data2VecAudio,
  sizes: data2vecAudioSizes,
  keys: data2vecAudioKeys,
}
export const wav2vec2Conformer: SpeechTrunk = {
  modelType: 'wav2vec2-conformer',
  prefix: 'Wav2Vec2Conformer',
  Network: Wav2Vec2Conformer,
  sizes: wav2vec2ConformerSizes,
  keys: wav2vec2ConformerKeys,
}
export const wav2vec2Bert: SpeechTrunk = {
  modelType: 'wav2vec2-bert',
  prefix: 'Wav2Vec2Bert',
  Network: Wav2Vec2Bert,
  sizes: wav2vec2BertSizes,
  keys: wav2vec2BertKeys,
}

/** Waveforms, for w2v-BERT 2.0 features, and labels. */
export type SpeechLabelInputs = (SpeechEncoderInputs | SpeechFeatureInputs) & { labels?: Tensor | null }

/** Static members of a class of heads. */
export interface SpeechHeadClass {
  readonly trunk: SpeechTrunk
  readonly task: string
  readonly layers: readonly string[]
}

/** Names of other heads in files, which are ignored. */
const OTHERS = ['lm_head', 'projector', 'classifier', 'layer_weights', 'tdnn', 'objective']
const PRETRAINING = /^(w2v_encoder\.(w2v_model\.)?)?(quantizer|project_q|project_hid|final_proj|label_embs_concat)\b/

function layoutOf({ trunk, task, layers }: SpeechHeadClass): NetworkLayout<SpeechHeadConfig> {
  const { modelType, sizes, keys } = trunk
  const field = fieldOf(modelType)
  const architecture = `${trunk.prefix}${task}`
  const own = new RegExp(`^(${layers.join('|')})(\\.|$)`)
  const others = OTHERS.filter((name) => !layers.includes(name))
  return {
    kind: modelType,
    modelType,
    architecture,
    sizes,
    keys,
    prefix: '',
    ignored: [PRETRAINING, new RegExp(`^(${others.join('|')})\\b`)],
    saved: (config) => (layers.includes('lm_head') ? config : withLabelNames(architecture, config)),
    optional: speechEncoderOptional.map((name) => new RegExp(`^${field}\\.${name}$`)),
    rename: (name) => {
      // fairseq names the CTC head `proj`.
      if (/^(w2v_encoder\.)?proj\./.test(name)) return name.replace(/^(w2v_encoder\.)?proj\./, 'lm_head.')
      if (own.test(name) && !/^feature_extractor\.conv_layers\./.test(name)) return name
      return `${field}.${speechEncoderName(name.startsWith(`${field}.`) ? name.slice(field.length + 1) : name, modelType)}`
    },
  }
}

const HeadBase = headClass<SpeechHeadConfig, SpeechHeadClass>(layoutOf, ({ trunk }) => ({
  field: fieldOf(trunk.modelType),
  make: (config, options) => new trunk.Network(config, options),
}))

/** Base class of heads over a speech encoder. */
export abstract class SpeechHead extends HeadBase {
  static readonly trunk: SpeechTrunk = wav2vec2
  static readonly task: string = ''
  static readonly layers: readonly string[] = []

  protected get trunk(): SpeechTrunkNetwork {
    return Reflect.get(this, fieldOf(this.kinds.trunk.modelType)) as SpeechTrunkNetwork
  }

  protected get kinds(): SpeechHeadClass {
    return this.constructor as unknown as SpeechHeadClass
  }

  /** Return the number of frames for clips of these lengths in samples or feature vectors; 0 for a clip that is too short. */
  featureLengths(lengths: readonly number[]): number[] {
    return lengths.map((length) => framesOf(this.config, length))
  }

  /** Return the number of frames of each row without padding, int64 [batch], at least 1. */
  protected frameLengths(attentionMask: Tensor): Tensor {
    let lengths = attentionMask.to('int64').sum([-1])
    for (const { kernel, stride, padding } of convolutionsOf(this.config)) {
      lengths = ops.floorDivide(lengths.add(2 * padding - kernel), stride).add(1)
    }
    return lengths.clampMin(1)
  }

  /** Return the mask of frames without padding, bool [batch, frames]. */
  protected frameMask(attentionMask: Tensor, frames: number): Tensor {
    const lengths = this.frameLengths(attentionMask).unsqueeze(1)
    return ops.arange(frames, { dtype: 'int64', device: lengths.device }).unsqueeze(0).lt(lengths)
  }

  /** Return a classifier's input [batch, frames, hiddenSize], and the other outputs of the encoder that `inputs` requests. */
  protected async read(
    inputs: SpeechEncoderInputs | SpeechFeatureInputs,
    layerWeights: Tensor | null,
  ): Promise<{ states: Tensor } & Pick<SpeechEncoderOutput, 'hiddenStates' | 'attentions'>> {
    const isRequested = inputs.outputHiddenStates ?? false
    const outputHiddenStates = isRequested || layerWeights !== null
    const { lastHiddenState, hiddenStates, attentions } = await this.trunk.forward({ ...inputs, outputHiddenStates })
    const states = layerWeights
      ? ops.einsum('l,lbtd->btd', [layerWeights.softmax(-1), ops.stack(hiddenStates)])
      : lastHiddenState
    return { states, hiddenStates: isRequested ? hiddenStates : [], attentions }
  }
}

/** Throw a ConfigError for `addAdapter`: classifiers read the frames of the transformer. */
export function refuseAdapter(where: string, config: SpeechHeadConfig): void {
  if (config.addAdapter !== true) return
  throw new ConfigError(
    `${where}: addAdapter: expected false, because a classifier reads all frames, got true. Use it with CTC only.`,
    { addAdapter: true },
  )
}
