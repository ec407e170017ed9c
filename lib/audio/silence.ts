import { requireFunction, requireNumber, requireOptions } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { ops, scope, type Tensor } from '../tensor/index.js'
import { requireSamples } from './resample.js'

/** [start, end] in seconds. */
export type Segment = [start: number, end: number]

export interface EnergyVadOptions {
  /** Length of the frames whose level is measured, in seconds. Default 0.02. */
  frameSeconds?: number
  /**
   * How far below the level around it a frame still counts, in decibels. That level is the 95th percentile of 10 s, so a
   * short knock does not raise it, and a quiet speaker is not measured by a loud one. Default 40.
   */
  topDb?: number
  /** A level below which nothing counts, in decibels of full scale. Default -70. */
  floorDb?: number
  /** Shorter pauses do not end a segment, in seconds. Default 0.3. */
  minSilence?: number
  /** Shorter sounds are no segment, in seconds. Default 0.1. */
  minSpeech?: number
  /** What is kept before and after a segment, in seconds; two segments share the pause between them. Default 0.1. */
  padding?: number
}

/**
 * Return where a clip [n] is not silent: segments in order, without overlap. A frame counts when its root mean square level
 * reaches a threshold, the lowest that any window of 10 s around the frame gives. The threshold of a window is `topDb` below
 * its 95th percentile, or, where the background is louder than that, 6 dB above its 10th percentile; at most 20 dB below the
 * 95th, unless three quarters of the window are steady background. A clip that is steady as a whole is one sound.
 * @throws ConfigError
 */
export async function energyVad(
  samples: Tensor,
  sampleRate: number,
  options: EnergyVadOptions = {},
): Promise<Segment[]> {
  return segmentsOf(await levelsOf('energyVad', samples, sampleRate, options))
}

const LEVELS: readonly (keyof EnergyVadOptions)[] = [
  'frameSeconds',
  'topDb',
  'floorDb',
  'minSilence',
  'minSpeech',
  'padding',
]

/** Says where in a clip [n] somebody speaks, in order and without overlap: {@link energyVad}, or a network's `segments`. */
export type VoiceActivity = (samples: Tensor, sampleRate: number) => Promise<Segment[]>

export interface SplitOptions extends EnergyVadOptions {
  /** The most that a piece may last, in seconds. Default 30. */
  maxSeconds?: number
  /** What finds the segments. Default: {@link energyVad}, with these options. */
  vad?: VoiceActivity
}

/**
 * Cuts a long clip [n] into pieces of at most `maxSeconds` for models that read no more at once. Pieces hold all of
 * {@link energyVad}'s segments (or those of `vad`), as many as fit, and begin and end in pauses. A segment that is too long itself is cut
 * at the quietest frame of the second half of what fits.
 */
export async function splitOnSilence(
  samples: Tensor,
  sampleRate: number,
  options: SplitOptions = {},
): Promise<Segment[]> {
  requireOptions('splitOnSilence', options, ['maxSeconds', 'vad', ...LEVELS])
  const { maxSeconds = 30, vad, ...levelOptions } = options
  requireNumber('splitOnSilence', 'maxSeconds', maxSeconds, { least: 0.1 })
  if (vad !== undefined) requireFunction('splitOnSilence', 'vad', vad)
  const levels = await levelsOf('splitOnSilence', samples, sampleRate, levelOptions)
  const found = vad ? checked(await vad(samples, sampleRate), levels.duration) : segmentsOf(levels)
  const pieces: Segment[] = []
  for (const [begin, end] of found) {
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
    // A millisecond more is rounding.
    if (!(begin >= before && end > begin && end <= duration + 1e-3)) {
      throw new ConfigError(
        `splitOnSilence: vad must give segments in order within the clip's ${duration} s, not [${begin}, ${end}] behind ${before}`,
        { option: 'vad' },
      )
    }
    before = end
  }
  return segments.map(([begin, end]) => [begin, Math.min(end, duration)])
}

interface Levels {
  /** Of each frame, in decibels of full scale. */
  decibels: Float64Array
  frameSeconds: number
  duration: number
  settings: Required<EnergyVadOptions>
}

