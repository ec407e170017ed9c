import { ShapeError } from '../../../base/errors.js'
import { Linear, Module, MultiheadAttention } from '../../../nn/index.js'
import type { FactoryOptions } from '../../../nn/parameter.js'
import { cat, ops, scope, type Tensor } from '../../../tensor/index.js'

/** Masks of FrameFusion. Default: every state counts. */
export interface FrameMasks {
  /** bool [clips], true if the clip has a video. */
  video?: Tensor | null
  /** bool [clips, tokens], true for tokens, false for padding. */
  text?: Tensor | null
}

/**
 * One vector of a clip's video frames and text tokens: a projection of the frames, self-attention over frames and tokens, and the
 * mean over those that are not masked. `published` reproduces experiments 7 and 8: only the text is used, attention runs across
 * the clips of the batch, and masks are ignored.
 */
export class FrameFusion extends Module {
  video: Linear
  attention: MultiheadAttention

  constructor(
    videoSize: number,
    textSize: number,
    readonly heads: number,
    readonly published: boolean,
    factory: FactoryOptions = {},
  ) {
    super()
    this.video = new Linear(videoSize, textSize, { bias: false, ...factory })
    this.attention = new MultiheadAttention(textSize, heads, { batchFirst: true, ...factory })
  }

  /**
   * @param video [clips, frames, videoSize]
   * @param text [clips, tokens, textSize]
   * @returns [clips, textSize]; 0 if all states of a clip are masked
   */
  fused(video: Tensor, text: Tensor, masks: FrameMasks = {}): Tensor {
    if (video.ndim !== 3 || text.ndim !== 3 || video.size(0) !== text.size(0)) {
      throw new ShapeError(
        `${this.constructor.name}: expected video [clips, frames, size] and text [clips, tokens, size], got [${video.shape}] and [${text.shape}]. Reshape them.`,
        {},
      )
    }
    return scope(() => {
      if (this.published) {
        const across = text.transpose(0, 1)
        const { output } = this.attention.forward(across, across, across, { needWeights: false })
        return output.transpose(0, 1).mean([1])
      }
      const states = cat([this.video.forward(video), text], 1) // [clips, frames + tokens, textSize]
      const all = (like: Tensor) => ops.ones([like.size(0), like.size(1)], { device: like.device }).ne(0)
      const frames = masks.video ? masks.video.unsqueeze(1).logicalAnd(all(video)) : all(video)
      const there = cat([frames, masks.text ?? all(text)], 1)
      // Attention over no state is NaN: if all states of a clip are masked, attend to all of them and give them weight 0.
      const hidden = there.logicalNot().logicalAnd(there.any(1, true))
      const { output } = this.attention.forward(states, states, states, { keyPaddingMask: hidden, needWeights: false })
      const weights = there.to({ dtype: output.dtype }).unsqueeze(2)
      return output
        .mul(weights)
        .sum([1])
        .div(weights.sum([1]).clampMin(1))
    })
  }
}
