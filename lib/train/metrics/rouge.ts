import { DataError } from '../../base/errors.js'
import { ngrams } from './bleu.js'
import { addCounts, Metric, type References, textPairs } from './metric.js'

/** Means over the samples, 0 … 1. */
export interface Rouge {
  rouge1: RougeScore
  rouge2: RougeScore
  rougeL: RougeScore
}

export interface RougeScore {
  precision: number
  recall: number
  f1: number
}

interface RougeStatistics {
  samples: number
  /** Precision, recall and F1 of rouge1, rouge2 and rougeL, summed. */
  sums: number[]
}

/**
 * Compute ROUGE-1, -2 and -L (Lin 2004, https://aclanthology.org/W04-1013), the means over samples of the scores of the Python
 * package rouge_score without its stemmer: common words, pairs of words, and longest common subsequence. Words are runs of a to
 * z and digits in lower case, so other scripts score 0. With several references the one with the best F1 counts.
 *
 * @throws DataError without a prediction, or if the numbers of predictions and references differ
 */
export function rouge(predictions: readonly string[], references: References): Rouge {
  return scoresOf(measure('rouge', predictions, references))
}

/** `rouge`, accumulated batch by batch. */
export class RougeMetric extends Metric<readonly string[], References, RougeStatistics, Rouge> {
  constructor() {
    super({
      name: 'rouge',
      empty: none,
      measure: (predictions, references) => measure('RougeMetric', predictions, references),
      merge: addCounts,
      compute: scoresOf,
    })
  }
}

const none = (): RougeStatistics => ({ samples: 0, sums: Array<number>(9).fill(0) })

function measure(where: string, predictions: readonly string[], references: References): RougeStatistics {
  const sum = none()
  for (const [text, truth] of textPairs(where, 'predictions', predictions, references)) {
    const words = wordsOf(text)
    const others = truth.map(wordsOf)
    const kinds = [
      others.map((other) => overlap(words, other, 1)),
      others.map((other) => overlap(words, other, 2)),
      others.map((other) => score(commonSubsequence(words, other), words.length, other.length)),
    ]
    const best = kinds.map((scores) => scores.reduce((a, b) => (b.f1 > a.f1 ? b : a)))
    addCounts(sum, { samples: 1, sums: best.flatMap(({ precision, recall, f1 }) => [precision, recall, f1]) })
  }
  return sum
}

const wordsOf = (text: string): string[] => text.toLowerCase().match(/[a-z0-9]+/g) ?? []

function overlap(words: string[], others: string[], n: number): RougeScore {
  const theirs = ngrams(others, n)
  let common = 0
  for (const [ngram, count] of ngrams(words, n)) common += Math.min(count, theirs.get(ngram) ?? 0)
  return score(common, Math.max(words.length - n + 1, 0), Math.max(others.length - n + 1, 0))
}

/** @internal */
export function score(common: number, inPrediction: number, inReference: number): RougeScore {
  const precision = common / Math.max(inPrediction, 1)
  const recall = common / Math.max(inReference, 1)
  const f1 = precision + recall > 0 ? (2 * precision * recall) / (precision + recall) : 0
  return { precision, recall, f1 }
}

/** Return the length of the longest common subsequence. @internal */
export function commonSubsequence(a: string[], b: string[]): number {
  let above = new Uint32Array(b.length + 1)
  for (const word of a) {
    const row = new Uint32Array(b.length + 1)
    for (let j = 0; j < b.length; j++) {
      row[j + 1] = word === b[j] ? (above[j] as number) + 1 : Math.max(above[j + 1] as number, row[j] as number)
    }
    above = row
  }
  return above[b.length] as number
}

function scoresOf({ samples, sums }: RougeStatistics): Rouge {
  if (samples === 0) throw new DataError('RougeMetric: expected at least one sample, got none')
  const at = (i: number): RougeScore => ({
    precision: (sums[i] as number) / samples,
    recall: (sums[i + 1] as number) / samples,
    f1: (sums[i + 2] as number) / samples,
  })
  return { rouge1: at(0), rouge2: at(3), rougeL: at(6) }
}
