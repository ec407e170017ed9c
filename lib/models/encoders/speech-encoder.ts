import { shown } from '../../base/arguments.js'
import { ConfigError } from '../../base/errors.js'
import type { Tensor } from '../../tensor/index.js'
import type { ConfigKeys } from '../config-keys.js'
import {
  type Network,
  type NetworkConfig,
  type NetworkConstructor,
  type NetworkLayout,
  type NetworkStatics,
  networkClass,
} from '../network.js'
import { fairseq2Name, fairseqName } from './fairseq.js'

/**
 * Configuration of {@link Wav2Vec2}, {@link WavLM} and their relatives: keys of a published config.json, in camelCase. Defaults are
 * those of transformers' configuration classes.
 */
export interface SpeechEncoderConfig extends NetworkConfig {
  /** Default 768. */
  hiddenSize?: number
  /** Default 12. */
  numHiddenLayers?: number
  /** Default 12. */
  numAttentionHeads?: number
  /** Default 3072. */
  intermediateSize?: number
  /** Default 'gelu'. */
  hiddenAct?: string
  /** Channels of each convolution. Default seven times 512. */
  convDim?: number[]
  /** Default [10, 3, 3, 3, 3, 2, 2]. */
  convKernel?: number[]
  /** Default [5, 2, 2, 2, 2, 2, 2], a frame every 320 samples. */
  convStride?: number[]
  /** Default false. */
  convBias?: boolean
  /** 'group': group norm over time after the first convolution; 'layer': layer norm over channels after each. Default 'group'. */
  featExtractNorm?: 'group' | 'layer'
  /** Default 'gelu'. */
  featExtractActivation?: string
  /** Kernel of the convolution for positions. Default 128. */
  numConvPosEmbeddings?: number
  /** Default 16. */
  numConvPosEmbeddingGroups?: number
  /** Whether a layer normalizes its input instead of its output. Default false. */
  doStableLayerNorm?: boolean
  /** Default 1e-5. */
  layerNormEps?: number
  /** Standard deviation of the initial weights of linear layers. Default 0.02. */
  initializerRange?: number
  /** Default 0.1. */
  hiddenDropout?: number
  /** Default 0.1. */
  attentionDropout?: number
  /** Default 0.1. */
  activationDropout?: number
  /** Default 0. */
  featProjDropout?: number
  /** Probability that training skips a layer. Default 0.1. */
  layerdrop?: number
  /** Whether training masks spans of frames and features. Default true. */
  applySpecAugment?: boolean
  /** Fraction of the frames that are masked, before spans overlap. Default 0.05. */
  maskTimeProb?: number
  /** Default 10. */
  maskTimeLength?: number
  /** Default 2. */
  maskTimeMinMasks?: number
  /** Default 0. */
  maskFeatureProb?: number
  /** Default 10. */
  maskFeatureLength?: number
  /** Default 0. */
  maskFeatureMinMasks?: number
  /** Whether convolutions after the transformer shorten the output. Default false. */
  addAdapter?: boolean
  /** Default 3. */
  numAdapterLayers?: number
  /** Default 3. */
  adapterKernelSize?: number
  /** Factor by which each shortens the output. Default 2. */
  adapterStride?: number
  /** Size of the output with `addAdapter`. Default `hiddenSize`. */
  outputHiddenSize?: number | null
  /** For Wav2Vec2 and Hubert with `doStableLayerNorm`: size of the language adapter in each layer. Default: none. */
  adapterAttnDim?: number | null
}

/** Defaults of all networks, including the heads. */
const SHARED: NetworkConfig = {
  hiddenSize: 768,
  numHiddenLayers: 12,
  numAttentionHeads: 12,
  intermediateSize: 3072,
  hiddenAct: 'gelu',
  convDim: [512, 512, 512, 512, 512, 512, 512],
  convKernel: [10, 3, 3, 3, 3, 2, 2],
  convStride: [5, 2, 2, 2, 2, 2, 2],
  convBias: false,
  featExtractNorm: 'group',
  featExtractActivation: 'gelu',
  numConvPosEmbeddings: 128,
  numConvPosEmbeddingGroups: 16,
  doStableLayerNorm: false,
  layerNormEps: 1e-5,
  initializerRange: 0.02,
  hiddenDropout: 0.1,
  attentionDropout: 0.1,
  activationDropout: 0.1,
  featProjDropout: 0,
  layerdrop: 0.1,
  applySpecAugment: true,
  maskTimeProb: 0.05,
  maskTimeLength: 10,
  maskTimeMinMasks: 2,
  maskFeatureProb: 0,
  maskFeatureLength: 10,
  maskFeatureMinMasks: 0,
  addAdapter: false,
  numAdapterLayers: 3,
  adapterKernelSize: 3,
  adapterStride: 2,
  vocabSize: 32,
  padTokenId: 0,
  bosTokenId: 1,
  eosTokenId: 2,
  finalDropout: 0.1,
  ctcZeroInfinity: false,
  useWeightedLayerSum: false,
  classifierProjSize: 256,
  tdnnDim: [512, 512, 512, 512, 1500],
  tdnnKernel: [5, 3, 3, 1, 1],
  tdnnDilation: [1, 2, 3, 1, 1],
  xvectorOutputDim: 512,
}

