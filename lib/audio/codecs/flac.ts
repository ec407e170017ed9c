import { Bits } from './bits.js'
import { BufferedDecoder, type Decoded, OutOfBits } from './decoder.js'
import type { Packet, PacketDecoder } from './ogg.js'

interface StreamInfo {
  sampleRate: number
  channels: number
  bits: number
  /** Frames of the whole file; 0 if the encoder did not know. */
  frames: number
}

interface FrameHeader {
  size: number
  sampleRate: number
  channels: number
  assignment: number
  bits: number
}

type Samples = Int32Array | Float64Array

const rates = [0, 88200, 176400, 192000, 8000, 16000, 22050, 24000, 32000, 44100, 48000, 96000]
const depths = [0, 8, 12, 0, 16, 20, 24, 32]
const LEFT_SIDE = 8
const SIDE_RIGHT = 9
const MID_SIDE = 10

/**
 * Decoder of FLAC (RFC 9639). A sample is the file's integer divided by 2^(bits - 1), without loss. The checksum of each frame
 * and the number of samples in the header are verified.
 */
export class FlacDecoder extends BufferedDecoder {
  #begun = false
  #lastBlock = false
  #info: StreamInfo | undefined
  /** Bytes that must be buffered before the current frame is tried again. */
  #wanted = 0
  #decoded = 0

