import type { Tensor } from '../../../tensor/index.js'

/**
 * A clip: a waveform of 16 kHz, float [samples] with an amplitude of about 1; something that reads one when it is needed;
 * or null, where nobody speaks.
 */
export type SpectraAudio = Tensor | { read(): Promise<Tensor> } | null

/** One turn to learn from, of any of SPECTRA's tasks. */
export interface SpectraSample {
  readonly audio: SpectraAudio
  /** RoBERTa's token numbers, from `<s>` to `</s>`, those of earlier turns in front. */
  readonly inputIds: readonly number[]
  /** For each token 0 (earlier turn) or 1 (current turn); left out where the task knows no turns. */
  readonly turnIds?: readonly number[]
  /** The clip of the turn before; null where there was none; left out where the task hears only the current turn. */
  readonly historyAudio?: SpectraAudio
  /** A number, or a class number. */
  readonly label: number
  /** Where it comes from, for messages: file and record. */
  readonly source: string
}
