import { requireNumber } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { type ChangesOf, functionOf, settings, type ValuesOf } from '../base/settings.js'
import { ops, scope, type Tensor } from '../tensor/index.js'
import { requireSamples } from './resample.js'

/** [start, end] in seconds. */
export type Segment = [start: number, end: number]

const LEVELS = settings({
  /** Frame length in seconds. Default 0.02. */
  frameSeconds: { type: 'number', default: 0.02 },
  /**
   * Threshold in decibels below the local level, which is the 95th percentile over 10 s. A short loud noise does not raise it,
   * and it adapts to quiet and loud speakers. Default 40.
   */
  topDb: { type: 'number', infinite: true, default: 40 },
  /** Frames below this level are silent, in decibels of full scale. Default -70. */
  floorDb: { type: 'number', min: -Infinity, infinite: true, default: -70 },
  /** Shortest pause that ends a segment, in seconds. Default 0.3. */
  minSilence: { type: 'number', infinite: true, default: 0.3 },
  /** Shortest segment, in seconds; shorter ones are dropped. Default 0.1. */
  minSpeech: { type: 'number', infinite: true, default: 0.1 },
  /** Padding before and after a segment, in seconds; two segments split a shorter pause between them. Default 0.1. */
  padding: { type: 'number', infinite: true, default: 0.1 },
})

/** Options of {@link energyVad}. @interface */
export type EnergyVadOptions = ChangesOf<typeof LEVELS.table>

/**
 * Return the non-silent segments of a clip [n], in order and without overlap. A frame is non-silent if its root mean square level
 * reaches a threshold: the lowest of all 10 s windows around the frame. The threshold of a window is `topDb` below its 95th
 * percentile, or 6 dB above its 10th percentile if that is higher. The latter is limited to 20 dB below the 95th percentile, unless
 * three quarters of the window are steady background. A clip with a constant level is one segment.
 * @throws ConfigError for invalid samples and options
 */
export async function energyVad(
  samples: Tensor,
  sampleRate: number,
  options: EnergyVadOptions = {},
): Promise<Segment[]> {
  return segmentsOf(await levelsOf('energyVad', samples, sampleRate, options))
}

/** A function that returns the speech segments of a clip [n], in order and without overlap: {@link energyVad}, or a model's `segments`. */
export type VoiceActivity = (samples: Tensor, sampleRate: number) => Promise<Segment[]>

const SPLIT = LEVELS.extend({
  /** Longest piece, in seconds. Default 30. */
  maxSeconds: { type: 'number', min: 0.1, infinite: true, default: 30 },
  /** Voice activity detector. Default: {@link energyVad} with these options. */
  vad: { type: functionOf<VoiceActivity>() },
})

/** Options of {@link splitOnSilence}. @interface */
export type SplitOptions = ChangesOf<typeof SPLIT.table>

/**
 * Split a long clip [n] into pieces of at most `maxSeconds`, for models with a limited input length. Each piece contains as many
 * segments of `vad` as fit, and starts and ends in pauses. A segment that is longer than `maxSeconds` is cut at the quietest frame
 * of the second half of the allowed length.
 */
export async function splitOnSilence(
  samples: Tensor,
  sampleRate: number,
  options: SplitOptions = {},
): Promise<Segment[]> {
  const { maxSeconds, vad, ...levelOptions } = SPLIT.read('splitOnSilence', options)
  const levels = await levelsOf('splitOnSilence', samples, sampleRate, levelOptions)
  const segments = vad ? checked(await vad(samples, sampleRate), levels.duration) : segmentsOf(levels)
  const pieces: Segment[] = []
  for (const [begin, end] of segments) {
    const last = pieces.at(-1)
    if (last !== undefined && end - last[0] <= maxSeconds) {
      last[1] = end
      continue
    }
    let from = begin
    while (end - from > maxSeconds) {
      const cut = quietest(levels, from + maxSeconds / 2, from + maxSeconds)
      pieces.push([from, cut])
      from = cut
    }
    pieces.push([from, end])
  }
  return pieces
}

function checked(segments: Segment[], duration: number): Segment[] {
  let before = 0
  for (const segment of Array.isArray(segments) ? segments : [[Number.NaN]]) {
    const [begin, end] = segment as Segment
    // Allows 1 ms for rounding.
    if (!(begin >= before && end > begin && end <= duration + 1e-3)) {
      throw new ConfigError(
        `splitOnSilence: vad: expected segments in order within the clip's ${duration} s, got [${begin}, ${end}] after ${before} s.`,
        { option: 'vad' },
      )
    }
    before = end
  }
  return segments.map(([begin, end]) => [begin, Math.min(end, duration)])
}

interface Levels {
  /** Level of each frame, in decibels of full scale. */
  decibels: Float64Array
  frameSeconds: number
  duration: number
  settings: ValuesOf<typeof LEVELS.table>
}

async function levelsOf(
  where: string,
  samples: Tensor,
  sampleRate: number,
  options: EnergyVadOptions,
): Promise<Levels> {
  requireSamples(where, samples)
  requireNumber(where, 'sampleRate', sampleRate, { least: 1, below: Number.POSITIVE_INFINITY })
  const values = LEVELS.read(where, options)
  const { frameSeconds } = values
  if (samples.ndim !== 1) {
    throw new ConfigError(
      `${where}: samples: expected one signal [n], got [${samples.shape}]. mixChannels converts it.`,
    )
  }
  const length = Math.max(1, Math.round(frameSeconds * sampleRate))
  const whole = Math.floor(samples.size(0) / length)
  const norms = await scope(async () => {
    const signal = samples.detach()
    const frames = signal.narrow(0, 0, whole * length).reshape([whole, length])
    const rest = signal.narrow(0, whole * length, samples.size(0) - whole * length).reshape([1, -1])
    const norm = (rows: Tensor) => ops.async.linalgVectorNorm(rows, 2, [1])
    const all = [await norm(frames)]
    if (rest.numel() > 0) all.push((await norm(rest)).mul(Math.sqrt(length / rest.numel())))
    return ops.cat(all).data()
  })
  return {
    decibels: Float64Array.from(norms as Float32Array, (norm) => 20 * Math.log10(norm / Math.sqrt(length))),
    frameSeconds: length / sampleRate,
    duration: samples.size(0) / sampleRate,
    settings: values,
  }
}

