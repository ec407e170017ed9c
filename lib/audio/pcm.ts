import { ConfigError } from '../base/errors.js'
import { decodePcmInto } from '../native/codec.js'
import { type AdpcmBlocks, decodeAdpcm } from './adpcm.js'

/** Most channels of a file, for reading and writing. */
export const MOST_CHANNELS = 1024
/** Highest sample rate that is read, in Hz. */
export const HIGHEST_RATE = 100_000_000

/** Encodings of a sample, in the order of `PcmEncoding` in native/core/audio/pcm.h. */
const ENCODINGS = ['u8', 's8', 's16', 's24', 's32', 'f32', 'f64', 'alaw', 'mulaw'] as const
export type PcmEncoding = (typeof ENCODINGS)[number]

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
 * Decode whole blocks to one float32 array per channel; integers are divided by 2^(bits - 1).
 * @param planes memory of an earlier result, to use again
 */
export function decodePcm(
  bytes: Uint8Array,
  { layout, channels }: PcmFile,
  planes?: readonly Float32Array[],
): Float32Array[] {
  if ('blockBytes' in layout) return decodeAdpcm(bytes, layout, channels)
  const frames = bytes.length / encodedBytes[layout.encoding] / channels
  const fits = planes !== undefined && planes[0]!.length >= frames
  const decoded = Array.from({ length: channels }, (_, i) =>
    fits ? planes[i]!.subarray(0, frames) : new Float32Array(frames),
  )
  decodePcmInto(bytes, ENCODINGS.indexOf(layout.encoding), layout.bigEndian, decoded)
  return decoded
}

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
