import { Dropout } from '../../nn/dropout.js'
import { Linear } from '../../nn/linear.js'
import { crossEntropy } from '../../nn/losses.js'
import { Module } from '../../nn/module.js'
import type { MakeOptions } from '../../nn/parameter.js'
import { scope, type Tensor } from '../../tensor/index.js'
import { classificationLoss, type LabelConfig, labelCount, withLabelNames } from '../labels.js'
import { headClass } from '../network.js'
import { Roberta, type RobertaConfig, type RobertaInputs, robertaKeys, robertaSizes } from './roberta.js'

export interface RobertaClassifierConfig extends RobertaConfig, LabelConfig {
  /** Default `hiddenDropoutProb`. */
  classifierDropout?: number | null
}

export interface RobertaClassifierInputs extends RobertaInputs {
  /** For texts [batch], or [batch, numLabels] with `problemType`; for tokens int64 [batch, time], -100 is ignored. */
  labels?: Tensor | null
}

export interface RobertaClassifierOutput {
  /** Mean over the batch; null without `labels`. */
  loss: Tensor | null
  /** [batch, numLabels]; for tokens [batch, time, numLabels]. */
  logits: Tensor
  hiddenStates: Tensor[]
  attentions: Tensor[]
}

/** Static members of a class of heads. */
interface ClassifierClass {
  readonly architecture: string
  /** Pattern of the names of the other head. */
  readonly foreign: RegExp
}

const ClassifierBase = headClass<RobertaClassifierConfig, ClassifierClass>(
  ({ architecture, foreign }) => ({
    kind: 'roberta',
    modelType: 'roberta',
    architecture,
    prefix: '',
    ignored: [/^lm_head\./, /^(roberta\.)?pooler\./, /(^|\.)position_ids$/, foreign],
    rename: (name) => (/^(embeddings|encoder)\./.test(name) ? `roberta.${name}` : name),
    sizes: robertaSizes,
    keys: robertaKeys,
    saved: (config) => withLabelNames(architecture, config),
  }),
  () => ({
    field: 'roberta',
    make: (config, options) => new Roberta({ ...config, addPoolingLayer: false }, options),
  }),
)

/** Base class of classification heads over RoBERTa. */
abstract class RobertaClassifier extends ClassifierBase {
  static readonly architecture: string = ''
  static readonly foreign: RegExp = /^$/
  declare readonly roberta: Roberta
  protected readonly labels: number

  constructor(config: RobertaClassifierConfig, options: MakeOptions = {}) {
    super(config, options)
    this.labels = labelCount(new.target.architecture, this.config)
    this.config.numLabels = this.labels
  }

  protected get dropoutProbability(): number {
    return this.config.classifierDropout ?? (this.config.hiddenDropoutProb as number)
  }
}

/** Head that reads the state of the first token. */
class RobertaClassificationHead extends Module {
  readonly dense: Linear
  readonly dropout: Dropout
  readonly out_proj: Linear

  constructor(dim: number, labels: number, dropout: number, options: MakeOptions) {
    super()
    const { device, dtype } = options
    this.dense = new Linear(dim, dim, { device, dtype })
    this.dropout = new Dropout(dropout)
    this.out_proj = new Linear(dim, labels, { device, dtype })
  }

  /** Compute logits: [batch, time, dim] -> [batch, labels]. */
  override forward(states: Tensor): Tensor {
    const first = this.dropout.forward(states.select(1, 0))
    return this.out_proj.forward(this.dropout.forward(this.dense.forward(first).tanh()))
  }
}

/** Text classifier (one class, several classes or a quantity) with RoBERTa: transformers' RobertaForSequenceClassification. */
export class RobertaForSequenceClassification extends RobertaClassifier {
  static override readonly architecture = 'RobertaForSequenceClassification'
  static override readonly foreign = /^classifier\.(weight|bias)$/
  readonly classifier: RobertaClassificationHead

  constructor(config: RobertaClassifierConfig, options: MakeOptions = {}) {
    super(config, options)
    const { hiddenSize } = this.config
    this.classifier = new RobertaClassificationHead(hiddenSize as number, this.labels, this.dropoutProbability, options)
    this.begin(options)
  }

  /** Compute the logits, and with `labels` the loss by `problemType`. RoBERTa runs on the executor. */
  override forward(inputs: RobertaClassifierInputs): Promise<RobertaClassifierOutput> {
    return scope(async () => {
      const { labels = null, ...rest } = inputs
      const { lastHiddenState, hiddenStates, attentions } = await this.roberta.forward(rest)
      const logits = this.classifier.forward(lastHiddenState)
      return { loss: labels ? classificationLoss(this.config, logits, labels) : null, logits, hiddenStates, attentions }
    })
  }
}

/** Token classifier, such as for named entities, with RoBERTa: transformers' RobertaForTokenClassification. */
export class RobertaForTokenClassification extends RobertaClassifier {
  static override readonly architecture = 'RobertaForTokenClassification'
  static override readonly foreign = /^classifier\.(dense|out_proj)\./
  readonly dropout: Dropout
  readonly classifier: Linear

  constructor(config: RobertaClassifierConfig, options: MakeOptions = {}) {
    super(config, options)
    const { device, dtype } = options
    this.dropout = new Dropout(this.dropoutProbability)
    this.classifier = new Linear(this.config.hiddenSize as number, this.labels, { device, dtype })
    this.begin(options)
  }

  /** Compute the logits, and with `labels` the mean cross-entropy. RoBERTa runs on the executor. */
  override forward(inputs: RobertaClassifierInputs): Promise<RobertaClassifierOutput> {
    return scope(async () => {
      const { labels = null, ...rest } = inputs
      const { lastHiddenState, hiddenStates, attentions } = await this.roberta.forward(rest)
      const logits = this.classifier.forward(this.dropout.forward(lastHiddenState))
      const loss = labels ? crossEntropy(logits.flatten(0, -2), labels.flatten().to('int64')) : null
      return { loss, logits, hiddenStates, attentions }
    })
  }
}
