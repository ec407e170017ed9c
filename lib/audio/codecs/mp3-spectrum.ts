import type { Bits } from './bits.js'
import type { Mp3Header } from './mp3-header.js'
import { type Bands, pairCode, preemphasis, quadCode, scaleBits, scaleCounts } from './mp3-tables.js'

/** Side information of one channel in one granule. */
export interface Granule {
  /** Bits of scale factors and spectrum. */
  bits: number
  /** Number of value pairs before the quadruples. */
  pairs: number
  gain: number
  scaleCode: number
  /** 0: long, 1: start, 2: three short blocks, 3: stop. */
  blockType: number
  /** Whether the two lowest bands are long blocks, regardless of `blockType`. */
  mixed: boolean
  tables: number[]
  windowGains: number[]
  /** Bands before the second and third region; undefined if the block type determines them. */
  regions: [number, number] | undefined
  preemphasis: boolean
  /** Multiplier of the scale factors: 1 or 0.5. */
  step: number
  plainQuads: boolean
}

export interface SideInformation {
  /** Offset of the data, in bytes of earlier frames. */
  back: number
  /** [channel][4]: whether the second granule reuses the scale factors of the first. */
  shared: boolean[][]
  /** [granule][channel] */
  granules: Granule[][]
}

export function readGranules(bits: Bits, { full, channels }: Mp3Header): SideInformation {
  const back = bits.read(full ? 9 : 8)
  bits.read(full ? (channels === 1 ? 5 : 3) : channels)
  const shared = Array.from({ length: channels }, () =>
    Array.from({ length: 4 }, () => (full ? bits.read(1) === 1 : false)),
  )
  const granules = Array.from({ length: full ? 2 : 1 }, () =>
    Array.from({ length: channels }, () => readGranule(bits, full)),
  )
  return { back, shared, granules }
}

function readGranule(bits: Bits, full: boolean): Granule {
  const length = bits.read(12)
  const pairs = bits.read(9)
  const gain = bits.read(8)
  const scaleCode = bits.read(full ? 4 : 9)
  const switched = bits.read(1) === 1
  const blockType = switched ? bits.read(2) : 0
  const mixed = switched && bits.read(1) === 1
  const tables = Array.from({ length: switched ? 2 : 3 }, () => bits.read(5))
  const windowGains = Array.from({ length: switched ? 3 : 0 }, () => bits.read(3))
  let regions: [number, number] | undefined
  if (!switched) {
    const first = bits.read(4) + 1
    regions = [first, first + bits.read(3) + 1]
  }
  const emphasised = full && bits.read(1) === 1
  const step = bits.read(1) === 1 ? 1 : 0.5
  const plainQuads = bits.read(1) === 1
  return {
    bits: length,
    pairs,
    gain,
    scaleCode,
    blockType,
    mixed: mixed && blockType === 2,
    tables,
    windowGains,
    regions,
    preemphasis: emphasised,
    step,
    plainQuads,
  }
}

export interface ScaleFactors {
  /** Scale factors of the long bands, then of each window of the short bands; the highest band has none. */
  values: Uint8Array
  /** Values that mean "no intensity position", for intensity stereo. */
  illegal: Uint8Array
  preemphasis: boolean
}

/** Return the number of long bands of a granule, before short ones. */
export function longBands({ blockType, mixed }: Granule, full: boolean): number {
  if (blockType !== 2) return 22
  return mixed ? (full ? 8 : 6) : 0
}

/** Value above any scale factor. */
const NO_PLACE = 255

/** Groups of bands whose scale factors the second granule may reuse. */
const sharedGroups = [0, 6, 11, 16, 21]

export function readScaleFactors(
  bits: Bits,
  granule: Granule,
  header: Mp3Header,
  channel: number,
  shared: boolean[],
  before: ScaleFactors | undefined,
): ScaleFactors {
  const values = new Uint8Array(40)
  const illegal = new Uint8Array(40).fill(7)
  if (!header.full) return readLowScaleFactors(bits, granule, header.intensity && channel === 1, values, illegal)
  const lower = scaleBits[0][granule.scaleCode]!
  const upper = scaleBits[1][granule.scaleCode]!
  if (granule.blockType === 2) {
    const count = granule.mixed ? 17 : 18
    for (let i = 0; i < count; i += 1) values[i] = bits.read(lower)
    for (let i = count; i < count + 18; i += 1) values[i] = bits.read(upper)
  } else {
    for (let group = 0; group < 4; group += 1) {
      for (let i = sharedGroups[group]!; i < sharedGroups[group + 1]!; i += 1) {
        if (before !== undefined && shared[group]) values[i] = before.values[i]!
        else values[i] = bits.read(group < 2 ? lower : upper)
      }
    }
  }
  return { values, illegal, preemphasis: granule.preemphasis }
}

