import { argumentError, requireOneOf, requireOptions } from '../../base/check.js'
import { DataError } from '../../base/errors.js'
import { heapHolds, LONGEST_LIST } from '../../base/heap.js'
import { type Cell, cellsOf, classes, type Label, type Labels } from './labels.js'

/** Average over classes: over all samples, unweighted mean, mean weighted by the number of true samples, or none. */
export type Average = 'micro' | 'macro' | 'weighted' | 'none'

export interface ScoreOptions<A extends Average = Average> {
  /** Average over classes. Default 'macro'. */
  average?: A
  /** Classes to include, in order. Default: all that occur in either list, sorted. */
  labels?: readonly Label[]
  /** Value of 0 / 0; classes where it is NaN are left out of means. Default 0. */
  zeroDivision?: number
}

/** One number, or one for each class. */
export type Score<A extends Average> = A extends 'none' ? number[] : number

export interface Scores<A extends Average> {
  precision: Score<A>
  recall: Score<A>
  f1: Score<A>
  /** Classes, and the number of true samples of each. */
  labels: Label[]
  support: number[]
}

/** Return the fraction of correct predictions: scikit-learn's `accuracy_score`. */
export function accuracy(targets: Labels, predictions: Labels): number {
  return accuracyOf(cellsOf(targets, predictions))
}

/** @internal */
export function accuracyOf(cells: readonly Cell[]): number {
  const right = cells.reduce((sum, { truth, guess, count }) => sum + (truth === guess ? count : 0), 0)
  return right / cells.reduce((sum, { count }) => sum + count, 0)
}

/**
 * Return precision, recall and F1: scikit-learn's `precision_recall_fscore_support`. The precision of a class that is never
 * predicted and the recall of a class that is never true are 0 / 0; see `zeroDivision`.
 *
 * Errors, here and in all metrics: `DataError` for lists that are empty, of different lengths, contain NaN or mix numbers and
 * strings; `ShapeError` for a tensor that is not [samples].
 */
export function precisionRecallF1<A extends Average = 'macro'>(
  targets: Labels,
  predictions: Labels,
  options: ScoreOptions<A> = {},
): Scores<A> {
  checkScoreOptions(options)
  return scoresOf(cellsOf(targets, predictions), options)
}

/** @internal */
export function checkScoreOptions(options: ScoreOptions): void {
  requireOptions('Metric', options, ['average', 'labels', 'zeroDivision'])
  const { average = 'macro', zeroDivision = 0 } = options
  requireOneOf('Metric', 'average', average, ['micro', 'macro', 'weighted', 'none'])
  if (typeof zeroDivision !== 'number') throw argumentError('Metric', 'zeroDivision', 'a number', zeroDivision)
}

/** @internal */
export function scoresOf<A extends Average>(cells: readonly Cell[], options: ScoreOptions<A>): Scores<A> {
  const { average = 'macro', zeroDivision = 0 } = options
  const labels = classes(cells, options.labels)
  const index = new Map(labels.map((label, i) => [label, i]))
  const counts = labels.map(() => ({ right: 0, true: 0, predicted: 0 }))
  for (const { truth, guess, count } of cells) {
    const actual = counts[index.get(truth) ?? -1]
    const predicted = counts[index.get(guess) ?? -1]
    if (actual) actual.true += count
    if (predicted) predicted.predicted += count
    if (actual && actual === predicted) actual.right += count
  }
  const support = counts.map((count) => count.true)
  const total = (key: 'right' | 'true' | 'predicted') => counts.reduce((sum, count) => sum + count[key], 0)
  const rows =
    average === 'micro' ? [{ right: total('right'), true: total('true'), predicted: total('predicted') }] : counts
  const divide = (a: number, b: number) => (b === 0 ? zeroDivision : a / b)
  const finish = (values: number[]) =>
    (average === 'none' ? values : mean(values, average === 'weighted' ? support : undefined)) as Score<A>
  return {
    precision: finish(rows.map((row) => divide(row.right, row.predicted))),
    recall: finish(rows.map((row) => divide(row.right, row.true))),
    f1: finish(rows.map((row) => divide(2 * row.right, row.true + row.predicted))),
    labels,
    support,
  }
}

