import { shown } from '../base/arguments.js'
import { requireBoolean, requireOptions } from '../base/check.js'
import { ConfigError, DTypeError } from '../base/errors.js'
import { op, opAsync } from '../native/call.js'
import { ops, scope, type Tensor } from '../tensor/index.js'
import { insideTransform } from '../tensor/transforms.js'
import { byPosition } from './by-position.js'
import {
  badIndices,
  explain,
  isFloating,
  notFloating,
  otherSize,
  requireNumbers,
  requireSameShape,
  requireTensors,
} from './check.js'

// In PyTorch the deprecated `size_average` and `reduce` stand among the positional arguments of most losses. They do not exist
// here, so what follows them is by name only.

/** Reduction of the losses of a batch: their mean (default), their sum, or none. */
export type Reduction = 'none' | 'mean' | 'sum'

export interface LossOptions {
  reduction?: Reduction
}

export interface CrossEntropyOptions extends LossOptions {
  /** Weight of each class, [classes]. */
  weight?: Tensor | null
  /** Targets with this value do not contribute to the loss. Default: -100. */
  ignoreIndex?: number
  /** Label smoothing: fraction of the target that is spread over all classes, in [0, 1]. Default: 0. */
  labelSmoothing?: number
}

const REDUCTIONS: Record<Reduction, number> = { none: 0, mean: 1, sum: 2 }

function code(reduction: Reduction = 'mean'): number {
  if (typeof reduction !== 'string' || !Object.hasOwn(REDUCTIONS, reduction)) {
    throw new ConfigError(`expected reduction to be 'none', 'mean' or 'sum', got ${shown(reduction)}`, { reduction })
  }
  return REDUCTIONS[reduction]
}

/** Reduce the losses of a batch. */
function reduced(losses: Tensor, reduction: Reduction = 'mean'): Tensor {
  if (code(reduction) === REDUCTIONS.none) return losses
  return reduction === 'sum' ? losses.sum() : losses.mean()
}

// The gradients of some of libtorch's losses have no batched form, so vmap would run them once for each sample, and no forward
// derivative. Inside a function transform these losses are computed by operators that have both.

/** d² / (2 beta) where |d| < beta, else |d| - beta / 2. */
function smoothAbsolute(difference: Tensor, beta: number): Tensor {
  const absolute = difference.abs()
  return difference
    .square()
    .div(2 * beta)
    .where(absolute.lt(beta), absolute.sub(beta / 2))
}

/** Reduce losses times their weights; the mean is over the sum of the weights. */
function weightedMean(where: string, losses: Tensor, weight: Tensor, reduction: Reduction = 'mean'): Tensor {
  requireSameShape(where, losses, weight)
  const weighted = losses.mul(weight)
  return reduction === 'mean' ? weighted.sum().div(weight.sum()) : reduced(weighted, reduction)
}

export interface WeightedLossOptions extends LossOptions {
  /** Weight of each element, in the input's shape; the mean divides by the sum of the weights. */
  weight?: Tensor | null
}

/**
 * Return the softmax cross-entropy of logits [batch, classes, ...] (or [classes]).
 * @param target class indices, int64 [batch, ...]; or probabilities in the logits' shape and dtype
 */
export const crossEntropy = byPosition(
  'crossEntropy',
  ['weight'],
  (logits: Tensor, target: Tensor, options: CrossEntropyOptions): Tensor => {
    const { weight = null, ignoreIndex = -100, labelSmoothing = 0, reduction } = options
    try {
      return ops.crossEntropyLoss(logits, target, weight, code(reduction), ignoreIndex, labelSmoothing)
    } catch (error) {
      throw explainClasses('crossEntropy', error, logits, target, ignoreIndex)
    }
  },
  ['ignoreIndex', 'reduction', 'labelSmoothing'],
)

export interface LinearCrossEntropyOptions extends LossOptions {
  /** [classes] */
  bias?: Tensor | null
  /** Labels with this value do not contribute to the loss, and no logits are computed for them. Default: -100. */
  ignoreIndex?: number
  /** Label smoothing: fraction of the target that is spread over all classes, in [0, 1]. Default: 0. */
  labelSmoothing?: number
  /** Factor of log(Σ exp(logits))², a penalty that keeps logits small (https://arxiv.org/abs/2204.02311). Default: 0. */
  zLoss?: number
  /**
   * Number of tokens whose logits exist at a time. Default: depends on the number of classes, for about 32 MiB on the CPU, 128
   * on CUDA.
   */
  chunkSize?: number
}

