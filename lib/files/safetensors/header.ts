import { CheckpointError } from '../../base/errors.js'
import { type DType, dtypeFacts, dtypesBy } from '../../tensor/dtype.js'
import { type ByteSource, quoted } from '../byte-source.js'
import { placeBytes } from '../file-tensors.js'
import { JsonReader } from '../json/reader.js'
import type { SafetensorsEntry, SafetensorsHeader } from './types.js'

/**
 * Header of a safetensors file (https://github.com/huggingface/safetensors, "Format"): 8 bytes of length, little endian, and a
 * JSON object with each tensor's dtype, shape and bytes. All of it is checked here.
 */

/** Every dtype of the format, with its size in bits and voxtorch's dtype, if there is one. */
const formats = new Map<string, { bits: number; dtype: DType | null }>([
  ...[...dtypesBy('safetensors')].map(
    ([format, dtype]) => [format, { bits: 8 * dtypeFacts(dtype).bytes, dtype }] as const,
  ),
  ['F8_E4M3FNUZ', { bits: 8, dtype: null }],
  ['F8_E5M2FNUZ', { bits: 8, dtype: null }],
  ['F8_E8M0', { bits: 8, dtype: null }],
  ['F6_E2M3', { bits: 6, dtype: null }],
  ['F6_E3M2', { bits: 6, dtype: null }],
  ['F4', { bits: 4, dtype: null }],
])

const MAX_HEADER = 100_000_000
// libtorch computes strides from sizes without checking for overflow, also if one of them is 0.
const MAX_SPAN = 2 ** 47
const MAX_DIMS = 256

/** @throws CheckpointError that names the file, the byte and the tensor, for any file that is incomplete or invalid */
export async function readHeader(source: ByteSource): Promise<SafetensorsHeader> {
  const invalid = (what: string, fields: Record<string, unknown> = {}): never => {
    throw source.error(`it is not a valid safetensors file: ${what}`, fields)
  }
  const { size } = source
  if (size < 8) invalid(`it has ${size} bytes, fewer than the 8 of the header's length`, { byte: size })
  const length = Number((await source.bytes(0, 8)).readBigUInt64LE(0))
  if (length > MAX_HEADER) invalid(`its header claims ${length} bytes; the format allows ${MAX_HEADER}`, { byte: 0 })
  if (length > size - 8) invalid(`its header claims ${length} bytes, the file has ${size}`, { byte: 0 })
  const bytes = await source.bytes(8, length)
  if (bytes[0] !== 0x7b) invalid('its header does not start with {', { byte: 8 })
  const { entries, metadata } = parseHeader(bytes, invalid)
  const end = checkCoverage(entries, 8 + length, invalid)
  if (end !== size) {
    invalid(`its tensors end at byte ${end}, the file at byte ${size}`, { byte: Math.min(end, size) })
  }
  const tensors: Record<string, SafetensorsEntry> = Object.create(null)
  for (const [name, entry] of entries) tensors[name] = entry
  return { tensors, metadata }
}

type Invalid = (what: string, fields?: Record<string, unknown>) => never
type Entries = [name: string, entry: SafetensorsEntry][]

/** Return the entries in the order of their bytes. */
function parseHeader(bytes: Buffer, invalid: Invalid): { entries: Entries; metadata: Record<string, string> } {
  const json = new JsonReader(bytes, (what, at) => invalid(`${what} (byte ${8 + at})`, { byte: 8 + at }))
  const metadata: Record<string, string> = Object.create(null)
  const entries: Entries = []
  json.object('its header', (name) => {
    if (name !== '__metadata__') {
      entries.push([name, readEntry(json, name, 8 + bytes.length, invalid)])
      return
    }
    // The safetensors package treats this map as optional, so null means none.
    if (json.isNull()) return
    json.object('the metadata', (key) => {
      metadata[key] = json.string(() => `the metadata ${quoted(key)}`)
    })
  })
  json.end()
  entries.sort(([, a], [, b]) => a.offset - b.offset || a.bytes - b.bytes)
  return { entries, metadata }
}

/** Check that each tensor begins where the previous one ends: there are no gaps and no overlaps. */
function checkCoverage(entries: Entries, start: number, invalid: Invalid): number {
  let position = start
  for (const [tensor, { offset, bytes }] of entries) {
    if (offset !== position) {
      invalid(`${quoted(tensor)} starts at byte ${offset - start} of the data, expected ${position - start}`, {
        tensor,
        byte: offset,
      })
    }
    position = offset + bytes
  }
  return position
}

function readEntry(json: JsonReader, tensor: string, start: number, invalid: Invalid): SafetensorsEntry {
  const named = () => quoted(tensor)
  let format: string | undefined
  let shape: number[] | undefined
  let offsets: number[] | undefined
  json.object(named, (key) => {
    if (key === 'dtype') format = json.string(() => `the dtype of ${named()}`)
    else if (key === 'shape') shape = json.wholes(() => `the shape of ${named()}`, MAX_DIMS)
    else if (key === 'data_offsets') offsets = json.wholes(() => `the data_offsets of ${named()}`, 2)
    else json.skip()
  })
  if (format === undefined) return invalid(`${named()} has no dtype`, { tensor })
  if (shape === undefined) return invalid(`${named()} has no shape`, { tensor })
  if (offsets?.length !== 2) return invalid(`${named()} has no two data_offsets`, { tensor })
  const known = formats.get(format)
  if (known === undefined) return invalid(`${named()} has the unknown dtype ${quoted(format)}`, { tensor })
  const [begin, end] = offsets as [number, number]
  const span = shape.reduce((product, size) => product * Math.max(size, 1), known.bits / 8)
  if (span > MAX_SPAN) invalid(`${named()} has the impossible shape [${shape}]`, { tensor })
  const wanted = shape.includes(0) ? 0 : span
  if (wanted !== end - begin) {
    invalid(`${named()} has ${end - begin} bytes, its shape [${shape}] and dtype ${format} need ${wanted}`, { tensor })
  }
  return { dtype: known.dtype, format, shape, bytes: end - begin, offset: start + begin }
}

/** One tensor to be written. */
export interface HeaderEntry {
  name: string
  dtype: DType
  shape: readonly number[]
}

/** Return the header of a file with these tensors, in this order. */
export function buildHeader(
  path: string,
  entries: readonly HeaderEntry[],
  metadata: Readonly<Record<string, string>>,
): Uint8Array {
  const header: Record<string, unknown> = Object.create(null)
  if (Object.keys(metadata).length > 0) header.__metadata__ = metadata
  let offset = 0
  for (const { name, dtype, shape } of entries) {
    const end = offset + placeBytes({ dtype, shape })
    header[name] = { dtype: dtypeFacts(dtype).safetensors, shape, data_offsets: [offset, end] }
    offset = end
  }
  const json = Buffer.from(JSON.stringify(header))
  // Data that begin at a multiple of 8 are aligned for readers that map the file.
  const length = Math.ceil(json.length / 8) * 8
  if (length > MAX_HEADER) {
    throw new CheckpointError(`${path}: expected a header of at most ${MAX_HEADER} bytes, got ${length}`, {
      file: path,
    })
  }
  const bytes = Buffer.alloc(8 + length, ' ')
  bytes.writeBigUInt64LE(BigInt(length))
  json.copy(bytes, 8)
  return bytes
}

/** Return whether the format has a name for a dtype. */
export function isSafetensorsDType(dtype: DType): boolean {
  return dtypeFacts(dtype).safetensors !== undefined
}