async function levelsOf(
  where: string,
  samples: Tensor,
  sampleRate: number,
  options: EnergyVadOptions,
): Promise<Levels> {
  requireSamples(where, samples)
  requireNumber(where, 'sampleRate', sampleRate, { least: 1, below: Number.POSITIVE_INFINITY })
  requireOptions(where, options, LEVELS)
  const { frameSeconds = 0.02, topDb = 40, floorDb = -70, minSilence = 0.3, minSpeech = 0.1, padding = 0.1 } = options
  requireNumber(where, 'frameSeconds', frameSeconds, { least: 0, below: Number.POSITIVE_INFINITY })
  requireNumber(where, 'floorDb', floorDb)
  for (const [name, value] of Object.entries({ topDb, minSilence, minSpeech, padding })) {
    requireNumber(where, name, value, { least: 0 })
  }
  if (samples.ndim !== 1) {
    throw new ConfigError(`${where}: samples must be one signal [n], not [${samples.shape}]; mixChannels makes one`)
  }
  const length = Math.max(1, Math.round(frameSeconds * sampleRate))
  const whole = Math.floor(samples.size(0) / length)
  const norms = await scope(async () => {
    const sound = samples.detach()
    const frames = sound.narrow(0, 0, whole * length).reshape([whole, length])
    const rest = sound.narrow(0, whole * length, samples.size(0) - whole * length).reshape([1, -1])
    const norm = (rows: Tensor) => ops.async.linalgVectorNorm(rows, 2, [1])
    const all = [await norm(frames)]
    if (rest.numel() > 0) all.push((await norm(rest)).mul(Math.sqrt(length / rest.numel())))
    return ops.cat(all).data()
  })
  return {
    decibels: Float64Array.from(norms as Float32Array, (norm) => 20 * Math.log10(norm / Math.sqrt(length))),
    frameSeconds: length / sampleRate,
    duration: samples.size(0) / sampleRate,
    settings: { frameSeconds, topDb, floorDb, minSilence, minSpeech, padding },
  }
}

/** Seconds of a window that a threshold is measured over, and between the beginnings of two windows. */
const WINDOW = 10
const HOP = 0.5
/** Decibels between percentiles of a window below which it is steady, and of a clip. */
const STEADY = 6
const STEADY_CLIP = 12
/** Decibels that sound is above the background, and that a threshold is below the 95th percentile. */
const ABOVE_BACKGROUND = 6
const SURE = 20

/** Counts levels in bins of half a decibel, so that percentiles of a window that moves cost no sorting. */
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

  percentile(share: number): number {
    let left = share * this.#total
    for (let bin = 0; bin < LevelCounts.#bins; bin += 1) {
      left -= this.#counts[bin]!
      if (left < 0) return LevelCounts.#lowest + bin / 2
    }
    return LevelCounts.#lowest + LevelCounts.#bins / 2
  }
}

/** The level from which on a frame counts, for each block of `hop` frames. */
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
    // Where the level moves most of the time, its low percentile may be soft speech.
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
  const sounds: Segment[] = []
  for (let i = 0; i < decibels.length; i += 1) {
    if (!(decibels[i]! >= thresholds[Math.floor(i / hop)]!)) continue
    const last = sounds.at(-1)
    const begin = i * frameSeconds
    const end = Math.min(duration, (i + 1) * frameSeconds)
    if (last !== undefined && begin - last[1] < minSilence) last[1] = end
    else sounds.push([begin, end])
  }
  return padSegments(
    sounds.filter(([begin, end]) => end - begin >= minSpeech),
    duration,
    padding,
  )
}

/** Return segments in order with so many seconds more on either side; two of them share a shorter pause between them. */
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

/** The middle of the frame with the lowest level between two moments. */
function quietest({ decibels, frameSeconds }: Levels, from: number, to: number): number {
  let best = Math.ceil(from / frameSeconds)
  for (let i = best; (i + 1) * frameSeconds <= to && i < decibels.length; i += 1) {
    if (decibels[i]! < decibels[best]!) best = i
  }
  return Math.min(to, (best + 0.5) * frameSeconds)
}
