import { type FileHandle, open, stat } from 'node:fs/promises'
import {
  argumentError,
  requireObject,
  requireOneOf,
  requireOptions,
  requireString,
  requireWhole,
} from '../base/check.js'
import { ConfigError, DataError } from '../base/errors.js'
import { unopened } from '../files/byte-source.js'
import { elementsOf, type FileRecord } from '../files/json/elements.js'
import { jsonValue, refuseTooMuch } from '../files/json/json.js'
import { JsonScan } from '../files/json/scan.js'
import { chunksOf, faultIn, LONGEST_LINE, utf8, withoutMark } from '../files/text.js'
import { BadRecord, type Dataset, type IterableDataset, type StreamContext } from './dataset.js'

export interface JsonlDatasetOptions {
  /**
   * Action for a line that is not valid JSON: 'stop' (default) throws when it is read; 'skip' leaves it out and counts it. To
   * know its length, a dataset with random access then reads every line once when it is opened.
   */
  onBadRecord?: 'stop' | 'skip'
  /** Maximum line length in bytes. Default 64 MiB; the maximum is 511 MiB, JavaScript's longest string. */
  maxLineBytes?: number
}

/** Offsets and lengths of the records of a file. In shared memory, so that workers need no copy. */
export interface JsonlIndex {
  /** Size and modification time of the file when it was indexed. */
  readonly size: number
  readonly changed: number
  readonly badRecords: number
  /** For each record the offset of its first byte, its length in bytes, and its line number. */
  readonly starts: Float64Array
  readonly lengths: Uint32Array
  readonly lines: Uint32Array
}

/** Records of a JSON Lines file by index; the file may be larger than memory. Created by `jsonlDataset`. */
export interface JsonlDataset<T> extends Dataset<T> {
  readonly file: string
  /** Index for other datasets over the same file, for instance in a loader's `workerData`. */
  readonly index: JsonlIndex
  /** Number of lines left out by `onBadRecord: 'skip'`, and the errors of the first hundred. */
  readonly badRecords: number
  readonly badRecordErrors: readonly DataError[]
  get(index: number, epoch?: number): Promise<T>
}

/**
 * Open a JSON Lines file for random access. The file is scanned once for its lines, unless `index` has them, and 16 bytes of
 * memory per line are kept. Blank lines are ignored. The file is open only while samples are read.
 *
 * @throws DataError if the file cannot be read, a line is too long, or `index` belongs to another version of the file. `get`
 *   throws it, with `file` and `line`, for a line that is not valid JSON, and if the file has changed
 */
export async function jsonlDataset<T = unknown>(
  file: string,
  options: JsonlDatasetOptions & { index?: JsonlIndex } = {},
): Promise<JsonlDataset<T>> {
  requireString('jsonlDataset', 'file', file)
  const { skip, maxLineBytes } = settingsOf('jsonlDataset', options, 'index')
  const errors: DataError[] = []
  const onBad = (error: DataError) => {
    if (errors.length < 100) errors.push(error)
  }
  const index = options.index
    ? checkedIndex(options.index)
    : await indexOf(file, linesOf(file, maxLineBytes), skip ? { parse: jsonRecord, onBad } : undefined)
  if (options.index) await requireUnchanged(file, await stat(file).catch(refuseUnopened(file)), index)
  const reader = new RecordReader(file, index)
  return {
    file,
    index,
    length: index.starts.length,
    badRecords: index.badRecords,
    badRecordErrors: errors,
    get: (i) => reader.get(i) as Promise<T>,
  }
}

/**
 * Open a text file whose lines are parsed by `parse`, which returns a sample. Blank lines are ignored.
 * @throws DataError as `jsonlDataset`, and the errors of `parse` when a line is read. @internal
 */
export const lineDataset = <T>(
  file: string,
  parse: (text: string, file: string, line: number) => T,
): Promise<Dataset<T>> =>
  recordDataset(file, { parse: (bytes, path, line) => parse(utf8(bytes, path, line), path, line) })

/** Options for reading the records of a file. @internal */
export interface RecordOptions<T> {
  /** The file is one JSON array, whose elements are the records. Default: each line that is not blank is a record. */
  isArray?: boolean
  parse(bytes: Buffer, file: string, line: number): T
  /**
   * Called for each record whose `parse` throws a DataError; the record is left out. Parses every record when the file is
   * opened.
   */
  onBad?: (error: DataError) => void
  /** Maximum size of a record in bytes. Default: JavaScript's longest string. */
  maxBytes?: number
}

/**
 * Open the records of a file by index; the file may be larger than memory. See {@link jsonlDataset}.
 * @throws DataError as `jsonlDataset`, for a file that is not an array despite `isArray`, and the errors of `parse`. @internal
 */
export async function recordDataset<T>(file: string, options: RecordOptions<T>): Promise<Dataset<T>> {
  const { isArray = false, parse, onBad, maxBytes = LONGEST_LINE } = options
  const check = onBad && { parse, onBad }
  const index = await indexOf(
    file,
    isArray ? elementsOf(chunksOf(file), file, maxBytes) : linesOf(file, maxBytes),
    check,
  )
  const reader = new RecordReader(file, index, parse)
  return { length: index.starts.length, get: (i) => reader.get(i) as Promise<T> }
}

