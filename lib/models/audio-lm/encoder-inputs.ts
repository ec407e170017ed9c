import { arange, type Tensor, tensor } from '../../tensor/index.js'

export interface SpeechFeatures {
  /** Features [batch, ...] of a floating-point dtype. */
  inputFeatures: Tensor
  /** [batch, steps]: 1 for audio and 0 for padding after it. Default: all is audio. */
  attentionMask?: Tensor | null
  outputHiddenStates?: boolean
}

export interface SpeechStates {
  /** [batch, frames, width]; 0 (GLM-ASR: undefined values) where the mask is false. */
  lastHiddenState: Tensor
  /** bool [batch, frames], true for audio; null without padding. */
  attentionMask: Tensor | null
  /** Input of the first layer and output of each layer; empty without `outputHiddenStates`. */
  hiddenStates: Tensor[]
}

/** Return the mask of rows that begin with so many steps of audio, bool [rows, steps] on the CPU; null for rows without padding. */
export function stepMask(lengths: readonly number[] | null, steps: number): Tensor | null {
  if (lengths === null || lengths.every((length) => length >= steps)) return null
  return arange(steps)
    .unsqueeze(0)
    .lt(tensor([...lengths], { dtype: 'int64' }).unsqueeze(1))
}
