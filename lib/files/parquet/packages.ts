import { join } from 'node:path'
import { isMainThread, Worker } from 'node:worker_threads'
import * as zlib from 'node:zlib'
import { ConfigError } from '../../base/errors.js'
import { packageDirectory } from '../../native/load.js'
import { type BlockCodec, decompressed, isBlockCodec } from './block-codecs.js'
import type { Unpacked } from './block-codecs-worker.js'

/** The used parts of the optional packages hyparquet and hyparquet-compressors. */
export type Packages = Awaited<ReturnType<typeof load>>

let loading: Promise<Packages> | undefined

/** Load the packages on first use. @throws ConfigError if they are not installed */
export function loadPackages(file: string): Promise<Packages> {
  loading ??= load()
  return loading.catch((cause: Error) => {
    loading = undefined
    throw new ConfigError(
      `${file}: Parquet files are read by npm's hyparquet, which does not load (${cause.message.split('\n')[0]}). ` +
        'Run: npm install hyparquet@1.33.0 hyparquet-compressors@1.1.2',
      { file, cause, missing: 'hyparquet' },
    )
  })
}

async function load() {
  const [{ parquetMetadata }, { parquetHeader }, encoding, { readPlain }, { deltaBinaryUnpack }] = await Promise.all([
    import('hyparquet'),
    import('hyparquet/src/column.js'),
    import('hyparquet/src/encoding.js'),
    import('hyparquet/src/plain.js'),
    import('hyparquet/src/delta.js'),
    // Loaded here too, so that a missing package is reported before a page is read.
    import('hyparquet-compressors'),
  ])
  const { readRleBitPackedHybrid, byteStreamSplit } = encoding
  return {
    parquetMetadata,
    parquetHeader,
    readRleBitPackedHybrid,
    byteStreamSplit,
    readPlain,
    deltaBinaryUnpack,
  }
}

/** Size from which a page is decompressed by a thread of its own, so that the event loop goes on. */
const LARGE_PAGE = 2 ** 24

/**
 * Decompress to exactly `size` bytes. gzip, brotli and, where it can, zstd are decompressed by Node, in other threads.
 * Throws an Error for broken data, another size, or a codec that is not supported.
 */
export async function unpacked(codec: string | undefined, bytes: Uint8Array, size: number): Promise<Uint8Array> {
  const result = await expanded(codec, bytes, size)
  if (result.length !== size) throw new Error(`expected ${size} decompressed bytes, got ${result.length}`)
  return result
}

async function expanded(codec: string | undefined, bytes: Uint8Array, size: number): Promise<Uint8Array> {
  // Decompressors of an empty page may expect no header or any.
  if (size === 0) return new Uint8Array(0)
  if (codec === 'UNCOMPRESSED') return bytes
  if (codec === 'GZIP') return inNode(zlib.gunzip, bytes, size)
  if (codec === 'BROTLI') return inNode(zlib.brotliDecompress, bytes, size)
  // Since Node.js 22.15.
  if (codec === 'ZSTD' && 'zstdDecompress' in zlib)
    return inNode(zlib.zstdDecompress as typeof zlib.gunzip, bytes, size)
  if (!isBlockCodec(codec)) {
    throw new Error(`compression ${codec}, which is not supported. Write it with snappy, gzip, brotli, zstd or lz4`)
  }
  return size >= LARGE_PAGE && isMainThread ? inThread(codec, bytes, size) : decompressed(codec, bytes, size)
}

function inThread(codec: BlockCodec, bytes: Uint8Array, size: number): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    // A Buffer's slice would share its memory.
    const own = new Uint8Array(bytes)
    const worker = new Worker(join(packageDirectory, 'dist/files/parquet/block-codecs-worker.js'), {
      execArgv: [],
      workerData: { codec, bytes: own, size },
      transferList: [own.buffer],
    })
    worker.once('message', (answer: Unpacked) => {
      if ('bytes' in answer) resolve(answer.bytes)
      else reject(new Error(answer.error))
    })
    worker.once('error', reject)
    worker.once('exit', () => reject(new Error('its decompression ended early')))
  })
}

function inNode(
  decompress: (
    bytes: Uint8Array,
    options: { maxOutputLength: number },
    done: (error: Error | null, result: Buffer) => void,
  ) => void,
  bytes: Uint8Array,
  size: number,
): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    decompress(bytes, { maxOutputLength: size }, (error, result) => (error ? reject(error) : resolve(result)))
  })
}
