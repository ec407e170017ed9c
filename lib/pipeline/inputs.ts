import { type AudioClip, openClip } from '../audio/clip.js'
import { normalizeWav2Vec2 } from '../audio/normalize.js'
import { type Tensor, tensor } from '../tensor/index.js'
import type { Tokenizer } from '../text/tokenizer.js'

/** Return samples, float32 [1, samples] at 16 kHz, for wav2vec 2.0, WavLM and BEATs. */
export async function inputValuesOf(where: string, audio: AudioClip, normalizes: boolean): Promise<Tensor> {
  const { samples } = await openClip({ where }, audio)
  return (normalizes ? await normalizeWav2Vec2(samples) : samples).unsqueeze(0)
}

/** Encode a text as int64 [1, tokens], truncated to the `longest` tokens that the network supports. */
export async function inputIdsOf(tokenizer: Tokenizer, longest: number, text: string): Promise<Tensor> {
  const maxLength = Math.min(tokenizer.modelMaxLength ?? longest, longest)
  const { inputIds } = await tokenizer.encodeAsync(text, { truncation: true, maxLength })
  return tensor([inputIds.map(BigInt)], { dtype: 'int64' })
}

/** Answer one input, or each input of a list. */
export async function each<I, O>(input: I | readonly I[], answer: (one: I) => Promise<O>): Promise<O | O[]> {
  if (!Array.isArray(input)) return answer(input as I)
  const answers: O[] = []
  for (const one of input as readonly I[]) answers.push(await answer(one))
  return answers
}
