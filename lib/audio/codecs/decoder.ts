/** Decoded samples: one array per channel, all of the same length. */
export interface Decoded {
  channelData: Float32Array[]
  sampleRate: number
}

/**
 * Decoder of one file, in the decoder thread. Bytes are fed as they arrive; each call of `next` decodes one frame, so no work
 * is done in advance. An error ends the file.
 */
export interface Decoder {
  /** Add the next bytes of the file. The decoder keeps a reference to them. */
  feed(bytes: Uint8Array): void
  /** Mark the end of the input. */
  end(): void
  /** Return the samples of the next frame; undefined if more bytes are needed, or at the end. */
  next(): Decoded | undefined | Promise<Decoded | undefined>
  /** Free memory that is not garbage-collected. */
  free?(): void
}

/** Buffer of bytes that were fed and not read yet. */
export class Waiting {
  /** The buffered bytes; a view that is valid until the next `feed`. */
  bytes: Uint8Array = new Uint8Array(0)
  /** Offset of the first buffered byte in the file. */
  offset = 0
  ended = false
  #skip = 0

  feed(input: Uint8Array): void {
    const skipped = Math.min(this.#skip, input.length)
    this.#skip -= skipped
    this.offset += skipped
    const fresh = input.subarray(skipped)
    const held = this.bytes
    const capacity = held.buffer.byteLength - held.byteOffset - held.length
    if (held.length === 0) {
      this.bytes = fresh
    } else if (capacity >= fresh.length) {
      this.bytes = new Uint8Array(held.buffer, held.byteOffset, held.length + fresh.length)
      this.bytes.set(fresh, held.length)
    } else {
      // Doubling the capacity keeps the cost of copying linear.
      const length = held.length + fresh.length
      this.bytes = new Uint8Array(new ArrayBuffer(2 * length), 0, length)
      this.bytes.set(held)
      this.bytes.set(fresh, held.length)
    }
  }

  /** Skip bytes, including bytes that have not arrived yet. */
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

/** Base of decoders that buffer their input. */
export abstract class BufferedDecoder implements Decoder {
  protected readonly waiting = new Waiting()

  feed(bytes: Uint8Array): void {
    this.waiting.feed(bytes)
  }

  end(): void {
    this.waiting.ended = true
  }

  abstract next(): ReturnType<Decoder['next']>
}

/** Concatenate successive samples; undefined for none. @throws if the sample rate or the number of channels changes */
export function joined(pieces: readonly (Decoded | undefined)[]): Decoded | undefined {
  const parts = pieces.filter((piece) => piece !== undefined)
  if (parts.length < 2) return parts[0]
  const { sampleRate, channelData } = parts[0]!
  for (const part of parts) {
    if (part.sampleRate !== sampleRate) {
      throw new Error(`expected one sample rate, got ${sampleRate} and then ${part.sampleRate} Hz`)
    }
    if (part.channelData.length !== channelData.length) {
      throw new Error(
        `expected a constant number of channels, got ${channelData.length} and then ${part.channelData.length}`,
      )
    }
  }
  const frames = parts.reduce((sum, part) => sum + part.channelData[0]!.length, 0)
  const planes = channelData.map((_, channel) => {
    const whole = new Float32Array(frames)
    let at = 0
    for (const part of parts) {
      whole.set(part.channelData[channel]!, at)
      at += part.channelData[channel]!.length
    }
    return whole
  })
  return { channelData: planes, sampleRate }
}
