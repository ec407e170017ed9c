import { type AudioClip, openClip } from '../audio/clip.js'
import { normalizeWav2Vec2 } from '../audio/normalize.js'
import { type Tensor, tensor } from '../tensor/index.js'
import type { Tokenizer } from '../text/tokenizer.js'

/** float32 [1, samples] at 16 kHz for wav2vec 2.0, WavLM and BEATs. */
export async function inputValuesOf(where: string, audio: AudioClip, normalizes: boolean): Promise<Tensor> {
  const { samples } = await openClip({ where }, audio)
  return (normalizes ? await normalizeWav2Vec2(samples) : samples).unsqueeze(0)
}

/** int64 [1, tokens] of a text for a network that reads texts of `room` tokens, cut to that. */
export async function inputIdsOf(tokenizer: Tokenizer, room: number, text: string): Promise<Tensor> {
  const maxLength = Math.min(tokenizer.modelMaxLength ?? room, room)
  const { inputIds } = await tokenizer.encodeAsync(text, { truncation: true, maxLength })
  return tensor([inputIds.map(BigInt)], { dtype: 'int64' })
}

/** One answer for one input, a list for a list. */
export async function each<I, O>(input: I | readonly I[], answer: (one: I) => Promise<O>): Promise<O | O[]> {
  if (!Array.isArray(input)) return answer(input as I)
  const answers: O[] = []
  for (const one of input as readonly I[]) answers.push(await answer(one))
  return answers
}
