import { requireFunction, requireNumber, requireOneOf, requireOptions } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { ops, scope, type Tensor } from '../tensor/index.js'
import { requireSameShape, requireSettings, requireTensors } from './check.js'
import {
  binaryCrossEntropy,
  binaryCrossEntropyWithLogits,
  type CrossEntropyOptions,
  cosineEmbeddingLoss,
  crossEntropy,
  ctcLoss,
  huberLoss,
  klDiv,
  type LossOptions,
  l1Loss,
  mseLoss,
  nllLoss,
  type Reduction,
  smoothL1Loss,
  tripletMarginLoss,
} from './losses.js'
import { Module } from './module.js'

const REDUCTIONS: Record<Reduction, number> = { none: 0, mean: 1, sum: 2 }

/** Return ATen's code of a reduction. */
function reductionCode(reduction: Reduction): number {
  requireOneOf('a loss', 'reduction', reduction, Object.keys(REDUCTIONS))
  return REDUCTIONS[reduction]
}

/** Base class of the losses with a reduction. */
abstract class Loss extends Module {
  readonly reduction: Reduction

  constructor({ reduction = 'mean' }: LossOptions) {
    super()
    reductionCode(reduction)
    this.reduction = reduction
  }

  /** Reduce the losses of a batch according to `reduction`. */
  protected reduced(losses: Tensor): Tensor {
    if (this.reduction === 'none') return losses
    return this.reduction === 'sum' ? losses.sum() : losses.mean()
  }
}

/** Check the options of a loss: those of `own` and the reduction. */
function lossOptions<O extends object>(layer: string, options: O, ...own: (keyof O & string)[]): O {
  requireOptions(layer, options, ['reduction', ...own])
  return options
}

/** Base class of losses of an input and a target of one shape whose only option is the reduction. */
abstract class PairLoss extends Loss {
  constructor(options: LossOptions = {}) {
    super(lossOptions(new.target.name, options))
  }
}

/** |input - target| */
export class L1Loss extends PairLoss {
  override forward(input: Tensor, target: Tensor): Tensor {
    return l1Loss(input, target, { reduction: this.reduction })
  }
}

/** (input - target)² */
export class MSELoss extends PairLoss {
  override forward(input: Tensor, target: Tensor): Tensor {
    return mseLoss(input, target, { reduction: this.reduction })
  }
}

/** log(1 + exp(-target input)), target -1 or 1. */
export class SoftMarginLoss extends PairLoss {
  override forward(input: Tensor, target: Tensor): Tensor {
    requireSameShape('SoftMarginLoss', input, target)
    return ops.softMarginLoss(input, target, reductionCode(this.reduction))
  }
}

/**
 * Mean of max(0, 1 - (input[label] - input[other])) over the labels of an item: the class indices in `target` before its first
 * -1. Input and target are [batch, classes] or [classes].
 */
export class MultiLabelMarginLoss extends PairLoss {
  override forward(input: Tensor, target: Tensor): Tensor {
    requireSameShape('MultiLabelMarginLoss', input, target)
    return ops.multilabelMarginLoss(input, target, reductionCode(this.reduction))
  }
}

/** d² / (2 beta) where |d| < beta (default 1), else |d| - beta / 2. */
export class SmoothL1Loss extends Loss {
  readonly beta: number

  constructor(options: LossOptions & { beta?: number } = {}) {
    super(lossOptions('SmoothL1Loss', options, 'beta'))
    const { beta = 1 } = options
    requireSettings('SmoothL1Loss', { beta })
    this.beta = beta
  }

  override forward(input: Tensor, target: Tensor): Tensor {
    return smoothL1Loss(input, target, { reduction: this.reduction, beta: this.beta })
  }
}

/** d² / 2 where |d| < delta (default 1), else delta (|d| - delta / 2). */
export class HuberLoss extends Loss {
  readonly delta: number

  constructor(options: LossOptions & { delta?: number } = {}) {
    super(lossOptions('HuberLoss', options, 'delta'))
    const { delta = 1 } = options
    requireSettings('HuberLoss', { delta })
    this.delta = delta
  }

  override forward(input: Tensor, target: Tensor): Tensor {
    return huberLoss(input, target, { reduction: this.reduction, delta: this.delta })
  }
}

/** Base class of losses with a weight, which is a buffer: it moves with `to()` and is in the state dictionary. */
abstract class WeightedLoss extends Loss {
  declare weight: Tensor | null

  constructor(options: LossOptions & { weight?: Tensor | null }) {
    super(options)
    this.registerBuffer('weight', options.weight ?? null)
  }
}

/**
 * Softmax cross-entropy of logits [batch, classes, ...]; see `functional.crossEntropy`. The layer takes ownership of the
 * weight.
 */
