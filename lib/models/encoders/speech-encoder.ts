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
 * What {@link Wav2Vec2} and {@link WavLM} are configured by: the keys of a published config.json in camelCase. What is
 * left out has the value of transformers' configuration classes, given in brackets.
 */
export interface SpeechEncoderConfig extends NetworkConfig {
  /** [768] */
  hiddenSize?: number
  /** [12] */
  numHiddenLayers?: number
  /** [12] */
  numAttentionHeads?: number
  /** [3072] */
  intermediateSize?: number
  /** ['gelu'] */
  hiddenAct?: string
  /** Channels of each convolution, as many as there are convolutions [512, seven times]. */
  convDim?: number[]
  /** [10, 3, 3, 3, 3, 2, 2] */
  convKernel?: number[]
  /** [5, 2, 2, 2, 2, 2, 2]: a frame every 320 samples */
  convStride?: number[]
  /** [false] */
  convBias?: boolean
  /** 'group' normalises after the first convolution, over time; 'layer' after each, over channels ['group']. */
  featExtractNorm?: 'group' | 'layer'
  /** ['gelu'] */
  featExtractActivation?: string
  /** Kernel of the convolution that positions come from [128]. */
  numConvPosEmbeddings?: number
  /** [16] */
  numConvPosEmbeddingGroups?: number
  /** Whether a layer normalises its input instead of its output [false]. */
  doStableLayerNorm?: boolean
  /** [1e-5] */
  layerNormEps?: number
  /** Standard deviation of the linear layers' first weights [0.02]. */
  initializerRange?: number
  /** [0.1] */
  hiddenDropout?: number
  /** [0.1] */
  attentionDropout?: number
  /** [0.1] */
  activationDropout?: number
  /** [0] */
  featProjDropout?: number
  /** Probability that training skips a layer [0.1]. */
  layerdrop?: number
  /** Whether training masks spans of frames and features [true]. */
  applySpecAugment?: boolean
  /** Share of the frames that are masked, before spans overlap [0.05]. */
  maskTimeProb?: number
  /** [10] */
  maskTimeLength?: number
  /** [2] */
  maskTimeMinMasks?: number
  /** [0] */
  maskFeatureProb?: number
  /** [10] */
  maskFeatureLength?: number
  /** [0] */
  maskFeatureMinMasks?: number
  /** Whether convolutions behind the transformer shorten time [false]. */
  addAdapter?: boolean
  /** [3] */
  numAdapterLayers?: number
  /** [3] */
  adapterKernelSize?: number
  /** Each shortens time by so much [2]. */
  adapterStride?: number
  /** Width of the output with `addAdapter` [hiddenSize]. */
  outputHiddenSize?: number | null
  /** Wav2Vec2 with `doStableLayerNorm`: width of a small layer in each layer, which a language changes [none]. */
  adapterAttnDim?: number | null
}

/** What both read, the heads over them included. */
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

/** Of pre-training's objectives, and what the original checkpoints' converters left in their files. */
const UNUSED = [
  ...['numLabels', 'numFeatExtractLayers', 'numCtcClasses', 'featQuantizerDropout', 'numCodevectorsPerGroup'],
  ...['numCodevectorGroups', 'contrastiveLogitsTemperature', 'numNegatives', 'codevectorDim', 'projCodevectorDim'],
  ...['diversityLossWeight', 'featExtractDropout', 'hiddenDropoutProb', 'freezeFeatExtractTrain', 'replaceProb'],
  ...['noMaskChannelOverlap', 'noMaskTimeOverlap', 'maskTimeMinSpace', 'maskTimeOther', 'maskTimeSelection'],
  ...['maskChannelLength', 'maskChannelMinSpace', 'maskChannelOther', 'maskChannelProb', 'maskChannelSelection'],
]

/** The keys of a network, with what it alone has. */
export const speechKeys = (own: NetworkConfig): ConfigKeys => ({
  defaults: (config) => ({
    ...SHARED,
    // Read where `addAdapter` is true.
    outputHiddenSize: config.hiddenSize ?? SHARED.hiddenSize,
    ...own,
  }),
  unused: UNUSED,
})

export interface SpeechEncoderInputs {
  /** Waveforms [batch, samples], floating point, 16 kHz; converted to the network's dtype. */
  inputValues: Tensor
  /** [batch, samples], 1 for real samples and 0 for padding, which comes after them. */
  attentionMask?: Tensor | null
  /** [batch, frames], true for the frames that SpecAugment masks; drawn by the network while training by default. */
  maskTimeIndices?: Tensor | null
  outputHiddenStates?: boolean
  outputAttentions?: boolean
}

