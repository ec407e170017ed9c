import type { ByteSource } from '../files/byte-source.js'
import { type Pixels, refuseSize, type Wanted } from './pixels.js'

const NAME = 'sharp'

/** What we use of npm's sharp, which is no dependency: who reads no such files does not have it. */
interface Sharp {
  metadata(): Promise<{ width: number; height: number; channels: number; space: string; depth: string }>
  pipelineColourspace(space: string): Sharp
  toColourspace(space: string): Sharp
  removeAlpha(): Sharp
  raw(options?: { depth: string }): Sharp
  toBuffer(options: { resolveWithObject: true }): Promise<{
    data: Buffer
    info: { width: number; height: number; channels: number }
  }>
}
type MakeSharp = (file: Buffer, options: object) => Sharp

let loading: Promise<MakeSharp> | undefined

/** Loaded when the first such file is read: it takes a tenth of a second and its own threads. */
function loadSharp(source: ByteSource): Promise<MakeSharp> {
  loading ??= import(NAME).then(({ default: make }) => make)
  return loading.catch((cause: Error & { code?: string }) => {
    loading = undefined
    const missing = cause.code === 'ERR_MODULE_NOT_FOUND'
    const what = missing ? 'which is not installed' : `which does not load (${cause.message.split('\n')[0]})`
    throw source.error(
      `JPEG, PNG and WebP are read by npm's sharp, ${what}: npm install sharp. It is under the Apache-2.0 licence, and the ` +
        'library libvips that comes with it under the LGPL-3.0. PPM, PGM and raw pixels are read without it',
      { cause, missing: NAME },
    )
  })
}

/**
 * A file by its decoder, in libvips's threads.
 * @throws DataError when it cannot be decoded to its end, or sharp is not there
 */
export async function decodeCoded(source: ByteSource, format: string, { mode, maxPixels }: Wanted): Promise<Pixels> {
  const make = await loadSharp(source)
  // No picture that is let in takes more, however badly it is compressed.
  const mostBytes = 9 * maxPixels + 2 ** 26
  if (source.size > mostBytes) throw source.error(`it has ${source.size} bytes, more than ${mostBytes}`)
  const file = await source.bytes()
  // As Pillow: what is cut off or damaged is refused, remarks of the decoders are not.
  const options = { failOn: 'error', ignoreIcc: true, limitInputPixels: false }
  try {
    const facts = await make(file, options).metadata()
    const { width, height, channels, space, depth } = facts
    refuseSize(source, width, height, maxPixels)
    if (mode === 'depth') {
      if (channels > 2)
        throw source.error(`it has ${channels} channels, where a picture of depths has one`, { channels })
      return await depths(make(file, options), depth === 'ushort')
    }
    if (space === 'cmyk') {
      const { data } = await decoded(make(file, options).pipelineColourspace('cmyk').toColourspace('cmyk').raw())
      return { width, height, channels: 3, most: 255, data: rgbOfCmyk(data, width * height) }
    }
    const { data, info } = await decoded(make(file, options).removeAlpha().raw())
    return { width, height, channels: info.channels === 1 ? 1 : 3, most: 255, data: bytesOf(data) }
  } catch (cause) {
    if ((cause as { file?: unknown }).file !== undefined) throw cause
    const reason = cause instanceof Error ? cause.message.trim().split('\n').join('; ') : String(cause)
    throw source.error(`the ${format} decoder gives up: ${reason}`, { format, cause })
  }
}

const decoded = (pipeline: Sharp) => pipeline.toBuffer({ resolveWithObject: true })
const bytesOf = (data: Buffer) => new Uint8Array(data.buffer, data.byteOffset, data.length)

async function depths(pipeline: Sharp, wide: boolean): Promise<Pixels> {
  const grey = pipeline.removeAlpha().toColourspace(wide ? 'grey16' : 'b-w')
  const { data, info } = await decoded(grey.raw({ depth: wide ? 'ushort' : 'uchar' }))
  const { width, height } = info
  if (!wide) return { width, height, channels: 1, most: 255, data: bytesOf(data) }
  const values = new Uint16Array(width * height)
  new Uint8Array(values.buffer).set(data)
  return { width, height, channels: 1, most: 65535, data: values }
}

/** Inks to light, as Pillow: what black leaves, less the ink's share of it. */
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
