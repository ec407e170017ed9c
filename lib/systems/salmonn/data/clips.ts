import type { LongAudio } from '../../../audio/long.js'
import { misuse, requireNumber } from '../../../data/check.js'
import { DataError } from '../../../native/errors.js'
import { SALMONN_RATE, type SalmonnClip } from '../batch.js'

export interface JoinClipsOptions {
  /** Silence between clips. Default 0.1; the recipe that the published README praises has 0.5. */
  gapSeconds?: number
  /** Whether silence follows the last clip too, as in the published dialogs. Default true. */
  trailingGap?: boolean
}

/** Clips one after the other as one, with silence in between. */
export function joinClips(clips: readonly SalmonnClip[], options: JoinClipsOptions = {}): SalmonnClip {
  const { gapSeconds = 0.1, trailingGap = true } = options
  requireNumber('joinClips', 'gapSeconds', gapSeconds, { least: 0, below: 3600 })
  if (!Array.isArray(clips) || clips.length === 0) throw misuse('joinClips', 'clips', 'a list of clips', clips)
  const gap = Math.round(gapSeconds * SALMONN_RATE)
  const gaps = trailingGap ? clips.length : clips.length - 1
  const whole = new Float32Array(clips.reduce((sum, { length }) => sum + length, 0) + gap * gaps)
  let at = 0
  for (const clip of clips) {
    whole.set(clip, at)
    at += clip.length + gap
  }
  return whole
}

/** 30 s: what the encoders hear at once. */
export const SALMONN_WINDOW = 30 * SALMONN_RATE
/** The fewest samples of which BEATs makes a patch. */
export const SALMONN_LEAST_SAMPLES = 2800

export interface FitClipOptions {
  /** A shorter clip is filled up with silence. Default 2800; 16000 as published. */
  leastSamples?: number
  /** Default 480000. */
  mostSamples?: number
  /** Of more than `mostSamples`; windows stand side by side in the prompt. Default 'windows'. */
  longAudio?: LongAudio
}

/**
 * A clip as the encoders take it: one window, or several of the same length (but for a sample) that hold all of it.
 * @returns `lost`, the samples that were cut off
 * @throws DataError for one that is too long, with `longAudio: 'error'`
 */
export function fitClip(clip: SalmonnClip, options: FitClipOptions = {}): { windows: SalmonnClip[]; lost: number } {
  const { leastSamples = SALMONN_LEAST_SAMPLES, mostSamples = SALMONN_WINDOW, longAudio: policy = 'windows' } = options
  const { length } = clip
  if (length <= mostSamples) {
    if (length >= leastSamples) return { windows: [clip], lost: 0 }
    const filled = new Float32Array(leastSamples)
    filled.set(clip)
    return { windows: [filled], lost: 0 }
  }
  if (policy === 'cut') return { windows: [clip.subarray(0, mostSamples)], lost: length - mostSamples }
  if (policy === 'error') {
    const seconds = (samples: number) => (samples / SALMONN_RATE).toFixed(1)
    throw new DataError(
      `the audio has ${seconds(length)} s, more than ${seconds(mostSamples)}: longAudio 'windows' hears all of it, 'cut' the beginning`,
      { seconds: length / SALMONN_RATE },
    )
  }
  const count = Math.ceil(length / mostSamples)
  const edge = (i: number) => Math.round((i * length) / count)
  return { windows: Array.from({ length: count }, (_, i) => clip.subarray(edge(i), edge(i + 1))), lost: 0 }
}
