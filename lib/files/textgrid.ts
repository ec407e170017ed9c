import { writeAtomically } from '../base/atomic.js'
import { requireObject, requireOneOf, requireOptions, requireString } from '../base/check.js'
import { DataError } from '../base/errors.js'
import { LONGEST_STRING } from '../base/heap.js'
import { asBuffer, chunksOf, countLines, faultIn, isUtf16, utf8, withoutMark } from './text.js'

/** An interval of a tier, in seconds. */
export interface TextGridInterval {
  minTime: number
  maxTime: number
  /** Text; empty for a pause. */
  text: string
}

/** A point of a tier, in seconds. */
export interface TextGridPoint {
  time: number
  text: string
}

export type TextGridTier =
  | { kind: 'interval'; name: string; minTime: number; maxTime: number; intervals: TextGridInterval[] }
  | { kind: 'point'; name: string; minTime: number; maxTime: number; points: TextGridPoint[] }

/** Time-aligned transcript of Praat and forced aligners. */
export interface TextGrid {
  minTime: number
  maxTime: number
  /** Tiers in the order of the file; names may repeat. */
  tiers: TextGridTier[]
}

export interface ReadTextGridOptions {
  /**
   * Handling of gaps between intervals: 'refuse' (default) throws, 'keep' leaves them, 'fill' inserts an empty interval. Also
   * applies at the beginning and the end of a tier.
   */
  gaps?: 'refuse' | 'keep' | 'fill'
}

/**
 * Read a TextGrid of Praat (https://www.fon.hum.uva.nl/praat/manual/TextGrid_file_formats.html), as the Montreal Forced Aligner
 * writes it: the long and the short text form, in UTF-8 or in UTF-16 with a byte order mark.
 *
 * ```ts
 * const words = (await readTextGrid('84_121123_000007.TextGrid')).tiers.find(({ name }) => name === 'words')
 * ```
 * @throws DataError with `file` and `line` for a file that is not a complete TextGrid, for intervals that overlap, have no
 *   length or leave their tier, and for gaps between them unless `gaps` allows them
 */
export async function readTextGrid(path: string, options: ReadTextGridOptions = {}): Promise<TextGrid> {
  requireString('readTextGrid', 'path', path)
  const parts: Buffer[] = []
  for await (const part of chunksOf(path, MOST_BYTES)) parts.push(part)
  return parseTextGrid(Buffer.concat(parts), path, options)
}

/** Parse a TextGrid from the bytes of its file; errors name `file`. @internal */
export function parseTextGrid(bytes: Uint8Array, file: string, options: ReadTextGridOptions = {}): TextGrid {
  requireOptions('readTextGrid', options, ['gaps'])
  const { gaps = 'refuse' } = options
  requireOneOf('readTextGrid', 'gaps', gaps, ['refuse', 'keep', 'fill'])
  return new TextGridReader(new Words(textOf(bytes, file), file), gaps).read()
}

/**
 * Write a TextGrid in the long text form and UTF-8, which Praat, the Montreal Forced Aligner and `readTextGrid` read.
 * @throws DataError for times that are not numbers or not ascending, and if the file cannot be written
 */
export async function writeTextGrid(path: string, grid: TextGrid): Promise<void> {
  const where = 'writeTextGrid'
  requireString(where, 'path', path)
  requireObject(where, 'grid', grid)
  const bytes = Buffer.from(textGridText(grid, path))
  await writeAtomically(path, DataError, (write) => write(bytes))
}

function textGridText({ minTime, maxTime, tiers }: TextGrid, file: string): string {
  const quoted = (text: string) => `"${requireText(text, file).replaceAll('"', '""')}"`
  const span = (from: number, to: number, indent: string, what: string) => {
    if (Number.isFinite(from) && Number.isFinite(to) && from <= to) {
      return `${indent}xmin = ${from} \n${indent}xmax = ${to} \n`
    }
    throw new DataError(`${file}: expected ascending times of ${what}, got ${from} to ${to} s`, {
      file,
      minTime: from,
      maxTime: to,
    })
  }
  const head = `File type = "ooTextFile"\nObject class = "TextGrid"\n\n${span(minTime, maxTime, '', 'the whole')}`
  if (tiers.length === 0) return `${head}tiers? <absent> \n`
  const written = tiers.map((tier, i) => {
    const [kind, items] = tier.kind === 'interval' ? ['Interval', tier.intervals] : ['Text', tier.points]
    const name = `    item [${i + 1}]:\n        class = "${kind}Tier" \n        name = ${quoted(tier.name)} \n`
    const size = `        ${tier.kind === 'interval' ? 'intervals' : 'points'}: size = ${items.length} \n`
    const each =
      tier.kind === 'interval'
        ? tier.intervals.map(({ minTime: from, maxTime: to, text }, k) => {
            const before = tier.intervals[k - 1]?.maxTime ?? tier.minTime
            if (from < before || !(to > from) || to > tier.maxTime) {
              const what = `interval ${k + 1} of tier ${i + 1}`
              throw new DataError(`${file}: expected ascending times of ${what}, got ${from} to ${to} s`, {
                file,
                minTime: from,
                maxTime: to,
              })
            }
            const times = span(from, to, '            ', 'an interval')
            return `        intervals [${k + 1}]:\n${times}            text = ${quoted(text)} \n`
          })
        : tier.points.map(({ time, text }, k) => {
            span(time, tier.maxTime, '', `point ${k + 1} of tier ${i + 1}`)
            return `        points [${k + 1}]:\n            number = ${time} \n            mark = ${quoted(text)} \n`
          })
    return `${name}${span(tier.minTime, tier.maxTime, '        ', `tier ${i + 1}`)}${size}${each.join('')}`
  })
  return `${head}tiers? <exists> \nsize = ${tiers.length} \nitem []: \n${written.join('')}`
}

