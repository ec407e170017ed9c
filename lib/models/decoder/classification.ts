import { ConfigError } from '../../base/errors.js'
import { opAsync } from '../../native/call.js'
import { Linear } from '../../nn/linear.js'
import { makeNative, NativeModule, withActiveAdapters } from '../../nn/native-module.js'
import { noGrad, ops, scope, type Tensor } from '../../tensor/index.js'
import { configOf } from '../config.js'
import { type HeadFactory, seeded } from '../head.js'
import { classificationLoss, type LabelConfig, labelCount, withLabelNames } from '../labels.js'
import {
  type LoadNetworkOptions,
  loadNetwork,
  type NetworkKind,
  type SaveNetworkOptions,
  saveNetwork,
} from '../pretrained.js'
import { architectureOf, completed, type DecoderLMConfig, published, sizes } from './config.js'
import { type DecoderLMInputs, type DecoderLMOutput, decoderLayout } from './decoder-lm.js'

export interface DecoderLMClassifierConfig extends DecoderLMConfig, LabelConfig {}

export interface DecoderLMClassifierInputs
  extends Pick<
    DecoderLMInputs,
    'inputIds' | 'attentionMask' | 'positionIds' | 'inputsEmbeds' | 'outputHiddenStates' | 'outputAttentions'
  > {
  /** [batch], or [batch, numLabels] for `problemType`. */
  labels?: Tensor | null
}

export interface DecoderLMClassifierOutput {
  /** Mean over the batch; null without labels. */
  loss: Tensor | null
  /** [batch, numLabels] */
  logits: Tensor
  hiddenStates: Tensor[]
  attentions: Tensor[]
}

const forward = opAsync('voxtorch::decoder_lm_forward')
const WHERE = 'DecoderLMForSequenceClassification'

const layout: NetworkKind = { ...decoderLayout, ignored: [...decoderLayout.ignored, /^lm_head\./] }

/**
 * One class, several or a quantity for a text, read from its last token by a decoder of the LLaMA family: transformers'
 * LlamaForSequenceClassification, MistralForSequenceClassification and Qwen2ForSequenceClassification.
 */
export class DecoderLMForSequenceClassification extends NativeModule {
  readonly config: DecoderLMClassifierConfig
  readonly score: Linear

  constructor(config: DecoderLMClassifierConfig, options: HeadFactory = {}) {
    const whole: DecoderLMClassifierConfig = completed(config)
    const labels = labelCount(WHERE, whole)
    // A head that is tied to the embeddings has no weights of its own.
    super(makeNative('decoder_lm', { ...published(whole), tieWordEmbeddings: true }, options))
    this.config = whole
    const { device, dtype } = options
    this.score = new Linear(this.#width, labels, { bias: false, device, dtype })
    if (options.initialize !== false) this.initialize(['score.weight'])
  }

  /** Random weights. `config` is a configuration or the name of a published size. */
  static fromConfig(
    config: DecoderLMClassifierConfig | string,
    options: HeadFactory = {},
  ): DecoderLMForSequenceClassification {
    const complete = configOf(WHERE, config, sizes)
    return seeded(options, (factory) => new DecoderLMForSequenceClassification(complete, factory))
  }

  /**
   * The weights of a directory or hub repository in transformers' layout. A language model needs `allowMissing`, which
   * gives the head fresh values.
   * @throws CheckpointError that lists missing, unexpected and mis-shaped names
   */
  static fromPretrained(from: string, options: LoadNetworkOptions = {}): Promise<DecoderLMForSequenceClassification> {
    const build = (config: DecoderLMClassifierConfig, factory: HeadFactory) =>
      new DecoderLMForSequenceClassification(config, factory)
    return loadNetwork(layout, from, options, build)
  }

  get #width(): number {
    return this.config.hiddenSize ?? 4096
  }

  override initialize(names: string[]): this {
    const own = names.filter((name) => name !== 'score.weight')
    if (own.length > 0) super.initialize(own)
    if (own.length < names.length) noGrad(() => this.score.weight.normal_(0, this.config.initializerRange ?? 0.02))
    return this
  }

  /**
   * The decoder runs on the executor. A text is read from its last token that is not `padTokenId`, padded on either side;
   * embeddings from the last one.
   * @throws ConfigError for several texts where the configuration has no `padTokenId`
   */
  override forward(inputs: DecoderLMClassifierInputs): Promise<DecoderLMClassifierOutput> {
    return scope(async () => {
      const { labels = null, ...rest } = inputs
      const output = (await forward(withActiveAdapters(this), { ...rest, logitsToKeep: 1 })) as DecoderLMOutput
      const { lastHiddenState, hiddenStates, attentions } = output
      const logits = this.score.forward(this.#last(lastHiddenState, rest.inputIds ?? null))
      return { loss: labels ? classificationLoss(this.config, logits, labels) : null, logits, hiddenStates, attentions }
    })
  }

  /** [batch, time, hiddenSize] -> [batch, hiddenSize] */
  #last(states: Tensor, inputIds: Tensor | null): Tensor {
    const [batch, time] = states.shape as [number, number]
    const { padTokenId } = this.config
    if (padTokenId == null && batch !== 1) {
      throw new ConfigError(`${WHERE}: the configuration needs a padTokenId to tell where ${batch} texts end`, {
        batch,
      })
    }
    if (padTokenId == null || inputIds === null) return states.select(1, time - 1)
    const { device } = states
    const places = ops.arange(time, { dtype: 'int64', device })
    const last = inputIds.to({ device }).ne(padTokenId).to('int64').mul(places).argmax(-1)
    return ops.index(states, [ops.arange(batch, { dtype: 'int64', device }), last])
  }

  /** Writes config.json and model.safetensors, which transformers reads. */
  save(directory: string, options: SaveNetworkOptions = {}): Promise<void> {
    const architecture = architectureOf(this.config).replace('ForCausalLM', 'ForSequenceClassification')
    const kind = { ...layout, modelType: this.config.modelType as string, architecture }
    const config = withLabelNames(published(this.config), this.score.outFeatures)
    return saveNetwork(kind, directory, this, config, options)
  }
}
