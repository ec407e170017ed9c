import type { Decoded } from './decoder.js'
import { CosineTransform } from './fourier.js'
import type { Packet, PacketDecoder } from './ogg.js'
import { bitsOf, type Floor, type Mapping, PacketBits, type Residue, readSetup, type Setup } from './vorbis-setup.js'

const ranges = [256, 128, 86, 64]
/** Table of gains from -139.45 dB to 0 in 256 steps. */
const decibels = Float32Array.from({ length: 256 }, (_, i) => 10 ** (((i - 255) * 140) / 256 / 20))

/**
 * Decoder of Vorbis I (https://xiph.org/vorbis/doc/Vorbis_I_spec.html), without floors of type 0. Channels keep the order of the
 * stream, as with libsndfile: three channels are left, center, right.
 */
export class VorbisDecoder implements PacketDecoder {
  readonly #channels: number
  readonly #sampleRate: number
  readonly #sizes: readonly [number, number]
  readonly #transforms: readonly CosineTransform[]
  readonly #windows: readonly Float32Array[]
  #setup: Setup | undefined
  #headers = 1
  /** Windowed second half of the previous block, and the length of that block. */
  #overlap: Float32Array[] = []
  #before = 0
  #decoded = 0
  /** Granule position, once a page has stated it. */
  #position: number | undefined

  /** @param first packet of the stream */
  constructor(first: Uint8Array) {
    const bits = new PacketBits(first)
    bits.pass(56)
    const version = bits.read(32)
    this.#channels = bits.read(8)
    this.#sampleRate = bits.read(32)
    bits.pass(96)
    this.#sizes = [2 ** bits.read(4), 2 ** bits.read(4)]
    const [short, long] = this.#sizes
    const framing = bits.read(1)
    if (version !== 0 || bits.over || framing !== 1)
      throw new Error('expected a Vorbis identification header of version 0')
    if (this.#channels === 0 || this.#sampleRate === 0 || short < 64 || long > 8192 || short > long) {
      throw new Error(
        `unsupported Vorbis header: ${this.#channels} channels at ${this.#sampleRate} Hz in blocks of ${short} and ${long} samples`,
      )
    }
    this.#transforms = this.#sizes.map((size) => new CosineTransform(size / 2))
    this.#windows = this.#sizes.map((size) =>
      Float32Array.from({ length: size / 2 }, (_, i) =>
        Math.sin((Math.PI / 2) * Math.sin(((i + 0.5) / size) * Math.PI) ** 2),
      ),
    )
  }

  decode({ bytes, granule, last }: Packet): Decoded | undefined {
    if (bytes.length === 0) return undefined
    if ((bytes[0]! & 1) === 1) {
      this.#header(bytes)
      return undefined
    }
    if (this.#setup === undefined) throw new Error('expected the Vorbis setup header before the samples')
    const planes = this.#block(new PacketBits(bytes), this.#setup)
    const [begin, end] = this.#place(planes === undefined ? 0 : planes[0]!.length, granule, last)
    if (planes === undefined) return undefined
    const channelData = planes.map((plane) => plane.subarray(begin, end))
    return { channelData, sampleRate: this.#sampleRate }
  }

  #header(bytes: Uint8Array): void {
    if (this.#setup !== undefined || this.#headers > 3) return
    this.#headers += 1
    if (bytes[0] === 5) this.#setup = readSetup(bytes, this.#channels)
  }

  /** Trim a block to the start and end of the stream that the granule positions state. */
  #place(count: number, granule: number | undefined, last: boolean): [number, number] {
    this.#decoded += count
    if (this.#position !== undefined) this.#position += count
    if (granule === undefined) return [0, count]
    const here = this.#position ?? this.#decoded
    const extra = Math.min(Math.max(0, here - granule), count)
    const first = this.#position === undefined
    this.#position = granule
    if (last) return [0, count - extra]
    return first ? [extra, count] : [0, count]
  }

  #block(bits: PacketBits, setup: Setup): Float32Array[] | undefined {
    bits.read(1)
    const mode = setup.modes[bits.read(bitsOf(setup.modes.length - 1))]
    if (mode === undefined) throw new Error('a Vorbis block has an unknown mode; the file is damaged')
    const [short, long] = this.#sizes
    const size = mode.long ? long : short
    let [left, right] = [size, size]
    if (mode.long) {
      left = bits.read(1) === 1 ? long : short
      right = bits.read(1) === 1 ? long : short
    }
    if (bits.over) throw new Error('a Vorbis block is empty; the file is damaged')
    const spectra = this.#spectra(bits, mode.mapping, size / 2)
    const transform = this.#transforms[mode.long ? 1 : 0]!
    const before = this.#before
    const planes = spectra.map((spectrum, channel) => {
      if (spectrum !== undefined) transform.run(spectrum)
      return this.#overlapped(channel, spectrum, size, left, right, before)
    })
    this.#before = size
    return before === 0 ? undefined : planes
  }

  /**
   * Return the samples between the centers of the previous and this block. The inverse transform is unfolded here: its first half
   * is [u(half..), -u reversed], the second half continues in reverse.
   */
  #overlapped(
    channel: number,
    u: Float64Array | undefined,
    size: number,
    left: number,
    right: number,
    before: number,
  ): Float32Array {
    const half = size / 2
    const quarter = size / 4
    const held = this.#overlap[channel]
    const count = before === 0 ? 0 : before / 4 + quarter
    const out = new Float32Array(count)
    if (held !== undefined) out.set(held.subarray(0, count))
    if (u !== undefined && count > 0) {
      // The slope is centered between both blocks.
      const window = this.#windows[left === this.#sizes[1] ? 1 : 0]!
      const slope = left / 2
      const begin = quarter - slope / 2
      const shift = count - half
      for (let i = Math.max(begin, -shift); i < half; i += 1) {
        const value = i < quarter ? u[i + quarter]! : -u[size - quarter - 1 - i]!
        const gain = i < begin + slope ? window[i - begin]! : 1
        out[shift + i] = out[shift + i]! + value * gain
      }
    }
    const slope = right / 2
    const begin = quarter - slope / 2
    const window = this.#windows[right === this.#sizes[1] ? 1 : 0]!
    const next = new Float32Array(begin + slope)
    if (u !== undefined) {
      for (let i = 0; i < next.length; i += 1) {
        const value = i < quarter ? -u[quarter - 1 - i]! : -u[i - quarter]!
        next[i] = i < begin ? value : value * window[next.length - 1 - i]!
      }
    }
    this.#overlap[channel] = next
    return out
  }

  /** Decode the spectra of a block: [channels, half], undefined for silence. */
  #spectra(bits: PacketBits, mapping: Mapping, half: number): (Float64Array | undefined)[] {
    const floors = mapping.submaps.map((submap) => readCurve(bits, mapping.floors[submap]!, this.#setup!))
    const wanted = floors.map((curve) => curve !== undefined)
    for (const { magnitude, angle } of mapping.couplings) {
      if (wanted[magnitude] || wanted[angle]) wanted[magnitude] = wanted[angle] = true
    }
    const spectra = wanted.map(() => new Float64Array(half))
    mapping.residues.forEach((residue, submap) => {
      const members = spectra.map((_, channel) => channel).filter((channel) => mapping.submaps[channel] === submap)
      const memberSpectra = members.map((channel) => spectra[channel]!)
      readResidues(
        bits,
        residue,
        memberSpectra,
        members.map((channel) => wanted[channel]!),
      )
    })
    for (const { magnitude, angle } of [...mapping.couplings].reverse()) uncouple(spectra[magnitude]!, spectra[angle]!)
    return spectra.map((spectrum, channel) => {
      const heights = floors[channel]
      if (heights === undefined) return undefined
      multiplyByCurve(spectrum, mapping.floors[mapping.submaps[channel]!]!, heights)
      return spectrum
    })
  }
}

