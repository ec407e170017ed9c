import { DataError } from '../../../base/errors.js'
import { f1Score } from '../../../train/metrics/index.js'
import { EMOTION_LABELS, SENTIMENT_LABELS } from '../published/wording.js'

/** A line of a result file as it stands there, unchecked. */
export type ResultLine = Readonly<Record<string, unknown>>

/** What Python throws where the published evaluation ends. */
export type PythonFault =
  | 'KeyError'
  | 'ValueError'
  | 'TypeError'
  | 'AttributeError'
  | 'IndexError'
  | 'ZeroDivisionError'
  | 'JSONDecodeError'

/** Numbers of https://github.com/liaolea/EmoVerse's compute_result.py, as it comes to them. */
export interface StrictScores {
  accuracy?: number
  /** The share of the positive, and of the negative records, that are right. */
  recalls?: [positive: number, negative: number]
  /** Of emotions weighted by how often each is true; of causes over all pairs. */
  f1?: number
  /** Of causes: the mean over emotions, weighted by how often each is true. */
  weightedF1?: number
}

/** Which of its functions: for EmoVerse's own answers, or for those of other models, in which words are looked for. */
export type StrictVariant = 'emoverse' | 'other'
export type StrictTask = 'sentiment' | 'emotion' | 'causes'

export interface StrictOptions {
  variant?: StrictVariant
  /**
   * Labels in the order of the script's list. Default MOSEI's, as it stands there; MELD's stands in a comment. For 'other': the
   * words that are looked for, each of which is a label with a capital and a stop.
   */
  labels?: readonly string[]
  /** Of sentiment: only lines whose first picture is one of these. With 'other' its counter of right ones begins at 83.87, as there. */
  pictures?: readonly string[]
}

/**
 * The published evaluation with all its faults: exact and case-sensitive, records without a cause left out, divisions by zero and
 * answers that are no label an end of everything.
 * @throws DataError with `kind`, the name of Python's exception, where it ends
 */
export function strictScores(task: StrictTask, lines: Iterable<ResultLine>, options: StrictOptions = {}): StrictScores {
  const { variant = 'emoverse' } = options
  if (task === 'causes') return variant === 'emoverse' ? causes(lines, ownPairs) : causes(lines, numbersSaid)
  if (task === 'emotion') return variant === 'emoverse' ? emotions(lines, options) : otherEmotions(lines, options)
  return variant === 'emoverse' ? sentiment(lines, options) : otherSentiment(lines, options)
}

/** What the published evaluation compares, line by line: the truth, and what it takes a response for; '' where for none. */
export interface StrictAnswers {
  truth: string[]
  said: string[]
}

/** Of sentiment and emotion, once `strictScores` has come to its end. */
export function strictAnswers(
  task: 'sentiment' | 'emotion',
  lines: Iterable<ResultLine>,
  { variant = 'emoverse', labels, pictures }: StrictOptions,
): StrictAnswers & { labels: readonly string[] } {
  const words = task === 'sentiment' ? SENTIMENT_WORDS : (labels ?? EMOTION_WORDS)
  const isOther = variant === 'other'
  const own = task === 'sentiment' ? SENTIMENT_LABELS : (labels ?? EMOTION_LABELS.mosei)
  const names = isOther ? words.map(labelled) : own
  const none = task === 'sentiment' ? names.length - 1 : words.indexOf('neutral')
  const answers: StrictAnswers = { truth: [], said: [] }
  for (const { label, response } of of(lines, task === 'sentiment' ? pictures : undefined)) {
    if (!names.includes(label as string)) continue
    const found = isOther ? words.findIndex((word) => holds(response, word)) : names.indexOf(response as string)
    answers.truth.push(label as string)
    answers.said.push(names[found < 0 && isOther ? none : found] ?? '')
  }
  return { ...answers, labels: names }
}

/** A response that stands for a label. */
export const responseFor = (label: string, variant: StrictVariant = 'emoverse'): string =>
  variant === 'other' ? label.toLowerCase().replace(/\.$/, '') : label

/** @throws always */
function fail(kind: PythonFault, what: string): never {
  throw new DataError(`The published evaluation ends with ${kind}: ${what}`, { kind })
}

