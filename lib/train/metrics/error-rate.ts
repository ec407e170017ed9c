import { type AlignmentChunk, align } from './alignment.js'
import { addCounts, Metric, requireSameCount, textsOf } from './metric.js'
import { squeeze, strip } from './values.js'

/** Counts of an error rate: equal elements, and the edits that turn the references into the hypotheses. */
export interface EditCounts {
  hits: number
  substitutions: number
  deletions: number
  insertions: number
}

export interface ErrorRate extends EditCounts {
  /**
   * Error rate: (substitutions + deletions + insertions) / elements of the references. It may be above 1. If all references are
   * empty it is the number of insertions, as in jiwer.
   */
  rate: number
  /** Match error rate: errors / (elements of the references + insertions). */
  mer: number
  /** Word information preserved and lost (Morris, Maier and Green 2004). */
  wip: number
  wil: number
}

export interface WordErrors extends ErrorRate {
  wer: number
  /** Alignment of hypothesis and reference of each sample. */
  alignments: AlignmentChunk[][]
}

export interface CharacterErrors extends ErrorRate {
  cer: number
  alignments: AlignmentChunk[][]
}

type Texts = string | readonly string[]

/**
 * Count the word errors of a corpus: jiwer's `process_words`. Words are separated by spaces; case and punctuation count, so
 * normalize texts first to ignore them.
 *
 * @param references one text for each sample, or a single one; may be empty
 * @throws DataError if the numbers of hypotheses and references differ, or an item is not a string
 */
export function wordErrors(references: Texts, hypotheses: Texts): WordErrors {
  const { alignments, counts } = errorsOf('wordErrors', references, hypotheses, words)
  const rates = ratesOf(counts)
  return { wer: rates.rate, ...rates, alignments }
}

/** Count the character errors of a corpus: jiwer's `process_characters`. A character is a Unicode code point; spaces count. */
export function characterErrors(references: Texts, hypotheses: Texts): CharacterErrors {
  const { alignments, counts } = errorsOf('characterErrors', references, hypotheses, characters)
  const rates = ratesOf(counts)
  return { cer: rates.rate, ...rates, alignments }
}

/** Return the word error rate of a corpus: jiwer's `wer`. Throws as `wordErrors`. */
export const wer = (references: Texts, hypotheses: Texts): number => wordErrors(references, hypotheses).wer

/** Return the character error rate of a corpus: jiwer's `cer`. Throws as `wordErrors`. */
export const cer = (references: Texts, hypotheses: Texts): number => characterErrors(references, hypotheses).cer

const words = (text: string): string[] =>
  strip(squeeze(text))
    .split(' ')
    .filter((word) => word !== '')

const characters = (text: string): string[] => [...strip(text)]

function errorsOf(where: string, references: Texts, hypotheses: Texts, elements: (text: string) => string[]) {
  const truth = textsOf(where, 'references', references)
  const guess = textsOf(where, 'hypotheses', hypotheses)
  requireSameCount(where, guess.length, truth.length)
  const counts = noEdits()
  const alignments = truth.map((text, i) => align(elements(text), elements(guess[i] as string)))
  for (const { type, refStart, refEnd, hypStart, hypEnd } of alignments.flat()) {
    if (type === 'equal') counts.hits += refEnd - refStart
    else if (type === 'substitute') counts.substitutions += refEnd - refStart
    else if (type === 'delete') counts.deletions += refEnd - refStart
    else counts.insertions += hypEnd - hypStart
  }
  return { alignments, counts }
}

const noEdits = (): EditCounts => ({ hits: 0, substitutions: 0, deletions: 0, insertions: 0 })

function ratesOf(counts: EditCounts): ErrorRate {
  const { hits, substitutions, deletions, insertions } = counts
  const inReference = hits + substitutions + deletions
  const inHypothesis = hits + substitutions + insertions
  const errors = substitutions + deletions + insertions
  if (inReference === 0) {
    const wip = inHypothesis === 0 ? 1 : 0
    return { rate: insertions, mer: 1 - wip, wip, wil: 1 - wip, ...counts }
  }
  const wip = inHypothesis === 0 ? 0 : (hits / inReference) * (hits / inHypothesis)
  return { rate: errors / inReference, mer: errors / (inReference + insertions), wip, wil: 1 - wip, ...counts }
}

/** `wordErrors` without the alignments, accumulated batch by batch. */
export class WordErrorRateMetric extends Metric<Texts, Texts, EditCounts, Omit<WordErrors, 'alignments'>> {
  constructor() {
    super({
      name: 'wer',
      empty: noEdits,
      measure: (hypotheses, references) => errorsOf('WordErrorRateMetric', references, hypotheses, words).counts,
      merge: addCounts,
      compute: (counts) => {
        const rates = ratesOf(counts)
        return { wer: rates.rate, ...rates }
      },
    })
  }
}

/** `characterErrors` without the alignments, accumulated batch by batch. */
export class CharacterErrorRateMetric extends Metric<Texts, Texts, EditCounts, Omit<CharacterErrors, 'alignments'>> {
  constructor() {
    super({
      name: 'cer',
      empty: noEdits,
      measure: (hypotheses, references) =>
        errorsOf('CharacterErrorRateMetric', references, hypotheses, characters).counts,
      merge: addCounts,
      compute: (counts) => {
        const rates = ratesOf(counts)
        return { cer: rates.rate, ...rates }
      },
    })
  }
}
