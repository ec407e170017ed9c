import { shown } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { f1Score } from '../../../train/metrics/index.js'
import { EMOTION_LABELS, SENTIMENT_LABELS } from '../published/wording.js'

/** A line of a result file, unchecked. */
export type ResultLine = Readonly<Record<string, unknown>>

/** Python's exception at which the published evaluation fails. */
export type PythonFault =
  | 'KeyError'
  | 'ValueError'
  | 'TypeError'
  | 'AttributeError'
  | 'IndexError'
  | 'ZeroDivisionError'
  | 'JSONDecodeError'

/** Results of compute_result.py of https://github.com/liaolea/EmoVerse. */
export interface StrictScores {
  accuracy?: number
  /** Recall of positive and of negative records. */
  recalls?: [positive: number, negative: number]
  /** F1: for emotions weighted by support, for causes over all pairs. */
  f1?: number
  /** For causes: mean F1 over emotions, weighted by support. */
  weightedF1?: number
}

/** Function of the script: for EmoVerse's own answers, or for those of other models, in which it searches for label words. */
export type StrictVariant = 'emoverse' | 'other'
export type StrictTask = 'sentiment' | 'emotion' | 'causes'

export interface StrictOptions {
  variant?: StrictVariant
  /**
   * Labels in the order of the script's list. Default: MOSEI's, as in the script (MELD's are in a comment there). For 'other': the words to
   * search for; each label is the word with a capital and a period.
   */
  labels?: readonly string[]
  /** For sentiment: only lines whose first image is one of these count. With 'other' the counter of correct answers starts at 83.87, as in the script. */
  countedImages?: readonly string[]
}

/**
 * Compute the published evaluation with all its faults: it compares exactly and case-sensitively, leaves out records without a cause, and
 * fails on a division by zero and, in some tasks, on answers that are not a label.
 * @throws DataError with `kind`, the name of Python's exception, where it fails
 */
export function strictScores(task: StrictTask, lines: Iterable<ResultLine>, options: StrictOptions = {}): StrictScores {
  const { variant = 'emoverse' } = options
  if (task === 'causes') return variant === 'emoverse' ? causes(lines, parsePairs) : causes(lines, parseNumbers)
  if (task === 'emotion') return variant === 'emoverse' ? emotions(lines, options) : otherEmotions(lines, options)
  return variant === 'emoverse' ? sentiment(lines, options) : otherSentiment(lines, options)
}

/** Label pairs that the published evaluation compares, by line: the true label, and the parsed response ('' if it has none). */
export interface StrictAnswers {
  truth: string[]
  predicted: string[]
}

/** Return the label pairs of sentiment or emotion, after `strictScores` succeeded. */
export function strictAnswers(
  task: 'sentiment' | 'emotion',
  lines: Iterable<ResultLine>,
  { variant = 'emoverse', labels, countedImages }: StrictOptions,
): StrictAnswers & { labels: readonly string[] } {
  const words = task === 'sentiment' ? SENTIMENT_WORDS : (labels ?? EMOTION_WORDS)
  const isOther = variant === 'other'
  const own = task === 'sentiment' ? SENTIMENT_LABELS : (labels ?? EMOTION_LABELS.mosei)
  const names = isOther ? words.map(labeled) : own
  const none = task === 'sentiment' ? names.length - 1 : words.indexOf('neutral')
  const answers: StrictAnswers = { truth: [], predicted: [] }
  for (const { label, response } of countedLines(lines, task === 'sentiment' ? countedImages : undefined)) {
    if (!names.includes(label as string)) continue
    const found = isOther ? words.findIndex((word) => holds(response, word)) : names.indexOf(response as string)
    answers.truth.push(label as string)
    answers.predicted.push(names[found < 0 && isOther ? none : found] ?? '')
  }
  return { ...answers, labels: names }
}

/** Return a response that the evaluation reads as a label. */
export const responseFor = (label: string, variant: StrictVariant = 'emoverse'): string =>
  variant === 'other' ? label.toLowerCase().replace(/\.$/, '') : label

/** @throws always */
function fail(kind: PythonFault, what: string): never {
  throw new DataError(`result file: ${what}. The published evaluation ends here with ${kind}.`, { kind })
}

/** Yield the lines that count. */
function* countedLines(
  lines: Iterable<ResultLine>,
  countedImages: readonly string[] | undefined,
): Generator<ResultLine> {
  for (const line of lines) {
    if (countedImages === undefined) yield line
    else {
      const images = entryOf(line, 'images')
      if (!Array.isArray(images)) fail('TypeError', `expected images to be a list, got ${shown(images)}`)
      if (images.length === 0) fail('IndexError', 'expected at least one of images, got an empty list')
      if (countedImages.includes(images[0] as string)) yield line
    }
  }
}