/** Keys of pre-training, and keys that converters of the original checkpoints left in their files. */
const UNUSED = [
  ...['numLabels', 'numFeatExtractLayers', 'numCtcClasses', 'featQuantizerDropout', 'numCodevectorsPerGroup'],
  ...['numCodevectorGroups', 'contrastiveLogitsTemperature', 'numNegatives', 'codevectorDim', 'projCodevectorDim'],
  ...['diversityLossWeight', 'featExtractDropout', 'hiddenDropoutProb', 'freezeFeatExtractTrain', 'replaceProb'],
  ...['noMaskChannelOverlap', 'noMaskTimeOverlap', 'maskTimeMinSpace', 'maskTimeOther', 'maskTimeSelection'],
  ...['maskChannelLength', 'maskChannelMinSpace', 'maskChannelOther', 'maskChannelProb', 'maskChannelSelection'],
]

/**
 * Return the keys of a network.
 * @param own its own keys with defaults
 * @param differences `lacking`: keys of other networks that it does not have; `unused`: keys of its files without effect
 */
export const speechKeys = (
  own: NetworkConfig,
  { lacking = [], unused = [] }: { lacking?: readonly string[]; unused?: readonly string[] } = {},
): ConfigKeys => ({
  defaults: (config) => {
    const all: NetworkConfig = { ...SHARED, ...own }
    // The network reads it only with `addAdapter`.
    all.outputHiddenSize = config.hiddenSize ?? all.hiddenSize
    return Object.fromEntries(Object.entries(all).filter(([key]) => !lacking.includes(key)))
  },
  unused: [...UNUSED, ...unused],
})

/** Inputs of every speech encoder in addition to audio. */
export interface SpeechInputs {
  /** [batch, samples], 1 for real samples and 0 for padding, which comes after them; for features [batch, time]. */
  attentionMask?: Tensor | null
  /** [batch, frames], true for the frames that SpecAugment masks. Default: drawn by the network in training. */
  maskTimeIndices?: Tensor | null
  outputHiddenStates?: boolean
  outputAttentions?: boolean
}

/** Input of {@link Wav2Vec2Bert}. */
export interface SpeechFeatureInputs extends SpeechInputs {
  /** Features [batch, time, featureProjectionInputDim] of `seamlessFeatures`. */
  inputFeatures: Tensor
}

export interface SpeechEncoderInputs extends SpeechInputs {
  /** Waveforms [batch, samples], floating point, 16 kHz; converted to the network's dtype. */
  inputValues: Tensor
}

export interface SpeechEncoderOutput {
  /** [batch, frames, hiddenSize]; with `addAdapter` fewer frames of `outputHiddenSize`. */
  lastHiddenState: Tensor
  /** Output of the convolutions, normalized but not projected: [batch, frames, last of convDim]; of w2v-BERT 2.0 the features. */
  extractFeatures: Tensor
  /** Input of the first layer and output of each layer, each [batch, frames, hiddenSize]; [] without `outputHiddenStates`. */
  hiddenStates: Tensor[]
  /** Attention of each layer, [batch, heads, frames, frames]; [] without `outputAttentions`. A skipped layer has none. */
  attentions: Tensor[]
}

/**
 * Return the number of frames for a number of samples (or feature vectors), after all convolutions, including those of `addAdapter`; may
 * be 0.
 */
export function framesOf(config: SpeechEncoderConfig, samples: number): number {
  if (!Number.isInteger(samples) || samples < 0) {
    throw new ConfigError(`featureLengths: expected a number of samples, got ${shown(samples)}. Pass integers.`, {
      length: samples,
    })
  }
  let frames = samples
  for (const { kernel, stride, padding } of convolutionsOf(config)) {
    frames = frames + 2 * padding < kernel ? 0 : Math.floor((frames + 2 * padding - kernel) / stride) + 1
    if (frames === 0) return 0
  }
  return frames
}

