/** Maximum length of a word that is compared; longer ones come from programs, not from typing. */
const LONGEST_WORD = 100
/** Maximum number of letter pairs that one search compares; a list of options needs a hundredth of it. */
const MOST_COMPARED = 2_000_000

/**
 * Return the word of a list with the smallest edit distance, ignoring case, or undefined if none is within `most`. The work
 * is bounded: a word of more than 100 letters returns undefined, and only the beginning of a very long list is searched.
 */
export function nearest(
  word: string,
  words: Iterable<string>,
  most = Math.max(2, Math.ceil(word.length / 2)),
): string | undefined {
  if (word.length > LONGEST_WORD) return undefined
  const wanted = word.toLowerCase()
  let best: string | undefined
  let least = most + 1
  let compared = 0
  for (const candidate of words) {
    if (compared > MOST_COMPARED) break
    compared += 1
    // The distance is at least the difference of the lengths.
    if (Math.abs(candidate.length - word.length) > least) continue
    compared += wanted.length * candidate.length
    const changes = distance(wanted, candidate.toLowerCase())
    // Break ties by the same set of letters: swapping two is more common than leaving one out.
    const closer = changes === least && lettersOf(candidate) === lettersOf(word)
    if (changes < least || closer) {
      least = changes
      best = candidate
    }
  }
  return best
}

/** Return a text for an error message, cut after `most` characters. */
export const shortened = (text: string, most = 200): string => (text.length > most ? `${text.slice(0, most)}…` : text)

const lettersOf = (word: string): string => [...word.toLowerCase()].sort().join('')

/** Names of TrainingArguments for options of optimizers. */
const SYNONYMS: Readonly<Record<string, string>> = {
  learningRate: 'lr',
  learning_rate: 'lr',
  adamBeta1: 'betas',
  adamBeta2: 'betas',
  adamEpsilon: 'eps',
}

/** Return `; did you mean '…'?` with the nearest of `words`, or '' if none is near. */
export function didYouMean(word: string, words: Iterable<string>): string {
  const near = nearest(word, words) ?? synonymOf(word, words)
  return near === undefined ? '' : `; did you mean '${near}'?`
}

function synonymOf(word: string, words: Iterable<string>): string | undefined {
  const synonym = Object.hasOwn(SYNONYMS, word) ? SYNONYMS[word] : undefined
  return synonym !== undefined && [...words].includes(synonym) ? synonym : undefined
}

/** Return the edit distance with insertions, deletions, substitutions and swaps (optimal string alignment). */
function distance(a: string, b: string): number {
  let before: number[] = []
  let row = Array.from({ length: b.length + 1 }, (_, i) => i)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const changed = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1] ? before[j - 2]! + 1 : changed
      next.push(Math.min(row[j]! + 1, next[j - 1]! + 1, changed, swapped))
    }
    before = row
    row = next
  }
  return row[b.length]!
}

/** Return the number of equal elements at the start of two lists, or of equal characters of two texts. */
export function commonLength(one: ArrayLike<unknown>, other: ArrayLike<unknown>): number {
  const most = Math.min(one.length, other.length)
  let length = 0
  while (length < most && one[length] === other[length]) length++
  return length
}

/**
 * Return a text without the trailing characters that match a one-character pattern. A pattern such as `/[.!]+$/` would
 * take quadratic time on a long run of them in the middle of the text.
 */
export function withoutEnd(text: string, dropped: RegExp): string {
  let end = text.length
  while (end > 0 && dropped.test(text[end - 1] as string)) end -= 1
  return text.slice(0, end)
}

/** Convert the outermost keys from camelCase to the snake_case of a published config.json, or back. */
export const toSnake = (config: object): Record<string, unknown> => renamed(config, snakeCase)
export const toCamel = (config: object): Record<string, unknown> => renamed(config, camelCase)

function renamed(config: object, name: (key: string) => string): Record<string, unknown> {
  const result: Record<string, unknown> = Object.create(null)
  for (const [key, value] of Object.entries(config)) result[name(key)] = value
  return { ...result }
}

/** Convert `hiddenSize` to `hidden_size`. */
export const snakeCase = (key: string): string => key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
export const camelCase = (key: string): string =>
  key.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase())

/** Return a noun after its article, by its pronunciation: "an Object", "a Uint8Array", "an LSTM". */
export function withArticle(noun: string): string {
  // A capital before another capital or a digit is spelled out: an MSELoss. A U before int, nit, sd or se is pronounced "you".
  const isVowel = /^(?:[AEIOaeio]|[Uu](?!int|nit|sd|se)|[FHLMNRSX](?=[A-Z\d]))/.test(noun)
  return `${isVowel ? 'an' : 'a'} ${noun}`
}

/** Escape a text for a regular expression. */
export const patternOf = (text: string): string => text.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&')

/** Escape a text for HTML and SVG, attributes included. */
export const escaped = (text: string): string =>
  text.replace(/[&<>"]/g, (letter) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[letter] as string)
