import { requireOneOf, requireOptions } from '../../base/check.js'
import { type Cell, cellsOf, classes, type Label, type Labels } from './labels.js'

export interface KappaOptions {
  /** Weight of an error by the distance of the two classes in the list of labels. Default 'none': all errors weigh the same. */
  weights?: 'none' | 'linear' | 'quadratic'
  /** Classes in order. Default: all that occur, sorted. */
  labels?: readonly Label[]
}

/**
 * Return Cohen's kappa, the agreement beyond chance (Cohen 1960): scikit-learn's `cohen_kappa_score`. NaN if chance agreement
 * is 1, as when both lists hold a single, equal class.
 */
export function cohenKappa(targets: Labels, predictions: Labels, options: KappaOptions = {}): number {
  requireOptions('cohenKappa', options, ['weights', 'labels'])
  const { weights = 'none', labels } = options
  requireOneOf('Metric', 'weights', weights, ['none', 'linear', 'quadratic'])
  return kappaOf(cellsOf(targets, predictions), weights, labels)
}

/** @internal */
export function kappaOf(cells: readonly Cell[], weights: 'none' | 'linear' | 'quadratic', labels?: readonly Label[]) {
  const { placed, rows, columns, total } = sums(cells, labels)
  let observed = 0
  for (const { row, column, count } of placed) {
    const distance = Math.abs(row - column)
    observed += count * (weights === 'none' ? Math.min(distance, 1) : weights === 'linear' ? distance : distance ** 2)
  }
  // Compute the sum over all pairs of classes from running sums: there may be too many classes for a matrix.
  let expected = 0
  const before = { count: 0, first: 0, second: 0 }
  const add = (i: number, row: number, column: number) => {
    const { count, first, second } = before
    // Columns 0 … i - 1 with their distances from row i, and rows likewise from column i.
    if (weights === 'none') expected += row * count
    else if (weights === 'linear') expected += row * (i * count - first)
    else expected += row * (i * i * count - 2 * i * first + second)
    before.count += column
    before.first += i * column
    before.second += i * i * column
  }
  for (const [left, right] of [
    [rows, columns],
    [columns, rows],
  ] as const) {
    Object.assign(before, { count: 0, first: 0, second: 0 })
    left.forEach((row, i) => void add(i, row, right[i] as number))
  }
  return 1 - (observed * total) / expected
}

/**
 * Return the Matthews correlation coefficient over all classes (Gorodkin 2004): scikit-learn's `matthews_corrcoef`. 0 if either
 * list holds a single class.
 */
export function matthewsCorrcoef(targets: Labels, predictions: Labels): number {
  return matthewsOf(cellsOf(targets, predictions))
}

/** @internal */
export function matthewsOf(cells: readonly Cell[]): number {
  const { placed, rows, columns, total } = sums(cells)
  const right = placed.reduce((sum, { row, column, count }) => sum + (row === column ? count : 0), 0)
  const product = (a: number[], b: number[]) => a.reduce((sum, value, i) => sum + value * (b[i] as number), 0)
  const covariance = right * total - product(rows, columns)
  const truth = total ** 2 - product(rows, rows)
  const guess = total ** 2 - product(columns, columns)
  return truth * guess === 0 ? 0 : covariance / Math.sqrt(truth * guess)
}

/** Return the non-zero cells of a confusion matrix by class index, and its sums, without building the matrix. */
function sums(cells: readonly Cell[], given?: readonly Label[]) {
  const labels = classes(cells, given)
  const places = new Map(labels.map((label, i) => [label, i]))
  const rows = labels.map(() => 0)
  const columns = labels.map(() => 0)
  const placed: { row: number; column: number; count: number }[] = []
  for (const { truth, guess, count } of cells) {
    const [row, column] = [places.get(truth), places.get(guess)]
    if (row === undefined || column === undefined) continue
    placed.push({ row, column, count })
    rows[row] = (rows[row] as number) + count
    columns[column] = (columns[column] as number) + count
  }
  return { placed, rows, columns, total: rows.reduce((sum, count) => sum + count, 0) }
}
