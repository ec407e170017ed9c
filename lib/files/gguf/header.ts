import { type ByteSource, quoted } from '../byte-source.js'
import {
  ARRAYS,
  type GgufElementType,
  type GgufTensor,
  type GgufValue,
  type GgufValueType,
  TYPES,
  typesByCode,
  VALUE_TYPES,
} from './types.js'

/**
 * Header of a GGUF file, versions 2 and 3 (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md): metadata, then type and
 * location of each tensor. All of it is checked here, so that no later read is outside the file.
 */
export interface GgufHeader {
  version: number
  metadata: Record<string, GgufValue>
  metadataTypes: Record<string, GgufValueType>
  tensors: Record<string, GgufTensor>
}

const MAGIC = 0x46554747
const FIRST_READ = 1 << 20
/** Maximum header size. The largest published vocabularies have headers of 20 MB. */
const MAX_HEADER = 1 << 27
const MAX_KEYS = 1 << 16
const MAX_TENSORS = 1 << 20
const MAX_KEY = 65_535
const MAX_DIMS = 4
const MAX_NESTING = 4
/** Maximum number of texts and booleans in all arrays. The largest published vocabularies, with their merges, have 800,000. */
const MAX_ITEMS = 1 << 22
/** Maximum number of nested arrays: an empty one has 12 bytes in the file and 300 in memory. */
const MAX_INNER_ARRAYS = 1 << 16
// libtorch computes strides from sizes without checking for overflow, also if one of them is 0.
const MAX_SPAN = 2 ** 47

type Invalid = (what: string, fields?: Record<string, unknown>) => never

/** @throws CheckpointError that names the file, and the byte, key or tensor, for any file that is incomplete or invalid */
export async function readHeader(source: ByteSource): Promise<GgufHeader> {
  const invalid: Invalid = (what, fields = {}) => {
    throw source.error(`it is not a valid GGUF file: ${what}`, fields)
  }
  const fail: Invalid = (what, fields = {}) => {
    throw source.error(what, fields)
  }
  // The file does not store the header's length.
  for (let length = Math.min(FIRST_READ, source.size); ; length = Math.min(2 * length, source.size)) {
    const cursor = new Cursor(await source.bytes(0, length), source.size, invalid, fail)
    try {
      return readAll(cursor, source.size, invalid)
    } catch (error) {
      if (error !== MORE) throw error
    }
  }
}

/** Thrown internally at the end of the bytes read so far. */
const MORE = Symbol('more')

class Cursor {
  at = 0
  /** Number of JavaScript values in the arrays read so far. */
  items = 0
  innerArrays = 0

  constructor(
    readonly bytes: Buffer,
    readonly size: number,
    readonly invalid: Invalid,
    /** Throw an error that does not claim that the file is damaged. */
    readonly fail: Invalid,
  ) {}

  /** Return the position of the next `count` bytes after checking that they exist. */
  take(count: number): number {
    const { at } = this
    const end = at + count
    if (end > this.size)
      this.invalid(`expected ${count} bytes from byte ${at} on, but it ends at byte ${this.size}`, { byte: at })
    if (end > MAX_HEADER) this.invalid(`its head has more than ${MAX_HEADER} bytes`, { byte: at })
    if (end > this.bytes.length) throw MORE
    this.at = end
    return at
  }

  uint32(): number {
    return this.bytes.readUInt32LE(this.take(4))
  }

  /** Read a 64-bit length or offset. A value that a number cannot represent exactly exceeds any file. */
  whole(what: string): number {
    const at = this.take(8)
    const value = this.bytes.readBigUInt64LE(at)
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) this.invalid(`${what} is ${value}`, { byte: at })
    return Number(value)
  }

  text(what: string, most: number, strict = false): string {
    const from = this.at
    const length = this.whole(`the length of ${what}`)
    if (length > most) this.invalid(`${what} has ${length} bytes`, { byte: from })
    const at = this.take(length)
    const text = this.bytes.toString('utf8', at, at + length)
    if (strict && (text.includes('\ufffd') || text.includes('\0'))) {
      this.invalid(`${what} is not a valid text: ${quoted(text)}`, { byte: from })
    }
    return text
  }
}

