// Not tar-stream: it takes time for all attributes at each header, reads sparse files as if they were complete, and has no
// limits.
import { Place, quoted } from './byte-source.js'

/** A file in an archive. Its bytes can be read once, before the next entry is requested. */
export interface ArchiveEntry {
  /** Path inside the archive. */
  readonly name: string
  /** Size in bytes. */
  readonly size: number
  /** Return all bytes. `most` (default 1 GiB) limits the size. */
  bytes(most?: number): Promise<Uint8Array>
  /** Yield the bytes in chunks, without holding them all. */
  stream(): AsyncGenerator<Uint8Array>
}

export const TAR_BLOCK = 512
const MOST = 2 ** 30
/**
 * Maximum size of a long name or a list of attributes; those with the access rights of thousands of users have some hundred
 * kilobytes.
 */
const LONGEST_RECORD = 2 ** 22

/** @internal */
export function isTar(head: Buffer): boolean {
  return head.toString('latin1', 257, 262) === 'ustar'
}

/**
 * Iterate over the files of a tar stream (POSIX ustar and pax, and GNU's long names). Folders, links and devices are skipped: a
 * link is never followed. A name that leads out of the archive is an error.
 * @internal
 */
export async function* readTar(stream: AsyncIterable<Buffer>, place: Place): AsyncGenerator<ArchiveEntry> {
  const feed = new Feed(stream, place)
  let everywhere: Attributes = {}
  let next: Attributes = {}
  try {
    for (let head = await feed.block(); head !== undefined; head = await feed.block()) {
      const fail = feed.fail.bind(feed)
      // Zeros mark the end, after which another archive may follow.
      if (head.every((byte) => byte === 0)) continue
      const { name: short, size: claimed, type } = readHead(head, fail)
      if (type === 'x') next = { ...next, ...attributesOf(await feed.record(claimed), fail) }
      else if (type === 'g') everywhere = { ...everywhere, ...attributesOf(await feed.record(claimed), fail) }
      else if (type === 'L' || type === 'N') next.name = untilZero(await feed.record(claimed))
      else if (type === 'K') await feed.record(claimed)
      if ('xgLNK'.includes(type)) continue
      const { name = short, size = claimed, sparse } = { ...everywhere, ...next }
      next = {}
      requireInside(name, place)
      const isFile = '0\x007'.includes(type) && !name.endsWith('/')
      if (isFile) requireName(name, place)
      if (type === 'S' || type === 'M' || sparse === true) {
        throw place.error(
          `its entry ${quoted(name)} is stored sparse or in parts. Create the archive again without that`,
          {
            entry: name,
          },
        )
      }
      // Links and folders have no bytes, whatever their size field says.
      const isLink = !isFile && '0\x00123456'.includes(type)
      const part = feed.part(isLink ? 0 : size)
      if (isFile) yield archiveEntry(name, size, part, new Place(place.file, place.ErrorClass, name))
      await feed.pass()
    }
  } finally {
    await feed.close()
  }
}

type Fail = (what: string) => never

function readHead(head: Buffer, fail: Fail): { name: string; size: number; type: string } {
  // The checksum is computed with blanks in its own field.
  const sum = head.reduce((total, byte, i) => total + (i >= 148 && i < 156 ? 0x20 : byte), 0)
  if (sum !== numberAt(head, 148, 8)) fail('the checksum of a head is wrong')
  if (!isTar(head)) fail('it is older than the format of POSIX')
  const size = numberAt(head, 124, 12) ?? fail('expected a number as size')
  const name = untilZero(head.subarray(0, 100))
  // GNU uses the prefix field for other purposes.
  const prefix = head[262] === 0 ? untilZero(head.subarray(345, 500)) : ''
  return { name: prefix === '' ? name : `${prefix}/${name}`, size, type: String.fromCharCode(head[156]!) }
}

/** Parse octal digits, or GNU's big-endian number after a set bit. Undefined for anything else and for values above 2^53. */
function numberAt(head: Buffer, at: number, width: number): number | undefined {
  const field = head.subarray(at, at + width)
  if (field[0] === 0x80) {
    const value = field.subarray(1).reduce((sum, byte) => 256 * sum + byte, 0)
    return Number.isSafeInteger(value) ? value : undefined
  }
  const digits = /^ *(?:([0-7]+)[ \0]*|\0[ \0]*)?$/.exec(field.toString('latin1'))
  return digits === null ? undefined : Number.parseInt(digits[1] || '0', 8)
}

function untilZero(bytes: Buffer): string {
  const end = bytes.indexOf(0)
  return bytes.toString('utf8', 0, end < 0 ? bytes.length : end)
}

/** Attributes of a pax record about the next file, as far as they are used. */
interface Attributes {
  name?: string | undefined
  size?: number | undefined
  sparse?: boolean
}

/** Parse records such as `22 path=folder/file.wav`, each of the length that it begins with. */
function attributesOf(bytes: Buffer, fail: Fail): Attributes {
  const found: Attributes = {}
  for (let at = 0; at < bytes.length; ) {
    let begin = at
    let length = 0
    for (let digit = bytes[begin]!; digit >= 0x30 && digit <= 0x39; digit = bytes[++begin]!) {
      length = 10 * length + digit - 0x30
    }
    const end = at + length
    const equals = bytes.indexOf(0x3d, begin)
    if (bytes[begin] !== 0x20 || end > bytes.length || equals < 0 || equals >= end || bytes[end - 1] !== 0x0a) {
      return fail('a record of attributes is broken')
    }
    // Skip the texts of other records, of which there may be a million.
    if (equals - begin < 40) {
      const key = bytes.toString('latin1', begin + 1, equals)
      const value = () => bytes.toString('utf8', equals + 1, end - 1)
      // An empty value resets the one for all files.
      if (key === 'path') found.name = value() || undefined
      else if (key === 'size') found.size = value() === '' ? undefined : sizeOf(value(), fail)
      else if (key.startsWith('GNU.sparse.')) found.sparse = true
    }
    at = end
  }
  return found
}

