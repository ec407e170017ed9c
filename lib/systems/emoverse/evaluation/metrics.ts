import { ConfigError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { accuracy, f1Score, meanAbsoluteError, pearson } from '../../../train/metrics/index.js'

/** Metrics of sentiment as numbers, with the definitions and names of MMSA (https://github.com/thuiar/MMSA), not rounded. */
export interface MosiMetrics {
  /** Accuracy of two classes: at least 0, and below 0. */
  acc2HasZero: number
  f1HasZero: number
  /** Accuracy of above and below 0, where the true value is not 0; null if it always is. */
  acc2NonZero: number | null
  f1NonZero: number | null
  /** Accuracy of integers from -3 to 3 (`acc5`: from -2 to 2), rounded half to even. */
  acc7: number
  acc5: number
  mae: number
  /** Pearson correlation; NaN if one side is constant. */
  corr: number
}

/** Round half to even, as NumPy does. */
export function roundHalfEven(value: number): number {
  const below = Math.floor(value)
  if (value - below !== 0.5) return Math.round(value)
  return below % 2 === 0 ? below : below + 1
}

/**
 * Compute metrics of predicted against true sentiment, both from -3 to 3.
 * @throws ConfigError if the lists are empty or differ in length
 */
export function mosiMetrics(truth: readonly number[], said: readonly number[]): MosiMetrics {
  requireForm('mosiMetrics', 'truth', truth, ['number'])
  requireForm('mosiMetrics', 'said', said, ['number'])
  if (truth.length !== said.length || truth.length === 0) {
    throw new ConfigError(
      `mosiMetrics: expected two non-empty lists of equal length, got ${truth.length} true and ${said.length} predicted numbers.`,
      {
        argument: 'said',
      },
    )
  }
  const agreement = (most: number) => {
    const whole = (value: number) => roundHalfEven(Math.min(most, Math.max(-most, value)))
    return accuracy(truth.map(whole), said.map(whole))
  }
  const binary = (places: readonly number[], is: (value: number) => boolean) => {
    const of = (values: readonly number[]) => places.map((place) => Number(is(values[place] as number)))
    const [a, b] = [of(truth), of(said)]
    return { acc: accuracy(a, b), f1: f1Score(a, b, { average: 'weighted' }) }
  }
  const all = truth.map((_, i) => i)
  const nonZero = all.filter((i) => truth[i] !== 0)
  const has = binary(all, (value) => value >= 0)
  const non = nonZero.length > 0 ? binary(nonZero, (value) => value > 0) : undefined
  return {
    acc2HasZero: has.acc,
    f1HasZero: has.f1,
    acc2NonZero: non?.acc ?? null,
    f1NonZero: non?.f1 ?? null,
    acc7: agreement(3),
    acc5: agreement(2),
    mae: meanAbsoluteError(truth, said),
    corr: pearson(truth, said),
  }
}
