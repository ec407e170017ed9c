import { crc32, deflateRawSync } from 'node:zlib'

export interface ZipPart {
  name: string
  data: Buffer
  deflate?: boolean
  /** What the directory says, where it lies. */
  says?: Partial<{
    size: number
    packed: number
    crc: number
    offset: number
    method: number
    flags: number
    name: string
  }>
}

/** Each buffer is packed once. */
const cache = new WeakMap<Buffer, Buffer>()
function deflated(data: Buffer): Buffer {
  const packed = cache.get(data) ?? deflateRawSync(data)
  cache.set(data, packed)
  return packed
}

/** A zip archive by the book, or one that lies about what its parts say. */
export function makeZip(parts: readonly ZipPart[], tweak: (end: Buffer) => void = () => {}): Buffer {
  const locals: Buffer[] = []
  const directory: Buffer[] = []
  let offset = 0
  for (const { name, data, deflate = false, says = {} } of parts) {
    const packed = deflate ? deflated(data) : data
    const head = Buffer.alloc(30)
    head.writeUInt32LE(0x04034b50, 0)
    head.writeUInt16LE(deflate ? 8 : 0, 8)
    const sum = crc32(data)
    head.writeUInt32LE(sum, 14)
    head.writeUInt32LE(packed.length, 18)
    head.writeUInt32LE(data.length, 22)
    head.writeUInt16LE(Buffer.byteLength(name), 26)
    const record = Buffer.alloc(46)
    record.writeUInt32LE(0x02014b50, 0)
    record.writeUInt16LE(says.flags ?? 0, 8)
    record.writeUInt16LE(says.method ?? (deflate ? 8 : 0), 10)
    record.writeUInt32LE(says.crc ?? sum, 16)
    record.writeUInt32LE(says.packed ?? packed.length, 20)
    record.writeUInt32LE(says.size ?? data.length, 24)
    record.writeUInt16LE(Buffer.byteLength(says.name ?? name), 28)
    record.writeUInt32LE(says.offset ?? offset, 42)
    locals.push(head, Buffer.from(name), packed)
    directory.push(record, Buffer.from(says.name ?? name))
    offset += 30 + Buffer.byteLength(name) + packed.length
  }
  const size = directory.reduce((sum, part) => sum + part.length, 0)
  const end = Buffer.alloc(22)
  end.writeUInt32LE(0x06054b50, 0)
  end.writeUInt16LE(parts.length, 8)
  end.writeUInt16LE(parts.length, 10)
  end.writeUInt32LE(size, 12)
  end.writeUInt32LE(offset, 16)
  tweak(end)
  return Buffer.concat([...locals, ...directory, end])
}
