import type { Tensor } from '../../../tensor/index.js'

/**
 * A clip: a waveform at 16 kHz, float [samples] with an amplitude of about 1; an object that reads one on demand; or null, without
 * speech.
 */
export type SpectraAudio = Tensor | { read(): Promise<Tensor> } | null

/** A training example of any of SPECTRA's tasks: one turn. */
export interface SpectraSample {
  readonly audio: SpectraAudio
  /** RoBERTa's token ids, from `<s>` to `</s>`, those of previous turns first. */
  readonly inputIds: readonly number[]
  /** For each token 0 (previous turn) or 1 (current turn); left out for a task without turns. */
  readonly turnIds?: readonly number[]
  /** Clip of the previous turn; null without one; left out for a task that uses only the current turn. */
  readonly historyAudio?: SpectraAudio
  /** A number, or a class index. */
  readonly label: number
  /** File and record, for messages. */
  readonly source: string
}
