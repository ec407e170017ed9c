// Not csv-parse 7.0.3: it uses 840 MB for a row of 50 million fields, reports where a row ends instead of where it begins, and
// reads "x"y differently from Python.
import { faultIn } from '../text.js'

export interface RowSettings {
  file: string
  delimiter: string
  relaxQuotes: boolean
  maxRowLength: number
}

/** Fields of one row, and the line on which it begins. */
export interface CsvFields {
  fields: string[]
  line: number
}

/** Splits CSV text that arrives in pieces into rows. */
export class CsvRows {
  readonly #settings: RowSettings
  readonly #delimiter: number
  /** Text that was not split yet, beginning with a row. */
  #text = ''
  #line = 1
  /** An incomplete row is parsed again only when its text has doubled. */
  #enough = 0

  constructor(settings: RowSettings) {
    this.#settings = settings
    this.#delimiter = settings.delimiter.charCodeAt(0)
  }

  /**
   * Return the rows that end in the text so far; blank lines are left out.
   * @param last whether this is the end of the text
   */
  push(piece: string, last = false): CsvFields[] {
    this.#text += piece
    const rows: CsvFields[] = []
    if (this.#text.length < this.#enough && !last) return rows
    let at = 0
    while (at < this.#text.length) {
      const row = this.#row(at, last)
      if (row === undefined) break
      if (row.fields.length > 1 || row.end > at + row.ending) rows.push({ fields: row.fields, line: this.#line })
      this.#line += row.lines
      at = row.end
    }
    this.#text = this.#text.slice(at)
    this.#enough = Math.min(2 * this.#text.length, this.#settings.maxRowLength)
    return rows
  }

  /** Parse the row that begins at `at`; undefined if its end has not arrived yet. */
  #row(at: number, last: boolean): { fields: string[]; end: number; ending: number; lines: number } | undefined {
    const text = this.#text
    const { maxRowLength, relaxQuotes } = this.#settings
    const limit = at + maxRowLength
    const fields: string[] = []
    let lines = 1
    for (let i = at; ; i++) {
      let field: string | undefined
      let start = i
      if (text.charCodeAt(i) === QUOTE) {
        const quoted = this.#quoted(i, last, limit)
        if (quoted === undefined) return undefined
        field = quoted.field
        start = i = quoted.end
        lines += quoted.lines
      }
      let code = text.charCodeAt(i)
      while (i < text.length && code !== this.#delimiter && code !== LF && code !== CR) {
        if (!relaxQuotes && (code === QUOTE || field !== undefined)) {
          this.#fail(
            'expected quotation marks only around a field, got one inside. Double it, or read with relaxQuotes: true',
          )
        }
        code = text.charCodeAt(++i)
      }
      if (i > limit) this.#tooLong()
      const ended = i >= text.length
      // The line feed after a carriage return may not have arrived yet.
      if ((ended || (code === CR && i + 1 === text.length)) && !last) return undefined
      fields.push((field ?? '') + text.slice(start, i))
      if (code === this.#delimiter && !ended) continue
      const ending = ended ? 0 : code === CR && text.charCodeAt(i + 1) === LF ? 2 : 1
      return { fields, end: i + ending, ending, lines }
    }
  }

  /** Parse the quoted part that begins at `at`; undefined if its end has not arrived yet. */
  #quoted(at: number, last: boolean, limit: number): { field: string; end: number; lines: number } | undefined {
    const text = this.#text
    let field = ''
    let from = at + 1
    for (;;) {
      const quote = text.indexOf('"', from)
      if (quote > limit || (quote < 0 && text.length > limit)) this.#tooLong()
      if (quote < 0 && last) this.#fail('expected a closing quotation mark in this row or below, got none')
      // The mark may be the first of a doubled one.
      if (quote < 0 || (quote + 1 === text.length && !last)) return undefined
      const doubled = text.charCodeAt(quote + 1) === QUOTE
      field += text.slice(from, doubled ? quote + 1 : quote)
      from = quote + 2
      if (!doubled) return { field, end: quote + 1, lines: field.match(/\r\n|\n|\r/g)?.length ?? 0 }
    }
  }

  #tooLong(): never {
    const { maxRowLength } = this.#settings
    return this.#fail(
      `expected a row of at most ${maxRowLength} characters, got a longer one. Look for an unclosed quotation mark, or raise maxRowLength`,
    )
  }

  #fail(what: string): never {
    throw faultIn(this.#settings.file, what, { line: this.#line })
  }
}

const QUOTE = 0x22
const LF = 0x0a
const CR = 0x0d
