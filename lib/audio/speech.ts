// Clip lengths of speech models. Separate from clip.ts, because command lines use it without loading libtorch.
import type { VoxtorchError } from '../base/errors.js'
import { type ChangesOf, settings } from '../base/settings.js'

/** Sample rate of speech models, in Hz. */
export const SPEECH_RATE = 16_000

/** Ways to handle audio that is longer than the input of a model. */
export const LONG_AUDIO = ['windows', 'cut', 'error'] as const

/** `'windows'`: process it in windows; `'cut'`: use only its beginning, and report it; `'error'`: throw a DataError. */
export type LongAudio = (typeof LONG_AUDIO)[number]

export const FIT_SETTINGS = settings({
  /** Length to which shorter clips are zero-padded, in samples. Default 0. */
  leastSamples: { type: 'integer' },
  /** Length above which `longAudio` applies, in samples. Default: no limit. */
  mostSamples: { type: 'integer' },
  /**
   * Handling of clips above `mostSamples`: `'windows'` (default) keeps them, for a model that processes them in windows (see
   * `clipWindows`); `'cut'` keeps their beginning; `'error'` throws a DataError.
   */
  longAudio: { type: LONG_AUDIO },
})

/** Lengths of a clip. @interface */
export type FitOptions = ChangesOf<typeof FIT_SETTINGS.table>

/** Return how many of `length` samples are kept, and how many zeros follow. @throws the error of `fault`, with `longAudio: 'error'` */
export function keptLength(
  length: number,
  { leastSamples = 0, mostSamples = Number.POSITIVE_INFINITY, longAudio = 'windows' }: FitOptions,
  rate: number,
  fault: (what: string, fields: object) => VoxtorchError,
): { kept: number; silence: number } {
  if (length > mostSamples && longAudio === 'cut') return { kept: mostSamples, silence: 0 }
  if (length > mostSamples && longAudio === 'error') {
    const [seconds, most] = [length, mostSamples].map((count) => (count / rate).toFixed(2))
    const advice = `Set longAudio to 'cut' to use its beginning, or to 'windows' to use all of it.`
    throw fault(`has ${seconds} s, more than ${most} s. ${advice}`, { seconds: length / rate })
  }
  return { kept: length, silence: Math.max(0, leastSamples - length) }
}

/**
 * Return the windows [from, to) in samples in which a model processes a clip: one, if it has at most `most` samples. Else adjacent
 * windows of equal length; or, with `overlap: 'half'`, windows of `most` samples that overlap by at least half, the first at the
 * beginning and the last at the end.
 */
export function clipWindows(
  samples: number,
  most: number,
  overlap: 'none' | 'half' = 'none',
): { from: number; to: number }[] {
  if (samples <= most) return [{ from: 0, to: samples }]
  if (overlap === 'none') {
    const count = Math.ceil(samples / most)
    const edge = (i: number) => Math.round((i * samples) / count)
    return Array.from({ length: count }, (_, i) => ({ from: edge(i), to: edge(i + 1) }))
  }
  const steps = Math.ceil((samples - most) / (most / 2))
  return Array.from({ length: steps + 1 }, (_, i) => {
    const from = Math.round((i * (samples - most)) / steps)
    return { from, to: from + most }
  })
}
