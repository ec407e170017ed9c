import { DataError } from '../../base/errors.js'
import { splitWords, strip } from '../../train/metrics/values.js'

const PUNCTUATION = '!"#$%&\'()*+,-./:;<=>?@[\\]^_`{|}~'

/**
 * Strip a span as the official scorer of ECF does: whitespace, then a character on either side, until neither side has punctuation.
 * @throws DataError for a span of punctuation only
 */
export function cleanSpan(span: string): string {
  let rest = [...strip(span)]
  for (;;) {
    const [first, last] = [rest[0], rest.at(-1)]
    if (first === undefined || last === undefined) {
      throw new DataError(`span: expected words, got ${JSON.stringify(span)}. Correct it.`, { span })
    }
    const [isStartMark, isEndMark] = [PUNCTUATION.includes(first), PUNCTUATION.includes(last)]
    if (!isStartMark && !isEndMark) return rest.join('')
    if (isStartMark) rest.shift()
    if (isEndMark) rest.pop()
    rest = [...strip(rest.join(''))]
  }
}

/** Return the first position of a span in a text, [start, end) in whitespace-separated words; [0, 0] if it does not occur. */
export function spanPosition(span: string, text: string): [start: number, end: number] {
  const [spanWords, words] = [splitWords(span), splitWords(text)]
  for (let at = 0; at + spanWords.length <= words.length; at += 1) {
    if (spanWords.every((word, i) => words[at + i] === word)) return [at, at + spanWords.length]
  }
  return [0, 0]
}

/** Return the span of a text without punctuation at its ends, [start, end) in words: the default span of a cause. */
export function wholeSpan(text: string): [start: number, end: number] {
  const words = splitWords(text)
  const isMark = (word: string | undefined) =>
    word !== undefined && [...word].every((letter) => PUNCTUATION.includes(letter))
  let [start, end] = [0, words.length]
  while (end > start && isMark(words[end - 1])) end -= 1
  while (start < end && isMark(words[start])) start += 1
  // A text of punctuation only is its own span.
  return end > start ? [start, end] : [0, words.length]
}
