import { ConfigError, DataError } from '../../base/errors.js'
import { ModuleList } from '../../nn/containers.js'
import { Linear } from '../../nn/linear.js'
import { crossEntropy } from '../../nn/losses.js'
import { Module } from '../../nn/module.js'
import { type FactoryOptions, type MakeOptions, type Parameter, parameter } from '../../nn/parameter.js'
import { ops, scope, type Tensor } from '../../tensor/index.js'
import { labelCount } from '../labels.js'
import type { Data2VecAudio } from './data2vec-audio.js'
import type { Hubert } from './hubert.js'
import {
  data2vecAudio,
  hubert,
  refuseAdapter,
  SpeechHead,
  type SpeechHeadConfig,
  type SpeechLabelInputs,
  wav2vec2,
  wav2vec2Bert,
  wav2vec2Conformer,
  wavlm,
} from './speech-head.js'
import type { Wav2Vec2 } from './wav2vec2.js'
import type { Wav2Vec2Bert } from './wav2vec2-bert.js'
import type { Wav2Vec2Conformer } from './wav2vec2-conformer.js'
import type { WavLM } from './wavlm.js'

export interface SpeechClassificationOutput {
  /** Mean over the batch; null without `labels`. */
  loss: Tensor | null
  /** [batch, numLabels]; for frames [batch, frames, numLabels]. */
  logits: Tensor
  /** Input of the first layer and output of each layer; [] without `outputHiddenStates`. */
  hiddenStates: Tensor[]
  attentions: Tensor[]
}

const factoryOf = ({ device, dtype }: MakeOptions): FactoryOptions => ({ device, dtype })

/** Base class of classifiers: number of classes, and weights of the encoder's layers. */
abstract class SpeechClassifier extends SpeechHead {
  readonly layer_weights: Parameter | null
  protected readonly labels: number

  constructor(config: SpeechHeadConfig, options: MakeOptions = {}) {
    super(config, options)
    const { trunk, task } = this.kinds
    const where = `${trunk.prefix}${task}`
    refuseAdapter(where, this.config)
    this.labels = labelCount(where, this.config)
    this.config.numLabels = this.labels
    const { useWeightedLayerSum, numHiddenLayers } = this.config
    this.layer_weights = useWeightedLayerSum ? parameter([(numHiddenLayers as number) + 1], factoryOf(options)) : null
  }

  protected get width(): number {
    return this.config.hiddenSize as number
  }

  protected override initial(name: string, values: Tensor): void {
    if (name === 'layer_weights') values.fill_(1 / values.numel())
    else super.initial(name, values)
  }
}

abstract class SpeechForSequenceClassification extends SpeechClassifier {
  static override readonly task = 'ForSequenceClassification'
  static override readonly layers: readonly string[] = ['layer_weights', 'projector', 'classifier']
  readonly projector: Linear
  readonly classifier: Linear

  constructor(config: SpeechHeadConfig, options: MakeOptions = {}) {
    super(config, options)
    const classifierProjSize = this.config.classifierProjSize as number
    this.projector = new Linear(this.width, classifierProjSize, factoryOf(options))
    this.classifier = new Linear(classifierProjSize, this.labels, factoryOf(options))
    this.begin(options)
  }

  /**
   * Compute the logits from the mean over the frames without padding. The encoder runs on the executor.
   * @param inputs with `labels`, int64 [batch], the loss is their mean cross-entropy
   */
  override forward(inputs: SpeechLabelInputs): Promise<SpeechClassificationOutput> {
    return scope(async () => {
      const { labels = null, ...rest } = inputs
      const { states, hiddenStates, attentions } = await this.read(rest, this.layer_weights)
      const projected = this.projector.forward(states)
      const logits = this.classifier.forward(this.#pooled(projected, rest.attentionMask ?? null))
      const loss = labels ? crossEntropy(logits, labels.flatten().to('int64')) : null
      return { loss, logits, hiddenStates, attentions }
    })
  }

  #pooled(projected: Tensor, attentionMask: Tensor | null): Tensor {
    if (attentionMask === null) return projected.mean([1])
    const mask = this.frameMask(attentionMask, projected.size(1)).unsqueeze(-1).to(projected.dtype)
    return projected
      .mul(mask)
      .sum([1])
      .div(mask.sum([1]))
  }
}

abstract class SpeechForAudioFrameClassification extends SpeechClassifier {
  static override readonly task = 'ForAudioFrameClassification'
  static override readonly layers: readonly string[] = ['layer_weights', 'classifier']
  readonly classifier: Linear

  constructor(config: SpeechHeadConfig, options: MakeOptions = {}) {
    super(config, options)
    this.classifier = new Linear(this.width, this.labels, factoryOf(options))
    this.begin(options)
  }

