import { abortable, argumentError, bytesOf, requireWhole } from '../base/check.js'
import { DataError } from '../base/errors.js'
import { type ChangesOf, SIGNAL, settings } from '../base/settings.js'
import { type ByteSource, FileSource, MemorySource, Place } from '../files/byte-source.js'
import { Tensor, tensor } from '../tensor/index.js'
import { readBmp } from './bmp.js'
import { type CodedImage, decodeCoded } from './coded-image.js'
import { readNetpbm } from './netpbm.js'
import type { Pixels, Wanted } from './pixels.js'
import { requireImage } from './resize.js'

/** Pixels in memory: `width * height * channels` bytes, rows from top to bottom. */
export interface RawImage {
  data: Uint8Array | Uint8ClampedArray
  width: number
  height: number
  /** 3 for RGB (default), 4 for RGBA, whose alpha is dropped, 1 for gray. */
  channels?: 1 | 3 | 4 | undefined
}

/** An image: the path of a file, the bytes of a file, raw pixels, or a uint8 tensor [height, width, 3 or 1]. */
export type ImageInput = string | Uint8Array | ArrayBuffer | RawImage | Tensor

const MAX_PIXELS = 178_956_970

const SETTINGS = settings({
  /**
   * `'rgb'` (default) returns uint8 [height, width, 3]. `'depth'` returns the unchanged samples of an image with one channel of
   * up to 16 bits: int32 [height, width].
   */
  mode: { type: ['rgb', 'depth'], default: 'rgb' },
  /** Most pixels of an image. Default 178,956,970, above which Pillow raises DecompressionBombError. */
  maxPixels: { type: 'integer', min: 1, default: MAX_PIXELS },
  /** Aborts reading. */
  signal: { type: SIGNAL },
})

/** Options of `readImage`. @interface */
export type ReadImageOptions = ChangesOf<typeof SETTINGS.table>

/**
 * Read an image. JPEG, PNG, WebP, GIF, TIFF and AVIF need npm's `sharp`; BMP, PPM, PGM (binary and text) and raw pixels need
 * no package. The format is detected from the content, not the file name.
 *
 * The pixels equal those of Pillow's `Image.open(file).convert('RGB')`. Only TIFF is rotated. Color profiles and gamma are
 * ignored; alpha is dropped, not blended; palettes, gray and CMYK become RGB. 16-bit samples keep their upper 8 bits. Of an
 * animation or a TIFF with several pages the first image is read. Differences from Pillow:
 *
 * - 16-bit gray keeps the upper 8 bits, as colors do. Pillow clips it, so values from 255 up are white.
 * - Transparent pixels of a GIF are black. Pillow returns their palette color.
 * - AVIF is decoded by libheif and rotated as the file says. With chroma at half resolution, pixels differ from Pillow's by a few
 *   steps, because Pillow upsamples chroma differently; 4:4:4 differs by one step.
 * - Uncompressed TIFF in YCbCr is an error.
 *
 * ```ts
 * const image = await readImage('face.jpg')              // uint8 [height, width, 3]
 * const millimeters = await readImage('depth.png', { mode: 'depth' }) // int32 [height, width]
 * ```
 *
 * @throws DataError with `file` for an unreadable or truncated file, or more than `maxPixels`; ConfigError for invalid options;
 *   the reason of `signal` when it is aborted
 */
export async function readImage(input: ImageInput, options: ReadImageOptions = {}): Promise<Tensor> {
  const where = 'readImage'
  const { mode, maxPixels, signal } = SETTINGS.read(where, options)
  return openImage(where, input, { mode, maxPixels }, signal)
}

/** Read an image as `readImage`. @param where name of the calling function, for errors */
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
  const place = new Place('the image in memory', DataError)
  if (input instanceof Uint8Array || input instanceof ArrayBuffer) {
    const source = new MemorySource(bytesOf(where, 'image', input), place)
    return asTensor(source, await abortable(signal, readSource(source, { mode, maxPixels })), mode)
  }
  if (typeof input !== 'object' || input === null || !('data' in input)) {
    throw argumentError(where, 'image', 'a path, the bytes of a file, raw pixels or a uint8 tensor', input)
  }
  const raw = rawPixels(where, input)
  return asTensor(new MemorySource(new Uint8Array(0), place), raw, mode)
}

function asImage(where: string, image: Tensor, mode: Wanted['mode']): Tensor {
  if (mode === 'depth') {
    if (image.ndim !== 2 || image.numel() === 0) throw argumentError(where, 'image', 'a tensor [height, width]', image)
    return image
  }
  requireImage(where, image)
  if (image.ndim !== 3) throw argumentError(where, 'image', 'one image [height, width, 3]', image)
  return image.size(2) === 1 ? image.expand([image.size(0), image.size(1), 3]) : image
}

function rawPixels(where: string, { data, width, height, channels = 3 }: RawImage): Pixels {
  requireWhole(where, 'image.width', width, 1)
  requireWhole(where, 'image.height', height, 1)
  if (channels !== 1 && channels !== 3 && channels !== 4)
    throw argumentError(where, 'image.channels', '1, 3 or 4', channels)
  if (!(data instanceof Uint8Array || data instanceof Uint8ClampedArray) || data.length !== width * height * channels) {
    throw argumentError(where, 'image.data', `${width} × ${height} × ${channels} bytes`, data)
  }
  const bytes = data instanceof Uint8Array ? data : new Uint8Array(data.buffer, data.byteOffset, data.length)
  return { width, height, channels, most: 255, data: bytes }
}

async function readSource(source: ByteSource, wanted: Wanted): Promise<Pixels> {
  const head = await source.bytes(0, Math.min(source.size, HEAD))
  const format = formatOf(head)
  if (format === undefined) {
    const what = source.size === 0 ? 'an empty file' : 'an unknown format'
    throw source.error(`expected JPEG, PNG, WebP, GIF, TIFF, AVIF, BMP, PPM or PGM, got ${what}`, { byte: 0 })
  }
  if (format === 'netpbm') return readNetpbm(source, wanted)
  return format === 'bmp' ? readBmp(source, wanted) : decodeCoded(source, format, wanted)
}

/** Bytes read to detect the format: the first box of an AVIF contains its brands. */
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
      throw source.error(`expected a depth image with 1 channel, got ${channels} channels`, { channels })
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

/** Return a table that converts samples to 8 bits as Pillow does: rounded, halves to even. */
function eightBits(most: number): Uint8Array {
  const bytes = new Uint8Array(65536).fill(255)
  for (let value = 0; value <= most; value++) {
    const exact = (value / most) * 255
    const down = Math.floor(exact)
    bytes[value] = exact - down > 0.5 || (exact - down === 0.5 && down % 2 === 1) ? down + 1 : down
  }
  return bytes
}
