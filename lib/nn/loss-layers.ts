import { requireFunction, requireNumber, requireOneOf, requireOptions } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { ops, type Tensor } from '../tensor/index.js'
import { requireSettings } from './check.js'
import {
  binaryCrossEntropy,
  binaryCrossEntropyWithLogits,
  type CrossEntropyOptions,
  cosineEmbeddingLoss,
  crossEntropy,
  ctcLoss,
  type GaussianNllLossOptions,
  gaussianNllLoss,
  hingeEmbeddingLoss,
  huberLoss,
  klDiv,
  type LossOptions,
  l1Loss,
  type MultiMarginLossOptions,
  marginRankingLoss,
  mseLoss,
  multilabelMarginLoss,
  multilabelSoftMarginLoss,
  multiMarginLoss,
  nllLoss,
  type PoissonNllLossOptions,
  poissonNllLoss,
  type Reduction,
  smoothL1Loss,
  softMarginLoss,
  type TripletMarginLossOptions,
  type TripletMarginWithDistanceLossOptions,
  tripletMarginLoss,
  tripletMarginWithDistanceLoss,
} from './losses.js'
import { Module } from './module.js'

/** Check the reduction of a loss. */
function requireReduction(reduction: Reduction): void {
  requireOneOf('a loss', 'reduction', reduction, ['none', 'mean', 'sum'])
}

/** Base class of the losses with a reduction. */
abstract class Loss extends Module {
  readonly reduction: Reduction

  constructor({ reduction = 'mean' }: LossOptions) {
    super()
    requireReduction(reduction)
    this.reduction = reduction
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
    return softMarginLoss(input, target, { reduction: this.reduction })
  }
}

/**
 * Mean of max(0, 1 - (input[label] - input[other])) over the labels of an item: the class indices in `target` before its first
 * -1. Input and target are [batch, classes] or [classes].
 */
export class MultiLabelMarginLoss extends PairLoss {
  override forward(input: Tensor, target: Tensor): Tensor {
    return multilabelMarginLoss(input, target, { reduction: this.reduction })
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
    const { weight, reduction } = this
    return multilabelSoftMarginLoss(logits, target, { weight, reduction })
  }
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
    const { p, margin, weight, reduction } = this
    return multiMarginLoss(input, target, { p, margin, weight, reduction })
  }
}

/** Kullback-Leibler divergence; see `functional.klDiv`. */
export class KLDivLoss extends Module {
  readonly reduction: Reduction | 'batchmean'
  readonly logTarget: boolean

  constructor(options: { reduction?: Reduction | 'batchmean'; logTarget?: boolean } = {}) {
    super()
    const { reduction = 'mean', logTarget = false } = lossOptions('KLDivLoss', options, 'logTarget')
    if (reduction !== 'batchmean') requireReduction(reduction)
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
    return marginRankingLoss(x1, x2, target, { margin: this.margin, reduction: this.reduction })
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
    return hingeEmbeddingLoss(input, target, { margin: this.margin, reduction: this.reduction })
  }
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
    const { distanceFunction, margin, swap, reduction } = this
    return tripletMarginWithDistanceLoss(anchor, positive, negative, { distanceFunction, margin, swap, reduction })
  }
}

/** Negative log likelihood of counts under Poisson distributions. */
export class PoissonNLLLoss extends Loss {
  readonly logInput: boolean
  readonly full: boolean
  readonly eps: number

  constructor(options: PoissonNllLossOptions = {}) {
    super(lossOptions('PoissonNLLLoss', options, 'logInput', 'full', 'eps'))
    const { logInput = true, full = false, eps = 1e-8 } = options
    requireSettings('PoissonNLLLoss', { eps })
    this.logInput = logInput
    this.full = full
    this.eps = eps
  }

  override forward(input: Tensor, target: Tensor): Tensor {
    const { logInput, full, eps, reduction } = this
    return poissonNllLoss(input, target, { logInput, full, eps, reduction })
  }
}

/** Negative log likelihood of targets under normal distributions with the input as mean, and `variance`. */
export class GaussianNLLLoss extends Loss {
  readonly full: boolean
  readonly eps: number

  constructor(options: GaussianNllLossOptions = {}) {
    super(lossOptions('GaussianNLLLoss', options, 'full', 'eps'))
    const { full = false, eps = 1e-6 } = options
    requireSettings('GaussianNLLLoss', { eps })
    this.full = full
    this.eps = eps
  }

  /** @param variance in the input's shape, or with a last dimension of 1, or without it; at least 0 */
  override forward(input: Tensor, target: Tensor, variance: Tensor): Tensor {
    const { full, eps, reduction } = this
    return gaussianNllLoss(input, target, variance, { full, eps, reduction })
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
