import { DataError } from '../base/errors.js'
import { quoted } from '../files/byte-source.js'
import { type AlignedText, mapCharacters, mostGrown, prepend, replaceMatches } from './aligned.js'
import { toByteCharacters } from './byte-level.js'
import type { Fields } from './fields.js'
import { literal, native, type Pattern, published, readPattern, regex } from './patterns.js'
import { drained, STEP, type Steps } from './steps.js'
import { isOverdue } from './time-limit.js'

/** Pre-tokenizer: splits normalized text into pre-tokens, which the model splits further; in steps for long texts. */
export interface PreTokenizer {
  (text: AlignedText): AlignedText[] | Steps<AlignedText[]>
  /** Whether it splits at each word end: between a letter and a character other than letter, mark or digit. */
  readonly cutsWords?: true
}

const cuttingWords = (cut: PreTokenizer): PreTokenizer => Object.assign(cut, { cutsWords: true } as const)

/**
 * Read the `pre_tokenizer` of a tokenizer.json (https://huggingface.co/docs/tokenizers/api/pre-tokenizers).
 * @param rawBytes whether a final byte-level step leaves the conversion to byte characters to the model
 */
export function readPreTokenizer(fields: Fields, rawBytes: boolean): PreTokenizer {
  const type = fields.string('type')
  switch (type) {
    case 'Sequence': {
      const parts = fields.objects('pretokenizers')
      const steps = parts.map((part, i) => readPreTokenizer(part, rawBytes && i === parts.length - 1))
      const all = sequence(steps, fields.file)
      // Steps that only split digits, or nothing, do not matter for word ends.
      const isNeutral = (part: Fields) =>
        part.string('type') === 'Digits' ||
        (part.string('type') === 'ByteLevel' &&
          !part.boolean('use_regex', true) &&
          !part.boolean('add_prefix_space', true))
      const known = steps.every((step, i) => step.cutsWords === true || isNeutral(parts[i] as Fields))
      return known && steps.some((step) => step.cutsWords === true) ? cuttingWords(all) : all
    }
    case 'ByteLevel':
      return byteLevel(fields, rawBytes)
    case 'Metaspace':
      return metaspace(fields)
    case 'Split':
      return split(fields)
    case 'Whitespace':
      return splitter(native(words), 'Removed', true)
    case 'WhitespaceSplit':
      return splitter(regex(published.spaces, fields), 'Removed')
    case 'CharDelimiterSplit':
      return splitter(literal(fields.character('delimiter')), 'Removed')
    case 'BertPreTokenizer':
      return sequence(
        [splitter(regex(published.spaces, fields), 'Removed'), splitter(native(punctuation), 'Isolated')],
        fields.file,
      )
    case 'Punctuation':
      return splitter(native(punctuation), readBehavior(fields, 'Isolated'))
    case 'Digits':
      return splitter(native(/\p{N}/gu), fields.boolean('individual_digits', false) ? 'Isolated' : 'Contiguous')
    case 'FixedLength':
      return fixedLength(fields)
    default:
      return fields.fail(`expected a known type, got ${quoted(type)}`)
  }
}

/** Whether the last step is byte-level: then a BPE model converts to byte characters itself. */
export function endsInByteLevel(fields: Fields | undefined): boolean {
  const type = fields?.get('type')
  if (type === 'ByteLevel') return true
  return type === 'Sequence' && endsInByteLevel(fields!.objects('pretokenizers').at(-1))
}

function sequence(steps: readonly PreTokenizer[], file: string): PreTokenizer {
  return function* (text) {
    const fail = (what: string): never => {
      throw new DataError(`${file}: pre_tokenizer: ${what} for a text of ${text.text.length} characters`, {
        file,
        entry: 'pre_tokenizer',
      })
    }
    const most = mostGrown(text.text.length)
    let parts = [text]
    for (const step of steps) {
      const whole = parts
      parts = []
      let next = STEP
      let size = 0
      for (const part of whole) {
        const split = step(part)
        for (const one of Array.isArray(split) ? split : yield* split) {
          size += one.text.length
          parts.push(one)
        }
        if (size < next) continue
        yield
        next = size + STEP
      }
      if (size > most) fail(`expected at most ${most} characters, got more,`)
      if (isOverdue()) fail('the time limit was exceeded')
    }
    return parts
  }
}

function split(fields: Fields): PreTokenizer {
  const behavior = readBehavior(fields, 'Isolated')
  const invert = fields.boolean('invert', false)
  const pattern = fields.object('pattern')
  const cut = splitter(readPattern(fields), behavior, invert)
  const cutsWords =
    behavior === 'Isolated' && !invert && pattern.has('Regex') && WORD_PATTERNS.has(pattern.string('Regex'))
  return cutsWords ? cuttingWords(cut) : cut
}

/** Patterns without a match across a word end, and without lookbehind. */
const WORD_PATTERNS = new Set<string>([published.gpt2, published.qwen2, published.llama3, published.tekken])

function byteLevel(fields: Fields, rawBytes: boolean): PreTokenizer {
  const addPrefixSpace = fields.boolean('add_prefix_space', true)
  const split = fields.boolean('use_regex', true) ? splitter(regex(published.gpt2, fields), 'Isolated') : undefined
  const cut: PreTokenizer = (text) => {
    const prefixed = addPrefixSpace && !text.text.startsWith(' ') ? prepend(text, ' ') : text
    const parts = split?.(prefixed) ?? [prefixed]
    return rawBytes ? parts : spellEach(parts)
  }
  return split && !addPrefixSpace ? cuttingWords(cut) : cut
}