export interface SpeechEncoderOutput {
  /** [batch, frames, hiddenSize]; with `addAdapter` fewer frames of `outputHiddenSize`. */
  lastHiddenState: Tensor
  /** What the convolutions made, normalised but not yet projected: [batch, frames, last of convDim]. */
  extractFeatures: Tensor
  /** The first layer's input and the output of each layer, each [batch, frames, hiddenSize]; empty unless asked for. */
  hiddenStates: Tensor[]
  /** Per layer [batch, heads, frames, frames]; empty unless asked for. A layer that training skipped has none. */
  attentions: Tensor[]
}

/** Frames that the convolutions, those of `addAdapter` too, make of so many samples; 0 where there are too few. */
export function framesOf(config: SpeechEncoderConfig, samples: number): number {
  if (!Number.isInteger(samples) || samples < 0) {
    throw new ConfigError(`a length is a number of samples, not ${shown(samples)}`, { length: samples })
  }
  let frames = samples
  for (const { kernel, stride, padding } of convolutionsOf(config)) {
    frames = frames + 2 * padding < kernel ? 0 : Math.floor((frames + 2 * padding - kernel) / stride) + 1
    if (frames === 0) return 0
  }
  return frames
}

/** All that shorten time, from the first. */
export function convolutionsOf(config: SpeechEncoderConfig): { kernel: number; stride: number; padding: number }[] {
  const { convKernel = [10, 3, 3, 3, 3, 2, 2], convStride = [5, 2, 2, 2, 2, 2, 2] } = config
  const { addAdapter = false, numAdapterLayers = 3, adapterKernelSize = 3, adapterStride = 2 } = config
  return [
    ...convKernel.map((kernel, i) => ({ kernel, stride: convStride[i] as number, padding: 0 })),
    ...Array.from({ length: addAdapter ? numAdapterLayers : 0 }, () => ({
      kernel: adapterKernelSize,
      stride: adapterStride,
      padding: 1,
    })),
  ]
}

/** The network's name for a name in a published file, of transformers (new or old weight normalisation), fairseq or fairseq2. */
export function speechEncoderName(name: string): string {
  return fairseqName(fairseq2Name(name))
    .replace(/\.weight_g$/, '.parametrizations.weight.original0')
    .replace(/\.weight_v$/, '.parametrizations.weight.original1')
}

/** What fine-tuned and pre-training checkpoints have on top of the network, in transformers and fairseq. */
export const speechEncoderHeads = [
  /^(w2v_encoder\.(w2v_model\.)?)?(quantizer|project_q|project_hid|final_proj|final_target_proj|proj|label_embs_concat)\b/,
  /^(lm_head|projector|classifier|layer_weights)\b/,
]

/** A network from waveforms to frames. */
export interface SpeechEncoder<C extends SpeechEncoderConfig>
  extends Network<C, SpeechEncoderInputs, SpeechEncoderOutput> {
  /**
   * Runs on the executor. Frames of padding are zeroed before the transformer and are no keys of its attention; their own
   * outputs mean nothing. A clip with less audio than one frame needs counts as one frame of the padded batch.
   * @throws ShapeError for audio too short for one frame, and for a mask of another shape
   */
  forward(inputs: SpeechEncoderInputs): Promise<SpeechEncoderOutput>
  /** Frames that clips of these lengths, in samples, become; 0 for one too short. */
  featureLengths(lengths: readonly number[]): number[]
}

/** The class of such a network. */
export function speechEncoderClass<M, C extends SpeechEncoderConfig>(
  own: Pick<NetworkLayout<C>, 'kind' | 'architecture' | 'sizes' | 'keys'>,
): NetworkStatics<M, C> & NetworkConstructor<C, SpeechEncoder<C>> {
  const layout: NetworkLayout<C> = {
    ...own,
    modelType: own.kind,
    prefix: `${own.kind}.`,
    ignored: speechEncoderHeads,
    // Only SpecAugment reads it, so a file may lack it, or have it for a configuration that masks nothing.
    optional: [/^masked_spec_embed$/],
    rename: speechEncoderName,
  }
  const Base = networkClass<M, C, SpeechEncoderInputs, SpeechEncoderOutput>({
    ...layout,
    forward: `voxtorch::${own.kind}_forward`,
  })
  return class extends Base {
    featureLengths(lengths: readonly number[]): number[] {
      return lengths.map((length) => framesOf(this.config, length))
    }
  }
}