export class CrossEntropyLoss extends WeightedLoss {
  readonly ignoreIndex: number
  readonly labelSmoothing: number

  constructor(options: CrossEntropyOptions = {}) {
    super(lossOptions('CrossEntropyLoss', options, 'weight', 'ignoreIndex', 'labelSmoothing'))
    const { ignoreIndex = -100, labelSmoothing = 0 } = options
    requireSettings('CrossEntropyLoss', { ignoreIndex, labelSmoothing })
    this.ignoreIndex = ignoreIndex
    this.labelSmoothing = labelSmoothing
  }

  override forward(logits: Tensor, target: Tensor): Tensor {
    const { weight, ignoreIndex, labelSmoothing, reduction } = this
    return crossEntropy(logits, target, { weight, ignoreIndex, labelSmoothing, reduction })
  }
}

/** Negative log likelihood of log-probabilities [batch, classes, ...]. The layer takes ownership of the weight. */
export class NLLLoss extends WeightedLoss {
  readonly ignoreIndex: number

  constructor(options: Omit<CrossEntropyOptions, 'labelSmoothing'> = {}) {
    super(lossOptions('NLLLoss', options, 'weight', 'ignoreIndex'))
    const { ignoreIndex = -100 } = options
    requireSettings('NLLLoss', { ignoreIndex })
    this.ignoreIndex = ignoreIndex
  }

  override forward(logProbs: Tensor, target: Tensor): Tensor {
    const { weight, ignoreIndex, reduction } = this
    return nllLoss(logProbs, target, { weight, ignoreIndex, reduction })
  }
}

/** Binary cross-entropy of probabilities; for logits, use BCEWithLogitsLoss. The layer takes ownership of the weight. */
export class BCELoss extends WeightedLoss {
  constructor(options: LossOptions & { weight?: Tensor | null } = {}) {
    super(lossOptions('BCELoss', options, 'weight'))
  }

  override forward(probabilities: Tensor, target: Tensor): Tensor {
    const { weight, reduction } = this
    return binaryCrossEntropy(probabilities, target, { weight, reduction })
  }
}

/**
 * Binary cross-entropy of logits; `posWeight` weights the positive targets of each class. The layer takes ownership of the
 * weights.
 */
export class BCEWithLogitsLoss extends WeightedLoss {
  declare pos_weight: Tensor | null

  constructor(options: LossOptions & { weight?: Tensor | null; posWeight?: Tensor | null } = {}) {
    super(lossOptions('BCEWithLogitsLoss', options, 'weight', 'posWeight'))
    this.registerBuffer('pos_weight', options.posWeight ?? null)
  }

  override forward(logits: Tensor, target: Tensor): Tensor {
    const { weight, pos_weight: posWeight, reduction } = this
    return binaryCrossEntropyWithLogits(logits, target, { weight, posWeight, reduction })
  }
}

/**
 * Binary cross-entropy of logits [batch, classes], averaged over the classes. The layer takes ownership of the weight
 * [classes].
 */
export class MultiLabelSoftMarginLoss extends WeightedLoss {
  constructor(options: LossOptions & { weight?: Tensor | null } = {}) {
    super(lossOptions('MultiLabelSoftMarginLoss', options, 'weight'))
  }

  override forward(logits: Tensor, target: Tensor): Tensor {
    requireSameShape('MultiLabelSoftMarginLoss', logits, target)
    return scope(() => {
      const positive = target.mul(ops.logSigmoid(logits))
      const negative = target.neg().add(1).mul(ops.logSigmoid(logits.neg()))
      const losses = positive.add(negative).neg()
      return this.reduced((this.weight ? losses.mul(this.weight) : losses).mean([-1]))
    })
  }
}

export interface MultiMarginLossOptions extends LossOptions {
  /** Exponent of each term, 1 (default) or 2. */
  p?: number
  /** Margin. Default: 1. */
  margin?: number
  /** Weight of each class, [classes]; the layer takes ownership of it. */
  weight?: Tensor | null
}

/** Mean over the other classes of max(0, margin - input[target] + input[other])^p; input [batch, classes] or [classes]. */
export class MultiMarginLoss extends WeightedLoss {
  readonly p: number
  readonly margin: number

  constructor(options: MultiMarginLossOptions = {}) {
    super(lossOptions('MultiMarginLoss', options, 'p', 'margin', 'weight'))
    const { p = 1, margin = 1 } = options
    requireSettings('MultiMarginLoss', { p, margin })
    if (p !== 1 && p !== 2) throw new ConfigError(`MultiMarginLoss: expected p to be 1 or 2, got ${p}`, { p })
    this.p = p
    this.margin = margin
  }

  override forward(input: Tensor, target: Tensor): Tensor {
    return ops.multiMarginLoss(input, target, this.p, this.margin, this.weight, reductionCode(this.reduction))
  }
}

