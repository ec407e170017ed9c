import * as tokenizers from '@huggingface/tokenizers'
import { DataError } from '../base/errors.js'
import { listMayGrow } from '../base/heap.js'
import { quoted } from '../files/byte-source.js'
import { characterAt } from './aligned.js'
import type { Fields } from './fields.js'
import { STEP, type Steps } from './steps.js'
import { withinTime } from './time-limit.js'

// The declarations of the package import each other without file extensions, which Node's resolution of types does not
// follow. What is used of it is declared here.
const { SplitPreTokenizer } = tokenizers as unknown as {
  SplitPreTokenizer: new (config: object) => { pattern: unknown }
}

/** Finds what a tokenizer file's `Pattern` describes. */
export interface Pattern {
  /** The matches, first to last: `[from, to, from, to, …]` in UTF-16 units. */
  matches(text: string): Steps<number[]>
  /** The matches as texts if they cover all of the text, which is quicker; else null. */
  cover(text: string): string[] | null
}

/** `{"String": …}` or `{"Regex": …}`, the latter in Oniguruma's syntax. */
export function readPattern(fields: Fields): Pattern {
  const pattern = fields.object('pattern')
  if (pattern.has('String')) return literal(pattern.string('String'))
  return regex(pattern.string('Regex'), pattern)
}

export function literal(wanted: string): Pattern {
  return {
    *matches(text) {
      const found: number[] = []
      if (wanted === '') return found
      for (let at = text.indexOf(wanted); at !== -1; at = text.indexOf(wanted, at + wanted.length)) {
        if (!listMayGrow(found.length)) throw tooMany(text)
        found.push(at, at + wanted.length)
        if (found.length % STEP === 0) yield
      }
      return found
    },
    cover: () => null,
  }
}

const MAX_PATTERN = 10_000

/**
 * Patterns of published tokenizers. No input makes them backtrack more than a constant number of times over a unit, so
 * they run without the guard.
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
 * A regular expression in Oniguruma's syntax. Its translation to JavaScript is that of `@huggingface/tokenizers`.
 * JavaScript's engine backtracks, so a pattern that is not one of the published ones runs under a time limit.
 * @throws DataError when it has no translation; `matches` throws it when the time limit ends the search
 */
export function regex(source: string, fields: Fields): Pattern {
  if (source.length > MAX_PATTERN) fields.fail(`has a pattern of ${source.length} characters, more than ${MAX_PATTERN}`)
  const compiled = translate(source, fields)
  if (trusted.has(source)) return native(compiled)
  const { file } = fields
  return {
    matches: (text) => allMatches(compiled, text, guard(file, compiled, text)),
    cover: (text) => guard(file, compiled, text)(() => covering(compiled, text)),
  }
}

/** A pattern that is JavaScript's already, with the flags g and u, and does not backtrack. */
export function native(compiled: RegExp): Pattern {
  return { matches: (text) => allMatches(compiled, text), cover: (text) => covering(compiled, text) }
}

function translate(source: string, fields: Fields): RegExp {
  let translated: unknown
  try {
    const split = new SplitPreTokenizer({
      type: 'Split',
      // The translation knows the flag around a group only.
      pattern: { Regex: source.startsWith('(?i)') ? `(?i:${source.slice(4)})` : source },
      behavior: 'Isolated',
      invert: false,
    })
    translated = split.pattern
  } catch (cause) {
    const entry = fields.where
    throw new DataError(
      `${fields.file}: ${entry} has the pattern ${quoted(source)}, which has no JavaScript form: ${(cause as Error).message}`,
      { file: fields.file, entry, cause },
    )
  }
  if (!(translated instanceof RegExp)) fields.fail('has a pattern of an unknown kind')
  // Unicode folds two more letters onto s and k; the translation folds ASCII.
  const folded = source.includes('(?i')
    ? translated.source.replaceAll('[sS]', '[sS\u017f]').replaceAll('[kK]', '[kK\u212a]')
    : translated.source
  return new RegExp(folded, 'gu')
}

/** Does some work of a search. */
type Within = <T>(work: () => T) => T

function* allMatches(regex: RegExp, text: string, within: Within = (work) => work()): Steps<number[]> {
  const found: number[] = []
  for (let from = 0; ; ) {
    from = within(() => findSome(regex, text, from, found))
    if (from === -1) return found
    yield
  }
}

/** Add the next matches. Return where the search goes on, -1 where it is over. */
function findSome(regex: RegExp, text: string, from: number, found: number[]): number {
  regex.lastIndex = from
  for (let count = 0; count < STEP; count++) {
    const match = regex.exec(text)
    if (match === null) return -1
    const end = match.index + match[0].length
    if (!listMayGrow(found.length)) throw tooMany(text)
    found.push(match.index, end)
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
  new DataError(`a text of ${text.length} characters matches a pattern more often than memory holds`)

const TIME_LIMIT = 800

/** Ends the search of a text when all of its parts take too long together. */
function guard(file: string, regex: RegExp, text: string): Within {
  let left = TIME_LIMIT
  return (work) => {
    const begun = performance.now()
    try {
      return withinTime(Math.ceil(left), work)
    } catch (cause) {
      throw new DataError(
        `${file}: the pattern ${JSON.stringify(regex.source.slice(0, 80))} was ended on a text of ${text.length} characters: ${(cause as Error).message}`,
        { file, cause },
      )
    } finally {
      left -= performance.now() - begun
    }
  }
}
