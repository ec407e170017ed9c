import { setImmediate as macrotask } from 'node:timers/promises'
import type { ColumnMetaData, FileMetaData } from 'hyparquet'
import { DataError, VoxtorchError } from '../../base/errors.js'
import { didYouMean } from '../../base/words.js'
import { type ByteSource, FileSource, quoted } from '../byte-source.js'
import { Cursor } from './cursor.js'
import { loadPackages, type Packages } from './packages.js'
import { type ParquetLeaf, type ParquetNode, parquetTree } from './schema.js'
import { thriftEnd } from './thrift.js'

const LARGEST_FOOTER = 2 ** 26
const MOST_FOOTER_VALUES = 4_000_000
const MOST_FILE_ROWS = 2 ** 40
/** Milliseconds after which the reader lets the event loop run. */
const TURN = 8

interface Chunk {
  readonly start: number
  readonly end: number
  readonly values: number
  readonly metadata: ColumnMetaData
}

interface RowGroup {
  readonly rows: number
  /** Number of the first row in the file. */
  readonly start: number
  /** One for each leaf of the schema. */
  readonly chunks: readonly Chunk[]
}

/** A row: its number in the file, and its record, or the error of a value in it. */
export interface ParquetRow {
  readonly row: number
  readonly record?: Record<string, unknown>
  readonly error?: DataError
}

export interface RowSelection {
  /** Top-level columns. Default: all. */
  columns?: readonly string[] | undefined
  /** Number of the first row. Default 0. */
  from?: number | undefined
  /** Whether a row is returned; others are passed over. Default: all. */
  wants?: ((row: number) => boolean) | undefined
}

/** A Parquet file whose footer is read. Rows are read page by page. */
export class ParquetFile {
  private constructor(
    readonly source: FileSource | ByteSource,
    private readonly packages: Packages,
    readonly rows: number,
    readonly groups: readonly RowGroup[],
    readonly columns: readonly ParquetNode[],
    private readonly leaves: readonly ParquetLeaf[],
    /** Texts that the writer added, such as the features of a Hugging Face dataset under `huggingface`. */
    readonly metadata: ReadonlyMap<string, string>,
  ) {}

  static async open(path: string): Promise<ParquetFile> {
    const source = await FileSource.open(path, DataError)
    try {
      return await ParquetFile.from(source)
    } catch (error) {
      await source.close()
      throw error
    }
  }

  /** @internal */
  static async from(source: ByteSource): Promise<ParquetFile> {
    const packages = await loadPackages(source.place.file)
    const footer = await footerOf(source)
    let metadata: FileMetaData
    try {
      metadata = packages.parquetMetadata(footer, { geoparquet: false })
    } catch (cause) {
      throw source.error(`its footer is broken: ${(cause as Error).message}`, { cause })
    }
    const { columns, leaves } = parquetTree(metadata.schema, source)
    const groups = groupsOf(metadata, leaves, source)
    const rows = groups.reduce((sum, group) => sum + group.rows, 0)
    const pairs = (metadata.key_value_metadata ?? []).map(
      ({ key, value = '' }) => [String(key), String(value)] as const,
    )
    return new ParquetFile(source, packages, rows, groups, columns, leaves, new Map(pairs))
  }

  async close(): Promise<void> {
    if (this.source instanceof FileSource) await this.source.close()
  }

  /** Return the named columns in the file's order. @throws the source's error for a column that is missing */
  select(names: readonly string[] | undefined): readonly ParquetNode[] {
    if (names === undefined) return this.columns
    const known = this.columns.map(({ name }) => name)
    for (const name of names) {
      if (known.includes(name)) continue
      throw this.source.error(
        `expected a column ${quoted(name)}, got ${known.map(quoted).join(', ')}${didYouMean(name, known)}`,
        { column: name },
      )
    }
    return this.columns.filter(({ name }) => names.includes(name))
  }

  /**
   * Yield rows in order. Memory: a page of each column and a row.
   * @throws the source's error, with `rowGroup`, `row` and `column`, for a damaged page. A value that cannot be converted, such
   *   as a string that is not UTF-8, is the `error` of its row
   */
  async *read({ columns, from = 0, wants }: RowSelection = {}): AsyncGenerator<ParquetRow, void, void> {
    const selected = this.select(columns)
    for (const [number, group] of this.groups.entries()) {
      if (group.start + group.rows <= from) continue
      yield* this.#group(selected, number, group, Math.max(0, from - group.start), wants)
    }
  }

