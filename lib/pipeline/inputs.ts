import { type AudioClip, openClip } from '../audio/clip.js'
import { Emotion2Vec } from '../models/emotion2vec/emotion2vec.js'
import type {
  SpeechEncoderConfig,
  SpeechEncoderInputs,
  SpeechFeatureInputs,
} from '../models/encoders/speech-encoder.js'
import { speechInputsOf } from '../models/encoders/speech-inputs.js'
import { type Tensor, tensor } from '../tensor/index.js'
import type { Tokenizer } from '../text/tokenizer.js'

/** Return samples, float32 [1, samples] at 16 kHz, for BEATs and Whisper. */
export const inputValuesOf = async (where: string, audio: AudioClip): Promise<Tensor> =>
  (await openClip({ where }, audio)).samples.unsqueeze(0)

/** Compute the input of wav2vec 2.0 or a relative on its device. */
export async function clipInputsOf(
  where: string,
  model: Emotion2Vec | { config: SpeechEncoderConfig; parameters(): Tensor[] },
  audio: AudioClip,
  normalizes: boolean,
): Promise<SpeechEncoderInputs & SpeechFeatureInputs> {
  const { samples } = await openClip({ where }, audio)
  const device = model.parameters()[0]?.device ?? 'cpu'
  if (model instanceof Emotion2Vec) {
    const normalize = normalizes && model.config.normalize === true
    return model.prepare([samples.to({ device })], { normalize }) as Promise<never>
  }
  // Of the two, the one that the network reads.
  return speechInputsOf(model.config, samples.to({ device }), normalizes) as Promise<never>
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
