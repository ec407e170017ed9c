import { decompressLz4, decompressLz4Block } from './lz4.js'

export type BlockCodec = 'SNAPPY' | 'ZSTD' | 'LZ4' | 'LZ4_RAW'

export const isBlockCodec = (codec: string | undefined): codec is BlockCodec =>
  codec !== undefined && ['SNAPPY', 'ZSTD', 'LZ4', 'LZ4_RAW'].includes(codec)

/** Decompress to exactly `size` bytes on this thread. Throws an Error for broken data. */
export async function decompressed(codec: BlockCodec, bytes: Uint8Array, size: number): Promise<Uint8Array> {
  if (codec === 'LZ4_RAW') return decompressLz4Block(bytes, new Uint8Array(size))
  if (codec === 'LZ4') return decompressLz4(bytes, size)
  const codecs = await import('hyparquet-compressors')
  // The package takes data of another size, and fills the rest with zeros.
  requireSize(codec === 'SNAPPY' ? snappySize(bytes) : zstdSize(bytes), size)
  return codec === 'SNAPPY'
    ? codecs.compressors.SNAPPY!(bytes, size)
    : codecs.decompressZstd(bytes, new Uint8Array(size))
}

function requireSize(declared: number | undefined, size: number): void {
  if (declared === undefined || declared === size) return
  throw new Error(`expected ${size} decompressed bytes, got ${declared}`)
}

/** Return the length that begins data of Snappy. */
function snappySize(bytes: Uint8Array): number {
  let declared = 0
  for (let i = 0; i < 5; i++) {
    const byte = bytes[i] ?? 0
    declared += (byte & 127) * 2 ** (7 * i)
    if (byte < 128) break
  }
  return declared
}

/** Return the content size in the header of a Zstandard frame (RFC 8878, 3.1.1.1); undefined if it does not state it. */
function zstdSize(bytes: Uint8Array): number | undefined {
  const descriptor = bytes[4] ?? 0
  const flag = descriptor >> 6
  const isSingle = (descriptor & 32) !== 0
  const width = flag === 0 ? (isSingle ? 1 : 0) : 1 << flag
  if (width === 0) return undefined
  const start = 5 + (isSingle ? 0 : 1) + ([0, 1, 2, 4][descriptor & 3] as number)
  let size = flag === 1 ? 256 : 0
  for (let i = 0; i < width; i++) size += (bytes[start + i] ?? 0) * 2 ** (8 * i)
  return size
}
