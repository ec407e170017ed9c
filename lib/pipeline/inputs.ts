import { type AudioClip, openClip } from '../audio/clip.js'
import { normalizeWav2Vec2 } from '../audio/normalize.js'
import type { Tensor } from '../tensor/index.js'
import type { TensorBatch } from '../text/batch.js'
import type { Tokenizer } from '../text/tokenizer.js'

/** Return samples, float32 [1, samples] at 16 kHz, for wav2vec 2.0, WavLM and BEATs. */
export async function inputValuesOf(where: string, audio: AudioClip, normalizes: boolean): Promise<Tensor> {
  const { samples } = await openClip({ where }, audio)
  return (normalizes ? await normalizeWav2Vec2(samples) : samples).unsqueeze(0)
}

/** Encode a text, truncated to the `longest` tokens that the network supports. */
export function encodedText(tokenizer: Tokenizer, longest: number, text: string): TensorBatch {
  const maxLength = Math.min(tokenizer.modelMaxLength ?? longest, longest)
  return tokenizer.encodeBatch([text], { returnTensors: true, truncation: true, maxLength })
}

/** Answer one input, or each input of a list. */
export async function each<I, O>(input: I | readonly I[], answer: (one: I) => Promise<O>): Promise<O | O[]> {
  if (!Array.isArray(input)) return answer(input as I)
  const answers: O[] = []
  for (const one of input as readonly I[]) answers.push(await answer(one))
  return answers
}
