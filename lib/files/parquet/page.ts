import type { PageHeader } from 'hyparquet'
import { heapHolds, tooMuch } from '../../base/heap.js'
import { isBomb } from '../inflate.js'
import type { Packages } from './packages.js'
import type { ParquetLeaf } from './schema.js'

/** Values of a page. Levels are undefined if each entry has the highest definition level, or repetition level 0. */
export interface Page {
  /** Number of entries: values, nulls and empty lists. */
  readonly entries: number
  readonly definitions: Uint8Array | undefined
  readonly repetitions: Uint8Array | undefined
  /** The values that are not null, as stored; indices into the dictionary if `indexed`. */
  readonly values: ArrayLike<unknown>
  readonly indexed: boolean
}

/** Maximum number of entries of a page. */
const MOST_ENTRIES = 2 ** 23
/** Maximum size of a page. A page with one long recording has some hundred megabytes. */
const MOST_BYTES = 2 ** 30

/** Return the size of a page's decompressed bytes. Throws an Error for a header that promises too much. */
export function checkedSize({ compressed_page_size: packed, uncompressed_page_size: size }: PageHeader): number {
  if (!Number.isInteger(size) || size < 0 || size > MOST_BYTES) {
    throw new Error(`expected a page of at most ${MOST_BYTES} bytes, got ${size}. Write it with smaller pages`)
  }
  // Data that does not shrink becomes a sixth longer at most.
  if (packed > MOST_BYTES * 1.25) throw new Error(`${packed} packed bytes for a page of ${size}`)
  if (isBomb(packed, size))
    throw new Error(`${packed} packed bytes unpack to ${size}: it looks like a decompression bomb`)
  // Strings and levels take some memory each, on the heap.
  if (!heapHolds(size)) throw new Error(tooMuch())
  return size
}

function checkedCount(count: unknown, left: number): number {
  if (!Number.isInteger(count) || (count as number) < 0 || (count as number) > left) {
    throw new Error(`expected a page of at most ${left} values, got ${String(count)}`)
  }
  if ((count as number) > MOST_ENTRIES) {
    throw new Error(`expected a page of at most ${MOST_ENTRIES} values, got ${count}. Write it with smaller pages`)
  }
  return count as number
}

/** Approximate size of a Uint8Array object on the heap, without its bytes. */
const OBJECT_BYTES = 128

/** Check that the values of a page fit on the heap as objects: a page of empty strings takes no bytes for each. */
function requireHeap(count: number, type: string | undefined): void {
  const isObject = type === 'BYTE_ARRAY' || type === 'FIXED_LEN_BYTE_ARRAY' || type === 'INT96'
  if (isObject && !heapHolds(OBJECT_BYTES * count)) throw new Error(tooMuch())
}

/** Decode a dictionary page into its stored values. */
export function readDictionary(packages: Packages, leaf: ParquetLeaf, header: PageHeader, bytes: Uint8Array) {
  const { num_values: count, encoding } = header.dictionary_page_header ?? {}
  if (encoding !== 'PLAIN' && encoding !== 'PLAIN_DICTIONARY') throw new Error(`a dictionary with encoding ${encoding}`)
  return plain(packages, leaf, new Bytes(bytes), checkedCount(count, MOST_ENTRIES))
}

/**
 * Decode a data page.
 * @param unpack decompresses bytes to a given size
 * @param left number of values that the column still has
 */
