import { functional } from '../../../nn/index.js'
import { scope, type Tensor, tensor } from '../../../tensor/index.js'

export interface EmotionLossOptions {
  /** float32 [classes]; see {@link inverseFrequencies}. */
  classWeights?: Tensor | null
  /** Of the focal loss (Lin et al. 2017, https://arxiv.org/abs/1708.02002): (1 - p)^γ weighs each utterance. 0: none [0]. */
  focalGamma?: number
  /** Share of each target that is spread over all classes [0]. */
  labelSmoothing?: number
}

/**
 * The mean loss of utterances. With class weights it is divided by the weights of the targets, as PyTorch's is.
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
 * N / (classes · count) of each class, as scikit-learn's 'balanced', to a power: 1 for all of it, 0.5 for its root. A class that
 * does not occur has 1.
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
