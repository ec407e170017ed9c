import { DataError } from '../../base/errors.js'
import { splitWords, strip } from '../../train/metrics/values.js'

const PUNCTUATION = '!"#$%&\'()*+,-./:;<=>?@[\\]^_`{|}~'

/**
 * A span of a cause without the punctuation around it, as the official scorer of ECF cuts it: blanks, then a character on
 * either side, until neither is punctuation.
 * @throws DataError where nothing else is in it
 */
export function cleanSpan(span: string): string {
  let rest = [...strip(span)]
  for (;;) {
    const [first, last] = [rest[0], rest.at(-1)]
    if (first === undefined || last === undefined) {
      throw new DataError(`the span ${JSON.stringify(span)} has no words`, { span })
    }
    const [before, behind] = [PUNCTUATION.includes(first), PUNCTUATION.includes(last)]
    if (!before && !behind) return rest.join('')
    if (before) rest.shift()
    if (behind) rest.pop()
    rest = [...strip(rest.join(''))]
  }
}

/** Where the words of a span first stand in a text, [start, end) in words between blanks; [0, 0] where they do not. */
export function spanPosition(span: string, text: string): [start: number, end: number] {
  const [wanted, words] = [splitWords(span), splitWords(text)]
  for (let at = 0; at + wanted.length <= words.length; at += 1) {
    if (wanted.every((word, i) => words[at + i] === word)) return [at, at + wanted.length]
  }
  return [0, 0]
}

/** A text without the punctuation at its ends, [start, end) in words: what a span is unless one knows better. */
export function wholeSpan(text: string): [start: number, end: number] {
  const words = splitWords(text)
  const isMark = (word: string | undefined) =>
    word !== undefined && [...word].every((letter) => PUNCTUATION.includes(letter))
  let [start, end] = [0, words.length]
  while (end > start && isMark(words[end - 1])) end -= 1
  while (start < end && isMark(words[start])) start += 1
  // Of "?!" all is said by its marks.
  return end > start ? [start, end] : [0, words.length]
}