function readAll(cursor: Cursor, size: number, invalid: Invalid): GgufHeader {
  if (size < 24) invalid(`it has ${size} bytes, fewer than the 24 of its beginning`, { byte: size })
  if (cursor.uint32() !== MAGIC) invalid("it does not begin with 'GGUF'", { byte: 0 })
  const version = cursor.uint32()
  if (version !== 0 && (version & 0xffff) === 0) {
    cursor.fail(
      'this is a big-endian GGUF file, and only little-endian ones can be read. ' +
        'Convert it with gguf-convert-endian of the Python package gguf, or take the little-endian file',
      { byte: 4 },
    )
  }
  if (version !== 2 && version !== 3) invalid(`expected version 2 or 3, got ${version}`, { byte: 4 })
  const tensorCount = cursor.whole('the number of tensors')
  const keyCount = cursor.whole('the number of keys')
  if (tensorCount > MAX_TENSORS) invalid(`it claims ${tensorCount} tensors`, { byte: 8 })
  if (keyCount > MAX_KEYS) invalid(`it claims ${keyCount} keys`, { byte: 16 })
  const { metadata, types } = readMetadata(cursor, keyCount, invalid)
  const tensors = readTensors(cursor, tensorCount, alignmentOf(metadata, invalid), invalid)
  return { version, metadata, metadataTypes: types, tensors }
}

function readMetadata(cursor: Cursor, count: number, invalid: Invalid) {
  const metadata: Record<string, GgufValue> = Object.create(null)
  const types: Record<string, GgufValueType> = Object.create(null)
  for (let i = 0; i < count; i++) {
    const byte = cursor.at
    const key = cursor.text(`key ${i + 1} of ${count}`, MAX_KEY, true)
    if (key === '' || key in metadata) {
      invalid(key === '' ? `key ${i + 1} is empty` : `the key ${quoted(key)} is there twice`, { byte, field: key })
    }
    const type = typeAt(cursor, key, invalid)
    if (type === 'array') [types[key], metadata[key]] = readArray(cursor, key, 1, invalid)
    else [types[key], metadata[key]] = [type, readValue(cursor, type, key, invalid)]
  }
  return { metadata, types }
}

function typeAt(cursor: Cursor, key: string, invalid: Invalid): GgufElementType | 'array' {
  const byte = cursor.at
  const code = cursor.uint32()
  return (
    VALUE_TYPES[code] ?? invalid(`the value of ${quoted(key)} is of the unknown type ${code}`, { byte, field: key })
  )
}

function readValue(cursor: Cursor, type: GgufElementType, key: string, invalid: Invalid): GgufValue {
  const { bytes } = cursor
  switch (type) {
    case 'uint8':
      return bytes.readUInt8(cursor.take(1))
    case 'int8':
      return bytes.readInt8(cursor.take(1))
    case 'uint16':
      return bytes.readUInt16LE(cursor.take(2))
    case 'int16':
      return bytes.readInt16LE(cursor.take(2))
    case 'uint32':
      return bytes.readUInt32LE(cursor.take(4))
    case 'int32':
      return bytes.readInt32LE(cursor.take(4))
    case 'float32':
      return bytes.readFloatLE(cursor.take(4))
    case 'float64':
      return bytes.readDoubleLE(cursor.take(8))
    case 'uint64':
      return plain(bytes.readBigUInt64LE(cursor.take(8)))
    case 'int64':
      return plain(bytes.readBigInt64LE(cursor.take(8)))
    case 'string':
      return cursor.text(`the text of ${quoted(key)}`, MAX_HEADER)
    case 'bool': {
      const byte = cursor.take(1)
      const value = bytes[byte] as number
      if (value > 1) invalid(`the boolean ${quoted(key)} is ${value}`, { byte, field: key })
      return value === 1
    }
  }
}

const plain = (value: bigint): number | bigint =>
  BigInt(Number(value)) === value && Number.isSafeInteger(Number(value)) ? Number(value) : value

