import type { LongAudio } from '../../../audio/clip.js'
import { fitLength } from '../../../audio/clip.js'
import { argumentError, defined, requireNumber, requireOptions } from '../../../base/check.js'
import { requireForm } from '../../../base/form.js'
import { joinSamples } from '../../../kit/clip.js'
import { scope, tensor } from '../../../tensor/index.js'
import { SALMONN_LEAST_SAMPLES, SALMONN_RATE } from '../network/clips.js'
import type { SalmonnClip } from './collate.js'

export interface JoinClipsOptions {
  /** Silence between clips in seconds. Default 0.1; the best recipe in the published README has 0.5. */
  gapSeconds?: number
  /** Whether silence follows the last clip as well, as in the published dialogs. Default true. */
  trailingGap?: boolean
}

/** Concatenate clips with silence in between. */
export function joinClips(clips: readonly SalmonnClip[], options: JoinClipsOptions = {}): SalmonnClip {
  requireOptions('joinClips', options, ['gapSeconds', 'trailingGap'])
  const { gapSeconds = 0.1, trailingGap = true } = options
  requireNumber('joinClips', 'gapSeconds', gapSeconds, { least: 0, below: 3600 })
  if (!Array.isArray(clips) || clips.length === 0) throw argumentError('joinClips', 'clips', 'a list of clips', clips)
  requireForm('joinClips', 'clips', clips, [Float32Array])
  const gap = Math.round(gapSeconds * SALMONN_RATE)
  return scope(() => {
    const parts = clips.map((clip) => tensor(clip, { device: 'cpu' }))
    return joinSamples(parts, gap, trailingGap).dataSync() as Float32Array
  })
}

/** Window of the encoders: 30 s, in samples. */
export const SALMONN_WINDOW = 30 * SALMONN_RATE

/** Default options of {@link fitClip}. */
export const SALMONN_FIT = {
  leastSamples: SALMONN_LEAST_SAMPLES,
  mostSamples: SALMONN_WINDOW,
  longAudio: 'windows',
} as const

export interface FitClipOptions {
  /** Minimum number of samples; a shorter clip is padded with silence. Default 2800; 16000 as published. */
  leastSamples?: number
  /** Maximum number of samples. Default 480000. */
  mostSamples?: number
  /** Handling of a longer clip. 'windows' (default) keeps it whole: the model encodes it in overlapping windows. */
  longAudio?: LongAudio
}

/**
 * Fit a clip to the lengths that the model takes.
 * @returns `lost`, the number of samples that were cut off
 * @throws DataError for a clip that is too long, with `longAudio: 'error'`
 */
export function fitClip(clip: SalmonnClip, options: FitClipOptions = {}): { clip: SalmonnClip; lost: number } {
  requireForm('fitClip', 'clip', clip, Float32Array)
  requireForm('fitClip', 'options', options, {
    'leastSamples?': 'number',
    'mostSamples?': 'number',
    'longAudio?': 'string',
  })
  requireOptions('fitClip', options, ['leastSamples', 'mostSamples', 'longAudio'])
  const { kept, silence } = fitLength(clip.length, { ...SALMONN_FIT, ...defined(options) })
  if (silence === 0) return { clip: kept < clip.length ? clip.subarray(0, kept) : clip, lost: clip.length - kept }
  const filled = new Float32Array(kept + silence)
  filled.set(clip)
  return { clip: filled, lost: 0 }
}