/** Tell whether a network reads features instead of waveforms. */
export const readsFeatures = (config: SpeechEncoderConfig): boolean => config.featureProjectionInputDim !== undefined

/** Return all convolutions that shorten the sequence, in order. */
export function convolutionsOf(config: SpeechEncoderConfig): { kernel: number; stride: number; padding: number }[] {
  const { convKernel = [10, 3, 3, 3, 3, 2, 2], convStride = [5, 2, 2, 2, 2, 2, 2] } = config
  const { addAdapter = false, numAdapterLayers = 3, adapterKernelSize = 3, adapterStride = 2 } = config
  const ofFeatures = readsFeatures(config)
  return [
    ...(ofFeatures ? [] : convKernel).map((kernel, i) => ({ kernel, stride: convStride[i] as number, padding: 0 })),
    ...Array.from({ length: addAdapter ? numAdapterLayers : 0 }, () => ({
      kernel: adapterKernelSize,
      stride: adapterStride,
      padding: ofFeatures ? Math.floor(adapterKernelSize / 2) : 1,
    })),
  ]
}

/** Return the name of the field with the encoder in a network with a head, which is the prefix of its parameters' names. */
export const fieldOf = (modelType: string): string => modelType.replaceAll('-', '_')

/**
 * Convert a name in a published file of transformers (new or old weight normalization), fairseq or fairseq2 to the network's name. Of
 * networks with Conformer layers only transformers' names are known.
 */
export function speechEncoderName(name: string, modelType = ''): string {
  const known = CONFORMERS.includes(modelType) ? name : fairseqName(fairseq2Name(name))
  return known
    .replace(/\.weight_g$/, '.parametrizations.weight.original0')
    .replace(/\.weight_v$/, '.parametrizations.weight.original1')
}
const CONFORMERS = ['wav2vec2-conformer', 'wav2vec2-bert']

/** Only SpecAugment reads the first, and the second follows from the configuration: a file may lack them, or have them unused. */
export const speechEncoderOptional = ['masked_spec_embed', 'encoder\\.embed_positions\\.inv_freq']

/** Patterns of names of heads in fine-tuned and pre-training checkpoints, in transformers and fairseq. */
export const speechEncoderHeads = [
  /^(w2v_encoder\.(w2v_model\.)?)?(quantizer|project_q|project_hid|final_proj|final_target_proj|proj|label_embs_concat)\b/,
  /^(lm_head|projector|classifier|layer_weights)\b/,
]

/** Encoder from waveforms or features to frames. */
export interface SpeechEncoder<C extends SpeechEncoderConfig, I extends SpeechInputs = SpeechEncoderInputs>
  extends Network<C, I, SpeechEncoderOutput> {
  /**
   * Run the network on the executor. Frames of padding are zeroed before the transformer and masked in its attention; their outputs
   * are undefined. A clip shorter than one frame counts as one frame of the padded batch.
   * @throws ShapeError for audio shorter than one frame, and for a mask of another shape
   */
  forward(inputs: I): Promise<SpeechEncoderOutput>
  /** Return the number of frames for clips of these lengths in samples or feature vectors; 0 for a clip that is too short. */
  featureLengths(lengths: readonly number[]): number[]
}

/** Return the class of a speech encoder. `kind` is the native network, `modelType` the name in files, default the same. */
export function speechEncoderClass<M, C extends SpeechEncoderConfig, I extends SpeechInputs = SpeechEncoderInputs>(
  own: Pick<NetworkLayout<C>, 'kind' | 'architecture' | 'sizes' | 'keys' | 'native'> & {
    modelType?: string
    forward?: string
  },
): NetworkStatics<M, C> & NetworkConstructor<C, SpeechEncoder<C, I>> {
  const { modelType = own.kind, forward = `voxtorch::${own.kind}_forward` } = own
  const Base = networkClass<M, C, I, SpeechEncoderOutput>({
    ...own,
    modelType,
    forward,
    prefix: `${fieldOf(modelType)}.`,
    ignored: speechEncoderHeads,
    optional: speechEncoderOptional.map((name) => new RegExp(`^${name}$`)),
    rename: (name) => speechEncoderName(name, modelType),
  })
  return class extends Base {
    featureLengths(lengths: readonly number[]): number[] {
      return lengths.map((length) => framesOf(this.config, length))
    }
  }
}
