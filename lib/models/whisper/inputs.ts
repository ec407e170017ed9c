import type { GenerateInputs } from '../../generation/generate.js'
import type { KvCache } from '../../generation/kv-cache.js'
import type { Tensor } from '../../tensor/index.js'

export interface WhisperEncoderInputs {
  /** The log-mel spectrogram [batch, numMelBins, steps] of `logMelSpectrogram`, at most 2 · maxSourcePositions steps. */
  inputFeatures: Tensor
  /**
   * [batch, steps]: 1 for audio, 0 for padding behind it. A clip's answer is then that of its own steps, whatever else is
   * in the batch; without a mask all frames are encoded, as in transformers, which takes none.
   */
  attentionMask?: Tensor | null
  outputHiddenStates?: boolean
  outputAttentions?: boolean
}

export interface WhisperEncoderOutput {
  /** [batch, frames, dModel], a frame for two steps; what stands at padding means nothing. */
  lastHiddenState: Tensor
  /** bool [batch, frames]: what is audio; null where all is. */
  attentionMask: Tensor | null
  /** What the first layer reads and the output of each, the last one after the norm; empty unless asked for. */
  hiddenStates: Tensor[]
  /** Per layer [batch, heads, frames, frames]; empty unless asked for. */
  attentions: Tensor[]
}

export interface WhisperInputs {
  /** See {@link WhisperEncoderInputs}. */
  inputFeatures?: Tensor | null
  attentionMask?: Tensor | null
  /** What `encode` gave, in place of `inputFeatures`: [batch, frames, dModel] and bool [batch, frames]. */
  encoderHiddenStates?: Tensor | null
  encoderAttentionMask?: Tensor | null
  /** int64 [batch, time]; with `labels` made from them where they are left out. */
  decoderInputIds?: Tensor | null
  /** [batch, time], with a cache [batch, cache.length + time]: 1 for real tokens, 0 for padding, on either side. */
  decoderAttentionMask?: Tensor | null
  /** [batch, time] or [1, time], int64; counted over the real tokens by default. */
  decoderPositionIds?: Tensor | null
  /** int64 [batch, time]: what is to be written at each place, -100 for what is not to be learned. */
  labels?: Tensor | null
  /** The tokens that were read before; this pass adds its own. Nothing is recorded for backward then. */
  cache?: KvCache | null
  /** The keys and values of the audio: an empty one is filled, a filled one stands in place of the audio. */
  encoderCache?: KvCache | null
  /** Logits of how many tokens, from the last; 0 for all. Default all without labels, and none with labels. */
  logitsToKeep?: number | null
  outputHiddenStates?: boolean
  outputAttentions?: boolean
}

export interface WhisperOutput {
  /** Mean cross-entropy over the labels, float32 (float64 for float64); null without labels. */
  loss: Tensor | null
  /** [batch, kept, vocabSize]; null where none were asked for. */
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
  /** See {@link WhisperEncoderInputs}; in place of `encoderHiddenStates`. */
  inputFeatures?: Tensor | null
  /** [batch, steps], of `inputFeatures`; `attentionMask` is that of `inputIds`. */
  featuresMask?: Tensor | null
}
