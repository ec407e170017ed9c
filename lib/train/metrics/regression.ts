import { DataError } from '../../base/errors.js'
import { Metric } from './metric.js'
import { type Values, valuePairs } from './values.js'

export interface Regression {
  /** Mean absolute error. */
  mae: number
  /** Mean squared error, and its square root. */
  mse: number
  rmse: number
  /** Coefficient of determination. */
  r2: number
  /** Pearson's correlation. */
  pearson: number
  /** Lin's concordance correlation. */
  concordance: number
}

/** Sums of absolute and squared errors; means, and sums of squares and products of the deviations from them. */
interface Moments {
  samples: number
  absolute: number
  squared: number
  meanTruth: number
  meanGuess: number
  squaresTruth: number
  squaresGuess: number
  products: number
}

/**
 * Return the mean absolute error: scikit-learn's `mean_absolute_error`.
 *
 * Errors, here and below: `DataError` for lists that are empty, of different lengths, or contain anything but finite numbers;
 * `ShapeError` for a tensor that is not [samples].
 */
export const meanAbsoluteError = (targets: Values, predictions: Values): number => of(targets, predictions).mae

/** Return the mean squared error: scikit-learn's `mean_squared_error`. */
export const meanSquaredError = (targets: Values, predictions: Values): number => of(targets, predictions).mse

/** Return the root mean squared error: scikit-learn's `root_mean_squared_error`. */
export const rootMeanSquaredError = (targets: Values, predictions: Values): number => of(targets, predictions).rmse

/** Return R²: scikit-learn's `r2_score`. For constant targets 1 if the prediction is perfect, else 0; NaN for one sample. */
export const r2Score = (targets: Values, predictions: Values): number => of(targets, predictions).r2

/** Return Pearson's correlation: scipy's `pearsonr`. NaN if either list is constant, or for one sample. */
export const pearson = (targets: Values, predictions: Values): number => of(targets, predictions).pearson

/** Return Spearman's correlation: scipy's `spearmanr`. Ties get their mean rank. NaN if either list is constant. */
export function spearman(targets: Values, predictions: Values): number {
  const { truth, guess } = valuePairs(targets, predictions)
  return regressionOf(moments(ranks(truth), ranks(guess))).pearson
}

/**
 * Return the concordance correlation (Lin 1989, https://doi.org/10.2307/2532051), used for valence and arousal: 2 cov / (var +
 * var + (difference of means)²), with variances over n. NaN if both lists hold a single, equal number.
 */
export const concordance = (targets: Values, predictions: Values): number => of(targets, predictions).concordance

function of(targets: Values, predictions: Values): Regression {
  const { truth, guess } = valuePairs(targets, predictions)
  return regressionOf(moments(truth, guess))
}

/**
 * All of these scores except Spearman's correlation, accumulated batch by batch: `update(predictions, targets)`. Stores eight
 * numbers.
 */
export class RegressionMetric extends Metric<Values, Values, Moments, Regression> {
  constructor() {
    super({
      name: 'regression',
      empty: () => moments([], []),
      measure: (predictions, targets) => {
        const { truth, guess } = valuePairs(targets, predictions)
        return moments(truth, guess)
      },
      merge: combine,
      compute: regressionOf,
    })
  }
}

/**
 * Spearman's correlation, accumulated batch by batch: `update(predictions, targets)`. Stores every sample, since ranks depend
 * on all.
 */
export class SpearmanMetric extends Metric<Values, Values, { truth: number[]; guess: number[] }, number> {
  constructor() {
    super({
      name: 'spearman',
      empty: () => ({ truth: [], guess: [] }),
      measure: (predictions, targets) => valuePairs(targets, predictions),
      merge: (into, from) => {
        // Check again, since a state may come from a file.
        if (from.truth.length === 0 && from.guess.length === 0) return
        const { truth, guess } = valuePairs(from.truth, from.guess)
        for (const value of truth) into.truth.push(value)
        for (const value of guess) into.guess.push(value)
      },
      compute: ({ truth, guess }) => spearman(truth, guess),
    })
  }
}

/** Compute the moments in two passes: deviations from the mean lose fewer digits than differences of sums. */
function moments(truth: number[], guess: number[]): Moments {
  const samples = truth.length
  // The mean of a constant list is exactly its value, so that its variance is exactly 0.
  const mean = (values: number[]) =>
    values.every((value) => value === values[0])
      ? (values[0] ?? 0)
      : values.reduce((sum, value) => sum + value, 0) / samples
  const result = { samples, absolute: 0, squared: 0, meanTruth: mean(truth), meanGuess: mean(guess) }
  let [squaresTruth, squaresGuess, products] = [0, 0, 0]
  truth.forEach((value, i) => {
    const other = guess[i] as number
    result.absolute += Math.abs(value - other)
    result.squared += (value - other) ** 2
    squaresTruth += (value - result.meanTruth) ** 2
    squaresGuess += (other - result.meanGuess) ** 2
    products += (value - result.meanTruth) * (other - result.meanGuess)
  })
  return { ...result, squaresTruth, squaresGuess, products }
}

/** Combine the moments of two sets of samples (Chan, Golub and LeVeque 1983). */
function combine(into: Moments, from: Moments): void {
  if (from.samples === 0) return
  if (into.samples === 0) {
    Object.assign(into, from)
    return
  }
  const samples = into.samples + from.samples
  const share = from.samples / samples
  const truth = from.meanTruth - into.meanTruth
  const guess = from.meanGuess - into.meanGuess
  const between = into.samples * share
  into.squaresTruth += from.squaresTruth + between * truth * truth
  into.squaresGuess += from.squaresGuess + between * guess * guess
  into.products += from.products + between * truth * guess
  into.meanTruth += share * truth
  into.meanGuess += share * guess
  into.absolute += from.absolute
  into.squared += from.squared
  into.samples = samples
}

function regressionOf(m: Moments): Regression {
  if (m.samples === 0) throw new DataError('RegressionMetric: expected at least one sample, got none')
  const mse = m.squared / m.samples
  const spread = m.squaresTruth === 0 ? Number(m.squared === 0) : 1 - m.squared / m.squaresTruth
  const correlation =
    m.squaresTruth === 0 || m.squaresGuess === 0
      ? Number.NaN
      : m.products / Math.sqrt(m.squaresTruth) / Math.sqrt(m.squaresGuess)
  return {
    mae: m.absolute / m.samples,
    mse,
    rmse: Math.sqrt(mse),
    r2: m.samples < 2 ? Number.NaN : spread,
    pearson: Math.min(1, Math.max(-1, correlation)),
    concordance: (2 * m.products) / (m.squaresTruth + m.squaresGuess + m.samples * (m.meanTruth - m.meanGuess) ** 2),
  }
}

/** Return 1-based ranks; equal values get the mean of their ranks. */
export function ranks(values: readonly number[]): number[] {
  const order = values.map((_, i) => i).sort((a, b) => (values[a] as number) - (values[b] as number))
  const result = Array<number>(values.length)
  for (let start = 0; start < order.length; ) {
    let end = start
    while (end < order.length && values[order[end] as number] === values[order[start] as number]) end++
    for (let i = start; i < end; i++) result[order[i] as number] = (start + 1 + end) / 2
    start = end
  }
  return result
}
