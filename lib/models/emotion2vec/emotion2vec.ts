import { padAudio } from '../../audio/normalize.js'
import { requireOptions } from '../../base/check.js'
import { ConfigError } from '../../base/errors.js'
import { ops, scope, type Tensor } from '../../tensor/index.js'
import type { ConfigKeys } from '../config-keys.js'
import { framesOf } from '../encoders/speech-encoder.js'
import { classificationLoss, type LabelConfig, labelCount, withLabelNames } from '../labels.js'
import { type NetworkConfig, networkClass } from '../network.js'
import { funasrCheckpoint } from './funasr.js'

/** Configuration of {@link Emotion2Vec}. The reader of FunASR's folders converts their config.yaml to it. */
export interface Emotion2VecConfig extends NetworkConfig, LabelConfig {
  /** Default 768. */
  hiddenSize?: number
  /** Number of layers, those of the prenet included. Default 12: 4 of the prenet and 8 others. */
  numHiddenLayers?: number
  /** Default 12. */
  numAttentionHeads?: number
  /** Default 3072. */
  intermediateSize?: number
  /** Channels of each convolution. Default seven times 512. */
  convDim?: number[]
  /** Default [10, 3, 3, 3, 3, 2, 2]. */
  convKernel?: number[]
  /** Default [5, 2, 2, 2, 2, 2, 2], a frame every 320 samples. */
  convStride?: number[]
  /** Number of convolutions for positions, one after the other. Default 5. */
  numConvPosEmbeddings?: number
  /** Their kernel. Default 19. */
  convPosKernelSize?: number
  /** Default 16. */
  numConvPosEmbeddingGroups?: number
  /** Number of learned tokens before the frames. Default 10. */
  numExtraTokens?: number
  /** Number of heads with a bias of distances (ALiBi); the others have none. Default `numAttentionHeads`. */
  numAlibiHeads?: number
  /** Initial scale of the biases. Default 1. */
  alibiScale?: number
  /** Whether each layer has a scale of its own. Default false. */
  learnedAlibiScalePerLayer?: boolean
  /** Whether each head has a scale of its own. Default true. */
  learnedAlibiScalePerHead?: boolean
  /** Standard deviation of the initial weights of linear layers. Default 0.02. */
  initializerRange?: number
  /** Dropout of the attention's output. Default 0.1. */
  hiddenDropout?: number
  /** Default 0.1. */
  attentionDropout?: number
  /** Dropout after each linear layer of the feed-forward part. Default 0. */
  activationDropout?: number
  /** Dropout of the feed-forward part's output, in addition. Default 0.1. */
  postMlpDrop?: number
  /** Dropout before the first layer. Default 0.1. */
  prenetDropout?: number
  /** Probability that training skips a layer. Default 0.05. */
  layerdrop?: number
  /** Whether {@link Emotion2Vec.prepare} normalizes clips to mean 0 and variance 1. Default true. */
  normalize?: boolean
  /** Number of classes; 0: no classifier. Default: the number of names in `id2label`, else 0. */
  numLabels?: number
}

const DEFAULTS = {
  hiddenSize: 768,
  numHiddenLayers: 12,
  numAttentionHeads: 12,
  intermediateSize: 3072,
  convDim: [512, 512, 512, 512, 512, 512, 512],
  convKernel: [10, 3, 3, 3, 3, 2, 2],
  convStride: [5, 2, 2, 2, 2, 2, 2],
  numConvPosEmbeddings: 5,
  convPosKernelSize: 19,
  numConvPosEmbeddingGroups: 16,
  numExtraTokens: 10,
  alibiScale: 1,
  learnedAlibiScalePerLayer: false,
  learnedAlibiScalePerHead: true,
  initializerRange: 0.02,
  hiddenDropout: 0.1,
  attentionDropout: 0.1,
  activationDropout: 0,
  postMlpDrop: 0.1,
  prenetDropout: 0.1,
  layerdrop: 0.05,
  normalize: true,
}

const keysOf = ({ numAttentionHeads, id2label }: Emotion2VecConfig): ConfigKeys => ({
  defaults: {
    ...DEFAULTS,
    numAlibiHeads: numAttentionHeads ?? DEFAULTS.numAttentionHeads,
    numLabels: Object.keys(id2label ?? {}).length,
  },
})

/** Published sizes by name. */
export const emotion2vecSizes: Record<string, Emotion2VecConfig> = { base: {} }

export interface Emotion2VecInputs {
  /** Waveforms [batch, samples], floating point, 16 kHz, as {@link Emotion2Vec.prepare} returns them. */
  inputValues: Tensor
  /** [batch, samples], 1 for samples and 0 for padding at the end. */
  attentionMask?: Tensor | null
  /** int64 [batch]: class of each clip; float for several classes. */
  labels?: Tensor | null
  outputHiddenStates?: boolean
  outputAttentions?: boolean
}