function entryOf(line: ResultLine, key: string): unknown {
  if (!Object.hasOwn(line, key)) fail('KeyError', `expected a line with ${key}, got ${Object.keys(line).join(', ')}`)
  return line[key]
}

const divided = (a: number, b: number): number =>
  b === 0 ? fail('ZeroDivisionError', `expected a divisor above 0, got ${a} / 0`) : a / b

function sentiment(lines: Iterable<ResultLine>, { countedImages }: StrictOptions): StrictScores {
  const [positive, negative] = SENTIMENT_LABELS
  const all = { [positive]: 0, [negative]: 0 }
  const right = { [positive]: 0, [negative]: 0 }
  for (const line of countedLines(lines, countedImages)) {
    const label = entryOf(line, 'label')
    if (label === positive || label === negative) all[label] += 1
    const response = entryOf(line, 'response')
    if (response === label && (response === positive || response === negative)) right[response] += 1
  }
  const recalls: [number, number] = [divided(right[positive], all[positive]), divided(right[negative], all[negative])]
  return { recalls, accuracy: divided(right[positive] + right[negative], all[positive] + all[negative]) }
}

function placeOf(labels: readonly string[], value: unknown): number {
  const place = labels.indexOf(value as string)
  return place < 0
    ? fail('ValueError', `expected one of the labels ${labels.join(', ')}, got ${JSON.stringify(value)}`)
    : place
}

const f1Of = (truth: number[], predicted: number[]): number => f1Score(truth, predicted, { average: 'weighted' })

function emotions(lines: Iterable<ResultLine>, { labels = EMOTION_LABELS.mosei }: StrictOptions): StrictScores {
  const [truth, predicted]: [number[], number[]] = [[], []]
  for (const line of lines) {
    predicted.push(placeOf(labels, entryOf(line, 'response')))
    truth.push(placeOf(labels, entryOf(line, 'label')))
  }
  const right = truth.filter((label, i) => label === predicted[i]).length
  return { accuracy: divided(right, truth.length), f1: f1Of(truth, predicted) }
}

/** Return whether Python's `in` finds a word in a response, which may be a list or dict. */
function holds(response: unknown, word: string): boolean {
  if (typeof response === 'string' || Array.isArray(response)) return response.includes(word)
  if (typeof response === 'object' && response !== null) return Object.hasOwn(response, word)
  return fail('TypeError', `expected a response to search for words, got ${JSON.stringify(response)}`)
}

const labeled = (word: string): string => `${word.charAt(0).toUpperCase()}${word.slice(1)}.`

const SENTIMENT_WORDS = ['positive', 'negative']
const EMOTION_WORDS = ['anger', 'sadness', 'surprise', 'disgust', 'happy', 'neutral', 'fear']

function otherSentiment(lines: Iterable<ResultLine>, { countedImages }: StrictOptions): StrictScores {
  const labels = SENTIMENT_WORDS.map(labeled)
  let count = 0
  let right = countedImages === undefined ? 0 : 83.87
  for (const line of countedLines(lines, countedImages)) {
    const response = entryOf(line, 'response')
    // Without a match the index is -1, which in Python selects the last label.
    const predicted = labels.at(SENTIMENT_WORDS.findIndex((word) => holds(response, word)))
    placeOf(labels, entryOf(line, 'label'))
    count += 1
    if (predicted === line.label) right += 1
  }
  return { accuracy: divided(right, count) }
}

function otherEmotions(lines: Iterable<ResultLine>, { labels: words = EMOTION_WORDS }: StrictOptions): StrictScores {
  const labels = words.map(labeled)
  const [truth, predicted]: [number[], number[]] = [[], []]
  for (const line of lines) {
    const response = entryOf(line, 'response')
    const found = words.findIndex((word) => holds(response, word))
    predicted.push(found < 0 ? placeOf(words, 'neutral') : found)
    truth.push(placeOf(labels, entryOf(line, 'label')))
  }
  const right = truth.filter((label, i) => label === predicted[i]).length
  return { accuracy: divided(right, truth.length), f1: f1Of(truth, predicted) }
}

/** Emotions of causes, in the order of the script. */
export const CAUSE_EMOTIONS = ['disgust', 'anger', 'joy', 'sadness', 'surprise', 'fear'] as const

/** Parsed response: number of causes, the emotion of each, and the emotions of correct causes. */
interface PredictedCauses {
  count: number
  predicted: string[]
  right: string[]
}

type ReadCauses = (response: unknown, labels: readonly string[]) => PredictedCauses

