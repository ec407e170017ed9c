import { Readable } from 'node:stream'
import { createGunzip, createInflateRaw } from 'node:zlib'
import { VoxtorchError } from '../base/errors.js'

// Deflate compresses up to 1 : 1032. Large real data stays far below 1 : 100; a decompression bomb does not.
const SUSPECT_SIZE = 2 ** 27
const SUSPECT_RATIO = 100
// zlib's default of 16 KiB costs more in hand-overs than in decompression.
const CHUNK = 2 ** 18

/** Return whether data decompresses to so much that it is a decompression bomb. */
export function isBomb(packed: number, unpacked: number): boolean {
  return unpacked > SUSPECT_SIZE && unpacked > SUSPECT_RATIO * packed
}

/**
 * Decompress a deflate (`raw`) or gzip stream on zlib's threads. Throws `fail`'s error for invalid data, an early end or a
 * decompression bomb.
 */
export async function* inflated(
  packed: AsyncIterable<Uint8Array>,
  format: 'raw' | 'gzip',
  fail: (what: string, fields?: Record<string, unknown>) => VoxtorchError,
): AsyncGenerator<Buffer> {
  let taken = 0
  let unpackedBytes = 0
  async function* counted() {
    for await (const chunk of packed) {
      taken += chunk.length
      yield chunk
    }
  }
  const source = Readable.from(counted(), { objectMode: false })
  const inflate = format === 'raw' ? createInflateRaw({ chunkSize: CHUNK }) : createGunzip({ chunkSize: CHUNK })
  source.on('error', (cause) => inflate.destroy(cause))
  try {
    for await (const chunk of source.pipe(inflate)) {
      unpackedBytes += (chunk as Buffer).length
      if (isBomb(taken, unpackedBytes))
        throw fail(`${taken} packed bytes unpack to more than ${unpackedBytes}: it looks like a decompression bomb`)
      yield chunk as Buffer
    }
  } catch (cause) {
    if (cause instanceof VoxtorchError) throw cause
    throw fail(`its packed data is broken: ${(cause as Error).message}`, { cause })
  } finally {
    inflate.destroy()
    source.destroy()
  }
}
