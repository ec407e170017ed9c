import { withoutEnd } from '../../base/words.js'
import { decodePcm, encodedBytes, MOST_CHANNELS, type PcmEncoding } from '../pcm.js'
import { BufferedDecoder, type Decoded } from './decoder.js'
import { StreamDecoder, VorbisDecoder } from './native.js'
import type { PacketDecoder } from './ogg.js'
import { OpusDecoder } from './opus.js'

/**
 * Decodes the first audio track of a Matroska or WebM file (RFC 9559, based on EBML, RFC 8794). Segments and clusters of unknown
 * size, which live recorders write, are supported: the id of each element tells its level.
 */

const ID = {
  ebml: 0x1a45dfa3,
  segment: 0x18538067,
  cluster: 0x1f43b675,
  tracks: 0x1654ae6b,
  trackEntry: 0xae,
  trackNumber: 0xd7,
  trackType: 0x83,
  codec: 0x86,
  codecPrivate: 0x63a2,
  codecDelay: 0x56aa,
  audio: 0xe1,
  sampleRate: 0xb5,
  channels: 0x9f,
  bitDepth: 0x6264,
  encodings: 0x6d80,
  encoding: 0x6240,
  encodingScope: 0x5032,
  encodingType: 0x5033,
  compression: 0x5034,
  algorithm: 0x4254,
  settings: 0x4255,
  blockGroup: 0xa0,
  block: 0xa1,
  discardPadding: 0x75a2,
  simpleBlock: 0xa3,
} as const

/** Elements whose children are read as siblings, so their size is not needed. */
const ENTERED: readonly number[] = [ID.segment, ID.cluster]
const READ: readonly number[] = [ID.tracks, ID.blockGroup, ID.simpleBlock]
/** Most bytes of an element: usual blocks have some kilobytes, codec headers with images some hundred. */
const MOST_ELEMENT = 1 << 26
const AUDIO_TRACK = 2
const HEADER_STRIPPING = 3

const PCM: Readonly<Record<string, PcmEncoding>> = {
  'A_PCM/INT/LIT 8': 'u8',
  'A_PCM/INT/LIT 16': 's16',
  'A_PCM/INT/LIT 24': 's24',
  'A_PCM/INT/LIT 32': 's32',
  'A_PCM/INT/BIG 16': 's16',
  'A_PCM/INT/BIG 24': 's24',
  'A_PCM/INT/BIG 32': 's32',
  'A_PCM/FLOAT/IEEE 32': 'f32',
  'A_PCM/FLOAT/IEEE 64': 'f64',
}

interface Track {
  number: number
  codec: string
  /** Headers of the codec (CodecPrivate). */
  head: Uint8Array
  sampleRate: number
  channels: number
  bits: number
  /** Nanoseconds that the encoder added at the beginning. */
  delay: number
  /** Bytes that were removed from the beginning of each frame (header stripping). */
  prefix: Uint8Array
}

/** Decoder of the frames of a track. */
interface FrameDecoder {
  push(frame: Uint8Array): void
  /** Mark the end of the input. */
  end(): void
  next(): Decoded | undefined
  free?(): void
}

export class MatroskaDecoder extends BufferedDecoder {
  #track: Track | undefined
  #frames: FrameDecoder | undefined
  /** Frames of the current block that are not decoded yet, in order. */
  #pending: Uint8Array[] = []
  /** Nanoseconds to remove from the last of them: from its end, or, if negative, from its beginning. */
  #discard = 0
  /** Samples to drop at the beginning; undefined until the first frame is decoded. */
  #delay: number | undefined
  #ended = false

