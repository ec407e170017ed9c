import { oggChecksum } from '../../native/codec.js'
import { BufferedDecoder, type Decoded } from './decoder.js'

/** A packet of the stream, with information of its page. */
export interface Packet {
  bytes: Uint8Array
  /** Granule position of the page, on the last packet that ends in it; else undefined. */
  granule: number | undefined
  /** Whether it is the last packet of the stream. */
  last: boolean
}

/** Decoder of the packets of one stream. */
export interface PacketDecoder {
  /** Return the samples of successive packets, at least one; undefined for headers and packets without output. */
  decode(packets: readonly Packet[]): Decoded | undefined
  free?(): void
}

interface Open {
  serial: number
  decoder: PacketDecoder
  /** Parts of a packet that continues in the next page. */
  parts: Uint8Array[]
  partBytes: number
  ended: boolean
}

const HEADER = 27
/** Most bytes of a packet: usual ones have a few kilobytes, headers with images some hundred. */
const MOST_PACKET = 1 << 26
const CONTINUED = 1
const FIRST = 2
const LAST = 4

/**
 * Decoder of Ogg files (RFC 3533): decodes the first stream that `open` has a decoder for, and streams chained after it. A page
 * with a wrong checksum is an error; of a truncated file the complete pages are decoded.
 */
export class OggDecoder extends BufferedDecoder {
  readonly #open: (firstPacket: Uint8Array) => Promise<PacketDecoder | undefined>
  readonly #packets: Packet[] = []
  #stream: Open | undefined

  constructor(open: (firstPacket: Uint8Array) => Promise<PacketDecoder | undefined>) {
    super()
    this.#open = open
  }

  async next(): Promise<Decoded | undefined> {
    for (;;) {
      if (this.#packets.length > 0) {
        const decoded = this.#stream!.decoder.decode(this.#packets.splice(0))
        if (decoded !== undefined && decoded.channelData[0]!.length > 0) return decoded
      }
      if (!(await this.#page())) return undefined
    }
  }

  /** Whether `open` has accepted a stream. */
  get opened(): boolean {
    return this.#stream !== undefined
  }

  free(): void {
    this.#stream?.decoder.free?.()
  }

  /** Read the packets of the next page; return false if it is incomplete. */
  async #page(): Promise<boolean> {
    const { bytes, offset } = this.waiting
    if (bytes.length < HEADER) return false
    const segments = bytes[26]!
    if (this.waiting.ascii(0, 4) !== 'OggS' || bytes[4] !== 0) {
      throw new Error(`expected an Ogg page at byte ${offset}; the file is damaged`)
    }
    if (bytes.length < HEADER + segments) return false
    const lacing = bytes.subarray(HEADER, HEADER + segments)
    const begin = HEADER + segments
    const end = begin + lacing.reduce((sum, length) => sum + length, 0)
    if (bytes.length < end) return false
    const view = new DataView(bytes.buffer, bytes.byteOffset, end)
    if (oggChecksum(bytes.subarray(0, end)) !== view.getUint32(22, true)) {
      throw new Error(`the Ogg page at byte ${offset} has a wrong checksum; the file is damaged`)
    }
    // Copied, because the next `feed` may overwrite the buffer.
    const page = bytes.slice(0, end)
    this.waiting.drop(end)
    const flags = page[5]!
    const serial = view.getUint32(14, true)
    const granule = Number(new DataView(page.buffer).getBigInt64(6, true))
    await this.#take(page.subarray(begin), [...page.subarray(HEADER, begin)], flags, serial, granule)
    return true
  }

  async #take(body: Uint8Array, lacing: number[], flags: number, serial: number, granule: number): Promise<void> {
    if ((flags & FIRST) !== 0 && (this.#stream === undefined || this.#stream.ended)) {
      const decoder = await this.#open(body)
      if (decoder !== undefined) {
        this.free()
        this.#stream = { serial, decoder, parts: [], partBytes: 0, ended: false }
      }
    }
    const stream = this.#stream
    if (stream === undefined || stream.serial !== serial || stream.ended) return
    if ((flags & CONTINUED) === 0) {
      stream.parts = []
      stream.partBytes = 0
    }
    // The start of the first packet is in a page that was lost.
    let lost = (flags & CONTINUED) !== 0 && stream.parts.length === 0
    let at = 0
    let begin = 0
    for (const length of lacing) {
      at += length
      if (length === 255) continue
      stream.parts.push(body.subarray(begin, at))
      const bytes = stream.parts.length === 1 ? stream.parts[0]! : Buffer.concat(stream.parts)
      if (!lost) this.#packets.push({ bytes, granule: undefined, last: false })
      lost = false
      stream.parts = []
      stream.partBytes = 0
      begin = at
    }
    if (begin < at) {
      stream.parts.push(body.subarray(begin, at))
      stream.partBytes += at - begin
      if (stream.partBytes > MOST_PACKET)
        throw new Error(`expected Ogg packets of at most ${MOST_PACKET} bytes, got a larger one`)
    }
    stream.ended = (flags & LAST) !== 0
    const final = this.#packets.at(-1)
    if (final !== undefined) {
      if (granule >= 0) final.granule = granule
      final.last = stream.ended
    }
  }
}
