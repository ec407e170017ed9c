import { shown } from '../base/arguments.js'
import { requireOptions } from '../base/check.js'
import { ConfigError, DTypeError } from '../base/errors.js'
import { op, opAsync } from '../native/call.js'
import { ops, scope, type Tensor } from '../tensor/index.js'
import { badIndices, explain, isFloating, notFloating, otherSize, requireSameShape, requireTensors } from './check.js'

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

/**
 * Return the softmax cross-entropy of logits [batch, classes, ...] (or [classes]).
 * @param target class indices, int64 [batch, ...]; or probabilities in the logits' shape and dtype
 */
export function crossEntropy(logits: Tensor, target: Tensor, options: CrossEntropyOptions = {}): Tensor {
  requireOptions('crossEntropy', options, ['weight', 'ignoreIndex', 'labelSmoothing', 'reduction'])
  const { weight = null, ignoreIndex = -100, labelSmoothing = 0, reduction } = options
  try {
    return ops.crossEntropyLoss(logits, target, weight, code(reduction), ignoreIndex, labelSmoothing)
  } catch (error) {
    throw explainClasses('crossEntropy', error, logits, target, ignoreIndex)
  }
}

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
export function nllLoss(
  logProbs: Tensor,
  target: Tensor,
  options: Omit<CrossEntropyOptions, 'labelSmoothing'> = {},
): Tensor {
  requireOptions('nllLoss', options, ['weight', 'ignoreIndex', 'reduction'])
  const { weight = null, ignoreIndex = -100, reduction } = options
  try {
    return ops.nllLossNd(logProbs, target, weight, code(reduction), ignoreIndex)
  } catch (error) {
    throw explainClasses('nllLoss', error, logProbs, target, ignoreIndex)
  }
}

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
export function mseLoss(input: Tensor, target: Tensor, options: LossOptions = {}): Tensor {
  requireOptions('mseLoss', options, ['reduction'])
  const { reduction } = options
  requireSameShape('mseLoss', input, target)
  return ops.mseLoss(input, target, code(reduction))
}

/** Return |input - target|; both must have the same shape. */
export function l1Loss(input: Tensor, target: Tensor, options: LossOptions = {}): Tensor {
  requireOptions('l1Loss', options, ['reduction'])
  const { reduction } = options
  requireSameShape('l1Loss', input, target)
  return ops.l1Loss(input, target, code(reduction))
}

/** d² / (2 beta) where |d| < beta (default 1), else |d| - beta / 2. */
export function smoothL1Loss(input: Tensor, target: Tensor, options: LossOptions & { beta?: number } = {}): Tensor {
  requireOptions('smoothL1Loss', options, ['beta', 'reduction'])
  const { beta = 1, reduction } = options
  requireSameShape('smoothL1Loss', input, target)
  if (beta === 0) return ops.l1Loss(input, target, code(reduction))
  return ops.smoothL1Loss(input, target, code(reduction), beta)
}

/** d² / 2 where |d| < delta (default 1), else delta (|d| - delta / 2). */
export function huberLoss(input: Tensor, target: Tensor, options: LossOptions & { delta?: number } = {}): Tensor {
  requireOptions('huberLoss', options, ['delta', 'reduction'])
  const { delta = 1, reduction } = options
  requireSameShape('huberLoss', input, target)
  return ops.huberLoss(input, target, code(reduction), delta)
}

/**
 * Return the binary cross-entropy of probabilities in [0, 1]; for logits, use binaryCrossEntropyWithLogits. Both arguments are
 * floating point and have the same shape.
 */
export function binaryCrossEntropy(
  probabilities: Tensor,
  target: Tensor,
  options: LossOptions & { weight?: Tensor | null } = {},
): Tensor {
  requireOptions('binaryCrossEntropy', options, ['weight', 'reduction'])
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
}

