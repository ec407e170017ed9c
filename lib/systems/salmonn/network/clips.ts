import { openClip, SPEECH_RATE } from '../../../audio/clip.js'
import { argumentError } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { LEAST_HEARD } from '../../../kit/audio-encoding/encode.js'
import { Tensor } from '../../../tensor/index.js'

/** Sample rate of SALMONN in Hz. */
export const SALMONN_RATE = SPEECH_RATE
/** Minimum number of samples for one patch of BEATs. */
export const SALMONN_LEAST_SAMPLES = LEAST_HEARD

/**
 * An audio clip: mono samples at 16 kHz from -1 to 1, as a Float32Array or a float32 tensor [samples]; or the result of `readAudio`, at any
 * rate: channels [channels, samples] are averaged.
 */
export type SalmonnAudio = Float32Array | Tensor | { samples: Tensor | Float32Array; sampleRate: number }

/** Return whether a clip is an output of `encodeAudio`, [tokens, hiddenSize]. */
export const isEncoded = (clip: SalmonnAudio): clip is Tensor => clip instanceof Tensor && clip.ndim === 2

/**
 * Return the samples of a clip, 16 kHz mono, float32 [samples].
 * @param name of the clip in messages, such as `clips[2]`
 * @throws ConfigError for a value that is not audio, is empty, or contains NaN or infinities
 */
export async function salmonnSamples(clip: SalmonnAudio, name: string): Promise<Tensor> {
  if (clip instanceof Tensor && (clip.ndim !== 1 || clip.dtype !== 'float32')) {
    throw wrongTensor(name, 'float32 [samples] at 16 kHz', clip)
  }
  if (!(clip instanceof Tensor || clip instanceof Float32Array || clip?.samples)) {
    throw argumentError('Salmonn', name, 'a Float32Array or a tensor at 16 kHz, or a result of readAudio', clip)
  }
  const place = { where: 'Salmonn', argument: name, subject: `Salmonn: ${name}`, Fault: ConfigError }
  return (await openClip(place, clip)).samples.detach()
}

/** Return an error about a clip that is a tensor of the wrong dtype or shape. */
export const wrongTensor = (name: string, expected: string, { dtype, shape }: Tensor): ConfigError =>
  new ConfigError(`Salmonn: ${name}: expected ${expected}, got ${dtype} [${shape.join(', ')}].`, {
    argument: name,
    shape,
  })
