import { normalizeWav2Vec2 } from '../audio/normalize.js'
import { type AudioClip, samplesOf } from '../models/beats/audio.js'
import type { RobertaConfig } from '../models/encoders/roberta.js'
import { type Tensor, tensor } from '../tensor/index.js'
import type { TensorBatch } from '../text/batch.js'
import type { Tokenizer } from '../text/tokenizer.js'

/** A path, the bytes of a file, what `readAudio` gave, or samples [n] at 16 kHz. Channels are averaged. */
export type PipelineAudio = AudioClip | Float32Array

/** Samples of a Float32Array as a tensor of the current scope. */
export const clipOf = (audio: PipelineAudio): AudioClip => (audio instanceof Float32Array ? tensor(audio) : audio)

/** float32 [1, samples] at 16 kHz for wav2vec 2.0, WavLM and BEATs. */
export async function inputValuesOf(where: string, audio: PipelineAudio, normalizes: boolean): Promise<Tensor> {
  const samples = await samplesOf(where, clipOf(audio))
  return (normalizes ? await normalizeWav2Vec2(samples) : samples).unsqueeze(0)
}

/** A text for RoBERTa, cut to what it reads. */
export function encodedText(tokenizer: Tokenizer, config: RobertaConfig, text: string): TensorBatch {
  // Positions are counted from behind the padding's.
  const room = (config.maxPositionEmbeddings ?? 512) - (config.padTokenId ?? 1) - 1
  const maxLength = Math.min(tokenizer.modelMaxLength ?? room, room)
  return tokenizer.encodeBatch([text], { returnTensors: true, truncation: true, maxLength })
}

/** One answer for one input, a list for a list. */
export async function each<I, O>(input: I | readonly I[], answer: (one: I) => Promise<O>): Promise<O | O[]> {
  if (!Array.isArray(input)) return answer(input as I)
  const answers: O[] = []
  for (const one of input as readonly I[]) answers.push(await answer(one))
  return answers
}