const fusedLinear = op('voxtorch::linear_cross_entropy')
const fusedLinearQueued = opAsync('voxtorch::linear_cross_entropy')

/**
 * Return `crossEntropy(linear(hidden, weight, bias), labels)`, computed in blocks of tokens: the logits [tokens, classes] never
 * exist as a whole. Loss and gradients are exact. With a reduction, the gradients are computed together with the loss, so
 * backward only scales them; second derivatives are not supported.
 *
 * @param hidden [..., dim], float32, float64, bfloat16 or float16
 * @param weight [classes, dim], in the same dtype; products are computed in it, or in autocast's, and the rest in float32
 * @param labels class indices, int64 [...]
 * @returns the loss, float32 for half types; with reduction 'none' in the labels' shape, 0 where ignored
 * @throws ShapeError or DTypeError if the arguments do not match; IndexError for a label outside the classes
 */
export function linearCrossEntropy(
  hidden: Tensor,
  weight: Tensor,
  labels: Tensor,
  options: LinearCrossEntropyOptions = {},
): Tensor {
  return fusedLinear(...linearArguments(hidden, weight, labels, options))
}

/** Run {@link linearCrossEntropy} on the executor: it may take seconds, and does not block the event loop. */
export function linearCrossEntropyAsync(
  hidden: Tensor,
  weight: Tensor,
  labels: Tensor,
  options: LinearCrossEntropyOptions = {},
): Promise<Tensor> {
  return fusedLinearQueued(...linearArguments(hidden, weight, labels, options))
}

function linearArguments(hidden: Tensor, weight: Tensor, labels: Tensor, options: LinearCrossEntropyOptions) {
  requireOptions('linearCrossEntropy', options, [
    'bias',
    'ignoreIndex',
    'labelSmoothing',
    'zLoss',
    'chunkSize',
    'reduction',
  ])
  const { bias = null, ignoreIndex = -100, labelSmoothing = 0, zLoss = 0, chunkSize = 0, ...rest } = options
  const { reduction = 'mean' } = rest
  code(reduction)
  requireTensors('linearCrossEntropy', hidden, weight, labels)
  if (!Number.isSafeInteger(chunkSize) || chunkSize < 0) {
    throw new ConfigError(`linearCrossEntropy: expected chunkSize to be a number of tokens, got ${shown(chunkSize)}`, {
      chunkSize,
    })
  }
  return [hidden, weight, bias, labels, ignoreIndex, labelSmoothing, zLoss, reduction, chunkSize]
}

/**
 * Return the negative log likelihood of log-probabilities [batch, classes, ...] (or [classes]).
 * @param target class indices, int64 [batch, ...]
 */
export const nllLoss = byPosition(
  'nllLoss',
  ['weight'],
  (logProbs: Tensor, target: Tensor, options: Omit<CrossEntropyOptions, 'labelSmoothing'>): Tensor => {
    const { weight = null, ignoreIndex = -100, reduction } = options
    try {
      return ops.nllLossNd(logProbs, target, weight, code(reduction), ignoreIndex)
    } catch (error) {
      throw explainClasses('nllLoss', error, logProbs, target, ignoreIndex)
    }
  },
  ['ignoreIndex', 'reduction'],
)

function explainClasses(where: string, error: unknown, logits: Tensor, target: Tensor, ignoreIndex: number): unknown {
  return explain(error, () => [
    target.ndim === logits.ndim &&
      logits.ndim > 1 &&
      !isFloating(target.dtype) &&
      new DTypeError(
        `${where}: expected ${logits.dtype} probabilities as target in the logits' shape, got ${target.dtype}. ` +
          'For class indices leave out the class dimension',
        { dtype: target.dtype, expected: logits.dtype },
      ),
    notFloating(where, logits),
    target.ndim === logits.ndim - 1 && badIndices(where, target, logits.size(logits.ndim > 1 ? 1 : 0), ignoreIndex),
    target.ndim > 0 && otherSize(`${where} (against the target)`, logits, 0, target.size(0)),
  ])
}

