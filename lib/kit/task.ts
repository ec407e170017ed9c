import { argumentError, requireOneOf, requireOptions, requireString, requireWhole } from '../base/check.js'
import { DataError } from '../base/errors.js'
import { functional } from '../nn/index.js'
import { type Tensor, tensor } from '../tensor/index.js'
import { accuracy, f1Score, unweightedAverageRecall } from '../train/metrics/classification.js'
import { meanAbsoluteError, pearson } from '../train/metrics/regression.js'
import type { EvalPrediction } from '../train/trainer/evaluate.js'

/** Kind of a prediction: a quantity, one class of several, or any subset of the classes. */
export type TaskKind = 'regression' | 'classification' | 'multi-label'

/** A prediction task. */
export interface Task<K extends TaskKind = TaskKind> {
  readonly name: string
  readonly kind: K
  /** Number of outputs of the head: 1 for a regression, 0 for classes that are not known yet. */
  readonly numLabels: number
  /** Class names in the order of their indices, if classes have names. */
  readonly labels?: readonly string[]
  /** Metric that selects the best epoch. */
  readonly keyMetric: string
}

export interface TaskOptions<K extends TaskKind = TaskKind> {
  name: string
  kind: K
  /** Class names, in the order of their indices. Default: those of the training data, sorted. */
  labels?: readonly string[]
  /** Number of classes, for classes without names. */
  numLabels?: number
  /** Default: 'mae' for a regression, 'accuracy' for a classification, 'microF1' for multi-label. */
  keyMetric?: string
}

const KEYS: Record<TaskKind, string> = { regression: 'mae', classification: 'accuracy', 'multi-label': 'microF1' }

/** A class index, a list of class indices, or a quantity. */
export type TaskLabel = number | readonly number[]

/** Check the options of a task. @param kinds kinds that the system supports */
export function taskOf<K extends TaskKind>(where: string, options: TaskOptions<K>, kinds: readonly K[]): Task<K> {
  requireOptions(where, options, ['name', 'kind', 'labels', 'numLabels', 'keyMetric'])
  const { name, kind, labels, numLabels, keyMetric = KEYS[kind] } = options
  requireString(where, 'name', name)
  requireOneOf(where, 'kind', kind, kinds)
  requireString(where, 'keyMetric', keyMetric)
  if (kind === 'regression') {
    if (labels !== undefined) throw argumentError(where, 'labels', 'undefined for a regression', labels)
    return { name, kind, numLabels: 1, keyMetric }
  }
  if (labels !== undefined) {
    const whole = Array.isArray(labels) && labels.every((label) => typeof label === 'string')
    if (!whole || labels.length < 2 || new Set(labels).size !== labels.length) {
      throw argumentError(where, 'labels', 'a list of at least two different names', labels)
    }
  }
  if (numLabels !== undefined) requireWhole(where, 'numLabels', numLabels, 2)
  if (labels !== undefined && numLabels !== undefined && labels.length !== numLabels) {
    throw argumentError(where, 'numLabels', `${labels.length}, the number of labels`, numLabels)
  }
  return { name, kind, numLabels: labels?.length ?? numLabels ?? 0, ...(labels && { labels: [...labels] }), keyMetric }
}

/**
 * Set the class names or the number of classes of a task that has neither.
 * @param found labels of the training data, names or indices
 * @param source origin of the labels, for messages
 */
export function completeTask<T extends Task>(task: T, found: Iterable<string | number>, source: string): T {
  if (task.kind === 'regression' || task.numLabels > 0) return task
  const labels = new Set(found)
  const names = [...labels].filter((label): label is string => typeof label === 'string')
  if (names.length > 0 && names.length < labels.size) {
    throw new DataError(
      `${source}: expected labels that are all names or all numbers, got a mix. Write all of them as names.`,
      { file: source },
    )
  }
  if (labels.size < 2) {
    throw new DataError(
      `${source}: expected at least 2 different labels in the training records, got ${labels.size}. Add records of other classes.`,
      { file: source },
    )
  }
  if (names.length > 0) return { ...task, numLabels: names.length, labels: names.sort() }
  return { ...task, numLabels: Math.max(...([...labels] as number[])) + 1 }
}

/**
 * Return the index of a class by its name or index, or the value of a regression.
 * @throws DataError without the position of the label, which the caller adds
 */
export function labelNumber(
  label: number | string,
  task: Pick<Task, 'name' | 'kind' | 'numLabels' | 'labels'>,
): number {
  const { name, kind, numLabels, labels } = task
  if (typeof label === 'number') {
    if (kind === 'regression' || (Number.isInteger(label) && label >= 0 && (numLabels === 0 || label < numLabels)))
      return label
    const range = numLabels === 0 ? 'of at least 0' : `from 0 to ${numLabels - 1}`
    throw new DataError(`label: expected an index of ${name} ${range}, got ${label}`, { label })
  }
  const shownLabel = JSON.stringify(label)
  if (kind === 'regression') throw new DataError(`label: expected a number for ${name}, got ${shownLabel}`, { label })
  const index = labels?.indexOf(label) ?? -1
  if (index >= 0) return index
  const expected = labels ? `one of ${labels.join(', ')}` : `an index, because ${name} has no label names`
  throw new DataError(`label: expected ${expected}, got ${shownLabel}`, { label })
}

