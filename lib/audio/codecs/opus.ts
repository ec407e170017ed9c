import type { OpusDecoder as Frames } from 'opus-decoder'
import type { Decoded } from './decoder.js'
import type { Packet, PacketDecoder } from './ogg.js'

const RATE = 48_000

/**
 * Opus in Ogg (RFC 7845), at 48 kHz as it is coded; the codec itself is npm's `opus-decoder`.
 * Channels keep the order of the stream, as with libsndfile.
 */
export class OpusDecoder implements PacketDecoder {
  readonly #frames: Frames
  readonly #gain: number
  readonly #mostBytes: number
  /** Samples at the beginning that are only there for the decoder to settle. */
  readonly #preSkip: number
  #packets = 0
  #decoded = 0
  /** Of the first sample in what pages count. */
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
    if (first.length < 19 || first[8]! > 15) throw new Error('its Opus header is of an unknown version or cut')
    const channels = first[9]!
    const preSkip = view.getUint16(10, true)
    const gain = 10 ** (view.getInt16(16, true) / 256 / 20)
    const family = first[18]!
    const mapped = family !== 0
    if (![0, 1, 2, 255].includes(family)) throw new Error(`its channels are laid out by the unknown family ${family}`)
    if (channels === 0 || (!mapped && channels > 2) || (family === 1 && channels > 8)) {
      throw new Error(`it claims ${channels} channels`)
    }
    if (mapped && first.length < 21 + channels) throw new Error('its Opus header was cut')
    const streamCount = mapped ? first[19]! : 1
    const coupledStreamCount = mapped ? first[20]! : channels - 1
    const channelMappingTable = mapped ? [...first.subarray(21, 21 + channels)] : [0, 1].slice(0, channels)
    const coded = streamCount + coupledStreamCount
    const wrong = channelMappingTable.some((channel) => channel !== 255 && channel >= coded)
    if (streamCount === 0 || coupledStreamCount > streamCount || coded > 255 || wrong) {
      throw new Error('its Opus header names channels that are not there')
    }
    const { OpusDecoder: Frames } = await import('opus-decoder')
    const frames = new Frames({ channels, streamCount, coupledStreamCount, channelMappingTable })
    await frames.ready
    return new OpusDecoder(frames, gain, channels, preSkip)
  }

  decode({ bytes, granule, last }: Packet): Decoded | undefined {
    // Two headers come before the samples: how it is coded, and remarks.
    this.#packets += 1
    if (this.#packets <= 2) return undefined
    if (bytes.length === 0) return undefined
    if (bytes.length > this.#mostBytes) throw new Error(`it has a packet of ${bytes.length} bytes; the file is damaged`)
    const { channelData, samplesDecoded, errors } = this.#frames.decodeFrame(bytes)
    if (errors.length > 0) throw new Error(`one of its packets is damaged: ${errors[0]!.message}`)
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
