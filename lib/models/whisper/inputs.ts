import type { GenerateInputs } from '../../generation/generate.js'
import type { KvCache } from '../../generation/kv-cache.js'
import type { Tensor } from '../../tensor/index.js'

export interface WhisperEncoderInputs {
  /** The log-mel spectrogram [batch, numMelBins, steps] of `logMelSpectrogram`, at most 2 · maxSourcePositions steps. */
  inputFeatures: Tensor
  /**
   * [batch, steps]: 1 for audio, 0 for padding after it. The result of a clip then depends only on its own steps. Without a mask, all frames
   * are encoded, as in transformers, which does not take a mask.
   */
  attentionMask?: Tensor | null
  outputHiddenStates?: boolean
  outputAttentions?: boolean
}

export interface WhisperEncoderOutput {
  /** [batch, frames, dModel], one frame per two steps; undefined at padding. */
  lastHiddenState: Tensor
  /** bool [batch, frames], true for audio; null without padding. */
  attentionMask: Tensor | null
  /** Input of the first layer and output of each layer, the last one after the norm; empty without `outputHiddenStates`. */
  hiddenStates: Tensor[]
  /** Per layer [batch, heads, frames, frames]; empty without `outputAttentions`. */
  attentions: Tensor[]
}

export interface WhisperInputs {
  /** See {@link WhisperEncoderInputs}. */
  inputFeatures?: Tensor | null
  attentionMask?: Tensor | null
  /** The result of `encode`, instead of `inputFeatures`: [batch, frames, dModel] and bool [batch, frames]. */
  encoderHiddenStates?: Tensor | null
  encoderAttentionMask?: Tensor | null
  /** int64 [batch, time]. Default: derived from `labels`. */
  decoderInputIds?: Tensor | null
  /** [batch, time], with a cache [batch, cache.length + time]: 1 for tokens, 0 for padding, on either side. */
  decoderAttentionMask?: Tensor | null
  /** [batch, time] or [1, time], int64. Default: counted over the tokens without padding. */
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

export interface WhisperOutput {
  /** Mean cross-entropy over the labels, float32 (float64 for float64); null without labels. */
  loss: Tensor | null
  /** [batch, kept, vocabSize]; null without logits. */
  logits: Tensor | null
  /** [batch, time, dModel], after the last norm. */
  lastHiddenState: Tensor
  /** [batch, frames, dModel]; null with a filled `encoderCache`. */
  encoderLastHiddenState: Tensor | null
  decoderHiddenStates: Tensor[]
  decoderAttentions: Tensor[]
  /** Per layer [batch, heads, time, frames]. */
  crossAttentions: Tensor[]
  encoderHiddenStates: Tensor[]
  encoderAttentions: Tensor[]
}

export interface WhisperGenerateInputs extends GenerateInputs {
  /** See {@link WhisperEncoderInputs}; instead of `encoderHiddenStates`. */
  inputFeatures?: Tensor | null
  /** [batch, steps], the mask of `inputFeatures`; `attentionMask` is that of `inputIds`. */
  featuresMask?: Tensor | null
}