  next(): Decoded | undefined {
    const { ended } = this.waiting
    if (!this.#lastBlock && !this.#readBlocks()) return this.#short()
    const info = this.#info!
    const all = info.frames > 0 && this.#decoded >= info.frames
    // Bytes after the last frame are tags of other formats.
    if (all || this.waiting.bytes.length === 0) return this.#short()
    if (!ended && this.waiting.bytes.length <= this.#wanted) return undefined
    try {
      const block = this.#frame(info)
      this.#wanted = 0
      this.#decoded += block.channelData[0]!.length
      return block
    } catch (error) {
      if (!(error instanceof OutOfBits)) throw error
      if (ended) return this.#short()
      // Doubled each time, so that a long frame is not retried for every few bytes.
      this.#wanted = 2 * this.waiting.bytes.length
      return undefined
    }
  }

  /** Return undefined; at the end of the input, check that the file is complete. */
  #short(): undefined {
    if (!this.waiting.ended) return undefined
    if (this.#info === undefined) throw new Error('the file ends within its header')
    const { frames } = this.#info
    if (frames > 0 && this.#decoded < frames) {
      const facts = `expected ${frames} frames, as the header declares, got ${this.#decoded}`
      throw new Error(`${facts}; the file is truncated or damaged`)
    }
    if (frames === 0 && this.waiting.bytes.length > 0) throw new OutOfBits()
    return undefined
  }

  /** Read the metadata blocks before the first frame; only STREAMINFO is used. */
  #readBlocks(): boolean {
    const waiting = this.waiting
    if (!this.#begun) {
      if (waiting.bytes.length < 4) return false
      if (waiting.ascii(0, 4) !== 'fLaC') throw new Error("expected 'fLaC' at the beginning")
      waiting.drop(4)
      this.#begun = true
    }
    while (!this.#lastBlock) {
      const { bytes } = waiting
      if (bytes.length < 4) return false
      const length = (bytes[1]! << 16) | (bytes[2]! << 8) | bytes[3]!
      if ((bytes[0]! & 127) === 0) {
        if (bytes.length < 4 + length) return false
        this.#info = streamInfo(bytes.subarray(4, 4 + length))
      }
      this.#lastBlock = (bytes[0]! & 128) !== 0
      waiting.drop(4 + length)
    }
    if (this.#info === undefined) throw new Error('expected a STREAMINFO block before the first frame')
    return true
  }

  #frame(info: StreamInfo): Decoded {
    const { bytes, offset } = this.waiting
    const damaged = (what: string) => new Error(`the frame at byte ${offset} ${what}; the file is damaged`)
    const bits = new Bits(bytes)
    const header = frameHeader(bits, bytes, info, damaged)
    // An upper bound on the size of a frame: no encoder writes more than the uncompressed samples take.
    const most = 2 * (64 + Math.ceil((header.size * header.channels * (header.bits + 1)) / 8))
    try {
      const { channels, assignment, size } = header
      const planes: Samples[] = []
      for (let channel = 0; channel < channels; channel += 1) {
        const side = assignment === SIDE_RIGHT ? channel === 0 : assignment >= LEFT_SIDE && channel === 1
        planes.push(subframe(bits, size, header.bits + (side ? 1 : 0), damaged))
      }
      bits.align()
      const end = bits.position / 8
      if (bits.read(16) !== crc16(bytes, end)) throw damaged('has a wrong checksum')
      this.waiting.drop(end + 2)
      unmix(planes, assignment)
      const scale = 2 ** (1 - header.bits)
      const channelData = planes.map((plane) => {
        const samples = new Float32Array(size)
        for (let i = 0; i < size; i += 1) samples[i] = plane[i]! * scale
        return samples
      })
      return { channelData, sampleRate: header.sampleRate }
    } catch (error) {
      if (error instanceof OutOfBits && bytes.length > most) throw damaged('is longer than its samples')
      throw error
    }
  }
}

function streamInfo(bytes: Uint8Array): StreamInfo {
  if (bytes.length < 34) throw new Error(`STREAMINFO: expected at least 34 bytes, got ${bytes.length}`)
  const bits = new Bits(bytes, 10)
  const sampleRate = bits.read(20)
  const channels = bits.read(3) + 1
  const depth = bits.read(5) + 1
  const frames = bits.read(4) * 2 ** 32 + bits.read(32)
  if (sampleRate === 0) throw new Error('STREAMINFO: expected a sample rate above 0 Hz, got 0')
  return { sampleRate, channels, bits: depth, frames }
}

function frameHeader(bits: Bits, bytes: Uint8Array, info: StreamInfo, damaged: (what: string) => Error): FrameHeader {
  if (bits.read(15) !== 0x7ffc) throw damaged('does not begin as one')
  bits.read(1)
  const sizeCode = bits.read(4)
  const rateCode = bits.read(4)
  const assignment = bits.read(4)
  const depthCode = bits.read(3)
  if (bits.read(1) !== 0 || sizeCode === 0 || rateCode === 15 || assignment > MID_SIDE || depthCode === 3) {
    throw damaged('has a header that nothing is said by')
  }
  // The frame number, coded like UTF-8.
  const first = bits.read(8)
  const more = Math.clz32((~first & 255) << 24)
  if (more === 1 || more > 7) throw damaged('has no number')
  bits.position += 8 * Math.max(0, more - 1)
  let size = 256 << (sizeCode - 8)
  if (sizeCode === 1) size = 192
  else if (sizeCode < 6) size = 576 << (sizeCode - 2)
  else if (sizeCode < 8) size = bits.read(sizeCode === 6 ? 8 : 16) + 1
  let sampleRate = rates[rateCode]!
  if (rateCode === 0) sampleRate = info.sampleRate
  else if (rateCode === 12) sampleRate = bits.read(8) * 1000
  else if (rateCode > 12) sampleRate = bits.read(16) * (rateCode === 14 ? 10 : 1)
  const end = bits.position / 8
  if (bits.read(8) !== crc8(bytes, end)) throw damaged('has a header with another checksum than it says')
  const channels = assignment < LEFT_SIDE ? assignment + 1 : 2
  if (channels !== info.channels) throw damaged(`has ${channels} channels, expected ${info.channels} as in the header`)
  return { size, sampleRate, channels, assignment, bits: depthCode === 0 ? info.bits : depths[depthCode]! }
}

function subframe(bits: Bits, size: number, depth: number, damaged: (what: string) => Error): Samples {
  if (bits.read(1) !== 0) throw damaged('has a channel that does not begin as one')
  const type = bits.read(6)
  const wasted = bits.read(1) === 1 ? bits.zeros() + 1 : 0
  const width = depth - wasted
  if (width < 1) throw damaged('has more bits left out than there are')
  const samples = depth > 32 ? new Float64Array(size) : new Int32Array(size)
  if (type === 0) {
    samples.fill(bits.signed(width))
  } else if (type === 1) {
    for (let i = 0; i < size; i += 1) samples[i] = bits.signed(width)
  } else if (type >= 8 && type <= 12) {
    const order = warmUp(bits, samples, type & 7, width, damaged)
    residuals(bits, samples, order, damaged)
    restoreFixed(samples, order)
  } else if (type >= 32) {
    const order = warmUp(bits, samples, (type & 31) + 1, width, damaged)
    const precision = bits.read(4) + 1
    const shift = bits.signed(5)
    if (precision === 16 || shift < 0) throw damaged('has a predictor that nothing is said by')
    const weights = Int32Array.from({ length: order }, () => bits.signed(precision))
    residuals(bits, samples, order, damaged)
    restoreLinear(samples, weights, shift, width + precision + Math.ceil(Math.log2(order)) <= 32)
  } else {
    throw damaged(`has a channel of the unknown type ${type}`)
  }
  if (wasted > 0) for (let i = 0; i < size; i += 1) samples[i] = samples[i]! * 2 ** wasted
  return samples
}

function warmUp(bits: Bits, samples: Samples, order: number, width: number, damaged: (what: string) => Error): number {
  if (order > samples.length) throw damaged('is shorter than its predictor')
  for (let i = 0; i < order; i += 1) samples[i] = bits.signed(width)
  return order
}

/** Read residuals in Rice codes, in partitions with one parameter each. */
function residuals(bits: Bits, samples: Samples, order: number, damaged: (what: string) => Error): void {
  const method = bits.read(2)
  if (method > 1) throw damaged('has residuals of an unknown kind')
  const parameterBits = method === 0 ? 4 : 5
  const partitions = bits.read(4)
  const length = samples.length >> partitions
  if (length << partitions !== samples.length || length < order) throw damaged('has partitions that do not divide it')
  for (let begin = 0, i = order; begin < samples.length; begin += length) {
    const parameter = bits.read(parameterBits)
    const end = begin + length
    if (parameter === 2 ** parameterBits - 1) {
      const width = bits.read(5)
      for (; i < end; i += 1) samples[i] = bits.signed(width)
      continue
    }
    const step = 2 ** parameter
    for (; i < end; i += 1) {
      const folded = bits.zeros() * step + bits.read(parameter)
      samples[i] = folded % 2 === 0 ? folded / 2 : -(folded + 1) / 2
    }
  }
}

function restoreFixed(s: Samples, order: number): void {
  const size = s.length
  if (order === 1) for (let i = 1; i < size; i += 1) s[i] = s[i]! + s[i - 1]!
  else if (order === 2) for (let i = 2; i < size; i += 1) s[i] = s[i]! + 2 * s[i - 1]! - s[i - 2]!
  else if (order === 3) for (let i = 3; i < size; i += 1) s[i] = s[i]! + 3 * (s[i - 1]! - s[i - 2]!) + s[i - 3]!
  else if (order === 4) {
    for (let i = 4; i < size; i += 1) s[i] = s[i]! + 4 * (s[i - 1]! + s[i - 3]!) - 6 * s[i - 2]! - s[i - 4]!
  }
}

/** Apply linear prediction. Sums stay below 2^53: at most 32 products of 33 and 15 bits. */
function restoreLinear(samples: Samples, weights: Int32Array, shift: number, narrow: boolean): void {
  const order = weights.length
  const step = 2 ** shift
  for (let i = order; i < samples.length; i += 1) {
    let sum = 0
    if (narrow) {
      for (let j = 0; j < order; j += 1) sum = (sum + Math.imul(weights[j]!, samples[i - 1 - j]!)) | 0
      samples[i] = samples[i]! + (sum >> shift)
    } else {
      for (let j = 0; j < order; j += 1) sum += weights[j]! * samples[i - 1 - j]!
      samples[i] = samples[i]! + Math.floor(sum / step)
    }
  }
}

/** Restore left and right from one channel and a difference, or from mid and side. */
function unmix(planes: Samples[], assignment: number): void {
  if (assignment < LEFT_SIDE) return
  const [first, second] = planes as [Samples, Samples]
  for (let i = 0; i < first.length; i += 1) {
    const a = first[i]!
    const b = second[i]!
    if (assignment === LEFT_SIDE) second[i] = a - b
    else if (assignment === SIDE_RIGHT) first[i] = a + b
    else {
      const right = a - Math.floor(b / 2)
      first[i] = right + b
      second[i] = right
    }
  }
}

const table8 = crcTable(8, 0x07)
const table16 = crcTable(16, 0x8005)

function crcTable(width: number, polynomial: number): Uint16Array {
  return Uint16Array.from({ length: 256 }, (_, byte) => {
    let sum = byte << (width - 8)
    for (let i = 0; i < 8; i += 1) sum = ((sum << 1) ^ (sum >> (width - 1) ? polynomial : 0)) & (2 ** width - 1)
    return sum
  })
}

function crc8(bytes: Uint8Array, end: number): number {
  let sum = 0
  for (let i = 0; i < end; i += 1) sum = table8[sum ^ bytes[i]!]!
  return sum
}

function crc16(bytes: Uint8Array, end: number): number {
  let sum = 0
  for (let i = 0; i < end; i += 1) sum = ((sum << 8) & 0xffff) ^ table16[(sum >> 8) ^ bytes[i]!]!
  return sum
}

/** Bytes before 'fLaC' in the first packet (RFC 9639, section 10.1). */
const PREFIX = 9

/** Decoder of FLAC in Ogg: each packet contains a metadata block or a frame. */
export class OggFlacDecoder implements PacketDecoder {
  readonly #flac = new FlacDecoder()
  #first = true

  decode({ bytes, last }: Packet): Decoded | undefined {
    this.#flac.feed(this.#first ? bytes.subarray(PREFIX) : bytes)
    this.#first = false
    const decoded = this.#flac.next()
    if (last) {
      this.#flac.end()
      // Checks the number of samples against the header.
      this.#flac.next()
    }
    return decoded
  }
}
