import { argumentError, listOf } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { rougeL } from '../../../kit/rouge-l.js'
import { f1Score, precisionRecallF1, recall } from '../../../train/metrics/classification.js'
import { parseEmotionSuffix } from '../data/emotion-suffix.js'

/** An answer with its reference. */
export interface TrajectoryPair {
  id: string
  /** Answer with its line of emotions. */
  prediction: string
  /** Reference answer. Its line of emotions counts if `emotions` is unset. */
  reference: string
  emotions?: readonly string[]
}

/** Scores of one emotion over all turns. */
export interface EmotionScore {
  emotion: string
  precision: number
  recall: number
  f1: number
  /** Number of turns with this emotion. */
  support: number
}

/** Means over the pairs, 0 … 1. Scores of emotions are null if no reference has emotions. */
export interface TrajectoryScores {
  pairs: number
  /** Number of pairs whose reference has emotions. */
  withEmotions: number
  /** Fraction of these whose answer has a line of emotions. */
  parsed: number | null
  /** Fraction with the whole sequence correct. */
  exactSequence: number | null
  /** Fraction of all turns with the correct emotion. */
  positionAccuracy: number | null
  /** Fraction of correct first turns, second turns, and so on. */
  accuracyAt: number[]
  /** Unweighted average recall of the emotions in references, over all turns. */
  uar: number | null
  /** Mean F1 of these emotions; `weightedF1` is weighted by support. */
  macroF1: number | null
  weightedF1: number | null
  /** Scores of each emotion. */
  emotions: EmotionScore[]
  /** Mean F1 of the sets of emotions, ignoring order and repetition. */
  labelSetF1: number | null
  /** ROUGE-L of the texts without their line of emotions; null if no reference has text. */
  rougeL: number | null
}

/**
 * Score answers about emotional trajectories by metrics that need no judge. In an answer without a line of emotions every turn is wrong;
 * emotions after the last turn make the sequence wrong and count in the label set.
 *
 * @throws DataError for no pairs
 */
export function trajectoryScores(pairs: Iterable<TrajectoryPair>): TrajectoryScores {
  const given = listOf('trajectoryScores', 'pairs', pairs, 'pairs')
  requireForm('trajectoryScores', 'pairs', given, [{ 'emotions?': ['string'] }])
  const list = given.map(compared)
  if (list.length === 0) throw new DataError('trajectoryScores.pairs: expected at least one answer, got none.')
  const labeled = list.filter(({ truth }) => truth.length > 0)
  const mean = (values: number[]): number | null =>
    values.length === 0 ? null : values.reduce((sum, value) => sum + value, 0) / values.length
  const longest = Math.max(0, ...labeled.map(({ truth }) => truth.length))
  const at = (i: number) =>
    labeled.filter(({ truth }) => truth.length > i).map(({ truth, guess }) => Number(guess[i] === truth[i]))
  const places = Array.from({ length: longest }, (_, i) => at(i))
  return {
    pairs: list.length,
    withEmotions: labeled.length,
    parsed: mean(labeled.map(({ parsed }) => Number(parsed))),
    exactSequence: mean(labeled.map(({ truth, guess }) => Number(truth.join('\n') === guess.join('\n')))),
    positionAccuracy: mean(places.flat()),
    accuracyAt: places.map((place) => mean(place) as number),
    ...turnScores(labeled),
    labelSetF1: mean(labeled.map(({ truth, guess }) => setF1(guess, truth))),
    rougeL: mean(list.flatMap(({ rouge }) => (rouge === null ? [] : [rouge]))),
  }
}

function compared({ id, prediction, reference, emotions }: TrajectoryPair) {
  for (const [name, value] of Object.entries({ prediction, reference })) {
    if (typeof value !== 'string') throw argumentError('trajectoryScores', `the ${name} of ${id}`, 'a text', value)
  }
  const [said, right] = [parseEmotionSuffix(prediction), parseEmotionSuffix(reference)]
  return {
    truth: (emotions ?? right.emotions ?? []).map((label) => label.trim().toLowerCase()),
    guess: said.emotions ?? [],
    parsed: said.emotions !== null,
    rouge: right.text.trim() === '' ? null : rougeL(said.text, right.text).f1,
  }
}

/** Score turns by emotion. Predictions after the last turn are ignored, and only emotions in references are classes. */
function turnScores(pairs: readonly { truth: readonly string[]; guess: readonly string[] }[]) {
  const truth = pairs.flatMap((pair) => pair.truth)
  if (truth.length === 0) return { uar: null, macroF1: null, weightedF1: null, emotions: [] }
  const guess = pairs.flatMap((pair) => pair.truth.map((_, i) => pair.guess[i] ?? ''))
  const labels = [...new Set(truth)].sort()
  const each = precisionRecallF1(truth, guess, { average: 'none', labels })
  const at = (values: readonly number[], i: number) => values[i] as number
  return {
    uar: recall(truth, guess, { labels }),
    macroF1: f1Score(truth, guess, { labels }),
    weightedF1: f1Score(truth, guess, { labels, average: 'weighted' }),
    emotions: labels.map((emotion, i) => ({
      emotion,
      precision: at(each.precision, i),
      recall: at(each.recall, i),
      f1: at(each.f1, i),
      support: at(each.support, i),
    })),
  }
}

/** Compute the F1 of two sets; 1 if both are empty. */
function setF1(guess: readonly string[], truth: readonly string[]): number {
  const [a, b] = [new Set(guess), new Set(truth)]
  if (a.size + b.size === 0) return 1
  const common = [...a].filter((label) => b.has(label)).length
  return (2 * common) / (a.size + b.size)
}
