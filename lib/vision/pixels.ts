import type { ByteSource } from '../files/byte-source.js'

/** What a reader makes of a file. */
export interface Pixels {
  width: number
  height: number
  channels: 1 | 3 | 4
  /** The largest number that a sample can be. */
  most: number
  data: Uint8Array | Uint16Array
}

export interface Wanted {
  mode: 'rgb' | 'depth'
  maxPixels: number
}

/** Before memory is taken for the pixels. */
export function refuseSize(source: ByteSource, width: number, height: number, maxPixels: number): void {
  if (!(width >= 1 && height >= 1)) throw source.error(`it is ${width} × ${height} pixels`, { width, height })
  if (width * height <= maxPixels) return
  const what = `it is ${width} × ${height} pixels, more than ${maxPixels}; set maxPixels to allow that`
  throw source.error(what, { width, height, maxPixels })
}
