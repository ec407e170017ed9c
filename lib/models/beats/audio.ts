import type { LongAudio } from '../../audio/clip.js'
import { clipWindows, SPEECH_RATE, stackSamples } from '../../audio/clip.js'
import { kaldiFbank } from '../../audio/features.js'
import { argumentError } from '../../base/check.js'
import { DataError } from '../../base/errors.js'
import { scope, Tensor } from '../../tensor/index.js'

// BEATs' front end: a filter bank of 128 bands every 10 ms, at Kaldi's full scale, normalized with the statistics of AudioSet.
const WINDOW = 400
const HOP = 160
const BANDS = 128
const FULL_SCALE = 32768
const MEAN = 15.41663
const DEVIATION = 6.55582

/** Return the number of filter bank frames of a number of samples. */
export const framesOf = (samples: number): number => (samples < WINDOW ? 0 : 1 + Math.floor((samples - WINDOW) / HOP))
/** Return the minimum number of samples for a number of frames. */
export const samplesFor = (frames: number): number => WINDOW + (frames - 1) * HOP

/** Convert waveforms [batch, samples] to the network's input [batch, frames, 128]. A frame depends only on its own samples. */
export async function beatsFbank(inputValues: Tensor): Promise<Tensor> {
  if (!(inputValues instanceof Tensor)) throw argumentError('Beats.fbank', 'inputValues', 'a tensor', inputValues)
  return scope(async () => {
    const isHalf = inputValues.dtype === 'bfloat16' || inputValues.dtype === 'float16'
    const samples = (isHalf ? inputValues.float() : inputValues).mul(FULL_SCALE)
    const fbank = await kaldiFbank(samples, { nMels: BANDS })
    return fbank.sub(MEAN).div(2 * DEVIATION)
  })
}

/** A part of a clip, [from, to) in samples. */
export interface ClipPart {
  clip: number
  from: number
  to: number
}

/** Split a clip into parts of equal length, so that no part is too short. */
export function partsOf(clip: number, samples: number, most: number, long: LongAudio): ClipPart[] {
  if (samples <= most) return [{ clip, from: 0, to: samples }]
  const seconds = (count: number) => `${Number((count / SPEECH_RATE).toFixed(2))} s`
  const found = `clip ${clip}: expected at most ${seconds(most)} of audio, got ${seconds(samples)}`
  if (long === 'error')
    throw new DataError(`${found}. Raise maxSeconds, or set longAudio to 'windows' or 'cut'.`, { clip })
  if (long === 'cut') {
    process.emitWarning(`${found}. The rest is cut off.`, 'AudioWarning')
    return [{ clip, from: 0, to: most }]
  }
  return clipWindows(samples, most).map((window) => ({ clip, ...window }))
}

/** Stack parts of clips to one batch [parts, samples of the longest], padded with zeros. */
export function padded(clips: Tensor[], clipParts: ClipPart[]): Tensor {
  return scope(() => {
    const parts = clipParts.map(({ clip, from, to }) => (clips[clip] as Tensor).narrow(0, from, to - from))
    return stackSamples(parts, Math.max(...parts.map((part) => part.size(0))))
  })
}
