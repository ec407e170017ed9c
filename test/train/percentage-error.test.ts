import { describe, expect, it } from 'vitest'
import { DataError, MeanAbsolutePercentageErrorMetric, meanAbsolutePercentageError, tensor } from '../../lib/index.js'

describe('the mean absolute percentage error', () => {
  const truth = [3, -0.5, 2, 7]
  const guess = [2.5, 0, 2, 8]

  it('is that of scikit-learn', () => {
    // sklearn.metrics.mean_absolute_percentage_error([3, -0.5, 2, 7], [2.5, 0.0, 2, 8]) of its documentation
    expect(meanAbsolutePercentageError(truth, guess)).toBeCloseTo(0.3273809523809524, 15)
    expect(meanAbsolutePercentageError([1, 0, 2.4, 7], [1.2, 0.1, 2.4, 8])).toBeCloseTo(112589990684262.48, -3)
  })

  it('is the same batch by batch and over ranks', () => {
    const metric = new MeanAbsolutePercentageErrorMetric()
    const other = new MeanAbsolutePercentageErrorMetric()
    metric.update(guess.slice(0, 1), truth.slice(0, 1))
    other.update(tensor(guess.slice(1), { dtype: 'float64' }), tensor(truth.slice(1), { dtype: 'float64' }))
    expect(metric.merge(JSON.parse(JSON.stringify(other.state()))).compute()).toBeCloseTo(0.3273809523809524, 15)
  })

  it('refuses what it cannot use', () => {
    expect(() => new MeanAbsolutePercentageErrorMetric().compute()).toThrow(DataError)
    expect(() => meanAbsolutePercentageError([1, 2], [1])).toThrow(DataError)
    expect(() => meanAbsolutePercentageError([Number.NaN], [1])).toThrow(DataError)
  })
})
