import { isUtf8 } from 'node:buffer'
import { type ByteSource, quoted } from '../byte-source.js'
import { isBomb } from '../inflate.js'

/** One file in a zip archive, as in its directory. */
export interface ZipEntry {
  readonly name: string
  readonly rawName: Buffer
  readonly method: 'stored' | 'deflated'
  /** Uncompressed size in bytes. */
  readonly size: number
  /** Compressed size in bytes. */
  readonly packedSize: number
  readonly crc: number
  /** Offset of its own header. */
  readonly offset: number
  /** Offset of the next entry or the directory, the limit for this entry's bytes. */
  readonly end: number
}

const END = 0x06054b50
const END64 = 0x06064b50
const LOCATOR64 = 0x07064b50
const ENTRY = 0x02014b50

// Maximum number of entries of an archive of tensors; more would fill the memory with names.
const MOST_ENTRIES = 200_000
const LONGEST_DIRECTORY = 2 ** 26

interface Extent {
  count: number
  size: number
  offset: number
}

/** Read and check the directory at the end of a zip archive. */
export async function readDirectory(source: ByteSource): Promise<Map<string, ZipEntry>> {
  const { count, size, offset } = await findDirectory(source)
  const bytes = await source.bytes(offset, size)
  const found: (ZipEntry & { end: number; headerEnd: number })[] = []
  let at = 0
  while (found.length < count) {
    const fail = (what: string) =>
      source.error(`its directory is broken: record ${found.length + 1} of ${count} ${what}`, { byte: offset + at })
    if (at + 46 > size || bytes.readUInt32LE(at) !== ENTRY) throw fail('is not where it should be')
    const nameLength = bytes.readUInt16LE(at + 28)
    const extraLength = bytes.readUInt16LE(at + 30)
    const next = at + 46 + nameLength + extraLength + bytes.readUInt16LE(at + 32)
    if (next > size) throw fail('is cut')
    const rawName = bytes.subarray(at + 46, at + 46 + nameLength)
    // Names of old archives may be in any code page; latin1 keeps them distinct.
    const name = rawName.toString(isUtf8(rawName) ? 'utf8' : 'latin1')
    if (bytes.readUInt16LE(at + 8) & 0x41) throw fail(`(${quoted(name)}) is encrypted, which cannot be read`)
    const method = bytes.readUInt16LE(at + 10)
    if (method !== 0 && method !== 8) throw fail(`(${quoted(name)}) is packed with the unknown method ${method}`)
    const [unpacked, packedSize, start] = wideFields(
      bytes.subarray(at + 46 + nameLength, at + 46 + nameLength + extraLength),
      [bytes.readUInt32LE(at + 24), bytes.readUInt32LE(at + 20), bytes.readUInt32LE(at + 42)],
      fail,
    ) as [number, number, number]
    if (method === 0 && packedSize !== unpacked) {
      throw fail(`(${quoted(name)}) is stored in ${packedSize} bytes but claims to have ${unpacked}`)
    }
    found.push({
      name,
      rawName,
      method: method === 0 ? 'stored' : 'deflated',
      size: unpacked,
      packedSize,
      crc: bytes.readUInt32LE(at + 16),
      offset: start,
      end: offset,
      headerEnd: start + 30 + nameLength,
    })
    at = next
  }
  if (at !== size) throw source.error(`its directory says ${count} entries but goes on`, { byte: offset + at })
  found.sort((a, b) => a.offset - b.offset)
  const entries = new Map<string, ZipEntry>()
  for (const [i, { headerEnd, ...entry }] of found.entries()) {
    entry.end = found[i + 1]?.offset ?? offset
    if (headerEnd + entry.packedSize > entry.end) {
      const other = found[i + 1]
      const what = other === undefined ? 'the directory' : `entry ${quoted(other.name)}`
      throw source.error(`entry ${quoted(entry.name)} overlaps ${what}`, { entry: entry.name, byte: entry.offset })
    }
    if (entries.has(entry.name)) {
      throw source.error(`it has two entries named ${quoted(entry.name)}`, { entry: entry.name, byte: entry.offset })
    }
    entries.set(entry.name, entry)
  }
  const unpacked = found.reduce((sum, entry) => sum + entry.size, 0)
  if (isBomb(source.size, unpacked)) {
    throw source.error(`its ${source.size} bytes claim to unpack to ${unpacked}: it looks like a decompression bomb`)
  }
  return entries
}

