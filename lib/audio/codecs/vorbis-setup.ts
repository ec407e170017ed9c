/** Bit reader that starts at the least significant bit, as Vorbis needs it. Reading past the end of a packet sets `over`. */
export class PacketBits {
  over = false
  #position = 0

  constructor(readonly bytes: Uint8Array) {}

  /** Read an unsigned integer of 0 to 32 bits; 0 if the packet ends before. */
  read(count: number): number {
    if (this.#position + count > 8 * this.bytes.length) {
      this.over = true
      return 0
    }
    const value = this.#peek(count)
    this.#position += count
    return value
  }

  /** Return the next bits, up to 24, without reading them; zeros after the end. */
  peek(count: number): number {
    return this.#peek(count)
  }

  /** Skip bits after `peek`. */
  pass(count: number): void {
    this.#position += count
    if (this.#position > 8 * this.bytes.length) this.over = true
  }

  #peek(count: number): number {
    const at = this.#position >> 3
    const { bytes } = this
    const low =
      (bytes[at] ?? 0) | ((bytes[at + 1] ?? 0) << 8) | ((bytes[at + 2] ?? 0) << 16) | ((bytes[at + 3] ?? 0) << 24)
    const shift = this.#position & 7
    let value = low >>> shift
    if (shift + count > 32) value = (value | ((bytes[at + 4] ?? 0) << (32 - shift))) >>> 0
    return count === 32 ? value : (value & (2 ** count - 1)) >>> 0
  }
}

/** Return the number of bits of an integer. */
export const bitsOf = (value: number): number => 32 - Math.clz32(value)

const QUICK = 10
/** Most numbers in all codebooks together; files of usual encoders have a few thousand. */
const MOST_ENTRIES = 1 << 20
const MOST_NUMBERS = 1 << 22

/** Codebook: each codeword stands for a number or, with `vectors`, for `dimensions` numbers. */
export class Codebook {
  /** Lookup by the next ten bits: the entry and, above it, the length of the codeword; 0 for longer codewords. */
  readonly #quick = new Int32Array(1 << QUICK)
  /** Two branches per node: the complement of an entry, or a node index. */
  #tree: Int32Array
  #nodes = 1

  constructor(
    readonly dimensions: number,
    readonly entries: number,
    lengths: Uint8Array,
    /** [entries, dimensions], or undefined for scalar entries. */
    readonly vectors: Float32Array | undefined,
  ) {
    this.#tree = new Int32Array(2 * Math.max(2, entries))
    this.#assign(lengths)
  }

  /** Assign to each entry the lowest free codeword of its length. */
  #assign(lengths: Uint8Array): void {
    const used = lengths.reduce((count, length) => count + (length > 0 ? 1 : 0), 0)
    if (used === 0) return
    const fail = () => new Error('expected codeword lengths that form a tree, got a damaged codebook')
    if (used === 1) {
      // A single entry: both values of the bit select it.
      const entry = lengths.findIndex((length) => length > 0)
      if (lengths[entry] !== 1) throw fail()
      this.#tree.fill(~entry, 0, 2)
      this.#quick.fill((1 << 24) | entry)
      return
    }
    // The bits of the free branch of each length, or -1. There is never more than one.
    const free = new Float64Array(33).fill(-1)
    free[0] = 0
    for (let entry = 0; entry < lengths.length; entry += 1) {
      const length = lengths[entry]!
      if (length === 0) continue
      let from = length
      while (from >= 0 && free[from]! < 0) from -= 1
      if (from < 0) throw fail()
      const word = free[from]! * 2 ** (length - from)
      free[from] = -1
      for (let below = from + 1; below <= length; below += 1) free[below] = Math.floor(word / 2 ** (length - below)) + 1
      this.#add(entry, word, length)
    }
    if (free.some((word) => word >= 0)) throw fail()
  }

  #add(entry: number, word: number, length: number): void {
    let node = 0
    for (let bit = length - 1; bit > 0; bit -= 1) {
      const branch = 2 * node + (Math.floor(word / 2 ** bit) & 1)
      if (this.#tree[branch] === 0) {
        if (2 * this.#nodes >= this.#tree.length) this.#grow()
        this.#tree[branch] = this.#nodes
        this.#nodes += 1
      }
      node = this.#tree[branch]!
    }
    this.#tree[2 * node + (word & 1)] = ~entry
    if (length > QUICK) return
    let reversed = 0
    for (let bit = 0; bit < length; bit += 1) reversed |= ((word >> bit) & 1) << (length - 1 - bit)
    for (let rest = reversed; rest < 1 << QUICK; rest += 1 << length) this.#quick[rest] = (length << 24) | entry
  }

  #grow(): void {
    const larger = new Int32Array(2 * this.#tree.length)
    larger.set(this.#tree)
    this.#tree = larger
  }

  /** Read the next entry; -1 at the end of the packet. */
  read(bits: PacketBits): number {
    const quick = this.#quick[bits.peek(QUICK)]!
    if (quick !== 0) {
      bits.pass(quick >> 24)
      return bits.over ? -1 : quick & 0xffffff
    }
    let node = 0
    for (let length = 0; length < 32; length += 1) {
      node = this.#tree[2 * node + bits.read(1)]!
      if (bits.over || node === 0) break
      if (node < 0) return ~node
    }
    bits.over = true
    return -1
  }
}

