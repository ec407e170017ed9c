import type { LongAudio } from '../../audio/clip.js'
import { clipWindows, SPEECH_RATE, stackSamples } from '../../audio/clip.js'
import { kaldiFbank } from '../../audio/features.js'
import { misuse } from '../../base/check.js'
import { DataError } from '../../base/errors.js'
import { scope, Tensor } from '../../tensor/index.js'

// What BEATs hears: a filter bank of 128 bands each 10 ms, at Kaldi's full scale, normalised over AudioSet.
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

/** A part of a clip, [from, to) in samples. */
export interface Stretch {
  clip: number
  from: number
  to: number
}

/** A clip's parts, which are equally long, so that none is too short. */
export function stretchesOf(clip: number, samples: number, most: number, long: LongAudio): Stretch[] {
  if (samples <= most) return [{ clip, from: 0, to: samples }]
  const seconds = (count: number) => `${Number((count / SPEECH_RATE).toFixed(2))} s`
  const found = `clip ${clip} has ${seconds(samples)} of audio, more than ${seconds(most)}`
  if (long === 'error')
    throw new DataError(`${found}; raise maxSeconds, or choose another way for long audio`, { clip })
  if (long === 'cut') {
    process.emitWarning(`${found}; the rest is left out`, 'AudioWarning')
    return [{ clip, from: 0, to: most }]
  }
  return clipWindows(samples, most).map((window) => ({ clip, ...window }))
}

/** Stretches of clips as one batch [stretches, samples of the longest], with zeros after each. */
export function padded(clips: Tensor[], stretches: Stretch[]): Tensor {
  return scope(() => {
    const parts = stretches.map(({ clip, from, to }) => (clips[clip] as Tensor).narrow(0, from, to - from))
    return stackSamples(parts, Math.max(...parts.map((part) => part.size(0))))
  })
}