function requireText(text: unknown, file: string): string {
  if (typeof text === 'string' && !/\p{Surrogate}/u.test(text)) return text
  throw new DataError(`${file}: expected a text, got ${JSON.stringify(text)}`, { file })
}

// A tier of a day's phones has about 50 MB.
const MOST_BYTES = Math.min(1 << 28, LONGEST_STRING)
/** Boundaries that differ by less are equal: aligners write five digits. */
const SAME = 1e-5

function textOf(bytes: Uint8Array, file: string): string {
  if (!isUtf16(bytes)) return utf8(withoutMark(bytes), file)
  if (bytes.length % 2 === 1) throw faultIn(file, 'expected complete UTF-16, got half a character at the end', {})
  const content = asBuffer(bytes).subarray(2)
  const text = (bytes[0] === 0xff ? content : Buffer.from(content).swap16()).toString('utf16le')
  if (text.includes('\0') || /\p{Surrogate}/u.test(text)) throw faultIn(file, 'expected valid UTF-16 text', {})
  return text
}

type Kind = 'text' | 'number' | 'flag'
const NAMES: Record<Kind, string> = { text: 'a text in quotes', number: 'a number', flag: '<exists> or <absent>' }

/**
 * Tokens that Praat reads from a text file: quoted texts, numbers and flags. Everything else (`xmin =`, `intervals [3]:`) is
 * ignored, so that the long and the short form are equivalent.
 */
class Words {
  #at = 0
  /** Start of the last token. */
  start = 0

  constructor(
    readonly text: string,
    readonly file: string,
  ) {}

  /** Number of characters left in the file. */
  get left(): number {
    return this.text.length - this.#at
  }

  fault(what: string, at = this.start): DataError {
    return faultIn(this.file, what, { line: 1 + countLines(Buffer.from(this.text.slice(0, at))) })
  }

  /** Return the next token, which must be of a kind. `what` is its meaning. */
  take(kind: 'text' | 'flag', what: string): string
  take(kind: 'number', what: string): number
  take(kind: Kind, what: string): string | number {
    const found = this.#next()
    if (found === undefined) throw this.fault(`the file ends before ${what}`, this.text.length)
    if (found.kind === kind) return found.value
    throw this.fault(`expected ${what} to be ${NAMES[kind]}, got ${JSON.stringify(String(found.value).slice(0, 40))}`)
  }

