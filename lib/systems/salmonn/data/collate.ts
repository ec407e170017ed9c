import { requireForm } from '../../../base/form.js'
import type { SalmonnSample } from './dataset.js'

/** Samples of 16 kHz mono, -1 … 1. */
export type SalmonnClip = Float32Array

/** What SALMONN is asked: text with `<SpeechHere>` once for each clip, in order. */
export interface SalmonnPrompt {
  text: string
  clips: SalmonnClip[]
}

/** What the collator gives and `Salmonn.forward` takes: B prompts and, to learn from, B answers. */
export interface SalmonnBatch {
  prompts: SalmonnPrompt[]
  targets?: string[]
}

/** Samples of a dataset as the model takes them. */
export function salmonnCollate(samples: readonly SalmonnSample[]): SalmonnBatch {
  requireForm('salmonnCollate', 'samples', samples, [{ prompt: 'object', target: 'string' }])
  return { prompts: samples.map(({ prompt }) => prompt), targets: samples.map(({ target }) => target) }
}