  async next(): Promise<Decoded | undefined> {
    for (;;) {
      const decoded = this.#decoded()
      if (decoded !== undefined) return decoded
      if (await this.#element()) continue
      if (!this.waiting.ended || this.#ended) return undefined
      this.#ended = true
      if (this.#frames === undefined) throw new Error('expected a file with an audio track, got none')
      this.#frames.end()
    }
  }

  free(): void {
    this.#frames?.free?.()
  }

  #decoded(): Decoded | undefined {
    const frames = this.#frames
    for (;;) {
      const decoded = frames?.next()
      if (decoded !== undefined) {
        const isLast = this.#pending.length === 0
        const ended = isLast && this.#discard !== 0 ? discarded(decoded, this.#discard) : decoded
        if (isLast) this.#discard = 0
        const cut = this.#withoutDelay(ended)
        if (cut.channelData[0]!.length > 0) return cut
        continue
      }
      const frame = this.#pending.shift()
      if (frame === undefined || frames === undefined) return undefined
      frames.push(frame)
    }
  }

  /** Drop the encoder delay of MP3. The Opus decoder drops its own by its header, and the first Vorbis packet has no output. */
  #withoutDelay({ channelData, sampleRate }: Decoded): Decoded {
    const { codec, delay } = this.#track as Track
    this.#delay ??= codec === 'A_MPEG/L3' ? Math.round((delay * sampleRate) / 1e9) : 0
    const count = Math.min(this.#delay, channelData[0]!.length)
    this.#delay -= count
    return { channelData: channelData.map((plane) => plane.subarray(count)), sampleRate }
  }

  /** Read, enter or skip the next element; return false if it is incomplete. */
  async #element(): Promise<boolean> {
    const { bytes } = this.waiting
    const id = idAt(bytes, 0)
    const size = id && sizeAt(bytes, id.length)
    if (id === undefined || size === undefined) return false
    const begin = id.length + size.length
    if (ENTERED.includes(id.value)) {
      this.waiting.drop(begin)
      return true
    }
    if (size.value === undefined) {
      throw new Error(`element 0x${id.value.toString(16)} at byte ${this.waiting.offset}: expected a known size`)
    }
    if (!READ.includes(id.value)) {
      // Also skips bytes that have not arrived yet.
      this.waiting.drop(begin + size.value)
      return true
    }
    if (size.value > MOST_ELEMENT)
      throw new Error(`expected elements of at most ${MOST_ELEMENT} bytes, got one of ${size.value}`)
    const end = begin + size.value
    if (bytes.length < end) return false
    // Copied, because the next `feed` may overwrite the buffer.
    const content = bytes.slice(begin, end)
    this.waiting.drop(end)
    if (id.value === ID.tracks) await this.#open(content)
    else if (id.value === ID.simpleBlock) this.#block(content, 0)
    else this.#group(content)
    return true
  }

  async #open(content: Uint8Array): Promise<void> {
    if (this.#track !== undefined) return
    const tracks = [...children(content)].flatMap(({ id, data }) => (id === ID.trackEntry ? [trackOf(data)] : []))
    this.#track = tracks.find((track) => track !== undefined)
    if (this.#track !== undefined) this.#frames = await frameDecoder(this.#track)
  }

  #group(content: Uint8Array): void {
    const all = [...children(content)]
    const padding = all.find(({ id }) => id === ID.discardPadding)
    for (const { id, data } of all)
      if (id === ID.block) this.#block(data, padding === undefined ? 0 : signed(padding.data))
  }

  /** @param discard nanoseconds to remove from the block's last frame, see `#discard` */
  #block(content: Uint8Array, discard: number): void {
    const track = this.#track
    const number = sizeAt(content, 0)
    if (track === undefined || number === undefined || number.value !== track.number) return
    const at = number.length + 3
    const flags = content[at - 1]
    if (flags === undefined) throw new Error('the file has a block without a header')
    const frames = laced(content.subarray(at), (flags >> 1) & 3)
    this.#pending = frames.map((frame) => (track.prefix.length === 0 ? frame : Buffer.concat([track.prefix, frame])))
    this.#discard = discard
  }
}

/** Create the decoder of a track. @throws for an unsupported codec */
async function frameDecoder(track: Track): Promise<FrameDecoder> {
  const { codec, head, sampleRate, channels, bits } = track
  if (codec === 'A_OPUS') {
    const decoder = await OpusDecoder.open(head)
    // The decoder expects the two header packets of Ogg.
    return packets(decoder, [head, new Uint8Array(0)])
  }
  if (codec === 'A_VORBIS') {
    const headers = vorbisHeaders(head)
    return packets(new VorbisDecoder(headers[0] as Uint8Array), headers.slice(1))
  }
  if (codec === 'A_FLAC') return stream(new StreamDecoder('flac'), head)
  if (codec === 'A_MPEG/L3') return stream(new StreamDecoder('mp3'))
  const encoding = PCM[`${codec} ${bits}`]
  if (encoding === undefined) {
    const kind = codec.startsWith('A_PCM') ? `${codec} of ${bits} bits` : codec
    throw new Error(
      `expected Opus, Vorbis, FLAC, MP3 or PCM, got ${kind}. To read it, install npm's node-av and use videoAudio(path)`,
    )
  }
  if (channels < 1 || channels > MOST_CHANNELS)
    throw new Error(`channels: expected 1 to ${MOST_CHANNELS}, got ${channels}`)
  const layout = { encoding, bigEndian: codec.endsWith('BIG') }
  const width = channels * encodedBytes[encoding]
  return eachFrame((frame) => {
    const whole = frame.slice(0, frame.length - (frame.length % width))
    return { channelData: decodePcm(whole, { layout, channels, sampleRate, begin: 0, frames: 0 }), sampleRate }
  })
}