/** Kullback-Leibler divergence; see `functional.klDiv`. */
export class KLDivLoss extends Module {
  readonly reduction: Reduction | 'batchmean'
  readonly logTarget: boolean

  constructor(options: { reduction?: Reduction | 'batchmean'; logTarget?: boolean } = {}) {
    super()
    const { reduction = 'mean', logTarget = false } = lossOptions('KLDivLoss', options, 'logTarget')
    if (reduction !== 'batchmean') reductionCode(reduction)
    this.reduction = reduction
    this.logTarget = logTarget
  }

  override forward(input: Tensor, target: Tensor): Tensor {
    return klDiv(input, target, { reduction: this.reduction, logTarget: this.logTarget })
  }
}

/** 1 - cos for target 1, max(0, cos - margin) for target -1; inputs [batch, dim] or [dim]. */
export class CosineEmbeddingLoss extends Loss {
  readonly margin: number

  constructor(options: LossOptions & { margin?: number } = {}) {
    super(lossOptions('CosineEmbeddingLoss', options, 'margin'))
    const { margin = 0 } = options
    requireSettings('CosineEmbeddingLoss', { margin })
    this.margin = margin
  }

  override forward(x1: Tensor, x2: Tensor, target: Tensor): Tensor {
    return cosineEmbeddingLoss(x1, x2, target, { margin: this.margin, reduction: this.reduction })
  }
}

/** max(0, -target (x1 - x2) + margin), target 1 if x1 should be larger and -1 if x2 should. */
export class MarginRankingLoss extends Loss {
  readonly margin: number

  constructor(options: LossOptions & { margin?: number } = {}) {
    super(lossOptions('MarginRankingLoss', options, 'margin'))
    const { margin = 0 } = options
    requireSettings('MarginRankingLoss', { margin })
    this.margin = margin
  }

  override forward(x1: Tensor, x2: Tensor, target: Tensor): Tensor {
    requireSameShape('MarginRankingLoss', x1, x2)
    requireSameShape('MarginRankingLoss', x1, target)
    return ops.marginRankingLoss(x1, x2, target, this.margin, reductionCode(this.reduction))
  }
}

/** The input for target 1, max(0, margin - input) for target -1. Default margin 1. */
export class HingeEmbeddingLoss extends Loss {
  readonly margin: number

  constructor(options: LossOptions & { margin?: number } = {}) {
    super(lossOptions('HingeEmbeddingLoss', options, 'margin'))
    const { margin = 1 } = options
    requireSettings('HingeEmbeddingLoss', { margin })
    this.margin = margin
  }

  override forward(input: Tensor, target: Tensor): Tensor {
    requireSameShape('HingeEmbeddingLoss', input, target)
    return ops.hingeEmbeddingLoss(input, target, this.margin, reductionCode(this.reduction))
  }
}

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

/** max(0, |anchor - positive| - |anchor - negative| + margin). */
export class TripletMarginLoss extends Loss {
  readonly margin: number
  readonly p: number
  readonly eps: number
  readonly swap: boolean

  constructor(options: TripletMarginLossOptions = {}) {
    super(lossOptions('TripletMarginLoss', options, 'margin', 'p', 'eps', 'swap'))
    const { margin = 1, p = 2, eps = 1e-6, swap = false } = options
    requireSettings('TripletMarginLoss', { margin, p, eps })
    this.margin = margin
    this.p = p
    this.eps = eps
    this.swap = swap
  }

  override forward(anchor: Tensor, positive: Tensor, negative: Tensor): Tensor {
    const { margin, p, eps, swap, reduction } = this
    return tripletMarginLoss(anchor, positive, negative, { margin, p, eps, swap, reduction })
  }
}

export interface TripletMarginWithDistanceLossOptions extends LossOptions {
  /** Distance of two batches, [batch, ...] to [batch]. Default: Euclidean, as PairwiseDistance. */
  distanceFunction?: ((a: Tensor, b: Tensor) => Tensor) | null
  /** Least difference of the distances. Default: 1. */
  margin?: number
  /** Use the distance of positive and negative if it is smaller than that of anchor and negative. Default: false. */
  swap?: boolean
}

/** Triplet loss with a distance of one's own: max(d(anchor, positive) - d(anchor, negative) + margin, 0). */
export class TripletMarginWithDistanceLoss extends Loss {
  readonly distanceFunction: (a: Tensor, b: Tensor) => Tensor
  readonly margin: number
  readonly swap: boolean

