import { requireNumber, requireOneOf, requireOptions, requireWhole } from '../../../base/check.js'
import { ConfigError, ShapeError } from '../../../base/errors.js'
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

export interface FrameHeadOptions {
  /** [1024] */
  videoSize?: number
  /** [768] */
  textSize?: number
  /** [7] */
  labels?: number
  /** Of attention [4]. */
  heads?: number
  /**
   * 'published': as the code of experiments 7 and 8 computes. What the frames gave is overwritten by the text, and attention
   * runs across the utterances of the batch, so that an answer depends on what else is in it.
   */
  compat?: 'published'
}

/**
 * The head of experiments 7 and 8, over the class tokens of a clip's frames and the states of its text: a projection of the
 * frames, attention over all of them, the mean, a linear layer.
 */
export class FrameHead extends FrameFusion {
  linear: Linear

  constructor(options: FrameHeadOptions = {}) {
    requireOptions('FrameHead', options, ['videoSize', 'textSize', 'labels', 'heads', 'compat'])
    const { videoSize = 1024, textSize = 768, labels = 7, heads = 4, compat } = options
    if (compat !== undefined) requireOneOf('FrameHead', 'compat', compat, ['published'])
    super(videoSize, textSize, heads, compat === 'published')
    this.linear = new Linear(textSize, labels)
  }

  /**
   * @param video [clips, frames, videoSize]
   * @param text [clips, tokens, textSize]
   * @param textMask bool [clips, tokens], true for tokens; default all. Not looked at by 'published'
   * @returns [clips, labels]
   */
  override forward(video: Tensor, text: Tensor, textMask: Tensor | null = null): Tensor {
    return scope(() => this.linear.forward(this.fused(video, text, { text: textMask })))
  }
}

/**
 * The heads of experiments 9 and 10, over two utterances: what is felt in the first, and whether the second is its cause. Both
 * read [first video, first text, second video, second text] and have biases.
 */
export class PairHead extends Module {
  emotion: Linear
  cause: Linear

  /** @param size of all four vectors together [3072] */
  constructor({ size = 3072, labels = 7, ...factory }: { size?: number; labels?: number } & FactoryOptions = {}) {
    super()
    this.emotion = new Linear(size, labels, factory)
    this.cause = new Linear(size, 2, factory)
  }

  /** [pairs, size] → [pairs, labels], [pairs, 2] */
  override forward(vectors: Tensor): { emotion: Tensor; cause: Tensor } {
    return { emotion: this.emotion.forward(vectors), cause: this.cause.forward(vectors) }
  }
}

/** The sum of both cross-entropies, as experiments 9 and 10 train. */
export const pairLoss = (logits: { emotion: Tensor; cause: Tensor }, emotion: Tensor, cause: Tensor): Tensor =>
  scope(() => functional.crossEntropy(logits.emotion, emotion).add(functional.crossEntropy(logits.cause, cause)))

export interface PointerHeadOptions {
  /** [768] */
  size?: number
  /** [2] */
  layers?: number
  /** [12] */
  heads?: number
  /** The most utterances of a dialog [33]. */
  maxUtterances?: number
  /** [0.1] */
  dropout?: number
}

/** The rows that separate: in front of all, between parts, and behind all. */
const [CLS, SEP, BOS] = [0, 1, 2]

/**
 * The pointer of experiment 11 over frozen vectors: [CLS], video and text of each utterance, [SEP], the target's, [SEP], the
 * candidate's, [BOS], through a small BERT, and a number for each place. The highest says where the cause is: 2 (i + 1), the
 * place of utterance i's text, or 0, the candidate is no cause. It was reported as failed, and is here to be compared with.
 */
export class PointerHead extends Module {
  special: Embedding
  position: Embedding
  norm: LayerNorm
  layers: ModuleList<TransformerEncoderLayer>
  linear: Linear
  readonly config: Required<PointerHeadOptions>

  constructor(options: PointerHeadOptions = {}, factory: FactoryOptions = {}) {
    super()
    const where = 'PointerHead'
    requireOptions(where, options, ['size', 'layers', 'heads', 'maxUtterances', 'dropout'])
    const { size = 768, layers = 2, heads = 12, maxUtterances = 33, dropout = 0.1 } = options
    for (const [name, value] of Object.entries({ size, layers, heads, maxUtterances }))
      requireWhole(where, name, value, 1)
    requireNumber(where, 'dropout', dropout, { least: 0, below: 1 })
    if (size % heads !== 0)
      throw new ConfigError(`${where}: size ${size} is not a multiple of ${heads} heads`, { size, heads })
    this.config = { size, layers, heads, maxUtterances, dropout }
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
   * One dialog, of which several pairs are asked.
   * @param video [utterances, size]
   * @param text [utterances, size]
   * @param pairs places of target and candidate
   * @returns [pairs, 1 + 2 utterances + 7]: a number for each place of the sequence
   */
  override forward(
    video: Tensor,
    text: Tensor,
    pairs: readonly (readonly [target: number, candidate: number])[],
  ): Tensor {
    const count = video.size(0)
    const { maxUtterances } = this.config
    if (count > maxUtterances) {
      throw new ShapeError(`PointerHead: ${count} utterances, and it knows ${maxUtterances}`, { count })
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

/** What the pointer is to say of a pair: the place of the cause's text, or 0. */
export const pointerLabel = (candidate: number, isCause: boolean): number => (isCause ? 2 * (candidate + 1) : 0)