function packets(decoder: PacketDecoder, headers: readonly Uint8Array[]): FrameDecoder {
  const decode = (bytes: Uint8Array) => decoder.decode([{ bytes, granule: undefined, last: false }])
  for (const header of headers) decode(header)
  return { ...eachFrame(decode), free: () => decoder.free?.() }
}

/** Create a decoder that decodes each frame on its own. */
function eachFrame(decode: (frame: Uint8Array) => Decoded | undefined): FrameDecoder {
  let decoded: Decoded | undefined
  return {
    push(frame) {
      decoded = decode(frame)
    },
    end() {},
    next() {
      const last = decoded
      decoded = undefined
      return last
    },
  }
}

function stream(decoder: StreamDecoder, head?: Uint8Array): FrameDecoder {
  if (head !== undefined && head.length > 0) decoder.feed(head)
  return {
    push: (frame) => decoder.feed(frame),
    end: () => decoder.end(),
    next: () => decoder.next(),
    free: () => decoder.free(),
  }
}

function discarded({ channelData, sampleRate }: Decoded, nanoseconds: number): Decoded {
  const count = channelData[0]!.length
  const samples = Math.min(count, Math.round((Math.abs(nanoseconds) * sampleRate) / 1e9))
  const [begin, end] = nanoseconds > 0 ? [0, count - samples] : [samples, count]
  return { channelData: channelData.map((plane) => plane.subarray(begin, end)), sampleRate }
}

interface Element {
  id: number
  data: Uint8Array
}

/** Yield the child elements of a complete element. */
function* children(bytes: Uint8Array): Generator<Element> {
  for (let at = 0; at < bytes.length; ) {
    const id = idAt(bytes, at)
    const size = id && sizeAt(bytes, at + id.length)
    if (id === undefined || size?.value === undefined) throw new Error('the file has a truncated element')
    const begin = at + id.length + size.length
    if (size.value > bytes.length - begin) throw new Error(`element 0x${id.value.toString(16)} is truncated`)
    at = begin + size.value
    yield { id: id.value, data: bytes.subarray(begin, at) }
  }
}

/** Read a track; return undefined if it is not audio. */
function trackOf(entry: Uint8Array): Track | undefined {
  const fields = fieldsOf(entry)
  if (unsigned(fields.get(ID.trackType)) !== AUDIO_TRACK) return undefined
  const audio = fieldsOf(fields.get(ID.audio))
  return {
    number: unsigned(fields.get(ID.trackNumber)) ?? 0,
    codec: withoutEnd(Buffer.from(fields.get(ID.codec) ?? []).toString('latin1'), /\0/),
    head: fields.get(ID.codecPrivate) ?? new Uint8Array(0),
    sampleRate: real(audio.get(ID.sampleRate)) ?? 8000,
    channels: unsigned(audio.get(ID.channels)) ?? 1,
    bits: unsigned(audio.get(ID.bitDepth)) ?? 0,
    delay: unsigned(fields.get(ID.codecDelay)) ?? 0,
    prefix: strippedPrefix(fields.get(ID.encodings)),
  }
}

/** Return the child elements of a complete element by id. */
const fieldsOf = (bytes: Uint8Array = new Uint8Array(0)): Map<number, Uint8Array> =>
  new Map([...children(bytes)].map(({ id, data }) => [id, data]))

/** Return the bytes that header stripping removed from each frame. @throws for other compression, and encryption */
function strippedPrefix(encodings: Uint8Array | undefined): Uint8Array {
  const parts: Uint8Array[] = []
  for (const { id, data } of children(encodings ?? new Uint8Array(0))) {
    if (id !== ID.encoding) continue
    const fields = fieldsOf(data)
    if (((unsigned(fields.get(ID.encodingScope)) ?? 1) & 1) === 0) continue
    const compression = fields.get(ID.compression)
    const settings = fieldsOf(compression)
    const isStripped = unsigned(settings.get(ID.algorithm)) === HEADER_STRIPPING
    if ((unsigned(fields.get(ID.encodingType)) ?? 0) !== 0 || compression === undefined || !isStripped) {
      throw new Error('unsupported: the audio track has additional compression or encryption')
    }
    parts.unshift(settings.get(ID.settings) ?? new Uint8Array(0))
  }
  return parts.length === 0 ? new Uint8Array(0) : Buffer.concat(parts)
}

