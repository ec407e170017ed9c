import { DataError } from '../../base/errors.js'
import { type ChangesOf, settings, type ValuesOf } from '../../base/settings.js'
import { addCounts, Metric, type References, textPairs } from './metric.js'
import { splitWords, stripEnd } from './values.js'

const SETTINGS = settings({
  /** Tokenizer: WMT's mteval-v13a, its international form, code points, or none (split at white space). Default '13a'. */
  tokenize: { type: ['13a', 'intl', 'char', 'none'], default: '13a' },
  lowercase: { type: 'boolean', default: false },
  /**
   * Replacement of a precision of 0 (Chen and Cherry 2014): half, quarter, … of a match ('exp', the default), `smoothValue`
   * matches ('floor'), `smoothValue` added to all counts above 1-grams ('add-k'), or 0 ('none').
   */
  smoothMethod: { type: ['exp', 'floor', 'add-k', 'none'], default: 'exp' },
  /** Smoothing value. Default 0.1 for 'floor' and 1 for 'add-k'. */
  smoothValue: { type: 'number', infinite: true },
  /** Maximum n-gram order. Default 4. */
  maxNgramOrder: { type: 'integer', min: 1, below: 101, default: 4 },
  /** Leave out orders for which the texts are too short. Default false; in `sentenceBleu` true. */
  effectiveOrder: { type: 'boolean', default: false },
})

/** Options of {@link corpusBleu}. @interface */
export type BleuOptions = ChangesOf<typeof SETTINGS.table>

export interface Bleu {
  /** Score from 0 to 100. */
  score: number
  /** Precision of each order, in percent. */
  precisions: number[]
  brevityPenalty: number
  hypothesisLength: number
  referenceLength: number
  /** Number of matching n-grams of each order, and of all. */
  counts: number[]
  totals: number[]
  /**
   * Settings in the form of sacrebleu 2.6.0, without its version: references per sample, case, effective order, tokenizer,
   * smoothing. `nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp`. Report it with the score.
   */
  signature: string
}

interface BleuStatistics {
  samples: number
  hypothesisLength: number
  referenceLength: number
  counts: number[]
  totals: number[]
  /** Sums over the samples of 1 / n and of n references, which show whether n is the same for all. */
  references: number
  inverseReferences: number
}

/**
 * Compute corpus BLEU (Papineni et al. 2002, https://aclanthology.org/P02-1040), equal to sacrebleu's `corpus_bleu`.
 *
 * @param references for each hypothesis one text or several (sacrebleu's function takes one list per set of references instead)
 * @throws DataError without a hypothesis, or if the numbers of hypotheses and references differ
 */
export function corpusBleu(hypotheses: readonly string[], references: References, options: BleuOptions = {}): Bleu {
  const settings = settingsOf('corpusBleu', options)
  return scoreOf(measure('corpusBleu', hypotheses, references, settings), settings)
}

/** Compute BLEU of one sentence, equal to sacrebleu's `sentence_bleu`: `effectiveOrder` is true by default. */
export function sentenceBleu(
  hypothesis: string,
  references: string | readonly string[],
  options: BleuOptions = {},
): Bleu {
  const settings = { ...settingsOf('sentenceBleu', options), effectiveOrder: options.effectiveOrder ?? true }
  return scoreOf(measure('sentenceBleu', [hypothesis], [references], settings), settings)
}

/** `corpusBleu`, accumulated batch by batch. */
export class BleuMetric extends Metric<readonly string[], References, BleuStatistics, Bleu> {
  constructor(options: BleuOptions = {}) {
    const settings = settingsOf('BleuMetric', options)
    super({
      name: `bleu ${signature('any', settings)} order:${settings.maxNgramOrder}`,
      empty: () => noMatches(settings.maxNgramOrder),
      measure: (hypotheses, references) => measure('BleuMetric', hypotheses, references, settings),
      merge: addCounts,
      compute: (statistics) => scoreOf(statistics, settings),
    })
  }
}

type Settings = ValuesOf<typeof SETTINGS.table> & { smoothValue: number }

function settingsOf(where: string, options: BleuOptions): Settings {
  const { smoothValue, ...values } = SETTINGS.read(where, options)
  return { ...values, smoothValue: smoothValue ?? (values.smoothMethod === 'floor' ? 0.1 : 1) }
}

const noMatches = (orders: number): BleuStatistics => ({
  samples: 0,
  hypothesisLength: 0,
  referenceLength: 0,
  counts: Array<number>(orders).fill(0),
  totals: Array<number>(orders).fill(0),
  references: 0,
  inverseReferences: 0,
})

