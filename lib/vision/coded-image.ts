import type { ByteSource } from '../files/byte-source.js'
import { type Pixels, refuseSize, type Wanted } from './pixels.js'

const NAME = 'sharp'

/** The used part of npm's sharp, an optional dependency. */
interface Sharp {
  metadata(): Promise<{
    width: number
    height: number
    channels: number
    space: string
    depth: string
    autoOrient: { width: number; height: number }
  }>
  autoOrient(): Sharp
  pipelineColourspace(space: string): Sharp
  toColourspace(space: string): Sharp
  removeAlpha(): Sharp
  raw(options?: { depth: string }): Sharp
  toBuffer(options: { resolveWithObject: true }): Promise<{
    data: Buffer
    info: { width: number; height: number; channels: number }
  }>
}
/** Formats that are decoded by sharp. */
export type CodedImage = 'jpeg' | 'png' | 'webp' | 'gif' | 'tiff' | 'avif'
type MakeSharp = (file: Buffer, options: object) => Sharp

let loading: Promise<MakeSharp> | undefined

/** Load sharp on first use: loading takes about 0.1 s and starts threads. */
function loadSharp(source: ByteSource): Promise<MakeSharp> {
  loading ??= import(NAME).then(({ default: make }) => make)
  return loading.catch((cause: Error & { code?: string }) => {
    loading = undefined
    const missing = cause.code === 'ERR_MODULE_NOT_FOUND'
    const what = missing ? 'which is not installed' : `which does not load (${cause.message.split('\n')[0]})`
    throw source.error(
      `JPEG, PNG, WebP, GIF, TIFF and AVIF are read by npm's sharp, ${what}: npm install sharp. Its license is Apache-2.0, ` +
        'that of its library libvips LGPL-3.0. BMP, PPM, PGM and raw pixels need no package.',
      { cause, missing: NAME },
    )
  })
}

/**
 * Decode a file with sharp, in the threads of libvips.
 * @throws DataError for a damaged or truncated file, or if sharp is not installed
 */
export async function decodeCoded(
  source: ByteSource,
  format: CodedImage,
  { mode, maxPixels }: Wanted,
): Promise<Pixels> {
  const make = await loadSharp(source)
  // An upper bound on the file size of any allowed image, even if it is not compressed.
  const mostBytes = 9 * maxPixels + 2 ** 26
  if (source.size > mostBytes) throw source.error(`expected at most ${mostBytes} bytes, got ${source.size}`)
  const bytes = await source.bytes()
  const file = format === 'png' ? pixelChunks(source, bytes) : bytes
  if (format === 'tiff' && isPlainYCbCr(bytes)) {
    throw source.error('unsupported: a TIFF in YCbCr without JPEG compression. Convert it to PNG.', {
      format,
    })
  }
  // As in Pillow, truncated and damaged files are errors, warnings of the decoders are not.
  const options = { failOn: 'error', ignoreIcc: true, limitInputPixels: false }
  try {
    const open = () => (format === 'tiff' ? make(file, options).autoOrient() : make(file, options))
    const facts = await make(file, options).metadata()
    const { autoOrient, channels, space, depth } = facts
    // Pillow applies the orientation tag of TIFF only.
    const { width, height } = format === 'tiff' ? autoOrient : facts
    refuseSize(source, width, height, maxPixels)
    if (!DEPTHS[mode].includes(depth)) {
      throw source.error(
        `expected samples of type ${DEPTHS[mode].join(' or ')}, got ${depth}. Convert the file to PNG.`,
        {
          depth,
        },
      )
    }
    if (mode === 'depth') {
      if (channels > 2)
        throw source.error(`expected a depth image with 1 channel, got ${channels} channels`, { channels })
      return await depths(open(), depth === 'ushort')
    }
    if (space === 'cmyk') {
      const { data } = await decoded(open().pipelineColourspace('cmyk').toColourspace('cmyk').raw())
      return { width, height, channels: 3, most: 255, data: rgbOfCmyk(data, width * height) }
    }
    const { data, info } = await decoded(open().removeAlpha().raw())
    return { width, height, channels: info.channels === 1 ? 1 : 3, most: 255, data: bytesOf(data) }
  } catch (cause) {
    if ((cause as { file?: unknown }).file !== undefined) throw cause
    const reason = cause instanceof Error ? cause.message.trim().split('\n').join('; ') : String(cause)
    throw source.error(`the ${format} decoder failed: ${reason}`, { format, cause })
  }
}

