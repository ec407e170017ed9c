import { DataError } from '../../base/errors.js'
import { type ChangesOf, settings, type ValuesOf } from '../../base/settings.js'
import { addCounts, Metric, type References, textPairs } from './metric.js'
import { porterStem } from './porter.js'

const SETTINGS = settings({
  /** Weight of recall against precision, from 0 to 1. Default 0.9. */
  alpha: { type: 'number', below: 1 + Number.EPSILON, default: 0.9 },
  /** Exponent of the fragmentation penalty. Default 3. */
  beta: { type: 'number', infinite: true, default: 3 },
  /** Maximum fragmentation penalty, when no two matches are adjacent. Default 0.5. */
  gamma: { type: 'number', below: 1 + Number.EPSILON, default: 0.5 },
})

/** Options of {@link meteor}. @interface */
export type MeteorOptions = ChangesOf<typeof SETTINGS.table>

export interface Meteor {
  /** Mean over the samples, 0 … 1. */
  meteor: number
  /** Matching of words; scores of other variants are not comparable. */
  variant: typeof METEOR_VARIANT
}

/** Variant of the matching: equal words, then equal stems (Porter's, as in NLTK); no synonyms. */
export const METEOR_VARIANT = 'exact and stem, without WordNet'

interface MeteorStatistics {
  samples: number
  sum: number
}

/**
 * Compute METEOR (Banerjee and Lavie 2005, https://aclanthology.org/W05-0909) in the variant `METEOR_VARIANT`, equal to
 * NLTK's `meteor_score` without synonyms. Words are runs of letters and digits, with apostrophes inside, in lower case. With
 * several references the best one counts.
 *
 * @throws DataError without a prediction, or if the numbers of predictions and references differ
 */
export function meteor(predictions: readonly string[], references: References, options: MeteorOptions = {}): Meteor {
  return scoreOf(measure('meteor', predictions, references, SETTINGS.read('meteor', options)))
}

/** `meteor`, accumulated batch by batch. */
export class MeteorMetric extends Metric<readonly string[], References, MeteorStatistics, Meteor> {
  constructor(options: MeteorOptions = {}) {
    const settings = SETTINGS.read('MeteorMetric', options)
    super({
      name: `meteor ${settings.alpha} ${settings.beta} ${settings.gamma}`,
      empty: none,
      measure: (predictions, references) => measure('MeteorMetric', predictions, references, settings),
      merge: addCounts,
      compute: scoreOf,
    })
  }
}

const none = (): MeteorStatistics => ({ samples: 0, sum: 0 })

function measure(
  where: string,
  predictions: readonly string[],
  references: References,
  settings: ValuesOf<typeof SETTINGS.table>,
): MeteorStatistics {
  const statistics = none()
  for (const [text, truth] of textPairs(where, 'predictions', predictions, references)) {
    const words = wordsOf(text)
    const scores = truth.map((reference) => scored(words, wordsOf(reference), settings))
    addCounts(statistics, { samples: 1, sum: Math.max(...scores) })
  }
  return statistics
}

const wordsOf = (text: string): string[] =>
  text.toLowerCase().match(/[\p{L}\p{M}\p{N}]+(?:['’][\p{L}\p{M}\p{N}]+)*/gu) ?? []

function scored(words: string[], reference: string[], { alpha, beta, gamma }: ValuesOf<typeof SETTINGS.table>): number {
  const partners: (number | undefined)[] = words.map(() => undefined)
  const taken = reference.map(() => false)
  match(words, reference, partners, taken)
  match(words.map(porterStem), reference.map(porterStem), partners, taken)
  const matches = partners.flatMap((partner, i) => (partner === undefined ? [] : [[i, partner] as const]))
  if (matches.length === 0) return 0
  const [precision, recall] = [matches.length / words.length, matches.length / reference.length]
  const mean = (precision * recall) / (alpha * precision + (1 - alpha) * recall)
  const chunks = matches.filter(([i, partner], place) => {
    const [before, beside] = matches[place - 1] ?? [Number.NaN, Number.NaN]
    return before + 1 !== i || beside + 1 !== partner
  }).length
  return (1 - gamma * (chunks / matches.length) ** beta) * mean
}

/** Match words from last to first: each unmatched word takes the last equal word of the reference that is free. */
function match(words: string[], reference: string[], partners: (number | undefined)[], taken: boolean[]): void {
  const places = new Map<string, number[]>()
  for (const [place, word] of reference.entries()) {
    if (taken[place]) continue
    const wordPlaces = places.get(word)
    if (wordPlaces) wordPlaces.push(place)
    else places.set(word, [place])
  }
  for (let i = words.length - 1; i >= 0; i -= 1) {
    if (partners[i] !== undefined) continue
    const place = places.get(words[i] as string)?.pop()
    if (place === undefined) continue
    partners[i] = place
    taken[place] = true
  }
}

function scoreOf({ samples, sum }: MeteorStatistics): Meteor {
  if (samples === 0) throw new DataError('MeteorMetric: expected at least one sample, got none')
  return { meteor: sum / samples, variant: METEOR_VARIANT }
}
