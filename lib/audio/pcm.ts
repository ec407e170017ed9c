import { ConfigError } from '../base/errors.js'
import { type AdpcmBlocks, decodeAdpcm } from './adpcm.js'

/** Most channels of a file, for reading and writing. */
export const MOST_CHANNELS = 1024
/** Highest sample rate that is read, in Hz. */
export const HIGHEST_RATE = 100_000_000

/** Encoding of a sample. */
export type PcmEncoding = 'u8' | 's8' | 's16' | 's24' | 's32' | 'f32' | 'f64' | 'alaw' | 'mulaw'

export const encodedBytes: Record<PcmEncoding, number> = {
  u8: 1,
  s8: 1,
  s16: 2,
  s24: 3,
  s32: 4,
  f32: 4,
  f64: 8,
  alaw: 1,
  mulaw: 1,
}

/** Location and layout of the samples of an uncompressed file. */
export interface PcmFile {
  channels: number
  sampleRate: number
  /** Offset of the first frame, in bytes. */
  begin: number
  frames: number
  /** Interleaved samples, little- or big-endian; or blocks of ADPCM. */
  layout: { encoding: PcmEncoding; bigEndian: boolean } | AdpcmBlocks
}

/** Return the bytes and frames of the smallest unit that can be decoded: a frame, or a block of many. */
export function blockOf({ layout, channels }: PcmFile): { bytes: number; frames: number } {
  if ('blockBytes' in layout) return { bytes: layout.blockBytes, frames: layout.blockFrames }
  return { bytes: channels * encodedBytes[layout.encoding], frames: 1 }
}

/**
 * Decode whole blocks to one float32 array per channel; integers are divided by 2^(bits - 1). Big-endian bytes are swapped in
 * place.
 */
export function decodePcm(bytes: Uint8Array, { layout, channels }: PcmFile): Float32Array[] {
  if ('blockBytes' in layout) return decodeAdpcm(bytes, layout, channels)
  const { encoding, bigEndian } = layout
  const width = encodedBytes[encoding]
  if (bigEndian && width > 1) swapBytes(bytes, width)
  const frames = bytes.length / width / channels
  const { values, scale } = numbersOf(bytes, encoding)
  return Array.from({ length: channels }, (_, channel) => {
    const samples = new Float32Array(frames)
    for (let i = 0, at = channel; i < frames; i += 1, at += channels) samples[i] = values[at]! * scale
    return samples
  })
}

function swapBytes(samples: Uint8Array, width: number): void {
  const bytes = Buffer.from(samples.buffer, samples.byteOffset, samples.length)
  if (width === 2) bytes.swap16()
  else if (width === 4) bytes.swap32()
  else if (width === 8) bytes.swap64()
  else {
    for (let at = 0; at + 2 < bytes.length; at += 3) {
      const first = bytes[at]!
      bytes[at] = bytes[at + 2]!
      bytes[at + 2] = first
    }
  }
}

/** Return little-endian samples in file order, and the factor that scales them to -1 to 1. All supported platforms are little-endian. */
function numbersOf(bytes: Uint8Array, encoding: PcmEncoding): { values: ArrayLike<number>; scale: number } {
  const count = bytes.length / encodedBytes[encoding]
  // Typed arrays must start at a multiple of their element size.
  const whole = bytes.byteOffset % 8 === 0 ? bytes : bytes.slice()
  const { buffer, byteOffset } = whole
  switch (encoding) {
    case 's16':
      return { values: new Int16Array(buffer, byteOffset, count), scale: 1 / 32768 }
    case 's32':
      return { values: new Int32Array(buffer, byteOffset, count), scale: 1 / 2147483648 }
    case 'f32':
      return { values: new Float32Array(buffer, byteOffset, count), scale: 1 }
    case 'f64':
      return { values: new Float64Array(buffer, byteOffset, count), scale: 1 }
    case 'u8':
      return { values: Float32Array.from(bytes, (byte) => byte - 128), scale: 1 / 128 }
    case 's8':
      return { values: new Int8Array(buffer, byteOffset, count), scale: 1 / 128 }
    case 'alaw':
      return { values: Float32Array.from(bytes, (byte) => alaw[byte]!), scale: 1 }
    case 'mulaw':
      return { values: Float32Array.from(bytes, (byte) => mulaw[byte]!), scale: 1 }
    case 's24': {
      const values = new Int32Array(count)
      for (let i = 0, at = 0; i < count; i += 1, at += 3) {
        values[i] = (bytes[at]! << 8) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 24)
      }
      return { values, scale: 1 / 2147483648 }
    }
  }
}

// ITU-T G.711: sign, 3-bit exponent and 4-bit mantissa, decoded to the center of their interval.
const alaw = Float32Array.from({ length: 256 }, (_, code) => {
  const bits = code ^ 0x55
  const exponent = (bits >> 4) & 7
  const magnitude = exponent === 0 ? ((bits & 15) << 4) + 8 : (((bits & 15) << 4) + 264) << (exponent - 1)
  return (bits & 0x80 ? magnitude : -magnitude) / 32768
})
const mulaw = Float32Array.from({ length: 256 }, (_, code) => {
  const bits = ~code & 255
  const magnitude = ((((bits & 15) << 3) + 132) << ((bits >> 4) & 7)) - 132
  return (bits & 0x80 ? -magnitude : magnitude) / 32768
})

/** Sample formats of `writeWav`. */
export type WavSampleFormat = 'pcm16' | 'pcm24' | 'pcm32' | 'float32'

export const writtenBytes: Record<WavSampleFormat, number> = { pcm16: 2, pcm24: 3, pcm32: 4, float32: 4 }

/**
 * Encode planar samples as interleaved bytes. For integer formats, values are rounded to the nearest and clipped.
 * @throws ConfigError for NaN in an integer format
 */
export function encodePcm(planes: readonly Float32Array[], format: WavSampleFormat, firstFrame: number): Uint8Array {
  const frames = planes[0]?.length ?? 0
  const width = writtenBytes[format]
  const bytes = Buffer.allocUnsafe(frames * planes.length * width)
  const scale = 2 ** (8 * width - 1)
  let at = 0
  for (let i = 0; i < frames; i += 1) {
    for (let channel = 0; channel < planes.length; channel += 1, at += width) {
      const value = planes[channel]![i]!
      if (format === 'float32') {
        bytes.writeFloatLE(value, at)
        continue
      }
      if (Number.isNaN(value)) {
        const frame = firstFrame + i
        throw new ConfigError(
          `writeWav: sample ${frame} of channel ${channel}: expected a number for ${format}, got NaN.`,
          {
            frame,
            channel,
          },
        )
      }
      bytes.writeIntLE(Math.max(-scale, Math.min(scale - 1, Math.round(value * scale))), at, width)
    }
  }
  return bytes
}
