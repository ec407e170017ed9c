import type { ByteSource } from '../files/byte-source.js'
import { type Pixels, refuseSize, type Wanted } from './pixels.js'

// BMP (Microsoft, "Bitmap Storage", BITMAPFILEHEADER, BITMAPINFOHEADER and its successors): palettes of 1, 4 and 8 bits,
// uncompressed or run-length encoded, and colors of 16, 24 and 32 bits.

const FILE_HEADER = 14
const CORE_HEADER = 12
const LEAST_HEADER = 40
const MOST_HEADER = 256
const [PLAIN, RLE8, RLE4, MASKS, ALPHA_MASKS] = [0, 1, 2, 3, 6]

interface Layout {
  width: number
  height: number
  /** Whether rows are stored from top to bottom; most files store them from bottom to top. */
  isTopDown: boolean
  bits: number
  compression: number
  /** Bit masks of red, green and blue, for pixels of 16 or 32 bits. */
  masks: readonly [number, number, number]
  /** RGB bytes of each entry. */
  palette: Uint8Array
  /** Offset of the pixels in the file. */
  begin: number
}

/**
 * Read a BMP with the pixels of Pillow's `Image.open(file).convert('RGB')`. With a gray palette the result has one channel.
 * @throws DataError for a truncated file or an unsupported kind of BMP
 */
export async function readBmp(source: ByteSource, { maxPixels }: Wanted): Promise<Pixels> {
  const layout = await readLayout(source)
  const { width, height, bits, compression, palette } = layout
  refuseSize(source, width, height, maxPixels)
  if (bits > 8) return { width, height, channels: 3, most: 255, data: await directColors(source, layout) }
  const isRun = compression === RLE8 || compression === RLE4
  const indices = isRun ? await runs(source, layout) : await plainIndices(source, layout)
  const colors = palette.length / 3
  const isGray = Array.from({ length: colors }, (_, i) => i).every(
    (i) => palette[3 * i] === palette[3 * i + 1] && palette[3 * i] === palette[3 * i + 2],
  )
  const channels = isGray ? 1 : 3
  const data = new Uint8Array(width * height * channels)
  for (let i = 0; i < indices.length; i++) {
    const color = indices[i] as number
    if (color >= colors) throw source.error(`pixel ${i}: expected one of the palette's ${colors} colors, got ${color}`)
    for (let c = 0; c < channels; c++) data[channels * i + c] = palette[3 * color + c] as number
  }
  return { width, height, channels, most: 255, data }
}

async function readLayout(source: ByteSource): Promise<Layout> {
  if (source.size < FILE_HEADER + CORE_HEADER)
    throw source.error('the file ends within the BMP header', { byte: source.size })
  const head = await source.bytes(0, Math.min(source.size, FILE_HEADER + MOST_HEADER))
  const size = head.readUInt32LE(FILE_HEADER)
  const begin = head.readUInt32LE(10)
  const isCore = size === CORE_HEADER
  const isKnown = isCore || (size >= LEAST_HEADER && size <= MOST_HEADER)
  if (!isKnown || FILE_HEADER + size > head.length) {
    throw source.error(`BMP header: expected ${CORE_HEADER} or ${LEAST_HEADER} to ${MOST_HEADER} bytes, got ${size}`, {
      byte: FILE_HEADER,
    })
  }
  const width = isCore ? head.readUInt16LE(18) : head.readInt32LE(18)
  const signedHeight = isCore ? head.readUInt16LE(20) : head.readInt32LE(22)
  const bits = head.readUInt16LE(isCore ? 24 : 28)
  const compression = isCore ? PLAIN : head.readUInt32LE(30)
  const isTopDown = signedHeight < 0
  const height = Math.abs(signedHeight)
  const allowed: Readonly<Record<number, readonly number[]>> = {
    [PLAIN]: [1, 4, 8, 16, 24, 32],
    [RLE8]: [8],
    [RLE4]: [4],
    [MASKS]: [16, 32],
    [ALPHA_MASKS]: [16, 32],
  }
  if (!allowed[compression]?.includes(bits)) {
    throw source.error(
      `unsupported BMP: ${bits} bits per pixel with compression ${compression}. Convert the file to PNG.`,
      { byte: 28 },
    )
  }
  const isMasked = compression === MASKS || compression === ALPHA_MASKS
  let masks: [number, number, number] = bits === 16 ? [0x7c00, 0x3e0, 0x1f] : [0xff0000, 0xff00, 0xff]
  let at = FILE_HEADER + size
  if (isMasked) {
    // The masks follow the oldest header and are part of later ones, at the same offset.
    const place = FILE_HEADER + LEAST_HEADER
    if (place + 12 > head.length) throw source.error('the file ends within the BMP color masks', { byte: place })
    masks = [head.readUInt32LE(place), head.readUInt32LE(place + 4), head.readUInt32LE(place + 8)]
    at = Math.max(at, place + 12)
    for (const mask of masks) requireMask(source, mask)
  }
  const palette = bits > 8 ? new Uint8Array(0) : await readPalette(source, head, isCore, at, bits)
  if (begin < at || begin > source.size)
    throw source.error(`offset of pixels: expected ${at} to ${source.size}, got ${begin}`, { byte: 10 })
  return { width, height, isTopDown, bits, compression, masks, palette, begin }
}

