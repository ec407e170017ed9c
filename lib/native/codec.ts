import { type CodecFormat, type CodecSamples, type NativeCodec, native } from './addon.js'

const NOTHING = new Uint8Array(0)

/** Decoder of FLAC, MP3 or Vorbis in native code. Its errors are of class Error and do not name the file. */
export class Codec {
  readonly #codec: NativeCodec

  /** @param first the first packet of Vorbis */
  constructor(format: CodecFormat, first: Uint8Array = NOTHING) {
    this.#codec = native.openCodec(format, first)
  }

  /** Add the next bytes of FLAC or MP3. */
  feed(bytes: Uint8Array): void {
    native.feedCodec(this.#codec, bytes, false)
  }

  /** Mark the end of FLAC or MP3. */
  end(): void {
    native.feedCodec(this.#codec, NOTHING, true)
  }

  /** Return the samples of the next frames, some more than `bytes` bytes; undefined if more input is needed, or at the end. */
  next(bytes: number): CodecSamples | undefined {
    return native.nextOfCodec(this.#codec, bytes)
  }

  /**
   * Decode successive packets of Vorbis.
   * @param granule granule position of the last packet, or undefined
   * @param isLast whether the last packet ends the stream
   */
  decode(packets: readonly Uint8Array[], granule: number | undefined, isLast: boolean): CodecSamples | undefined {
    const bytes = packets.length === 1 ? packets[0]! : Buffer.concat(packets)
    const lengths = packets.map(({ length }) => length)
    return native.decodePackets(this.#codec, bytes, lengths, granule ?? Number.NaN, isLast)
  }

  /** Free the memory of the decoder, which cannot be used afterwards. */
  free(): void {
    native.closeCodec(this.#codec)
  }
}

/**
 * Convert interleaved samples to float32, one array per channel, whose lengths are the number of frames.
 * @param encoding index of an encoding, in the order of `PcmEncoding` in native/core/audio/pcm.h
 */
export const decodePcmInto = (
  bytes: Uint8Array,
  encoding: number,
  isBigEndian: boolean,
  planes: Float32Array[],
): void => native.decodePcm(bytes, encoding, isBigEndian, planes)

/** Return the checksum of an Ogg page, with zeros in place of its checksum field. */
export const oggChecksum = (page: Uint8Array): number => native.oggChecksum(page)

/**
 * Return whether a frame of MPEG layer III begins at the first byte, and another one follows it.
 * @param isEnd whether the file ends with the bytes; then it may end with the first frame
 */
export const beginsMp3 = (bytes: Uint8Array, isEnd: boolean): boolean => native.beginsMp3(bytes, isEnd)