export async function readDataPage(
  packages: Packages,
  leaf: ParquetLeaf,
  header: PageHeader,
  packed: Uint8Array,
  unpack: (bytes: Uint8Array, size: number) => Promise<Uint8Array>,
  left: number,
): Promise<Page> {
  const size = checkedSize(header)
  const { maxDefinition, maxRepetition } = leaf
  if (header.type === 'DATA_PAGE') {
    const { num_values, encoding, definition_level_encoding, repetition_level_encoding } = header.data_page_header ?? {}
    const entries = checkedCount(num_values, left)
    const bytes = new Bytes(await unpack(packed, size))
    const level = (highest: number, encoded: string | undefined) => {
      if (highest === 0) return undefined
      if (encoded !== 'RLE') throw new Error(`levels with encoding ${encoded}, which is not supported`)
      return levels(packages, bytes, highest, entries, bytes.uint32())
    }
    const repetitions = level(maxRepetition, repetition_level_encoding)
    const definitions = level(maxDefinition, definition_level_encoding)
    return { entries, repetitions, definitions, ...valuesOf(packages, leaf, encoding, bytes, entries, definitions) }
  }
  const head = header.data_page_header_v2
  if (header.type !== 'DATA_PAGE_V2' || head === undefined) throw new Error(`a page of type ${header.type}`)
  const entries = checkedCount(head.num_values, left)
  const { repetition_levels_byte_length: repeatBytes, definition_levels_byte_length: definedBytes } = head
  const levelBytes = repeatBytes + definedBytes
  const isLength = (length: unknown) => Number.isInteger(length) && (length as number) >= 0
  if (!isLength(repeatBytes) || !isLength(definedBytes) || levelBytes > packed.length || levelBytes > size) {
    throw new Error('its levels are longer than the page')
  }
  const bytes = new Bytes(packed)
  const level = (highest: number, length: number) => {
    if (highest > 0) return levels(packages, bytes, highest, entries, length)
    bytes.skip(length)
    return undefined
  }
  const repetitions = level(maxRepetition, repeatBytes)
  const definitions = level(maxDefinition, definedBytes)
  const rest = packed.subarray(levelBytes)
  const isPacked = head.is_compressed !== false && size > levelBytes
  const values = new Bytes(isPacked ? await unpack(rest, size - levelBytes) : rest)
  return { entries, repetitions, definitions, ...valuesOf(packages, leaf, head.encoding, values, entries, definitions) }
}

/** Bytes that are read in sequence. A view of exactly these bytes: the buffer may contain others. */
class Bytes {
  readonly view: DataView
  offset = 0

  constructor(readonly bytes: Uint8Array) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  }

  get left(): number {
    return this.bytes.length - this.offset
  }

  require(size: number): void {
    if (size > this.left) throw new Error(`expected ${size} bytes of values, but the page ends after ${this.left}`)
  }

  skip(size: number): void {
    this.require(size)
    this.offset += size
  }

  uint8(): number {
    this.require(1)
    return this.view.getUint8(this.offset++)
  }

  uint32(): number {
    this.require(4)
    this.offset += 4
    return this.view.getUint32(this.offset - 4, true)
  }

  varint(): number {
    let value = 0
    for (let i = 0; i < 5; i++) {
      const byte = this.uint8()
      value += (byte & 127) * 2 ** (7 * i)
      if (byte < 128) return value
    }
    throw new Error('a number is too long')
  }
}

function levels(packages: Packages, bytes: Bytes, highest: number, entries: number, length: number): Uint8Array {
  bytes.require(length)
  const end = bytes.offset + length
  const result = new Uint8Array(entries)
  hybrid(packages, bytes, 32 - Math.clz32(highest), result, end)
  bytes.offset = end
  for (const level of result)
    if (level > highest) throw new Error(`a level of ${level} where ${highest} is the highest`)
  return result
}

/** Runs may hold some values more than the page has: writers fill the last group. */
const MOST_PADDING = 504

/** Decode runs of equal values and of bit-packed values, whose lengths are checked before. */
function hybrid(packages: Packages, bytes: Bytes, width: number, into: Uint8Array | Uint32Array, end: number): void {
  const start = bytes.offset
  let seen = 0
  while (seen < into.length) {
    const head = bytes.varint()
    const count = head % 2 === 1 ? 8 * Math.floor(head / 2) : Math.floor(head / 2)
    seen += count
    if (seen > into.length + MOST_PADDING) throw new Error(`a run of ${count} values`)
    bytes.skip(head % 2 === 1 ? (count / 8) * width : (width + 7) >> 3)
    if (bytes.offset > end) throw new Error('a run is longer than its part of the page')
  }
  bytes.offset = start
  // The package takes undefined for a length that precedes the runs.
  if (into.length > 0) packages.readRleBitPackedHybrid(bytes, width, into as never, end - start)
  bytes.offset = end
}

function valuesOf(
  packages: Packages,
  leaf: ParquetLeaf,
  encoding: string | undefined,
  bytes: Bytes,
  entries: number,
  definitions: Uint8Array | undefined,
): Pick<Page, 'values' | 'indexed'> {
  let count = entries
  if (definitions) for (const level of definitions) if (level !== leaf.maxDefinition) count--
  if (count === 0) return { values: [], indexed: false }
  const { type } = leaf.node.element
  if (encoding === 'PLAIN_DICTIONARY' || encoding === 'RLE_DICTIONARY') {
    const indices = new Uint32Array(count)
    const width = bytes.uint8()
    if (width > 31) throw new Error(`indices of ${width} bits`)
    if (width > 0) hybrid(packages, bytes, width, indices, bytes.bytes.length)
    return { values: indices, indexed: true }
  }
  return { values: direct(packages, leaf, encoding, bytes, count, type), indexed: false }
}

