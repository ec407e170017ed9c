import { requireForm } from '../../../base/form.js'
import type { SalmonnSample } from './dataset.js'

/** Mono samples at 16 kHz, -1 … 1. */
export type SalmonnClip = Float32Array

/** A prompt of SALMONN: text with one `<SpeechHere>` for each clip, in order. */
export interface SalmonnPrompt {
  text: string
  clips: SalmonnClip[]
}

/** Batch of {@link salmonnCollate} for `Salmonn.forward`: B prompts and, for training, B answers. */
export interface SalmonnBatch {
  prompts: SalmonnPrompt[]
  targets?: string[]
}

/** Collate samples of a dataset into a batch of the model. */
export function salmonnCollate(samples: readonly SalmonnSample[]): SalmonnBatch {
  requireForm('salmonnCollate', 'samples', samples, [{ prompt: 'object', target: 'string' }])
  return { prompts: samples.map(({ prompt }) => prompt), targets: samples.map(({ target }) => target) }
}