/** Return (input - target)²; both must have the same shape. */
export const mseLoss = byPosition(
  'mseLoss',
  [],
  (input: Tensor, target: Tensor, options: WeightedLossOptions): Tensor => {
    const { reduction, weight = null } = options
    requireSameShape('mseLoss', input, target)
    if (weight) return scope(() => weightedMean('mseLoss', input.sub(target).square(), weight, reduction))
    if (insideTransform()) return scope(() => reduced(input.sub(target).square(), reduction))
    return ops.mseLoss(input, target, code(reduction))
  },
  ['reduction', 'weight'],
)

/** Return |input - target|; both must have the same shape. */
export const l1Loss = byPosition(
  'l1Loss',
  [],
  (input: Tensor, target: Tensor, options: WeightedLossOptions): Tensor => {
    const { reduction, weight = null } = options
    requireSameShape('l1Loss', input, target)
    if (weight) return scope(() => weightedMean('l1Loss', input.sub(target).abs(), weight, reduction))
    return ops.l1Loss(input, target, code(reduction))
  },
  ['reduction', 'weight'],
)

/** d² / (2 beta) where |d| < beta (default 1), else |d| - beta / 2. */
export const smoothL1Loss = byPosition(
  'smoothL1Loss',
  [],
  (input: Tensor, target: Tensor, options: LossOptions & { beta?: number }): Tensor => {
    const { beta = 1, reduction } = options
    requireSameShape('smoothL1Loss', input, target)
    if (beta === 0) return ops.l1Loss(input, target, code(reduction))
    if (insideTransform() && beta > 0) return scope(() => reduced(smoothAbsolute(input.sub(target), beta), reduction))
    return ops.smoothL1Loss(input, target, code(reduction), beta)
  },
  ['reduction', 'beta'],
)

export interface HuberLossOptions extends LossOptions {
  /** Distance up to which the loss is quadratic. Default: 1. */
  delta?: number
  /** Weight of each element, in the input's shape; the mean is over the elements. */
  weight?: Tensor | null
}

function huber(input: Tensor, target: Tensor, reduction: Reduction | undefined, delta: number): Tensor {
  if (insideTransform() && delta > 0)
    return scope(() => reduced(smoothAbsolute(input.sub(target), delta).mul(delta), reduction))
  return ops.huberLoss(input, target, code(reduction), delta)
}

/** d² / 2 where |d| < delta (default 1), else delta (|d| - delta / 2). */
export const huberLoss = byPosition(
  'huberLoss',
  ['reduction', 'delta', 'weight'],
  (input: Tensor, target: Tensor, options: HuberLossOptions): Tensor => {
    const { delta = 1, reduction, weight = null } = options
    requireSameShape('huberLoss', input, target)
    if (weight) {
      requireSameShape('huberLoss', input, weight)
      return scope(() => reduced(huber(input, target, 'none', delta).mul(weight), reduction))
    }
    return huber(input, target, reduction, delta)
  },
)

/**
 * Return the binary cross-entropy of probabilities in [0, 1]; for logits, use binaryCrossEntropyWithLogits. Both arguments are
 * floating point and have the same shape.
 */
export const binaryCrossEntropy = byPosition(
  'binaryCrossEntropy',
  ['weight'],
  (probabilities: Tensor, target: Tensor, options: LossOptions & { weight?: Tensor | null }): Tensor => {
    const { weight = null, reduction } = options
    requireSameShape('binaryCrossEntropy', probabilities, target)
    try {
      return ops.binaryCrossEntropy(probabilities, target, weight, code(reduction))
    } catch (error) {
      throw explain(error, () => [
        notFloating('binaryCrossEntropy', probabilities),
        notFloating('binaryCrossEntropy', target),
      ])
    }
  },
  ['reduction'],
)

/** @param options.posWeight weight of the positive targets of each class, broadcast against the logits */
export const binaryCrossEntropyWithLogits = byPosition(
  'binaryCrossEntropyWithLogits',
  ['weight'],
  (
    logits: Tensor,
    target: Tensor,
    options: LossOptions & { weight?: Tensor | null; posWeight?: Tensor | null },
  ): Tensor => {
    const { weight = null, posWeight = null, reduction } = options
    requireSameShape('binaryCrossEntropyWithLogits', logits, target)
    try {
      return ops.binaryCrossEntropyWithLogits(logits, target, weight, posWeight, code(reduction))
    } catch (error) {
      const where = 'binaryCrossEntropyWithLogits'
      throw explain(error, () => [notFloating(where, logits), notFloating(where, target)])
    }
  },
  ['reduction', 'posWeight'],
)

