import type { ByteSource } from '../files/byte-source.js'
import { blockOf, HIGHEST_RATE, MOST_CHANNELS, type PcmEncoding, type PcmFile } from './pcm.js'

// Readers of the headers of AIFF, AU and CAF. Each throws a DataError with the byte offset for an invalid file.

const MOST_CHUNKS = 1000

type Format = Pick<PcmFile, 'channels' | 'sampleRate' | 'layout'>

function format(
  source: ByteSource,
  byte: number,
  channels: number,
  sampleRate: number,
  layout: PcmFile['layout'],
): Format {
  if (channels < 1 || channels > MOST_CHANNELS)
    throw source.error(`channels: expected 1 to ${MOST_CHANNELS}, got ${channels}`, { byte })
  // Samplers write fractional rates.
  const rate = Math.round(sampleRate)
  if (!(rate >= 1 && rate <= HIGHEST_RATE))
    throw source.error(`sample rate: expected 1 to ${HIGHEST_RATE} Hz, got ${sampleRate}`, { byte })
  return { channels, sampleRate: rate, layout }
}

function file(format: Format, begin: number, bytes: number): PcmFile {
  const whole = { ...format, begin, frames: 0 }
  const block = blockOf(whole)
  return { ...whole, frames: Math.floor(bytes / block.bytes) * block.frames }
}

function unsupported(source: ByteSource, what: string, byte: number): never {
  throw source.error(`unsupported sample format: ${what}. Convert the file to PCM or FLAC.`, { byte })
}

/** Yield chunks: a name of four characters and a big-endian size. */
async function* chunks(
  source: ByteSource,
  first: number,
  sizeBytes: 4 | 8,
  openEnded: string,
): AsyncGenerator<{ id: string; at: number; begin: number; size: number }> {
  for (let at = first, count = 0; at + 4 + sizeBytes <= source.size; count += 1) {
    if (count === MOST_CHUNKS) {
      throw source.error(`expected at most ${MOST_CHUNKS} chunks before the samples, got more`, { byte: at })
    }
    const head = await source.bytes(at, 4 + sizeBytes)
    const id = head.toString('latin1', 0, 4)
    const begin = at + head.length
    const left = source.size - begin
    let size = sizeBytes === 4 ? head.readUInt32BE(4) : Number(head.readBigInt64BE(4))
    // Programs that write to a pipe cannot fill in a size afterwards.
    if (size === -1 && id === openEnded) size = left
    if (size < 0 || size > left) {
      throw source.error(
        `chunk ${JSON.stringify(id)}: expected at most ${left} bytes, the rest of the file, got ${size}`,
        { byte: at },
      )
    }
    yield { id, at, begin, size }
    at = begin + size + (sizeBytes === 4 ? size % 2 : 0)
  }
}

// Apple, "Audio Interchange File Format AIFF-C", 1991, and QuickTime's additions.
const aiffEncodings: Record<string, { encoding: PcmEncoding; bigEndian: boolean }> = {
  'raw ': { encoding: 'u8', bigEndian: false },
  fl32: { encoding: 'f32', bigEndian: true },
  FL32: { encoding: 'f32', bigEndian: true },
  fl64: { encoding: 'f64', bigEndian: true },
  FL64: { encoding: 'f64', bigEndian: true },
  alaw: { encoding: 'alaw', bigEndian: true },
  ALAW: { encoding: 'alaw', bigEndian: true },
  ulaw: { encoding: 'mulaw', bigEndian: true },
  ULAW: { encoding: 'mulaw', bigEndian: true },
  in24: { encoding: 's24', bigEndian: true },
  in32: { encoding: 's32', bigEndian: true },
  // 'in24' and 'in32' reversed, and with a 1 for the i, as most programs write them.
  '42ni': { encoding: 's24', bigEndian: false },
  '42n1': { encoding: 's24', bigEndian: false },
  '23ni': { encoding: 's32', bigEndian: false },
  '23n1': { encoding: 's32', bigEndian: false },
}

export async function readAiffHeader(source: ByteSource): Promise<PcmFile> {
  let layout: Format | undefined
  let frames = 0
  for await (const { id, at, begin, size } of chunks(source, 12, 4, '')) {
    if (id === 'COMM') {
      if (size < 18) throw source.error(`chunk 'COMM': expected at least 18 bytes, got ${size}`, { byte: at })
      const bytes = await source.bytes(begin, Math.min(size, 22))
      const channels = bytes.readUInt16BE(0)
      frames = bytes.readUInt32BE(2)
      const compression = bytes.length < 22 ? 'NONE' : bytes.toString('latin1', 18, 22)
      const encoded = aiffLayout(source, compression, bytes.readUInt16BE(6), channels, begin)
      layout = format(source, begin, channels, extended(bytes, 8), encoded)
    } else if (id === 'SSND') {
      if (layout === undefined) throw source.error("expected a 'COMM' chunk before the 'SSND' chunk", { byte: at })
      if (size < 8) throw source.error(`chunk 'SSND': expected at least 8 bytes, got ${size}`, { byte: at })
      const offset = (await source.bytes(begin, 4)).readUInt32BE()
      if (offset > size - 8)
        throw source.error(`chunk 'SSND': expected an offset of at most ${size - 8}, got ${offset}`, { byte: begin })
      const whole = file(layout, begin + 8 + offset, size - 8 - offset)
      // For blocks, some headers count packets, others samples.
      if ('blockBytes' in whole.layout) return whole
      if (frames <= whole.frames) return { ...whole, frames }
      const what = `expected ${frames} frames, as the header declares, got ${whole.frames}; the file is truncated or its header wrong`
      throw source.error(what, { byte: begin })
    }
  }
  throw source.error(`expected a '${layout === undefined ? 'COMM' : 'SSND'}' chunk, found none`, { byte: 12 })
}

