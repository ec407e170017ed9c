import { elementsOf, isArrayLike, isList, shown } from '../../base/check.js'
import { DataError, ShapeError } from '../../base/errors.js'
import { Tensor } from '../../tensor/index.js'

/** Class label: numbers sort by value, strings by code unit; true and false count as 1 and 0. */
export type Label = number | string

/** One label for each sample: an array, a typed array, or a tensor of shape [samples]. */
export type Labels = ArrayLike<Label | boolean | bigint> | Tensor

/** Number of samples of class `truth` that were predicted as `guess`. */
export interface Cell {
  truth: Label
  guess: Label
  count: number
}

/** Return the non-zero cells of the confusion matrix. */
export function cellsOf(targets: Labels, predictions: Labels): Cell[] {
  const truth = labelsOf(targets, 'targets')
  const guess = labelsOf(predictions, 'predictions')
  if (truth.length !== guess.length) {
    throw new DataError(`Metric: expected as many predictions as targets, got ${guess.length} and ${truth.length}`, {
      targets: truth.length,
      predictions: guess.length,
    })
  }
  if (truth.length === 0) throw new DataError('Metric: expected at least one sample, got none')
  if (typeof truth[0] !== typeof guess[0]) {
    throw new DataError(
      `Metric: expected targets and predictions of the same type, got ${typeof truth[0]}s and ${typeof guess[0]}s`,
    )
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
      `Metric: expected ${role} of shape [samples], got [${values.shape}]. Take the argmax of logits first`,
      { shape: values.shape },
    )
  }
  const raw: unknown = values instanceof Tensor ? values.toArray() : values
  if (!isArrayLike(raw)) {
    throw new DataError(`Metric: expected ${role} to be a list of labels, got ${shown(raw)}`, { role })
  }
  return elementsOf('Metric', role, raw, (value, i) => {
    const label = typeof value === 'string' ? value : labelNumber(value)
    if (Number.isNaN(label) || typeof label !== (typeof raw[0] === 'string' ? 'string' : 'number')) {
      throw new DataError(
        `Metric: expected ${role}[${i}] to be a label of the same type as the others, got ${shown(value)}`,
        {
          role,
          index: i,
        },
      )
    }
    return label
  })
}

function labelNumber(value: unknown): number {
  return typeof value === 'number' || typeof value === 'boolean' || typeof value === 'bigint'
    ? Number(value)
    : Number.NaN
}

/** Return the classes to include: the given ones, or all that occur, sorted. */
export function classes(cells: readonly Cell[], given: readonly Label[] | undefined): Label[] {
  if (!given) return [...new Set(cells.flatMap(({ truth, guess }) => [truth, guess]))].sort((a, b) => (a < b ? -1 : 1))
  const wrong = () => new DataError('Metric: expected labels to be a list of at least one label without repetitions')
  if (!isList(given)) throw wrong()
  const labels = elementsOf('Metric', 'labels', given, (label) => {
    if (typeof label !== 'number' && typeof label !== 'string') throw wrong()
    return label
  })
  if (labels.length === 0 || new Set(labels).size !== labels.length) throw wrong()
  return labels
}
