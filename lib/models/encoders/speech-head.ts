import { ConfigError } from '../../base/errors.js'
import type { MakeOptions } from '../../nn/parameter.js'
import { ops, type Tensor } from '../../tensor/index.js'
import type { ConfigKeys } from '../config-keys.js'
import { type LabelConfig, withLabelNames } from '../labels.js'
import { headClass, type NetworkLayout } from '../network.js'
import {
  convolutionsOf,
  framesOf,
  type SpeechEncoderConfig,
  type SpeechEncoderInputs,
  type SpeechEncoderOutput,
  speechEncoderName,
} from './speech-encoder.js'
import { Wav2Vec2, wav2vec2Keys, wav2vec2Sizes } from './wav2vec2.js'
import { WavLM, wavlmKeys, wavlmSizes } from './wavlm.js'

/** What the layers over {@link Wav2Vec2} and {@link WavLM} are configured by, beside those; defaults in brackets. */
export interface SpeechHeadConfig extends SpeechEncoderConfig, LabelConfig {
  /** Tokens of the CTC head [32]. */
  vocabSize?: number
  /** CTC's blank [0]. */
  padTokenId?: number | null
  /** ['sum' for Wav2Vec2, 'mean' for WavLM] */
  ctcLossReduction?: 'sum' | 'mean' | 'none'
  /** Whether clips that are too short for their labels count 0 instead of infinity [false]. */
  ctcZeroInfinity?: boolean
  /** Before the CTC head [0.1]. */
  finalDropout?: number
  /** Whether a classifier reads a learned mean of all layers instead of the last one [false]. */
  useWeightedLayerSum?: boolean
  /** [256] */
  classifierProjSize?: number
  /** Of the x-vector network [512, 512, 512, 512, 1500]. */
  tdnnDim?: number[]
  /** [5, 3, 3, 1, 1] */
  tdnnKernel?: number[]
  /** [1, 2, 3, 1, 1] */
  tdnnDilation?: number[]
  /** [512] */
  xvectorOutputDim?: number
}

/** A network that heads stand on. */
export interface SpeechTrunk {
  /** The field and the prefix of its parameters' names; also transformers' model type. */
  name: 'wav2vec2' | 'wavlm'
  /** What transformers' classes begin with. */
  prefix: string
  Network: new (config: SpeechEncoderConfig, options?: MakeOptions) => Wav2Vec2 | WavLM
  sizes: Record<string, SpeechEncoderConfig>
  keys: ConfigKeys
}

export const wav2vec2: SpeechTrunk = {
  name: 'wav2vec2',
  prefix: 'Wav2Vec2',
  Network: Wav2Vec2,
  sizes: wav2vec2Sizes,
  keys: wav2vec2Keys,
}
export const wavlm: SpeechTrunk = {
  name: 'wavlm',
  prefix: 'WavLM',
  Network: WavLM,
  sizes: wavlmSizes,
  keys: wavlmKeys,
}

export interface SpeechLabelInputs extends SpeechEncoderInputs {
  labels?: Tensor | null
}

/** A class of heads over one of the trunks. */
export interface SpeechHeadClass {
  readonly trunk: SpeechTrunk
  readonly task: string
  readonly layers: readonly string[]
}

/** What other heads' files have, and this one has no use for. */
const OTHERS = ['lm_head', 'projector', 'classifier', 'layer_weights', 'tdnn', 'objective']
const PRETRAINING = /^(w2v_encoder\.(w2v_model\.)?)?(quantizer|project_q|project_hid|final_proj|label_embs_concat)\b/

function layoutOf({ trunk, task, layers }: SpeechHeadClass): NetworkLayout<SpeechHeadConfig> {
  const { name: field, sizes, keys } = trunk
  const architecture = `${trunk.prefix}${task}`
  const own = new RegExp(`^(${layers.join('|')})(\\.|$)`)
  const others = OTHERS.filter((name) => !layers.includes(name))
  return {
    kind: field,
    modelType: field,
    architecture,
    sizes,
    keys,
    prefix: '',
    ignored: [PRETRAINING, new RegExp(`^(${others.join('|')})\\b`)],
    saved: (config) => (layers.includes('lm_head') ? config : withLabelNames(architecture, config)),
    optional: [new RegExp(`^${field}\\.masked_spec_embed$`)],
    rename: (name) => {
      // fairseq's name of the CTC head.
      if (/^(w2v_encoder\.)?proj\./.test(name)) return name.replace(/^(w2v_encoder\.)?proj\./, 'lm_head.')
      if (own.test(name) && !/^feature_extractor\.conv_layers\./.test(name)) return name
      return `${field}.${speechEncoderName(name.startsWith(`${field}.`) ? name.slice(field.length + 1) : name)}`
    },
  }
}

const HeadBase = headClass<SpeechHeadConfig, SpeechHeadClass>(layoutOf, ({ trunk }) => ({
  field: trunk.name,
  make: (config, options) => new trunk.Network(config, options),
}))

/** Layers over a speech encoder. */
export abstract class SpeechHead extends HeadBase {
  static readonly trunk: SpeechTrunk = wav2vec2
  static readonly task: string = ''
  static readonly layers: readonly string[] = []

  protected get trunk(): Wav2Vec2 | WavLM {
    return Reflect.get(this, this.kinds.trunk.name) as Wav2Vec2 | WavLM
  }

  protected get kinds(): SpeechHeadClass {
    return this.constructor as unknown as SpeechHeadClass
  }

  /** Frames that clips of these lengths, in samples, become; 0 for one too short. */
  featureLengths(lengths: readonly number[]): number[] {
    return lengths.map((length) => framesOf(this.config, length))
  }

  /** Real frames of each row, int64 [batch]; a row too short for one has one. */
  protected frameLengths(attentionMask: Tensor): Tensor {
    let lengths = attentionMask.to('int64').sum([-1])
    for (const { kernel, stride, padding } of convolutionsOf(this.config)) {
      lengths = ops.floorDivide(lengths.add(2 * padding - kernel), stride).add(1)
    }
    return lengths.clampMin(1)
  }

  /** Which of the frames are real, bool [batch, frames]. */
  protected frameMask(attentionMask: Tensor, frames: number): Tensor {
    const lengths = this.frameLengths(attentionMask).unsqueeze(1)
    return ops.arange(frames, { dtype: 'int64', device: lengths.device }).unsqueeze(0).lt(lengths)
  }

  /** What a classifier reads, [batch, frames, hiddenSize], and the encoder's other outputs as they were asked for. */
  protected async read(
    inputs: SpeechEncoderInputs,
    layerWeights: Tensor | null,
  ): Promise<{ states: Tensor } & Pick<SpeechEncoderOutput, 'hiddenStates' | 'attentions'>> {
    const wanted = inputs.outputHiddenStates ?? false
    const outputHiddenStates = wanted || layerWeights !== null
    const { lastHiddenState, hiddenStates, attentions } = await this.trunk.forward({ ...inputs, outputHiddenStates })
    const states = layerWeights
      ? ops.einsum('l,lbtd->btd', [layerWeights.softmax(-1), ops.stack(hiddenStates)])
      : lastHiddenState
    return { states, hiddenStates: wanted ? hiddenStates : [], attentions }
  }
}

/** Classifiers read the frames of the transformer. */
export function refuseAdapter(where: string, config: SpeechHeadConfig): void {
  if (config.addAdapter !== true) return
  throw new ConfigError(`${where}: addAdapter is for CTC; a classifier reads all frames`, { addAdapter: true })
}
