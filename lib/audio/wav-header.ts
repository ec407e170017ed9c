import type { ByteSource } from '../files/byte-source.js'
import { blockOf, HIGHEST_RATE, MOST_CHANNELS, type PcmEncoding, type PcmFile } from './pcm.js'

// Files have a few chunks. The limit stops a hostile file with millions of empty ones.
const MOST_CHUNKS = 1000
/** Programs that write to a pipe cannot fill in a size afterwards: they leave 0 or a value of at least this. */
const UNKNOWN_SIZE = 0x7ffff000
const FORMAT_BYTES = 40
/** Longest 'fmt ' chunk, with the weights of Microsoft's ADPCM. */
const MOST_FORMAT_BYTES = 1100

/** Content of a WAV file: uncompressed samples, or an MP3 stream. */
export type WavFile = PcmFile | { coded: 'mp3'; begin: number; bytes: number }

/** Options for reading a WAV header. */
export interface WavOptions {
  /** Whether the file may have fewer samples than the header declares. */
  allowTruncated: boolean
}

/**
 * Read the header of a WAV file: RIFF (Microsoft and IBM, "Multimedia Programming Interface and Data Specifications 1.0"),
 * big-endian RIFX, the extensible format, and RF64 and BW64 for more than 4 GiB (EBU Tech 3306, ITU-R BS.2088).
 * @throws DataError with the byte offset, for an invalid file or an unsupported encoding
 */
export async function readWavHeader(
  source: ByteSource,
  { allowTruncated }: WavOptions = { allowTruncated: false },
): Promise<WavFile & { missingBytes?: number }> {
  if (source.size < 12)
    throw source.error(`expected a WAV header of 12 bytes, got a file of ${source.size} bytes`, { byte: 0 })
  const head = await source.bytes(0, 12)
  const kind = head.toString('latin1', 0, 4)
  const isBig = kind === 'RIFX'
  if (!['RIFF', 'RIFX', 'RF64', 'BW64'].includes(kind) || head.toString('latin1', 8, 12) !== 'WAVE') {
    throw source.error('expected a WAV file, got another format', { byte: 0 })
  }
  const uint32 = (bytes: Buffer, at: number): number => (isBig ? bytes.readUInt32BE(at) : bytes.readUInt32LE(at))
  const riffSize = uint32(head, 4)
  let format: Format | { coded: 'mp3' } | undefined
  let wideDataSize: number | undefined
  let at = 12
  for (let count = 0; at + 8 <= source.size; count += 1) {
    if (count === MOST_CHUNKS)
      throw source.error(`expected at most ${MOST_CHUNKS} chunks before the samples, got more`, { byte: at })
    const chunk = await source.bytes(at, 8)
    const id = chunk.toString('latin1', 0, 4)
    const size = uint32(chunk, 4)
    const begin = at + 8
    if (id === 'data') {
      if (format === undefined) throw source.error("expected a 'fmt ' chunk before the 'data' chunk", { byte: at })
      const left = source.size - begin
      const claimed = size === 0xffffffff && wideDataSize !== undefined ? wideDataSize : size
      const missing = allowTruncated && claimed > left && claimed < UNKNOWN_SIZE ? claimed - left : 0
      const bytes = missing > 0 ? left : dataSize(source, begin, size, wideDataSize, riffSize)
      const samples: WavFile = 'coded' in format ? { coded: format.coded, begin, bytes } : header(format, begin, bytes)
      return missing > 0 ? { ...samples, missingBytes: missing } : samples
    }
    if (size > source.size - begin) {
      throw source.error(
        `chunk ${JSON.stringify(id)}: expected at most ${source.size - begin} bytes, the rest of the file, got ${size}`,
        { byte: at },
      )
    }
    if (id === 'fmt ') {
      if (format !== undefined) throw source.error("expected one 'fmt ' chunk, got two", { byte: at })
      const bytes = await source.bytes(begin, Math.min(size, MOST_FORMAT_BYTES))
      const tag = bytes.length < 2 ? 0 : isBig ? bytes.readUInt16BE(0) : bytes.readUInt16LE(0)
      format = tag === MP3 ? { coded: 'mp3' } : readFormat(source, bytes, begin, isBig)
    } else if (id === 'ds64' && kind !== 'RIFF') {
      if (size < 24) throw source.error(`chunk 'ds64': expected at least 24 bytes, got ${size}`, { byte: at })
      const wide = (await source.bytes(begin + 8, 8)).readBigUInt64LE()
      // A value above 2^53 loses precision, but exceeds any file.
      wideDataSize = Number(wide)
    }
    at = await nextChunk(source, begin + size)
  }
  throw source.error(`expected a '${format === undefined ? 'fmt ' : 'data'}' chunk, found none`, { byte: at })
}