/** Split a block into frames. @param lacing 0: one frame; 1: Xiph lacing; 2: frames of equal size; 3: EBML lacing */
function laced(bytes: Uint8Array, lacing: number): Uint8Array[] {
  if (lacing === 0) return [bytes]
  const count = (bytes[0] ?? 0) + 1
  let at = 1
  const sizes: number[] = []
  if (lacing === 2) {
    const size = (bytes.length - 1) / count
    if (!Number.isInteger(size))
      if (!Number.isInteger(size)) {
        throw new Error(`expected a block of ${count} frames of equal size, got ${bytes.length - 1} bytes`)
      }
    for (let i = 1; i < count; i++) sizes.push(size)
  } else if (lacing === 1) {
    for (let i = 1; i < count; i++) {
      let size = 0
      let byte: number
      do {
        byte = bytes[at++] ?? 0
        size += byte
      } while (byte === 255)
      sizes.push(size)
    }
  } else {
    for (let i = 1; i < count; i++) {
      const size = sizeAt(bytes, at)
      if (size?.value === undefined) throw new Error('expected a block with the sizes of its frames')
      at += size.length
      // The first size is absolute, the others are differences.
      const bias = 2 ** (7 * size.length - 1) - 1
      sizes.push(i === 1 ? size.value : (sizes[i - 2] as number) + size.value - bias)
    }
  }
  const frames: Uint8Array[] = []
  for (const size of sizes) {
    if (size < 0 || size > bytes.length - at) throw new Error('expected frames within their block, got longer ones')
    frames.push(bytes.subarray(at, at + size))
    at += size
  }
  return [...frames, bytes.subarray(at)]
}

/** Split CodecPrivate into the three headers of Vorbis; the lengths of the first two precede them. */
function vorbisHeaders(head: Uint8Array): Uint8Array[] {
  if (head[0] !== 2) throw new Error('expected a Vorbis track with 3 headers in CodecPrivate')
  return laced(head, 1)
}

/** Read an element id, including its length marker; return undefined if it is incomplete. */
function idAt(bytes: Uint8Array, at: number): { value: number; length: number } | undefined {
  const first = bytes[at]
  if (first === undefined) return undefined
  const length = Math.clz32(first) - 23
  if (length > 4) throw new Error(`expected an element id, got 0x${first.toString(16)}`)
  if (at + length > bytes.length) return undefined
  let value = 0
  for (let i = 0; i < length; i++) value = value * 256 + (bytes[at + i] as number)
  return { value, length }
}

/** Read a size, without its length marker; `value` is undefined for an unknown size, all of whose bits are set. */
function sizeAt(bytes: Uint8Array, at: number): { value: number | undefined; length: number } | undefined {
  const first = bytes[at]
  if (first === undefined) return undefined
  const length = Math.clz32(first) - 23
  if (length > 8) throw new Error('expected the size of an element, got 0x00')
  if (at + length > bytes.length) return undefined
  let value = first & (0xff >> length)
  let isUnknown = value === 0xff >> length
  for (let i = 1; i < length; i++) {
    const byte = bytes[at + i] as number
    isUnknown &&= byte === 0xff
    value = value * 256 + byte
  }
  if (!isUnknown && !Number.isSafeInteger(value))
    throw new Error('expected an element size below 2^53, got a larger one')
  return { value: isUnknown ? undefined : value, length }
}

function unsigned(bytes: Uint8Array | undefined): number | undefined {
  if (bytes === undefined || bytes.length > 8) return undefined
  return bytes.reduce((value, byte) => value * 256 + byte, 0)
}

function signed(bytes: Uint8Array): number {
  if (bytes.length === 0 || bytes.length > 8) return 0
  const value = bytes.reduce((sum, byte) => sum * 256n + BigInt(byte), 0n)
  return Number(BigInt.asIntN(8 * bytes.length, value))
}

function real(bytes: Uint8Array | undefined): number | undefined {
  if (bytes === undefined || (bytes.length !== 4 && bytes.length !== 8)) return undefined
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  return bytes.length === 4 ? view.getFloat32(0) : view.getFloat64(0)
}