/** Sample types by libvips's names. A TIFF may have others, which cannot be interpreted as pixels. */
const DEPTHS: Readonly<Record<Wanted['mode'], readonly string[]>> = {
  rgb: ['uchar', 'ushort', 'float'],
  depth: ['uchar', 'ushort'],
}

/** Whether a TIFF has YCbCr colors that its decoder does not convert to RGB: it does so only with JPEG compression (TIFF 6.0, sections 21 and 22). */
function isPlainYCbCr(file: Buffer): boolean {
  const isBig = file[0] === 0x4d
  const isLong = (isBig ? file[3] : file[2]) === 0x2b
  const number = (at: number, bytes: 2 | 4 | 8): number => {
    if (at + bytes > file.length) return 0
    if (bytes === 8) return Number(isBig ? file.readBigUInt64BE(at) : file.readBigUInt64LE(at))
    return isBig ? file.readUIntBE(at, bytes) : file.readUIntLE(at, bytes)
  }
  const directory = isLong ? number(8, 8) : number(4, 4)
  const count = number(directory, isLong ? 8 : 2)
  const [first, step, value] = isLong ? [directory + 8, 20, 12] : [directory + 2, 12, 8]
  const tags = new Map<number, number>()
  for (let i = 0; i < Math.min(count, MOST_TAGS); i++)
    tags.set(number(first + i * step, 2), number(first + i * step + value, 2))
  const [compression, photometric] = [tags.get(259) ?? 1, tags.get(262)]
  return photometric === YCBCR && !JPEG_COMPRESSIONS.includes(compression)
}

const YCBCR = 6
const JPEG_COMPRESSIONS: readonly number[] = [6, 7]
const MOST_TAGS = 4096

const PNG_SIGNATURE = 8
/** Bytes of a chunk in addition to its data: length, name and checksum. */
const PNG_FRAME = 12
/** Most chunks of a file. The largest allowed image has 65,000 chunks of libpng's usual 8 KiB. */
const MOST_PNG_CHUNKS = 1 << 18

/**
 * Remove the chunks of a PNG that do not affect pixels (https://www.w3.org/TR/png-3/#4Concepts.FormatTypes). Text and color
 * profiles are compressed, and 1 MB of them can expand to 1 GB in the decoder.
 */
export function pixelChunks(source: ByteSource, file: Buffer): Buffer {
  const parts = [file.subarray(0, PNG_SIGNATURE)]
  let at = PNG_SIGNATURE
  for (let chunks = 0; at + PNG_FRAME <= file.length; chunks++) {
    if (chunks === MOST_PNG_CHUNKS)
      throw source.error(`expected at most ${MOST_PNG_CHUNKS} chunks, got more`, { byte: at })
    const end = at + PNG_FRAME + file.readUInt32BE(at)
    if (end > file.length) break
    const name = file.toString('latin1', at + 4, at + 8)
    // A lowercase first letter marks an optional chunk. Of these only transparency is needed.
    const isNeeded = (file[at + 4]! & 0x20) === 0 || name === 'tRNS'
    if (isNeeded) parts.push(file.subarray(at, end))
    at = end
  }
  // The decoder reports a truncated file.
  parts.push(file.subarray(at))
  return Buffer.concat(parts)
}

const decoded = (pipeline: Sharp) => pipeline.toBuffer({ resolveWithObject: true })
const bytesOf = (data: Buffer) => new Uint8Array(data.buffer, data.byteOffset, data.length)

async function depths(pipeline: Sharp, wide: boolean): Promise<Pixels> {
  const gray = pipeline.removeAlpha().toColourspace(wide ? 'grey16' : 'b-w')
  const { data, info } = await decoded(gray.raw({ depth: wide ? 'ushort' : 'uchar' }))
  const { width, height } = info
  if (!wide) return { width, height, channels: 1, most: 255, data: bytesOf(data) }
  const values = new Uint16Array(width * height)
  new Uint8Array(values.buffer).set(data)
  return { width, height, channels: 1, most: 65535, data: values }
}

/** Convert CMYK to RGB with Pillow's formula: (255 - K) - C * (255 - K) / 255 for each ink C. */
function rgbOfCmyk(data: Buffer, pixels: number): Uint8Array {
  const rgb = new Uint8Array(3 * pixels)
  for (let i = 0; i < pixels; i++) {
    const left = 255 - data[4 * i + 3]!
    for (let c = 0; c < 3; c++) {
      const product = data[4 * i + c]! * left + 128
      rgb[3 * i + c] = left - (((product >> 8) + product) >> 8)
    }
  }
  return rgb
}
