import { elementsOf, isArrayLike, isList, shown } from '../../base/check.js'
import { DataError, ShapeError } from '../../base/errors.js'
import { Tensor } from '../../tensor/index.js'

/** A class: numbers sort by value, strings by code unit; true and false count as 1 and 0. */
export type Label = number | string

/** One label for each sample: an array, a typed array, or a tensor of shape [samples]. */
export type Labels = ArrayLike<Label | boolean | bigint> | Tensor

/** How many samples of class `truth` were taken for `guess`. */
export interface Cell {
  truth: Label
  guess: Label
  count: number
}

/** The cells of the confusion matrix that are not 0. */
export function cellsOf(targets: Labels, predictions: Labels): Cell[] {
  const truth = labelsOf(targets, 'targets')
  const guess = labelsOf(predictions, 'predictions')
  if (truth.length !== guess.length) {
    throw new DataError(`A metric was given ${truth.length} targets and ${guess.length} predictions`, {
      targets: truth.length,
      predictions: guess.length,
    })
  }
  if (truth.length === 0) throw new DataError('A metric was given no samples')
  if (typeof truth[0] !== typeof guess[0]) {
    throw new DataError(`A metric was given ${typeof truth[0]}s as targets and ${typeof guess[0]}s as predictions`)
  }
  const rows = new Map<Label, Map<Label, number>>()
  truth.forEach((label, i) => {
    const row = rows.get(label) ?? new Map<Label, number>()
    rows.set(label, row)
    row.set(guess[i] as Label, (row.get(guess[i] as Label) ?? 0) + 1)
  })
  return [...rows].flatMap(([label, row]) => [...row].map(([other, count]) => ({ truth: label, guess: other, count })))
}

export function labelsOf(values: Labels, role: string): Label[] {
  if (values instanceof Tensor && values.ndim !== 1) {
    throw new ShapeError(
      `A metric was given ${role} of shape [${values.shape}], expected [samples]: take the argmax of logits first`,
      { shape: values.shape },
    )
  }
  const raw: unknown = values instanceof Tensor ? values.toArray() : values
  if (!isArrayLike(raw)) {
    throw new DataError(`A metric was given ${shown(raw)} as ${role}, expected a list of labels`, { role })
  }
  return elementsOf('A metric', role, raw, (value, i) => {
    const label = typeof value === 'string' ? value : labelNumber(value)
    if (Number.isNaN(label) || typeof label !== (typeof raw[0] === 'string' ? 'string' : 'number')) {
      throw new DataError(`${role}[${i}] of a metric is ${shown(value)}, expected a label like the others`, {
        role,
        index: i,
      })
    }
    return label
  })
}

function labelNumber(value: unknown): number {
  return typeof value === 'number' || typeof value === 'boolean' || typeof value === 'bigint'
    ? Number(value)
    : Number.NaN
}

/** The classes that count: the given ones, or all that occur, sorted. */
export function classes(cells: readonly Cell[], given: readonly Label[] | undefined): Label[] {
  if (!given) return [...new Set(cells.flatMap(({ truth, guess }) => [truth, guess]))].sort((a, b) => (a < b ? -1 : 1))
  const wrong = () => new DataError('A metric needs its labels to be at least one, each given once')
  if (!isList(given)) throw wrong()
  const labels = elementsOf('A metric', 'labels', given, (label) => {
    if (typeof label !== 'number' && typeof label !== 'string') throw wrong()
    return label
  })
  if (labels.length === 0 || new Set(labels).size !== labels.length) throw wrong()
  return labels
}
