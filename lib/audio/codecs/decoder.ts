/** Decoded samples, one array for each channel, all equally long. */
export interface Decoded {
  channelData: Float32Array[]
  sampleRate: number
}

/**
 * What decodes one file in the decoder's thread. Bytes go in as they come; samples come out a frame at a time, so that
 * nobody waits for more than one, and none is made that nobody asked for. What it throws ends the file.
 */
export interface Decoder {
  /** Takes the next bytes of the file, which are its own from then on. */
  feed(bytes: Uint8Array): void
  /** Says that there are no more. */
  end(): void
  /** The samples of the next frame; undefined where it needs more bytes, or there is nothing left. */
  next(): Decoded | undefined | Promise<Decoded | undefined>
  /** Gives back what is not collected by itself. */
  free?(): void
}

/** Bytes that were fed and not yet read. */
export class Waiting {
  /** Those that are here. A view that the next `feed` may change. */
  bytes: Uint8Array = new Uint8Array(0)
  /** Of the first of them in the file. */
  offset = 0
  ended = false
  #skip = 0

  feed(given: Uint8Array): void {
    const skipped = Math.min(this.#skip, given.length)
    this.#skip -= skipped
    this.offset += skipped
    const fresh = given.subarray(skipped)
    const held = this.bytes
    const room = held.buffer.byteLength - held.byteOffset - held.length
    if (held.length === 0) {
      this.bytes = fresh
    } else if (room >= fresh.length) {
      this.bytes = new Uint8Array(held.buffer, held.byteOffset, held.length + fresh.length)
      this.bytes.set(fresh, held.length)
    } else {
      // Twice the room, so that a long wait does not copy everything with every few bytes.
      const length = held.length + fresh.length
      this.bytes = new Uint8Array(new ArrayBuffer(2 * length), 0, length)
      this.bytes.set(held)
      this.bytes.set(fresh, held.length)
    }
  }

  /** Passes as many bytes, also those that have not come yet. */
  drop(count: number): void {
    const dropped = Math.min(count, this.bytes.length)
    this.#skip += count - dropped
    this.bytes = this.bytes.subarray(dropped)
    this.offset += dropped
  }

  ascii(begin: number, end: number): string {
    return String.fromCharCode(...this.bytes.subarray(begin, end))
  }
}

/** Thrown by readers of bits where the bytes end. */
export class OutOfBits extends Error {
  constructor() {
    super('it ends in the middle of a frame')
  }
}
