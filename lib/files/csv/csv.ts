import { misuse, requireOneOf, requireOptions, requireString, requireWhole } from '../../base/check.js'
import { DataError } from '../../base/errors.js'
import { heapHolds, listMayGrow, tooMuch } from '../../base/heap.js'
import { nearest } from '../../base/words.js'
import { quoted } from '../byte-source.js'
import { type Chunks, chunksOf, faultIn } from '../text.js'
import { type CsvFields, CsvRows, type RowSettings } from './rows.js'
import { type CsvEncoding, csvText, encodings } from './text.js'

export interface ReadCsvOptions {
  /**
   * `'utf-8'` (default) refuses any other byte. `'windows-1252'` is what old Excel and web pages wrote. `'mixed'` is
   * UTF-8 in which every byte that cannot be is read as windows-1252, for files pasted together from both. A byte order
   * mark of UTF-8 or UTF-16 is obeyed and removed whatever stands here.
   */
  encoding?: CsvEncoding
  /** One character. Default `','`; tables with tabs take `'\t'`. */
  delimiter?: string
  /** Names of the columns, for a file whose first row is data already. */
  columns?: readonly string[]
  /**
   * Reads quotation marks out of place as Python's csv does: in a field that does not begin with one they are
   * characters (`5" disk`), and what follows a quoted part belongs to the field. Default false: they are errors.
   */
  relaxQuotes?: boolean
  /** Longest row in UTF-16 units. Default 2^20: a quotation mark that is never closed is found out soon. */
  maxRowLength?: number
}

/**
 * One row: the field of each column, always a string. To ask for a column that is not there throws a DataError with the
 * nearest name; `'start' in row` says whether it is.
 */
export type CsvRow = Record<string, string>

/**
 * Reads a whole CSV file (RFC 4180) into rows named by its header. Fields may hold delimiters, quotation marks and line
 * breaks when they are quoted; lines may end in any of the three ways; blank lines are passed over. Nothing is trimmed
 * and nothing is converted: `''` is an empty field.
 *
 * @throws DataError with `file` and the `line` on which the row begins: a row with more or fewer fields than there are
 * columns, a quotation mark out of place or not closed, bytes that are not of the encoding, NUL, two columns of one name
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
 * The rows of `readCsv` one by one, for files of any size: memory holds a few megabytes and the longest row. Leaving the
 * loop closes the file.
 * @throws DataError as `readCsv` does, when the loop gets there
 */
export function readCsvStream(path: string, options: ReadCsvOptions = {}): AsyncIterableIterator<CsvRow> {
  requireString('readCsv', 'path', path)
  return parseCsv(chunksOf(path), path, options)
}

/** The rows of CSV that comes in pieces. `file` is what errors call it. */
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
    throw misuse('readCsv', 'delimiter', 'one character that is neither a quotation mark nor a line break', delimiter)
  }
  if (columns !== undefined) {
    if (!Array.isArray(columns) || columns.length === 0 || columns.some((name) => typeof name !== 'string')) {
      throw misuse('readCsv', 'columns', 'a list of names', columns)
    }
    if (twice(columns) !== undefined) throw misuse('readCsv', 'columns', 'a list of different names', columns)
  }
  if (typeof relaxQuotes !== 'boolean') throw misuse('readCsv', 'relaxQuotes', 'a boolean', relaxQuotes)
  requireWhole('readCsv', 'maxRowLength', maxRowLength, 1)
  return { encoding, delimiter, columns, relaxQuotes, maxRowLength }
}

/** The rows that each piece of the file completes. */
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
  if (named === undefined) throw faultIn(file, 'the file is empty; not even a header is there', { line: 1 })
}

function columnsOf({ fields, line }: CsvFields, file: string): string[] {
  const name = twice(fields)
  if (name !== undefined) throw faultIn(file, `two columns are called ${quoted(name)}; rename one`, { line })
  return fields
}

function twice(names: readonly string[]): string | undefined {
  const seen = new Set<string>()
  return names.find((name) => seen.size === seen.add(name).size)
}

/** Makes a row of its fields. */
function naming(columns: readonly string[], file: string): (fields: CsvFields) => CsvRow {
  // A plain assignment of __proto__ would be lost.
  const special = columns.includes('__proto__')
  const strict = refusing(columns, file)
  return ({ fields, line }) => {
    if (fields.length !== columns.length) {
      throw faultIn(file, `the row has ${fields.length} fields, the header ${columns.length}`, { line })
    }
    if (special) return Object.setPrototypeOf(Object.fromEntries(columns.map((name, i) => [name, fields[i]!])), strict)
    const row: CsvRow = {}
    for (let i = 0; i < columns.length; i++) row[columns[i]!] = fields[i]!
    // Last: what stands on a proxy is slow to write to, and as quick to read as any.
    return Object.setPrototypeOf(row, strict)
  }
}

/** What `await`, JSON.stringify and the tools that print and compare values ask any object for. */
const ASKED = /^(?:then|toJSON|nodeType|tagName|asymmetricMatch|_isMockFunction|\$\$.*|@@.*)$/

/** The prototype of rows: whoever asks a row for a column gets that far only where there is none. */
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
          `${file} has no column ${quoted(name)}; ${meant === undefined ? `it has ${shown}` : `did you mean ${quoted(meant)}?`}`,
          { file, column: name },
        )
      },
    },
  )
}