function readCodebook(bits: PacketBits, budget: { entries: number; numbers: number }): Codebook {
  if (bits.read(24) !== 0x564342) throw new Error('expected a Vorbis codebook, got another signature')
  const dimensions = bits.read(16)
  const entries = bits.read(24)
  budget.entries -= entries
  if (dimensions === 0 || bitsOf(dimensions) + bitsOf(entries) > 24 || budget.entries < 0) {
    throw new Error(`unsupported Vorbis codebook of ${entries} entries with ${dimensions} dimensions`)
  }
  const lengths = new Uint8Array(entries)
  if (bits.read(1) === 1) {
    let length = bits.read(5) + 1
    for (let entry = 0; entry < entries; length += 1) {
      const count = bits.read(bitsOf(entries - entry))
      if (length > 32 || entry + count > entries || bits.over)
        throw new Error('a Vorbis codebook has invalid codeword lengths')
      lengths.fill(length, entry, entry + count)
      entry += count
    }
  } else {
    const sparse = bits.read(1) === 1
    for (let entry = 0; entry < entries && !bits.over; entry += 1) {
      if (!sparse || bits.read(1) === 1) lengths[entry] = bits.read(5) + 1
    }
  }
  const lookup = bits.read(4)
  if (lookup > 0) budget.numbers -= entries * dimensions
  if (budget.numbers < 0) throw new Error('the Vorbis codebooks have more numbers than any encoder writes')
  if (lookup > 2) throw new Error(`Vorbis codebook: expected lookup type 0, 1 or 2, got ${lookup}`)
  return new Codebook(
    dimensions,
    entries,
    lengths,
    lookup === 0 ? undefined : readVectors(bits, lookup, dimensions, entries),
  )
}

function readVectors(bits: PacketBits, lookup: number, dimensions: number, entries: number): Float32Array {
  const least = unpackFloat(bits.read(32))
  const step = unpackFloat(bits.read(32))
  const width = bits.read(4) + 1
  const running = bits.read(1) === 1
  const count = lookup === 1 ? wholeRoot(entries, dimensions) : entries * dimensions
  const steps = new Uint16Array(count)
  for (let i = 0; i < count && !bits.over; i += 1) steps[i] = bits.read(width)
  const vectors = new Float32Array(entries * dimensions)
  for (let entry = 0; entry < entries; entry += 1) {
    let last = 0
    let divisor = 1
    for (let i = 0; i < dimensions; i += 1) {
      const place = lookup === 1 ? Math.floor(entry / divisor) % count : entry * dimensions + i
      const value = steps[place]! * step + least + last
      if (running) last = value
      vectors[entry * dimensions + i] = value
      divisor *= count
    }
  }
  return vectors
}

/** Return the largest integer whose power is at most `value`. */
function wholeRoot(value: number, power: number): number {
  let root = Math.floor(value ** (1 / power)) + 1
  while (root ** power > value) root -= 1
  return root
}

/** Decode a 32-bit float of sign, 10 bits of exponent and 21 of mantissa. */
function unpackFloat(bits: number): number {
  const mantissa = bits & 0x1fffff
  const exponent = (bits >>> 21) & 0x3ff
  return (bits >>> 31 === 1 ? -mantissa : mantissa) * 2 ** (exponent - 788)
}

/** Floor of type 1: a piecewise linear curve in decibels that scales the spectrum of a channel. */
export interface Floor {
  classes: { dimensions: number; subclassBits: number; master: number; books: number[] }[]
  partitions: number[]
  multiplier: number
  /** Positions of the points, in coding order. */
  xs: number[]
  /** Indices of `xs` in ascending order, and the nearest neighbors of each point among the points before it. */
  order: number[]
  low: number[]
  high: number[]
}

function readFloor(bits: PacketBits, books: Codebook[]): Floor {
  const type = bits.read(16)
  if (type === 0) throw new Error('unsupported: Vorbis floor of type 0, which no encoder has written since 2001')
  if (type !== 1) throw new Error(`Vorbis floor: expected type 1, got ${type}`)
  const partitions = Array.from({ length: bits.read(5) }, () => bits.read(4))
  const classes = Array.from({ length: Math.max(-1, ...partitions) + 1 }, () => {
    const dimensions = bits.read(3) + 1
    const subclassBits = bits.read(2)
    const master = subclassBits > 0 ? bits.read(8) : -1
    const chosen = Array.from({ length: 1 << subclassBits }, () => bits.read(8) - 1)
    if (master >= books.length || chosen.some((book) => book >= books.length)) throw unknown('codebook')
    return { dimensions, subclassBits, master, books: chosen }
  })
  const multiplier = bits.read(2) + 1
  const rangeBits = bits.read(4)
  const xs = [0, 2 ** rangeBits]
  for (const partition of partitions) {
    for (let i = 0; i < classes[partition]!.dimensions; i += 1) xs.push(bits.read(rangeBits))
  }
  if (xs.length > 65 || new Set(xs).size < xs.length)
    throw new Error('Vorbis floor: expected at most 65 different positions')
  const order = xs.map((_, i) => i).sort((a, b) => xs[a]! - xs[b]!)
  const nearest = (i: number, side: 1 | -1) => {
    let best = side === 1 ? 1 : 0
    for (let j = 0; j < i; j += 1) if ((xs[j]! - xs[i]!) * side > 0 && (xs[j]! - xs[best]!) * side < 0) best = j
    return best
  }
  return {
    classes,
    partitions,
    multiplier,
    xs,
    order,
    low: xs.map((_, i) => nearest(i, -1)),
    high: xs.map((_, i) => nearest(i, 1)),
  }
}

