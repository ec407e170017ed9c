import { openClip, SPEECH_RATE } from '../../../audio/clip.js'
import { misuse } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { LEAST_HEARD } from '../../../kit/hearing/encode.js'
import { Tensor } from '../../../tensor/index.js'

/** What SALMONN hears, in Hz. */
export const SALMONN_RATE = SPEECH_RATE
/** The fewest samples of which BEATs makes a patch. */
export const SALMONN_LEAST_SAMPLES = LEAST_HEARD

/**
 * A sound: samples of 16 kHz mono from -1 to 1, as a Float32Array or a float32 tensor [samples]; or what `readAudio`
 * gives, at any rate: channels [channels, samples] are averaged.
 */
export type SalmonnSound = Float32Array | Tensor | { samples: Tensor | Float32Array; sampleRate: number }

/** Whether a clip is what `encodeAudio` made of one, [tokens, hiddenSize]. */
export const isEncoded = (clip: SalmonnSound): clip is Tensor => clip instanceof Tensor && clip.ndim === 2

/**
 * Samples of 16 kHz mono, float32 [samples].
 * @param name which clip it is, for messages: `clips[2]`
 * @throws ConfigError for what is no sound, is empty, or holds NaN or infinities
 */
export async function salmonnSamples(clip: SalmonnSound, name: string): Promise<Tensor> {
  if (clip instanceof Tensor && (clip.ndim !== 1 || clip.dtype !== 'float32')) {
    throw wrongTensor(name, 'float32 [samples] of 16 kHz', clip)
  }
  if (!(clip instanceof Tensor || clip instanceof Float32Array || clip?.samples)) {
    throw misuse('Salmonn', name, 'a Float32Array or a tensor of 16 kHz, or what readAudio gives', clip)
  }
  const place = { where: 'Salmonn', argument: name, subject: `Salmonn: ${name}`, Fault: ConfigError }
  return (await openClip(place, clip)).samples.detach()
}

/** Says which tensor a clip should have been, and which it is. */
export const wrongTensor = (name: string, expected: string, { dtype, shape }: Tensor): ConfigError =>
  new ConfigError(`Salmonn: ${name} must be ${expected}, not ${dtype} [${shape.join(', ')}]`, { argument: name, shape })