function direct(
  packages: Packages,
  leaf: ParquetLeaf,
  encoding: string | undefined,
  bytes: Bytes,
  count: number,
  type: string | undefined,
): ArrayLike<unknown> {
  const { type_length: width = 0 } = leaf.node.element
  if (encoding === 'PLAIN') return plain(packages, leaf, bytes, count)
  requireHeap(count, type)
  if (encoding === 'RLE' && type === 'BOOLEAN') {
    const values = new Uint8Array(count)
    const length = bytes.uint32()
    bytes.require(length)
    hybrid(packages, bytes, 1, values, bytes.offset + length)
    return values
  }
  if (encoding === 'BYTE_STREAM_SPLIT') {
    const size = WIDTHS[type as string] ?? (type === 'FIXED_LEN_BYTE_ARRAY' && width > 0 ? width : undefined)
    if (size === undefined) throw new Error(`${type} with encoding ${encoding}`)
    bytes.require(size * count)
    return packages.byteStreamSplit(bytes, count, type as never, width)
  }
  if (encoding === 'DELTA_BINARY_PACKED' && (type === 'INT32' || type === 'INT64')) {
    return deltas(packages, bytes, type === 'INT32' ? new Int32Array(count) : new BigInt64Array(count))
  }
  if (encoding === 'DELTA_LENGTH_BYTE_ARRAY' && type === 'BYTE_ARRAY') {
    const lengths = deltas(packages, bytes, new Int32Array(count))
    return Array.from(lengths, (length) => part(bytes, length))
  }
  if (encoding === 'DELTA_BYTE_ARRAY' && (type === 'BYTE_ARRAY' || type === 'FIXED_LEN_BYTE_ARRAY')) {
    return prefixed(packages, bytes, count)
  }
  throw new Error(`${type} with encoding ${encoding}, which is not supported`)
}

const WIDTHS: Record<string, number> = { INT32: 4, FLOAT: 4, INT64: 8, DOUBLE: 8 }

function plain(packages: Packages, leaf: ParquetLeaf, bytes: Bytes, count: number): ArrayLike<unknown> {
  const { type, type_length: width } = leaf.node.element
  const size = type === 'FIXED_LEN_BYTE_ARRAY' ? width : type === 'INT96' ? 12 : WIDTHS[type as string]
  if (type === 'BOOLEAN') bytes.require(Math.ceil(count / 8))
  else if (type === 'BYTE_ARRAY') bytes.require(4 * count)
  else if (size === undefined || size <= 0) throw new Error(`values of type ${type}`)
  else bytes.require(size * count)
  requireHeap(count, type)
  if (type === 'BYTE_ARRAY') return Array.from({ length: count }, () => part(bytes, bytes.uint32()))
  return packages.readPlain(bytes, type as never, count, width)
}

function part(bytes: Bytes, length: number): Uint8Array {
  if (length < 0) throw new Error(`a length of ${length} bytes`)
  const start = bytes.offset
  bytes.skip(length)
  return bytes.bytes.subarray(start, start + length)
}

function deltas<A extends Int32Array | BigInt64Array>(packages: Packages, bytes: Bytes, into: A): A {
  const start = bytes.offset
  const block = bytes.varint()
  const parts = bytes.varint()
  if (parts === 0 || parts > 1024 || block > 2 ** 20 || block % (32 * parts) !== 0) {
    throw new Error(`blocks of ${block} differences in ${parts} parts`)
  }
  bytes.offset = start
  packages.deltaBinaryUnpack(bytes, into.length, into)
  if (bytes.left < 0) throw new Error('the page ends within its differences')
  return into
}

/** Decode values that begin with a part of the value before them. */
function prefixed(packages: Packages, bytes: Bytes, count: number): Uint8Array[] {
  const prefixes = deltas(packages, bytes, new Int32Array(count))
  const lengths = deltas(packages, bytes, new Int32Array(count))
  let total = 0
  let before: Uint8Array = new Uint8Array(0)
  return Array.from(prefixes, (prefix, i) => {
    const rest = part(bytes, lengths[i] as number)
    if (prefix < 0 || prefix > before.length) throw new Error(`a prefix of ${prefix} bytes`)
    total += prefix
    if (total > MOST_BYTES / 4) throw new Error('its values share prefixes of more than 256 MiB')
    if (prefix > 0) {
      const value = new Uint8Array(prefix + rest.length)
      value.set(before.subarray(0, prefix))
      value.set(rest, prefix)
      before = value
    } else before = rest
    return before
  })
}
