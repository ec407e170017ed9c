import { patternOf, withoutEnd } from '../../../base/words.js'
import { accuracy, confusionMatrix, f1Score } from '../../../train/metrics/index.js'
import { CAUSE_EMOTIONS } from './strict.js'

/** Scores of a class. */
export interface ClassScores {
  name: string
  precision: number
  recall: number
  f1: number
  /** Number of records of this class. */
  support: number
  /** Number of predictions of this class. */
  said: number
}

export interface LabelScores {
  accuracy: number
  /** Mean F1, weighted by support. */
  weightedF1: number
  macroF1: number
  classes: ClassScores[]
  /** Rows are true labels, columns are predictions; the last column counts answers that did not parse. */
  confusion: { columns: string[]; rows: number[][] }
  /** Number of answers without a recognizable label. */
  unread: number
}

/** Class of answers that did not parse; it is never true. */
const UNREAD = '(unread)'

/**
 * Return the label that an answer means: the label that it equals, ignoring case and surrounding whitespace, otherwise the only label of
 * which it contains a word; undefined if none or several match.
 */
export function readLabel(answer: string, labels: readonly string[]): string | undefined {
  const plain = (raw: string) =>
    withoutEnd(
      raw
        .replace(/<\|[^|>]*\|>/g, ' ')
        .trim()
        .toLowerCase(),
      /[.!]/,
    )
  const text = plain(answer)
  const exact = labels.find((label) => plain(label) === text)
  if (exact !== undefined) return exact
  const has = (word: string) => new RegExp(`(?<!\\w)${patternOf(word)}(?!\\w)`).test(text)
  const found = labels.filter((label) => wordsOf(plain(label)).some(has))
  return found.length === 1 ? found[0] : undefined
}

/** Synonyms of labels. */
const WORDS: Readonly<Record<string, readonly string[]>> = {
  sadness: ['sadness', 'sad'],
  anger: ['anger', 'angry'],
  fear: ['fear', 'afraid', 'fearful'],
  joy: ['joy', 'happy', 'happiness', 'joyful'],
  happy: ['happy', 'joy', 'happiness', 'joyful'],
  surprise: ['surprise', 'surprised'],
  disgust: ['disgust', 'disgusted'],
}
const wordsOf = (label: string): readonly string[] => WORDS[label] ?? [label]

/** Score answers against true labels, as scikit-learn does. Answers that do not parse are wrong. */
export function labelScores(
  truth: readonly string[],
  answers: readonly string[],
  labels: readonly string[],
): LabelScores {
  const said = answers.map((answer) => readLabel(answer, labels) ?? UNREAD)
  const names = [...labels, UNREAD]
  const numbers = (list: readonly string[]) => list.map((name) => names.indexOf(name))
  const [a, b] = [numbers(truth), numbers(said)]
  const places = labels.map((_, i) => i)
  const rows = confusionMatrix(a, b, { labels: names.map((_, i) => i) }).matrix.slice(0, labels.length)
  const classes = places.map((place) => {
    const right = rows[place]?.[place] as number
    const support = (rows[place] as number[]).reduce((sum, count) => sum + count, 0)
    const count = b.filter((one) => one === place).length
    return { name: labels[place] as string, ...scoresOf(right, count, support) }
  })
  return {
    accuracy: accuracy(a, b),
    weightedF1: f1Score(a, b, { labels: places, average: 'weighted' }),
    macroF1: f1Score(a, b, { labels: places }),
    classes,
    confusion: { columns: names, rows },
    unread: said.filter((name) => name === UNREAD).length,
  }
}

/** Compute precision, recall and F1 of a class. Divisions by zero give 0. */
export function scoresOf(right: number, said: number, support: number) {
  const [precision, recall] = [ratio(right, said), ratio(right, support)]
  return { precision, recall, f1: ratio(2 * precision * recall, precision + recall), support, said }
}

const ratio = (a: number, b: number): number => (b === 0 ? 0 : a / b)

export interface CauseScores {
  precision: number
  recall: number
  f1: number
  weightedF1: number
  classes: ClassScores[]
  /** Number of parts of answers that are not a pair. They are ignored. */
  unread: number
  /** Number of duplicate pairs in answers. They are ignored. */
  repeated: number
}

/** Parse the pairs of an answer in normalized spelling, without duplicates, and count duplicates and parts that do not parse. */
export function readCauses(answer: string): { pairs: string[]; unread: number; repeated: number } {
  const parts = answer
    .replace(/<\|[^|>]*\|>/g, ' ')
    .split(/[;；\n]/)
    .map((part) => part.trim())
    .filter((part) => part !== '')
  const found = parts.map((part) => /^(\d+)\s*_\s*([a-z]+)\s*[,，]\s*(\d+)\.?$/i.exec(part))
  const pairs = found.flatMap((match) =>
    match ? [`${Number(match[1])}_${(match[2] as string).toLowerCase()},${Number(match[3])}`] : [],
  )
  const once = [...new Set(pairs)]
  return { pairs: once, unread: parts.length - pairs.length, repeated: pairs.length - once.length }
}

/** Score pairs of emotion and cause over all records, including those without a cause. Divisions by zero give 0. */
export function causeScores(truth: readonly string[], answers: readonly string[]): CauseScores {
  const counts = new Map<string, { right: number; said: number; support: number }>()
  const at = (pair: string) => {
    const name = /_([a-z]+),/.exec(pair)?.[1] as string
    const found = counts.get(name) ?? { right: 0, said: 0, support: 0 }
    counts.set(name, found)
    return found
  }
  for (const name of CAUSE_EMOTIONS) counts.set(name, { right: 0, said: 0, support: 0 })
  const sum = { right: 0, said: 0, support: 0, unread: 0, repeated: 0 }
  for (const [i, label] of truth.entries()) {
    const { pairs: wanted } = readCauses(label)
    const { pairs, unread, repeated } = readCauses(answers[i] as string)
    sum.unread += unread
    sum.repeated += repeated
    sum.support += wanted.length
    sum.said += pairs.length
    for (const pair of wanted) at(pair).support += 1
    for (const pair of pairs) at(pair).said += 1
    for (const pair of pairs.filter((one) => wanted.includes(one))) {
      at(pair).right += 1
      sum.right += 1
    }
  }
  const classes = [...counts].map(([name, { right, said, support }]) => ({ name, ...scoresOf(right, said, support) }))
  const { precision, recall, f1 } = scoresOf(sum.right, sum.said, sum.support)
  const weightedF1 = ratio(
    classes.reduce((total, { f1: own, support }) => total + own * support, 0),
    sum.support,
  )
  return { precision, recall, f1, weightedF1, classes, unread: sum.unread, repeated: sum.repeated }
}

/** Return the first number of an answer, clipped to -3 … 3; undefined if there is none. */
export function readScore(answer: string): number | undefined {
  const match = /[-+−]?\d+(?:\.\d+)?|[-+−]?\.\d+/.exec(answer)
  return match ? Math.min(3, Math.max(-3, Number(match[0].replace('−', '-')))) : undefined
}
