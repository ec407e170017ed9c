import { type FileHandle, open, stat } from 'node:fs/promises'
import { misuse, requireObject, requireOneOf, requireOptions, requireString, requireWhole } from '../base/check.js'
import { ConfigError, DataError } from '../base/errors.js'
import { elementsOf, type FileRecord } from '../files/json/elements.js'
import { jsonValue, refuseTooMuch } from '../files/json/json.js'
import { JsonScan } from '../files/json/scan.js'
import { chunksOf, faultIn, LONGEST_LINE, utf8, withoutMark } from '../files/text.js'
import { BadRecord, type Dataset, type IterableDataset, type StreamContext } from './dataset.js'

export interface JsonlDatasetOptions {
  /**
   * What a line that is no JSON does: 'stop' (default) throws when it is read; 'skip' leaves it out and counts it. To know
   * its length, a dataset with random access then reads every line once when it is opened.
   */
  onBadRecord?: 'stop' | 'skip'
  /** Longest line in bytes. Default 64 MiB; JavaScript holds no text of more than 511. */
  maxLineBytes?: number
}

/** Where the records of a file begin and how long they are. Shared memory: a worker gets it without a copy. */
export interface JsonlIndex {
  /** Size and time of change of the file when it was indexed. */
  readonly size: number
  readonly changed: number
  readonly badRecords: number
  /** For each record its first byte, its length in bytes and its line. */
  readonly starts: Float64Array
  readonly lengths: Uint32Array
  readonly lines: Uint32Array
}

/** One JSON value per line, by index, from a file that may be larger than memory. Made by `jsonlDataset`. */
export interface JsonlDataset<T> extends Dataset<T> {
  readonly file: string
  /** For other datasets over the same file, as in a loader's `workerData`. */
  readonly index: JsonlIndex
  /** Lines left out by `onBadRecord: 'skip'`, and the errors of the first hundred. */
  readonly badRecords: number
  readonly badRecordErrors: readonly DataError[]
  get(index: number, epoch?: number): Promise<T>
}

/**
 * Opens a file of one JSON value per line for reading in any order. The file is gone through once to find its lines,
 * unless `index` holds them; 16 bytes of memory for each are kept. Blank lines do not count. The file is open only while
 * samples are read.
 *
 * @throws DataError when the file cannot be read, a line is too long, or `index` is of another state of the file. `get`
 * throws it, with `file` and `line`, for a line that is no JSON, and when the file has changed
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
  if (options.index) await requireUnchanged(file, await stat(file).catch(unopened(file)), index)
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
 * The same for lines that are no JSON: `parse` makes a sample of the text of one. Blank lines do not count.
 * @throws DataError as `jsonlDataset`, and what `parse` throws when a line is read. @internal
 */
export const lineDataset = <T>(
  file: string,
  parse: (text: string, file: string, line: number) => T,
): Promise<Dataset<T>> =>
  recordDataset(file, { parse: (bytes, path, line) => parse(utf8(bytes, path, line), path, line) })

/** How records of a file are read. @internal */
export interface RecordOptions<T> {
  /** The file is one JSON array, whose values are the records. Default: each line that is not blank is one. */
  isArray?: boolean
  parse(bytes: Buffer, file: string, line: number): T
  /** Hears of each record that `parse` throws a DataError for, which is left out; each is parsed for that when the file is opened. */
  onBad?: (error: DataError) => void
  /** Of a record. Default: as many as JavaScript holds in a text. */
  maxBytes?: number
}

/**
 * Records of a file by index, from a file that may be larger than memory; see {@link jsonlDataset}.
 * @throws DataError as `jsonlDataset`, for a file that is no array where `isArray` says so, and what `parse` throws. @internal
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

/** The value of a record in JSON. @internal */
export function jsonRecord(bytes: Buffer, file: string, line: number): unknown {
  const text = utf8(bytes, file, line)
  const scan = new JsonScan()
  const deep = scan.push(bytes) >= 0
  refuseTooMuch(scan, file, line)
  return jsonValue(text, deep || scan.wide, file, line)
}

/**
 * The values of a JSON Lines file one after the other, for a `DataLoader` or `for await (… of stream.iterate())`. Of
 * several workers each parses its own lines only. With `onBadRecord: 'skip'` bad lines are passed over: the loader counts
 * them in its `badRecords`, and the stream itself in its own of what it read in this thread.
 */
export interface JsonlStream<T> extends IterableDataset<T> {
  readonly file: string
  readonly badRecords: number
  iterate(context?: StreamContext): AsyncGenerator<T, void, void>
}

/** Memory holds a few hundred kilobytes and the longest line. Blank lines do not count. */
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
        // In its place, so that the shares of several readers still fit together.
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
  if (maxLineBytes > 2 ** 31 - 1) throw misuse(where, 'maxLineBytes', 'at most 2^31 - 1', maxLineBytes)
  return { skip: onBadRecord === 'skip', maxLineBytes: Math.min(maxLineBytes, LONGEST_LINE) }
}

/** Lines that are not blank. */
async function* linesOf(file: string, longest: number): AsyncGenerator<FileRecord, void, void> {
  let open: Buffer[] = []
  let held = 0
  let start = 0
  let line = 1
  let first = true
  const tooLong = () => faultIn(file, `the line has more than ${longest} bytes; maxLineBytes sets the limit`, { line })
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

/** Where records are; with `check` those that it can parse. */
async function indexOf(
  file: string,
  records: AsyncIterable<FileRecord>,
  check: { parse(bytes: Buffer, file: string, line: number): unknown; onBad(error: DataError): void } | undefined,
): Promise<JsonlIndex> {
  const facts = await stat(file).catch(unopened(file))
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
  await requireUnchanged(file, await stat(file).catch(unopened(file)), index)
  return index
}

interface NumbersKind<A> {
  new (size: number): A
  new (buffer: SharedArrayBuffer): A
  BYTES_PER_ELEMENT: number
}

/** Numbers of which it is not known how many there will be. */
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
      throw new DataError(`${this.file}: there are ${starts.length} records, and none has the index ${String(i)}`, {
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

  /** Reads that are under way together share one handle, which the last one closes. */
  async #opened(read: (handle: FileHandle) => Promise<void>): Promise<void> {
    this.#readers++
    this.#handle ??= this.#open()
    const opening = this.#handle
    try {
      await read(await opening)
    } catch (cause) {
      if (cause instanceof DataError) throw cause
      throw new DataError(`${this.file} cannot be read: ${(cause as Error).message}`, { file: this.file, cause })
    } finally {
      if (--this.#readers === 0) {
        this.#handle = undefined
        await opening.then((handle) => handle.close()).catch(() => {})
      }
    }
  }

  async #open(): Promise<FileHandle> {
    const handle = await open(this.file, 'r').catch(unopened(this.file))
    try {
      await requireUnchanged(this.file, await handle.stat(), this.index)
      return handle
    } catch (error) {
      await handle.close()
      throw error
    }
  }
}

const unopened = (file: string) => (cause: Error) => {
  throw new DataError(`${file} cannot be opened: ${cause.message}`, { file, cause })
}

const changed = (file: string): DataError =>
  new DataError(`${file} has changed since its lines were indexed: open the dataset again`, { file })

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
  if (!whole) throw new ConfigError('jsonlDataset: index is not what another JsonlDataset has as its index', {})
  return index
}