  #next(): { kind: Kind; value: string | number } | undefined {
    const { text } = this
    for (;;) {
      while (this.#at < text.length && isSpace(text.charCodeAt(this.#at))) this.#at += 1
      if (this.#at >= text.length) return undefined
      this.start = this.#at
      const first = text[this.#at]
      if (first === '"') return { kind: 'text', value: this.#quoted() }
      if (first === '!') {
        const end = text.indexOf('\n', this.#at)
        this.#at = end < 0 ? text.length : end
        continue
      }
      let end = this.#at
      while (end < text.length && !isSpace(text.charCodeAt(end)) && text[end] !== '"') end += 1
      const word = text.slice(this.#at, Math.min(end, this.#at + 64))
      this.#at = end
      if (word === '<exists>' || word === '<absent>') return { kind: 'flag', value: word }
      if (NUMBER.test(word)) return { kind: 'number', value: Number(word) }
    }
  }

  /** Read a quoted text, in which a quote is doubled. */
  #quoted(): string {
    const { text } = this
    for (let at = this.#at + 1; ; at += 2) {
      at = text.indexOf('"', at)
      if (at < 0) throw this.fault('expected the end of a quoted text')
      if (text[at + 1] === '"') continue
      const found = text.slice(this.#at + 1, at).replaceAll('""', '"')
      this.#at = at + 1
      return found
    }
  }
}

const NUMBER = /^[+-]?(\d+(?:\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?$/
const isSpace = (code: number): boolean => code === 32 || (code >= 9 && code <= 13)

class TextGridReader {
  readonly #words: Words
  readonly #gaps: 'refuse' | 'keep' | 'fill'

  constructor(words: Words, gaps: 'refuse' | 'keep' | 'fill') {
    this.#words = words
    this.#gaps = gaps
  }

  read(): TextGrid {
    const words = this.#words
    const form = words.take('text', 'the type of the file')
    if (!/^ooTextFile( short)?$/.test(form))
      throw words.fault(`expected "ooTextFile" as type of the file, got ${JSON.stringify(form)}`)
    const content = words.take('text', 'the class of what it holds')
    if (content !== 'TextGrid') throw words.fault(`expected a "TextGrid" in the file, got a ${JSON.stringify(content)}`)
    const { minTime, maxTime } = this.#span('the file')
    if (words.take('flag', 'whether there are tiers') === '<absent>') return { minTime, maxTime, tiers: [] }
    const count = this.#count('tiers')
    return { minTime, maxTime, tiers: Array.from({ length: count }, (_, i) => this.#tier(`tier ${i + 1}`)) }
  }

  #tier(which: string): TextGridTier {
    const words = this.#words
    const kind = words.take('text', `the class of ${which}`)
    if (kind !== 'IntervalTier' && kind !== 'TextTier') {
      throw words.fault(`expected ${which} to be an "IntervalTier" or "TextTier", got ${JSON.stringify(kind)}`)
    }
    const name = words.take('text', `the name of ${which}`)
    const span = this.#span(which)
    if (kind === 'IntervalTier') return { kind: 'interval', name, ...span, intervals: this.#intervals(which, span) }
    const points = Array.from({ length: this.#count(`points of ${which}`) }, (_, i) => ({
      time: this.#time(`point ${i + 1} of ${which}`, span),
      text: words.take('text', `the text of point ${i + 1} of ${which}`),
    }))
    return { kind: 'point', name, ...span, points }
  }

  #intervals(which: string, { minTime: first, maxTime: last }: Span): TextGridInterval[] {
    const words = this.#words
    const count = this.#count(`intervals of ${which}`)
    const found: TextGridInterval[] = []
    let before = first
    const gap = (to: number, what: string) => {
      if (to - before <= SAME || this.#gaps === 'keep') return
      if (this.#gaps === 'fill') return void found.push({ minTime: before, maxTime: to, text: '' })
      throw words.fault(
        `${what}: expected an interval from ${before} to ${to} s, got none. Set gaps: 'fill' to insert a pause`,
      )
    }
    for (let i = 1; i <= count; i++) {
      const place = `interval ${i} of ${which}`
      const minTime = words.take('number', `the beginning of ${place}`)
      if (minTime < before - SAME) throw words.fault(`expected ${place} to begin at ${before} or later, got ${minTime}`)
      gap(minTime, place)
      const maxTime = words.take('number', `the end of ${place}`)
      if (!(maxTime > minTime))
        throw words.fault(`expected ${place} to end after it begins at ${minTime}, got ${maxTime}`)
      if (maxTime > last + SAME)
        throw words.fault(`expected ${place} to end within its tier, which ends at ${last}, got ${maxTime}`)
      found.push({ minTime, maxTime, text: words.take('text', `the text of ${place}`) })
      before = maxTime
    }
    gap(last, `the end of ${which}`)
    return found
  }

  #span(which: string): Span {
    const minTime = this.#words.take('number', `the beginning of ${which}`)
    const maxTime = this.#words.take('number', `the end of ${which}`)
    if (maxTime >= minTime) return { minTime, maxTime }
    throw this.#words.fault(`expected ${which} to end after it begins at ${minTime}, got ${maxTime}`)
  }

  #time(place: string, { minTime, maxTime }: Span): number {
    const time = this.#words.take('number', `the time of ${place}`)
    if (time >= minTime - SAME && time <= maxTime + SAME) return time
    throw this.#words.fault(`expected ${place} within its tier (${minTime} to ${maxTime}), got ${time}`)
  }

  #count(what: string): number {
    const count = this.#words.take('number', `the number of ${what}`)
    // Each has at least a text.
    if (Number.isInteger(count) && count >= 0 && count * 2 <= this.#words.left) return count
    throw this.#words.fault(`expected a number of ${what} that fits in the rest of the file, got ${count}`)
  }
}

interface Span {
  minTime: number
  maxTime: number
}
