import { requireOneOf, requireOptions } from '../../base/check.js'
import { confusionOf } from './classification.js'
import { type Cell, cellsOf, type Label, type Labels } from './labels.js'

export interface KappaOptions {
  /** How much a wrong class counts by its distance in the list of labels. Default 'none': all errors alike. */
  weights?: 'none' | 'linear' | 'quadratic'
  /** The classes, in order. Default: all that occur, sorted. */
  labels?: readonly Label[]
}

/**
 * Agreement beyond chance (Cohen 1960): scikit-learn's `cohen_kappa_score`. NaN when chance alone agrees always, as when
 * both lists hold one and the same class.
 */
export function cohenKappa(targets: Labels, predictions: Labels, options: KappaOptions = {}): number {
  requireOptions('cohenKappa', options, ['weights', 'labels'])
  const { weights = 'none', labels } = options
  requireOneOf('A metric', 'weights', weights, ['none', 'linear', 'quadratic'])
  return kappaOf(cellsOf(targets, predictions), weights, labels)
}

/** @internal */
export function kappaOf(cells: readonly Cell[], weights: 'none' | 'linear' | 'quadratic', labels?: readonly Label[]) {
  const { matrix } = confusionOf(cells, labels, 'none')
  const { rows, columns, total } = sums(matrix)
  let observed = 0
  let expected = 0
  for (const [i, row] of matrix.entries()) {
    for (const [j, count] of row.entries()) {
      const distance = Math.abs(i - j)
      const weight = weights === 'none' ? Math.min(distance, 1) : weights === 'linear' ? distance : distance ** 2
      observed += weight * count
      expected += (weight * (rows[i] as number) * (columns[j] as number)) / total
    }
  }
  return 1 - observed / expected
}

/**
 * Correlation of truth and prediction over all classes (Gorodkin 2004): scikit-learn's `matthews_corrcoef`. 0 when either
 * holds a single class.
 */
export function matthewsCorrcoef(targets: Labels, predictions: Labels): number {
  return matthewsOf(cellsOf(targets, predictions))
}

/** @internal */
export function matthewsOf(cells: readonly Cell[]): number {
  const { matrix } = confusionOf(cells, undefined, 'none')
  const { rows, columns, total } = sums(matrix)
  const right = matrix.reduce((sum, row, i) => sum + (row[i] as number), 0)
  const product = (a: number[], b: number[]) => a.reduce((sum, value, i) => sum + value * (b[i] as number), 0)
  const covariance = right * total - product(rows, columns)
  const truth = total ** 2 - product(rows, rows)
  const guess = total ** 2 - product(columns, columns)
  return truth * guess === 0 ? 0 : covariance / Math.sqrt(truth * guess)
}

function sums(matrix: number[][]): { rows: number[]; columns: number[]; total: number } {
  const sum = (values: number[]) => values.reduce((total, value) => total + value, 0)
  const rows = matrix.map(sum)
  return { rows, columns: rows.map((_, j) => sum(matrix.map((row) => row[j] as number))), total: sum(rows) }
}