/** Residue: the spectrum divided by the floor, in partitions whose class selects the codebooks, in up to eight passes. */
export interface Residue {
  type: number
  begin: number
  end: number
  partitionSize: number
  classBook: Codebook
  /** [classes, 8] */
  books: (Codebook | undefined)[][]
}

function readResidue(bits: PacketBits, codebooks: Codebook[]): Residue {
  const type = bits.read(16)
  if (type > 2) throw new Error(`Vorbis residue: expected type 0, 1 or 2, got ${type}`)
  const begin = bits.read(24)
  const end = bits.read(24)
  const partitionSize = bits.read(24) + 1
  const classes = bits.read(6) + 1
  const classBook = codebooks[bits.read(8)]
  if (classBook === undefined) throw unknown('codebook')
  const cascades = Array.from({ length: classes }, () => bits.read(3) | (bits.read(1) === 1 ? bits.read(5) << 3 : 0))
  const books = cascades.map((cascade) =>
    Array.from({ length: 8 }, (_, pass) => {
      if (((cascade >> pass) & 1) === 0) return undefined
      const book = codebooks[bits.read(8)]
      if (book?.vectors === undefined) throw unknown('codebook of vectors')
      return book
    }),
  )
  return { type, begin, end, partitionSize, classBook, books }
}

/** Mapping of channels to floors and residues, and pairs of channels stored as magnitude and angle. */
export interface Mapping {
  couplings: { magnitude: number; angle: number }[]
  /** Submap of each channel. */
  submaps: number[]
  floors: Floor[]
  residues: Residue[]
}

function readMapping(bits: PacketBits, channels: number, floors: Floor[], residues: Residue[]): Mapping {
  if (bits.read(16) !== 0) throw unknown('mapping')
  const count = bits.read(1) === 1 ? bits.read(4) + 1 : 1
  const width = bitsOf(channels - 1)
  const couplings = Array.from({ length: bits.read(1) === 1 ? bits.read(8) + 1 : 0 }, () => {
    const [magnitude, angle] = [bits.read(width), bits.read(width)]
    if (magnitude === angle || magnitude >= channels || angle >= channels) throw unknown('coupled channel')
    return { magnitude, angle }
  })
  if (bits.read(2) !== 0) throw unknown('mapping')
  const submaps = Array.from({ length: channels }, () => (count > 1 ? bits.read(4) : 0))
  const parts = Array.from({ length: count }, () => {
    bits.read(8)
    const [floor, residue] = [floors[bits.read(8)], residues[bits.read(8)]]
    if (floor === undefined || residue === undefined) throw unknown('floor or residue')
    return { floor, residue }
  })
  if (submaps.some((submap) => submap >= count)) throw unknown('submap')
  return { couplings, submaps, floors: parts.map(({ floor }) => floor), residues: parts.map(({ residue }) => residue) }
}

const unknown = (what: string) => new Error(`the Vorbis setup refers to a missing ${what}`)

export interface Setup {
  books: Codebook[]
  modes: { long: boolean; mapping: Mapping }[]
}

/** Setup header, the third packet of a stream (Vorbis I specification, section 4.2.4). */
export function readSetup(packet: Uint8Array, channels: number): Setup {
  const bits = new PacketBits(packet)
  bits.pass(56)
  const several = <T>(width: number, read: () => T): T[] => {
    const items: T[] = []
    for (let count = bits.read(width) + 1; items.length < count; ) {
      if (bits.over) throw new Error('the Vorbis setup header is truncated')
      items.push(read())
    }
    return items
  }
  const budget = { entries: MOST_ENTRIES, numbers: MOST_NUMBERS }
  const books = several(8, () => readCodebook(bits, budget))
  if (several(6, () => bits.read(16)).some((transform) => transform !== 0)) throw unknown('transform')
  const floors = several(6, () => readFloor(bits, books))
  const residues = several(6, () => readResidue(bits, books))
  const mappings = several(6, () => readMapping(bits, channels, floors, residues))
  const modes = several(6, () => {
    const long = bits.read(1) === 1
    if (bits.read(32) !== 0) throw unknown('window or transform')
    const mapping = mappings[bits.read(8)]
    if (mapping === undefined) throw unknown('mapping')
    return { long, mapping }
  })
  if (bits.read(1) !== 1 || bits.over) throw new Error('the Vorbis setup header is truncated')
  return { books, modes }
}
