import type { Decoded, Decoder } from './decoder.js'

export const AAC_PACKAGE = '@audio/decode-aac'
const FIRST_PIECE = 512
const LEAST_PIECE = 64
const MOST_PIECE = 4096
/** Target for the decoded size of a piece, in bytes. */
const MOST_DECODED = 1 << 22

interface PackageDecoder {
  decode(bytes: Uint8Array): Decoded
  flush(): Decoded
  free(): void
}

/** Thrown when an optional package is not installed. */
export class MissingPackage extends Error {}

/** Decoder of raw AAC and M4A, by npm's `@audio/decode-aac`: optional, because its license is GPL-2.0. */
export class AacDecoder implements Decoder {
  readonly #decoder: PackageDecoder
  readonly #mostPiece: number
  #piece: number
  #waiting: Uint8Array = new Uint8Array(0)
  #ended = false
  #flushed = false

  private constructor(decoder: PackageDecoder, mostPiece: number) {
    this.#decoder = decoder
    this.#mostPiece = mostPiece
    this.#piece = Math.min(FIRST_PIECE, mostPiece)
  }

  /** @param size bytes of an M4A file, or 0. Each piece is searched for the index from the start, so pieces of M4A are large */
  static async open(size = 0): Promise<AacDecoder> {
    const { decoder } = (await import(AAC_PACKAGE).catch((cause: Error & { code?: string }) => {
      if (cause.code !== 'ERR_MODULE_NOT_FOUND') throw cause
      throw new MissingPackage(
        `AAC and M4A are read by npm's ${AAC_PACKAGE} (or in videos by node-av), which is not installed: npm install ${AAC_PACKAGE}. ` +
          "Its license is GPL-2.0, which differs from voxtorch's.",
      )
    })) as { decoder: () => Promise<PackageDecoder> }
    return new AacDecoder(await decoder(), Math.max(MOST_PIECE, Math.ceil(size / 64)))
  }

  feed(bytes: Uint8Array): void {
    this.#waiting = this.#waiting.length > 0 ? new Uint8Array(Buffer.concat([this.#waiting, bytes])) : bytes
  }

  end(): void {
    this.#ended = true
  }

  next(): Decoded | undefined {
    while (this.#waiting.length > 0) {
      const length = Math.min(this.#piece, this.#waiting.length)
      const decoded = this.#decoder.decode(this.#waiting.slice(0, length))
      this.#waiting = this.#waiting.subarray(length)
      const frames = decoded.channelData[0]?.length ?? 0
      const bytes = 4 * frames * decoded.channelData.length
      const fitting = Math.floor((MOST_DECODED * length) / Math.max(1, bytes))
      this.#piece = Math.max(LEAST_PIECE, Math.min(this.#mostPiece, 2 * this.#piece, fitting))
      if (frames > 0) return decoded
    }
    if (!this.#ended || this.#flushed) return undefined
    this.#flushed = true
    const last = this.#decoder.flush()
    return (last.channelData[0]?.length ?? 0) > 0 ? last : undefined
  }

  free(): void {
    this.#decoder.free()
  }
}
