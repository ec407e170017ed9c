import { Codec } from '../../native/codec.js'
import { type Decoded, type Decoder, joined } from './decoder.js'
import type { Packet, PacketDecoder } from './ogg.js'

/** Decoded bytes after which `next` returns. */
const MOST_DECODED = 1 << 22

/**
 * Decoder of a file of FLAC (RFC 9639) or MP3 (MPEG-1, 2 and 2.5, layer III; ISO/IEC 11172-3 and 13818-3) by native code.
 *
 * A sample of FLAC is the file's integer divided by 2^(bits - 1); the checksum of each frame and the number of samples in the
 * header are verified. Of MP3, samples that the encoder added, according to LAME's tag, are removed; bytes between frames are
 * skipped, and a damaged frame is silent, as in other decoders.
 */
export class StreamDecoder implements Decoder {
  readonly #codec: Codec

  constructor(format: 'flac' | 'mp3') {
    this.#codec = new Codec(format)
  }

  feed(bytes: Uint8Array): void {
    this.#codec.feed(bytes)
  }

  end(): void {
    this.#codec.end()
  }

  next(): Decoded | undefined {
    return this.#codec.next(MOST_DECODED)
  }

  free(): void {
    this.#codec.free()
  }
}

/** Bytes before 'fLaC' in the first packet (RFC 9639, section 10.1). */
const PREFIX = 9

/** Decoder of FLAC in Ogg: each packet contains a metadata block or a frame. */
export class OggFlacDecoder implements PacketDecoder {
  readonly #flac = new StreamDecoder('flac')
  #first = true

  decode(packets: readonly Packet[]): Decoded | undefined {
    const parts: (Decoded | undefined)[] = []
    for (const { bytes, last } of packets) {
      this.#flac.feed(this.#first ? bytes.subarray(PREFIX) : bytes)
      this.#first = false
      parts.push(this.#flac.next())
      if (!last) continue
      this.#flac.end()
      // Checks the number of samples against the header.
      this.#flac.next()
    }
    return joined(parts)
  }

  free(): void {
    this.#flac.free()
  }
}

/**
 * Decoder of Vorbis I (https://xiph.org/vorbis/doc/Vorbis_I_spec.html) by native code, without floors of type 0. Channels keep the
 * order of the stream, as with libsndfile: three channels are left, center, right.
 */
export class VorbisDecoder implements PacketDecoder {
  readonly #codec: Codec

  /** @param first packet of the stream */
  constructor(first: Uint8Array) {
    this.#codec = new Codec('vorbis', first)
  }

  decode(packets: readonly Packet[]): Decoded | undefined {
    const { granule, last } = packets.at(-1)!
    return this.#codec.decode(
      packets.map(({ bytes }) => bytes),
      granule,
      last,
    )
  }

  free(): void {
    this.#codec.free()
  }
}