/** Return the binary cross-entropy of logits [batch, classes] against 0 and 1, averaged over the classes; `weight` [classes]. */
export const multilabelSoftMarginLoss = byPosition(
  'multilabelSoftMarginLoss',
  ['weight'],
  (logits: Tensor, target: Tensor, options: LossOptions & { weight?: Tensor | null }): Tensor => {
    const { weight = null, reduction = 'mean' } = options
    code(reduction)
    requireSameShape('multilabelSoftMarginLoss', logits, target)
    return scope(() => {
      const each = target
        .mul(ops.logSigmoid(logits))
        .add(target.neg().add(1).mul(ops.logSigmoid(logits.neg())))
        .neg()
      return reduced((weight === null ? each : each.mul(weight)).mean(-1), reduction)
    })
  },
  ['reduction'],
)

/**
 * Return the Kullback-Leibler divergence of `target` (probabilities, or with `logTarget` their logarithms) from the
 * log-probabilities `input`. 'batchmean' sums and divides by the batch size, which is the definition; 'mean' (default, as in
 * PyTorch) divides by the number of elements.
 */
export const klDiv = byPosition(
  'klDiv',
  [],
  (input: Tensor, target: Tensor, options: { reduction?: Reduction | 'batchmean'; logTarget?: boolean }): Tensor => {
    const { reduction = 'mean', logTarget = false } = options
    requireTensors('klDiv', input, target)
    if (insideTransform()) {
      requireBoolean('klDiv', 'logTarget', logTarget)
      return scope(() => {
        const losses = logTarget ? target.exp().mul(target.sub(input)) : target.xlogy(target).sub(target.mul(input))
        return reduction === 'batchmean' ? losses.sum().div(input.shape[0] ?? 1) : reduced(losses, reduction)
      })
    }
    if (reduction !== 'batchmean') return ops.klDiv(input, target, code(reduction), { logTarget })
    return scope(() => ops.klDiv(input, target, REDUCTIONS.sum, { logTarget }).div(input.shape[0] ?? 1))
  },
  ['reduction', 'logTarget'],
)

/** 1 - cos for target 1, max(0, cos - margin) for target -1; inputs [batch, dim] or [dim]. */
export const cosineEmbeddingLoss = byPosition(
  'cosineEmbeddingLoss',
  ['margin'],
  (x1: Tensor, x2: Tensor, target: Tensor, options: LossOptions & { margin?: number }): Tensor => {
    const { margin = 0, reduction } = options
    return ops.cosineEmbeddingLoss(x1, x2, target, margin, code(reduction))
  },
  ['reduction'],
)

export interface TripletMarginLossOptions extends LossOptions {
  /** Margin. Default: 1. */
  margin?: number
  /** Order of the norm. Default: 2. */
  p?: number
  /** Added to the distances. Default: 1e-6. */
  eps?: number
  /** Use the harder negative: the one nearer to anchor or positive. Default: false. */
  swap?: boolean
}

/**
 * Return max(0, |anchor - positive| - |anchor - negative| + margin), with norms of order `p`; with `swap` the harder negative.
 */
export const tripletMarginLoss = byPosition(
  'tripletMarginLoss',
  ['margin', 'p', 'eps', 'swap'],
  (anchor: Tensor, positive: Tensor, negative: Tensor, options: TripletMarginLossOptions): Tensor => {
    const { margin = 1, p = 2, eps = 1e-6, swap = false, reduction } = options
    if (insideTransform()) {
      return scope(() => {
        const near = ops.pairwiseDistance(anchor, positive, p, eps)
        const far = ops.pairwiseDistance(anchor, negative, p, eps)
        const least = swap ? far.minimum(ops.pairwiseDistance(positive, negative, p, eps)) : far
        return reduced(near.sub(least).add(margin).clampMin(0), reduction)
      })
    }
    return ops.tripletMarginLoss(anchor, positive, negative, margin, p, eps, swap, code(reduction))
  },
  ['reduction'],
)

/**
 * Return the connectionist temporal classification loss (Graves et al. 2006).
 * @param logProbs log-softmax outputs [time, batch, classes] or [time, classes]
 * @param targets int64 [batch, longest], or all targets joined [sum of lengths]; never the blank
 * @param inputLengths frames of each item, numbers or an int64 tensor [batch]
 * @param targetLengths labels of each item
 */
