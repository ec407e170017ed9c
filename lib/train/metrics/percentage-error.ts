import { DataError } from '../../base/errors.js'
import { addCounts, Metric } from './metric.js'
import { type Values, valuePairs } from './values.js'

interface PercentageErrors {
  samples: number
  sum: number
}

/**
 * Return the mean absolute percentage error as a fraction: scikit-learn's `mean_absolute_percentage_error`. A target of 0 counts as the
 * smallest distance between two numbers near 1, so its error is very large.
 *
 * @throws DataError and ShapeError as `meanAbsoluteError`
 */
export const meanAbsolutePercentageError = (targets: Values, predictions: Values): number =>
  meanOf(errors(targets, predictions))

/** `meanAbsolutePercentageError`, accumulated batch by batch: `update(predictions, targets)`. Stores two numbers. */
export class MeanAbsolutePercentageErrorMetric extends Metric<Values, Values, PercentageErrors, number> {
  constructor() {
    super({
      name: 'mean absolute percentage error',
      empty: () => ({ samples: 0, sum: 0 }),
      measure: (predictions, targets) => errors(targets, predictions),
      merge: addCounts,
      compute: meanOf,
    })
  }
}

function errors(targets: Values, predictions: Values): PercentageErrors {
  const { truth, guess } = valuePairs(targets, predictions)
  const sum = truth.reduce(
    (before, value, i) => before + Math.abs(value - (guess[i] as number)) / Math.max(Math.abs(value), Number.EPSILON),
    0,
  )
  return { samples: truth.length, sum }
}

function meanOf({ samples, sum }: PercentageErrors): number {
  if (samples === 0) throw new DataError('MeanAbsolutePercentageErrorMetric: expected at least one sample, got none')
  return sum / samples
}