/** Window of a threshold and hop between two windows, in seconds. */
const WINDOW = 10
const HOP = 0.5
/** Range of levels below which a window, or a clip, counts as steady, in decibels. */
const STEADY = 6
const STEADY_CLIP = 12
/** Distance of a threshold from the background (above), and its least distance from the 95th percentile (below), in decibels. */
const ABOVE_BACKGROUND = 6
const SURE = 20

/** Histogram of levels in bins of 0.5 dB, which gives percentiles of a sliding window without sorting. */
class LevelCounts {
  static readonly #lowest = -160
  static readonly #bins = 340
  readonly #counts = new Int32Array(LevelCounts.#bins)
  #total = 0

  add(level: number, count: 1 | -1): void {
    const bin = Math.floor(2 * (level - LevelCounts.#lowest))
    // Digital silence is -Infinity.
    const place = Math.min(LevelCounts.#bins - 1, Math.max(0, bin || 0))
    this.#counts[place]! += count
    this.#total += count
  }

  percentile(fraction: number): number {
    let left = fraction * this.#total
    for (let bin = 0; bin < LevelCounts.#bins; bin += 1) {
      left -= this.#counts[bin]!
      if (left < 0) return LevelCounts.#lowest + bin / 2
    }
    return LevelCounts.#lowest + LevelCounts.#bins / 2
  }
}

/** Return the threshold of each block of `hop` frames. */
function thresholdsOf({ decibels, frameSeconds, settings }: Levels): { thresholds: Float64Array; hop: number } {
  const { topDb, floorDb } = settings
  const hop = Math.max(1, Math.round(HOP / frameSeconds))
  const perWindow = Math.max(1, Math.round(WINDOW / HOP))
  const blocks = Math.ceil(decibels.length / hop)
  const clip = new LevelCounts()
  for (const level of decibels) clip.add(level, 1)
  const isSteady = clip.percentile(0.95) - clip.percentile(0.1) < STEADY_CLIP

  const window = new LevelCounts()
  const count = (block: number, sign: 1 | -1) => {
    for (const level of decibels.subarray(block * hop, (block + 1) * hop)) window.add(level, sign)
  }
  const thresholds = new Float64Array(blocks).fill(Number.POSITIVE_INFINITY)
  const windows = Math.max(1, blocks - perWindow + 1)
  for (let block = 0; block < Math.min(perWindow, blocks); block += 1) count(block, 1)
  for (let first = 0; first < windows; first += 1) {
    if (first > 0) {
      count(first - 1, -1)
      count(first + perWindow - 1, 1)
    }
    const [low, middle, high] = [window.percentile(0.1), window.percentile(0.75), window.percentile(0.95)]
    const above = low + ABOVE_BACKGROUND
    // If the level varies most of the time, the low percentile may be soft speech rather than background.
    const background = middle - low < STEADY ? above : Math.min(above, high - SURE)
    const isTone = isSteady && high - low < STEADY
    const threshold = isTone ? Number.NEGATIVE_INFINITY : Math.max(high - topDb, background)
    for (let block = first; block < Math.min(first + perWindow, blocks); block += 1) {
      if (threshold < thresholds[block]!) thresholds[block] = threshold
    }
  }
  return { thresholds: thresholds.map((one) => Math.max(one, floorDb)), hop }
}

function segmentsOf(levels: Levels): Segment[] {
  const { decibels, frameSeconds, duration, settings } = levels
  const { minSilence, minSpeech, padding } = settings
  const { thresholds, hop } = thresholdsOf(levels)
  const loud: Segment[] = []
  for (let i = 0; i < decibels.length; i += 1) {
    if (!(decibels[i]! >= thresholds[Math.floor(i / hop)]!)) continue
    const last = loud.at(-1)
    const begin = i * frameSeconds
    const end = Math.min(duration, (i + 1) * frameSeconds)
    if (last !== undefined && begin - last[1] < minSilence) last[1] = end
    else loud.push([begin, end])
  }
  return padSegments(
    loud.filter(([begin, end]) => end - begin >= minSpeech),
    duration,
    padding,
  )
}

/** Pad segments by `padding` seconds on both sides; two segments split a shorter pause between them. */
export function padSegments(segments: readonly Segment[], duration: number, padding: number): Segment[] {
  return segments.map(([begin, end], i) => {
    const before = segments[i - 1]?.[1]
    const after = segments[i + 1]?.[0]
    return [
      Math.max(before === undefined ? 0 : (before + begin) / 2, begin - padding),
      Math.min(after === undefined ? duration : (end + after) / 2, end + padding),
    ]
  })
}

/** Return the center of the frame with the lowest level between two times, in seconds. */
function quietest({ decibels, frameSeconds }: Levels, from: number, to: number): number {
  let best = Math.ceil(from / frameSeconds)
  for (let i = best; (i + 1) * frameSeconds <= to && i < decibels.length; i += 1) {
    if (decibels[i]! < decibels[best]!) best = i
  }
  return Math.min(to, (best + 0.5) * frameSeconds)
}
