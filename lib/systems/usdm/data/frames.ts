import { isArrayLike, misuse, requireOptions, requireWhole } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'

export interface FrameUnitsOptions {
  /** Samples of the vocoder that a unit lasts. Default 441: a fiftieth of a second at 22.05 kHz. */
  samplesPerUnit?: number
  /** Samples from one frame of the mel spectrogram to the next. Default 256. */
  hopLength?: number
}

/** How many frames so many units become: 441 · units / 256, rounded down. */
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
 * The unit of each frame of a mel spectrogram: each unit lasts 441 samples, and a frame of 256 gets the one that has most of it;
 * of two that have as much, the smaller. Of 50 units 86 frames.
 * @throws ConfigError for frames that are longer than a unit, and for what is no list of units
 */
export function frameUnits(units: ArrayLike<number>, options: FrameUnitsOptions = {}): Int32Array {
  if (!isArrayLike(units)) throw misuse('frameUnits', 'units', 'a list of units', units)
  for (let i = 0; i < units.length; i++) requireWhole('frameUnits', `units[${i}]`, units[i], Number.MIN_SAFE_INTEGER)
  const { samplesPerUnit, hopLength } = steps('frameUnits', options)
  if (hopLength > samplesPerUnit) {
    throw new ConfigError(`frameUnits: a frame of ${hopLength} samples is longer than a unit of ${samplesPerUnit}`, {
      samplesPerUnit,
      hopLength,
    })
  }
  return Int32Array.from({ length: unitFrames(units.length, { samplesPerUnit, hopLength }) }, (_, frame) => {
    const from = frame * hopLength
    const at = Math.floor(from / samplesPerUnit)
    const [first, next] = [units[at] as number, units[at + 1] ?? -1]
    // A frame meets two units at most.
    const own = Math.min(hopLength, (at + 1) * samplesPerUnit - from)
    if (own === hopLength || first === next) return first
    if (2 * own === hopLength) return Math.min(first, next)
    return 2 * own > hopLength ? first : next
  })
}
