import type { LongAudio } from '../../../audio/read.js'
import { misuse, requireNumber, requireOptions } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import type { SalmonnClip } from '../batch.js'
import { atLeast, SALMONN_LEAST_SAMPLES, SALMONN_RATE } from '../network/clips.js'

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

export interface FitClipOptions {
  /** A shorter clip is filled up with silence. Default 2800; 16000 as published. */
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
  const { leastSamples = SALMONN_LEAST_SAMPLES, mostSamples = SALMONN_WINDOW, longAudio: policy = 'windows' } = options
  const { length } = clip
  if (length <= mostSamples || policy === 'windows') return { clip: atLeast(clip, leastSamples), lost: 0 }
  if (policy === 'cut') return { clip: clip.subarray(0, mostSamples), lost: length - mostSamples }
  const seconds = (samples: number) => (samples / SALMONN_RATE).toFixed(1)
  throw new DataError(
    `the audio has ${seconds(length)} s, more than ${seconds(mostSamples)}: longAudio 'windows' hears all of it, 'cut' the beginning`,
    { seconds: length / SALMONN_RATE },
  )
}