  /**
   * Compute the logits of each frame. The encoder runs on the executor.
   * @param inputs `labels`: [batch, frames, numLabels], whose argmax is the class of a frame; the loss is the mean cross-entropy
   * over all frames, including padding, as in transformers
   */
  override forward(inputs: SpeechLabelInputs): Promise<SpeechClassificationOutput> {
    return scope(async () => {
      const { labels = null, ...rest } = inputs
      const { states, hiddenStates, attentions } = await this.read(rest, this.layer_weights)
      const logits = this.classifier.forward(states)
      const loss = labels ? crossEntropy(logits.flatten(0, -2), labels.reshape([-1, this.labels]).argmax(1)) : null
      return { loss, logits, hiddenStates, attentions }
    })
  }
}

/** Layer of a time-delay network (Peddinti et al. 2015): a linear map of `kernel` frames at intervals of `dilation`. */
class TdnnLayer extends Module {
  readonly kernel: Linear
  readonly taps: number
  readonly #dilation: number

  constructor(from: number, to: number, taps: number, dilation: number, options: FactoryOptions) {
    super()
    this.kernel = new Linear(from * taps, to, options)
    this.taps = taps
    this.#dilation = dilation
  }

  /** Number of frames by which the output is shorter. */
  get span(): number {
    return (this.taps - 1) * this.#dilation
  }

