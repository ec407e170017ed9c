import { requireObject } from '../../base/check.js'
import { ConfigError } from '../../base/errors.js'
import { ops, type Tensor } from '../../tensor/index.js'
import { configOf } from '../config.js'
import { type HeadFactory, HeadNetwork, seeded } from '../head.js'
import type { LabelConfig } from '../labels.js'
import {
  type LoadNetworkOptions,
  loadNetwork,
  type NetworkKind,
  type SaveNetworkOptions,
  saveNetwork,
} from '../pretrained.js'
import {
  convolutionsOf,
  framesOf,
  type SpeechEncoderConfig,
  type SpeechEncoderInputs,
  type SpeechEncoderOutput,
  speechEncoderName,
} from './speech-encoder.js'
import { Wav2Vec2, wav2vec2Sizes } from './wav2vec2.js'
import { WavLM, wavlmSizes } from './wavlm.js'

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
  Network: new (config: SpeechEncoderConfig, options?: HeadFactory) => Wav2Vec2 | WavLM
  sizes: Record<string, SpeechEncoderConfig>
  ctcLossReduction: 'sum' | 'mean'
}

export const wav2vec2: SpeechTrunk = {
  name: 'wav2vec2',
  prefix: 'Wav2Vec2',
  Network: Wav2Vec2,
  sizes: wav2vec2Sizes,
  ctcLossReduction: 'sum',
}
export const wavlm: SpeechTrunk = {
  name: 'wavlm',
  prefix: 'WavLM',
  Network: WavLM,
  sizes: wavlmSizes,
  ctcLossReduction: 'mean',
}

export interface SpeechLabelInputs extends SpeechEncoderInputs {
  labels?: Tensor | null
}

/** A class of heads over one of the trunks, which its static methods are called on. */
export interface SpeechHeadClass<M extends SpeechHead> {
  new (config: SpeechHeadConfig, options?: HeadFactory): M
  readonly trunk: SpeechTrunk
  readonly task: string
  readonly layers: readonly string[]
}

/** What other heads' files have, and this one has no use for. */
const OTHERS = ['lm_head', 'projector', 'classifier', 'layer_weights', 'tdnn', 'objective']
const PRETRAINING = /^(w2v_encoder\.(w2v_model\.)?)?(quantizer|project_q|project_hid|final_proj|label_embs_concat)\b/

export function kindOf(of: SpeechHeadClass<SpeechHead>): NetworkKind {
  const { trunk, task, layers } = of
  const field = trunk.name
  const own = new RegExp(`^(${layers.join('|')})(\\.|$)`)
  const others = OTHERS.filter((name) => !layers.includes(name))
  return {
    kind: field,
    modelType: field,
    architecture: `${trunk.prefix}${task}`,
    prefix: '',
    ignored: [PRETRAINING, new RegExp(`^(${others.join('|')})\\b`)],
    optional: [new RegExp(`^${field}\\.masked_spec_embed$`)],
    rename: (name) => {
      // fairseq's name of the CTC head.
      if (/^(w2v_encoder\.)?proj\./.test(name)) return name.replace(/^(w2v_encoder\.)?proj\./, 'lm_head.')
      if (own.test(name) && !/^feature_extractor\.conv_layers\./.test(name)) return name
      return `${field}.${speechEncoderName(name.startsWith(`${field}.`) ? name.slice(field.length + 1) : name)}`
    },
  }
}

export async function loadHead<M extends SpeechHead>(
  of: SpeechHeadClass<M>,
  from: string,
  options: LoadNetworkOptions,
): Promise<{ model: M; directory: string }> {
  let directory = ''
  const model = await loadNetwork(kindOf(of), from, options, (config, factory, _, folder) => {
    directory = folder
    return new of(config as SpeechHeadConfig, factory)
  })
  return { model, directory }
}

/** Layers over a speech encoder. */
export abstract class SpeechHead extends HeadNetwork {
  static readonly trunk: SpeechTrunk = wav2vec2
  static readonly task: string = ''
  static readonly layers: readonly string[] = []
  readonly config: SpeechHeadConfig
  protected override readonly firstStd: number

  constructor(config: SpeechHeadConfig, options: HeadFactory = {}) {
    super()
    const { trunk, task } = new.target as unknown as SpeechHeadClass<SpeechHead>
    requireObject(`${trunk.prefix}${task}`, 'config', config)
    this.config = { ...config }
    this.firstStd = config.initializerRange ?? 0.02
    Reflect.set(this, trunk.name, new trunk.Network(this.config, options))
  }

  /** Random weights. `config` is a configuration or the name of one of the encoder's published sizes. */
  static fromConfig<M extends SpeechHead>(
    this: SpeechHeadClass<M>,
    config: SpeechHeadConfig | string,
    options: HeadFactory = {},
  ): M {
    // biome-ignore lint/complexity/noThisInStatic: the class that the method is called on
    const complete = configOf(`${this.trunk.prefix}${this.task}`, config, this.trunk.sizes)
    return seeded(options, (factory) => new this(complete, factory))
  }

  /**
   * The weights of a directory or hub repository in transformers' layout, or with fairseq's names. A checkpoint without
   * this head needs `allowMissing`, which gives the head fresh values.
   * @throws CheckpointError that lists missing, unexpected and mis-shaped names
   */
  static async fromPretrained<M extends SpeechHead>(
    this: SpeechHeadClass<M>,
    from: string,
    options: LoadNetworkOptions = {},
  ): Promise<M> {
    // biome-ignore lint/complexity/noThisInStatic: the class that the method is called on
    return (await loadHead(this, from, options)).model
  }

  protected get trunk(): Wav2Vec2 | WavLM {
    return Reflect.get(this, this.kinds.trunk.name) as Wav2Vec2 | WavLM
  }

  protected get kinds(): SpeechHeadClass<SpeechHead> {
    return this.constructor as unknown as SpeechHeadClass<SpeechHead>
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

  /** Writes config.json and model.safetensors, which transformers reads. */
  save(directory: string, options: SaveNetworkOptions = {}): Promise<void> {
    return saveNetwork(kindOf(this.kinds), directory, this, this.config, options)
  }
}

/** Classifiers read the frames of the transformer. */
export function refuseAdapter(where: string, config: SpeechHeadConfig): void {
  if (config.addAdapter !== true) return
  throw new ConfigError(`${where}: addAdapter is for CTC; a classifier reads all frames`, { addAdapter: true })
}
