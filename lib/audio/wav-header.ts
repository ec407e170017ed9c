import type { ByteSource } from '../files/byte-source.js'
import { blockOf, HIGHEST_RATE, MOST_CHANNELS, type PcmEncoding, type PcmFile } from './pcm.js'

// A file needs a handful of chunks; a million empty ones are there to keep a reader busy.
const MOST_CHUNKS = 1000
/** Programs that write to a pipe cannot come back to fill in a size: they leave zero, or about the largest. */
const UNKNOWN_SIZE = 0x7ffff000
const FORMAT_BYTES = 40
/** Room for the weights of Microsoft's ADPCM. */
const MOST_FORMAT_BYTES = 1100

/** What is in a WAV file: samples that need no decoder, or an MP3 stream. */
export type WavFile = PcmFile | { coded: 'mp3'; begin: number; bytes: number }

/** How a WAV file is read. */
export interface WavOptions {
  /** Whether samples that the header promises may be missing. */
  allowTruncated: boolean
}

/**
 * The header of a WAV file: RIFF with its chunks (Microsoft and IBM, "Multimedia Programming Interface and Data
 * Specifications 1.0") or RIFX, whose numbers are big-endian, the extensible format, and RF64 and BW64 for more than 4 GiB (EBU Tech 3306, ITU-R BS.2088).
 * @throws DataError naming the byte, for anything that is not a sound WAV file of a supported encoding
 */
export async function readWavHeader(
  source: ByteSource,
  { allowTruncated }: WavOptions = { allowTruncated: false },
): Promise<WavFile & { missingBytes?: number }> {
  if (source.size < 12) throw source.error(`it has ${source.size} bytes, fewer than a WAV header`, { byte: 0 })
  const head = await source.bytes(0, 12)
  const kind = head.toString('latin1', 0, 4)
  const isBig = kind === 'RIFX'
  if (!['RIFF', 'RIFX', 'RF64', 'BW64'].includes(kind) || head.toString('latin1', 8, 12) !== 'WAVE') {
    throw source.error('it is not a WAV file', { byte: 0 })
  }
  const uint32 = (bytes: Buffer, at: number): number => (isBig ? bytes.readUInt32BE(at) : bytes.readUInt32LE(at))
  const riffSize = uint32(head, 4)
  let format: Format | { coded: 'mp3' } | undefined
  let wideDataSize: number | undefined
  let at = 12
  for (let count = 0; at + 8 <= source.size; count += 1) {
    if (count === MOST_CHUNKS)
      throw source.error(`it has more than ${MOST_CHUNKS} chunks before its samples`, { byte: at })
    const chunk = await source.bytes(at, 8)
    const id = chunk.toString('latin1', 0, 4)
    const size = uint32(chunk, 4)
    const begin = at + 8
    if (id === 'data') {
      if (format === undefined) throw source.error("its 'data' chunk comes before its 'fmt ' chunk", { byte: at })
      const left = source.size - begin
      const claimed = size === 0xffffffff && wideDataSize !== undefined ? wideDataSize : size
      const missing = allowTruncated && claimed > left && claimed < UNKNOWN_SIZE ? claimed - left : 0
      const bytes = missing > 0 ? left : dataSize(source, begin, size, wideDataSize, riffSize)
      const found: WavFile = 'coded' in format ? { coded: format.coded, begin, bytes } : header(format, begin, bytes)
      return missing > 0 ? { ...found, missingBytes: missing } : found
    }
    if (size > source.size - begin) {
      throw source.error(`its chunk ${JSON.stringify(id)} claims ${size} bytes, ${source.size - begin} are left`, {
        byte: at,
      })
    }
    if (id === 'fmt ') {
      if (format !== undefined) throw source.error("it has two 'fmt ' chunks", { byte: at })
      const bytes = await source.bytes(begin, Math.min(size, MOST_FORMAT_BYTES))
      const tag = bytes.length < 2 ? 0 : isBig ? bytes.readUInt16BE(0) : bytes.readUInt16LE(0)
      format = tag === MP3 ? { coded: 'mp3' } : readFormat(source, bytes, begin, isBig)
    } else if (id === 'ds64' && kind !== 'RIFF') {
      if (size < 24) throw source.error(`its 'ds64' chunk has ${size} bytes, fewer than 24`, { byte: at })
      const wide = (await source.bytes(begin + 8, 8)).readBigUInt64LE()
      // Beyond 2^53 it is beyond the file as well.
      wideDataSize = Number(wide)
    }
    at = await nextChunk(source, begin + size)
  }
  throw source.error(format === undefined ? "it has no 'fmt ' chunk" : "it has no 'data' chunk", { byte: at })
}