function readArray(cursor: Cursor, key: string, depth: number, invalid: Invalid): [GgufValueType, GgufValue] {
  const byte = cursor.at
  const type = typeAt(cursor, key, invalid)
  const count = cursor.whole(`the length of ${quoted(key)}`)
  const numbers = type === 'array' ? undefined : ARRAYS[type]
  // Check before allocating memory: each element has at least this many bytes.
  const least = numbers?.bytes ?? (type === 'bool' ? 1 : type === 'string' ? 8 : 12)
  if (count > (cursor.size - cursor.at) / least) {
    invalid(`${quoted(key)} claims ${count} elements, more than the file has bytes for`, { byte, field: key })
  }
  if (numbers !== undefined) {
    const at = cursor.take(count * numbers.bytes)
    const from = cursor.bytes.byteOffset + at
    const bytes = cursor.bytes.buffer.slice(from, from + count * numbers.bytes) as ArrayBuffer
    return [`${type as GgufElementType}[]`, numbers.make(bytes)]
  }
  if (type === 'array') {
    if (depth === MAX_NESTING) invalid(`${quoted(key)} is nested more than ${MAX_NESTING} deep`, { byte, field: key })
    cursor.innerArrays += count
    if (cursor.innerArrays > MAX_INNER_ARRAYS) {
      const what = `with the ${count} arrays in ${quoted(key)} its metadata hold more than ${MAX_INNER_ARRAYS} arrays within arrays`
      cursor.fail(`${what}, the most that are read`, { byte, field: key })
    }
    const values: GgufValue[] = []
    for (let i = 0; i < count; i++) values.push(readArray(cursor, key, depth + 1, invalid)[1])
    return ['array[]', values]
  }
  cursor.items += count
  if (cursor.items > MAX_ITEMS) {
    const what = `with the ${count} values of ${quoted(key)} its metadata hold more than ${MAX_ITEMS} texts and booleans in arrays`
    cursor.fail(`${what}, the most that are read`, { byte, field: key })
  }
  const values: GgufValue[] = []
  for (let i = 0; i < count; i++) values.push(readValue(cursor, type, key, invalid))
  return [`${type}[]`, values as readonly string[]]
}

const ALIGNMENT = 32

function alignmentOf(metadata: Record<string, GgufValue>, invalid: Invalid): number {
  const field = 'general.alignment'
  const given = metadata[field] ?? ALIGNMENT
  const isAudio = typeof given === 'number' && given >= 1 && given <= 1 << 20 && Number.isInteger(Math.log2(given))
  return isAudio ? given : invalid(`${field} is ${String(given)}, not a power of 2`, { field })
}

function readTensors(cursor: Cursor, count: number, alignment: number, invalid: Invalid): Record<string, GgufTensor> {
  const tensors: Record<string, GgufTensor> = Object.create(null)
  const places: { name: string; place: GgufTensor }[] = []
  for (let i = 0; i < count; i++) {
    const byte = cursor.at
    const name = cursor.text(`the name of tensor ${i + 1} of ${count}`, MAX_KEY, true)
    if (name in tensors) invalid(`the tensor ${quoted(name)} is there twice`, { byte, tensor: name })
    const place = readTensor(cursor, name, alignment, invalid)
    tensors[name] = place
    places.push({ name, place })
  }
  const start = Math.ceil(cursor.at / alignment) * alignment
  let end = start
  let before = ''
  for (const { name, place } of places.sort(
    (a, b) => a.place.offset - b.place.offset || a.place.bytes - b.place.bytes,
  )) {
    const offset = start + place.offset
    tensors[name] = { ...place, offset }
    if (offset < end)
      invalid(`the tensors ${quoted(before)} and ${quoted(name)} overlap`, { tensor: name, byte: offset })
    end = offset + place.bytes
    before = name
    if (end > cursor.size) {
      invalid(`the tensor ${quoted(name)} ends at byte ${end}, the file at byte ${cursor.size}`, {
        tensor: name,
        byte: offset,
      })
    }
  }
  return tensors
}

/** Read the header of a tensor, with an offset from the beginning of the data. */
function readTensor(cursor: Cursor, name: string, alignment: number, invalid: Invalid): GgufTensor {
  const byte = cursor.at
  const fail = (what: string): never => invalid(`the tensor ${quoted(name)} ${what}`, { tensor: name, byte })
  const dims = cursor.uint32()
  if (dims > MAX_DIMS) fail(`has ${dims} dimensions`)
  const shape: number[] = []
  let span = 1
  for (let i = 0; i < dims; i++) {
    const length = cursor.whole(`a length of the tensor ${quoted(name)}`)
    span *= Math.max(length, 1)
    if (span > MAX_SPAN) fail('has more values than any memory')
    shape.unshift(length)
  }
  const code = cursor.uint32()
  const type = typesByCode.get(code) ?? fail(`is of the unknown type ${code}`)
  const { block, bytes } = TYPES[type]
  const row = shape.at(-1) ?? 1
  if (row % block !== 0) fail(`is ${type}, whose rows are blocks of ${block}, and has rows of ${row}`)
  const offset = cursor.whole(`the offset of the tensor ${quoted(name)}`)
  if (offset % alignment !== 0) fail(`is at ${offset}, not a multiple of the alignment ${alignment}`)
  const count = shape.reduce((product, length) => product * length, 1)
  return { type, shape, shard: 0, offset, bytes: (count / block) * bytes }
}