function* spellEach(parts: AlignedText[] | Steps<AlignedText[]>): Steps<AlignedText[]> {
  const spelled: AlignedText[] = []
  for (const part of Array.isArray(parts) ? parts : yield* parts) {
    spelled.push(yield* mapCharacters(part, toByteCharacters))
    if (spelled.length % STEP === 0) yield
  }
  return spelled
}

function metaspace(fields: Fields): PreTokenizer {
  const mark = fields.character('replacement', '\u2581')
  const always = fields.boolean('add_prefix_space', true) ? 'always' : 'never'
  const scheme = fields.string('prepend_scheme', always)
  if (!['always', 'first', 'never'].includes(scheme)) {
    throw fields.error('prepend_scheme', '"always", "first" or "never"', scheme)
  }
  const spaces = literal(' ')
  const split = fields.boolean('split', true) ? splitter(literal(mark), 'MergedWithNext') : undefined
  return function* (source) {
    let text = yield* replaceMatches(source, yield* spaces.matches(source.text), mark)
    const wanted = scheme === 'always' || (scheme === 'first' && text.text !== '' && text.startOf(0) === 0)
    if (wanted && !text.text.startsWith(mark)) text = prepend(text, mark)
    const parts = split?.(text) ?? [text]
    return Array.isArray(parts) ? parts : yield* parts
  }
}

function fixedLength(fields: Fields): PreTokenizer {
  const length = fields.whole('length', 5)
  if (length === 0) throw fields.error('length', 'an integer of at least 1', 0)
  return function* (text) {
    const parts: AlignedText[] = []
    let start = 0
    let count = 0
    let at = 0
    for (const character of text.text) {
      at += character.length
      if (++count % length !== 0) continue
      parts.push(text.slice(start, at))
      start = at
      if (parts.length % STEP === 0) yield
    }
    if (start < at) parts.push(text.slice(start, at))
    return parts
  }
}

const punctuation = /[!-/:-@[-`{-~\p{P}]/gu

// Word characters of Rust's regular expressions, which differ from Oniguruma's.
const words =
  /[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]+|[^\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}\p{White_Space}]+/gu

const behaviors = ['Removed', 'Isolated', 'MergedWithPrevious', 'MergedWithNext', 'Contiguous'] as const
type Behavior = (typeof behaviors)[number]

function readBehavior(fields: Fields, fallback: Behavior): Behavior {
  const name = fields.string('behavior', fallback)
  const known = behaviors.find((behavior) => behavior.toLowerCase() === name.toLowerCase())
  if (known === undefined) throw fields.error('behavior', `one of ${behaviors.join(', ')}`, name)
  return known
}

/** A range of text, and whether it matches the pattern. */
interface Stretch {
  from: number
  to: number
  matched: boolean
}

/** Split at the matches of a pattern; with `invert`, at the text between them. */
function splitter(pattern: Pattern, behavior: Behavior, invert = false): PreTokenizer {
  return (text) => {
    const isShort = text.text.length <= STEP
    const words = isShort && behavior === 'Isolated' ? pattern.cover(text.text) : null
    if (words !== null) return consecutive(text, words)
    const steps = splitInSteps(text, pattern, behavior, invert)
    return isShort ? drained(steps) : steps
  }
}

function consecutive(text: AlignedText, words: readonly string[]): AlignedText[] {
  const parts: AlignedText[] = []
  let from = 0
  for (const word of words) {
    if (word !== '') parts.push(text.part(word, from))
    from += word.length
  }
  return parts
}

function* splitInSteps(text: AlignedText, pattern: Pattern, behavior: Behavior, invert: boolean): Steps<AlignedText[]> {
  const parts: AlignedText[] = []
  for (const { from, to } of yield* joined(yield* stretchesOf(text.text, pattern, invert), behavior)) {
    if (to > from) parts.push(text.slice(from, to))
    if (parts.length % STEP === 0) yield
  }
  return parts
}

function* stretchesOf(text: string, pattern: Pattern, invert: boolean): Steps<Stretch[]> {
  const matches = yield* pattern.matches(text)
  const stretches: Stretch[] = []
  let last = 0
  for (let i = 0; i < matches.length; i += 2) {
    const [from, to] = [matches[i]!, matches[i + 1]!]
    if (from > last) stretches.push({ from: last, to: from, matched: invert })
    stretches.push({ from, to, matched: !invert })
    last = to
    if (i % STEP === 0) yield
  }
  if (last < text.length) stretches.push({ from: last, to: text.length, matched: invert })
  return stretches
}

function* joined(stretches: Stretch[], behavior: Behavior): Steps<Stretch[]> {
  switch (behavior) {
    case 'Isolated':
      return stretches
    case 'Removed':
      return stretches.filter(({ matched }) => !matched)
    case 'MergedWithPrevious':
      return yield* joinWith(stretches, (matched, previous) => matched && !previous)
    case 'Contiguous':
      return yield* joinWith(stretches, (matched, previous) => matched === previous)
    case 'MergedWithNext':
      return (yield* joinWith(stretches.reverse(), (matched, previous) => matched && !previous)).reverse()
  }
}

function* joinWith(stretches: Stretch[], joins: (matched: boolean, previous: boolean) => boolean): Steps<Stretch[]> {
  const result: Stretch[] = []
  let previous = false
  let count = 0
  for (const { from, to, matched } of stretches) {
    const last = result.at(-1)
    if (last !== undefined && joins(matched, previous)) {
      last.from = Math.min(last.from, from)
      last.to = Math.max(last.to, to)
    } else result.push({ from, to, matched: false })
    previous = matched
    if (++count % STEP === 0) yield
  }
  return result
}