/** Read the heights of a floor's points, -1 for those on the interpolated line; undefined for silence. */
function readCurve(bits: PacketBits, floor: Floor, { books }: Setup): Int32Array | undefined {
  if (bits.read(1) === 0) return undefined
  const range = ranges[floor.multiplier - 1]!
  const coded = [bits.read(bitsOf(range - 1)), bits.read(bitsOf(range - 1))]
  for (const partition of floor.partitions) {
    const { dimensions, subclassBits, master, books: classBooks } = floor.classes[partition]!
    let classes = subclassBits > 0 ? books[master]!.read(bits) : 0
    for (let i = 0; i < dimensions; i += 1) {
      const book = classBooks[classes & ((1 << subclassBits) - 1)]!
      classes >>= subclassBits
      coded.push(book >= 0 ? books[book]!.read(bits) : 0)
    }
  }
  if (bits.over) return undefined
  const heights = Int32Array.from(coded)
  const used = heights.map((_, i) => (i < 2 ? 1 : 0))
  for (let i = 2; i < heights.length; i += 1) {
    const low = floor.low[i]!
    const high = floor.high[i]!
    const expected = lineAt(floor.xs[low]!, heights[low]!, floor.xs[high]!, heights[high]!, floor.xs[i]!)
    const value = coded[i]!
    if (value === 0) {
      heights[i] = expected
      continue
    }
    used[low] = used[high] = used[i] = 1
    const above = range - expected
    // Small differences alternate in sign; those that exceed the range on one side are on the other.
    if (value < 2 * Math.min(above, expected)) {
      heights[i] = value % 2 === 1 ? expected - (value + 1) / 2 : expected + value / 2
    } else {
      heights[i] = above > expected ? value : range - 1 - value
    }
  }
  return heights.map((height, i) => (used[i] === 1 ? height : -1))
}

