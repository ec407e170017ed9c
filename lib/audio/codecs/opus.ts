import type { OpusDecoder as Frames } from 'opus-decoder'
import { type Decoded, joined } from './decoder.js'
import type { Packet, PacketDecoder } from './ogg.js'

const RATE = 48_000

/**
 * Decoder of Opus in Ogg (RFC 7845) at 48 kHz, by npm's `opus-decoder`. Channels keep the order of the stream, as with
 * libsndfile.
 */
export class OpusDecoder implements PacketDecoder {
  readonly #frames: Frames
  readonly #gain: number
  readonly #mostBytes: number
  /** Samples to skip at the beginning (pre-skip). */
  readonly #preSkip: number
  #packets = 0
  #decoded = 0
  /** Granule position of the first sample. */
  #start: number | undefined

  private constructor(frames: Frames, gain: number, channels: number, preSkip: number) {
    this.#frames = frames
    this.#gain = gain
    this.#mostBytes = 3840 * channels
    this.#preSkip = preSkip
  }

  /** @param first packet of the stream */
  static async open(first: Uint8Array): Promise<OpusDecoder> {
    const view = new DataView(first.buffer, first.byteOffset, first.length)
    if (first.length < 19 || first[8]! > 15)
      throw new Error('expected an Opus header of version 0 to 15 with at least 19 bytes')
    const channels = first[9]!
    const preSkip = view.getUint16(10, true)
    const gain = 10 ** (view.getInt16(16, true) / 256 / 20)
    const family = first[18]!
    const mapped = family !== 0
    if (![0, 1, 2, 255].includes(family))
      throw new Error(`Opus channel mapping: expected family 0, 1, 2 or 255, got ${family}`)
    if (channels === 0 || (!mapped && channels > 2) || (family === 1 && channels > 8)) {
      throw new Error(`Opus channels: expected a number that fits mapping family ${family}, got ${channels}`)
    }
    if (mapped && first.length < 21 + channels) throw new Error('the Opus header is truncated')
    const streamCount = mapped ? first[19]! : 1
    const coupledStreamCount = mapped ? first[20]! : channels - 1
    const channelMappingTable = mapped ? [...first.subarray(21, 21 + channels)] : [0, 1].slice(0, channels)
    const coded = streamCount + coupledStreamCount
    const wrong = channelMappingTable.some((channel) => channel !== 255 && channel >= coded)
    if (streamCount === 0 || coupledStreamCount > streamCount || coded > 255 || wrong) {
      throw new Error('the Opus header maps channels that do not exist')
    }
    const { OpusDecoder: Frames } = await import('opus-decoder')
    const frames = new Frames({ channels, streamCount, coupledStreamCount, channelMappingTable })
    await frames.ready
    return new OpusDecoder(frames, gain, channels, preSkip)
  }

  decode(packets: readonly Packet[]): Decoded | undefined {
    // Two headers precede the samples: identification and comments.
    const coded = packets.filter(({ bytes }) => {
      this.#packets += 1
      return this.#packets > 2 && bytes.length > 0
    })
    const tooLong = coded.find(({ bytes }) => bytes.length > this.#mostBytes)
    if (tooLong !== undefined)
      throw new Error(
        `expected Opus packets of at most ${this.#mostBytes} bytes, got ${tooLong.bytes.length}; the file is damaged`,
      )
    const final = coded.pop()
    if (final === undefined) return undefined
    // The end of the stream cuts its last packet only.
    if (!final.last) return this.#decode([...coded, final])
    return joined([coded.length > 0 ? this.#decode(coded) : undefined, this.#decode([final])])
  }

  /** Decode packets together, which costs less than one by one. */
  #decode(packets: readonly Packet[]): Decoded {
    const { channelData, samplesDecoded, errors } = this.#frames.decodeFrames(packets.map(({ bytes }) => bytes))
    if (errors.length > 0) throw new Error(`an Opus packet is damaged: ${errors[0]!.message}`)
    const { granule, last } = packets.at(-1)!
    const before = this.#decoded
    this.#decoded += samplesDecoded
    let end = samplesDecoded
    if (granule !== undefined) {
      this.#start ??= Math.max(0, granule - this.#decoded)
      if (last) end = Math.max(0, Math.min(end, granule - this.#start - before))
    }
    const begin = Math.min(end, Math.max(0, this.#preSkip - before))
    const planes = channelData.map((plane) => plane.subarray(begin, end))
    if (this.#gain !== 1)
      for (const plane of planes) for (let i = 0; i < plane.length; i += 1) plane[i] = plane[i]! * this.#gain
    return { channelData: planes, sampleRate: RATE }
  }

  free(): void {
    this.#frames.free()
  }
}