function measure(
  where: string,
  hypotheses: readonly string[],
  references: References,
  { tokenize, lowercase, maxNgramOrder }: Settings,
): BleuStatistics {
  const wordsOf = (text: string) => splitWords(TOKENIZERS[tokenize](stripEnd(lowercase ? text.toLowerCase() : text)))
  const sum = noMatches(maxNgramOrder)
  for (const [text, truth] of textPairs(where, 'hypotheses', hypotheses, references)) {
    const words = wordsOf(text)
    const others = truth.map(wordsOf)
    sum.samples++
    sum.references += others.length
    sum.inverseReferences += 1 / others.length
    sum.hypothesisLength += words.length
    sum.referenceLength += closest(
      words.length,
      others.map((other) => other.length),
    )
    for (let n = 1; n <= maxNgramOrder; n++) {
      const most = new Map<string, number>()
      for (const other of others) {
        for (const [ngram, count] of ngrams(other, n)) most.set(ngram, Math.max(count, most.get(ngram) ?? 0))
      }
      for (const [ngram, count] of ngrams(words, n)) {
        sum.totals[n - 1]! += count
        sum.counts[n - 1]! += Math.min(count, most.get(ngram) ?? 0)
      }
    }
  }
  return sum
}

/** Count each run of n words. Words contain no spaces, so joining with a space is unambiguous. */
export function ngrams(words: readonly string[], n: number): Map<string, number> {
  const counts = new Map<string, number>()
  for (let i = 0; i + n <= words.length; i++) {
    const ngram = words.slice(i, i + n).join(' ')
    counts.set(ngram, (counts.get(ngram) ?? 0) + 1)
  }
  return counts
}

/** Return the reference length nearest to the hypothesis length; on a tie the shorter. */
function closest(length: number, lengths: number[]): number {
  return lengths.reduce((best, other) => {
    const gain = Math.abs(best - length) - Math.abs(other - length)
    return gain > 0 || (gain === 0 && other < best) ? other : best
  })
}

function scoreOf(statistics: BleuStatistics, settings: Settings): Bleu {
  const { samples, hypothesisLength, referenceLength } = statistics
  const { smoothMethod, smoothValue, maxNgramOrder, effectiveOrder } = settings
  if (samples === 0) throw new DataError('BleuMetric: expected at least one sample, got none')
  const counts = [...statistics.counts]
  const totals = [...statistics.totals]
  const precisions = counts.map(() => 0)
  let brevityPenalty = 1
  if (hypothesisLength < referenceLength) {
    brevityPenalty = hypothesisLength === 0 ? 0 : Math.exp(1 - referenceLength / hypothesisLength)
  }
  const perSample = statistics.references / samples
  const same = Math.abs(perSample * statistics.inverseReferences - samples) < 1e-6 * samples
  const facts = {
    brevityPenalty,
    hypothesisLength,
    referenceLength,
    signature: signature(same ? String(Math.round(perSample)) : 'var', settings),
  }
  if (!counts.some((count) => count > 0)) return { score: 0, precisions, ...facts, counts, totals }
  let order = maxNgramOrder
  let halving = 1
  for (let n = 0; n < maxNgramOrder; n++) {
    if (smoothMethod === 'add-k' && n > 0) {
      counts[n]! += smoothValue
      totals[n]! += smoothValue
    }
    const total = totals[n] as number
    if (total === 0) break
    if (effectiveOrder) order = n + 1
    if (counts[n] !== 0) precisions[n] = (100 * (counts[n] as number)) / total
    else if (smoothMethod === 'exp') precisions[n] = 100 / ((halving *= 2) * total)
    else if (smoothMethod === 'floor') precisions[n] = (100 * smoothValue) / total
  }
  // Use a finite logarithm of 0, so that an order without a match gives 0 and not NaN.
  const logs = precisions.slice(0, order).map((value) => (value === 0 ? -9999999999 : Math.log(value)))
  const score = brevityPenalty * Math.exp(logs.reduce((sum, value) => sum + value, 0) / order)
  return { score, precisions, ...facts, counts, totals }
}

function signature(references: string, { lowercase, effectiveOrder, tokenize, smoothMethod, smoothValue }: Settings) {
  const valued = smoothMethod === 'floor' || smoothMethod === 'add-k'
  return [
    `nrefs:${references}`,
    `case:${lowercase ? 'lc' : 'mixed'}`,
    `eff:${effectiveOrder ? 'yes' : 'no'}`,
    `tok:${tokenize}`,
    `smooth:${smoothMethod}${valued ? `[${smoothValue.toFixed(2)}]` : ''}`,
  ].join('|')
}

const TOKENIZERS = {
  // Rules of WMT's mteval-v13a.pl: ASCII punctuation becomes a token of its own, except periods and commas between digits.
  '13a': (text: string): string => {
    const joined = text.replaceAll('<skipped>', '').replaceAll('-\n', '').replaceAll('\n', ' ')
    const plain = joined
      .replaceAll('&quot;', '"')
      .replaceAll('&amp;', '&')
      .replaceAll('&lt;', '<')
      .replaceAll('&gt;', '>')
    return ` ${plain} `
      .replace(/[{-~[-` -&(-+:-@/]/gu, ' $& ')
      .replace(/([^0-9])([.,])/gu, '$1 $2 ')
      .replace(/([.,])([^0-9])/gu, ' $1 $2')
      .replace(/([0-9])(-)/gu, '$1 $2 ')
  },
  intl: (text: string): string =>
    text
      .replace(/(\P{N})(\p{P})/gu, '$1 $2 ')
      .replace(/(\p{P})(\P{N})/gu, ' $1 $2')
      .replace(/\p{S}/gu, ' $& '),
  char: (text: string): string => [...text].join(' '),
  none: (text: string): string => text,
}