export const ctcLoss = byPosition(
  'ctcLoss',
  ['blank', 'reduction', 'zeroInfinity'],
  (
    logProbs: Tensor,
    targets: Tensor,
    inputLengths: number[] | Tensor,
    targetLengths: number[] | Tensor,
    options: LossOptions & { blank?: number; zeroInfinity?: boolean },
  ): Tensor => {
    const { blank = 0, zeroInfinity = false, reduction } = options
    if (Array.isArray(inputLengths) !== Array.isArray(targetLengths)) {
      throw new ConfigError('ctcLoss: expected inputLengths and targetLengths to be both arrays or both tensors', {})
    }
    // The check above ensures that both are lists or both are tensors, one of the two overloads.
    return ops.ctcLoss(
      logProbs,
      targets,
      inputLengths as number[],
      targetLengths as number[],
      blank,
      code(reduction),
      zeroInfinity,
    )
  },
)

/** Return log(1 + exp(-target input)), target -1 or 1. */
export const softMarginLoss = byPosition(
  'softMarginLoss',
  [],
  (input: Tensor, target: Tensor, { reduction }: LossOptions): Tensor => {
    requireSameShape('softMarginLoss', input, target)
    if (insideTransform()) return scope(() => reduced(ops.logSigmoid(target.mul(input)).neg(), reduction))
    return ops.softMarginLoss(input, target, code(reduction))
  },
  ['reduction'],
)

/**
 * Return the mean of max(0, 1 - (input[label] - input[other])) over the labels of an item: the class indices in `target` before
 * its first -1. Input and target are [batch, classes] or [classes].
 */
export const multilabelMarginLoss = byPosition(
  'multilabelMarginLoss',
  [],
  (input: Tensor, target: Tensor, { reduction }: LossOptions): Tensor => {
    requireSameShape('multilabelMarginLoss', input, target)
    return ops.multilabelMarginLoss(input, target, code(reduction))
  },
  ['reduction'],
)

export interface MultiMarginLossOptions extends LossOptions {
  /** Exponent of each term, 1 (default) or 2. */
  p?: number
  /** Margin. Default: 1. */
  margin?: number
  /** Weight of each class, [classes]. */
  weight?: Tensor | null
}

/** Return the mean over the other classes of max(0, margin - input[target] + input[other])^p; input [batch, classes] or [classes]. */
export const multiMarginLoss = byPosition(
  'multiMarginLoss',
  ['p', 'margin', 'weight'],
  (input: Tensor, target: Tensor, options: MultiMarginLossOptions): Tensor => {
    const { p = 1, margin = 1, weight = null, reduction } = options
    requireNumbers('multiMarginLoss', { p, margin })
    if (p !== 1 && p !== 2) throw new ConfigError(`multiMarginLoss: expected p to be 1 or 2, got ${p}`, { p })
    return ops.multiMarginLoss(input, target, p, margin, weight, code(reduction))
  },
  ['reduction'],
)

export interface MarginLossOptions extends LossOptions {
  /** Margin. */
  margin?: number
}

/** Return max(0, -target (x1 - x2) + margin), target 1 if x1 should be larger and -1 if x2 should. Default margin 0. */
export const marginRankingLoss = byPosition(
  'marginRankingLoss',
  ['margin'],
  (x1: Tensor, x2: Tensor, target: Tensor, { margin = 0, reduction }: MarginLossOptions): Tensor => {
    requireSameShape('marginRankingLoss', x1, x2)
    requireSameShape('marginRankingLoss', x1, target)
    if (insideTransform()) return scope(() => reduced(x2.sub(x1).mul(target).add(margin).clampMin(0), reduction))
    return ops.marginRankingLoss(x1, x2, target, margin, code(reduction))
  },
  ['reduction'],
)

/** Return the input for target 1, max(0, margin - input) for target -1. Default margin 1. */
export const hingeEmbeddingLoss = byPosition(
  'hingeEmbeddingLoss',
  ['margin'],
  (input: Tensor, target: Tensor, { margin = 1, reduction }: MarginLossOptions): Tensor => {
    requireSameShape('hingeEmbeddingLoss', input, target)
    if (insideTransform()) {
      return scope(() => {
        const far = ops.where(target.eq(1), 0, input.rsub(margin).clampMin(0))
        return reduced(far.add(ops.where(target.eq(-1), 0, input)), reduction)
      })
    }
    return ops.hingeEmbeddingLoss(input, target, margin, code(reduction))
  },
  ['reduction'],
)

