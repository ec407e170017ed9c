import { abortable, bytesOf, misuse, requireOneOf, requireOptions, requireSignal, requireWhole } from '../base/check.js'
import { DataError } from '../base/errors.js'
import { type ByteSource, FileSource, MemorySource, Place } from '../files/byte-source.js'
import { Tensor, tensor } from '../tensor/index.js'
import { readBmp } from './bmp.js'
import { type CodedImage, decodeCoded } from './coded-image.js'
import { readNetpbm } from './netpbm.js'
import type { Pixels, Wanted } from './pixels.js'
import { requireImage } from './resize.js'

/** Pixels that are in memory already: `width * height * channels` bytes, rows from the top. */
export interface RawImage {
  data: Uint8Array | Uint8ClampedArray
  width: number
  height: number
  /** 3 for RGB (default), 4 for RGBA, whose alpha is dropped, 1 for grey. */
  channels?: 1 | 3 | 4 | undefined
}

/** A picture as callers have it: a file, the bytes of one, raw pixels, or a uint8 tensor [height, width, 3 or 1]. */
export type ImageInput = string | Uint8Array | ArrayBuffer | RawImage | Tensor

export interface ReadImageOptions {
  /**
   * `'rgb'` (default) gives uint8 [height, width, 3]. `'depth'` gives the numbers of a picture with one channel as they are
   * in the file, of up to 16 bits: int32 [height, width].
   */
  mode?: 'rgb' | 'depth' | undefined
  /** The most pixels that a picture may have. Default 178,956,970, from which on Pillow suspects an attack. */
  maxPixels?: number | undefined
  /** Ends the reading. */
  signal?: AbortSignal | undefined
}

const OPTIONS: readonly (keyof ReadImageOptions)[] = ['mode', 'maxPixels', 'signal']
const MODES = ['rgb', 'depth'] as const
const MAX_PIXELS = 178_956_970

/**
 * Read a picture: JPEG, PNG, WebP, GIF, TIFF and AVIF by npm's `sharp` where that is installed, BMP, PPM and PGM (binary and as
 * text) and raw pixels without it. The content tells the format, not the name.
 *
 * Pixels are those of Pillow's `Image.open(file).convert('RGB')`: nothing is rotated but TIFF, color profiles and gamma are left
 * alone, alpha is dropped and not blended, palettes, gray and CMYK become RGB, of 16 bits the upper 8 stay, and of an animation
 * or a TIFF of several pages the first picture. Other than Pillow's are:
 *
 * - 16-bit gray: the upper 8 bits stay, as of colors. Pillow clips it, so that all from 255 on is white.
 * - transparent pixels of a GIF: black. Pillow gives the color that the palette has for them.
 * - AVIF: pixels are those of libheif, turned as the file says. With colors at half resolution they differ by a few steps from
 *   Pillow's, which smooths colors otherwise; 4:4:4 differs by one step.
 * - uncompressed TIFF in YCbCr: refused.
 *
 * ```ts
 * const picture = await readImage('face.jpg')            // uint8 [height, width, 3]
 * const millimetres = await readImage('depth.png', { mode: 'depth' }) // int32 [height, width]
 * ```
 *
 * @throws DataError with `file` for what cannot be read, is cut off, or has more than `maxPixels`; ConfigError for options;
 *   the reason of `signal` when it is aborted
 */
export async function readImage(input: ImageInput, options: ReadImageOptions = {}): Promise<Tensor> {
  const where = 'readImage'
  requireOptions(where, options, OPTIONS)
  const { mode = 'rgb', maxPixels = MAX_PIXELS, signal } = options
  requireOneOf(where, 'mode', mode, MODES)
  requireWhole(where, 'maxPixels', maxPixels, 1)
  requireSignal(where, signal)
  return openImage(where, input, { mode, maxPixels }, signal)
}

/** {@link readImage} for one who says for whom. */
export async function openImage(
  where: string,
  input: ImageInput,
  { mode = 'rgb', maxPixels = MAX_PIXELS }: Partial<Wanted> = {},
  signal?: AbortSignal,
): Promise<Tensor> {
  signal?.throwIfAborted()
  if (input instanceof Tensor) return asImage(where, input, mode)
  if (typeof input === 'string') {
    const source = await FileSource.open(input, DataError)
    try {
      return asTensor(source, await abortable(signal, readSource(source, { mode, maxPixels })), mode)
    } finally {
      await source.close()
    }
  }
  const place = new Place('the picture in memory', DataError)
  if (input instanceof Uint8Array || input instanceof ArrayBuffer) {
    const source = new MemorySource(bytesOf(where, 'image', input), place)
    return asTensor(source, await abortable(signal, readSource(source, { mode, maxPixels })), mode)
  }
  if (typeof input !== 'object' || input === null || !('data' in input)) {
    throw misuse(where, 'image', 'a path, the bytes of a file, raw pixels or a uint8 tensor', input)
  }
  const raw = rawPixels(where, input)
  return asTensor(new MemorySource(new Uint8Array(0), place), raw, mode)
}

