import { withoutEnd } from '../../base/words.js'
import { decodePcm, encodedBytes, MOST_CHANNELS, type PcmEncoding } from '../pcm.js'
import { type Decoded, type Decoder, Waiting } from './decoder.js'
import { FlacDecoder } from './flac.js'
import { Mp3Decoder } from './mp3.js'
import type { PacketDecoder } from './ogg.js'
import { OpusDecoder } from './opus.js'
import { VorbisDecoder } from './vorbis.js'

/**
 * The first audio track of a Matroska or WebM file (RFC 9559 on EBML, RFC 8794): what browsers record, and `.mka`. Clusters and
 * segments of unknown size, as live writers leave them, are read like others, since each element says by its id where it belongs.
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

/** Elements whose children are read as siblings, so that nobody needs to know where they end. */
const ENTERED: readonly number[] = [ID.segment, ID.cluster]
const READ: readonly number[] = [ID.tracks, ID.blockGroup, ID.simpleBlock]
/** A block is some kilobytes; codecs' headers with pictures in them some hundred. */
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
  /** The codec's headers. */
  head: Uint8Array
  sampleRate: number
  channels: number
  bits: number
  /** Nanoseconds at the beginning that an encoder added. */
  delay: number
  /** Bytes that are left out at the beginning of each frame. */
  prefix: Uint8Array
}

/** Makes samples of a track's frames. */
interface FrameDecoder {
  push(frame: Uint8Array): void
  /** Say that there are no more. */
  end(): void
  next(): Decoded | undefined
  free?(): void
}

export class MatroskaDecoder implements Decoder {
  readonly #waiting = new Waiting()
  #track: Track | undefined
  #frames: FrameDecoder | undefined
  /** Frames of the last block that are not decoded yet, in order. */
  #pending: Uint8Array[] = []
  /** Nanoseconds to cut from the last of them: from its end, or of a negative number from its beginning. */
  #discard = 0
  /** Samples to drop at the beginning; undefined until the first frame is decoded. */
  #delay: number | undefined
  #ended = false

  feed(bytes: Uint8Array): void {
    this.#waiting.feed(bytes)
  }

  end(): void {
    this.#waiting.ended = true
  }

