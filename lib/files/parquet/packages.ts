import { brotliDecompress, gunzip } from 'node:zlib'
import { ConfigError } from '../../base/errors.js'

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
  const [{ parquetMetadata }, { parquetHeader }, encoding, { readPlain }, { deltaBinaryUnpack }, codecs] =
    await Promise.all([
      import('hyparquet'),
      import('hyparquet/src/column.js'),
      import('hyparquet/src/encoding.js'),
      import('hyparquet/src/plain.js'),
      import('hyparquet/src/delta.js'),
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
    codecs,
  }
}

/**
 * Decompress to exactly `size` bytes. gzip and brotli are decompressed by Node, in other threads.
 * Throws an Error for broken data, another size, or a codec that is not supported.
 */
export async function unpacked(
  { codecs }: Packages,
  codec: string | undefined,
  bytes: Uint8Array,
  size: number,
): Promise<Uint8Array> {
  const result = await expanded(codecs, codec, bytes, size)
  if (result.length !== size) throw new Error(`expected ${size} decompressed bytes, got ${result.length}`)
  return result
}

async function expanded(codecs: Packages['codecs'], codec: string | undefined, bytes: Uint8Array, size: number) {
  // Decompressors of an empty page may expect no header or any.
  if (size === 0) return new Uint8Array(0)
  switch (codec) {
    case 'UNCOMPRESSED':
      return bytes
    case 'SNAPPY':
      return snappy(codecs, bytes, size)
    case 'GZIP':
      return inNode(gunzip, bytes, size)
    case 'BROTLI':
      return inNode(brotliDecompress, bytes, size)
    case 'ZSTD':
      return codecs.decompressZstd(bytes, new Uint8Array(size))
    case 'LZ4':
      return codecs.decompressLz4(bytes, size)
    case 'LZ4_RAW':
      return codecs.decompressLz4Raw(bytes, size)
    default:
      throw new Error(`compression ${codec}, which is not supported. Write it with snappy, gzip, brotli, zstd or lz4`)
  }
}

function snappy({ compressors }: Packages['codecs'], bytes: Uint8Array, size: number): Uint8Array {
  // The package does not compare the declared length with the memory that it reserves.
  let declared = 0
  for (let i = 0; i < 5; i++) {
    const byte = bytes[i] ?? 0
    declared += (byte & 127) * 2 ** (7 * i)
    if (byte < 128) break
  }
  if (declared !== size) throw new Error(`expected ${size} decompressed bytes, got ${declared}`)
  return compressors.SNAPPY!(bytes, size)
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