function sizeOf(text: string, fail: Fail): number {
  const size = /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN
  return Number.isSafeInteger(size) ? size : fail(`a record says the size ${quoted(text)}`)
}

/** Buffered reader of a stream. */
class Feed {
  readonly #chunks: AsyncIterator<Buffer>
  #rest: Buffer = Buffer.alloc(0)
  #position = 0
  /** Remaining bytes of the current entry, and the zeros after them. */
  #left = 0
  #padding = 0
  #turn = 0
  /** A read without a waiting caller must finish before the next one starts. */
  #reading: Promise<unknown> = Promise.resolve()

  constructor(
    stream: AsyncIterable<Buffer>,
    readonly place: Place,
  ) {
    this.#chunks = stream[Symbol.asyncIterator]()
  }

  fail(what: string): never {
    throw this.place.error(`it is not a valid tar archive: ${what} (byte ${this.#position})`, { byte: this.#position })
  }

  /** Return the next 512 bytes; undefined at the end. */
  async block(): Promise<Buffer | undefined> {
    const first = await this.#some(TAR_BLOCK)
    if (first === undefined || first.length === TAR_BLOCK) return first
    return this.#whole(TAR_BLOCK, first)
  }

  /** Read the data of a record that belongs to the next entry's header. */
  async record(size: number): Promise<Buffer> {
    if (size > LONGEST_RECORD) this.fail(`a head of ${size} bytes`)
    const bytes = await this.#whole(size)
    await this.#whole(paddingOf(size))
    return bytes
  }

  /** Yield the bytes of an entry while it is the current one. */
  part(size: number): AsyncGenerator<Buffer> {
    this.#left = size
    this.#padding = paddingOf(size)
    return this.#part(this.#turn)
  }

  async *#part(turn: number): AsyncGenerator<Buffer> {
    const requireTurn = () => {
      if (turn !== this.#turn) throw this.place.error('expected an entry to be read before the next one is requested')
    }
    for (requireTurn(); this.#left > 0; requireTurn()) {
      const chunk = await this.#next()
      requireTurn()
      yield chunk
    }
  }

  /** Skip the unread bytes of the current entry. */
  async pass(): Promise<void> {
    this.#turn += 1
    await this.#reading.catch(() => {})
    while (this.#left > 0) await this.#next()
    await this.#whole(this.#padding)
  }

  async close(): Promise<void> {
    await this.#chunks.return?.()
  }

  #next(): Promise<Buffer> {
    const reading = this.#some(this.#left).then((chunk = this.fail('it ends inside of an entry')) => {
      this.#left -= chunk.length
      return chunk
    })
    this.#reading = reading
    return reading
  }

  async #whole(size: number, ...parts: Buffer[]): Promise<Buffer> {
    for (let have = parts[0]?.length ?? 0; have < size; ) {
      const chunk = (await this.#some(size - have)) ?? this.fail('it ends too early')
      have += chunk.length
      parts.push(chunk)
    }
    return parts.length === 1 ? parts[0]! : Buffer.concat(parts)
  }

  /** Return up to `most` bytes, at least one; undefined at the end. */
  async #some(most: number): Promise<Buffer | undefined> {
    while (this.#rest.length === 0) {
      const { done, value } = await this.#chunks.next()
      if (done) return undefined
      this.#rest = value
    }
    const bytes = this.#rest.subarray(0, most)
    this.#rest = this.#rest.subarray(most)
    this.#position += bytes.length
    return bytes
  }
}

function paddingOf(size: number): number {
  return (TAR_BLOCK - (size % TAR_BLOCK)) % TAR_BLOCK
}

/** @internal */
export function archiveEntry(name: string, size: number, chunks: AsyncIterable<Buffer>, place: Place): ArchiveEntry {
  let taken = false
  async function* stream(): AsyncGenerator<Buffer> {
    if (taken) throw place.error('its bytes can be read once; open the archive again')
    taken = true
    yield* chunks
  }
  return {
    name,
    size,
    stream,
    async bytes(most = MOST) {
      if (size > most) throw place.error(`it has ${size} bytes, at most ${most} are expected`)
      const parts: Buffer[] = []
      for await (const chunk of stream()) parts.push(chunk)
      return Buffer.concat(parts)
    },
  }
}

/** Check a name. @throws the place's error for a name that leads out of the archive */
export function requireInside(name: string, place: Place): void {
  if (!/^([/\\]|[a-zA-Z]:)/.test(name) && !name.split(/[/\\]/).includes('..')) return
  throw place.error(`its entry ${quoted(name)} leads out of the archive`, { entry: name })
}

/** Check a name. @throws the place's error for a name that no file can have */
export function requireName(name: string, place: Place): void {
  if (!name.includes('\0') && name.split(/[/\\]/).some((part) => part !== '' && part !== '.')) return
  throw place.error(`its entry ${quoted(name)} has a name that no file can have`, { entry: name })
}
