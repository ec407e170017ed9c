import { isArrayLike, shown } from '../../base/check.js'
import { DataError, ShapeError } from '../../base/errors.js'
import { Tensor } from '../../tensor/index.js'
import { requireSameCount } from './metric.js'

/** One number for each sample: an array, a typed array, or a tensor of shape [samples]. */
export type Values = ArrayLike<number | boolean | bigint> | Tensor

/** Finite numbers, one for each sample. */
export function valuesOf(role: string, values: Values): number[] {
  if (values instanceof Tensor && values.ndim !== 1) {
    throw new ShapeError(`A metric was given ${role} of shape [${values.shape}], expected [samples]`, {
      shape: values.shape,
    })
  }
  const raw: unknown = values instanceof Tensor ? values.toArray() : values
  if (!isArrayLike(raw)) {
    throw new DataError(`A metric was given ${shown(raw)} as ${role}, expected a list of numbers`, { role })
  }
  return Array.from(raw, (value, i) => {
    const number = ['number', 'boolean', 'bigint'].includes(typeof value) ? Number(value) : Number.NaN
    if (Number.isFinite(number)) return number
    throw new DataError(`${role}[${i}] of a metric is ${shown(value)}, expected a finite number`, { role, index: i })
  })
}

/** Two lists of as many finite numbers, at least one. */
export function valuePairs(targets: Values, predictions: Values): { truth: number[]; guess: number[] } {
  const truth = valuesOf('targets', targets)
  const guess = valuesOf('predictions', predictions)
  requireSameCount('A metric', guess.length, truth.length)
  if (truth.length === 0) throw new DataError('A metric was given no samples')
  return { truth, guess }
}
