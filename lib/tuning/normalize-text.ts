import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { CheckpointError, DataError } from '../base/errors.js'
import { readCheckpointJson } from '../files/json/json.js'
import { standardizeNumbers } from './english-numbers.js'

/** American spellings by British ones, as in a Whisper checkpoint's normalizer.json. */
export type Spellings = ReadonlyMap<string, string>

/**
 * Normalize a text as Whisper's `BasicTextNormalizer` does, for error rates: lower case, without text in brackets, and spaces in place of
 * punctuation and symbols.
 * @throws DataError for a text that is too long
 */
export function normalizeText(text: string): string {
  const outside = withoutParentheses(withoutTags(bounded(text).toLowerCase()))
  return bounded(outside.normalize('NFKC'))
    .replace(/[\p{M}\p{S}\p{P}]/gu, ' ')
    .toLowerCase()
    .replace(SPACES, ' ')
    .replace(OUTER_SPACES, '')
}

/** Most characters of a text. Compatibility forms have up to 18 times as many, so they are bounded too. */
const MOST_CHARACTERS = 2 ** 20

function bounded(text: string): string {
  if (text.length <= MOST_CHARACTERS) return text
  throw new DataError(
    `normalizeText: expected a text of at most ${MOST_CHARACTERS} characters in Unicode's compatibility form, got ${text.length}. Shorten the answer or the reference.`,
    { length: text.length },
  )
}

// Python's whitespace. JavaScript's has U+FEFF too, and none of U+001C to U+001F and U+0085.
// biome-ignore lint/suspicious/noControlCharactersInRegex: see above.
const SPACES = /[\t-\r\u001c- \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+/g
const OUTER_SPACES = /^ | $/g
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
 * @throws DataError for a text that is too long
 */
export function normalizeEnglish(text: string, spellings: Spellings = new Map()): string {
  let found = withoutParentheses(withoutTags(bounded(text).toLowerCase()))
    .replace(FILLERS, '')
    .replace(SPACES, ' ')
    .replaceAll(" '", "'")
  for (const [pattern, replacement] of REPLACEMENTS) found = found.replace(pattern, replacement)
  // \p{Nd} is Python's \d.
  found = found.replace(/(\p{Nd}),(\p{Nd})/gu, '$1$2').replace(/\.([^0-9]|$)/gu, ' $1')
  const plain = bounded(found.normalize('NFKD'))
    .replace(/\p{Mn}+/gu, '')
    .replace(/[œøæßđðþłŒØÆẞĐÐÞŁ]/gu, (letter) => LETTERS[letter] as string)
    .replace(/(?![.%$¢€£])[\p{M}\p{S}\p{P}]/gu, ' ')
  return standardizeNumbers(plain.replace(SPACES, ' '))
    .split(' ')
    .map((word) => spellings.get(word) ?? word)
    .join(' ')
    .replace(/[.$¢€£]([^0-9])/gu, ' $1')
    .replace(/([^0-9])%/gu, '$1 ')
    .replace(SPACES, ' ')
    .replace(OUTER_SPACES, '')
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
