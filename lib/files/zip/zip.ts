import { crc32 } from 'node:zlib'
import { type ByteSource, MemorySource, Place, quoted } from '../byte-source.js'
import { inflated, isBomb } from '../inflate.js'
import { readDirectory, type ZipEntry } from './directory.js'

export type { ZipEntry } from './directory.js'

/**
 * Reads a zip archive (PKWARE's APPNOTE 6.3), with zip64, stored and deflated entries. The directory is checked as a whole when
 * the archive is opened: names are unique and no two entries overlap. Entries are read on demand.
 */
export class ZipArchive {
  private constructor(
    private readonly source: ByteSource,
    /** Entries by name, in the order of their bytes. */
    readonly entries: ReadonlyMap<string, ZipEntry>,
  ) {}

  /** Open an archive. @throws the source's error for an invalid directory */
  static async open(source: ByteSource): Promise<ZipArchive> {
    return new ZipArchive(source, await readDirectory(source))
  }

  get(name: string): ZipEntry {
    const entry = this.entries.get(name)
    if (entry === undefined) throw this.source.error(`it has no entry ${quoted(name)}`, { entry: name })
    return entry
  }

  /** Return the bytes as stored in the archive: compressed ones for a deflated entry. */
  async raw(entry: ZipEntry): Promise<ByteSource> {
    return this.source.slice(await this.dataOffset(entry), entry.packedSize, entry.name)
  }

  /**
   * Return an entry as a source. A stored one stays in place, and its checksum is not verified; a deflated one is decompressed
   * into memory.
   */
  async open(entry: ZipEntry): Promise<ByteSource> {
    if (entry.method === 'stored') return this.raw(entry)
    const { file, ErrorClass } = this.source.place
    return new MemorySource(await this.bytes(entry), new Place(file, ErrorClass, entry.name))
  }

  /** Return all bytes of an entry, at most `most`, with its checksum verified. @throws the source's error */
  async bytes(entry: ZipEntry, most = 2 ** 32 - 1): Promise<Buffer> {
    if (entry.size > most) {
      throw this.source.slice(0, 0, entry.name).error(`it has ${entry.size} bytes, at most ${most} are expected`)
    }
    const chunks: Buffer[] = []
    for await (const chunk of this.stream(entry)) chunks.push(chunk)
    return chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks)
  }

  /** Yield an entry's bytes in chunks; the checksum is verified before the end. */
  async *stream(entry: ZipEntry): AsyncGenerator<Buffer> {
    const raw = await this.raw(entry)
    const fail = (what: string, fields: Record<string, unknown> = {}) => raw.error(what, fields)
    if (entry.method === 'deflated' && isBomb(entry.packedSize, entry.size)) {
      throw fail(`${entry.packedSize} packed bytes claim to be ${entry.size}: it looks like a decompression bomb`)
    }
    const chunks = entry.method === 'stored' ? raw.stream() : inflated(raw.stream(), 'raw', fail)
    let sum = 0
    let size = 0
    for await (const chunk of chunks) {
      size += chunk.length
      if (size > entry.size) throw fail(`it unpacks to more than the ${entry.size} bytes that the directory says`)
      sum = crc32(chunk, sum)
      yield chunk
    }
    if (size !== entry.size) throw fail(`it unpacks to ${size} bytes, the directory says ${entry.size}`)
    if (sum !== entry.crc) throw fail('its checksum is wrong: the file is damaged')
  }

  /** Read the header before the data, which must agree with the directory. */
  private async dataOffset(entry: ZipEntry): Promise<number> {
    const { source } = this
    const at = { byte: entry.offset, entry: entry.name }
    const fail = (what: string) => source.error(`entry ${quoted(entry.name)} ${what}`, at)
    const head = await source.bytes(entry.offset, 30)
    if (head.readUInt32LE(0) !== 0x04034b50) throw fail(`does not start at byte ${entry.offset}, where it should`)
    if (head.readUInt16LE(6) & 0x41) throw fail('is encrypted')
    const nameLength = head.readUInt16LE(26)
    const begin = entry.offset + 30 + nameLength + head.readUInt16LE(28)
    if (begin + entry.packedSize > entry.end) throw fail('runs into what follows it')
    const name = await source.bytes(entry.offset + 30, nameLength)
    if (!name.equals(entry.rawName)) throw fail('has another name in its own header')
    if (head.readUInt16LE(8) !== (entry.method === 'stored' ? 0 : 8)) throw fail('has another method in its own header')
    // Sizes that were unknown while writing, or exceed the field, are stored elsewhere.
    const later = (head.readUInt16LE(6) & 8) !== 0
    const agrees = (position: number, size: number) =>
      [size, 0xffffffff].includes(head.readUInt32LE(position)) || (later && head.readUInt32LE(position) === 0)
    if (!agrees(18, entry.packedSize) || !agrees(22, entry.size)) throw fail('has other sizes in its own header')
    return begin
  }
}
