import {
  argumentError,
  elementsOf,
  isArrayLike,
  isList,
  requireOptions,
  requireWhole,
  shown,
} from '../../base/check.js'
import { DataError, ShapeError } from '../../base/errors.js'
import { Tensor } from '../../tensor/index.js'

export interface RetrievalOptions {
  /** Correct candidate of each query. Default: query i's is candidate i. */
  targets?: ArrayLike<number>
  /** Values of k for recall at k. Default 1, 5, 10. */
  at?: readonly number[]
}

export interface RetrievalMetrics {
  /** R@k: fraction of queries whose correct candidate is among the k best, by k. */
  recall: Record<number, number>
  medianRank: number
  meanRank: number
  /** Mean of 1 / rank. */
  meanReciprocalRank: number
}

/**
 * Return recall at k and the mean reciprocal rank for scores [queries, candidates], the highest being the best. Ranks count
 * from 1, and ties rank before the correct candidate, so that constant scores find nothing.
 *
 * ```ts
 * const { recall } = retrievalMetrics(model.similarity(text, video))
 * recall[1] // R@1, text to video; of the transposed scores video to text
 * ```
 * @throws ShapeError for scores that are not [queries, candidates]; DataError for NaN, no query, or a target that is not a
 *   candidate
 */
export function retrievalMetrics(
  scores: Tensor | readonly ArrayLike<number>[],
  options: RetrievalOptions = {},
): RetrievalMetrics {
  const where = 'retrievalMetrics'
  requireOptions(where, options, ['targets', 'at'])
  const { targets, at = [1, 5, 10] } = options
  if (!isArrayLike(at) || at.length === 0) throw argumentError(where, 'at', 'a list of at least one number', at)
  const within = elementsOf(where, 'at', at, (k) => {
    requireWhole(where, 'at', k, 1)
    return k as number
  })
  const rows = rowsOf(where, scores)
  const wanted = targets ?? rows.map((_, i) => i)
  if (!isArrayLike(wanted) || wanted.length !== rows.length) {
    throw argumentError(where, 'targets', `one candidate for each of the ${rows.length} queries`, targets)
  }
  const ranks = rows.map((row, query) => rankOf(row, wanted[query] as number, query))
  const mean = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / values.length
  const sorted = [...ranks].sort((a, b) => a - b)
  const middle = (sorted.length - 1) / 2
  return {
    recall: Object.fromEntries(within.map((k) => [k, mean(ranks.map((rank) => (rank <= k ? 1 : 0)))])),
    medianRank: ((sorted[Math.floor(middle)] as number) + (sorted[Math.ceil(middle)] as number)) / 2,
    meanRank: mean(ranks),
    meanReciprocalRank: mean(ranks.map((rank) => 1 / rank)),
  }
}

function rowsOf(where: string, scores: unknown): number[][] {
  if (scores instanceof Tensor && scores.ndim !== 2) {
    throw new ShapeError(`${where}: expected scores [queries, candidates], got [${scores.shape}]`, {
      shape: scores.shape,
    })
  }
  const given: unknown = scores instanceof Tensor ? scores.toArray() : scores
  if (!isList(given)) throw argumentError(where, 'scores', 'a tensor or rows', scores)
  const rows = elementsOf(where, 'scores', given, (row, query) => {
    if (!isArrayLike(row)) throw argumentError(where, `scores[${query}]`, 'a row of scores', row)
    return elementsOf(where, `scores[${query}]`, row, (score, i) => {
      if (typeof score === 'number' && !Number.isNaN(score)) return score
      throw new DataError(
        `${where}: expected a number as score of query ${query} and candidate ${i}, got ${shown(score)}`,
        { query },
      )
    })
  })
  const width = rows[0]?.length ?? 0
  if (width === 0) throw new DataError(`${where}: expected at least one score, got none`, {})
  if (rows.some((row) => row.length !== width)) {
    throw new ShapeError(`${where}: expected rows of equal length`, { width })
  }
  return rows
}

function rankOf(row: number[], target: number, query: number): number {
  const targetScore = Number.isInteger(target) ? row[target] : undefined
  if (targetScore === undefined) {
    throw new DataError(
      `retrievalMetrics: expected the target of query ${query} to be one of ${row.length} candidates, got ${target}`,
      { query, target },
    )
  }
  return row.filter((score) => score >= targetScore).length
}