export interface PoissonNllLossOptions extends LossOptions {
  /** Whether the input is the logarithm of the rate. Default: true. */
  logInput?: boolean
  /** Add Stirling's approximation of log(target!). Default: false. */
  full?: boolean
  /** Added to a rate that is not a logarithm. Default: 1e-8. */
  eps?: number
}

/** Return the negative log likelihood of counts under Poisson distributions. */
export const poissonNllLoss = byPosition(
  'poissonNllLoss',
  ['logInput', 'full'],
  (input: Tensor, target: Tensor, options: PoissonNllLossOptions): Tensor => {
    const { logInput = true, full = false, eps = 1e-8, reduction } = options
    requireSameShape('poissonNllLoss', input, target)
    return ops.poissonNllLoss(input, target, logInput, full, eps, code(reduction))
  },
  ['eps', 'reduction'],
)

export interface GaussianNllLossOptions extends LossOptions {
  /** Add log(2π) / 2. Default: false. */
  full?: boolean
  /** Minimum variance. Default: 1e-6. */
  eps?: number
}

/**
 * Return the negative log likelihood of targets under normal distributions with the input as mean.
 * @param variance one number of at least 0; or a tensor in the input's shape, or with a last dimension of 1, or without it
 */
export const gaussianNllLoss = byPosition(
  'gaussianNllLoss',
  ['full', 'eps', 'reduction'],
  (input: Tensor, target: Tensor, variance: Tensor | number, options: GaussianNllLossOptions): Tensor => {
    const where = 'gaussianNllLoss'
    const { full = false, eps = 1e-6, reduction } = options
    requireTensors(where, input, target)
    requireNumbers(where, { eps })
    requireBoolean(where, 'full', full)
    return scope(() => {
      const given = typeof variance === 'number' ? input.onesLike().mul(variance) : variance
      requireTensors(where, given)
      if (given.lt(0).any().item())
        throw new ConfigError(`${where}: expected variances of at least 0, got a negative one`, {})
      const without = given.ndim === input.ndim - 1 && given.shape.join() === input.shape.slice(0, -1).join()
      const spread = without ? given.unsqueeze(-1) : given
      // Clamp without affecting the gradient of the variance.
      const floored = spread.add(spread.detach().clampMin(eps).sub(spread.detach()))
      const losses = floored.log().add(input.sub(target).square().div(floored)).mul(0.5)
      return reduced(full ? losses.add(0.5 * Math.log(2 * Math.PI)) : losses, reduction)
    })
  },
)

export interface TripletMarginWithDistanceLossOptions extends LossOptions {
  /** Distance of two batches of vectors. Default: the Euclidean distance, `functional.pairwiseDistance`. */
  distanceFunction?: ((x1: Tensor, x2: Tensor) => Tensor) | null
  /** Margin, above 0. Default: 1. */
  margin?: number
  /** Use the harder negative: the one nearer to anchor or positive. Default: false. */
  swap?: boolean
}

/** Return max(0, d(anchor, positive) - d(anchor, negative) + margin) for a distance d. */
export const tripletMarginWithDistanceLoss = byPosition(
  'tripletMarginWithDistanceLoss',
  [],
  (anchor: Tensor, positive: Tensor, negative: Tensor, options: TripletMarginWithDistanceLossOptions): Tensor => {
    const where = 'tripletMarginWithDistanceLoss'
    const { distanceFunction, margin = 1, swap = false, reduction } = options
    requireTensors(where, anchor, positive, negative)
    requireNumbers(where, { margin })
    requireBoolean(where, 'swap', swap)
    if (!(margin > 0)) throw new ConfigError(`${where}: expected margin above 0, got ${margin}`, { margin })
    const distance = distanceFunction ?? ((x1: Tensor, x2: Tensor) => ops.pairwiseDistance(x1, x2))
    return scope(() => {
      const near = distance(anchor, positive)
      const far = distance(anchor, negative)
      const farthest = swap ? far.minimum(distance(positive, negative)) : far
      return reduced(near.sub(farthest).add(margin).clampMin(0), reduction)
    })
  },
  ['distanceFunction', 'margin', 'swap', 'reduction'],
)
