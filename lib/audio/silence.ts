import { requireFunction, requireNumber, requireOptions } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { ops, scope, type Tensor } from '../tensor/index.js'
import { requireSamples } from './resample.js'

/** [start, end] in seconds. */
export type Segment = [start: number, end: number]

export interface EnergyVadOptions {
  /** Length of the frames whose level is measured, in seconds. Default 0.02. */
  frameSeconds?: number
  /** How far below the loudest frame sound still counts, in decibels. Default 40. */
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
 * Where a clip [n] is not silent: segments in order, without overlap. A frame counts when its root mean square level is
 * within `topDb` of the loudest frame's.
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

function segmentsOf({ decibels, frameSeconds, duration, settings }: Levels): Segment[] {
  const { topDb, floorDb, minSilence, minSpeech, padding } = settings
  const loudest = decibels.reduce((most, level) => Math.max(most, level), Number.NEGATIVE_INFINITY)
  const least = Math.max(loudest - topDb, floorDb)
  const sounds: Segment[] = []
  for (let i = 0; i < decibels.length; i += 1) {
    if (!(decibels[i]! >= least)) continue
    const last = sounds.at(-1)
    const begin = i * frameSeconds
    const end = Math.min(duration, (i + 1) * frameSeconds)
    if (last !== undefined && begin - last[1] < minSilence) last[1] = end
    else sounds.push([begin, end])
  }
  const speech = sounds.filter(([begin, end]) => end - begin >= minSpeech)
  return speech.map(([begin, end], i) => {
    const before = speech[i - 1]?.[1]
    const after = speech[i + 1]?.[0]
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