  /** Compute the layer: [batch, frames, from] -> [batch, frames - span, to]. */
  override forward(states: Tensor): Tensor {
    const count = states.size(1) - this.span
    const taps = Array.from({ length: this.taps }, (_, i) => states.narrow(1, i * this.#dilation, count))
    return this.kernel.forward(ops.cat(taps, -1)).relu()
  }
}

/** Additive margin softmax loss (Wang et al. 2018, https://arxiv.org/abs/1801.05599). */
class AMSoftmax extends Module {
  readonly weight: Parameter

  constructor(dim: number, labels: number, options: FactoryOptions) {
    super()
    this.weight = parameter([dim, labels], options)
  }

  /** Compute the mean loss of states [batch, dim] and labels int64 [batch]. */
  override forward(states: Tensor, labels: Tensor, scale = 30, margin = 0.4): Tensor {
    const unit = (values: Tensor, dim: number) =>
      values.div(ops.linalgVectorNorm(values, 2, [dim], true).clampMin(1e-12))
    const cosines = unit(states, 1).matmul(unit(this.weight, 0))
    const hot = ops.oneHot(labels, cosines.size(1)).to(cosines.dtype)
    return crossEntropy(cosines.sub(hot.mul(margin)).mul(scale), labels)
  }
}

export interface SpeechXVectorOutput extends SpeechClassificationOutput {
  /** Speaker embeddings [batch, xvectorOutputDim]. */
  embeddings: Tensor
}

abstract class SpeechForXVector extends SpeechClassifier {
  static override readonly task = 'ForXVector'
  static override readonly layers: readonly string[] = [
    'layer_weights',
    'projector',
    'tdnn',
    'feature_extractor',
    'classifier',
    'objective',
  ]
  readonly projector: Linear
  readonly tdnn: ModuleList<TdnnLayer>
  readonly feature_extractor: Linear
  readonly classifier: Linear
  readonly objective: AMSoftmax

  constructor(config: SpeechHeadConfig, options: MakeOptions = {}) {
    super(config, options)
    const { tdnnDim, tdnnKernel, tdnnDilation, xvectorOutputDim } = this.config as Required<SpeechHeadConfig>
    if (tdnnDim.length === 0 || tdnnDim.length !== tdnnKernel.length || tdnnDim.length !== tdnnDilation.length) {
      throw new ConfigError(
        `tdnnDim, tdnnKernel, tdnnDilation: expected lists of the same length, at least 1, got ${tdnnDim.length}, ${tdnnKernel.length} and ${tdnnDilation.length}. Correct them.`,
        {
          tdnnDim,
          tdnnKernel,
          tdnnDilation,
        },
      )
    }
    const factory = factoryOf(options)
    const [first, last] = [tdnnDim[0] as number, tdnnDim.at(-1) as number]
    this.projector = new Linear(this.width, first, factory)
    this.tdnn = new ModuleList(
      tdnnDim.map(
        (dim, i) =>
          new TdnnLayer(tdnnDim[i - 1] ?? first, dim, tdnnKernel[i] as number, tdnnDilation[i] as number, factory),
      ),
    )
    this.feature_extractor = new Linear(2 * last, xvectorOutputDim, factory)
    this.classifier = new Linear(xvectorOutputDim, xvectorOutputDim, factory)
    this.objective = new AMSoftmax(xvectorOutputDim, this.labels, factory)
    this.begin(options)
  }

  /**
   * Compute speaker embeddings, and with `labels`, int64 [batch], the additive margin softmax loss. The encoder runs on the
   * executor. In a padded batch, padding influences the last frames of a shorter clip, as in transformers.
   * @throws DataError for a clip with too few frames
   */
  override forward(inputs: SpeechLabelInputs): Promise<SpeechXVectorOutput> {
    return scope(async () => {
      const { labels = null, ...rest } = inputs
      const { states, hiddenStates, attentions } = await this.read(rest, this.layer_weights)
      const [batch, frames] = states.shape as [number, number]
      const lengths = rest.attentionMask
        ? (this.frameLengths(rest.attentionMask).toArray() as (number | bigint)[]).map(Number)
        : Array<number>(batch).fill(frames)
      const lost = [...this.tdnn].reduce((sum, layer) => sum + layer.span, 0)
      const short = lengths.findIndex((length) => length - lost < 2)
      if (short >= 0) {
        throw new DataError(
          `clip ${short}: expected at least ${lost + 2} frames for the x-vector, got ${lengths[short]}. Use a longer clip.`,
          {
            clip: short,
          },
        )
      }
      let features = this.projector.forward(states)
      for (const layer of this.tdnn) features = layer.forward(features)
      // transformers ignores the dilation here, so frames that padding influences are included.
      const counted = (length: number) => Math.min(features.size(1), length - this.#taps)
      const embeddings = this.feature_extractor.forward(
        this.#statistics(features, rest.attentionMask ? lengths.map(counted) : null),
      )
      const logits = this.classifier.forward(embeddings)
      const loss = labels ? this.objective.forward(logits, labels.flatten().to('int64')) : null
      return { loss, logits, embeddings, hiddenStates, attentions }
    })
  }

  get #taps(): number {
    return [...this.tdnn].reduce((sum, layer) => sum + layer.taps - 1, 0)
  }

  /** Compute mean and standard deviation over the frames of each row: [batch, 2 dim]. */
  #statistics(features: Tensor, lengths: number[] | null): Tensor {
    const of = (frames: Tensor) => ops.cat([frames.mean([-2]), frames.std([-2])], -1)
    return lengths
      ? ops.stack(lengths.map((length, i) => of(features.select(0, i).narrow(0, 0, length))))
      : of(features)
  }

  protected override initial(name: string, values: Tensor): void {
    if (name === 'objective.weight') values.normal_(0, 1)
    else super.initial(name, values)
  }
}

/** Classifier of clips, such as by emotion, with wav2vec 2.0: transformers' Wav2Vec2ForSequenceClassification. */
export class Wav2Vec2ForSequenceClassification extends SpeechForSequenceClassification {
  static override readonly trunk = wav2vec2
  declare readonly wav2vec2: Wav2Vec2
}

/** Classifier of clips with WavLM: transformers' WavLMForSequenceClassification. */
export class WavLMForSequenceClassification extends SpeechForSequenceClassification {
  static override readonly trunk = wavlm
  declare readonly wavlm: WavLM
}

/** Classifier of clips with HuBERT, such as superb/hubert-base-superb-er: transformers' HubertForSequenceClassification. */
export class HubertForSequenceClassification extends SpeechForSequenceClassification {
  static override readonly trunk = hubert
  declare readonly hubert: Hubert
}

/** Classifier of clips with data2vec: transformers' Data2VecAudioForSequenceClassification. */
export class Data2VecAudioForSequenceClassification extends SpeechForSequenceClassification {
  static override readonly trunk = data2vecAudio
  declare readonly data2vec_audio: Data2VecAudio
}

/** Classifier of clips with wav2vec 2.0 of Conformer layers: transformers' Wav2Vec2ConformerForSequenceClassification. */
export class Wav2Vec2ConformerForSequenceClassification extends SpeechForSequenceClassification {
  static override readonly trunk = wav2vec2Conformer
  declare readonly wav2vec2_conformer: Wav2Vec2Conformer
}

/** Classifier of clips with w2v-BERT 2.0: transformers' Wav2Vec2BertForSequenceClassification. Takes `inputFeatures`. */
export class Wav2Vec2BertForSequenceClassification extends SpeechForSequenceClassification {
  static override readonly trunk = wav2vec2Bert
  declare readonly wav2vec2_bert: Wav2Vec2Bert
}

/** Classifier of frames, such as by speaker, with wav2vec 2.0: transformers' Wav2Vec2ForAudioFrameClassification. */
export class Wav2Vec2ForAudioFrameClassification extends SpeechForAudioFrameClassification {
  static override readonly trunk = wav2vec2
  declare readonly wav2vec2: Wav2Vec2
}

/** Classifier of frames with WavLM: transformers' WavLMForAudioFrameClassification. */
export class WavLMForAudioFrameClassification extends SpeechForAudioFrameClassification {
  static override readonly trunk = wavlm
  declare readonly wavlm: WavLM
}

/** Speaker embeddings, x-vectors (Snyder et al. 2018), with wav2vec 2.0: transformers' Wav2Vec2ForXVector. */
export class Wav2Vec2ForXVector extends SpeechForXVector {
  static override readonly trunk = wav2vec2
  declare readonly wav2vec2: Wav2Vec2
}

/** Speaker embeddings with WavLM: transformers' WavLMForXVector. */
export class WavLMForXVector extends SpeechForXVector {
  static override readonly trunk = wavlm
  declare readonly wavlm: WavLM
}
