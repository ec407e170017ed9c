// How much of a clip a network reads. Apart from clip.ts: command lines need it and must not load libtorch for it.
import type { VoxtorchError } from '../base/errors.js'

/** What speech networks read, in Hz. */
export const SPEECH_RATE = 16_000

/** What can become of audio that is longer than a network hears at once. */
export const LONG_AUDIO = ['windows', 'cut', 'error'] as const

/** `'windows'`: it is heard in parts; `'cut'`: its beginning only, and that is told; `'error'`: a DataError. */
export type LongAudio = (typeof LONG_AUDIO)[number]

export interface FitOptions {
  /** A shorter clip is filled up with silence. Default 0. */
  leastSamples?: number | undefined
  /** What `longAudio` is about. Default: any length. */
  mostSamples?: number | undefined
  /**
   * Of more than `mostSamples`: `'windows'` (default) leaves it whole, for a network that reads it in windows (see
   * `clipWindows`); `'cut'` leaves its beginning; `'error'` is a DataError.
   */
  longAudio?: LongAudio | undefined
}

/** How many of `length` samples are kept, and how many of silence follow. @throws what `fault` makes, with `longAudio: 'error'` */
export function keptLength(
  length: number,
  { leastSamples = 0, mostSamples = Number.POSITIVE_INFINITY, longAudio = 'windows' }: FitOptions,
  rate: number,
  fault: (what: string, fields: object) => VoxtorchError,
): { kept: number; silence: number } {
  if (length > mostSamples && longAudio === 'cut') return { kept: mostSamples, silence: 0 }
  if (length > mostSamples && longAudio === 'error') {
    const [seconds, most] = [length, mostSamples].map((count) => (count / rate).toFixed(2))
    const advice = `longAudio: 'cut' takes its beginning, 'windows' all of it`
    throw fault(`has ${seconds} s, more than ${most} s: ${advice}`, { seconds: length / rate })
  }
  return { kept: length, silence: Math.max(0, leastSamples - length) }
}

/**
 * The parts of a clip that a network reads one by one, [from, to) in samples: the whole where it has at most `most`. Else
 * equal parts that stand side by side, none of them short; or, with `overlap: 'half'`, windows of full length of which each
 * has at least half in common with the next, the first at the beginning and the last at the end.
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
