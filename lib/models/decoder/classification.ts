import { ConfigError } from '../../base/errors.js'
import { opAsync } from '../../native/call.js'
import { Linear } from '../../nn/linear.js'
import { withActiveAdapters } from '../../nn/native-module.js'
import type { MakeOptions } from '../../nn/parameter.js'
import { noGrad, ops, scope, type Tensor } from '../../tensor/index.js'
import { classificationLoss, type LabelConfig, labelCount, withLabelNames } from '../labels.js'
import { networkClass } from '../network.js'
import { architectureOf, type DecoderLMConfig, native, published } from './config.js'
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

const forward = opAsync(decoderLayout.forward)
const WHERE = 'DecoderLMForSequenceClassification'

/**
 * A text classifier on a decoder of the LLaMA family: classes, multiple labels or a regression from the last token. It matches transformers'
 * LlamaForSequenceClassification and the classes of the same name of the other families.
 */
export class DecoderLMForSequenceClassification extends networkClass<
  DecoderLMForSequenceClassification,
  DecoderLMClassifierConfig,
  DecoderLMClassifierInputs,
  DecoderLMClassifierOutput
>({
  ...decoderLayout,
  ignored: [...decoderLayout.ignored, /^lm_head\./],
  // A tied output layer has no weights of its own, and the classifier does not use it.
  native: (config) => native({ ...config, tieWordEmbeddings: true }),
  saved: (config) => withLabelNames(WHERE, published(config)),
  savedAs: (config) => ({
    ...decoderLayout.savedAs(config),
    architecture: architectureOf(config).replace('ForCausalLM', 'ForSequenceClassification'),
  }),
  tied: () => [],
}) {
  readonly score: Linear

  constructor(config: DecoderLMClassifierConfig, options: MakeOptions = {}) {
    super(config, options)
    const { device, dtype } = options
    this.config.numLabels = labelCount(WHERE, this.config)
    this.score = new Linear(this.#width, this.config.numLabels, { bias: false, device, dtype })
    if (options.initialize !== false) this.initialize(['score.weight'])
  }

  get #width(): number {
    return this.config.hiddenSize as number
  }

  override initialize(names: string[]): this {
    const decoderNames = names.filter((name) => name !== 'score.weight')
    if (decoderNames.length > 0) super.initialize(decoderNames)
    if (decoderNames.length < names.length)
      noGrad(() => this.score.weight.normal_(0, this.config.initializerRange as number))
    return this
  }

  /**
   * Classify texts. The decoder runs on the executor. The prediction is made from the last token that is not `padTokenId`, with padding on
   * either side; with embeddings, from the last position.
   * @throws ConfigError for several texts without `padTokenId` in the configuration
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

  /** Return the states of the last tokens: [batch, time, hiddenSize] -> [batch, hiddenSize]. */
  #last(states: Tensor, inputIds: Tensor | null): Tensor {
    const [batch, time] = states.shape as [number, number]
    const { padTokenId } = this.config
    if (padTokenId == null && batch !== 1) {
      throw new ConfigError(
        `${WHERE}: expected a padTokenId in the configuration, to find the ends of ${batch} texts, got none.`,
        { batch },
      )
    }
    if (padTokenId == null || inputIds === null) return states.select(1, time - 1)
    const { device } = states
    const places = ops.arange(time, { dtype: 'int64', device })
    const last = inputIds.to({ device }).ne(padTokenId).to('int64').mul(places).argmax(-1)
    return ops.index(states, [ops.arange(batch, { dtype: 'int64', device }), last])
  }
}
