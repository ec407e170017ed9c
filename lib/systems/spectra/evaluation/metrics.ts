import { requireForm } from '../../../base/form.js'
import { computeMetricsOf, taskMetrics } from '../../../kit/task.js'
import { Tensor } from '../../../tensor/index.js'
import { accuracy, f1Score } from '../../../train/metrics/classification.js'
import type { Labels } from '../../../train/metrics/labels.js'
import { meanAbsoluteError, pearson } from '../../../train/metrics/regression.js'
import { type Values, valuePairs } from '../../../train/metrics/values.js'
import type { EvalPrediction } from '../../../train/trainer/evaluate.js'
import type { SpectraTask } from './task.js'

/** Metrics of MOSI and MOSEI; published as mae, corr, acc_a7, acc_a2, acc_a2_non0, f1, f1_non0. */
export interface SpectraSentimentMetrics {
  /** Mean absolute error of the unclipped predictions. */
  mae: number
  /** Pearson correlation; NaN if targets or predictions are constant. */
  corr: number
  /** Accuracy in seven classes: values clipped to [-3, 3] and rounded, halves to even. */
  accA7: number
  /** Accuracy of the classes "at least 0" and "below 0". */
  accA2: number
  /** Accuracy of the classes "above 0" and others, without samples whose target is 0; NaN if all targets are 0. The key metric. */
  accA2Non0: number
  /** F1 of the two classes of `accA2`, weighted by their frequency in the targets. */
  f1: number
  /** F1 of the two classes of `accA2Non0`, weighted likewise; NaN if all targets are 0. */
  f1Non0: number
}

/** Metrics of IEMOCAP. */
export interface SpectraEmotionMetrics {
  /** The key metric. */
  accuracy: number
  /** F1 weighted by the frequency of each class in the targets. */
  f1: number
}

/** Metrics of MIntRec; published as acc_20, f1_20, acc_2, f1_2. */
export interface SpectraIntentMetrics {
  /** The key metric. */
  acc20: number
  /** Macro F1 over the classes in targets or predictions, which may be fewer than twenty. */
  f1Of20: number
  /** Accuracy of two classes: emotions (0 to 10) and goals (11 to 19). */
  acc2: number
  f1Of2: number
}

/**
 * Return the metrics of MOSI and MOSEI.
 * @throws DataError for lists that are empty, of different lengths, or contain values other than finite numbers
 */
export function spectraSentimentMetrics(targets: Values, predictions: Values): SpectraSentimentMetrics {
  const { truth, guess } = valuePairs(targets, predictions)
  const known = truth.flatMap((value, i) => (value === 0 ? [] : [i]))
  const has0 = [truth.map((value) => Number(value >= 0)), guess.map((value) => Number(value >= 0))] as const
  const non0 = [
    known.map((i) => Number((truth[i] as number) > 0)),
    known.map((i) => Number((guess[i] as number) > 0)),
  ] as const
  const none = known.length === 0
  return {
    mae: meanAbsoluteError(truth, guess),
    corr: pearson(truth, guess),
    accA7: accuracy(truth.map(seventh), guess.map(seventh)),
    accA2: accuracy(...has0),
    accA2Non0: none ? Number.NaN : accuracy(...non0),
    f1: f1Score(...has0, { average: 'weighted' }),
    f1Non0: none ? Number.NaN : f1Score(...non0, { average: 'weighted' }),
  }
}

/** Return one of the seven classes -3 … 3. */
function seventh(value: number): number {
  const clipped = Math.min(3, Math.max(-3, value))
  const below = Math.floor(clipped)
  const rest = clipped - below
  const rounded = rest < 0.5 || (rest === 0.5 && below % 2 === 0) ? below : below + 1
  return rounded + 0 // -0 is 0
}

/** Return the metrics of IEMOCAP. @throws DataError for lists that are empty or of different lengths */
export function spectraEmotionMetrics(targets: Labels, predictions: Labels): SpectraEmotionMetrics {
  return { accuracy: accuracy(targets, predictions), f1: f1Score(targets, predictions, { average: 'weighted' }) }
}

const LAST_EMOTION = 10

/** Return the metrics of MIntRec from class indices. @throws DataError for lists that are empty or of different lengths */
export function spectraIntentMetrics(targets: Values, predictions: Values): SpectraIntentMetrics {
  const { truth, guess } = valuePairs(targets, predictions)
  const halves = [truth, guess].map((ids) => ids.map((id) => Number(id > LAST_EMOTION))) as [number[], number[]]
  return {
    acc20: accuracy(truth, guess),
    f1Of20: f1Score(truth, guess),
    acc2: accuracy(...halves),
    f1Of2: f1Score(...halves),
  }
}

/**
 * Return the metrics of a task: the published ones for the four tasks; for your own task `mae` and `corr`, or `accuracy`, weighted `f1`,
 * `macroF1` and `uar` (unweighted average recall).
 *
 * @param predictions numbers for a regression, class indices for a classification
 */
export function spectraMetrics(
  task: Pick<SpectraTask, 'name' | 'kind'>,
  targets: Values,
  predictions: Values,
): Record<string, number> {
  requireForm('spectraMetrics', 'task', task, { name: 'string', kind: 'string' })
  const { name, kind } = task
  if (name === 'mosi' || name === 'mosei') return { ...spectraSentimentMetrics(targets, predictions) }
  if (name === 'mintrec') return { ...spectraIntentMetrics(targets, predictions) }
  if (name === 'iemocap') return { ...spectraEmotionMetrics(targets, predictions) }
  return taskMetrics({ kind }, targets as readonly number[], predictions as readonly number[])
}

/** Return `computeMetrics` of a Trainer for a task. Takes logits [samples, classes], or [samples, 1] or [samples]. */
export function spectraMetricsOf(task: SpectraTask): (prediction: EvalPrediction) => Record<string, number> {
  requireForm('spectraMetricsOf', 'task', task, { name: 'string', kind: 'string' })
  const measure = computeMetricsOf(task, spectraMetrics)
  return (prediction) => {
    requireForm('spectraMetricsOf', 'prediction', prediction, { predictions: Tensor, 'labels?': Tensor })
    return measure(prediction)
  }
}
