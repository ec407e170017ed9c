import type { GenerateInputs } from '../../generation/generate.js'
import type { KvCache } from '../../generation/kv-cache.js'
import type { Tensor } from '../../tensor/index.js'

export interface MoonshineEncoderInputs {
  /** Samples [batch, time] at 16 kHz, at least 895. */
  inputValues: Tensor
  /**
   * [batch, time]: 1 for audio, 0 for padding after it. The attention ignores frames of padding. The first convolutions and their norm see
   * padding, as in transformers, so a padded clip differs from the clip alone.
   */
  attentionMask?: Tensor | null
  outputHiddenStates?: boolean
  outputAttentions?: boolean
}

export interface MoonshineEncoderOutput {
  /** [batch, frames, hiddenSize], one frame per 384 samples; undefined at padding. */
  lastHiddenState: Tensor
  /** bool [batch, frames], true for audio; null without a mask. */
  attentionMask: Tensor | null
  /** Input of each layer and the normalized output of the last; empty without `outputHiddenStates`. */
  hiddenStates: Tensor[]
  /** Per layer [batch, heads, frames, frames]; empty without `outputAttentions`. */
  attentions: Tensor[]
}

export interface MoonshineInputs {
  /** See {@link MoonshineEncoderInputs}. */
  inputValues?: Tensor | null
  attentionMask?: Tensor | null
  /** The result of `encode`, instead of `inputValues`: [batch, frames, hiddenSize] and bool [batch, frames]. */
  encoderHiddenStates?: Tensor | null
  encoderAttentionMask?: Tensor | null
  /** int64 [batch, time]. Default: derived from `labels`. */
  decoderInputIds?: Tensor | null
  /** [batch, time], with a cache [batch, cache.length + time]: 1 for tokens, 0 for padding. */
  decoderAttentionMask?: Tensor | null
  /** [batch, time] or [1, time], int64. Default: counted from the first column or the cache, padding included, as in transformers. */
  decoderPositionIds?: Tensor | null
  /** int64 [batch, time]: the target token at each position, -100 for positions that do not contribute to the loss. */
  labels?: Tensor | null
  /** KV cache; this pass appends its tokens. With a cache, no gradient is recorded. */
  cache?: KvCache | null
  /** Keys and values of the audio: an empty cache is filled, a filled one replaces the audio. */
  encoderCache?: KvCache | null
  /** Number of last tokens to compute logits for; 0 for all. Default: all without labels, none with labels. */
  logitsToKeep?: number | null
  outputHiddenStates?: boolean
  outputAttentions?: boolean
}

export interface MoonshineOutput {
  /** Mean cross-entropy over the labels, float32 (float64 for float64); null without labels. */
  loss: Tensor | null
  /** [batch, kept, vocabSize]; null without logits. */
  logits: Tensor | null
  /** [batch, time, hiddenSize], after the last norm. */
  lastHiddenState: Tensor
  /** [batch, frames, hiddenSize]; null with a filled `encoderCache`. */
  encoderLastHiddenState: Tensor | null
  decoderHiddenStates: Tensor[]
  decoderAttentions: Tensor[]
  /** Per layer [batch, heads, time, frames]. */
  crossAttentions: Tensor[]
  encoderHiddenStates: Tensor[]
  encoderAttentions: Tensor[]
}

export interface MoonshineGenerateInputs extends GenerateInputs {
  /** Samples [batch, time] at 16 kHz, instead of `encoderHiddenStates`. */
  inputValues?: Tensor | null
  /** [batch, time], the mask of `inputValues`; `attentionMask` is that of `inputIds`. */
  inputValuesMask?: Tensor | null
}