/** Return the offset of the next chunk. Chunks begin at even offsets, but some programs omit the padding. */
async function nextChunk(source: ByteSource, end: number): Promise<number> {
  if (end % 2 === 0 || end + 8 > source.size) return end
  const bytes = await source.bytes(end, 5)
  const isId = (offset: number) => bytes.subarray(offset, offset + 4).every((byte) => byte >= 0x20 && byte < 0x7f)
  return bytes[0] !== 0 && isId(0) && !isId(1) ? end : end + 1
}

/** Return the number of bytes of samples that the file has. */
function dataSize(source: ByteSource, begin: number, size: number, wide: number | undefined, riffSize: number): number {
  const left = source.size - begin
  const claimed = size === 0xffffffff && wide !== undefined ? wide : size
  if (claimed <= left && claimed > 0) return claimed
  if (claimed === 0) {
    // An empty file, unless the sizes were never filled in.
    const unfinished = riffSize === 0 || riffSize >= UNKNOWN_SIZE || riffSize <= begin - 8
    return unfinished ? left : 0
  }
  if (wide === undefined && claimed >= UNKNOWN_SIZE) return left
  throw source.error(
    `chunk 'data': expected ${claimed} bytes of samples, as the header declares, got ${left}; the file is truncated or its header wrong. Set allowTruncated to read the samples that exist.`,
    {
      byte: begin - 4,
    },
  )
}

// The GUIDs of Sony's Wave64 after their first four letters.
const RIFF64 = Buffer.from('2e91cf11a5d628db04c10000', 'hex')
const WAVE64 = Buffer.from('f3acd3118cd100c04f8edb8a', 'hex')
const WIDE_CHUNK = 24

/**
 * Read the header of a Wave64 file: WAV with GUIDs as chunk names and 8-byte sizes that include the chunk header.
 * @throws as {@link readWavHeader}
 */
export async function readWave64Header(source: ByteSource): Promise<PcmFile> {
  if (source.size < 40)
    throw source.error(`expected a Wave64 header of 40 bytes, got a file of ${source.size} bytes`, { byte: 0 })
  const head = await source.bytes(0, 40)
  const named = (bytes: Buffer, name: string, rest: Buffer) =>
    bytes.toString('latin1', 0, 4) === name && bytes.subarray(4, 16).equals(rest)
  if (!named(head, 'riff', RIFF64) || !named(head.subarray(24), 'wave', WAVE64)) {
    throw source.error('expected a Wave64 file, got another format', { byte: 0 })
  }
  let format: Format | undefined
  let at = 40
  for (let count = 0; at + WIDE_CHUNK <= source.size; count += 1) {
    if (count === MOST_CHUNKS)
      throw source.error(`expected at most ${MOST_CHUNKS} chunks before the samples, got more`, { byte: at })
    const chunk = await source.bytes(at, WIDE_CHUNK)
    const size = Number(chunk.readBigUInt64LE(16)) - WIDE_CHUNK
    const begin = at + WIDE_CHUNK
    if (size < 0 || size > source.size - begin) {
      const name = JSON.stringify(chunk.toString('latin1', 0, 4))
      throw source.error(
        `chunk ${name}: expected at most ${source.size - begin} bytes, the rest of the file, got ${size}`,
        { byte: at },
      )
    }
    if (named(chunk, 'fmt ', WAVE64)) {
      format = readFormat(source, await source.bytes(begin, Math.min(size, MOST_FORMAT_BYTES)), begin)
    } else if (named(chunk, 'data', WAVE64)) {
      if (format === undefined) throw source.error("expected a 'fmt ' chunk before the 'data' chunk", { byte: at })
      return header(format, begin, size)
    }
    at = begin + Math.ceil(size / 8) * 8
  }
  throw source.error(`expected a '${format === undefined ? 'fmt ' : 'data'}' chunk, found none`, { byte: at })
}

