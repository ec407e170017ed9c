import { fitLength, LONG_AUDIO } from '../../../audio/clip.js'
import { argumentError } from '../../../base/check.js'
import { requireForm } from '../../../base/form.js'
import { type ChangesOf, settings } from '../../../base/settings.js'
import { joinSamples } from '../../../kit/clip.js'
import { scope, tensor } from '../../../tensor/index.js'
import { SALMONN_LEAST_SAMPLES, SALMONN_RATE } from '../network/clips.js'
import type { SalmonnClip } from './collate.js'

const JOIN_SETTINGS = settings({
  /** Silence between clips in seconds. The best recipe in the published README has 0.5. */
  gapSeconds: { type: 'number', below: 3600, default: 0.1 },
  /** Whether silence follows the last clip as well, as in the published dialogs. */
  trailingGap: { type: 'boolean', default: true },
})

/** @interface */
export type JoinClipsOptions = ChangesOf<typeof JOIN_SETTINGS.table>

/** Concatenate clips with silence in between. */
export function joinClips(clips: readonly SalmonnClip[], options: JoinClipsOptions = {}): SalmonnClip {
  const { gapSeconds, trailingGap } = JOIN_SETTINGS.read('joinClips', options)
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

const FIT_SETTINGS = settings({
  /** Minimum number of samples; a shorter clip is padded with silence. 16000 as published. */
  leastSamples: { type: 'number', default: SALMONN_LEAST_SAMPLES },
  /** Maximum number of samples. */
  mostSamples: { type: 'number', default: SALMONN_WINDOW },
  /** Handling of a longer clip. 'windows' keeps it whole: the model encodes it in overlapping windows. */
  longAudio: { type: LONG_AUDIO, default: 'windows' },
})

/** Default options of {@link fitClip}. */
export const SALMONN_FIT = FIT_SETTINGS.defaults

/** @interface */
export type FitClipOptions = ChangesOf<typeof FIT_SETTINGS.table>

/**
 * Fit a clip to the lengths that the model takes.
 * @returns `lost`, the number of samples that were cut off
 * @throws DataError for a clip that is too long, with `longAudio: 'error'`
 */
export function fitClip(clip: SalmonnClip, options: FitClipOptions = {}): { clip: SalmonnClip; lost: number } {
  requireForm('fitClip', 'clip', clip, Float32Array)
  const { kept, silence } = fitLength(clip.length, FIT_SETTINGS.read('fitClip', options))
  if (silence === 0) return { clip: kept < clip.length ? clip.subarray(0, kept) : clip, lost: clip.length - kept }
  const filled = new Float32Array(kept + silence)
  filled.set(clip)
  return { clip: filled, lost: 0 }
}
