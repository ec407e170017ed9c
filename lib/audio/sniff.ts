import type { ByteSource } from '../files/byte-source.js'
import { beginsMp3 } from '../native/codec.js'

/** Path of an audio file, or the bytes of one. */
export type AudioInput = string | Uint8Array | ArrayBuffer

/** Supported containers. RF64, BW64 and RIFX are `'wav'`, AIFF-C is `'aiff'`, WebM is `'matroska'`. */
export type AudioFormat = 'wav' | 'w64' | 'aiff' | 'au' | 'caf' | CodedFormat

/** Formats that need a decoder. */
export type CodedFormat = 'flac' | 'mp3' | 'vorbis' | 'opus' | 'm4a' | 'aac' | 'matroska'

/**
 * Detect the format of a file from its first bytes, and the offset at which it begins: an ID3 tag may precede several formats.
 * @throws DataError for an unknown format
 */
export async function sniffAudio(source: ByteSource): Promise<{ format: AudioFormat; begin: number }> {
  const head = await source.bytes(0, Math.min(source.size, HEAD))
  const zeros = await zerosBeforeMp3(source, head)
  if (zeros > 0) return { format: 'mp3', begin: zeros }
  if (head.length < 10 || ascii(head, 0, 3) !== 'ID3') return { format: formatOf(source, head), begin: 0 }
  // The length of the tag has 7 bits per byte.
  const begin = head.subarray(6, 10).reduce((sum, byte) => sum * 128 + (byte & 127), 0) + 10
  if (begin >= source.size) throw source.error('the file ends within its ID3 tag', { byte: 0 })
  const after = await source.bytes(begin, Math.min(source.size - begin, HEAD))
  // Like players, the MP3 decoder skips bytes between the tag and the first frame.
  const framedBy = framed(after)
  const format = framedBy === 'aac' ? 'aac' : ascii(after, 0, 4) === 'fLaC' ? 'flac' : 'mp3'
  return { format, begin }
}

const HEAD = 128
const MOST_ZEROS = 1 << 12
/** The longest frame of layer III is 1,441 bytes; the header of the next one, of 4 bytes, follows. */
const MOST_FRAME = 1441 + 4

/** Return how many zeros precede the first frame of an MP3, as some programs write; 0 for other files. */
async function zerosBeforeMp3(source: ByteSource, head: Buffer): Promise<number> {
  if (head[0] !== 0) return 0
  const bytes = await source.bytes(0, Math.min(source.size, MOST_ZEROS + MOST_FRAME))
  const begin = bytes.findIndex((byte) => byte !== 0)
  if (begin < 0 || begin > MOST_ZEROS) return 0
  // Eleven set bits occur by chance, so a second frame must follow the first, unless the file ends there.
  return beginsMp3(bytes.subarray(begin), bytes.length === source.size) ? begin : 0
}

function formatOf(source: ByteSource, head: Buffer): AudioFormat {
  const first = ascii(head, 0, 4)
  if (['RIFF', 'RIFX', 'RF64', 'BW64'].includes(first) && ascii(head, 8, 12) === 'WAVE') return 'wav'
  if (first === 'fLaC') return 'flac'
  if (first === 'FORM' && ['AIFF', 'AIFC'].includes(ascii(head, 8, 12))) return 'aiff'
  if (first === '.snd' || first === 'dns.') return 'au'
  if (first === 'caff') return 'caf'
  if (first === 'riff' && ascii(head, 24, 28) === 'wave') return 'w64'
  if (first === 'OggS') return oggCodec(source, head)
  if (first === '\x1aE\xdf\xa3') return 'matroska'
  if (ascii(head, 4, 8) === 'ftyp') return 'm4a'
  const format = framed(head)
  if (format === 'mp2') {
    throw source.error('unsupported: MPEG audio of layer I or II. Convert it to WAV or FLAC.', { byte: 0 })
  }
  if (format !== undefined) return format
  const known = 'WAV, Wave64, AIFF, AU, CAF, FLAC, MP3, Ogg Vorbis or Opus, WebM, Matroska, M4A or AAC'
  const got = source.size === 0 ? 'an empty file' : 'an unknown format'
  throw source.error(`expected ${known}, got ${got}`, { byte: 0 })
}

function ascii(bytes: Buffer, begin: number, end: number): string {
  return bytes.toString('latin1', begin, end)
}

/** Detect formats without a file header by the sync bits of their first frame. */
function framed(head: Buffer): 'mp3' | 'mp2' | 'aac' | undefined {
  if (head.length < 4 || head[0] !== 0xff || (head[1]! & 0xe0) !== 0xe0) return undefined
  const layer = (head[1]! >> 1) & 3
  if (layer === 0) return (head[1]! & 0xf0) === 0xf0 ? 'aac' : undefined
  const version = (head[1]! >> 3) & 3
  const bitrate = head[2]! >> 4
  const rate = (head[2]! >> 2) & 3
  if (version === 1 || bitrate === 15 || rate === 3) return undefined
  return layer === 1 ? 'mp3' : 'mp2'
}

function oggCodec(source: ByteSource, page: Buffer): AudioFormat {
  const packet = 27 + (page[26] ?? 0)
  if (ascii(page, packet, packet + 8) === 'OpusHead') return 'opus'
  if (ascii(page, packet, packet + 7) === '\x01vorbis') return 'vorbis'
  if (ascii(page, packet, packet + 5) === '\x7fFLAC') return 'flac'
  throw source.error('expected Vorbis, Opus or FLAC as the first stream of the Ogg file, got another', { byte: packet })
}