  async *#group(
    columns: readonly ParquetNode[],
    number: number,
    group: RowGroup,
    skip: number,
    wants: RowSelection['wants'],
  ): AsyncGenerator<ParquetRow, void, void> {
    let row = skip
    const errorAt = (leaf: ParquetLeaf, what: string, cause?: unknown): DataError =>
      this.source.error(`row group ${number}, row ${group.start + row}, column ${quoted(leaf.path)}: ${what}`, {
        rowGroup: number,
        row: group.start + row,
        column: leaf.path,
        ...(cause !== undefined && { cause }),
      }) as DataError
    const guarded = <T>(leaf: ParquetLeaf, use: () => T): T => {
      try {
        return use()
      } catch (cause) {
        if (cause instanceof VoxtorchError) throw cause
        throw errorAt(leaf, (cause as Error).message, cause)
      }
    }
    const cursors = new Map<ParquetLeaf, Cursor>()
    const read = columns.map((column) => {
      for (let i = column.firstLeaf; i < column.endLeaf; i++) {
        const leaf = this.leaves[i] as ParquetLeaf
        const chunk = group.chunks[i] as Chunk
        cursors.set(
          leaf,
          guarded(leaf, () => new Cursor(leaf, this.packages, this.source, chunk.metadata, chunk)),
        )
      }
      return { name: column.name, value: this.#reader(column, cursors, guarded) }
    })
    const all = [...cursors.values()]
    let since = performance.now()
    const pause = async () => {
      if (performance.now() - since < TURN) return
      await macrotask()
      since = performance.now()
    }
    /** Rows of each column that are to be passed over. */
    const behind = new Map(all.map((cursor) => [cursor, skip]))
    for (;;) {
      for (const cursor of all) {
        let rest = behind.get(cursor) as number
        while ((cursor.ready === 0 || rest > 0) && !(cursor.ready === 0 && cursor.ended)) {
          const { leaf } = cursor
          if (cursor.ready === 0) {
            rest -= await cursor.load(rest).catch((cause: Error) => {
              if (cause instanceof VoxtorchError) throw cause
              throw errorAt(leaf, cause.message, cause)
            })
            await pause()
          }
          for (; rest > 0 && cursor.ready > 0; rest--) {
            guarded(leaf, () => cursor.skipRow())
            cursor.ready--
          }
        }
        behind.set(cursor, rest)
      }
      const count = Math.min(...all.map((cursor) => cursor.ready), group.rows - row)
      const short = all.find((cursor) => cursor.ready === 0)
      if (count === 0) {
        if (row < group.rows && short !== undefined) {
          throw errorAt(short.leaf, `expected ${group.rows} rows, but it ends after ${row}`)
        }
        const long = all.find((cursor) => cursor.ready > 0 || !cursor.ended)
        if (long !== undefined) throw errorAt(long.leaf, `expected ${group.rows} rows, got more`)
        return
      }
      for (let i = 0; i < count; i++) {
        const isWanted = wants === undefined || wants(group.start + row)
        if (isWanted) {
          const record: Record<string, unknown> = {}
          for (const { name, value } of read) record[name] = value()
          const error = this.#finished(all, errorAt)
          yield error === undefined ? { row: group.start + row, record } : { row: group.start + row, error }
        } else for (const cursor of all) guarded(cursor.leaf, () => cursor.skipRow())
        for (const cursor of all) cursor.ready--
        row++
        if (i % 32 === 31) await pause()
      }
    }
  }

  /** Check that all columns are at the end of the row; return the error of a value in it. */
  #finished(
    cursors: readonly Cursor[],
    errorAt: (leaf: ParquetLeaf, what: string) => DataError,
  ): DataError | undefined {
    let error: DataError | undefined
    for (const cursor of cursors) {
      if (cursor.repetition() > 0) throw errorAt(cursor.leaf, 'it has more values than its sibling columns')
      if (cursor.fault === undefined) continue
      error ??= errorAt(cursor.leaf, cursor.fault)
      cursor.fault = undefined
    }
    return error
  }

  /** Return a function that takes the next value of a column from its cursors. */
  #reader(
    node: ParquetNode,
    cursors: ReadonlyMap<ParquetLeaf, Cursor>,
    guarded: <T>(leaf: ParquetLeaf, use: () => T) => T,
  ): () => unknown {
    const own = this.leaves.slice(node.firstLeaf, node.endLeaf).map((leaf) => cursors.get(leaf) as Cursor)
    const [first] = own as [Cursor]
    const guard = <T>(cursor: Cursor, use: () => T): T => guarded(cursor.leaf, use)
    if (node.kind === 'value') {
      const least = node.nullable ? node.defined - 1 : node.defined
      return () => {
        try {
          return first.take(least)
        } catch (cause) {
          return guard(first, () => {
            throw cause
          })
        }
      }
    }
    const skipAll = <T>(result: T): T => {
      for (const cursor of own) guard(cursor, () => cursor.skipNull())
      return result
    }
    const parts = node.children.map((child) => [child.name, this.#reader(child, cursors, guarded)] as const)
    const isNull = () => node.nullable && guard(first, () => first.definition()) < node.defined
    if (node.kind === 'struct') {
      return () => {
        if (isNull()) return skipAll(null)
        const record: Record<string, unknown> = {}
        for (const [name, value] of parts) record[name] = value()
        return record
      }
    }
    const [[, element], value] = parts as [(typeof parts)[0], (typeof parts)[0] | undefined]
    const { filled, repeats } = node
    return () => {
      if (isNull()) return skipAll(null)
      const items: unknown[] = []
      if (guard(first, () => first.definition()) < filled) return skipAll(items)
      do {
        items.push(value === undefined ? element() : [element(), value[1]()])
        const next = first.repetition()
        for (const cursor of own) {
          const level = cursor.repetition()
          if (level > repeats || (level === repeats) !== (next === repeats)) {
            guard(cursor, () => {
              throw new Error('its lists have other lengths than its sibling columns')
            })
          }
        }
      } while (first.repetition() === repeats)
      return items
    }
  }
}

async function footerOf(source: ByteSource): Promise<Uint8Array> {
  if (source.size < 12) throw source.error(`expected a Parquet file, got ${source.size} bytes`)
  const tail = await source.bytes(source.size - 8, 8)
  const magic = tail.toString('latin1', 4)
  if (magic === 'PARE') throw source.error('its footer is encrypted, which is not supported')
  const head = (await source.bytes(0, 4)).toString('latin1')
  if (magic !== 'PAR1' || (head !== 'PAR1' && head !== 'PARE')) {
    throw source.error('expected a Parquet file, which begins and ends with PAR1. It may be truncated')
  }
  const length = tail.readUInt32LE(0)
  const most = Math.min(source.size - 12, LARGEST_FOOTER)
  if (length > most) throw source.error(`expected a footer of at most ${most} bytes, got ${length}`)
  const footer = await source.bytes(source.size - 8 - length, length + 8)
  const end = thriftEnd(footer.subarray(0, length), 0, MOST_FOOTER_VALUES)
  if (typeof end === 'number') return footer
  throw source.error(
    end === 'many'
      ? `its footer has more than ${MOST_FOOTER_VALUES} values. Write it with larger row groups`
      : 'its footer is broken',
    { byte: source.size - 8 - length },
  )
}

function groupsOf(metadata: FileMetaData, leaves: readonly ParquetLeaf[], source: ByteSource): RowGroup[] {
  const count = (value: unknown, most: number): number | undefined => {
    const number = typeof value === 'bigint' || typeof value === 'number' ? Number(value) : Number.NaN
    return Number.isSafeInteger(number) && number >= 0 && number <= most ? number : undefined
  }
  let start = 0
  const groups = metadata.row_groups.map((group, number) => {
    const fail = (what: string, fields: object = {}): never => {
      throw source.error(`row group ${number}: ${what}`, { rowGroup: number, ...fields })
    }
    const rows = count(group.num_rows, MOST_FILE_ROWS) ?? fail(`a number of rows of ${String(group.num_rows)}`)
    if (group.columns.length !== leaves.length) {
      fail(`expected ${leaves.length} columns as in the schema, got ${group.columns.length}`)
    }
    const chunks = group.columns.map((column, i): Chunk => {
      const { path } = leaves[i] as ParquetLeaf
      const failAt = (what: string): never => fail(`column ${quoted(path)}: ${what}`, { column: path })
      const metadata = column.meta_data ?? failAt('it has no metadata, or is encrypted')
      if (column.file_path) failAt('its data is in another file')
      if (column.crypto_metadata) failAt('it is encrypted, which is not supported')
      if (metadata.path_in_schema?.join('.') !== path) failAt(`it is named ${quoted(String(metadata.path_in_schema))}`)
      if (metadata.type !== leaves[i]?.node.element.type) failAt(`it has the type ${String(metadata.type)}`)
      const data = count(metadata.data_page_offset, source.size)
      const dictionary = count(metadata.dictionary_page_offset ?? 0, source.size)
      const size = count(metadata.total_compressed_size, source.size)
      const values = count(metadata.num_values, MOST_FILE_ROWS)
      if (data === undefined || dictionary === undefined || size === undefined || values === undefined) {
        return failAt('its offset or size is broken')
      }
      const begin = dictionary > 0 ? Math.min(dictionary, data) : data
      if (begin + size > source.size) failAt(`it ends at byte ${begin + size}, after the end of the file`)
      return { start: begin, end: begin + size, values, metadata }
    })
    start += rows
    return { rows, start: start - rows, chunks }
  })
  const rows = count(metadata.num_rows, MOST_FILE_ROWS)
  if (rows !== start) throw source.error(`expected ${String(metadata.num_rows)} rows, got row groups with ${start}`)
  return groups
}