/** Count true, predicted and correct pairs, by emotion and in total. */
function countCauses(lines: Iterable<ResultLine>, read: ReadCauses) {
  const zeros = () => new Map<string, number>(CAUSE_EMOTIONS.map((name) => [name, 0]))
  const [truth, predicted, right] = [zeros(), zeros(), zeros()]
  const add = (counts: Map<string, number>, name: string) => {
    const before = counts.get(name)
    if (before !== undefined) counts.set(name, before + 1)
  }
  let [pairs, predictedCount, found] = [0, 0, 0]
  for (const line of lines) {
    const labels = splitText(entryOf(line, 'label'))
    if (labels[0] === '') continue
    pairs += labels.length
    for (const label of labels) add(truth, emotionOf(label))
    const own = read(entryOf(line, 'response'), labels)
    predictedCount += own.count
    found += own.right.length
    for (const name of own.right) add(right, name)
    for (const name of own.predicted) add(predicted, name)
  }
  return { truth, predicted, right, pairs, predictedCount, found }
}

/** Count true, predicted and correct pairs by emotion, as the published evaluation does. */
export function strictCauseCounts(lines: Iterable<ResultLine>, variant: StrictVariant = 'emoverse') {
  const { truth, predicted, right } = countCauses(lines, variant === 'emoverse' ? parsePairs : parseNumbers)
  return CAUSE_EMOTIONS.map((name) => {
    const of = (counts: Map<string, number>) => counts.get(name) as number
    return { name, support: of(truth), predicted: of(predicted), right: of(right) }
  })
}

function causes(lines: Iterable<ResultLine>, read: ReadCauses): StrictScores {
  const { truth, predicted, right, pairs, predictedCount, found } = countCauses(lines, read)
  const f1s = CAUSE_EMOTIONS.map((name) => {
    const precision = divided(right.get(name) as number, predicted.get(name) as number)
    const recall = divided(right.get(name) as number, truth.get(name) as number)
    return precision + recall > 0 ? (2 * precision * recall) / (precision + recall) : 0
  })
  const total = [...truth.values()].reduce((sum, count) => sum + count, 0)
  const weightedF1 = CAUSE_EMOTIONS.reduce(
    (sum, name, i) => sum + divided((f1s[i] as number) * (truth.get(name) as number), total),
    0,
  )
  const [p, r] = [divided(found, predictedCount), divided(found, pairs)]
  return { f1: divided(2 * p * r, p + r), weightedF1 }
}

function splitText(value: unknown): string[] {
  if (typeof value !== 'string') fail('AttributeError', `expected a string to split, got ${JSON.stringify(value)}`)
  return (value as string).split(';')
}

function emotionOf(pair: string): string {
  const name = (pair.split(',')[0] as string).split('_')[1]
  return name ?? fail('IndexError', `expected a pair such as 3_joy,2, got ${JSON.stringify(pair)}`)
}

function parsePairs(response: unknown, labels: readonly string[]): PredictedCauses {
  const pairs = splitText(response)
  // In order, as in the script: the first part without an emotion fails.
  const predicted = pairs.map(emotionOf)
  return { count: pairs.length, predicted, right: predicted.filter((_, i) => labels.includes(pairs[i] as string)) }
}

/** Take every number in a response as a cause. A correct one has the emotion of its true pair, any other that of the first. */
function parseNumbers(response: unknown, labels: readonly string[]): PredictedCauses {
  const numbers = labels.map((label) => parsePythonInt(label.split(',')[1]))
  if (typeof response !== 'string')
    fail('TypeError', `expected a string to search for numbers, got ${JSON.stringify(response)}`)
  const found = [...(response as string).matchAll(/\p{Nd}+/gu)].map(([digits]) => parseDigits(digits))
  const known = found.filter((number) => numbers.includes(number))
  return {
    count: found.length,
    predicted: found.map(() => emotionOf(labels[0] as string)),
    right: known.map((number) => emotionOf(labels[numbers.indexOf(number)] as string)),
  }
}

/** Parse an integer as Python's `int` does. */
function parsePythonInt(text: string | undefined): number {
  if (text === undefined) return fail('IndexError', 'expected a label such as 3_joy,2, got one without a cause')
  const match = /^\s*([+-]?)(\p{Nd}+(?:_\p{Nd}+)*)\s*$/u.exec(text)
  if (!match) return fail('ValueError', `expected an integer, got ${JSON.stringify(text)}`)
  return Number(`${match[1]}1`) * parseDigits((match[2] as string).replaceAll('_', ''))
}

/** Parse digits of any script. Unicode has the ten digits of a script in a row. */
function parseDigits(text: string): number {
  return Number(
    [...text]
      .map((digit) => {
        let place = digit.codePointAt(0) as number
        const own = place
        while (/\p{Nd}/u.test(String.fromCodePoint(place - 1))) place -= 1
        return (own - place) % 10
      })
      .join(''),
  )
}
