import { DataError } from '../base/errors.js'
import { didYouMean } from '../base/words.js'
import { jsonRecord, linesOf } from '../data/jsonl-dataset.js'
import { unpackedStream } from '../files/archive.js'
import { FileSource, quoted } from '../files/byte-source.js'
import { elementsOf } from '../files/json/elements.js'
import { parseJson } from '../files/json/json.js'
import { ParquetFile } from '../files/parquet/file.js'
import { type ArchiveEntry, readTar } from '../files/tar.js'
import { chunksOf, LONGEST_LINE, utf8 } from '../files/text.js'

/** A record, or the error of one that cannot be read while those after it can. */
export interface FileItem {
  readonly record?: Record<string, unknown>
  readonly error?: DataError
  /** Fields of an error about the record: its row, line or key. */
  readonly place: Record<string, unknown>
}

/** Records of one file, numbered from 0. */
export interface RecordFile {
  readonly file: string
  /** Return the number of records if it is known without reading them. */
  count(): Promise<number | undefined>
  /**
   * Yield the wanted records from number `from` on, and return the number of all.
   * @param wants called once for each number, in order
   */
  records(from: number, wants: (record: number) => boolean): AsyncGenerator<FileItem, number, void>
}

/** Return the reader of a file by its extension; undefined for another one. */
export function recordFile(file: string, columns: readonly string[] | undefined): RecordFile | undefined {
  const name = file.toLowerCase()
  if (name.endsWith('.parquet')) return parquetRecords(file, columns)
  if (name.endsWith('.jsonl') || name.endsWith('.ndjson')) return jsonRecords(file, false, columns)
  if (name.endsWith('.json')) return jsonRecords(file, undefined, columns)
  if (name.endsWith('.tar') || name.endsWith('.tar.gz') || name.endsWith('.tgz')) return tarRecords(file, columns)
  return undefined
}

function parquetRecords(file: string, columns: readonly string[] | undefined): RecordFile {
  let rows: number | undefined
  return {
    file,
    async count() {
      if (rows === undefined) {
        const open = await ParquetFile.open(file)
        rows = open.rows
        await open.close()
      }
      return rows
    },
    async *records(from, wants) {
      const open = await ParquetFile.open(file)
      try {
        rows = open.rows
        for await (const { row, record, error } of open.read({ columns, from, wants })) {
          yield { place: { row }, ...(record && { record }), ...(error && { error }) }
        }
        return rows
      } finally {
        await open.close()
      }
    },
  }
}

function jsonRecords(file: string, array: boolean | undefined, columns: readonly string[] | undefined): RecordFile {
  return {
    file,
    count: async () => undefined,
    async *records(from, wants) {
      const isArray = array ?? (await beginsArray(file))
      const items = isArray ? elementsOf(chunksOf(file), file, LONGEST_LINE) : linesOf(file, LONGEST_LINE)
      let number = 0
      for await (const { bytes, line } of items) {
        const own = number++
        if (own < from || !wants(own)) continue
        yield parsed(
          () => {
            const record = jsonRecord(bytes, file, line)
            if (typeof record !== 'object' || record === null || Array.isArray(record)) {
              throw new DataError(`${file}: line ${line}: expected an object, got another value`, { file, line })
            }
            return selected(record as Record<string, unknown>, columns, `${file}: line ${line}`, { file, line })
          },
          { line },
        )
      }
      return number
    },
  }
}

async function beginsArray(file: string): Promise<boolean> {
  for await (const chunk of chunksOf(file)) {
    const first = chunk.find((byte) => byte !== 32 && !(byte >= 9 && byte <= 13) && ![0xef, 0xbb, 0xbf].includes(byte))
    if (first !== undefined) return first === 0x5b
  }
  return false
}

function parsed(read: () => Record<string, unknown>, place: Record<string, unknown>): FileItem {
  try {
    return { record: read(), place }
  } catch (error) {
    if (!(error instanceof DataError)) throw error
    return { error, place }
  }
}

function selected(
  record: Record<string, unknown>,
  columns: readonly string[] | undefined,
  where: string,
  place: Record<string, unknown>,
): Record<string, unknown> {
  if (columns === undefined) return record
  return Object.fromEntries(
    columns.map((name) => {
      if (Object.hasOwn(record, name)) return [name, record[name]]
      const names = Object.keys(record)
      throw new DataError(
        `${where}: expected a field ${quoted(name)}, got ${names.slice(0, 20).map(quoted).join(', ')}${didYouMean(name, names)}`,
        { ...place, column: name },
      )
    }),
  )
}

