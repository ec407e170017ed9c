import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { CheckpointError } from '../base/errors.js'
import { readCheckpointJson } from '../files/json/json.js'
import { standardizeNumbers } from './english-numbers.js'

/** American spellings by British ones, as in a Whisper checkpoint's normalizer.json. */
export type Spellings = ReadonlyMap<string, string>

/**
 * Normalize a text as Whisper's `BasicTextNormalizer` does, for error rates: lower case, without text in brackets, and spaces in place of
 * punctuation and symbols.
 */
export function normalizeText(text: string): string {
  const outside = withoutParentheses(withoutTags(text.toLowerCase()))
  return outside
    .normalize('NFKC')
    .replace(/[\p{M}\p{S}\p{P}]/gu, ' ')
    .toLowerCase()
    .replace(/\s+/g, ' ')
    .trim()
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: they are spaces for Python.
const SPACES = /[\s\u001c-\u001f\u0085]+/g
const WORD = '[\\p{L}\\p{N}_]'
const [START, END] = [`(?<!${WORD})`, `(?!${WORD})`]
const FILLERS = new RegExp(`${START}(?:hmm|mm|mhm|mmm|uh|um)${END}`, 'gu')

/** Replacements in order: whole words, and endings of words. */
const REPLACEMENTS: readonly (readonly [RegExp, string])[] = [
  ...`won't=will not|can't=can not|let's=let us|ain't=aint|y'all=you all|wanna=want to|gotta=got to|gonna=going to|i'ma=i am going to
imma=i am going to|woulda=would have|coulda=could have|shoulda=should have|ma'am=madam
mr=mister |mrs=missus |st=saint |dr=doctor |prof=professor |capt=captain |gov=governor |ald=alderman |gen=general |sen=senator
rep=representative |pres=president |rev=reverend |hon=honorable |asst=assistant |assoc=associate |lt=lieutenant |col=colonel
jr=junior |sr=senior |esq=esquire `
    .split(/[|\n]/)
    .map((line) => line.split('=') as [string, string])
    .map(([word, text]) => [new RegExp(`${START}${word}${END}`, 'gu'), text] as const),
  ...`'d been= had been|'s been= has been|'d gone= had gone|'s gone= has gone|'d done= had done|'s got= has got|n't= not|'re= are|'s= is
'd= would|'ll= will|'t= not|'ve= have|'m= am`
    .split(/[|\n]/)
    .map((line) => line.split('=') as [string, string])
    .map(([ending, text]) => [new RegExp(`${ending}${END}`, 'gu'), text] as const),
]

const LETTERS: Readonly<Record<string, string>> = {
  ...{ œ: 'oe', ø: 'o', æ: 'ae', ß: 'ss', đ: 'd', ð: 'd', þ: 'th', ł: 'l' },
  ...{ Œ: 'OE', Ø: 'O', Æ: 'AE', ẞ: 'SS', Đ: 'D', Ð: 'D', Þ: 'Th', Ł: 'L' },
}

/**
 * Normalize an English text as Whisper's `EnglishTextNormalizer` does, for error rates: as the basic normalizer, without diacritics and
 * fillers such as "uh"; contractions and titles are spelled out, numbers become digits, and British spellings American ones.
 * @param spellings table of the checkpoint's normalizer.json, see `readSpellings`. Default: none
 */
export function normalizeEnglish(text: string, spellings: Spellings = new Map()): string {
  let found = withoutParentheses(withoutTags(text.toLowerCase()))
    .replace(FILLERS, '')
    .replace(SPACES, ' ')
    .replaceAll(" '", "'")
  for (const [pattern, replacement] of REPLACEMENTS) found = found.replace(pattern, replacement)
  found = found.replace(/(\d),(\d)/g, '$1$2').replace(/\.([^0-9]|$)/gu, ' $1')
  const plain = Array.from(found.normalize('NFKD'), (character) => {
    if ('.%$¢€£'.includes(character)) return character
    if (character in LETTERS) return LETTERS[character]
    if (/\p{Mn}/u.test(character)) return ''
    return /[\p{M}\p{S}\p{P}]/u.test(character) ? ' ' : character
  }).join('')
  return standardizeNumbers(plain.replace(SPACES, ' '))
    .split(' ')
    .map((word) => spellings.get(word) ?? word)
    .join(' ')
    .replace(/[.$¢€£]([^0-9])/gu, ' $1')
    .replace(/([^0-9])%/gu, '$1 ')
    .replace(SPACES, ' ')
    .trim()
}

/** Most entries of a table of spellings. */
const MOST_SPELLINGS = 100_000

/**
 * Read the table of spellings of a checkpoint: `normalizer.json`, an object of British spellings with American ones.
 * @param path of the file, or of a folder that may have it
 * @returns undefined for a folder without the file
 * @throws CheckpointError naming file and entry
 */
export async function readSpellings(path: string): Promise<Spellings | undefined> {
  const inside = join(path, 'normalizer.json')
  const file = path.endsWith('.json') ? path : inside
  if (file === inside && !existsSync(file)) return undefined
  const table: unknown = await readCheckpointJson(file)
  if (typeof table !== 'object' || table === null || Array.isArray(table)) {
    throw new CheckpointError(`${file}: expected an object of spellings, got ${JSON.stringify(table)?.slice(0, 40)}.`, {
      file,
    })
  }
  const entries = Object.entries(table)
  if (entries.length > MOST_SPELLINGS) {
    throw new CheckpointError(`${file}: expected at most ${MOST_SPELLINGS} spellings, got ${entries.length}.`, { file })
  }
  const wrong = entries.find(([, value]) => typeof value !== 'string')
  if (wrong) {
    throw new CheckpointError(`${file}: ${wrong[0].slice(0, 40)}: expected a spelling, got ${typeof wrong[1]}.`, {
      file,
    })
  }
  return new Map(entries as [string, string][])
}

/** Remove texts between < or [ and the next > or ]. */
const withoutTags = (text: string): string => without(text, '<[', '>]', false)

/** Remove texts of at least one character between ( and the next ). */
const withoutParentheses = (text: string): string => without(text, '(', ')', true)

function without(text: string, openers: string, closers: string, needsText: boolean): string {
  let kept = ''
  let from = 0
  let next = -1
  for (let at = 0; at < text.length; at++) {
    if (!openers.includes(text[at] as string)) continue
    if (next <= at) next = firstOf(text, closers, at + 1)
    // Without another closer, everything from here on stays.
    if (next < 0) break
    if (needsText && next === at + 1) continue
    kept += text.slice(from, at)
    from = next + 1
    at = next
  }
  return kept + text.slice(from)
}

function firstOf(text: string, characters: string, from: number): number {
  for (let at = from; at < text.length; at++) if (characters.includes(text[at] as string)) return at
  return -1
}