/** Chunks begin at even bytes, but some programs forget the padding. */
async function nextChunk(source: ByteSource, end: number): Promise<number> {
  if (end % 2 === 0 || end + 8 > source.size) return end
  const bytes = await source.bytes(end, 5)
  const isId = (offset: number) => bytes.subarray(offset, offset + 4).every((byte) => byte >= 0x20 && byte < 0x7f)
  return bytes[0] !== 0 && isId(0) && !isId(1) ? end : end + 1
}

/** The bytes of samples that are really there. */
function dataSize(source: ByteSource, begin: number, size: number, wide: number | undefined, riffSize: number): number {
  const left = source.size - begin
  const claimed = size === 0xffffffff && wide !== undefined ? wide : size
  if (claimed <= left && claimed > 0) return claimed
  if (claimed === 0) {
    // Empty, unless the whole header was never filled in.
    const unfinished = riffSize === 0 || riffSize >= UNKNOWN_SIZE || riffSize <= begin - 8
    return unfinished ? left : 0
  }
  if (wide === undefined && claimed >= UNKNOWN_SIZE) return left
  throw source.error(
    `its 'data' chunk claims ${claimed} bytes of samples, ${left} are there; the file was cut or its header is wrong. Set allowTruncated to read what is there`,
    {
      byte: begin - 4,
    },
  )
}

// What follows the four letters in the GUIDs of Sony's Wave64.
const RIFF64 = Buffer.from('2e91cf11a5d628db04c10000', 'hex')
const WAVE64 = Buffer.from('f3acd3118cd100c04f8edb8a', 'hex')
const WIDE_CHUNK = 24

/**
 * The header of a Wave64 file: a WAV file with GUIDs for names and eight bytes for sizes, which count themselves.
 * @throws as {@link readWavHeader}
 */
export async function readWave64Header(source: ByteSource): Promise<PcmFile> {
  if (source.size < 40) throw source.error(`it has ${source.size} bytes, fewer than a Wave64 header`, { byte: 0 })
  const head = await source.bytes(0, 40)
  const named = (bytes: Buffer, name: string, rest: Buffer) =>
    bytes.toString('latin1', 0, 4) === name && bytes.subarray(4, 16).equals(rest)
  if (!named(head, 'riff', RIFF64) || !named(head.subarray(24), 'wave', WAVE64)) {
    throw source.error('it is not a Wave64 file', { byte: 0 })
  }
  let format: Format | undefined
  let at = 40
  for (let count = 0; at + WIDE_CHUNK <= source.size; count += 1) {
    if (count === MOST_CHUNKS)
      throw source.error(`it has more than ${MOST_CHUNKS} chunks before its samples`, { byte: at })
    const chunk = await source.bytes(at, WIDE_CHUNK)
    const size = Number(chunk.readBigUInt64LE(16)) - WIDE_CHUNK
    const begin = at + WIDE_CHUNK
    if (size < 0 || size > source.size - begin) {
      const name = JSON.stringify(chunk.toString('latin1', 0, 4))
      throw source.error(`its chunk ${name} claims ${size} bytes, ${source.size - begin} are left`, { byte: at })
    }
    if (named(chunk, 'fmt ', WAVE64)) {
      format = readFormat(source, await source.bytes(begin, Math.min(size, MOST_FORMAT_BYTES)), begin)
    } else if (named(chunk, 'data', WAVE64)) {
      if (format === undefined) throw source.error("its 'data' chunk comes before its 'fmt ' chunk", { byte: at })
      return header(format, begin, size)
    }
    at = begin + Math.ceil(size / 8) * 8
  }
  throw source.error(format === undefined ? "it has no 'fmt ' chunk" : "it has no 'data' chunk", { byte: at })
}

type Format = Pick<PcmFile, 'channels' | 'sampleRate' | 'layout'>

// The rest of a format's GUID after the two bytes of its tag.
const GUID_REST = Buffer.from('000000001000800000aa00389b71', 'hex')
const EXTENSIBLE = 0xfffe
const MS_ADPCM = 2
const IMA_ADPCM = 17
const MP3 = 85
const tagNames: Record<number, string> = {
  1: 'integer',
  3: 'float',
  6: 'A-law',
  7: 'µ-law',
  49: 'GSM',
  80: 'MPEG',
  85: 'MP3',
}