/** Return the integer height of a line at `x`, rounded toward its start. */
function lineAt(x0: number, y0: number, x1: number, y1: number, x: number): number {
  const off = Math.floor((Math.abs(y1 - y0) * (x - x0)) / (x1 - x0))
  return y1 < y0 ? y0 - off : y0 + off
}

function multiplyByCurve(spectrum: Float64Array, floor: Floor, heights: Int32Array): void {
  const half = spectrum.length
  const gain = (height: number) => decibels[Math.max(0, Math.min(255, height))]!
  let x0 = 0
  let y0 = heights[floor.order[0]!]! * floor.multiplier
  for (const place of floor.order.slice(1)) {
    if (heights[place]! < 0) continue
    const x1 = floor.xs[place]!
    const y1 = heights[place]! * floor.multiplier
    for (let x = x0; x < Math.min(x1, half); x += 1) spectrum[x] = spectrum[x]! * gain(lineAt(x0, y0, x1, y1, x))
    x0 = x1
    y0 = y1
  }
  for (let x = x0; x < half; x += 1) spectrum[x] = spectrum[x]! * gain(y0)
}

/** Add the passes of a residue to the spectra of its channels. */
function readResidues(bits: PacketBits, residue: Residue, spectra: Float64Array[], wanted: boolean[]): void {
  if (!wanted.some(Boolean)) return
  const half = spectra[0]!.length
  if (residue.type < 2) {
    readPasses(
      bits,
      residue,
      spectra.filter((_, i) => wanted[i]),
    )
    return
  }
  // Type 2 interleaves the channels into one vector.
  const width = spectra.length
  const whole = width === 1 ? spectra[0]! : new Float64Array(half * width)
  readPasses(bits, residue, [whole])
  if (width === 1) return
  for (let i = 0, at = 0; i < half; i += 1) for (let j = 0; j < width; j += 1, at += 1) spectra[j]![i] = whole[at]!
}

function readPasses(bits: PacketBits, residue: Residue, vectors: Float64Array[]): void {
  const { classBook, partitionSize, books } = residue
  const begin = Math.min(residue.begin, vectors[0]!.length)
  const partitions = Math.floor((Math.min(residue.end, vectors[0]!.length) - begin) / partitionSize)
  const group = classBook.dimensions
  const classes = vectors.map(() => new Uint8Array(Math.max(0, partitions) + group))
  for (let pass = 0; pass < 8; pass += 1) {
    if (pass > 0 && books.every((passes) => passes[pass] === undefined)) continue
    for (let first = 0; first < partitions; first += group) {
      if (pass === 0) {
        for (const channelClasses of classes) {
          let packed = classBook.read(bits)
          if (packed < 0) return
          for (let i = group - 1; i >= 0; i -= 1) {
            channelClasses[first + i] = packed % books.length
            packed = Math.floor(packed / books.length)
          }
        }
      }
      for (let partition = first; partition < Math.min(first + group, partitions); partition += 1) {
        for (let j = 0; j < vectors.length; j += 1) {
          const book = books[classes[j]![partition]!]![pass]
          if (book === undefined) continue
          const at = begin + partition * partitionSize
          const { dimensions } = book
          const numbers = book.vectors!
          // Type 0 spreads the numbers of a vector over the partition, the others store them contiguously.
          const rows = Math.floor(partitionSize / dimensions)
          const apart = residue.type === 0 ? rows : 1
          const vector = vectors[j]!
          for (let row = 0; row < rows; row += 1) {
            const entry = book.read(bits)
            if (entry < 0) return
            const from = at + (residue.type === 0 ? row : row * dimensions)
            for (let i = 0; i < dimensions; i += 1) {
              vector[from + i * apart] = vector[from + i * apart]! + numbers[entry * dimensions + i]!
            }
          }
        }
      }
    }
  }
}

/** Restore two channels from square polar coupling (magnitude and angle). */
function uncouple(magnitudes: Float64Array, angles: Float64Array): void {
  for (let i = 0; i < magnitudes.length; i += 1) {
    const m = magnitudes[i]!
    const a = angles[i]!
    if (m > 0) {
      if (a > 0) angles[i] = m - a
      else {
        angles[i] = m
        magnitudes[i] = m + a
      }
    } else if (a > 0) {
      angles[i] = m + a
    } else {
      angles[i] = m
      magnitudes[i] = m - a
    }
  }
}
