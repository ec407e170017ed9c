import { createHash } from 'node:crypto'
import { mixChannels } from '../../../audio/channels.js'
import type { Audio } from '../../../audio/read.js'
import { resample } from '../../../audio/resample.js'
import { misuse, requireWhole } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { scope, Tensor } from '../../../tensor/index.js'

/** What SALMONN hears, in Hz. */
export const SALMONN_RATE = 16_000
/** The fewest samples of which BEATs makes a patch. */
export const SALMONN_LEAST_SAMPLES = 2800

/**
 * A sound: samples of 16 kHz mono from -1 to 1, as a Float32Array or a float32 tensor [samples]; or what `readAudio`
 * gives, at any rate: channels [channels, samples] are averaged.
 */
export type SalmonnSound = Float32Array | Tensor | Pick<Audio, 'samples' | 'sampleRate'>

/** Whether a clip is what `encodeAudio` made of one, [tokens, hiddenSize]. */
export const isEncoded = (clip: SalmonnSound): clip is Tensor => clip instanceof Tensor && clip.ndim === 2

/**
 * Samples of 16 kHz mono. A Float32Array is given back as it is.
 * @param name which clip it is, for messages: `clips[2]`
 * @throws ConfigError for what is no sound, is empty, or holds NaN or infinities
 */
export async function salmonnSamples(clip: SalmonnSound, name: string): Promise<Float32Array> {
  const samples = clip instanceof Float32Array ? clip : await readSound(clip, name)
  if (samples.length === 0) throw new ConfigError(`Salmonn: ${name} is empty`, { argument: name })
  for (let i = 0; i < samples.length; i += 1) {
    if (Number.isFinite(samples[i])) continue
    throw new ConfigError(`Salmonn: ${name} has samples that are no numbers, the first at ${i}`, { argument: name })
  }
  return samples
}

function readSound(clip: Exclude<SalmonnSound, Float32Array>, name: string): Promise<Float32Array> {
  return scope(async () => {
    if (clip instanceof Tensor) {
      if (clip.ndim === 1 && clip.dtype === 'float32') return (await clip.data()) as Float32Array
      throw wrongTensor(name, 'float32 [samples] of 16 kHz', clip)
    }
    const samples = clip?.samples
    if (!(samples instanceof Tensor)) {
      const forms = 'a Float32Array or a tensor of 16 kHz, or what readAudio gives'
      throw misuse('Salmonn', name, forms, clip)
    }
    if (samples.dtype !== 'float32' || samples.ndim < 1 || samples.ndim > 2) {
      throw wrongTensor(`${name}.samples`, 'float32 [samples] or [channels, samples]', samples)
    }
    requireWhole('Salmonn', `${name}.sampleRate`, clip.sampleRate, 1)
    const mono = samples.ndim === 2 ? mixChannels(samples) : samples
    const heard = clip.sampleRate === SALMONN_RATE ? mono : await resample(mono, clip.sampleRate, SALMONN_RATE)
    return (await heard.data()) as Float32Array
  })
}

/** Says which tensor a clip should have been, and which it is. */
export const wrongTensor = (name: string, expected: string, { dtype, shape }: Tensor): ConfigError =>
  new ConfigError(`Salmonn: ${name} must be ${expected}, not ${dtype} [${shape.join(', ')}]`, { argument: name, shape })

/** Filled up with silence where it is shorter. */
export function atLeast(samples: Float32Array, least: number): Float32Array {
  if (samples.length >= least) return samples
  const filled = new Float32Array(least)
  filled.set(samples)
  return filled
}

/** Names a sound by its samples. */
export const clipKey = (samples: Float32Array): string =>
  createHash('sha256')
    .update(new Uint8Array(samples.buffer, samples.byteOffset, samples.byteLength))
    .digest('base64')