/** Decode the bit widths of four groups of bands, which MPEG-2 packs into one code. */
function readLowScaleFactors(
  bits: Bits,
  granule: Granule,
  intensity: boolean,
  values: Uint8Array,
  illegal: Uint8Array,
): ScaleFactors {
  let code = granule.scaleCode
  let table: number
  let widths: number[]
  if (intensity) {
    code >>= 1
    if (code < 180) [table, widths] = [3, [Math.floor(code / 36), Math.floor((code % 36) / 6), code % 6, 0]]
    else if (code < 244) [table, widths] = [4, [(code - 180) >> 4, ((code - 180) >> 2) & 3, (code - 180) & 3, 0]]
    else [table, widths] = [5, [Math.floor((code - 244) / 3), (code - 244) % 3, 0, 0]]
  } else if (code < 400) {
    ;[table, widths] = [0, [Math.floor((code >> 4) / 5), (code >> 4) % 5, (code >> 2) & 3, code & 3]]
  } else if (code < 500) {
    ;[table, widths] = [1, [Math.floor(((code - 400) >> 2) / 5), ((code - 400) >> 2) % 5, (code - 400) & 3, 0]]
  } else {
    ;[table, widths] = [2, [Math.floor((code - 500) / 3), (code - 500) % 3, 0, 0]]
  }
  const counts = scaleCounts[table]![granule.blockType !== 2 ? 0 : granule.mixed ? 2 : 1]!
  let at = 0
  counts.forEach((count, group) => {
    for (let i = 0; i < count; i += 1, at += 1) {
      values[at] = bits.read(widths[group]!)
      // A factor of no bits is the place 0.
      illegal[at] = widths[group]! > 0 ? 2 ** widths[group]! - 1 : NO_PLACE
    }
  })
  return { values, illegal, preemphasis: table === 2 && !intensity }
}

const powers = Float64Array.from({ length: 8192 + 16 }, (_, i) => i ** (4 / 3))

/**
 * Read the spectrum of one channel: 576 values by frequency, those of three short blocks interleaved.
 * @returns the index after the last nonzero value, in file order
 */
export function readSpectrum(
  bits: Bits,
  end: number,
  granule: Granule,
  scale: ScaleFactors,
  header: Mp3Header,
  bands: Bands,
  spectrum: Float32Array,
): number {
  const coded = readNumbers(bits, end, granule, header, bands)
  const long = longBands(granule, header.full)
  let filled = 0
  const base = granule.gain - 210
  const put = (from: number, to: number, gain: number) => {
    const value = coded[from]!
    if (value === 0) return
    filled = Math.max(filled, from + 1)
    spectrum[to] = (value < 0 ? -powers[-value]! : powers[value]!) * gain
  }
  for (let band = 0; band < long; band += 1) {
    const raised = scale.values[band]! + (scale.preemphasis ? preemphasis[band]! : 0)
    const gain = 2 ** (base / 4 - granule.step * raised)
    for (let i = bands.long[band]!; i < bands.long[band + 1]!; i += 1) put(i, i, gain)
  }
  if (granule.blockType !== 2) return filled
  // The file stores short blocks window by window in each band; they are interleaved here.
  const first = long > 0 ? 3 : 0
  for (let band = first, factor = long, from = 3 * bands.short[first]!; band < 13; band += 1) {
    const begin = bands.short[band]!
    const width = bands.short[band + 1]! - begin
    for (let window = 0; window < 3; window += 1, factor += 1) {
      const gain = 2 ** ((base - 8 * granule.windowGains[window]!) / 4 - granule.step * scale.values[factor]!)
      for (let i = 0; i < width; i += 1, from += 1) put(from, 3 * (begin + i) + window, gain)
    }
  }
  return filled
}

function readNumbers(bits: Bits, end: number, granule: Granule, header: Mp3Header, bands: Bands): Int32Array {
  const coded = new Int32Array(580)
  const last = Math.min(576, 2 * granule.pairs)
  const [second, third] = regionEnds(granule, header, bands)
  let at = 0
  for (const [region, until] of [Math.min(second, last), Math.min(third, last), last].entries()) {
    const table = granule.tables[region]
    if (table === undefined || at >= until) continue
    const chosen = pairCode(table)
    if (chosen === undefined) {
      at = until
      continue
    }
    const { code, more } = chosen
    while (at < until) {
      const pair = code.read(bits)
      for (const number of [pair >> 4, pair & 15]) {
        let value = number
        if (value === 15 && more > 0) value += bits.read(more)
        coded[at] = value > 0 && bits.read(1) === 1 ? -value : value
        at += 1
      }
      if (bits.position > end) return coded
    }
  }
  while (at < 576 && bits.position < end) {
    const quad = granule.plainQuads ? 15 - bits.read(4) : quadCode.read(bits)
    for (let bit = 8; bit > 0; bit >>= 1, at += 1) {
      if ((quad & bit) !== 0) coded[at] = bits.read(1) === 1 ? -1 : 1
    }
    // The last code may extend into the following data.
    if (bits.position > end) coded.fill(0, at - 4)
  }
  return coded.fill(0, 576)
}

function regionEnds(granule: Granule, { full, quarter }: Mp3Header, { long }: Bands): [number, number] {
  if (granule.regions !== undefined) {
    const [second, third] = granule.regions
    return [long[Math.min(22, second)]!, long[Math.min(22, third)]!]
  }
  const short = granule.blockType === 2
  if (quarter) return [long[short && !granule.mixed ? 6 : 8]!, 576]
  return [full || short ? 36 : 54, 576]
}
