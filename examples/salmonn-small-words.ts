/** Texts as words that can be compared: used by salmonn-small.ts and its data. */

const ONES =
  'zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen'
const TENS = '_ _ twenty thirty forty fifty sixty seventy eighty ninety'
const [ones, tens] = [ONES.split(' '), TENS.split(' ')] as [string[], string[]]

/** Small letters without punctuation, numbers below a hundred in words: prompts write `1` where they say `one`. */
export function normalText(text: string): string {
  const spelled = text.replace(/(?<![\d.,])\d{1,2}(?!\d|[.,]\d)/g, (digits) => {
    const number = Number(digits)
    if (number < 20) return ones[number]!
    return `${tens[Math.floor(number / 10)]}${number % 10 ? ` ${ones[number % 10]}` : ''}`
  })
  return spelled
    .toLowerCase()
    .replace(/[’`]/g, "'")
    .replace(/[^\p{L}\p{N}' ]+/gu, ' ')
    .replace(/(^|\s)'+|'+(\s|$)/g, ' ')
    .replace(/\s+/g, ' ')
    .trim()
}

/** Words to put in, leave out or change, least of all, to make one text the other. */
export function wordErrors(said: string, right: string): number {
  const [a, b] = [said, right].map((text) => (text === '' ? [] : text.split(' '))) as [string[], string[]]
  let row = b.map((_, j) => j + 1)
  row.unshift(0)
  for (const [i, word] of a.entries()) {
    const next = [i + 1]
    for (const [j, other] of b.entries()) {
      next.push(Math.min(row[j + 1]! + 1, next[j]! + 1, row[j]! + (word === other ? 0 : 1)))
    }
    row = next
  }
  return row.at(-1)!
}

/** Word errors of all texts over all words that are right: 1 for whoever says nothing. */
export function wordErrorRate(pairs: readonly { said: string; right: string }[]): number {
  const errors = pairs.reduce((sum, { said, right }) => sum + wordErrors(normalText(said), normalText(right)), 0)
  return errors / pairs.reduce((sum, { right }) => sum + normalText(right).split(' ').length, 0)
}