/** Return the three sizes of a record, from the zip64 field if they exceed 32 bits. */
function wideFields(extra: Buffer, fields: number[], fail: (what: string) => Error): number[] {
  if (!fields.includes(0xffffffff)) return fields
  for (let at = 0; at + 4 <= extra.length; ) {
    const end = at + 4 + extra.readUInt16LE(at + 2)
    if (end > extra.length) break
    if (extra.readUInt16LE(at) === 1) {
      let next = at + 4
      return fields.map((field) => {
        if (field !== 0xffffffff) return field
        if (next + 8 > end) throw fail('lacks a zip64 size')
        next += 8
        const wide = extra.readBigUInt64LE(next - 8)
        if (wide > BigInt(Number.MAX_SAFE_INTEGER)) throw fail(`claims the size or place ${wide}`)
        return Number(wide)
      })
    }
    at = end
  }
  throw fail('lacks its zip64 sizes')
}

/** Find the end record, which precedes a comment of up to 65,535 bytes. */
async function findDirectory(source: ByteSource): Promise<Extent> {
  const tailSize = Math.min(source.size, 22 + 0xffff)
  const tailOffset = source.size - tailSize
  const tail = await source.bytes(tailOffset, tailSize)
  let at = tailSize - 22
  while (at >= 0 && !(tail.readUInt32LE(at) === END && at + 22 + tail.readUInt16LE(at + 20) === tailSize)) at -= 1
  if (at < 0) throw source.error('it is not a zip archive, or its end is missing', { byte: source.size })
  const position = tailOffset + at
  const fail = (what: string) => source.error(`its end record ${what}`, { byte: position })
  if (tail.readUInt16LE(at + 4) !== 0 || tail.readUInt16LE(at + 6) !== 0)
    throw fail('says that it is one of several files')
  const narrow = {
    count: tail.readUInt16LE(at + 10),
    size: tail.readUInt32LE(at + 12),
    offset: tail.readUInt32LE(at + 16),
  }
  if (tail.readUInt16LE(at + 8) !== narrow.count) throw fail('counts its entries twice, differently')
  const { extent, end } = await widened(source, narrow, position, fail)
  if (extent.count > MOST_ENTRIES || extent.size > LONGEST_DIRECTORY) {
    throw fail(`claims ${extent.count} entries in ${extent.size} bytes, more than can be read`)
  }
  // This also rejects an archive with data in front of it, whose offsets are wrong.
  if (extent.offset + extent.size !== end) {
    throw fail(`says that the directory is at bytes ${extent.offset} to ${extent.offset + extent.size}, not ${end}`)
  }
  if (extent.count * 46 > extent.size) throw fail(`claims ${extent.count} entries in ${extent.size} bytes`)
  return extent
}

/** Apply the zip64 end record, if there is one. */
async function widened(
  source: ByteSource,
  narrow: Extent,
  position: number,
  fail: (what: string) => Error,
): Promise<{ extent: Extent; end: number }> {
  const locator = position >= 20 ? await source.bytes(position - 20, 20) : Buffer.alloc(20)
  if (locator.readUInt32LE(0) !== LOCATOR64) {
    if (narrow.size === 0xffffffff || narrow.offset === 0xffffffff) throw fail('lacks its zip64 part')
    return { extent: narrow, end: position }
  }
  const start = Number(locator.readBigUInt64LE(8))
  if (start + 56 > position - 20) throw fail(`points to a zip64 part at byte ${start}`)
  const record = await source.bytes(start, 56)
  if (record.readUInt32LE(0) !== END64) throw fail(`finds no zip64 part at byte ${start}`)
  const count = Number(record.readBigUInt64LE(32))
  const size = Number(record.readBigUInt64LE(40))
  const offset = Number(record.readBigUInt64LE(48))
  const agrees = (short: number, most: number, long: number) => short === long || short === most
  if (
    !agrees(narrow.count, 0xffff, count) ||
    !agrees(narrow.size, 0xffffffff, size) ||
    !agrees(narrow.offset, 0xffffffff, offset)
  ) {
    throw fail('and its zip64 part disagree')
  }
  return { extent: { count, size, offset }, end: start }
}