export interface Emotion2VecOutput {
  /** Features of frames, [batch, frames, hiddenSize]; undefined values for padding. */
  lastHiddenState: Tensor
  /** Features of utterances, [batch, hiddenSize]: the mean over the frames of each clip. */
  poolerOutput: Tensor
  /** [batch, numLabels]; null without a classifier. */
  logits: Tensor | null
  /** Mean over the batch; null without `labels`. */
  loss: Tensor | null
  /** Input of the first layer and output of each layer, each [batch, frames, hiddenSize]; [] without `outputHiddenStates`. */
  hiddenStates: Tensor[]
  /**
   * Attention of each layer, [batch, heads, tokens, tokens], of the extra tokens and the frames; [] without `outputAttentions`. A skipped
   * layer has none.
   */
  attentions: Tensor[]
}

/** Keys that the shared native encoder reads, with the values of this network. */
const FIXED = { featExtractNorm: 'layer', maskTimeProb: 0, maskFeatureProb: 0 }

/** The original drops the output of the feed-forward part twice. */
const nativeConfig = ({ activationDropout, postMlpDrop, ...config }: Emotion2VecConfig): NetworkConfig => ({
  ...config,
  ...FIXED,
  activationDropout,
  postMlpDrop:
    typeof activationDropout === 'number' && typeof postMlpDrop === 'number'
      ? 1 - (1 - activationDropout) * (1 - postMlpDrop)
      : postMlpDrop,
})

const Base = networkClass<Emotion2Vec, Emotion2VecConfig, Emotion2VecInputs, Emotion2VecOutput>({
  kind: 'emotion2vec',
  forward: 'voxtorch::emotion2vec_forward',
  modelType: 'emotion2vec',
  architecture: 'Emotion2Vec',
  sizes: emotion2vecSizes,
  keys: keysOf,
  prefix: '',
  ignored: [],
  foreign: funasrCheckpoint,
  native: nativeConfig,
  completed: (config) => {
    if (config.numLabels !== 0) labelCount('Emotion2Vec', config)
    return config
  },
  // A pre-trained network has no classifier, even where its folder has names of classes.
  found: ({ id2label, numLabels, ...config }, has) =>
    has('classifier.weight') ? { ...config, ...(id2label && { id2label }), ...(numLabels && { numLabels }) } : config,
  saved: (config) => (config.numLabels === 0 ? config : withLabelNames('Emotion2Vec', config)),
})

/**
 * emotion2vec (Ma et al. 2023, https://arxiv.org/abs/2312.15185) and emotion2vec+ (https://github.com/ddlBoJack/emotion2vec): data2vec
 * 2.0 for emotions in speech, as FunASR's Emotion2vec; runs in native code. `fromPretrained` reads the published folders (config.yaml,
 * model.pt, tokens.txt), executing nothing, and those that `save` writes.
 *
 * FunASR computes one clip at a time, and its network has no correct masks for padded batches: convolutions for positions see what padding
 * becomes. Here each clip of a batch with `attentionMask` has the states of the clip alone.
 *
 * ```ts
 * const model = await Emotion2Vec.fromPretrained('./emotion2vec_plus_base')
 * const { logits, poolerOutput } = await model.forward(await model.prepare([clip]))
 * ```
 *
 * Size: `'base'` (emotion2vec_base, 93.2 million parameters); with `id2label` the networks of that size with a classifier.
 */
export class Emotion2Vec extends Base {
  /**
   * Run the network on the executor, and with `labels` compute the loss.
   * @throws ShapeError for audio shorter than one frame, and for a mask of another shape; ConfigError for labels without a classifier
   */
  override forward(inputs: Emotion2VecInputs): Promise<Emotion2VecOutput> {
    return scope(async () => {
      const { labels = null, ...rest } = inputs
      if (labels && this.config.numLabels === 0) {
        throw new ConfigError(
          'Emotion2Vec.forward: labels: expected none without a classifier, got some. Load it with config: { numLabels } and allowMissing.',
        )
      }
      const output = await super.forward(rest)
      const loss = labels && output.logits ? classificationLoss(this.config, output.logits, labels) : null
      return { ...output, loss }
    })
  }

  /**
   * Return the input of `forward` for clips [n] at 16 kHz of any lengths: normalized each for itself, padded to one batch.
   * @param options `normalize`: default that of the configuration
   */
  async prepare(
    clips: readonly Tensor[],
    options: { normalize?: boolean } = {},
  ): Promise<{ inputValues: Tensor; attentionMask: Tensor }> {
    requireOptions('Emotion2Vec.prepare', options, ['normalize'])
    const { normalize = this.config.normalize } = options
    return scope(async () => {
      // FunASR normalizes with torch's layer_norm, whose epsilon is 1e-5.
      const normalized = normalize ? clips.map((clip) => ops.layerNorm(clip, clip.shape)) : clips
      return padAudio(normalized)
    })
  }

  /** Return the number of frames for clips of these lengths in samples; 0 for a clip that is too short. */
  featureLengths(lengths: readonly number[]): number[] {
    return lengths.map((length) => framesOf(this.config, length))
  }
}