/** Parse a record as JSON. @internal */
export function jsonRecord(bytes: Buffer, file: string, line: number): unknown {
  const text = utf8(bytes, file, line)
  const scan = new JsonScan()
  const deep = scan.push(bytes) >= 0
  refuseTooMuch(scan, file, line)
  return jsonValue(text, deep || scan.wide, file, line)
}

/**
 * Stream of the values of a JSON Lines file, for a `DataLoader` or `for await (… of stream.iterate())`. Each of several workers
 * parses only its own lines. With `onBadRecord: 'skip'` bad lines are skipped: the loader counts them in its `badRecords`, and
 * the stream itself counts those that it read in this thread.
 */
export interface JsonlStream<T> extends IterableDataset<T> {
  readonly file: string
  readonly badRecords: number
  iterate(context?: StreamContext): AsyncGenerator<T, void, void>
}

/** Stream a JSON Lines file. Uses a few hundred kilobytes of memory and the longest line. Blank lines are ignored. */
export function jsonlStream<T = unknown>(file: string, options: JsonlDatasetOptions = {}): JsonlStream<T> {
  requireString('jsonlStream', 'file', file)
  const { skip, maxLineBytes } = settingsOf('jsonlStream', options)
  let badRecords = 0
  async function* iterate(context: Partial<StreamContext> = {}): AsyncGenerator<T, void, void> {
    const { shard = 0, shards = 1, takesBadRecords = false } = context
    let number = 0
    for await (const { bytes, line } of linesOf(file, maxLineBytes)) {
      if (number++ % shards !== shard) continue
      let value: unknown
      try {
        value = jsonRecord(bytes, file, line)
      } catch (error) {
        if (!skip || !(error instanceof DataError)) throw error
        badRecords++
        // Yield the bad record in its place, so that the parts of several readers still match.
        if (!takesBadRecords) continue
        value = new BadRecord(error)
      }
      yield value as T
    }
  }
  return {
    file,
    sharded: true,
    get badRecords() {
      return badRecords
    },
    iterate,
  }
}

function settingsOf(
  where: string,
  options: JsonlDatasetOptions,
  ...own: string[]
): { skip: boolean; maxLineBytes: number } {
  requireOptions(where, options, ['onBadRecord', 'maxLineBytes', ...own])
  const { onBadRecord = 'stop', maxLineBytes = 1 << 26 } = options
  requireOneOf(where, 'onBadRecord', onBadRecord, ['stop', 'skip'])
  requireWhole(where, 'maxLineBytes', maxLineBytes, 1)
  if (maxLineBytes > 2 ** 31 - 1) throw argumentError(where, 'maxLineBytes', 'at most 2^31 - 1', maxLineBytes)
  return { skip: onBadRecord === 'skip', maxLineBytes: Math.min(maxLineBytes, LONGEST_LINE) }
}

/** Yield the lines that are not blank. @internal */
export async function* linesOf(file: string, longest: number): AsyncGenerator<FileRecord, void, void> {
  let open: Buffer[] = []
  let held = 0
  let start = 0
  let line = 1
  let first = true
  const tooLong = () =>
    faultIn(file, `expected a line of at most ${longest} bytes, got a longer one. Raise maxLineBytes`, { line })
  for await (const chunk of chunksOf(file)) {
    let from = first ? chunk.length - withoutMark(chunk).length : 0
    start += from
    first = false
    for (let end = chunk.indexOf(10, from); end >= 0; end = chunk.indexOf(10, from)) {
      const part = chunk.subarray(from, end)
      const bytes = open.length > 0 ? Buffer.concat([...open, part]) : part
      if (bytes.length > longest) throw tooLong()
      if (!blank(bytes)) yield { bytes, start, line }
      start += bytes.length + 1
      from = end + 1
      line++
      open = []
      held = 0
    }
    if (from < chunk.length) open.push(chunk.subarray(from))
    held += chunk.length - from
    if (held > longest) throw tooLong()
  }
  const bytes = Buffer.concat(open)
  if (!blank(bytes)) yield { bytes, start, line }
}

const blank = (bytes: Buffer): boolean => bytes.every((byte) => byte === 32 || (byte >= 9 && byte <= 13))

