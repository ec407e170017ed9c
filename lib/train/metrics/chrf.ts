import { DataError } from '../../base/errors.js'
import { type ChangesOf, settings, type ValuesOf } from '../../base/settings.js'
import { ngrams } from './bleu.js'
import { addCounts, Metric, type References, textPairs } from './metric.js'
import { splitWords } from './values.js'

const SETTINGS = settings({
  /** Maximum order of character n-grams. Default 6. */
  charOrder: { type: 'integer', min: 1, below: 101, default: 6 },
  /** Maximum order of word n-grams: 0 for chrF (default), 2 for chrF++. */
  wordOrder: { type: 'integer', below: 101, default: 0 },
  /** Weight of recall relative to precision. Default 2. */
  beta: { type: 'number', infinite: true, default: 2 },
  lowercase: { type: 'boolean', default: false },
  /** Whether to include white space in character n-grams. Default false. */
  whitespace: { type: 'boolean', default: false },
})

/** Options of {@link corpusChrf}. @interface */
export type ChrfOptions = ChangesOf<typeof SETTINGS.table>

interface ChrfStatistics {
  samples: number
  /** For each order: n-grams of hypotheses, of references, and of both. */
  hypothesis: number[]
  reference: number[]
  matched: number[]
}

/**
 * Compute chrF or chrF++ of a corpus (Popović 2015, https://aclanthology.org/W15-3049), 0 … 100, equal to sacrebleu's
 * `corpus_chrf`. With several references, the one that gives the best score counts.
 *
 * @throws DataError without a hypothesis, or if the numbers of hypotheses and references differ
 */
export function corpusChrf(hypotheses: readonly string[], references: References, options: ChrfOptions = {}): number {
  const settings = SETTINGS.read('corpusChrf', options)
  return scoreOf(measure('corpusChrf', hypotheses, references, settings), settings)
}

/** `corpusChrf`, accumulated batch by batch. */
export class ChrfMetric extends Metric<readonly string[], References, ChrfStatistics, number> {
  constructor(options: ChrfOptions = {}) {
    const settings = SETTINGS.read('ChrfMetric', options)
    super({
      name: `chrf ${JSON.stringify(settings)}`,
      empty: () => noMatches(settings),
      measure: (hypotheses, references) => measure('ChrfMetric', hypotheses, references, settings),
      merge: addCounts,
      compute: (statistics) => scoreOf(statistics, settings),
    })
  }
}

type Settings = ValuesOf<typeof SETTINGS.table>

const noMatches = ({ charOrder, wordOrder }: Settings): ChrfStatistics => {
  const zeros = () => Array<number>(charOrder + wordOrder).fill(0)
  return { samples: 0, hypothesis: zeros(), reference: zeros(), matched: zeros() }
}

function measure(where: string, hypotheses: readonly string[], references: References, settings: Settings) {
  const sum = noMatches(settings)
  for (const [text, truth] of textPairs(where, 'hypotheses', hypotheses, references)) {
    const hypothesisNgrams = allNgrams(text, settings)
    let best: ChrfStatistics | undefined
    let bestScore = -1
    for (const reference of truth) {
      const found = compared(hypothesisNgrams, allNgrams(reference, settings), settings)
      const score = scoreOf(found, settings)
      if (score > bestScore) [best, bestScore] = [found, score]
    }
    addCounts(sum, best as ChrfStatistics)
  }
  return sum
}

function compared(mine: Map<string, number>[], theirs: Map<string, number>[], settings: Settings): ChrfStatistics {
  const result = { ...noMatches(settings), samples: 1 }
  mine.forEach((counts, order) => {
    const others = theirs[order] as Map<string, number>
    for (const count of others.values()) result.reference[order]! += count
    for (const [ngram, count] of counts) {
      // An order that the reference is too short for does not count against the hypothesis.
      if (others.size > 0) result.hypothesis[order]! += count
      result.matched[order]! += Math.min(count, others.get(ngram) ?? 0)
    }
  })
  return result
}

/** Return character n-grams of orders 1 to `charOrder`, then word n-grams of orders 1 to `wordOrder`. */
function allNgrams(text: string, { charOrder, wordOrder, lowercase, whitespace }: Settings): Map<string, number>[] {
  const line = lowercase ? text.toLowerCase() : text
  const characters = [...(whitespace ? line : splitWords(line).join(''))]
  const words = wordOrder > 0 ? splitWords(line).flatMap(withoutPunctuation) : []
  return [
    ...Array.from({ length: charOrder }, (_, i) => ngrams(characters, i + 1)),
    ...Array.from({ length: wordOrder }, (_, i) => ngrams(words, i + 1)),
  ]
}

const PUNCTUATION = /[!-/:-@[-`{-~]/u

/** Split off the punctuation mark at the end of a word, or else at its beginning. */
function withoutPunctuation(word: string): string[] {
  const characters = [...word]
  if (characters.length === 1) return [word]
  if (PUNCTUATION.test(characters.at(-1) as string))
    return [characters.slice(0, -1).join(''), characters.at(-1) as string]
  if (PUNCTUATION.test(characters[0] as string)) return [characters[0] as string, characters.slice(1).join('')]
  return [word]
}

function scoreOf({ samples, hypothesis, reference, matched }: ChrfStatistics, { beta }: Settings): number {
  if (samples === 0) throw new DataError('ChrfMetric: expected at least one sample, got none')
  let precision = 0
  let recall = 0
  let orders = 0
  matched.forEach((match, i) => {
    const [mine, theirs] = [hypothesis[i] as number, reference[i] as number]
    if (mine === 0 || theirs === 0) return
    precision += match / mine
    recall += match / theirs
    orders++
  })
  if (precision + recall === 0) return 0
  const factor = beta ** 2
  const [p, r] = [precision / orders, recall / orders]
  return (100 * (1 + factor) * p * r) / (factor * p + r)
}