  async next(): Promise<Decoded | undefined> {
    for (;;) {
      const decoded = this.#decoded()
      if (decoded !== undefined) return decoded
      if (await this.#element()) continue
      if (!this.#waiting.ended || this.#ended) return undefined
      this.#ended = true
      if (this.#frames === undefined) throw new Error('it has no audio track')
      this.#frames.end()
    }
  }

  free(): void {
    this.#frames?.free?.()
  }

  #decoded(): Decoded | undefined {
    const frames = this.#frames
    for (;;) {
      const made = frames?.next()
      if (made !== undefined) {
        const isLast = this.#pending.length === 0
        const ended = isLast && this.#discard !== 0 ? discarded(made, this.#discard) : made
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

  /** Drop the encoder's delay of MP3. Opus drops its own by its header, and Vorbis's first packet gives no samples. */
  #withoutDelay({ channelData, sampleRate }: Decoded): Decoded {
    const { codec, delay } = this.#track as Track
    this.#delay ??= codec === 'A_MPEG/L3' ? Math.round((delay * sampleRate) / 1e9) : 0
    const count = Math.min(this.#delay, channelData[0]!.length)
    this.#delay -= count
    return { channelData: channelData.map((plane) => plane.subarray(count)), sampleRate }
  }

  /** Takes the next element that is whole, or enters it; false where it is not there yet. */
  async #element(): Promise<boolean> {
    const { bytes } = this.#waiting
    const id = idAt(bytes, 0)
    const size = id && sizeAt(bytes, id.length)
    if (id === undefined || size === undefined) return false
    const begin = id.length + size.length
    if (ENTERED.includes(id.value)) {
      this.#waiting.drop(begin)
      return true
    }
    if (size.value === undefined) {
      throw new Error(`its element 0x${id.value.toString(16)} at byte ${this.#waiting.offset} has no size`)
    }
    if (!READ.includes(id.value)) {
      // Its bytes may come later: they are passed then.
      this.#waiting.drop(begin + size.value)
      return true
    }
    if (size.value > MOST_ELEMENT)
      throw new Error(`it has an element of ${size.value} bytes, more than ${MOST_ELEMENT}`)
    const end = begin + size.value
    if (bytes.length < end) return false
    // The next bytes may be written over these.
    const content = bytes.slice(begin, end)
    this.#waiting.drop(end)
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

  /** @param discard nanoseconds to cut from the block's last frame, see `#discard` */
  #block(content: Uint8Array, discard: number): void {
    const track = this.#track
    const number = sizeAt(content, 0)
    if (track === undefined || number === undefined || number.value !== track.number) return
    const at = number.length + 3
    const flags = content[at - 1]
    if (flags === undefined) throw new Error('it has a block without a header')
    const frames = laced(content.subarray(at), (flags >> 1) & 3)
    this.#pending = frames.map((frame) => (track.prefix.length === 0 ? frame : Buffer.concat([track.prefix, frame])))
    this.#discard = discard
  }
}

/** A decoder of frames by the name of their codec. @throws for one that is not read */
async function frameDecoder(track: Track): Promise<FrameDecoder> {
  const { codec, head, sampleRate, channels, bits } = track
  if (codec === 'A_OPUS') {
    const decoder = await OpusDecoder.open(head)
    // In Ogg two headers come before the first frame.
    return packets(decoder, [head, new Uint8Array(0)])
  }
  if (codec === 'A_VORBIS') {
    const headers = vorbisHeaders(head)
    return packets(new VorbisDecoder(headers[0] as Uint8Array), headers.slice(1))
  }
  if (codec === 'A_FLAC') return stream(new FlacDecoder(), head)
  if (codec === 'A_MPEG/L3') return stream(new Mp3Decoder())
  const encoding = PCM[`${codec} ${bits}`]
  if (encoding === undefined) {
    const kind = codec.startsWith('A_PCM') ? `${codec} of ${bits} bits` : codec
    throw new Error(
      `its sound is ${kind}, and Opus, Vorbis, FLAC, MP3 and PCM are read. Take it from the film by filmSound, with npm's node-av`,
    )
  }
  if (channels < 1 || channels > MOST_CHANNELS) throw new Error(`it claims ${channels} channels`)
  const layout = { encoding, bigEndian: codec.endsWith('BIG') }
  const width = channels * encodedBytes[encoding]
  let made: Decoded | undefined
  return {
    push(frame) {
      const whole = frame.slice(0, frame.length - (frame.length % width))
      made = { channelData: decodePcm(whole, { layout, channels, sampleRate, begin: 0, frames: 0 }), sampleRate }
    },
    end() {},
    next() {
      const last = made
      made = undefined
      return last
    },
  }
}

function packets(decoder: PacketDecoder, headers: readonly Uint8Array[]): FrameDecoder {
  let made: Decoded | undefined
  const decode = (bytes: Uint8Array) => decoder.decode({ bytes, granule: undefined, last: false })
  for (const header of headers) decode(header)
  return {
    push(frame) {
      made = decode(frame)
    },
    end() {},
    next() {
      const last = made
      made = undefined
      return last
    },
    free: () => decoder.free?.(),
  }
}

function stream(decoder: FlacDecoder | Mp3Decoder, head?: Uint8Array): FrameDecoder {
  if (head !== undefined && head.length > 0) decoder.feed(head)
  return { push: (frame) => decoder.feed(frame), end: () => decoder.end(), next: () => decoder.next() }
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

/** The elements of one that is whole. */
function* children(bytes: Uint8Array): Generator<Element> {
  for (let at = 0; at < bytes.length; ) {
    const id = idAt(bytes, at)
    const size = id && sizeAt(bytes, at + id.length)
    if (id === undefined || size?.value === undefined) throw new Error('one of its elements is cut off')
    const begin = at + id.length + size.length
    if (size.value > bytes.length - begin) throw new Error(`its element 0x${id.value.toString(16)} is cut off`)
    at = begin + size.value
    yield { id: id.value, data: bytes.subarray(begin, at) }
  }
}

/** An audio track; undefined for one of another kind. */
function trackOf(entry: Uint8Array): Track | undefined {
  const found = new Map([...children(entry)].map(({ id, data }) => [id, data]))
  if (unsigned(found.get(ID.trackType)) !== AUDIO_TRACK) return undefined
  const audio = new Map([...children(found.get(ID.audio) ?? new Uint8Array(0))].map(({ id, data }) => [id, data]))
  return {
    number: unsigned(found.get(ID.trackNumber)) ?? 0,
    codec: withoutEnd(Buffer.from(found.get(ID.codec) ?? []).toString('latin1'), /\0/),
    head: found.get(ID.codecPrivate) ?? new Uint8Array(0),
    sampleRate: real(audio.get(ID.sampleRate)) ?? 8000,
    channels: unsigned(audio.get(ID.channels)) ?? 1,
    bits: unsigned(audio.get(ID.bitDepth)) ?? 0,
    delay: unsigned(found.get(ID.codecDelay)) ?? 0,
    prefix: strippedPrefix(found.get(ID.encodings)),
  }
}

/** Bytes that every frame begins with and that are written once. @throws for what is compressed or encrypted otherwise */
function strippedPrefix(encodings: Uint8Array | undefined): Uint8Array {
  const parts: Uint8Array[] = []
  for (const { id, data } of children(encodings ?? new Uint8Array(0))) {
    if (id !== ID.encoding) continue
    const found = new Map([...children(data)].map((one) => [one.id, one.data]))
    if (((unsigned(found.get(ID.encodingScope)) ?? 1) & 1) === 0) continue
    const compression = found.get(ID.compression)
    const own = new Map([...children(compression ?? new Uint8Array(0))].map((one) => [one.id, one.data]))
    const isStripped = unsigned(own.get(ID.algorithm)) === HEADER_STRIPPING
    if ((unsigned(found.get(ID.encodingType)) ?? 0) !== 0 || compression === undefined || !isStripped) {
      throw new Error('its sound is compressed once more or encrypted, which is not read')
    }
    parts.unshift(own.get(ID.settings) ?? new Uint8Array(0))
  }
  return parts.length === 0 ? new Uint8Array(0) : Buffer.concat(parts)
}

/** The frames of a block: one, or several with their lengths before them, by Xiph's way, in equal parts, or by EBML's. */
function laced(bytes: Uint8Array, lacing: number): Uint8Array[] {
  if (lacing === 0) return [bytes]
  const count = (bytes[0] ?? 0) + 1
  let at = 1
  const sizes: number[] = []
  if (lacing === 2) {
    const size = (bytes.length - 1) / count
    if (!Number.isInteger(size)) throw new Error('it has a block that is no whole number of frames')
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
      const found = sizeAt(bytes, at)
      if (found?.value === undefined) throw new Error('it has a block whose frames have no sizes')
      at += found.length
      // The first as it is, the others as what they differ by.
      const bias = 2 ** (7 * found.length - 1) - 1
      sizes.push(i === 1 ? found.value : (sizes[i - 2] as number) + found.value - bias)
    }
  }
  const frames: Uint8Array[] = []
  for (const size of sizes) {
    if (size < 0 || size > bytes.length - at) throw new Error('it has a block whose frames are longer than it is')
    frames.push(bytes.subarray(at, at + size))
    at += size
  }
  return [...frames, bytes.subarray(at)]
}

/** Vorbis's three headers, with the lengths of the first two before them. */
function vorbisHeaders(head: Uint8Array): Uint8Array[] {
  if (head[0] !== 2) throw new Error('its Vorbis track has no headers')
  return laced(head, 1)
}

/** An id with its length, the marker kept; undefined where it is not whole. */
function idAt(bytes: Uint8Array, at: number): { value: number; length: number } | undefined {
  const first = bytes[at]
  if (first === undefined) return undefined
  const length = Math.clz32(first) - 23
  if (length > 4) throw new Error(`it has no element where one should begin (0x${first.toString(16)})`)
  if (at + length > bytes.length) return undefined
  let value = 0
  for (let i = 0; i < length; i++) value = value * 256 + (bytes[at + i] as number)
  return { value, length }
}

/** A size with its length, without the marker; no value where all its bits are set, which stands for unknown. */
function sizeAt(bytes: Uint8Array, at: number): { value: number | undefined; length: number } | undefined {
  const first = bytes[at]
  if (first === undefined) return undefined
  const length = Math.clz32(first) - 23
  if (length > 8) throw new Error('it has an element without a size')
  if (at + length > bytes.length) return undefined
  let value = first & (0xff >> length)
  let isUnknown = value === 0xff >> length
  for (let i = 1; i < length; i++) {
    const byte = bytes[at + i] as number
    isUnknown &&= byte === 0xff
    value = value * 256 + byte
  }
  if (!isUnknown && !Number.isSafeInteger(value)) throw new Error('it has an element that is larger than any file')
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