const AUDIO = ['wav', 'flac', 'mp3', 'ogg', 'opus', 'm4a', 'aac', 'webm', 'mka', 'aiff', 'au', 'caf', 'w64']
const IMAGES = ['jpg', 'jpeg', 'png', 'webp', 'gif', 'tiff', 'tif', 'avif', 'bmp', 'ppm', 'pgm']
const TEXTS = ['txt', 'text', 'transcript', 'cap', 'lab', 'normalized']
const NUMBERS = ['cls', 'cls2', 'class', 'count', 'index', 'inx', 'id']
/** Limits of one record: files, and bytes. */
const MOST_MEMBERS = 1000
const MOST_BYTES = 2 ** 30
const LONGEST_TEXT = 2 ** 26

/**
 * Records of a tar file in WebDataset's layout (https://github.com/webdataset/webdataset): files that follow each other and
 * have the same path up to the first dot of their name are one record, with a field for each extension.
 */
function tarRecords(file: string, columns: readonly string[] | undefined): RecordFile {
  return {
    file,
    count: async () => undefined,
    async *records(from, wants) {
      const source = await FileSource.open(file, DataError)
      try {
        let number = -1
        let key: string | undefined
        let open: TarRecord | undefined
        for await (const entry of readTar(await unpackedStream(source), source.place)) {
          const name = nameOf(entry)
          // WebDataset leaves out files without an extension, such as .DS_Store and README.
          if (name === undefined) continue
          if (name.key !== key) {
            if (open !== undefined) yield open.finished(columns)
            number++
            key = name.key
            open = number >= from && wants(number) ? new TarRecord(file, key) : undefined
          }
          await open?.add(entry, name.extension)
        }
        if (open !== undefined) yield open.finished(columns)
        return number + 1
      } finally {
        await source.close()
      }
    },
  }
}

function nameOf({ name }: ArchiveEntry): { key: string; extension: string } | undefined {
  const begin = name.lastIndexOf('/') + 1
  const dot = name.indexOf('.', begin)
  if (dot <= begin || dot === name.length - 1) return undefined
  return { key: name.slice(0, dot).replace(/^\.\//, ''), extension: name.slice(dot + 1).toLowerCase() }
}

class TarRecord {
  readonly #record: Record<string, unknown> = {}
  #error: DataError | undefined
  #members = 0
  #bytes = 0

  constructor(
    readonly file: string,
    readonly key: string,
  ) {
    this.#record.__key__ = key
    this.#record.__url__ = file
  }

  async add(entry: ArchiveEntry, extension: string): Promise<void> {
    const { file, key } = this
    const fail = (what: string): void => {
      this.#error ??= new DataError(`${file}: record ${quoted(key)}: ${what}`, { file, key, entry: entry.name })
    }
    this.#members++
    this.#bytes += entry.size
    if (this.#members > MOST_MEMBERS) return fail(`expected at most ${MOST_MEMBERS} files, got more`)
    if (this.#bytes > MOST_BYTES) return fail(`expected at most ${MOST_BYTES} bytes, got more`)
    if (extension === '__proto__' || Object.hasOwn(this.#record, extension)) {
      return fail(`two files have the extension ${quoted(extension)}`)
    }
    // The last part of `seg.json` or `left.wav` is the format.
    const format = extension.slice(extension.lastIndexOf('.') + 1)
    const isText = format === 'json' || TEXTS.includes(format) || NUMBERS.includes(format)
    if (isText && entry.size > LONGEST_TEXT)
      return fail(`expected at most ${LONGEST_TEXT} bytes of text, got ${entry.size}`)
    const bytes = await entry.bytes(MOST_BYTES)
    try {
      this.#record[extension] = await memberValue(bytes, format, entry.name, file)
    } catch (error) {
      if (!(error instanceof DataError)) throw error
      fail(error.message)
    }
  }

  finished(columns: readonly string[] | undefined): FileItem {
    const place = { key: this.key }
    if (this.#error !== undefined) return { error: this.#error, place }
    const where = `${this.file}: record ${quoted(this.key)}`
    return parsed(() => selected(this.#record, columns, where, { file: this.file, ...place }), place)
  }
}

async function memberValue(bytes: Uint8Array, format: string, name: string, file: string): Promise<unknown> {
  if (format === 'json') return parseJson([bytes], `${file}, entry ${quoted(name)}`)
  if (TEXTS.includes(format)) return utf8(bytes, name)
  if (NUMBERS.includes(format)) {
    const text = utf8(bytes, name).trim()
    const value = /^-?\d{1,16}$/.test(text) ? Number(text) : Number.NaN
    if (Number.isSafeInteger(value)) return value
    throw new DataError(`${name}: expected an integer, got ${quoted(text)}`)
  }
  return AUDIO.includes(format) || IMAGES.includes(format) ? { bytes, path: name } : bytes
}
