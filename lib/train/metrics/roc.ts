import { elementsOf, isArrayLike, requireOneOf, requireOptions, shown } from '../../base/check.js'
import { DataError, ShapeError } from '../../base/errors.js'
import { Tensor } from '../../tensor/index.js'
import { type Label, type Labels, labelsOf } from './labels.js'
import { Metric, requireSameCount } from './metric.js'
import { ranks } from './regression.js'
import { type Values, valuesOf } from './values.js'

/** One score for each sample and class: nested arrays or a tensor [samples, classes]. */
export type ClassScores = ArrayLike<ArrayLike<number>> | Tensor

export interface RocAucOptions {
  /** Each class against the rest ('ovr', default), or each pair of classes ('ovo', Hand and Till 2001). */
  multiClass?: 'ovr' | 'ovo'
  /** Average over classes; 'weighted' by the number of true samples. Default 'macro'. */
  average?: 'macro' | 'weighted'
}

/**
 * Return the area under the ROC curve of a binary classification: scikit-learn's `roc_auc_score`. NaN if a class is absent.
 *
 * @param targets at most two classes; the greater one is the positive class
 * @param scores any numbers: only their order matters
 * @throws DataError for more than two classes, no samples, or unless there is one finite score for each sample
 */
export function rocAuc(targets: Labels, scores: Values): number {
  const truth = labelsOf(targets, 'targets')
  const values = valuesOf('scores', scores)
  requireSameCount('rocAuc', values.length, truth.length)
  if (truth.length === 0) throw new DataError('rocAuc: expected at least one sample, got none')
  const labels = [...new Set(truth)].sort((a, b) => (a < b ? -1 : 1))
  if (labels.length > 2) {
    throw new DataError(
      `rocAuc: expected at most two classes, got ${labels.length}. Use rocAucMultiClass with a score for each class`,
      {
        labels,
      },
    )
  }
  return labels.length < 2 ? Number.NaN : area(truth, values, labels[1] as Label)
}

/**
 * Return the area under the ROC curve for several classes: scikit-learn's `roc_auc_score` with `multi_class`. (Unlike there,
 * scores need not sum to one.)
 *
 * @param targets class numbers, 0 … classes - 1
 * @param scores [samples, classes]
 * @returns NaN when a class never occurs in the targets
 */
export function rocAucMultiClass(targets: Labels, scores: ClassScores, options: RocAucOptions = {}): number {
  requireOptions('rocAucMultiClass', options, ['multiClass', 'average'])
  const { multiClass = 'ovr', average = 'macro' } = options
  requireOneOf('rocAucMultiClass', 'multiClass', multiClass, ['ovr', 'ovo'])
  requireOneOf('rocAucMultiClass', 'average', average, ['macro', 'weighted'])
  const truth = labelsOf(targets, 'targets')
  const rows = rowsOf(scores)
  requireSameCount('rocAucMultiClass', rows.length, truth.length)
  if (truth.length === 0) throw new DataError('rocAucMultiClass: expected at least one sample, got none')
  const count = rows[0]?.length as number
  const outside = truth.findIndex(
    (label) => !Number.isInteger(label) || (label as number) < 0 || Number(label) >= count,
  )
  if (outside >= 0) {
    throw new DataError(
      `rocAucMultiClass: expected targets[${outside}] to be one of ${count} classes, got ${shown(truth[outside])}`,
      {
        index: outside,
      },
    )
  }
  const support = Array.from({ length: count }, (_, label) => truth.filter((other) => other === label).length)
  const parts: { value: number; weight: number }[] = []
  for (let a = 0; a < count; a++) {
    const column = rows.map((row) => row[a] as number)
    if (multiClass === 'ovr') {
      parts.push({ value: area(truth, column, a), weight: support[a] as number })
      continue
    }
    for (let b = a + 1; b < count; b++) {
      const kept = truth.flatMap((label, i) => (label === a || label === b ? [i] : []))
      const part = (label: number) =>
        area(
          kept.map((i) => truth[i] as Label),
          kept.map((i) => rows[i]?.[label] as number),
          label,
        )
      parts.push({ value: (part(a) + part(b)) / 2, weight: (support[a] as number) + (support[b] as number) })
    }
  }
  const weight = (part: { weight: number }) => (average === 'weighted' ? part.weight : 1)
  const total = parts.reduce((sum, part) => sum + weight(part), 0)
  return parts.reduce((sum, part) => sum + part.value * weight(part), 0) / total
}

/** `rocAuc`, accumulated batch by batch: `update(scores, targets)`. Stores every sample, since the order of all matters. */
export class RocAucMetric extends Metric<Values, Labels, { truth: Label[]; scores: number[] }, number> {
  constructor() {
    super({
      name: 'roc_auc',
      empty: () => ({ truth: [], scores: [] }),
      measure: (scores, targets) => pairs(labelsOf(targets, 'targets'), valuesOf('scores', scores)),
      merge: (into, from) => {
        if (from.truth.length === 0 && from.scores.length === 0) return
        // Check again, since a state may come from a file.
        const { truth, scores } = pairs(labelsOf(from.truth, 'targets'), valuesOf('scores', from.scores))
        for (const label of truth) into.truth.push(label)
        for (const score of scores) into.scores.push(score)
      },
      compute: ({ truth, scores }) => rocAuc(truth, scores),
    })
  }
}

function pairs(truth: Label[], scores: number[]): { truth: Label[]; scores: number[] } {
  requireSameCount('RocAucMetric', scores.length, truth.length)
  return { truth, scores }
}

/** Return how often a sample of the class has a greater score than another; ties count half (Mann and Whitney). */
function area(truth: readonly Label[], scores: readonly number[], positive: Label): number {
  const places = ranks(scores)
  let sum = 0
  let positives = 0
  truth.forEach((label, i) => {
    if (label !== positive) return
    sum += places[i] as number
    positives++
  })
  const negatives = truth.length - positives
  return (sum - (positives * (positives + 1)) / 2) / (positives * negatives)
}

function rowsOf(scores: ClassScores): number[][] {
  if (scores instanceof Tensor) {
    if (scores.ndim !== 2) {
      throw new ShapeError(`rocAucMultiClass: expected scores [samples, classes], got [${scores.shape}]`, {
        shape: scores.shape,
      })
    }
    return rowsOf(scores.toArray() as number[][])
  }
  if (!isArrayLike(scores))
    throw new DataError(`rocAucMultiClass: expected scores to be a list of rows, got ${shown(scores)}`)
  const rows = elementsOf('rocAucMultiClass', 'scores', scores, (row, i) => valuesOf(`scores[${i}]`, row as Values))
  const odd = rows.findIndex((row) => row.length !== rows[0]?.length || row.length < 2)
  if (odd >= 0) {
    throw new DataError(
      `rocAucMultiClass: expected one score for each class in scores[${odd}], got ${rows[odd]?.length}`,
    )
  }
  return rows
}