function aiffLayout(
  source: ByteSource,
  compression: string,
  bits: number,
  channels: number,
  byte: number,
): PcmFile['layout'] {
  if (compression === 'ima4') return { encoding: 'ima4', blockBytes: 34 * channels, blockFrames: 64 }
  const known = Object.hasOwn(aiffEncodings, compression) ? aiffEncodings[compression] : undefined
  if (known !== undefined) return known
  // Other bit depths use the upper bits of whole bytes.
  const encoding = ([undefined, 's8', 's16', 's24', 's32'] as const)[Math.ceil(bits / 8)]
  if (!['NONE', 'twos', 'sowt'].includes(compression) || encoding === undefined) {
    return unsupported(source, `${JSON.stringify(compression)} of ${bits} bits`, byte)
  }
  return { encoding, bigEndian: compression !== 'sowt' }
}

/** Read an 80-bit extended float: sign, 15 bits of exponent, and 64 of mantissa with an explicit leading one. */
function extended(bytes: Buffer, at: number): number {
  const head = bytes.readUInt16BE(at)
  const mantissa = bytes.readUInt32BE(at + 2) * 2 ** 32 + bytes.readUInt32BE(at + 6)
  return (head >= 0x8000 ? -1 : 1) * mantissa * 2 ** ((head & 0x7fff) - 16383 - 63)
}

// Sun's and NeXT's <audio/au.h>.
const auEncodings: Record<number, PcmEncoding> = {
  1: 'mulaw',
  2: 's8',
  3: 's16',
  4: 's24',
  5: 's32',
  6: 'f32',
  7: 'f64',
  27: 'alaw',
}

export async function readAuHeader(source: ByteSource): Promise<PcmFile> {
  if (source.size < 24)
    throw source.error(`expected an AU header of 24 bytes, got a file of ${source.size} bytes`, { byte: 0 })
  const bytes = await source.bytes(0, 24)
  // Some machines wrote little-endian headers.
  const bigEndian = bytes.toString('latin1', 0, 4) === '.snd'
  const word = (at: number) => (bigEndian ? bytes.readUInt32BE(at) : bytes.readUInt32LE(at))
  const [begin, size, code] = [word(4), word(8), word(12)]
  const encoding = auEncodings[code]
  if (encoding === undefined) return unsupported(source, `AU encoding ${code}`, 12)
  const layout = format(source, 16, word(20), word(16), { encoding, bigEndian })
  if (begin < 24 || begin > source.size)
    throw source.error(`offset of samples: expected 24 to ${source.size}, got ${begin}`, { byte: 4 })
  const left = source.size - begin
  if (size > left && size !== 0xffffffff) {
    throw source.error(
      `expected ${size} bytes of samples, as the header declares, got ${left}; the file is truncated or its header wrong`,
      { byte: 8 },
    )
  }
  return file(layout, begin, Math.min(size, left))
}

/** Apple, "Core Audio Format Specification 1.0". */
export async function readCafHeader(source: ByteSource): Promise<PcmFile> {
  let layout: Format | undefined
  for await (const { id, at, begin, size } of chunks(source, 8, 8, 'data')) {
    if (id === 'desc') {
      if (size < 32) throw source.error(`chunk 'desc': expected at least 32 bytes, got ${size}`, { byte: at })
      const bytes = await source.bytes(begin, 32)
      const kind = bytes.toString('latin1', 8, 12)
      const flags = bytes.readUInt32BE(12)
      const bits = bytes.readUInt32BE(28)
      const channels = bytes.readUInt32BE(24)
      const encoding = cafEncoding(kind, (flags & 1) !== 0, bits)
      if (encoding === undefined) return unsupported(source, `${JSON.stringify(kind)} of ${bits} bits`, begin)
      layout = format(source, begin, channels, bytes.readDoubleBE(0), { encoding, bigEndian: (flags & 2) === 0 })
      const frame = blockOf({ ...layout, begin: 0, frames: 0 }).bytes
      if (bytes.readUInt32BE(16) !== frame) {
        throw source.error(`bytes per frame: expected ${frame}, got ${bytes.readUInt32BE(16)}`, { byte: begin })
      }
    } else if (id === 'data') {
      if (layout === undefined) throw source.error("expected a 'desc' chunk before the 'data' chunk", { byte: at })
      if (size < 4) throw source.error(`chunk 'data': expected at least 4 bytes, got ${size}`, { byte: at })
      return file(layout, begin + 4, size - 4)
    }
  }
  throw source.error(`expected a '${layout === undefined ? 'desc' : 'data'}' chunk, found none`, { byte: 8 })
}

function cafEncoding(kind: string, float: boolean, bits: number): PcmEncoding | undefined {
  if (kind === 'alaw') return 'alaw'
  if (kind === 'ulaw') return 'mulaw'
  if (kind !== 'lpcm') return undefined
  if (float) return bits === 32 ? 'f32' : bits === 64 ? 'f64' : undefined
  return bits % 8 === 0 ? ([undefined, 's8', 's16', 's24', 's32'] as const)[bits / 8] : undefined
}
