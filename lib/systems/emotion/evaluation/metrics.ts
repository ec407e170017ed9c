import { accuracy, confusionMatrix, f1Score, precisionRecallF1 } from '../../../train/metrics/classification.js'

/** Metrics on one part of the data. */
export interface EmotionMetrics {
  [name: string]: number
  accuracy: number
  /** Mean F1 of the classes that occur in truth or prediction, as in scikit-learn. The original code names it `f1_score`. */
  macroF1: number
  /** F1 weighted by the number of true utterances of each class: MELD's metric. */
  weightedF1: number
}

export const emotionMetrics = (truth: readonly number[], predicted: readonly number[]): EmotionMetrics => ({
  accuracy: accuracy(truth, predicted),
  macroF1: f1Score(truth, predicted),
  weightedF1: f1Score(truth, predicted, { average: 'weighted' }),
})

export interface ClassScores {
  label: string
  precision: number
  recall: number
  f1: number
  /** Number of utterances whose true class this is. */
  support: number
}

/** Compute precision, recall and F1 of each class, in the order of `labels`. */
export function classScores(
  truth: readonly number[],
  predicted: readonly number[],
  labels: readonly string[],
): ClassScores[] {
  return labels.map((label, one) => {
    const { precision, recall, f1 } = precisionRecallF1(truth, predicted, { labels: [one], average: 'macro' })
    return { label, precision, recall, f1, support: truth.filter((label) => label === one).length }
  })
}

/** Compute the confusion matrix: rows are true classes, columns predicted ones. */
export function confusions(truth: readonly number[], predicted: readonly number[], classes: number): number[][] {
  const { labels, matrix } = confusionMatrix(truth, predicted, { labels: Array.from({ length: classes }, (_, i) => i) })
  return labels.length === classes ? matrix : []
}

export interface ReliabilityBin {
  /** Mean probability of the predicted class, and the fraction of correct predictions. */
  confidence: number
  accuracy: number
  count: number
}

/** Compare probabilities with accuracy: bins of equal width over the highest probability, and the expected calibration error. */
export function reliability(probabilities: readonly (readonly number[])[], truth: readonly number[], bins = 10) {
  const sums = Array.from({ length: bins }, () => ({ confidence: 0, right: 0, count: 0 }))
  for (const [i, row] of probabilities.entries()) {
    const best = row.indexOf(Math.max(...row))
    const confidence = row[best] as number
    const bin = sums[Math.min(bins - 1, Math.floor(confidence * bins))] as (typeof sums)[number]
    bin.confidence += confidence
    bin.right += Number(best === truth[i])
    bin.count += 1
  }
  const filled: ReliabilityBin[] = sums.map(({ confidence, right, count }) => ({
    confidence: count === 0 ? Number.NaN : confidence / count,
    accuracy: count === 0 ? Number.NaN : right / count,
    count,
  }))
  // Expected calibration error (Naeini et al. 2015).
  const error = filled.reduce(
    (sum, { confidence, accuracy, count }) =>
      count === 0 ? sum : sum + (count * Math.abs(confidence - accuracy)) / truth.length,
    0,
  )
  return { bins: filled, error }
}

/** Compute probabilities of logits divided by a temperature. */
export function softmaxOf(logits: readonly number[], temperature = 1): number[] {
  const most = Math.max(...logits)
  const powers = logits.map((value) => Math.exp((value - most) / temperature))
  const sum = powers.reduce((total, value) => total + value, 0)
  return powers.map((value) => value / sum)
}

/**
 * Return the temperature, from 0.05 to 20, with the lowest cross-entropy (Guo et al. 2017, https://arxiv.org/abs/1706.04599).
 * The loss has a single minimum over the inverse temperature, so golden-section search finds it.
 */
export function bestTemperature(logits: readonly (readonly number[])[], truth: readonly number[]): number {
  if (logits.length === 0) return 1
  const loss = (inverse: number) =>
    logits.reduce((sum, row, i) => {
      const scaled = row.map((value) => value * inverse)
      const most = Math.max(...scaled)
      const log = most + Math.log(scaled.reduce((total, value) => total + Math.exp(value - most), 0))
      return sum + log - (scaled[truth[i] as number] as number)
    }, 0)
  const ratio = (Math.sqrt(5) - 1) / 2
  let [low, high] = [0.05, 20]
  for (let step = 0; step < 60; step += 1) {
    const [a, b] = [high - ratio * (high - low), low + ratio * (high - low)]
    if (loss(a) < loss(b)) high = b
    else low = a
  }
  return 2 / (low + high)
}