function readFormat(source: ByteSource, bytes: Buffer, byte: number, isBig = false): Format {
  const fail = (what: string, offset: number): never => {
    throw source.error(what, { byte: byte + offset })
  }
  if (bytes.length < 16) fail(`its 'fmt ' chunk has ${bytes.length} bytes, fewer than 16`, 0)
  const uint16 = (at: number): number => (isBig ? bytes.readUInt16BE(at) : bytes.readUInt16LE(at))
  let tag = uint16(0)
  const channels = uint16(2)
  const sampleRate = isBig ? bytes.readUInt32BE(4) : bytes.readUInt32LE(4)
  const frameBytes = uint16(12)
  const bits = uint16(14)
  if (tag === EXTENSIBLE) {
    if (bytes.length < FORMAT_BYTES) fail(`its extensible 'fmt ' chunk has ${bytes.length} bytes, fewer than 40`, 0)
    if (isBig)
      fail('its extensible format is in big-endian numbers, which is not supported; convert it to PCM or FLAC', 0)
    if (!bytes.subarray(26, 40).equals(GUID_REST)) fail('its extensible format is none of the known ones', 24)
    tag = bytes.readUInt16LE(24)
  }
  if (channels < 1 || channels > MOST_CHANNELS) fail(`it claims ${channels} channels`, 2)
  if (sampleRate < 1 || sampleRate > HIGHEST_RATE) fail(`it claims a sample rate of ${sampleRate} Hz`, 4)
  if (!isBig && (tag === MS_ADPCM || tag === IMA_ADPCM)) {
    return { channels, sampleRate, layout: readAdpcm(bytes, tag === MS_ADPCM, channels, frameBytes, bits, fail) }
  }
  if (![1, 3, 6, 7].includes(tag)) {
    const name = tagNames[tag] ?? `unknown (tag ${tag})`
    fail(`its samples are ${name} of ${bits} bits, which is not supported; convert it to PCM or FLAC`, 0)
  }
  // Odd numbers of bits lie in the upper part of whole bytes.
  const width = frameBytes / channels
  if (bits < 1 || bits > 64 || width !== Math.ceil(bits / 8)) {
    fail(`it claims frames of ${frameBytes} bytes for ${channels} channels of ${bits} bits`, 12)
  }
  const encoding = encodingOf(tag, width)
  if (encoding === undefined) {
    fail(`its samples are ${tagNames[tag]} of ${bits} bits, which is not supported; convert it to PCM or FLAC`, 0)
  }
  return { channels, sampleRate, layout: { encoding: encoding!, bigEndian: isBig } }
}

function readAdpcm(
  bytes: Buffer,
  ms: boolean,
  channels: number,
  blockBytes: number,
  bits: number,
  fail: (what: string, offset: number) => never,
): PcmFile['layout'] {
  if (bits !== 4) fail(`its samples are ADPCM of ${bits} bits, which is not supported; convert it to PCM or FLAC`, 14)
  if (bytes.length < (ms ? 26 : 20)) fail(`its 'fmt ' chunk has ${bytes.length} bytes, too few for ADPCM`, 0)
  const blockFrames = bytes.readUInt16LE(18)
  // What a block begins with holds its first samples; after that each takes four bits.
  const most = ms ? 2 + (2 * blockBytes) / channels - 14 : 1 + (2 * blockBytes) / channels - 8
  const packed = ms || (blockFrames - 1) % 8 === 0
  if (blockFrames < (ms ? 2 : 1) || blockFrames > most || !packed) {
    fail(`it claims blocks of ${blockFrames} samples in ${blockBytes} bytes for ${channels} channels`, 12)
  }
  if (!ms) return { encoding: 'ima', blockBytes, blockFrames }
  const count = bytes.readUInt16LE(20)
  if (count < 1 || count > 256 || bytes.length < 22 + 4 * count) {
    fail(`it claims ${count} pairs of weights in a 'fmt ' chunk of ${bytes.length} bytes`, 20)
  }
  const coefficients = Array.from({ length: count }, (_, i): [number, number] => [
    bytes.readInt16LE(22 + 4 * i),
    bytes.readInt16LE(24 + 4 * i),
  ])
  return { encoding: 'ms', blockBytes, blockFrames, coefficients }
}

function encodingOf(tag: number, width: number): PcmEncoding | undefined {
  if (tag === 1) return ([undefined, 'u8', 's16', 's24', 's32'] as const)[width]
  if (tag === 3) return width === 4 ? 'f32' : width === 8 ? 'f64' : undefined
  if (width !== 1) return undefined
  return tag === 6 ? 'alaw' : tag === 7 ? 'mulaw' : undefined
}

/** Whole blocks only: how many of the last one's samples count is written nowhere that programs agree on. */
function header(format: Format, begin: number, size: number): PcmFile {
  const file = { ...format, begin, frames: 0 }
  const block = blockOf(file)
  return { ...file, frames: Math.floor(size / block.bytes) * block.frames }
}
