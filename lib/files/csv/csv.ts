import { argumentError, requireOneOf, requireOptions, requireString, requireWhole } from '../../base/check.js'
import { DataError } from '../../base/errors.js'
import { heapHolds, listMayGrow, tooMuch } from '../../base/heap.js'
import { nearest } from '../../base/words.js'
import { quoted } from '../byte-source.js'
import { type Chunks, chunksOf, faultIn } from '../text.js'
import { type CsvFields, CsvRows, type RowSettings } from './rows.js'
import { type CsvEncoding, csvText, encodings } from './text.js'

export interface ReadCsvOptions {
  /**
   * `'utf-8'` (default) rejects invalid bytes. `'windows-1252'` is the encoding of old Excel and web pages. `'mixed'` is UTF-8
   * in which every invalid byte is read as windows-1252, for files pasted together from both. A byte order mark of UTF-8 or
   * UTF-16 takes precedence and is removed.
   */
  encoding?: CsvEncoding
  /** Delimiter, one character. Default `','`; use `'\t'` for tab-separated tables. */
  delimiter?: string
  /** Names of the columns, for a file without a header row. */
  columns?: readonly string[]
  /**
   * Read misplaced quotation marks like Python's csv: in a field that does not begin with one they are characters (`5" disk`),
   * and text after a quoted part belongs to the field. Default false: they are errors.
   */
  relaxQuotes?: boolean
  /** Maximum row length in UTF-16 units. Default 2^20, so that an unclosed quotation mark is detected early. */
  maxRowLength?: number
}

/**
 * One row: the field of each column, always a string. Reading an unknown column throws a DataError with the nearest name;
 * `'start' in row` tests for a column.
 */
export type CsvRow = Record<string, string>

/**
 * Read a whole CSV file (RFC 4180) into rows named by its header. Quoted fields may contain delimiters, quotation marks and
 * line breaks; lines may end in any of the three ways; blank lines are skipped. Nothing is trimmed or converted: `''` is an
 * empty field.
 *
 * @throws DataError with `file` and the `line` on which the row begins: for a row with more or fewer fields than columns, a
 *   misplaced or unclosed quotation mark, bytes that are invalid in the encoding, NUL, or duplicate column names
 */
export async function readCsv(path: string, options: ReadCsvOptions = {}): Promise<CsvRow[]> {
  requireString('readCsv', 'path', path)
  const all: CsvRow[] = []
  for await (const rows of batches(chunksOf(path), path, checked(options))) {
    if (!heapHolds()) throw faultIn(path, `${tooMuch()}; readCsvStream reads files of any size`)
    for (const row of rows) {
      if (!listMayGrow(all.length)) throw faultIn(path, `${tooMuch()}; readCsvStream reads files of any size`)
      all.push(row)
    }
  }
  return all
}

/**
 * Iterate over the rows of `readCsv`, for files of any size: uses a few megabytes of memory and the longest row. Leaving the
 * loop closes the file.
 * @throws DataError as `readCsv`, when the loop reaches the fault
 */
export function readCsvStream(path: string, options: ReadCsvOptions = {}): AsyncIterableIterator<CsvRow> {
  requireString('readCsv', 'path', path)
  return parseCsv(chunksOf(path), path, options)
}

/** Parse the rows of CSV that arrives in pieces. Errors name `file`. */
export function parseCsv(chunks: Chunks, file: string, options: ReadCsvOptions = {}): AsyncIterableIterator<CsvRow> {
  const settings = checked(options)
  return (async function* () {
    for await (const rows of batches(chunks, file, settings)) yield* rows
  })()
}

type Settings = Omit<RowSettings, 'file'> & { encoding: CsvEncoding; columns: readonly string[] | undefined }

