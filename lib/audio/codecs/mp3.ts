import { Bits } from './bits.js'
import { BufferedDecoder, type Decoded, OutOfBits } from './decoder.js'
import {
  type EncoderInfo,
  HEADER_BYTES,
  type Mp3Header,
  readEncoderInfo,
  readMp3Header,
  sameStream,
} from './mp3-header.js'
import { type Granule, readGranules, readScaleFactors, readSpectrum, type ScaleFactors } from './mp3-spectrum.js'
import { reduceAliasing, separate } from './mp3-stereo.js'
import { Synthesis } from './mp3-synthesis.js'
import { bands } from './mp3-tables.js'

/** Delay of the decoder's two transforms, in samples. */
const DECODER_DELAY = 529
/** Most bytes of earlier frames that a frame may refer to. */
const MOST_RESERVOIR = 511
/** Most bytes before the first frame. */
const MOST_JUNK = 1 << 20

/**
 * Decoder of MPEG-1, 2 and 2.5 audio, layer III (ISO/IEC 11172-3 and 13818-3). Samples that the encoder added, according to
 * LAME's tag, are removed. Bytes between frames are skipped; a damaged frame is silent, as in other decoders.
 */
export class Mp3Decoder extends BufferedDecoder {
  readonly #syntheses = [new Synthesis(), new Synthesis()]
  #stream: Mp3Header | undefined
  #junk = 0
  /** Bit reservoir: the end of the data of previous frames. */
  #reservoir: Uint8Array = new Uint8Array(0)
  /** Number of frames that were read, including silent ones. */
  frames = 0
  /** Samples left to skip at the beginning, and the end of the recording. */
  #skip = 0
  #end = Number.POSITIVE_INFINITY
  #position = 0

  next(): Decoded | undefined {
    for (let header = this.#find(); header !== undefined; header = this.#find()) {
      const frame = this.waiting.bytes.subarray(0, header.bytes)
      const info = this.frames === 0 ? readEncoderInfo(frame, header) : undefined
      const decoded = info === undefined ? this.#cut(this.#frame(frame, header)) : undefined
      if (info !== undefined) this.#trim(info, header)
      this.waiting.drop(header.bytes)
      this.frames += 1
      if (decoded !== undefined) return decoded
    }
    return undefined
  }

  /** Find the next complete frame; return undefined if there is none yet. */
  #find(): Mp3Header | undefined {
    const waiting = this.waiting
    for (let at = 0; ; at += 1) {
      const { bytes } = waiting
      if (at + HEADER_BYTES > bytes.length) {
        waiting.drop(at)
        return undefined
      }
      const header = this.#headerAt(bytes, at)
      if (header === 'later') {
        waiting.drop(at)
        return undefined
      }
      if (header !== undefined) {
        waiting.drop(at)
        this.#junk = 0
        this.#stream ??= header
        return header
      }
      this.#junk += 1
      if (this.frames === 0 && this.#junk > MOST_JUNK)
        throw new Error(`expected an MPEG frame in the first ${MOST_JUNK} bytes, got none`)
    }
  }

  /** Read the header of a frame that fits the stream. The first frame, and one with other channels, must be followed by another. */
  #headerAt(bytes: Uint8Array, at: number): Mp3Header | 'later' | undefined {
    const header = readMp3Header(bytes, at)
    if (header === undefined || (this.#stream !== undefined && !sameStream(this.#stream, header))) return undefined
    const { ended } = this.waiting
    const end = at + header.bytes
    if (end > bytes.length) return ended ? undefined : 'later'
    const stream = this.#stream
    if (stream?.channels === header.channels) return header
    if (end + HEADER_BYTES > bytes.length) return ended ? (stream === undefined ? header : undefined) : 'later'
    const next = readMp3Header(bytes, end)
    if (next === undefined || !sameStream(header, next) || header.channels !== next.channels) return undefined
    if (stream !== undefined)
      throw new Error(`expected a constant number of channels, got ${stream.channels} and then ${header.channels}`)
    return header
  }

  #trim({ frames, delay, padding }: EncoderInfo, header: Mp3Header): void {
    if (delay === undefined) return
    this.#skip = delay + DECODER_DELAY
    if (frames !== undefined) this.#end = frames * header.samples - Math.max(0, padding - DECODER_DELAY)
  }

  #cut(channelData: Float32Array[]): Decoded | undefined {
    const count = channelData[0]!.length
    const begin = Math.min(count, Math.max(0, this.#skip - this.#position))
    const end = Math.max(begin, Math.min(count, this.#end - this.#position))
    this.#position += count
    if (begin === end) return undefined
    return { channelData: channelData.map((plane) => plane.subarray(begin, end)), sampleRate: this.#stream!.sampleRate }
  }

  #frame(frame: Uint8Array, header: Mp3Header): Float32Array[] {
    const { channels, samples } = header
    const out = Array.from({ length: channels }, () => new Float32Array(samples))
    const side = readGranules(new Bits(frame, header.side), header)
    const mainData = frame.subarray(header.side + header.sideBytes)
    const known = side.back <= this.#reservoir.length
    const data = Buffer.concat([this.#reservoir.subarray(this.#reservoir.length - (known ? side.back : 0)), mainData])
    const before: (ScaleFactors | undefined)[] = []
    let position = 0
    side.granules.forEach((granules, index) => {
      const spectra = granules.map((granule, channel) => {
        const spectrum = new Float32Array(576)
        const begin = position
        position += granule.bits
        // A frame that refers to missing data, or beyond its end, is silent.
        if (!known || position > 8 * data.length) return { spectrum, scale: undefined, filled: 0 }
        return this.#channel(data, begin, granule, header, channel, side.shared[channel]!, before, spectrum)
      })
      if (channels === 2) separate(spectra, granules, header)
      granules.forEach((granule, channel) => {
        const { spectrum } = spectra[channel]!
        reduceAliasing(spectrum, granule)
        this.#syntheses[channel]!.run(spectrum, granule.blockType, granule.mixed, out[channel]!, 576 * index)
      })
    })
    const rest = Buffer.concat([this.#reservoir, mainData])
    this.#reservoir = new Uint8Array(rest.subarray(Math.max(0, rest.length - MOST_RESERVOIR)))
    return out
  }

  #channel(
    data: Uint8Array,
    begin: number,
    granule: Granule,
    header: Mp3Header,
    channel: number,
    shared: boolean[],
    before: (ScaleFactors | undefined)[],
    spectrum: Float32Array,
  ): { spectrum: Float32Array; scale: ScaleFactors | undefined; filled: number } {
    try {
      const bits = new Bits(data)
      bits.position = begin
      const scale = readScaleFactors(bits, granule, header, channel, shared, before[channel])
      before[channel] = scale
      const filled = readSpectrum(
        bits,
        begin + granule.bits,
        granule,
        scale,
        header,
        bands[header.sampleRate]!,
        spectrum,
      )
      return { spectrum, scale, filled }
    } catch (error) {
      if (!(error instanceof OutOfBits)) throw error
      return { spectrum: spectrum.fill(0), scale: undefined, filled: 0 }
    }
  }
}
