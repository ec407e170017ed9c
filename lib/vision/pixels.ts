import type { ByteSource } from '../files/byte-source.js'

/** Decoded pixels of a file. */
export interface Pixels {
  width: number
  height: number
  channels: 1 | 3 | 4
  /** Maximum value of a sample. */
  most: number
  data: Uint8Array | Uint16Array
}

export interface Wanted {
  mode: 'rgb' | 'depth'
  maxPixels: number
}

/** Check the size of an image before memory is allocated. @throws DataError for an empty image or more than `maxPixels` */
export function refuseSize(source: ByteSource, width: number, height: number, maxPixels: number): void {
  if (!(width >= 1 && height >= 1))
    throw source.error(`expected an image with pixels, got ${width} × ${height}`, { width, height })
  if (width * height <= maxPixels) return
  const what = `expected at most ${maxPixels} pixels, got ${width} × ${height}. Set maxPixels to allow more.`
  throw source.error(what, { width, height, maxPixels })
}