/** Return the name of each class, or its index as text; [] for a regression. */
export const labelNames = ({ kind, labels, numLabels }: Pick<Task, 'kind' | 'labels' | 'numLabels'>): string[] =>
  kind === 'regression' ? [] : Array.from({ length: numLabels }, (_, i) => labels?.[i] ?? String(i))

/** Return a batch of labels: float32 [B] for a regression, int64 [B] for classes, float32 [B, numLabels] of 0 and 1 for multi-label. */
export function labelTensor(task: Pick<Task, 'kind'> & { numLabels?: number }, labels: readonly TaskLabel[]): Tensor {
  if (task.kind === 'classification') return tensor(BigInt64Array.from(labels as readonly number[], BigInt))
  if (task.kind === 'regression') return tensor(Float32Array.from(labels as readonly number[]))
  const count = task.numLabels ?? 0
  const flat = new Float32Array(labels.length * count)
  for (const [row, classes] of labels.entries()) {
    for (const one of typeof classes === 'number' ? [classes] : classes) flat[row * count + one] = 1
  }
  return tensor(flat, { shape: [labels.length, count] })
}

/** Compute the mean loss of a batch: L1, cross-entropy, or binary cross-entropy of each class. */
export function taskLoss({ kind }: Pick<Task, 'kind'>, logits: Tensor, labels: Tensor): Tensor {
  if (kind === 'regression') return functional.l1Loss(logits.reshape([-1]), labels)
  if (kind === 'classification') return functional.crossEntropy(logits, labels)
  return functional.binaryCrossEntropyWithLogits(logits, labels)
}

/** Convert logits to quantities, or to probabilities of the classes. */
export function scoresOf({ kind }: Pick<Task, 'kind'>, logits: Tensor): Tensor {
  if (kind === 'regression') return logits
  return kind === 'classification' ? logits.softmax(-1) : logits.sigmoid()
}

/** Convert logits to predictions: a quantity, a class index, or the indices of the classes with a probability above 0.5. */
export function predictionsOf({ kind }: Pick<Task, 'kind'>, logits: Tensor): TaskLabel[] {
  if (kind === 'multi-label') {
    const above = logits.gt(0)
    const rows = above.toArray() as boolean[][]
    above.dispose()
    return rows.map((row) => row.flatMap((is, i) => (is ? [i] : [])))
  }
  const chosen = kind === 'regression' ? logits.reshape([-1]) : logits.argmax(-1)
  const values = chosen.toArray() as number[]
  chosen.dispose()
  return values.map(Number)
}

/**
 * Compute the metrics of a task, as scikit-learn defines them. Regression: `mae` and `corr` (Pearson's). Classification: `accuracy`,
 * `f1` weighted by class frequency, `macroF1` and `uar` (unweighted average recall). Multi-label: `accuracy`, the fraction of
 * samples with all classes correct, `microF1` and `macroF1`.
 * @throws DataError for lists that are empty or of different lengths
 */
export function taskMetrics(
  { kind, numLabels }: Pick<Task, 'kind'> & { numLabels?: number },
  targets: readonly TaskLabel[],
  predictions: readonly TaskLabel[],
): Record<string, number> {
  const [truth, guess] = [targets as readonly number[], predictions as readonly number[]]
  if (kind === 'regression') return { mae: meanAbsoluteError(truth, guess), corr: pearson(truth, guess) }
  if (kind === 'classification') {
    return {
      accuracy: accuracy(truth, guess),
      f1: f1Score(truth, guess, { average: 'weighted' }),
      macroF1: f1Score(truth, guess),
      uar: unweightedAverageRecall(truth, guess),
    }
  }
  const classes = Array.from({ length: numLabels ?? 0 }, (_, i) => i)
  const holds = (labels: readonly TaskLabel[], one: number) =>
    labels.map((label) => Number(typeof label === 'number' ? label === one : label.includes(one)))
  const columns = classes.map((one) => [holds(targets, one), holds(predictions, one)] as const)
  const ofTrue = (a: readonly number[], b: readonly number[]) => f1Score(a, b, { labels: [1] })
  const key = (label: TaskLabel) =>
    typeof label === 'number' ? String(label) : [...label].sort((a, b) => a - b).join()
  return {
    accuracy: accuracy(targets.map(key), predictions.map(key)),
    microF1: ofTrue(
      columns.flatMap(([a]) => a),
      columns.flatMap(([, b]) => b),
    ),
    macroF1: columns.reduce((sum, [a, b]) => sum + ofTrue(a, b), 0) / columns.length,
  }
}

/** Return a Trainer's `computeMetrics` for a task. @param metrics default {@link taskMetrics} */
export const computeMetricsOf =
  <T extends Task>(task: T, metrics: (task: T, targets: number[], predictions: number[]) => Record<string, number>) =>
  ({ predictions, labels }: EvalPrediction): Record<string, number> => {
    if (!labels)
      throw new DataError(
        `Task ${task.name}: expected labels in the evaluation data, got none. Add them, or do not evaluate.`,
        {},
      )
    const rows = labels.toArray() as number[] | number[][]
    const targets =
      task.kind === 'multi-label'
        ? (rows as number[][]).map((row) => row.flatMap((is, i) => (is ? [i] : [])))
        : (rows as number[])
    return metrics(task, targets as number[], predictionsOf(task, predictions) as number[])
  }