/** Index the records of a file; with `check` only those that it can parse. */
async function indexOf(
  file: string,
  records: AsyncIterable<FileRecord>,
  check: { parse(bytes: Buffer, file: string, line: number): unknown; onBad(error: DataError): void } | undefined,
): Promise<JsonlIndex> {
  const facts = await stat(file).catch(refuseUnopened(file))
  const columns = [
    new Column<Float64Array>(Float64Array),
    new Column<Uint32Array>(Uint32Array),
    new Column<Uint32Array>(Uint32Array),
  ] as const
  let badRecords = 0
  for await (const { bytes, start, line } of records) {
    if (check) {
      try {
        check.parse(bytes, file, line)
      } catch (error) {
        if (!(error instanceof DataError)) throw error
        badRecords++
        check.onBad(error)
        continue
      }
    }
    columns[0].push(start)
    columns[1].push(bytes.length)
    columns[2].push(line)
  }
  const index = {
    size: facts.size,
    changed: facts.mtimeMs,
    badRecords,
    starts: columns[0].whole(),
    lengths: columns[1].whole(),
    lines: columns[2].whole(),
  }
  await requireUnchanged(file, await stat(file).catch(refuseUnopened(file)), index)
  return index
}

interface NumbersKind<A> {
  new (size: number): A
  new (buffer: SharedArrayBuffer): A
  BYTES_PER_ELEMENT: number
}

/** Growing array of numbers. */
class Column<A extends Float64Array | Uint32Array> {
  readonly #kind: NumbersKind<A>
  readonly #blocks: A[] = []
  #used = 0

  constructor(kind: unknown) {
    this.#kind = kind as NumbersKind<A>
  }

  push(value: number): void {
    if (this.#blocks.length === 0 || this.#used === 1 << 16) {
      const Kind = this.#kind
      this.#blocks.push(new Kind(1 << 16))
      this.#used = 0
    }
    this.#blocks.at(-1)![this.#used++] = value
  }

  whole(): A {
    const blocks = this.#blocks.map((block, i) =>
      i === this.#blocks.length - 1 ? block.subarray(0, this.#used) : block,
    )
    const length = blocks.reduce((sum, block) => sum + block.length, 0)
    const Kind = this.#kind
    const result = new Kind(new SharedArrayBuffer(length * Kind.BYTES_PER_ELEMENT))
    let start = 0
    for (const block of blocks) {
      result.set(block, start)
      start += block.length
    }
    return result
  }
}

class RecordReader {
  #handle: Promise<FileHandle> | undefined
  #readers = 0

  constructor(
    readonly file: string,
    readonly index: JsonlIndex,
    readonly parse: (bytes: Buffer, file: string, line: number) => unknown = jsonRecord,
  ) {}

  async get(i: number): Promise<unknown> {
    const { starts, lengths, lines } = this.index
    if (!Number.isInteger(i) || i < 0 || i >= starts.length) {
      throw new DataError(`${this.file}: expected an index from 0 to ${starts.length - 1}, got ${String(i)}`, {
        file: this.file,
        index: i,
      })
    }
    const bytes = Buffer.allocUnsafe(lengths[i] as number)
    const line = lines[i] as number
    await this.#opened(async (handle) => {
      let done = 0
      while (done < bytes.length) {
        const { bytesRead } = await handle.read(bytes, done, bytes.length - done, (starts[i] as number) + done)
        if (bytesRead === 0) throw changed(this.file)
        done += bytesRead
      }
    })
    return this.parse(bytes, this.file, line)
  }

  /** Open the file for a read. Concurrent reads use one handle, which the last one closes. */
  async #opened(read: (handle: FileHandle) => Promise<void>): Promise<void> {
    this.#readers++
    this.#handle ??= this.#open()
    const opening = this.#handle
    try {
      await read(await opening)
    } catch (cause) {
      if (cause instanceof DataError) throw cause
      throw new DataError(`${this.file} cannot be read: ${(cause as Error).message}`, {
        file: this.file,
        cause,
      })
    } finally {
      if (--this.#readers === 0) {
        this.#handle = undefined
        await opening.then((handle) => handle.close()).catch(() => {})
      }
    }
  }

  async #open(): Promise<FileHandle> {
    const handle = await open(this.file, 'r').catch(refuseUnopened(this.file))
    try {
      await requireUnchanged(this.file, await handle.stat(), this.index)
      return handle
    } catch (error) {
      await handle.close()
      throw error
    }
  }
}

const refuseUnopened = (file: string) => (cause: Error) => {
  throw new DataError(`${file} cannot be opened: ${unopened(file, cause)}`, { file, cause })
}

const changed = (file: string): DataError =>
  new DataError(`${file}: expected the file that was indexed, got a changed one. Open the dataset again`, { file })

async function requireUnchanged(
  file: string,
  facts: { size: number; mtimeMs: number },
  index: Pick<JsonlIndex, 'size' | 'changed'>,
): Promise<void> {
  if (facts.size !== index.size || facts.mtimeMs !== index.changed) throw changed(file)
}

function checkedIndex(index: JsonlIndex): JsonlIndex {
  requireObject('jsonlDataset', 'index', index)
  const { starts, lengths, lines } = index
  const whole =
    starts instanceof Float64Array &&
    lengths instanceof Uint32Array &&
    lines instanceof Uint32Array &&
    starts.length === lengths.length &&
    starts.length === lines.length &&
    starts.every((start, i) => start >= 0 && start + (lengths[i] as number) <= index.size)
  if (!whole) throw new ConfigError('jsonlDataset: expected index to be the index of another JsonlDataset', {})
  return index
}