function asImage(where: string, image: Tensor, mode: Wanted['mode']): Tensor {
  if (mode === 'depth') {
    if (image.ndim !== 2 || image.numel() === 0) throw misuse(where, 'image', 'a tensor [height, width]', image)
    return image
  }
  requireImage(where, image)
  if (image.ndim !== 3) throw misuse(where, 'image', 'one picture [height, width, 3]', image)
  return image.size(2) === 1 ? image.expand([image.size(0), image.size(1), 3]) : image
}

function rawPixels(where: string, { data, width, height, channels = 3 }: RawImage): Pixels {
  requireWhole(where, 'image.width', width, 1)
  requireWhole(where, 'image.height', height, 1)
  if (channels !== 1 && channels !== 3 && channels !== 4) throw misuse(where, 'image.channels', '1, 3 or 4', channels)
  if (!(data instanceof Uint8Array || data instanceof Uint8ClampedArray) || data.length !== width * height * channels) {
    throw misuse(where, 'image.data', `${width} × ${height} × ${channels} bytes`, data)
  }
  const bytes = data instanceof Uint8Array ? data : new Uint8Array(data.buffer, data.byteOffset, data.length)
  return { width, height, channels, most: 255, data: bytes }
}

async function readSource(source: ByteSource, wanted: Wanted): Promise<Pixels> {
  const head = await source.bytes(0, Math.min(source.size, HEAD))
  const format = formatOf(head)
  if (format === undefined) {
    const what = source.size === 0 ? 'it is empty' : 'its first bytes are of no known picture format'
    throw source.error(`${what}: JPEG, PNG, WebP, GIF, TIFF, AVIF, BMP, PPM or PGM`, { byte: 0 })
  }
  if (format === 'netpbm') return readNetpbm(source, wanted)
  return format === 'bmp' ? readBmp(source, wanted) : decodeCoded(source, format, wanted)
}

/** The names of an AVIF's brands stand in its first box. */
const HEAD = 64

function formatOf(head: Buffer): CodedImage | 'netpbm' | 'bmp' | undefined {
  const text = head.toString('latin1')
  if (text.startsWith('\xff\xd8\xff')) return 'jpeg'
  if (text.startsWith('\x89PNG\r\n\x1a\n')) return 'png'
  if (text.startsWith('RIFF') && text.slice(8, 12) === 'WEBP') return 'webp'
  if (text.startsWith('GIF87a') || text.startsWith('GIF89a')) return 'gif'
  if (['II*\0', 'II+\0', 'MM\0*', 'MM\0+'].includes(text.slice(0, 4))) return 'tiff'
  if (text.startsWith('BM')) return 'bmp'
  if (text.slice(4, 8) === 'ftyp') {
    const brands = text.slice(8, Math.min(HEAD, head.readUInt32BE(0)))
    return ['avif', 'avis'].some((brand) => brands.includes(brand)) ? 'avif' : undefined
  }
  return /^P[2356][\s#]/.test(text) ? 'netpbm' : undefined
}

function asTensor(source: ByteSource, { width, height, channels, most, data }: Pixels, mode: Wanted['mode']): Tensor {
  const pixels = width * height
  if (mode === 'depth') {
    if (channels !== 1)
      throw source.error(`it has ${channels} channels, where a picture of depths has one`, { channels })
    return tensor(Int32Array.from(data), { shape: [height, width] })
  }
  const rgb = channels === 3 && most === 255 ? (data as Uint8Array) : new Uint8Array(3 * pixels)
  if (rgb !== data) {
    const step = channels === 1 ? 0 : 1
    const byte = most === 255 ? undefined : eightBits(most)
    for (let i = 0, from = 0; i < rgb.length; i += 3, from += channels) {
      for (let c = 0; c < 3; c++) {
        const value = data[from + c * step]!
        rgb[i + c] = byte === undefined ? value : byte[value]!
      }
    }
  }
  return tensor(rgb, { shape: [height, width, 3] })
}

/** Of each sample, the 8 bits that Pillow makes of it: rounded, a half to even. */
function eightBits(most: number): Uint8Array {
  const bytes = new Uint8Array(65536).fill(255)
  for (let value = 0; value <= most; value++) {
    const exact = (value / most) * 255
    const down = Math.floor(exact)
    bytes[value] = exact - down > 0.5 || (exact - down === 0.5 && down % 2 === 1) ? down + 1 : down
  }
  return bytes
}