type Format = Pick<PcmFile, 'channels' | 'sampleRate' | 'layout'>

// The GUID of an extensible format after the two bytes of its tag.
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
  if (bytes.length < 16) fail(`chunk 'fmt ': expected at least 16 bytes, got ${bytes.length}`, 0)
  const uint16 = (at: number): number => (isBig ? bytes.readUInt16BE(at) : bytes.readUInt16LE(at))
  let tag = uint16(0)
  const channels = uint16(2)
  const sampleRate = isBig ? bytes.readUInt32BE(4) : bytes.readUInt32LE(4)
  const frameBytes = uint16(12)
  const bits = uint16(14)
  if (tag === EXTENSIBLE) {
    if (bytes.length < FORMAT_BYTES) fail(`extensible chunk 'fmt ': expected at least 40 bytes, got ${bytes.length}`, 0)
    if (isBig) fail('unsupported: an extensible format in big-endian. Convert the file to PCM or FLAC.', 0)
    if (!bytes.subarray(26, 40).equals(GUID_REST)) fail('extensible format: expected a known GUID, got another', 24)
    tag = bytes.readUInt16LE(24)
  }
  if (channels < 1 || channels > MOST_CHANNELS) fail(`channels: expected 1 to ${MOST_CHANNELS}, got ${channels}`, 2)
  if (sampleRate < 1 || sampleRate > HIGHEST_RATE)
    fail(`sample rate: expected 1 to ${HIGHEST_RATE} Hz, got ${sampleRate}`, 4)
  if (!isBig && (tag === MS_ADPCM || tag === IMA_ADPCM)) {
    return { channels, sampleRate, layout: readAdpcm(bytes, tag === MS_ADPCM, channels, frameBytes, bits, fail) }
  }
  if (![1, 3, 6, 7].includes(tag)) {
    const name = tagNames[tag] ?? `unknown (tag ${tag})`
    fail(`unsupported sample format: ${name} of ${bits} bits. Convert the file to PCM or FLAC.`, 0)
  }
  // Other bit depths use the upper bits of whole bytes.
  const width = frameBytes / channels
  if (bits < 1 || bits > 64 || width !== Math.ceil(bits / 8)) {
    fail(`bytes per frame: expected a size that fits ${channels} channels of ${bits} bits, got ${frameBytes}`, 12)
  }
  const encoding = encodingOf(tag, width)
  if (encoding === undefined) {
    fail(`unsupported sample format: ${tagNames[tag]} of ${bits} bits. Convert the file to PCM or FLAC.`, 0)
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
  if (bits !== 4) fail(`unsupported sample format: ADPCM of ${bits} bits. Convert the file to PCM or FLAC.`, 14)
  if (bytes.length < (ms ? 26 : 20))
    fail(`chunk 'fmt ': expected at least ${ms ? 26 : 20} bytes for ADPCM, got ${bytes.length}`, 0)
  const blockFrames = bytes.readUInt16LE(18)
  // A block starts with its first samples; the others take 4 bits each.
  const most = ms ? 2 + (2 * blockBytes) / channels - 14 : 1 + (2 * blockBytes) / channels - 8
  const packed = ms || (blockFrames - 1) % 8 === 0
  if (blockFrames < (ms ? 2 : 1) || blockFrames > most || !packed) {
    fail(`ADPCM: ${blockFrames} samples of ${channels} channels do not fit a block of ${blockBytes} bytes`, 12)
  }
  if (!ms) return { encoding: 'ima', blockBytes, blockFrames }
  const count = bytes.readUInt16LE(20)
  if (count < 1 || count > 256 || bytes.length < 22 + 4 * count) {
    fail(`ADPCM: expected 1 to 256 pairs of weights within the 'fmt ' chunk of ${bytes.length} bytes, got ${count}`, 20)
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

/** Return the samples as whole blocks. Programs disagree on how the number of samples in a partial last block is stored. */
function header(format: Format, begin: number, size: number): PcmFile {
  const file = { ...format, begin, frames: 0 }
  const block = blockOf(file)
  return { ...file, frames: Math.floor(size / block.bytes) * block.frames }
}
