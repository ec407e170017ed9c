import * as tokenizers from '@huggingface/tokenizers'
import { DataError } from '../base/errors.js'
import { listMayGrow } from '../base/heap.js'
import { quoted } from '../files/byte-source.js'
import { characterAt } from './aligned.js'
import type { Fields } from './fields.js'
import { STEP, type Steps } from './steps.js'
import { withinTime } from './time-limit.js'

// The used part of the package is declared here, because its type declarations import each other without file extensions, which
// TypeScript's Node resolution does not support.
const { SplitPreTokenizer } = tokenizers as unknown as {
  SplitPreTokenizer: new (config: object) => { pattern: unknown }
}

/** A compiled `Pattern` of a tokenizer file. */
export interface Pattern {
  /** Return the matches in order: `[from, to, from, to, …]` in UTF-16 units. */
  matches(text: string): Steps<number[]>
  /** Return the matches as texts if they cover the whole text, which is faster; else null. */
  cover(text: string): string[] | null
}

/** Read `{"String": …}` or `{"Regex": …}`, the latter in Oniguruma's syntax. */
export function readPattern(fields: Fields): Pattern {
  const pattern = fields.object('pattern')
  if (pattern.has('String')) return literal(pattern.string('String'))
  return regex(pattern.string('Regex'), pattern)
}

export function literal(wanted: string): Pattern {
  return {
    *matches(text) {
      const ranges: number[] = []
      if (wanted === '') return ranges
      for (let at = text.indexOf(wanted); at !== -1; at = text.indexOf(wanted, at + wanted.length)) {
        if (!listMayGrow(ranges.length)) throw tooMany(text)
        ranges.push(at, at + wanted.length)
        if (ranges.length % STEP === 0) yield
      }
      return ranges
    },
    cover: () => null,
  }
}

const MAX_PATTERN = 10_000

/**
 * Patterns of published tokenizers. Their backtracking is bounded by a constant per unit, so they run without a time limit.
 */
export const published = {
  gpt2: "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
  qwen2:
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
  llama3:
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
  tekken:
    '[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+',
  clip: "<\\|startoftext\\|>|<\\|endoftext\\|>|'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+",
  spaces: '\\s+',
  runs: ' {2,}',
} as const

const trusted = new Set<string>(Object.values(published))

/**
 * Compile a regular expression in Oniguruma's syntax, with the translation of `@huggingface/tokenizers`. JavaScript's engine
 * backtracks, so patterns other than published ones run with a time limit.
 * @throws DataError for a pattern without translation; `matches` throws it when the time limit is exceeded
 */
export function regex(source: string, fields: Fields): Pattern {
  if (source.length > MAX_PATTERN)
    fields.fail(`expected a pattern of at most ${MAX_PATTERN} characters, got ${source.length}`)
  const compiled = translate(source, fields)
  if (trusted.has(source)) return native(compiled)
  const { file } = fields
  return {
    matches: (text) => allMatches(compiled, text, guard(file, compiled, text)),
    cover: (text) => guard(file, compiled, text)(() => covering(compiled, text)),
  }
}

/** Return the pattern of a JavaScript regular expression with the flags g and u that does not backtrack. */
export function native(compiled: RegExp): Pattern {
  return { matches: (text) => allMatches(compiled, text), cover: (text) => covering(compiled, text) }
}

function translate(source: string, fields: Fields): RegExp {
  let translated: unknown
  try {
    const split = new SplitPreTokenizer({
      type: 'Split',
      // The translation supports the flag for groups only.
      pattern: { Regex: source.startsWith('(?i)') ? `(?i:${source.slice(4)})` : source },
      behavior: 'Isolated',
      invert: false,
    })
    translated = split.pattern
  } catch (cause) {
    const entry = fields.where
    throw new DataError(
      `${fields.file}: ${entry}: the pattern ${quoted(source)} cannot be translated to JavaScript: ${(cause as Error).message}`,
      { file: fields.file, entry, cause },
    )
  }
  if (!(translated instanceof RegExp)) fields.fail('expected a String or Regex pattern')
  // In Unicode, two more letters fold to s and k; the translation folds ASCII only.
  const folded = source.includes('(?i')
    ? translated.source.replaceAll('[sS]', '[sS\u017f]').replaceAll('[kK]', '[kK\u212a]')
    : translated.source
  return new RegExp(folded, 'gu')
}

/** Runs a part of a search. */
type Within = <T>(work: () => T) => T

function* allMatches(regex: RegExp, text: string, within: Within = (work) => work()): Steps<number[]> {
  const ranges: number[] = []
  for (let from = 0; ; ) {
    from = within(() => findSome(regex, text, from, ranges))
    if (from === -1) return ranges
    yield
  }
}

/** Append the next matches. Return the index at which the search continues, or -1 at its end. */
function findSome(regex: RegExp, text: string, from: number, ranges: number[]): number {
  regex.lastIndex = from
  for (let count = 0; count < STEP; count++) {
    const match = regex.exec(text)
    if (match === null) return -1
    const end = match.index + match[0].length
    if (!listMayGrow(ranges.length)) throw tooMany(text)
    ranges.push(match.index, end)
    if (match[0] === '') {
      if (end >= text.length) return -1
      regex.lastIndex = end + characterAt(text, end).length
    }
  }
  return regex.lastIndex
}

function covering(regex: RegExp, text: string): string[] | null {
  const words = text.match(regex)
  if (words === null) return null
  let length = 0
  for (const word of words) length += word.length
  return length === text.length ? words : null
}

const tooMany = (text: string): DataError =>
  new DataError(`a text of ${text.length} characters has more matches of a pattern than fit into memory`)

const TIME_LIMIT = 800

/** Return a function that runs parts of a search within one time limit. */
function guard(file: string, regex: RegExp, text: string): Within {
  let left = TIME_LIMIT
  return (work) => {
    const begun = performance.now()
    try {
      return withinTime(Math.ceil(left), work)
    } catch (cause) {
      throw new DataError(
        `${file}: the pattern ${JSON.stringify(regex.source.slice(0, 80))} failed on a text of ${text.length} characters: ${(cause as Error).message}`,
        { file, cause },
      )
    } finally {
      left -= performance.now() - begun
    }
  }
}
