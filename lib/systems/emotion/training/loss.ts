import { functional } from '../../../nn/index.js'
import { scope, type Tensor, tensor } from '../../../tensor/index.js'

export interface EmotionLossOptions {
  /** float32 [classes]; see {@link inverseFrequencies}. */
  classWeights?: Tensor | null
  /** γ of the focal loss (Lin et al. 2017, https://arxiv.org/abs/1708.02002): each utterance is weighted by (1 - p)^γ. Default 0: off. */
  focalGamma?: number
  /** Fraction of each target that is spread over all classes. Default 0. */
  labelSmoothing?: number
}

/**
 * Compute the mean loss over utterances. With class weights, divide by the sum of the targets' weights, as PyTorch does.
 * @param logits [utterances, classes]
 * @param labels int64 [utterances]
 */
export function emotionLoss(logits: Tensor, labels: Tensor, options: EmotionLossOptions = {}): Tensor {
  const { classWeights = null, focalGamma = 0, labelSmoothing = 0 } = options
  return scope(() => {
    const plain = logits.to({ dtype: 'float32' })
    if (focalGamma === 0) return functional.crossEntropy(plain, labels, { weight: classWeights, labelSmoothing })
    const each = functional.crossEntropy(plain, labels, { labelSmoothing, reduction: 'none' })
    const right = plain.logSoftmax(1).gather(1, labels.unsqueeze(1)).squeeze(1).exp()
    const focal = each.mul(right.neg().add(1).clampMin(0).pow(focalGamma))
    if (classWeights === null) return focal.mean()
    const weights = classWeights.indexSelect(0, labels)
    return focal.mul(weights).sum().div(weights.sum())
  })
}

/**
 * Return (N / (classes · count)) ** power for each class: scikit-learn's 'balanced' weights with power 1, their square root with
 * 0.5. A class that does not occur has weight 1.
 */
export function inverseFrequencies(labels: Iterable<number>, classes: number, power = 1): number[] {
  const counts = new Array<number>(classes).fill(0)
  let total = 0
  for (const label of labels) {
    if (label < 0) continue
    counts[label] = (counts[label] ?? 0) + 1
    total += 1
  }
  return counts.map((count) => (count === 0 ? 1 : (total / (classes * count)) ** power))
}

export const weightsTensor = (weights: readonly number[]): Tensor => tensor(Float32Array.from(weights))