/** Return the precision: scikit-learn's `precision_score`. */
export function precision<A extends Average = 'macro'>(
  targets: Labels,
  predictions: Labels,
  options?: ScoreOptions<A>,
): Score<A> {
  return precisionRecallF1(targets, predictions, options).precision
}

/** Return the recall: scikit-learn's `recall_score`. */
export function recall<A extends Average = 'macro'>(
  targets: Labels,
  predictions: Labels,
  options?: ScoreOptions<A>,
): Score<A> {
  return precisionRecallF1(targets, predictions, options).recall
}

/** Return the F1 score: scikit-learn's `f1_score`. */
export function f1Score<A extends Average = 'macro'>(
  targets: Labels,
  predictions: Labels,
  options?: ScoreOptions<A>,
): Score<A> {
  return precisionRecallF1(targets, predictions, options).f1
}

/** Return the mean recall of the classes that occur in the targets (UAR): scikit-learn's `balanced_accuracy_score`. */
export function unweightedAverageRecall(targets: Labels, predictions: Labels): number {
  return recall(targets, predictions, { zeroDivision: Number.NaN })
}

export interface ConfusionMatrix {
  labels: Label[]
  /** matrix[i][j]: number of samples of class labels[i] predicted as labels[j]. */
  matrix: number[][]
}

/**
 * Return the confusion matrix: scikit-learn's `confusion_matrix`. `normalize` divides by the sum of the row ('true'), of the
 * column ('pred') or of all; 0 / 0 gives 0. Samples whose class or prediction is not in `labels` are left out.
 */
export function confusionMatrix(
  targets: Labels,
  predictions: Labels,
  options: { labels?: readonly Label[]; normalize?: 'true' | 'pred' | 'all' | 'none' } = {},
): ConfusionMatrix {
  requireOptions('confusionMatrix', options, ['labels', 'normalize'])
  const { normalize = 'none' } = options
  requireOneOf('Metric', 'normalize', normalize, ['true', 'pred', 'all', 'none'])
  return confusionOf(cellsOf(targets, predictions), options.labels, normalize)
}

/** @internal */
export function confusionOf(
  cells: readonly Cell[],
  given: readonly Label[] | undefined,
  normalize: 'true' | 'pred' | 'all' | 'none',
): ConfusionMatrix {
  const labels = classes(cells, given)
  const numbers = labels.length ** 2
  if (numbers > LONGEST_LIST || !heapHolds(8 * numbers)) {
    throw new DataError(
      `confusionMatrix: expected at most ${Math.sqrt(LONGEST_LIST)} classes, whose matrix fits in memory, got ` +
        `${labels.length}. Select classes with 'labels', or pass classes instead of measurements.`,
      { classes: labels.length },
    )
  }
  const index = new Map(labels.map((label, i) => [label, i]))
  const matrix = labels.map(() => labels.map(() => 0))
  for (const { truth, guess, count } of cells) {
    const row = matrix[index.get(truth) ?? -1]
    const column = index.get(guess)
    if (row && column !== undefined) row[column] = (row[column] as number) + count
  }
  const sum = (values: number[]) => values.reduce((total, value) => total + value, 0)
  const columns = labels.map((_, j) => sum(matrix.map((row) => row[j] as number)))
  const divisor = {
    true: (row: number[]) => sum(row),
    pred: (_: number[], column: number) => columns[column] as number,
    all: () => sum(columns),
    none: () => 1,
  }[normalize]
  return { labels, matrix: matrix.map((row) => row.map((value, j) => (value === 0 ? 0 : value / divisor(row, j)))) }
}

/** Return the mean without NaN values; if all weights are 0, the unweighted mean, as in scikit-learn. */
function mean(values: number[], weights?: number[]): number {
  const kept = values
    .map((value, i) => ({ value, weight: weights?.[i] ?? 1 }))
    .filter(({ value }) => !Number.isNaN(value))
  const total = kept.reduce((sum, { weight }) => sum + weight, 0)
  if (total === 0) return kept.length > 0 ? kept.reduce((sum, { value }) => sum + value, 0) / kept.length : Number.NaN
  return kept.reduce((sum, { value, weight }) => sum + value * weight, 0) / total
}
