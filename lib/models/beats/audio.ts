import { type Audio, type AudioInput, kaldiFbank, readAudio, resample } from '../../audio/index.js'
import type { LongAudio } from '../../audio/long.js'
import { misuse } from '../../base/check.js'
import { DataError } from '../../base/errors.js'
import { scope, Tensor, zeros } from '../../tensor/index.js'

/** The input features of BEATs: 16 kHz, a filter bank of 128 bands each 10 ms, at Kaldi's full scale, normalised over AudioSet. */
export const SAMPLE_RATE = 16000
const WINDOW = 400
const HOP = 160
const BANDS = 128
const FULL_SCALE = 32768
const MEAN = 15.41663
const DEVIATION = 6.55582

/** Frames of the filter bank that so many samples make. */
export const framesOf = (samples: number): number => (samples < WINDOW ? 0 : 1 + Math.floor((samples - WINDOW) / HOP))
/** The fewest samples that make so many frames. */
export const samplesFor = (frames: number): number => WINDOW + (frames - 1) * HOP

/** Waveforms [batch, samples] as the network's input [batch, frames, 128]. Frames do not see what comes after them. */
export async function beatsFbank(inputValues: Tensor): Promise<Tensor> {
  if (!(inputValues instanceof Tensor)) throw misuse('Beats.fbank', 'inputValues', 'a tensor', inputValues)
  return scope(async () => {
    const isHalf = inputValues.dtype === 'bfloat16' || inputValues.dtype === 'float16'
    const samples = (isHalf ? inputValues.float() : inputValues).mul(FULL_SCALE)
    const fbank = await kaldiFbank(samples, { nMels: BANDS })
    return fbank.sub(MEAN).div(2 * DEVIATION)
  })
}

/**
 * A clip: samples [n] at 16 kHz, an audio file or its bytes, or what `readAudio` returned, at any rate. Channels are
 * averaged.
 */
export type AudioClip = Tensor | AudioInput | Pick<Audio, 'samples' | 'sampleRate'>

/** The clip's samples [n], float32, 16 kHz. */
export async function samplesOf(where: string, clip: AudioClip): Promise<Tensor> {
  if (clip instanceof Tensor) return oneChannel(where, clip)
  if (typeof clip === 'string' || clip instanceof Uint8Array || clip instanceof ArrayBuffer) {
    return (await readAudio(clip, { sampleRate: SAMPLE_RATE })).samples
  }
  if (typeof clip !== 'object' || clip === null || !(clip.samples instanceof Tensor)) {
    throw misuse(where, 'audio', 'samples, a file, its bytes, or what readAudio returned', clip)
  }
  const mixed = clip.samples.ndim === 2 ? clip.samples.mean(0) : clip.samples
  const samples = oneChannel(where, mixed)
  return clip.sampleRate === SAMPLE_RATE ? samples : resample(samples, clip.sampleRate, SAMPLE_RATE)
}

function oneChannel(where: string, samples: Tensor): Tensor {
  if (samples.ndim !== 1) throw misuse(where, 'audio', 'a tensor of shape [samples]', samples)
  return samples.float()
}

/** A part of a clip, [from, to) in samples. */
export interface Stretch {
  clip: number
  from: number
  to: number
}

/** A clip's parts, which are equally long, so that none is too short. */
export function stretchesOf(clip: number, samples: number, most: number, long: LongAudio): Stretch[] {
  if (samples <= most) return [{ clip, from: 0, to: samples }]
  const seconds = (count: number) => `${Number((count / SAMPLE_RATE).toFixed(2))} s`
  const found = `clip ${clip} has ${seconds(samples)} of audio, more than ${seconds(most)}`
  if (long === 'error')
    throw new DataError(`${found}; raise maxSeconds, or choose another way for long audio`, { clip })
  if (long === 'cut') {
    process.emitWarning(`${found}; the rest is left out`, 'AudioWarning')
    return [{ clip, from: 0, to: most }]
  }
  const count = Math.ceil(samples / most)
  const border = (i: number) => Math.round((i * samples) / count)
  return Array.from({ length: count }, (_, i) => ({ clip, from: border(i), to: border(i + 1) }))
}

/** Stretches of clips as one batch [stretches, samples of the longest], with zeros after each. */
export function padded(clips: Tensor[], stretches: Stretch[]): Tensor {
  return scope(() => {
    const longest = Math.max(...stretches.map(({ from, to }) => to - from))
    const batch = zeros([stretches.length, longest], { device: clips[0]?.device ?? 'cpu' })
    stretches.forEach(({ clip, from, to }, row) => {
      const samples = (clips[clip] as Tensor).narrow(0, from, to - from)
      batch
        .select(0, row)
        .narrow(0, 0, to - from)
        .copy_(samples)
    })
    return batch
  })
}