/** @param options.posWeight weight of the positive targets of each class, broadcast against the logits */
export function binaryCrossEntropyWithLogits(
  logits: Tensor,
  target: Tensor,
  options: LossOptions & { weight?: Tensor | null; posWeight?: Tensor | null } = {},
): Tensor {
  requireOptions('binaryCrossEntropyWithLogits', options, ['weight', 'posWeight', 'reduction'])
  const { weight = null, posWeight = null, reduction } = options
  requireSameShape('binaryCrossEntropyWithLogits', logits, target)
  try {
    return ops.binaryCrossEntropyWithLogits(logits, target, weight, posWeight, code(reduction))
  } catch (error) {
    const where = 'binaryCrossEntropyWithLogits'
    throw explain(error, () => [notFloating(where, logits), notFloating(where, target)])
  }
}

/** Return the binary cross-entropy of logits [batch, classes] against 0 and 1, averaged over the classes; `weight` [classes]. */
export function multilabelSoftMarginLoss(
  logits: Tensor,
  target: Tensor,
  options: LossOptions & { weight?: Tensor | null } = {},
): Tensor {
  requireOptions('multilabelSoftMarginLoss', options, ['weight', 'reduction'])
  const { weight = null, reduction = 'mean' } = options
  code(reduction)
  requireSameShape('multilabelSoftMarginLoss', logits, target)
  return scope(() => {
    const each = target
      .mul(ops.logSigmoid(logits))
      .add(target.neg().add(1).mul(ops.logSigmoid(logits.neg())))
      .neg()
    const items = (weight === null ? each : each.mul(weight)).mean(-1)
    return reduction === 'none' ? items : reduction === 'sum' ? items.sum() : items.mean()
  })
}

/**
 * Return the Kullback-Leibler divergence of `target` (probabilities, or with `logTarget` their logarithms) from the
 * log-probabilities `input`. 'batchmean' sums and divides by the batch size, which is the definition; 'mean' (default, as in
 * PyTorch) divides by the number of elements.
 */
export function klDiv(
  input: Tensor,
  target: Tensor,
  options: { reduction?: Reduction | 'batchmean'; logTarget?: boolean } = {},
): Tensor {
  requireOptions('klDiv', options, ['reduction', 'logTarget'])
  const { reduction = 'mean', logTarget = false } = options
  if (reduction !== 'batchmean') return ops.klDiv(input, target, code(reduction), { logTarget })
  requireTensors('klDiv', input)
  return scope(() => ops.klDiv(input, target, REDUCTIONS.sum, { logTarget }).div(input.shape[0] ?? 1))
}

/** 1 - cos for target 1, max(0, cos - margin) for target -1; inputs [batch, dim] or [dim]. */
export function cosineEmbeddingLoss(
  x1: Tensor,
  x2: Tensor,
  target: Tensor,
  options: LossOptions & { margin?: number } = {},
): Tensor {
  requireOptions('cosineEmbeddingLoss', options, ['margin', 'reduction'])
  const { margin = 0, reduction } = options
  return ops.cosineEmbeddingLoss(x1, x2, target, margin, code(reduction))
}

/**
 * Return max(0, |anchor - positive| - |anchor - negative| + margin), with norms of order `p`; with `swap` the harder negative.
 */
export function tripletMarginLoss(
  anchor: Tensor,
  positive: Tensor,
  negative: Tensor,
  options: LossOptions & {
    margin?: number
    p?: number
    eps?: number
    swap?: boolean
  } = {},
): Tensor {
  requireOptions('tripletMarginLoss', options, ['margin', 'p', 'eps', 'swap', 'reduction'])
  const { margin = 1, p = 2, eps = 1e-6, swap = false, reduction } = options
  return ops.tripletMarginLoss(anchor, positive, negative, margin, p, eps, swap, code(reduction))
}

/**
 * Return the connectionist temporal classification loss (Graves et al. 2006).
 * @param logProbs log-softmax outputs [time, batch, classes] or [time, classes]
 * @param targets int64 [batch, longest], or all targets joined [sum of lengths]; never the blank
 * @param inputLengths frames of each item, numbers or an int64 tensor [batch]
 * @param targetLengths labels of each item
 */
export function ctcLoss(
  logProbs: Tensor,
  targets: Tensor,
  inputLengths: number[] | Tensor,
  targetLengths: number[] | Tensor,
  options: LossOptions & { blank?: number; zeroInfinity?: boolean } = {},
): Tensor {
  requireOptions('ctcLoss', options, ['blank', 'zeroInfinity', 'reduction'])
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
}
