import type { Mp3Header } from './mp3-header.js'
import { type Granule, longBands, type ScaleFactors } from './mp3-spectrum.js'
import { bands } from './mp3-tables.js'

interface Channel {
  spectrum: Float32Array
  scale: ScaleFactors | undefined
}

/** Decode joint stereo: mid/side, and intensity stereo above the end of the right channel. */
export function separate(channels: Channel[], granules: Granule[], header: Mp3Header): void {
  const [left, right] = [channels[0]!.spectrum, channels[1]!.spectrum]
  const placed = header.intensity ? placedLines(channels[1]!, granules[1]!, header) : undefined
  for (let i = 0; i < 576; i += 1) {
    const place = placed?.[i]
    if (place !== undefined) {
      const audio = left[i]!
      left[i] = audio * place[0]
      right[i] = audio * place[1]
    } else if (header.middleSide) {
      const middle = left[i]!
      const side = right[i]!
      left[i] = (middle + side) * Math.SQRT1_2
      right[i] = (middle - side) * Math.SQRT1_2
    }
  }
}

/** Return the gains of left and right of each line in the bands above the last nonzero band of the right channel. */
function placedLines(
  { spectrum, scale }: Channel,
  granule: Granule,
  header: Mp3Header,
): ([number, number] | undefined)[] | undefined {
  if (scale === undefined) return undefined
  const { long, short } = bands[header.sampleRate]!
  const lines: ([number, number] | undefined)[] = new Array(576).fill(undefined)
  const place = (factor: number): [number, number] | undefined =>
    shares(scale.values[factor]!, scale.illegal[factor]!, granule, header)
  const longs = longBands(granule, header.full)
  let silent = true
  if (granule.blockType === 2) {
    const first = longs > 0 ? 3 : 0
    for (let window = 0; window < 3; window += 1) {
      let quiet = true
      for (let band = 12; band >= first; band -= 1) {
        const factor = longs + 3 * (Math.min(band, 11) - first) + window
        for (let i = short[band]!; i < short[band + 1]!; i += 1) if (spectrum[3 * i + window] !== 0) quiet = false
        if (!quiet) break
        for (let i = short[band]!; i < short[band + 1]!; i += 1) lines[3 * i + window] = place(factor)
      }
      silent &&= quiet
    }
  }
  for (let band = longs - 1; band >= 0 && silent; band -= 1) {
    for (let i = long[band]!; i < long[band + 1]!; i += 1) if (spectrum[i] !== 0) silent = false
    if (silent) lines.fill(place(Math.min(band, 20)), long[band]!, long[band + 1]!)
  }
  return lines
}

function shares(
  position: number,
  illegal: number,
  granule: Granule,
  { full }: Mp3Header,
): [number, number] | undefined {
  if (position === illegal) return undefined
  if (full) {
    const ratio = Math.tan((position * Math.PI) / 12)
    return position === 6 ? [1, 0] : [ratio / (1 + ratio), 1 / (1 + ratio)]
  }
  const step = (granule.scaleCode & 1) === 1 ? Math.SQRT1_2 : 2 ** -0.25
  return position % 2 === 1 ? [step ** ((position + 1) / 2), 1] : [1, step ** (position / 2)]
}

const butterflies = [-0.6, -0.535, -0.33, -0.185, -0.095, -0.041, -0.0142, -0.0037].map((c) => ({
  same: 1 / Math.sqrt(1 + c * c),
  other: c / Math.sqrt(1 + c * c),
}))

/** Apply alias reduction between neighboring bands; short blocks have none. */
export function reduceAliasing(spectrum: Float32Array, { blockType, mixed }: Granule): void {
  const bandsToDo = blockType === 2 ? (mixed ? 1 : 0) : 31
  for (let band = 1; band <= bandsToDo; band += 1) {
    butterflies.forEach(({ same, other }, i) => {
      const up = spectrum[18 * band + i]!
      const down = spectrum[18 * band - 1 - i]!
      spectrum[18 * band + i] = up * same + down * other
      spectrum[18 * band - 1 - i] = down * same - up * other
    })
  }
}
