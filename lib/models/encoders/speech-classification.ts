import { ConfigError, DataError } from '../../base/errors.js'
import { ModuleList } from '../../nn/containers.js'
import { Linear } from '../../nn/linear.js'
import { crossEntropy } from '../../nn/losses.js'
import { Module } from '../../nn/module.js'
import { type FactoryOptions, type MakeOptions, type Parameter, parameter } from '../../nn/parameter.js'
import { ops, scope, type Tensor } from '../../tensor/index.js'
import { labelCount } from '../labels.js'
import {
  refuseAdapter,
  SpeechHead,
  type SpeechHeadConfig,
  type SpeechLabelInputs,
  wav2vec2,
  wavlm,
} from './speech-head.js'
import type { Wav2Vec2 } from './wav2vec2.js'
import type { WavLM } from './wavlm.js'

export interface SpeechClassificationOutput {
  /** Mean over the batch; null without labels. */
  loss: Tensor | null
  /** [batch, numLabels]; of frames [batch, frames, numLabels]. */
  logits: Tensor
  /** The first layer's input and the output of each layer; empty unless asked for. */
  hiddenStates: Tensor[]
  attentions: Tensor[]
}

const factoryOf = ({ device, dtype }: MakeOptions): FactoryOptions => ({ device, dtype })

/** What the classifiers have in common: classes, and weights of the encoder's layers. */
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
   * The encoder runs on the executor. Frames of padding do not count.
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
   * The encoder runs on the executor.
   * @param inputs `labels`: [batch, frames, numLabels], of which the largest of each frame is its class; the loss is the
   *   mean cross-entropy over all frames, padding included, as in transformers
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

/** A layer of a time-delay network (Peddinti et al. 2015): `kernel` frames, `dilation` apart, as one vector. */
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

  /** Frames that are lost. */
  get span(): number {
    return (this.taps - 1) * this.#dilation
  }

  /** [batch, frames, from] -> [batch, fewer, to] */
  override forward(states: Tensor): Tensor {
    const count = states.size(1) - this.span
    const taps = Array.from({ length: this.taps }, (_, i) => states.narrow(1, i * this.#dilation, count))
    return this.kernel.forward(ops.cat(taps, -1)).relu()
  }
}

/** Logits of an additive margin softmax (Wang et al. 2018, https://arxiv.org/abs/1801.05599). */
class AMSoftmax extends Module {
  readonly weight: Parameter

  constructor(dim: number, labels: number, options: FactoryOptions) {
    super()
    this.weight = parameter([dim, labels], options)
  }

  /** states [batch, dim], labels int64 [batch] -> the mean loss */
  override forward(states: Tensor, labels: Tensor, scale = 30, margin = 0.4): Tensor {
    const unit = (values: Tensor, dim: number) =>
      values.div(ops.linalgVectorNorm(values, 2, [dim], true).clampMin(1e-12))
    const cosines = unit(states, 1).matmul(unit(this.weight, 0))
    const hot = ops.oneHot(labels, cosines.size(1)).to(cosines.dtype)
    return crossEntropy(cosines.sub(hot.mul(margin)).mul(scale), labels)
  }
}

export interface SpeechXVectorOutput extends SpeechClassificationOutput {
  /** [batch, xvectorOutputDim]: what tells speakers apart. */
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
      throw new ConfigError('tdnnDim, tdnnKernel and tdnnDilation must have one value for each layer', {
        tdnnDim,
        tdnnKernel,
        tdnnDilation,
      })
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
   * The encoder runs on the executor. With `labels`, int64 [batch], the loss is that of an additive margin softmax. In a
   * padded batch the last frames of a shorter clip are influenced by its padding, as in transformers.
   * @throws DataError for a clip of too few frames
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
        throw new DataError(`clip ${short} has ${lengths[short]} frames; the x-vector needs at least ${lost + 2}`, {
          clip: short,
        })
      }
      let features = this.projector.forward(states)
      for (const layer of this.tdnn) features = layer.forward(features)
      // transformers forgets the dilation here, and with it counts frames that padding reaches into.
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

  /** Mean and deviation over each row's first frames, [batch, 2 dim]. */
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

/** One class for a clip, such as its emotion, by wav2vec 2.0: transformers' Wav2Vec2ForSequenceClassification. */
export class Wav2Vec2ForSequenceClassification extends SpeechForSequenceClassification {
  static override readonly trunk = wav2vec2
  declare readonly wav2vec2: Wav2Vec2
}

/** One class for a clip by WavLM: transformers' WavLMForSequenceClassification. */
export class WavLMForSequenceClassification extends SpeechForSequenceClassification {
  static override readonly trunk = wavlm
  declare readonly wavlm: WavLM
}

/** A class for each frame, such as who speaks, by wav2vec 2.0: transformers' Wav2Vec2ForAudioFrameClassification. */
export class Wav2Vec2ForAudioFrameClassification extends SpeechForAudioFrameClassification {
  static override readonly trunk = wav2vec2
  declare readonly wav2vec2: Wav2Vec2
}

/** A class for each frame by WavLM: transformers' WavLMForAudioFrameClassification. */
export class WavLMForAudioFrameClassification extends SpeechForAudioFrameClassification {
  static override readonly trunk = wavlm
  declare readonly wavlm: WavLM
}

/** A vector that tells speakers apart (Snyder et al. 2018) by wav2vec 2.0: transformers' Wav2Vec2ForXVector. */
export class Wav2Vec2ForXVector extends SpeechForXVector {
  static override readonly trunk = wav2vec2
  declare readonly wav2vec2: Wav2Vec2
}

/** A vector that tells speakers apart by WavLM: transformers' WavLMForXVector. */
export class WavLMForXVector extends SpeechForXVector {
  static override readonly trunk = wavlm
  declare readonly wavlm: WavLM
}
