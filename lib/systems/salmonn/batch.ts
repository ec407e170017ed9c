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
