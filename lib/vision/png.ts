import { promisify } from 'node:util'
import { crc32, deflate } from 'node:zlib'
import { argumentError } from '../base/check.js'

const compressed = promisify(deflate)

/** Row filter "up": each byte minus the one above it. */
const UP = 2
/** Header fields for 8-bit RGB. */
const RGB = [8, 2, 0, 0, 0]

/**
 * Encode RGB pixels as a PNG file (https://www.w3.org/TR/png-3/). Needs no package.
 * @param pixels `width * height * 3` bytes, rows from top to bottom
 */
export async function pngBytes(pixels: Uint8Array, width: number, height: number): Promise<Buffer> {
  const row = 3 * width
  if (width < 1 || height < 1 || pixels.length !== row * height) {
    throw argumentError('pngBytes', 'pixels', `${width} × ${height} × 3 bytes, at least one pixel`, pixels)
  }
  const rows = Buffer.alloc((row + 1) * height)
  for (let y = 0; y < height; y++) {
    const to = y * (row + 1)
    rows[to] = UP
    const from = y * row
    for (let x = 0; x < row; x++) {
      rows[to + 1 + x] = pixels[from + x]! - (y === 0 ? 0 : pixels[from + x - row]!)
    }
  }
  const size = Buffer.alloc(8)
  size.writeUInt32BE(width, 0)
  size.writeUInt32BE(height, 4)
  const parts = [chunk('IHDR', Buffer.from([...size, ...RGB])), chunk('IDAT', await compressed(rows)), chunk('IEND')]
  return Buffer.concat([Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'), ...parts])
}

/** Encode RGB pixels as a `data:` URL of a PNG. */
export const pngAddress = async (pixels: Uint8Array, width: number, height: number): Promise<string> =>
  `data:image/png;base64,${(await pngBytes(pixels, width, height)).toString('base64')}`

function chunk(name: string, data: Buffer = Buffer.alloc(0)): Buffer {
  const body = Buffer.concat([Buffer.from(name, 'latin1'), data])
  const frame = Buffer.alloc(body.length + 8)
  frame.writeUInt32BE(data.length, 0)
  body.copy(frame, 4)
  frame.writeUInt32BE(crc32(body), body.length + 4)
  return frame
}
