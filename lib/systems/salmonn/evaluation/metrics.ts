import { listOf, misuse } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { rougeL } from '../../../kit/rouge-l.js'
import { f1Score, precisionRecallF1, recall } from '../../../train/metrics/classification.js'
import { parseEmotionSuffix } from '../data/emotion-suffix.js'

/** An answer, and what would have been right. */
export interface TrajectoryPair {
  id: string
  /** The answer with its line of emotions; */
  prediction: string
  /** and the right one. Its line counts where `emotions` is not given. */
  reference: string
  emotions?: readonly string[]
}

/** How well one emotion is told, turn by turn. */
export interface EmotionScore {
  emotion: string
  precision: number
  recall: number
  f1: number
  /** Turns that have it. */
  support: number
}

/** Means over the pairs, 0 … 1. What needs emotions is null where no reference has any. */
export interface TrajectoryScores {
  pairs: number
  /** Pairs whose reference tells emotions. */
  withEmotions: number
  /** Of these: whether the answer has a line of emotions; */
  parsed: number | null
  /** whether it is right as a whole; */
  exactSequence: number | null
  /** the share of all turns whose emotion is right at its place; */
  positionAccuracy: number | null
  /** the same for the first turn, the second, …; */
  accuracyAt: number[]
  /** the mean recall of the emotions that occur in references (unweighted average recall), over all turns; */
  uar: number | null
  /** the mean of their F1, plain and weighted by how often each occurs; */
  macroF1: number | null
  weightedF1: number | null
  /** and each of them. */
  emotions: EmotionScore[]
  /** F1 of the emotions that occur, whatever their order and number, as the mean over pairs. */
  labelSetF1: number | null
  /** Of the texts without their line; null where no reference has words. */
  rougeL: number | null
}

/**
 * Scores answers about emotional trajectories by what can be measured without a judge. An answer without a line of emotions
 * has every turn wrong; emotions beyond the last turn make the sequence wrong and weigh in the label set.
 *
 * @throws DataError for no pairs
 */
export function trajectoryScores(pairs: Iterable<TrajectoryPair>): TrajectoryScores {
  const given = listOf('trajectoryScores', 'pairs', pairs, 'pairs')
  requireForm('trajectoryScores', 'pairs', given, [{ 'emotions?': ['string'] }])
  const list = given.map(compared)
  if (list.length === 0) throw new DataError('trajectoryScores was given no answers')
  const labelled = list.filter(({ truth }) => truth.length > 0)
  const mean = (values: number[]): number | null =>
    values.length === 0 ? null : values.reduce((sum, value) => sum + value, 0) / values.length
  const longest = Math.max(0, ...labelled.map(({ truth }) => truth.length))
  const at = (i: number) =>
    labelled.filter(({ truth }) => truth.length > i).map(({ truth, guess }) => Number(guess[i] === truth[i]))
  const places = Array.from({ length: longest }, (_, i) => at(i))
  return {
    pairs: list.length,
    withEmotions: labelled.length,
    parsed: mean(labelled.map(({ parsed }) => Number(parsed))),
    exactSequence: mean(labelled.map(({ truth, guess }) => Number(truth.join('\n') === guess.join('\n')))),
    positionAccuracy: mean(places.flat()),
    accuracyAt: places.map((place) => mean(place) as number),
    ...turnScores(labelled),
    labelSetF1: mean(labelled.map(({ truth, guess }) => setF1(guess, truth))),
    rougeL: mean(list.flatMap(({ rouge }) => (rouge === null ? [] : [rouge]))),
  }
}

function compared({ id, prediction, reference, emotions }: TrajectoryPair) {
  for (const [name, value] of Object.entries({ prediction, reference })) {
    if (typeof value !== 'string') throw misuse('trajectoryScores', `the ${name} of ${id}`, 'a text', value)
  }
  const [said, right] = [parseEmotionSuffix(prediction), parseEmotionSuffix(reference)]
  return {
    truth: (emotions ?? right.emotions ?? []).map((label) => label.trim().toLowerCase()),
    guess: said.emotions ?? [],
    parsed: said.emotions !== null,
    rouge: right.text.trim() === '' ? null : rougeL(said.text, right.text).f1,
  }
}

/** What is told beyond the last turn belongs to none, and an emotion that never occurs makes no class of its own. */
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

/** F1 of two sets; 1 where both are empty. */
function setF1(guess: readonly string[], truth: readonly string[]): number {
  const [a, b] = [new Set(guess), new Set(truth)]
  if (a.size + b.size === 0) return 1
  const common = [...a].filter((label) => b.has(label)).length
  return (2 * common) / (a.size + b.size)
}
