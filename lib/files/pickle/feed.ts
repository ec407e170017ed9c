import { type ByteSource, MemorySource, type Place } from '../byte-source.js'

const WIDEST = 1 << 18
const NARROWEST = 1 << 12
const EMPTY = Buffer.alloc(0)

/** Bytes of a long text or bytes object, left in the file until they are needed. */
export class Payload {
  constructor(
    readonly source: ByteSource,
    readonly offset: number,
    readonly length: number,
    /** `'utf8'`: a text; `'latin1'`: bytes, each of which is written as one UTF-8 character. */
    readonly form: 'bytes' | 'utf8' | 'latin1' = 'bytes',
  ) {}

  as(form: 'bytes' | 'utf8' | 'latin1'): Payload {
    return new Payload(this.source, this.offset, this.length, form)
  }
}

/** Input of a pickle: a window of bytes in memory that moves forward. */
export abstract class Feed {
  /** Window in `buffer` from `at` to `end`. @internal */
  buffer: Buffer = EMPTY
  at = 0
  end = 0
  /** Whether the window ends at the end of the input. */
  finished = false
  /** Position of the window's start in the input. */
  protected base = 0

  constructor(readonly place: Place) {}

  /** Current position in the input. */
  get position(): number {
    return this.base + this.at
  }

  /** Make the window at least `count` bytes wide, or as wide as the rest of the input. */
  abstract fill(count: number): Promise<void>

  /** Skip the next bytes and return them. */
  abstract payload(length: number): Promise<Payload>
}

/** A pickle in a file or in memory: long payloads are left in place. */
export class SourceFeed extends Feed {
  // Only a few bytes lie between long payloads: a wide window would read most of the file twice.
  private width = NARROWEST

  constructor(
    private readonly source: ByteSource,
    start = 0,
  ) {
    super(source.place)
    this.base = start
    this.finished = start >= source.size
  }

  async fill(count: number): Promise<void> {
    this.base = this.position
    const left = this.source.size - this.base
    this.buffer = await this.source.bytes(this.base, Math.min(left, Math.max(count, this.width)))
    this.width = Math.min(2 * this.width, WIDEST)
    this.at = 0
    this.end = this.buffer.length
    this.finished = this.end === left
  }

  async payload(length: number): Promise<Payload> {
    const { position, source } = this
    if (length > source.size - position) throw truncated(this.place, position, length, source.size - position)
    this.width = NARROWEST
    this.base = position + length
    this.at = 0
    this.end = 0
    this.finished = this.base === source.size
    return new Payload(source, position, length)
  }
}

/** A pickle that can be read only once, such as one in a compressed archive: payloads are kept in memory. */
export class StreamFeed extends Feed {
  private readonly chunks: AsyncIterator<Buffer>

  /** @internal */
  constructor(stream: AsyncIterable<Buffer>, place: Place) {
    super(place)
    this.chunks = stream[Symbol.asyncIterator]()
  }

  async fill(count: number): Promise<void> {
    const parts = [this.buffer.subarray(this.at, this.end)]
    let width = this.end - this.at
    this.base = this.position
    while (width < count && !this.finished) {
      const { value, done } = await this.chunks.next()
      if (done === true) this.finished = true
      else {
        parts.push(value)
        width += value.length
      }
    }
    this.buffer = parts.length === 1 ? parts[0]! : Buffer.concat(parts)
    this.at = 0
    this.end = width
  }

  async payload(length: number): Promise<Payload> {
    const start = this.position
    const parts = [this.buffer.subarray(this.at, this.end)]
    let width = this.end - this.at
    // Allocate memory as bytes arrive, not as much as the pickle claims.
    while (width < length && !this.finished) {
      const { value, done } = await this.chunks.next()
      if (done === true) this.finished = true
      else {
        parts.push(value)
        width += value.length
      }
    }
    if (width < length) throw truncated(this.place, start, length, width)
    const last = parts[parts.length - 1]!
    // Copy the part, which would otherwise keep the whole window alive.
    const source = MemorySource.joined(parts, length, this.place)
    this.base = start + length
    this.buffer = last.subarray(last.length - (width - length))
    this.at = 0
    this.end = width - length
    return new Payload(source, 0, length)
  }
}

export function truncated(place: Place, byte: number, wanted: number, left: number): Error {
  return place.error(`it ends too early: ${wanted} bytes should follow byte ${byte}, ${left} do`, { byte })
}