function requireMask(source: ByteSource, mask: number): void {
  const [, width] = shiftOf(mask)
  if (mask !== 0 && width <= 8 && mask >>> shiftOf(mask)[0] === 2 ** width - 1) return
  throw source.error(`color mask: expected 1 to 8 contiguous bits, got 0x${mask.toString(16)}`, {
    byte: FILE_HEADER + LEAST_HEADER,
  })
}

/** Return the position of a mask's lowest bit and the number of its bits. */
function shiftOf(mask: number): [shift: number, width: number] {
  if (mask === 0) return [0, 0]
  const shift = 31 - Math.clz32(mask & -mask)
  return [shift, 32 - Math.clz32(mask >>> shift)]
}

async function readPalette(
  source: ByteSource,
  head: Buffer,
  isCore: boolean,
  at: number,
  bits: number,
): Promise<Uint8Array> {
  const used = isCore ? 0 : head.readUInt32LE(46)
  const count = used === 0 ? 2 ** bits : used
  const step = isCore ? 3 : 4
  if (count > 256 || at + step * count > source.size) {
    throw source.error(`palette: expected at most 256 complete colors, got ${count} in ${source.size - at} bytes`, {
      byte: at,
    })
  }
  const bytes = await source.bytes(at, step * count)
  return Uint8Array.from({ length: 3 * count }, (_, i) => bytes[step * Math.floor(i / 3) + 2 - (i % 3)] as number)
}

/** Read the bytes of all rows; each row is padded to a multiple of 4 bytes. */
async function rowsOf(
  source: ByteSource,
  { width, height, bits, begin }: Layout,
): Promise<{ bytes: Buffer; stride: number }> {
  const stride = Math.ceil((width * bits) / 32) * 4
  const missing = begin + stride * height - source.size
  if (missing > 0) throw source.error(`the file is truncated: ${missing} bytes are missing`, { byte: source.size })
  return { bytes: await source.bytes(begin, stride * height), stride }
}

const rowAt = ({ isTopDown, height }: Layout, y: number): number => (isTopDown ? y : height - 1 - y)

async function directColors(source: ByteSource, layout: Layout): Promise<Uint8Array> {
  const { width, height, bits, masks } = layout
  const { bytes, stride } = await rowsOf(source, layout)
  const data = new Uint8Array(3 * width * height)
  const parts = masks.map((mask) => {
    const [shift, wide] = shiftOf(mask)
    return { mask, shift, most: 2 ** wide - 1 }
  })
  for (let y = 0; y < height; y++) {
    let from = rowAt(layout, y) * stride
    let to = 3 * width * y
    for (let x = 0; x < width; x++, from += bits / 8) {
      if (bits === 24) {
        for (let c = 2; c >= 0; c--) data[to++] = bytes[from + c] as number
        continue
      }
      const pixel = bits === 16 ? bytes.readUInt16LE(from) : bytes.readUInt32LE(from)
      for (const { mask, shift, most } of parts) data[to++] = Math.floor((((pixel & mask) >>> shift) * 255) / most)
    }
  }
  return data
}

async function plainIndices(source: ByteSource, layout: Layout): Promise<Uint8Array> {
  const { width, height, bits } = layout
  const { bytes, stride } = await rowsOf(source, layout)
  const data = new Uint8Array(width * height)
  const perByte = 8 / bits
  for (let y = 0; y < height; y++) {
    const row = rowAt(layout, y) * stride
    for (let x = 0; x < width; x++) {
      const byte = bytes[row + Math.floor(x / perByte)] as number
      data[y * width + x] = (byte >> (8 - bits * ((x % perByte) + 1))) & (2 ** bits - 1)
    }
  }
  return data
}

/** Decode run-length encoded colors; skipped pixels have color 0. */
async function runs(source: ByteSource, layout: Layout): Promise<Uint8Array> {
  const { width, height, bits, begin } = layout
  const bytes = await source.bytes(begin)
  const data = new Uint8Array(width * height)
  let [x, y] = [0, 0]
  /** Write one pixel; pixels beyond the end of a row are dropped. */
  const put = (color: number): void => {
    if (x < width && y < height) data[rowAt(layout, y) * width + x] = color
    x++
  }
  for (let at = 0; at + 1 < bytes.length && y < height; ) {
    const [count, value] = [bytes[at] as number, bytes[at + 1] as number]
    at += 2
    if (count > 0) {
      for (let i = 0; i < count; i++) put(bits === 8 ? value : i % 2 === 0 ? value >> 4 : value & 15)
    } else if (value === 0) [x, y] = [0, y + 1]
    else if (value === 1) return data
    else if (value === 2) {
      x += bytes[at] ?? 0
      y += bytes[at + 1] ?? 0
      at += 2
    } else {
      for (let i = 0; i < value; i++) {
        const byte = bytes[at + Math.floor((i * bits) / 8)]
        if (byte === undefined) throw source.error('the file ends within a run of pixels', { byte: source.size })
        put(bits === 8 ? byte : i % 2 === 0 ? byte >> 4 : byte & 15)
      }
      // Padded to a multiple of 2 bytes.
      at += 2 * Math.ceil((value * bits) / 16)
    }
  }
  if (y < height) throw source.error('the file ends before its last pixel', { byte: source.size })
  return data
}
