import { argumentError, requireOptions, requireString } from '../../base/check.js'
import { ParquetFile } from './file.js'
import { typeOf } from './schema.js'

export interface ReadParquetOptions {
  /** Top-level columns to read; the others are not read from the disk. Default: all. */
  columns?: readonly string[]
}

/** Contents of the footer of a Parquet file. */
export interface ParquetHeader {
  /** Number of rows, in the file and in each row group. */
  rows: number
  rowGroups: number[]
  /** Top-level columns with their types, such as `list<struct<role: string, content: string>>`. */
  columns: { name: string; type: string; nullable: boolean }[]
  /** Texts that the writer added. */
  metadata: Record<string, string>
}

/**
 * Iterate over the rows of a Parquet file, page by page: memory is a page of each column, whatever the size of the file and of
 * its row groups. Needs npm's `hyparquet` and `hyparquet-compressors`.
 *
 * Values: strings, booleans, numbers; integers beyond 2^53 as bigint; timestamps and dates as Date, with milliseconds;
 * decimals and UUIDs as strings; other bytes as Uint8Array; lists as arrays, structs as objects, maps as arrays of [key, value];
 * null where there is no value. Compression: snappy, gzip, brotli, zstd, lz4. Encryption is refused.
 *
 * ```ts
 * for await (const row of readParquet('train.parquet', { columns: ['messages'] })) …
 * ```
 * @throws DataError with `file`, and `rowGroup`, `row` and `column` where they are known: for a damaged file, a missing column, a
 *   string that is not UTF-8, sizes beyond the file or beyond the limits (pages of 1 GiB, 8 million values, footers of 64 MiB)
 * @throws ConfigError for invalid options, and if the packages are not installed
 */
export function readParquet(
  path: string,
  options: ReadParquetOptions = {},
): AsyncIterableIterator<Record<string, unknown>> {
  requireString('readParquet', 'path', path)
  requireOptions('readParquet', options, ['columns'])
  requireColumns('readParquet', options.columns)
  return rowsOf(path, options)
}

async function* rowsOf(path: string, { columns }: ReadParquetOptions) {
  const file = await ParquetFile.open(path)
  try {
    for await (const { record, error } of file.read({ columns })) {
      if (error !== undefined) throw error
      yield record as Record<string, unknown>
    }
  } finally {
    await file.close()
  }
}

/** Read the number of rows, the columns and the metadata of a Parquet file. @throws as {@link readParquet} */
export async function readParquetHeader(path: string): Promise<ParquetHeader> {
  requireString('readParquetHeader', 'path', path)
  const file = await ParquetFile.open(path)
  await file.close()
  return {
    rows: file.rows,
    rowGroups: file.groups.map(({ rows }) => rows),
    columns: file.columns.map((column) => ({ name: column.name, type: typeOf(column), nullable: column.nullable })),
    metadata: Object.fromEntries(file.metadata),
  }
}

/** @internal */
export function requireColumns(where: string, columns: readonly string[] | undefined): void {
  if (columns === undefined) return
  // `every` alone passes over the holes of a sparse array.
  if (
    Array.isArray(columns) &&
    columns.length > 0 &&
    Array.from(columns as unknown[]).every((name) => typeof name === 'string')
  )
    return
  throw argumentError(where, 'columns', 'a list of names of columns', columns)
}
