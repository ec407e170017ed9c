import type { LongAudio } from '../../../audio/clip.js'
import { fitLength } from '../../../audio/clip.js'
import { defined, misuse, requireNumber, requireOptions } from '../../../base/check.js'
import { requireForm } from '../../../base/form.js'
import { joinSamples } from '../../../kit/clip.js'
import { scope, tensor } from '../../../tensor/index.js'
import { SALMONN_LEAST_SAMPLES, SALMONN_RATE } from '../network/clips.js'
import type { SalmonnClip } from './collate.js'

export interface JoinClipsOptions {
  /** Silence between clips. Default 0.1; the recipe that the published README praises has 0.5. */
  gapSeconds?: number
  /** Whether silence follows the last clip too, as in the published dialogs. Default true. */
  trailingGap?: boolean
}

/** Clips one after the other as one, with silence in between. */
export function joinClips(clips: readonly SalmonnClip[], options: JoinClipsOptions = {}): SalmonnClip {
  requireOptions('joinClips', options, ['gapSeconds', 'trailingGap'])
  const { gapSeconds = 0.1, trailingGap = true } = options
  requireNumber('joinClips', 'gapSeconds', gapSeconds, { least: 0, below: 3600 })
  if (!Array.isArray(clips) || clips.length === 0) throw misuse('joinClips', 'clips', 'a list of clips', clips)
  requireForm('joinClips', 'clips', clips, [Float32Array])
  const gap = Math.round(gapSeconds * SALMONN_RATE)
  return scope(() => {
    const parts = clips.map((clip) => tensor(clip, { device: 'cpu' }))
    return joinSamples(parts, gap, trailingGap).dataSync() as Float32Array
  })
}

/** 30 s: what the encoders hear at once. */
export const SALMONN_WINDOW = 30 * SALMONN_RATE

/** How clips are fitted where nothing else is said. */
export const SALMONN_FIT = {
  leastSamples: SALMONN_LEAST_SAMPLES,
  mostSamples: SALMONN_WINDOW,
  longAudio: 'windows',
} as const

export interface FitClipOptions {
  /** A shorter clip is filled up with silence. Default 2800; a second as published. */
  leastSamples?: number
  /** Default 480000. */
  mostSamples?: number
  /** Of more than `mostSamples`. 'windows' (default) leaves it whole: the model hears it in windows that overlap. */
  longAudio?: LongAudio
}

/**
 * A clip as the model takes it.
 * @returns `lost`, the samples that were cut off
 * @throws DataError for one that is too long, with `longAudio: 'error'`
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
