import type { Decoded } from './decoder.js'
import { FlacDecoder } from './flac.js'
import type { Packet, PacketDecoder } from './ogg.js'

/** What stands before 'fLaC' in the first packet (RFC 9639, section 10.1). */
const PREFIX = 9

/** FLAC in Ogg: each packet holds a block of the header, or a frame. */
export class OggFlacDecoder implements PacketDecoder {
  readonly #flac = new FlacDecoder()
  #first = true

  decode({ bytes, last }: Packet): Decoded | undefined {
    this.#flac.feed(this.#first ? bytes.subarray(PREFIX) : bytes)
    this.#first = false
    const decoded = this.#flac.next()
    if (last) {
      this.#flac.end()
      // Compares the number of samples with what the header promises.
      this.#flac.next()
    }
    return decoded
  }
}
