import { type ChangesOf, settings, unchecked, type ValuesOf } from '../../../base/settings.js'
import { Dropout, Embedding, functional, LayerNorm, Linear, Module } from '../../../nn/index.js'
import { arange, scope, type Tensor } from '../../../tensor/index.js'
import { contextConfig, type EmotionContextConfig } from '../network/config.js'
import { DialogContext } from '../network/context.js'

const SETTINGS = settings({
  /** Size of an utterance's concatenated vectors. */
  size: { type: 'integer', min: 1, required: true },
  /** Number of emotions. */
  emotions: { type: 'integer', min: 1, required: true },
  /** Default 128. */
  hiddenSize: { type: 'integer', min: 1, default: 128 },
  context: { type: unchecked<EmotionContextConfig>() },
  /** Largest distance between utterances with an embedding of its own; larger ones share it. Default 10. */
  maxDistance: { type: 'integer', min: 1, default: 10 },
  /** Default 0.2. */
  dropout: { type: 'fraction', default: 0.2 },
})

/** Configuration of a {@link CauseScorer}. @interface */
export type CauseScorerConfig = ChangesOf<typeof SETTINGS.table>

export interface CauseInputs {
  /** [dialogs, utterances, size] */
  vectors: Tensor
  /** bool [dialogs, utterances] */
  mask: Tensor
  /** int64 [dialogs, utterances] */
  speakers: Tensor
  /** int64 [dialogs, utterances]: class index of the emotion; below 0 if it is unknown. */
  emotions: Tensor
}

/**
 * Scorer of pairs: the logit that one utterance causes the emotion of another, from both utterances in context, their emotions,
 * their distance, and whether they have the same speaker.
 */
export class CauseScorer extends Module {
  readonly config: ValuesOf<typeof SETTINGS.table> & { context: Required<EmotionContextConfig> }
  norm: LayerNorm
  entry: Linear
  emotion: Embedding
  context: DialogContext
  effect: Linear
  cause: Linear
  both: Linear
  distance: Embedding
  speaker: Embedding
  dropout: Dropout
  out: Linear

  constructor(config: CauseScorerConfig) {
    super()
    const where = 'CauseScorer'
    const values = SETTINGS.read(where, config)
    const { size, emotions, hiddenSize, maxDistance, dropout } = values
    const context = contextConfig(where, { layers: 1, ...values.context }, hiddenSize)
    this.config = { ...values, context }
    this.norm = new LayerNorm([size])
    this.entry = new Linear(size, hiddenSize)
    this.emotion = new Embedding(emotions, hiddenSize)
    this.context = new DialogContext(hiddenSize, context, dropout)
    this.effect = new Linear(hiddenSize, hiddenSize)
    this.cause = new Linear(hiddenSize, hiddenSize, { bias: false })
    this.both = new Linear(hiddenSize, hiddenSize, { bias: false })
    this.distance = new Embedding(2 * maxDistance + 1, hiddenSize)
    this.speaker = new Embedding(2, hiddenSize)
    this.dropout = new Dropout(dropout)
    this.out = new Linear(hiddenSize, 1)
  }

  /** Return logits [dialogs, effects, causes]. */
  override forward({ vectors, mask, speakers, emotions }: CauseInputs): Tensor {
    return scope(() => {
      const entered = this.entry.forward(this.dropout.forward(this.norm.forward(vectors)))
      const known = emotions.ge(0).unsqueeze(2).to({ dtype: entered.dtype })
      const felt = entered.add(this.emotion.forward(emotions.clampMin(0)).mul(known))
      const states = this.dropout.forward(this.context.forward(felt, mask, speakers)) // [dialogs, time, hidden]
      const places = arange(states.size(1), { dtype: 'int64', device: states.device })
      const { maxDistance } = this.config
      const away = places.unsqueeze(0).sub(places.unsqueeze(1)).clamp(-maxDistance, maxDistance).add(maxDistance)
      const same = speakers.unsqueeze(2).eq(speakers.unsqueeze(1)).to({ dtype: 'int64' })
      const pairs = this.effect
        .forward(states)
        .unsqueeze(2)
        .add(this.cause.forward(states).unsqueeze(1))
        .add(this.both.forward(states.unsqueeze(2).mul(states.unsqueeze(1))))
        .add(this.distance.forward(away).unsqueeze(0))
        .add(this.speaker.forward(same)) // [dialogs, time, time, hidden]
      return this.out.forward(this.dropout.forward(functional.gelu(pairs))).squeeze(3)
    })
  }
}
