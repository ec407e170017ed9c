import { misuse, requireOneOf, requireOptions, requireString, requireWhole } from '../base/check.js'
import { DataError } from '../base/errors.js'
import { functional } from '../nn/index.js'
import { type Tensor, tensor } from '../tensor/index.js'
import { accuracy, f1Score, unweightedAverageRecall } from '../train/metrics/classification.js'
import { meanAbsoluteError, pearson } from '../train/metrics/regression.js'
import type { EvalPrediction } from '../train/trainer/evaluate.js'

/** One quantity; one class of several; or each of several classes or not. */
export type TaskKind = 'regression' | 'classification' | 'multi-label'

/** What a network is taught to say of a sample. */
export interface Task<K extends TaskKind = TaskKind> {
  readonly name: string
  readonly kind: K
  /** Outputs of the head: 1 for a regression, 0 for classes that are not known yet. */
  readonly numLabels: number
  /** Names of the classes by their number, where they have names. */
  readonly labels?: readonly string[]
  /** The metric by which the best epoch is chosen. */
  readonly keyMetric: string
}

export interface TaskOptions<K extends TaskKind = TaskKind> {
  name: string
  kind: K
  /** The classes, in the order of their numbers. Default: those that occur in the training data, sorted. */
  labels?: readonly string[]
  /** Classes that are only numbers: how many there are. */
  numLabels?: number
  /** Default: 'mae' for a regression, 'accuracy' for classes, 'microF1' for several at once. */
  keyMetric?: string
}

const KEYS: Record<TaskKind, string> = { regression: 'mae', classification: 'accuracy', 'multi-label': 'microF1' }

/** A class number, the numbers of several classes, or a quantity. */
export type TaskLabel = number | readonly number[]

/** A task, checked. @param kinds that the system knows */
export function taskOf<K extends TaskKind>(where: string, options: TaskOptions<K>, kinds: readonly K[]): Task<K> {
  requireOptions(where, options, ['name', 'kind', 'labels', 'numLabels', 'keyMetric'])
  const { name, kind, labels, numLabels, keyMetric = KEYS[kind] } = options
  requireString(where, 'name', name)
  requireOneOf(where, 'kind', kind, kinds)
  requireString(where, 'keyMetric', keyMetric)
  if (kind === 'regression') {
    if (labels !== undefined) throw misuse(where, 'labels', 'left out for a regression', labels)
    return { name, kind, numLabels: 1, keyMetric }
  }
  if (labels !== undefined) {
    const whole = Array.isArray(labels) && labels.every((label) => typeof label === 'string')
    if (!whole || labels.length < 2 || new Set(labels).size !== labels.length) {
      throw misuse(where, 'labels', 'at least two different names', labels)
    }
  }
  if (numLabels !== undefined) requireWhole(where, 'numLabels', numLabels, 2)
  if (labels !== undefined && numLabels !== undefined && labels.length !== numLabels) {
    throw misuse(where, 'numLabels', `${labels.length}, as there are so many labels`, numLabels)
  }
  return { name, kind, numLabels: labels?.length ?? numLabels ?? 0, ...(labels && { labels: [...labels] }), keyMetric }
}

/**
 * The task with the names or the number of its classes, where it had neither.
 * @param found labels of the training data, names or numbers
 * @param source where they are from, for messages
 */
export function completeTask<T extends Task>(task: T, found: Iterable<string | number>, source: string): T {
  if (task.kind === 'regression' || task.numLabels > 0) return task
  const labels = new Set(found)
  const names = [...labels].filter((label): label is string => typeof label === 'string')
  if (names.length > 0 && names.length < labels.size) {
    throw new DataError(`${source}: some labels are names and some are numbers`, { file: source })
  }
  if (labels.size < 2) {
    const what = `its training records have ${labels.size} different labels, two are needed`
    throw new DataError(`${source}: ${what}`, { file: source })
  }
  if (names.length > 0) return { ...task, numLabels: names.length, labels: names.sort() }
  return { ...task, numLabels: Math.max(...([...labels] as number[])) + 1 }
}

/**
 * The number of a class, by its name or number, or a quantity.
 * @throws DataError saying what is wrong with a label; the caller adds where it stands
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
    throw new DataError(`its label is ${label}, and ${name} has class numbers ${range}`, { label })
  }
  const said = `its label is ${JSON.stringify(label)}`
  if (kind === 'regression') throw new DataError(`${said}, where ${name} needs a number`, { label })
  const index = labels?.indexOf(label) ?? -1
  if (index >= 0) return index
  const known = labels ? `are ${labels.join(', ')}` : `of ${name} are numbers: give the task labels`
  throw new DataError(`${said}, and the classes ${known}`, { label })
}

/** The name of each class, or its number as text; none of a regression. */
export const labelNames = ({ kind, labels, numLabels }: Pick<Task, 'kind' | 'labels' | 'numLabels'>): string[] =>
  kind === 'regression' ? [] : Array.from({ length: numLabels }, (_, i) => labels?.[i] ?? String(i))

/** Labels as a batch has them: float32 [B] of quantities, int64 [B] of classes, float32 [B, numLabels] of 0 and 1. */
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

/** L1, cross-entropy, or binary cross-entropy of each class, as the mean over the batch. */
export function taskLoss({ kind }: Pick<Task, 'kind'>, logits: Tensor, labels: Tensor): Tensor {
  if (kind === 'regression') return functional.l1Loss(logits.reshape([-1]), labels)
  if (kind === 'classification') return functional.crossEntropy(logits, labels)
  return functional.binaryCrossEntropyWithLogits(logits, labels)
}

/** What logits say as scores: quantities, or probabilities of the classes. */
export function scoresOf({ kind }: Pick<Task, 'kind'>, logits: Tensor): Tensor {
  if (kind === 'regression') return logits
  return kind === 'classification' ? logits.softmax(-1) : logits.sigmoid()
}

/** What logits say of each sample: a number, a class number, or the numbers of the classes of more than one half. */
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
 * The metrics of a task: `mae` and `corr` (Pearson's) of quantities; `accuracy`, `f1` weighted by how often each class is
 * true, `macroF1` and `uar` (unweighted average recall) of classes; of several classes at once `accuracy`, the share of
 * samples of which all are right, `microF1` and `macroF1`, as scikit-learn has them.
 * @throws DataError on lists that are empty or of different lengths
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

/** `computeMetrics` of a Trainer for a task. @param metrics Default {@link taskMetrics} */
export const computeMetricsOf =
  <T extends Task>(task: T, metrics: (task: T, targets: number[], predictions: number[]) => Record<string, number>) =>
  ({ predictions, labels }: EvalPrediction): Record<string, number> => {
    if (!labels) throw new DataError(`The task ${task.name} has no labels to compare predictions with`, {})
    const rows = labels.toArray() as number[] | number[][]
    const targets =
      task.kind === 'multi-label'
        ? (rows as number[][]).map((row) => row.flatMap((is, i) => (is ? [i] : [])))
        : (rows as number[])
    return metrics(task, targets as number[], predictionsOf(task, predictions) as number[])
  }
