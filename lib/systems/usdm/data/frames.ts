import { argumentError, isArrayLike, requireOptions, requireWhole } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'

export interface FrameUnitsOptions {
  /** Vocoder samples per unit. Default 441: 1/50 s at 22.05 kHz. */
  samplesPerUnit?: number
  /** Samples between neighboring frames of the mel spectrogram. Default 256. */
  hopLength?: number
}

/** Return the number of frames of `units` units: 441 · units / 256, rounded down. */
export function unitFrames(units: number, options: FrameUnitsOptions = {}): number {
  requireWhole('unitFrames', 'units', units)
  const { samplesPerUnit, hopLength } = steps('unitFrames', options)
  return Math.floor((units * samplesPerUnit) / hopLength)
}

function steps(where: string, options: FrameUnitsOptions): Required<FrameUnitsOptions> {
  requireOptions(where, options, ['samplesPerUnit', 'hopLength'])
  const { samplesPerUnit = 441, hopLength = 256 } = options
  requireWhole(where, 'samplesPerUnit', samplesPerUnit, 1)
  requireWhole(where, 'hopLength', hopLength, 1)
  return { samplesPerUnit, hopLength }
}

/**
 * Return the unit of each frame of a mel spectrogram. Each unit lasts 441 samples. A frame of 256 samples gets the unit that covers
 * most of it, or the smaller one of two equal halves. For example, 50 units become 86 frames.
 * @throws ConfigError for frames longer than a unit, and for `units` that are not a list of integers
 */
export function frameUnits(units: ArrayLike<number>, options: FrameUnitsOptions = {}): Int32Array {
  if (!isArrayLike(units)) throw argumentError('frameUnits', 'units', 'a list of units', units)
  for (let i = 0; i < units.length; i++) requireWhole('frameUnits', `units[${i}]`, units[i], Number.MIN_SAFE_INTEGER)
  const { samplesPerUnit, hopLength } = steps('frameUnits', options)
  if (hopLength > samplesPerUnit) {
    throw new ConfigError(
      `frameUnits: expected hopLength of at most samplesPerUnit, ${samplesPerUnit}, got ${hopLength}.`,
      { samplesPerUnit, hopLength },
    )
  }
  return Int32Array.from({ length: unitFrames(units.length, { samplesPerUnit, hopLength }) }, (_, frame) => {
    const from = frame * hopLength
    const at = Math.floor(from / samplesPerUnit)
    const [first, next] = [units[at] as number, units[at + 1] ?? -1]
    // A frame overlaps at most two units.
    const firstSamples = Math.min(hopLength, (at + 1) * samplesPerUnit - from)
    if (firstSamples === hopLength || first === next) return first
    if (2 * firstSamples === hopLength) return Math.min(first, next)
    return 2 * firstSamples > hopLength ? first : next
  })
}