  constructor(options: TripletMarginWithDistanceLossOptions = {}) {
    super(lossOptions('TripletMarginWithDistanceLoss', options, 'distanceFunction', 'margin', 'swap'))
    const { distanceFunction, margin = 1, swap = false } = options
    if (distanceFunction) requireFunction('TripletMarginWithDistanceLoss', 'distanceFunction', distanceFunction)
    requireNumber('TripletMarginWithDistanceLoss', 'margin', margin, { least: 0 })
    this.distanceFunction = distanceFunction ?? ((a, b) => ops.pairwiseDistance(a, b))
    this.margin = margin
    this.swap = swap
  }

  override forward(anchor: Tensor, positive: Tensor, negative: Tensor): Tensor {
    const { distanceFunction: distance, margin, swap, reduction } = this
    return scope(() => {
      const near = distance(anchor, positive)
      const far = distance(anchor, negative)
      const nearest = swap ? far.minimum(distance(positive, negative)) : far
      const loss = near.sub(nearest).add(margin).clampMin(0)
      return reduction === 'mean' ? loss.mean() : reduction === 'sum' ? loss.sum() : loss
    })
  }
}

export interface PoissonNLLLossOptions extends LossOptions {
  /** Whether the input is the logarithm of the rate. Default: true. */
  logInput?: boolean
  /** Add Stirling's approximation of log(target!). Default: false. */
  full?: boolean
  /** Added to a rate that is not a logarithm. Default: 1e-8. */
  eps?: number
}

/** Negative log likelihood of counts under Poisson distributions. */
export class PoissonNLLLoss extends Loss {
  readonly logInput: boolean
  readonly full: boolean
  readonly eps: number

  constructor(options: PoissonNLLLossOptions = {}) {
    super(lossOptions('PoissonNLLLoss', options, 'logInput', 'full', 'eps'))
    const { logInput = true, full = false, eps = 1e-8 } = options
    requireSettings('PoissonNLLLoss', { eps })
    this.logInput = logInput
    this.full = full
    this.eps = eps
  }

  override forward(input: Tensor, target: Tensor): Tensor {
    requireSameShape('PoissonNLLLoss', input, target)
    return ops.poissonNllLoss(input, target, this.logInput, this.full, this.eps, reductionCode(this.reduction))
  }
}

export interface GaussianNLLLossOptions extends LossOptions {
  /** Add log(2π) / 2. Default: false. */
  full?: boolean
  /** Minimum variance. Default: 1e-6. */
  eps?: number
}

/** Negative log likelihood of targets under normal distributions with the input as mean, and `variance`. */
export class GaussianNLLLoss extends Loss {
  readonly full: boolean
  readonly eps: number

  constructor(options: GaussianNLLLossOptions = {}) {
    super(lossOptions('GaussianNLLLoss', options, 'full', 'eps'))
    const { full = false, eps = 1e-6 } = options
    requireSettings('GaussianNLLLoss', { eps })
    this.full = full
    this.eps = eps
  }

  /** @param variance in the input's shape, or with a last dimension of 1, or without it; at least 0 */
  override forward(input: Tensor, target: Tensor, variance: Tensor): Tensor {
    requireTensors('GaussianNLLLoss', input, target, variance)
    return scope(() => {
      if (variance.lt(0).any().item())
        throw new ConfigError('GaussianNLLLoss: expected variances of at least 0, got a negative one', {})
      const without = variance.ndim === input.ndim - 1 && variance.shape.join() === input.shape.slice(0, -1).join()
      const spread = without ? variance.unsqueeze(-1) : variance
      // Clamp without affecting the gradient of the variance.
      const floored = spread.add(spread.detach().clampMin(this.eps).sub(spread.detach()))
      const losses = floored.log().add(input.sub(target).square().div(floored)).mul(0.5)
      return this.reduced(this.full ? losses.add(0.5 * Math.log(2 * Math.PI)) : losses)
    })
  }
}

export interface CTCLossOptions extends LossOptions {
  /** Class index of the blank. Default: 0. */
  blank?: number
  /** Replace infinite losses, as of targets that are too long, by 0. Default: false. */
  zeroInfinity?: boolean
}

/** Connectionist temporal classification; see `functional.ctcLoss`. */
export class CTCLoss extends Loss {
  readonly blank: number
  readonly zeroInfinity: boolean

  constructor(options: CTCLossOptions = {}) {
    super(lossOptions('CTCLoss', options, 'blank', 'zeroInfinity'))
    const { blank = 0, zeroInfinity = false } = options
    requireSettings('CTCLoss', { blank })
    this.blank = blank
    this.zeroInfinity = zeroInfinity
  }

  override forward(
    logProbs: Tensor,
    targets: Tensor,
    inputLengths: number[] | Tensor,
    targetLengths: number[] | Tensor,
  ): Tensor {
    const { blank, zeroInfinity, reduction } = this
    return ctcLoss(logProbs, targets, inputLengths, targetLengths, { blank, zeroInfinity, reduction })
  }
}
