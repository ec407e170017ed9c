/** Letters of a word that anybody can have mistyped: longer ones come from programs, and are not compared. */
const LONGEST_WORD = 100
/** Pairs of letters that one search compares. A list of options takes a hundredth of it. */
const MOST_COMPARED = 2_000_000

/**
 * Return the word of a list that takes the fewest changed letters to reach, or undefined where none is near; case is no
 * change. The work is bounded whatever the word and the list: a word of more than 100 letters has no neighbor, and of a very
 * long list the beginning is searched.
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
    // So many letters at least are put in or left out.
    if (Math.abs(candidate.length - word.length) > least) continue
    compared += wanted.length * candidate.length
    const changes = distance(wanted, candidate.toLowerCase())
    // Of two words as near, the one of the same letters: swapping two is commoner than forgetting one.
    const closer = changes === least && lettersOf(candidate) === lettersOf(word)
    if (changes < least || closer) {
      least = changes
      best = candidate
    }
  }
  return best
}

/** Return a text as an error message shows it: its beginning where it has more than `most` characters. */
export const shortened = (text: string, most = 200): string => (text.length > most ? `${text.slice(0, most)}…` : text)

const lettersOf = (word: string): string => [...word.toLowerCase()].sort().join('')

/** The end of a sentence about a word that is none of `words`: what was probably meant; '' where nothing is near. */
export function didYouMean(word: string, words: Iterable<string>): string {
  const near = nearest(word, words)
  return near === undefined ? '' : `; did you mean '${near}'?`
}

/** Letters put in, left out, changed or swapped with their neighbour (optimal string alignment), one row at a time. */
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

/**
 * Return a text without the characters at its end that match a pattern of one character. A pattern such as `/[.!]+$/` would
 * read each run in the middle of the text once for each of its characters.
 */
export function withoutEnd(text: string, dropped: RegExp): string {
  let end = text.length
  while (end > 0 && dropped.test(text[end - 1] as string)) end -= 1
  return text.slice(0, end)
}

/** camelCase keys as a published config.json has them, and the reverse; only the outermost keys. */
export const toSnake = (config: object): Record<string, unknown> => renamed(config, snakeCase)
export const toCamel = (config: object): Record<string, unknown> => renamed(config, camelCase)

function renamed(config: object, name: (key: string) => string): Record<string, unknown> {
  const result: Record<string, unknown> = Object.create(null)
  for (const [key, value] of Object.entries(config)) result[name(key)] = value
  return { ...result }
}

/** `hiddenSize` as `hidden_size`. */
export const snakeCase = (key: string): string => key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
export const camelCase = (key: string): string =>
  key.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase())

/** A text as it stands in a regular expression. */
export const patternOf = (text: string): string => text.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&')

/** A text as it stands in HTML and SVG, in an attribute too. */
export const escaped = (text: string): string =>
  text.replace(/[&<>"]/g, (letter) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[letter] as string)