/** A list of lines in whose place some may be left out. */
function* of(lines: Iterable<ResultLine>, pictures: readonly string[] | undefined): Generator<ResultLine> {
  for (const line of lines) {
    if (pictures === undefined) yield line
    else {
      const images = entryOf(line, 'images')
      if (!Array.isArray(images)) fail('TypeError', 'images is no list')
      if (images.length === 0) fail('IndexError', 'images is empty')
      if (pictures.includes(images[0] as string)) yield line
    }
  }
}

function entryOf(line: ResultLine, key: string): unknown {
  if (!Object.hasOwn(line, key)) fail('KeyError', `a line has no ${key}`)
  return line[key]
}

const divided = (a: number, b: number): number => (b === 0 ? fail('ZeroDivisionError', `${a} / 0`) : a / b)

function sentiment(lines: Iterable<ResultLine>, { pictures }: StrictOptions): StrictScores {
  const [positive, negative] = SENTIMENT_LABELS
  const all = { [positive]: 0, [negative]: 0 }
  const right = { [positive]: 0, [negative]: 0 }
  for (const line of of(lines, pictures)) {
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
  return place < 0 ? fail('ValueError', `${JSON.stringify(value)} is not in the list of labels`) : place
}

const f1Of = (truth: number[], said: number[]): number => f1Score(truth, said, { average: 'weighted' })

function emotions(lines: Iterable<ResultLine>, { labels = EMOTION_LABELS.mosei }: StrictOptions): StrictScores {
  const [truth, said]: [number[], number[]] = [[], []]
  for (const line of lines) {
    said.push(placeOf(labels, entryOf(line, 'response')))
    truth.push(placeOf(labels, entryOf(line, 'label')))
  }
  const right = truth.filter((label, i) => label === said[i]).length
  return { accuracy: divided(right, truth.length), f1: f1Of(truth, said) }
}

/** Whether Python finds a word in a response; it looks for it in lists too. */
function holds(response: unknown, word: string): boolean {
  if (typeof response === 'string' || Array.isArray(response)) return response.includes(word)
  if (typeof response === 'object' && response !== null) return Object.hasOwn(response, word)
  return fail('TypeError', `a response is ${JSON.stringify(response)}, in which no word can be looked for`)
}

const labelled = (word: string): string => `${word.charAt(0).toUpperCase()}${word.slice(1)}.`

const SENTIMENT_WORDS = ['positive', 'negative']
const EMOTION_WORDS = ['anger', 'sadness', 'surprise', 'disgust', 'happy', 'neutral', 'fear']

function otherSentiment(lines: Iterable<ResultLine>, { pictures }: StrictOptions): StrictScores {
  const labels = SENTIMENT_WORDS.map(labelled)
  let count = 0
  let right = pictures === undefined ? 0 : 83.87
  for (const line of of(lines, pictures)) {
    const response = entryOf(line, 'response')
    // None found is the last: Python counts -1 from the end.
    const said = labels.at(SENTIMENT_WORDS.findIndex((word) => holds(response, word)))
    placeOf(labels, entryOf(line, 'label'))
    count += 1
    if (said === line.label) right += 1
  }
  return { accuracy: divided(right, count) }
}

function otherEmotions(lines: Iterable<ResultLine>, { labels: words = EMOTION_WORDS }: StrictOptions): StrictScores {
  const labels = words.map(labelled)
  const [truth, said]: [number[], number[]] = [[], []]
  for (const line of lines) {
    const response = entryOf(line, 'response')
    const found = words.findIndex((word) => holds(response, word))
    said.push(found < 0 ? placeOf(words, 'neutral') : found)
    truth.push(placeOf(labels, entryOf(line, 'label')))
  }
  const right = truth.filter((label, i) => label === said[i]).length
  return { accuracy: divided(right, truth.length), f1: f1Of(truth, said) }
}

/** In the order of the script. */
export const CAUSE_EMOTIONS = ['disgust', 'anger', 'joy', 'sadness', 'surprise', 'fear'] as const

/** What a response says: how many causes, and of which emotion each is, and each that is right. */
interface SaidCauses {
  count: number
  said: string[]
  right: string[]
}

type ReadCauses = (response: unknown, labels: readonly string[]) => SaidCauses

/** How many pairs there are, were said and are right, of each emotion and in all. */
function countCauses(lines: Iterable<ResultLine>, read: ReadCauses) {
  const zeros = () => new Map<string, number>(CAUSE_EMOTIONS.map((name) => [name, 0]))
  const [truth, said, right] = [zeros(), zeros(), zeros()]
  const add = (counts: Map<string, number>, name: string) => {
    const before = counts.get(name)
    if (before !== undefined) counts.set(name, before + 1)
  }
  let [pairs, spoken, found] = [0, 0, 0]
  for (const line of lines) {
    const labels = splitText(entryOf(line, 'label'))
    if (labels[0] === '') continue
    pairs += labels.length
    for (const label of labels) add(truth, emotionOf(label))
    const own = read(entryOf(line, 'response'), labels)
    spoken += own.count
    found += own.right.length
    for (const name of own.right) add(right, name)
    for (const name of own.said) add(said, name)
  }
  return { truth, said, right, pairs, spoken, found }
}

/** Of each emotion how many pairs there are, were said and are right, as the published evaluation counts. */
export function strictCauseCounts(lines: Iterable<ResultLine>, variant: StrictVariant = 'emoverse') {
  const { truth, said, right } = countCauses(lines, variant === 'emoverse' ? ownPairs : numbersSaid)
  return CAUSE_EMOTIONS.map((name) => {
    const of = (counts: Map<string, number>) => counts.get(name) as number
    return { name, support: of(truth), said: of(said), right: of(right) }
  })
}

function causes(lines: Iterable<ResultLine>, read: ReadCauses): StrictScores {
  const { truth, said, right, pairs, spoken, found } = countCauses(lines, read)
  const f1s = CAUSE_EMOTIONS.map((name) => {
    const precision = divided(right.get(name) as number, said.get(name) as number)
    const recall = divided(right.get(name) as number, truth.get(name) as number)
    return precision + recall > 0 ? (2 * precision * recall) / (precision + recall) : 0
  })
  const total = [...truth.values()].reduce((sum, count) => sum + count, 0)
  const weightedF1 = CAUSE_EMOTIONS.reduce(
    (sum, name, i) => sum + divided((f1s[i] as number) * (truth.get(name) as number), total),
    0,
  )
  const [p, r] = [divided(found, spoken), divided(found, pairs)]
  return { f1: divided(2 * p * r, p + r), weightedF1 }
}

function splitText(value: unknown): string[] {
  if (typeof value !== 'string') fail('AttributeError', `${JSON.stringify(value)} has no split`)
  return (value as string).split(';')
}

function emotionOf(pair: string): string {
  const name = (pair.split(',')[0] as string).split('_')[1]
  return name ?? fail('IndexError', `there is no emotion in ${JSON.stringify(pair)}`)
}

function ownPairs(response: unknown, labels: readonly string[]): SaidCauses {
  const pairs = splitText(response)
  // As there, in turn: the first without an emotion ends it.
  const said = pairs.map(emotionOf)
  return { count: pairs.length, said, right: said.filter((_, i) => labels.includes(pairs[i] as string)) }
}

/** Every number in a response is a cause; its emotion that of the first true pair, or of the pair that it is right about. */
function numbersSaid(response: unknown, labels: readonly string[]): SaidCauses {
  const numbers = labels.map((label) => wholeOf(label.split(',')[1]))
  if (typeof response !== 'string') fail('TypeError', `${JSON.stringify(response)} is no text to look for numbers in`)
  const found = [...(response as string).matchAll(/\p{Nd}+/gu)].map(([digits]) => digitsOf(digits))
  const known = found.filter((number) => numbers.includes(number))
  return {
    count: found.length,
    said: found.map(() => emotionOf(labels[0] as string)),
    right: known.map((number) => emotionOf(labels[numbers.indexOf(number)] as string)),
  }
}

/** What Python's `int` makes of a text. */
function wholeOf(text: string | undefined): number {
  if (text === undefined) return fail('IndexError', 'a label has no cause')
  const match = /^\s*([+-]?)(\p{Nd}+(?:_\p{Nd}+)*)\s*$/u.exec(text)
  if (!match) return fail('ValueError', `${JSON.stringify(text)} is no whole number`)
  return Number(`${match[1]}1`) * digitsOf((match[2] as string).replaceAll('_', ''))
}

/** Digits of any script: each has its nine followers behind its zero. */
function digitsOf(text: string): number {
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