function checked(options: ReadCsvOptions): Settings {
  requireOptions('readCsv', options, ['encoding', 'delimiter', 'columns', 'relaxQuotes', 'maxRowLength'])
  const { encoding = 'utf-8', delimiter = ',', columns, relaxQuotes = false, maxRowLength = 1 << 20 } = options
  requireOneOf('readCsv', 'encoding', encoding, encodings)
  if (typeof delimiter !== 'string' || delimiter.length !== 1 || /["\r\n\0]/.test(delimiter)) {
    throw argumentError(
      'readCsv',
      'delimiter',
      'one character that is neither a quotation mark nor a line break',
      delimiter,
    )
  }
  if (columns !== undefined) {
    if (!Array.isArray(columns) || columns.length === 0 || columns.some((name) => typeof name !== 'string')) {
      throw argumentError('readCsv', 'columns', 'a list of names', columns)
    }
    if (twice(columns) !== undefined) throw argumentError('readCsv', 'columns', 'a list of different names', columns)
  }
  if (typeof relaxQuotes !== 'boolean') throw argumentError('readCsv', 'relaxQuotes', 'a boolean', relaxQuotes)
  requireWhole('readCsv', 'maxRowLength', maxRowLength, 1)
  return { encoding, delimiter, columns, relaxQuotes, maxRowLength }
}

/** Yield the rows that each piece of the file completes. */
async function* batches(chunks: Chunks, file: string, settings: Settings): AsyncGenerator<CsvRow[], void, void> {
  const reader = new CsvRows({ file, ...settings })
  let named = settings.columns === undefined ? undefined : naming(settings.columns, file)
  const take = (found: CsvFields[]): CsvRow[] => {
    if (named !== undefined) return found.map(named)
    const [header, ...rest] = found
    if (header === undefined) return []
    named = naming(columnsOf(header, file), file)
    return rest.map(named)
  }
  for await (const text of csvText(chunks, file, settings.encoding)) yield take(reader.push(text))
  yield take(reader.push('', true))
  if (named === undefined) throw faultIn(file, 'expected a header, got an empty file', { line: 1 })
}

function columnsOf({ fields, line }: CsvFields, file: string): string[] {
  const name = twice(fields)
  if (name !== undefined)
    throw faultIn(file, `expected different column names, got ${quoted(name)} twice. Rename one`, { line })
  return fields
}

function twice(names: readonly string[]): string | undefined {
  const seen = new Set<string>()
  return names.find((name) => seen.size === seen.add(name).size)
}

/** Return a function that builds a row from its fields. */
function naming(columns: readonly string[], file: string): (fields: CsvFields) => CsvRow {
  // A plain assignment of __proto__ would be lost.
  const special = columns.includes('__proto__')
  const strict = refusing(columns, file)
  return ({ fields, line }) => {
    if (fields.length !== columns.length) {
      throw faultIn(file, `expected ${columns.length} fields, as in the header, got ${fields.length}`, { line })
    }
    if (special) return Object.setPrototypeOf(Object.fromEntries(columns.map((name, i) => [name, fields[i]!])), strict)
    const row: CsvRow = {}
    for (let i = 0; i < columns.length; i++) row[columns[i]!] = fields[i]!
    // Set the prototype last: writing to an object with a proxy as prototype is slow, and reading is as fast as otherwise.
    return Object.setPrototypeOf(row, strict)
  }
}

/** Properties that `await`, JSON.stringify and tools that print and compare values read from any object. */
const ASKED = /^(?:then|toJSON|nodeType|tagName|asymmetricMatch|_isMockFunction|\$\$.*|@@.*)$/

/** Return the prototype of rows, which is reached only for a missing column, and throws. */
function refusing(columns: readonly string[], file: string): object {
  return new Proxy(
    {},
    {
      get(target, name, row) {
        if (typeof name === 'symbol' || name in target || ASKED.test(name)) return Reflect.get(target, name, row)
        const meant = nearest(name, columns)
        const shown = columns
          .slice(0, 20)
          .map((column) => column.slice(0, 100))
          .join(', ')
        throw new DataError(
          `${file}: expected a column of the file, got ${quoted(name)}; ${meant === undefined ? `its columns are ${shown}` : `did you mean ${quoted(meant)}?`}`,
          { file, column: name },
        )
      },
    },
  )
}
