import { ConfigError, ShapeError } from '../../../base/errors.js'
import { type ChangesOf, settings, type ValuesOf } from '../../../base/settings.js'
import {
  Embedding,
  functional,
  LayerNorm,
  Linear,
  Module,
  ModuleList,
  TransformerEncoderLayer,
} from '../../../nn/index.js'
import type { FactoryOptions } from '../../../nn/parameter.js'
import { arange, cat, ops, scope, type Tensor } from '../../../tensor/index.js'
import { FrameFusion } from '../network/frames.js'

const FRAMES = settings({
  /** Size of a frame's vector. Default 1024. */
  videoSize: { type: 'integer', min: 1, default: 1024 },
  /** Size of a token's vector. Default 768. */
  textSize: { type: 'integer', min: 1, default: 768 },
  /** Number of classes. Default 7. */
  labels: { type: 'integer', min: 1, default: 7 },
  /** Number of attention heads. Default 4. */
  heads: { type: 'integer', min: 1, default: 4 },
  /**
   * 'published': as the code of experiments 7 and 8. Only the text is used, and attention runs across the utterances of the
   * batch, so that an output depends on the other utterances.
   */
  compat: { type: ['published'] },
})

/** Options of a {@link FrameHead}. @interface */
export type FrameHeadOptions = ChangesOf<typeof FRAMES.table>

/**
 * Head of experiments 7 and 8, on the class tokens of video frames and the states of text tokens: a projection of the frames,
 * self-attention over all of them, the mean, and a linear layer.
 */
export class FrameHead extends FrameFusion {
  linear: Linear

  constructor(options: FrameHeadOptions = {}) {
    const { videoSize, textSize, labels, heads, compat } = FRAMES.read('FrameHead', options)
    super(videoSize, textSize, heads, compat === 'published')
    this.linear = new Linear(textSize, labels)
  }

  /**
   * @param video [clips, frames, videoSize]
   * @param text [clips, tokens, textSize]
   * @param textMask bool [clips, tokens], true for tokens; default all. Ignored with 'published'
   * @returns [clips, labels]
   */
  override forward(video: Tensor, text: Tensor, textMask: Tensor | null = null): Tensor {
    return scope(() => this.linear.forward(this.fused(video, text, { text: textMask })))
  }
}

/**
 * Heads of experiments 9 and 10, on two utterances: the emotion of the first, and whether the second is its cause. Both are linear
 * layers with bias on [first video, first text, second video, second text].
 */
export class PairHead extends Module {
  emotion: Linear
  cause: Linear

  /** @param size of the four vectors together, default 3072 */
  constructor({ size = 3072, labels = 7, ...factory }: { size?: number; labels?: number } & FactoryOptions = {}) {
    super()
    this.emotion = new Linear(size, labels, factory)
    this.cause = new Linear(size, 2, factory)
  }

  /** Compute logits: [pairs, size] → [pairs, labels], [pairs, 2]. */
  override forward(vectors: Tensor): { emotion: Tensor; cause: Tensor } {
    return { emotion: this.emotion.forward(vectors), cause: this.cause.forward(vectors) }
  }
}

/** Return the sum of both cross-entropies, as in experiments 9 and 10. */
export const pairLoss = (logits: { emotion: Tensor; cause: Tensor }, emotion: Tensor, cause: Tensor): Tensor =>
  scope(() => functional.crossEntropy(logits.emotion, emotion).add(functional.crossEntropy(logits.cause, cause)))

const POINTER = settings({
  /** Size of the vectors. Default 768. */
  size: { type: 'integer', min: 1, default: 768 },
  /** Number of layers. Default 2. */
  layers: { type: 'integer', min: 1, default: 2 },
  /** Number of attention heads. Default 12. */
  heads: { type: 'integer', min: 1, default: 12 },
  /** Maximum number of utterances in a dialog. Default 33. */
  maxUtterances: { type: 'integer', min: 1, default: 33 },
  /** Default 0.1. */
  dropout: { type: 'fraction', default: 0.1 },
})

/** Options of a {@link PointerHead}. @interface */
export type PointerHeadOptions = ChangesOf<typeof POINTER.table>

/** Rows of the special embeddings: before all parts, between parts, and after all parts. */
const [CLS, SEP, BOS] = [0, 1, 2]

/**
 * Pointer network of experiment 11, on frozen vectors. The sequence is [CLS], video and text of each utterance, [SEP], those of the
 * target, [SEP], those of the candidate, [BOS]. A small BERT computes a logit for each position. The highest one is the answer:
 * 2 (i + 1), the position of utterance i's text, is the cause; 0 means that the candidate is not a cause. The authors report that
 * it failed; it is here for comparison.
 */
export class PointerHead extends Module {
  special: Embedding
  position: Embedding
  norm: LayerNorm
  layers: ModuleList<TransformerEncoderLayer>
  linear: Linear
  readonly config: ValuesOf<typeof POINTER.table>

  constructor(options: PointerHeadOptions = {}, factory: FactoryOptions = {}) {
    super()
    const where = 'PointerHead'
    this.config = POINTER.read(where, options)
    const { size, layers, heads, maxUtterances, dropout } = this.config
    if (size % heads !== 0)
      throw new ConfigError(
        `${where}: size: expected a multiple of heads (${heads}), got ${size}. Change one of them.`,
        { size, heads },
      )
    this.special = new Embedding(3, size, factory)
    this.position = new Embedding(2 * maxUtterances + 8, size, factory)
    this.norm = new LayerNorm([size], { eps: 1e-12, ...factory })
    const make = () =>
      new TransformerEncoderLayer(size, heads, {
        ...{ dimFeedforward: 4 * size, dropout, activation: 'gelu', layerNormEps: 1e-12, batchFirst: true },
        ...factory,
      })
    this.layers = new ModuleList(Array.from({ length: layers }, make))
    this.linear = new Linear(size, 1, factory)
  }

  /**
   * Compute the logits of one dialog for several pairs.
   * @param video [utterances, size]
   * @param text [utterances, size]
   * @param pairs indices of target and candidate utterance
   * @returns [pairs, 1 + 2 utterances + 7]: a logit for each position of the sequence
   */
  override forward(
    video: Tensor,
    text: Tensor,
    pairs: readonly (readonly [target: number, candidate: number])[],
  ): Tensor {
    const count = video.size(0)
    const { maxUtterances } = this.config
    if (count > maxUtterances) {
      throw new ShapeError(
        `PointerHead: expected at most ${maxUtterances} utterances (maxUtterances), got ${count}. Split the dialog.`,
        { count },
      )
    }
    return scope(() => {
      const row = (id: number) => this.special.weight.narrow(0, id, 1)
      const both = ops.stack([video, text], 1).reshape([2 * count, -1])
      const one = (place: number) => both.narrow(0, 2 * place, 2)
      const sequences = pairs.map(([target, candidate]) =>
        cat([row(CLS), both, row(SEP), one(target), row(SEP), one(candidate), row(BOS)], 0),
      )
      const places = arange(2 * count + 8, { dtype: 'int64', device: video.device })
      let states = this.norm.forward(ops.stack(sequences).add(this.position.forward(places)))
      for (const layer of this.layers) states = layer.forward(states)
      return this.linear.forward(states).squeeze(2)
    })
  }
}

/** Return the target position for a pair: that of the cause's text, or 0. */
export const pointerLabel = (candidate: number, isCause: boolean): number => (isCause ? 2 * (candidate + 1) : 0)
