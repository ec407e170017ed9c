import { DataError } from '../../base/errors.js'
import { kappaOf, matthewsOf } from './agreement.js'
import {
  accuracyOf,
  type ConfusionMatrix,
  checkScoreOptions,
  confusionOf,
  type ScoreOptions,
  type Scores,
  scoresOf,
} from './classification.js'
import { type Cell, cellsOf, type Label, type Labels } from './labels.js'
import { Metric } from './metric.js'

/** All scores of predicted classes, each computed as by the function of that name. */
export interface Classification extends Scores<'macro' | 'micro' | 'weighted'> {
  accuracy: number
  /** Unweighted average recall. */
  uar: number
  cohenKappa: number
  matthewsCorrcoef: number
  confusion: ConfusionMatrix
}

interface ClassificationStatistics {
  /** [truth, prediction, count] */
  cells: [Label, Label, number][]
}

/**
 * `accuracy`, `precisionRecallF1` and the others, accumulated batch by batch: `update(predictions, targets)` with classes, not
 * logits. Memory use is that of the confusion matrix.
 */
export class ClassificationMetric extends Metric<Labels, Labels, ClassificationStatistics, Classification> {
  constructor(options: ScoreOptions<'macro' | 'micro' | 'weighted'> = {}) {
    checkScoreOptions(options as ScoreOptions)
    super({
      name: 'classification',
      empty: () => ({ cells: [] }),
      measure: (predictions, targets) => ({
        cells: cellsOf(targets, predictions).map(({ truth, guess, count }) => [truth, guess, count]),
      }),
      merge,
      compute: ({ cells: rows }) => {
        if (rows.length === 0) throw new DataError('ClassificationMetric: expected at least one sample, got none')
        const cells = rows.map(([truth, guess, count]): Cell => ({ truth, guess, count }))
        return {
          accuracy: accuracyOf(cells),
          uar: scoresOf(cells, { average: 'macro', zeroDivision: Number.NaN }).recall,
          ...scoresOf(cells, options),
          cohenKappa: kappaOf(cells, 'none'),
          matthewsCorrcoef: matthewsOf(cells),
          confusion: confusionOf(cells, options.labels, 'none'),
        }
      },
    })
  }
}

function merge(into: ClassificationStatistics, from: ClassificationStatistics): void {
  // JSON distinguishes 1 and '1', so this key does too.
  const key = (truth: Label, guess: Label) => JSON.stringify([truth, guess])
  const places = new Map(into.cells.map((cell) => [key(cell[0], cell[1]), cell]))
  const kind = typeof (into.cells[0] ?? from.cells[0])?.[0]
  for (const cell of from.cells) {
    if (!Array.isArray(cell)) throw new DataError('expected each cell to be a list')
    const [truth, guess, count] = cell
    if ((kind !== 'number' && kind !== 'string') || typeof truth !== kind || typeof guess !== kind) {
      throw new DataError('expected labels to be all numbers or all strings')
    }
    if (!Number.isSafeInteger(count) || count < 1)
      throw new DataError('expected each count to be an integer of at least 1')
    const place = places.get(key(truth, guess))
    if (place) place[2] += count
    else into.cells.push([truth, guess, count])
  }
}
