import { requireFunction, requireNumber, requireOneOf } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { snakeCase } from '../base/words.js'
import { ops, type Tensor } from '../tensor/index.js'
import { type Defaults, setOptions } from './check.js'
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

type Weights = 'weight' | 'posWeight'

/** Base class of losses. The options are fields; weights are buffers, which move with `to()` and are in the state dictionary. */
abstract class Loss<O extends LossOptions = LossOptions> extends Module {
  declare readonly reduction: Reduction

  constructor(
    options: O,
    defaults: Omit<Defaults<O>, 'reduction' | Weights>,
    weights: readonly (keyof O & Weights)[] = [],
  ) {
    super()
    setOptions<object>(this, options, { reduction: 'mean', ...defaults }, weights)
    requireReduction(this.reduction)
    for (const name of weights) this.registerBuffer(snakeCase(name), (options[name] as Tensor | undefined) ?? null)
  }
}

/** Base class of losses of an input and a target of one shape whose only option is the reduction. */
abstract class PairLoss extends Loss {
  constructor(options: LossOptions = {}) {
    super(options, {})
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
export class SmoothL1Loss extends Loss<LossOptions & { beta?: number }> {
  declare readonly beta: number

  constructor(options: LossOptions & { beta?: number } = {}) {
    super(options, { beta: 1 })
  }

  override forward(input: Tensor, target: Tensor): Tensor {
    return smoothL1Loss(input, target, { reduction: this.reduction, beta: this.beta })
  }
}

/** d² / 2 where |d| < delta (default 1), else delta (|d| - delta / 2). */
export class HuberLoss extends Loss<LossOptions & { delta?: number }> {
  declare readonly delta: number

  constructor(options: LossOptions & { delta?: number } = {}) {
    super(options, { delta: 1 })
  }

  override forward(input: Tensor, target: Tensor): Tensor {
    return huberLoss(input, target, { reduction: this.reduction, delta: this.delta })
  }
}

/**
 * Softmax cross-entropy of logits [batch, classes, ...]; see `functional.crossEntropy`. The layer takes ownership of the
 * weight.
 */
export class CrossEntropyLoss extends Loss<CrossEntropyOptions> {
  declare weight: Tensor | null
  declare readonly ignoreIndex: number
  declare readonly labelSmoothing: number

  constructor(options: CrossEntropyOptions = {}) {
    super(options, { ignoreIndex: -100, labelSmoothing: 0 }, ['weight'])
  }

  override forward(logits: Tensor, target: Tensor): Tensor {
    const { weight, ignoreIndex, labelSmoothing, reduction } = this
    return crossEntropy(logits, target, { weight, ignoreIndex, labelSmoothing, reduction })
  }
}

/** Negative log likelihood of log-probabilities [batch, classes, ...]. The layer takes ownership of the weight. */
export class NLLLoss extends Loss<Omit<CrossEntropyOptions, 'labelSmoothing'>> {
  declare weight: Tensor | null
  declare readonly ignoreIndex: number

  constructor(options: Omit<CrossEntropyOptions, 'labelSmoothing'> = {}) {
    super(options, { ignoreIndex: -100 }, ['weight'])
  }

  override forward(logProbs: Tensor, target: Tensor): Tensor {
    const { weight, ignoreIndex, reduction } = this
    return nllLoss(logProbs, target, { weight, ignoreIndex, reduction })
  }
}

/** Binary cross-entropy of probabilities; for logits, use BCEWithLogitsLoss. The layer takes ownership of the weight. */
export class BCELoss extends Loss<LossOptions & { weight?: Tensor | null }> {
  declare weight: Tensor | null

  constructor(options: LossOptions & { weight?: Tensor | null } = {}) {
    super(options, {}, ['weight'])
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
export class BCEWithLogitsLoss extends Loss<LossOptions & { weight?: Tensor | null; posWeight?: Tensor | null }> {
  declare weight: Tensor | null
  declare pos_weight: Tensor | null

  constructor(options: LossOptions & { weight?: Tensor | null; posWeight?: Tensor | null } = {}) {
    super(options, {}, ['weight', 'posWeight'])
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
export class MultiLabelSoftMarginLoss extends Loss<LossOptions & { weight?: Tensor | null }> {
  declare weight: Tensor | null

  constructor(options: LossOptions & { weight?: Tensor | null } = {}) {
    super(options, {}, ['weight'])
  }

  override forward(logits: Tensor, target: Tensor): Tensor {
    const { weight, reduction } = this
    return multilabelSoftMarginLoss(logits, target, { weight, reduction })
  }
}

/** Mean over the other classes of max(0, margin - input[target] + input[other])^p; input [batch, classes] or [classes]. */
export class MultiMarginLoss extends Loss<MultiMarginLossOptions> {
  declare weight: Tensor | null
  declare readonly p: number
  declare readonly margin: number

  constructor(options: MultiMarginLossOptions = {}) {
    super(options, { p: 1, margin: 1 }, ['weight'])
    const { p } = this
    if (p !== 1 && p !== 2) throw new ConfigError(`MultiMarginLoss: expected p to be 1 or 2, got ${p}`, { p })
  }

  override forward(input: Tensor, target: Tensor): Tensor {
    const { p, margin, weight, reduction } = this
    return multiMarginLoss(input, target, { p, margin, weight, reduction })
  }
}

/** Kullback-Leibler divergence; see `functional.klDiv`. */
export class KLDivLoss extends Module {
  declare readonly reduction: Reduction | 'batchmean'
  declare readonly logTarget: boolean

  constructor(options: { reduction?: Reduction | 'batchmean'; logTarget?: boolean } = {}) {
    super()
    setOptions(this, options, { reduction: 'mean', logTarget: false })
    if (this.reduction !== 'batchmean') requireReduction(this.reduction)
  }

  override forward(input: Tensor, target: Tensor): Tensor {
    return klDiv(input, target, { reduction: this.reduction, logTarget: this.logTarget })
  }
}

/** 1 - cos for target 1, max(0, cos - margin) for target -1; inputs [batch, dim] or [dim]. */
export class CosineEmbeddingLoss extends Loss<LossOptions & { margin?: number }> {
  declare readonly margin: number

  constructor(options: LossOptions & { margin?: number } = {}) {
    super(options, { margin: 0 })
  }

  override forward(x1: Tensor, x2: Tensor, target: Tensor): Tensor {
    return cosineEmbeddingLoss(x1, x2, target, { margin: this.margin, reduction: this.reduction })
  }
}

/** max(0, -target (x1 - x2) + margin), target 1 if x1 should be larger and -1 if x2 should. */
export class MarginRankingLoss extends Loss<LossOptions & { margin?: number }> {
  declare readonly margin: number

  constructor(options: LossOptions & { margin?: number } = {}) {
    super(options, { margin: 0 })
  }

  override forward(x1: Tensor, x2: Tensor, target: Tensor): Tensor {
    return marginRankingLoss(x1, x2, target, { margin: this.margin, reduction: this.reduction })
  }
}

/** The input for target 1, max(0, margin - input) for target -1. Default margin 1. */
export class HingeEmbeddingLoss extends Loss<LossOptions & { margin?: number }> {
  declare readonly margin: number

  constructor(options: LossOptions & { margin?: number } = {}) {
    super(options, { margin: 1 })
  }

  override forward(input: Tensor, target: Tensor): Tensor {
    return hingeEmbeddingLoss(input, target, { margin: this.margin, reduction: this.reduction })
  }
}

/** max(0, |anchor - positive| - |anchor - negative| + margin). */
export class TripletMarginLoss extends Loss<TripletMarginLossOptions> {
  declare readonly margin: number
  declare readonly p: number
  declare readonly eps: number
  declare readonly swap: boolean

  constructor(options: TripletMarginLossOptions = {}) {
    super(options, { margin: 1, p: 2, eps: 1e-6, swap: false })
  }

  override forward(anchor: Tensor, positive: Tensor, negative: Tensor): Tensor {
    const { margin, p, eps, swap, reduction } = this
    return tripletMarginLoss(anchor, positive, negative, { margin, p, eps, swap, reduction })
  }
}

/** Triplet loss with a distance of one's own: max(d(anchor, positive) - d(anchor, negative) + margin, 0). */
export class TripletMarginWithDistanceLoss extends Loss<TripletMarginWithDistanceLossOptions> {
  readonly distanceFunction: (a: Tensor, b: Tensor) => Tensor
  declare readonly margin: number
  declare readonly swap: boolean

  constructor(options: TripletMarginWithDistanceLossOptions = {}) {
    super(options, { distanceFunction: null, margin: 1, swap: false })
    const { distanceFunction } = options
    if (distanceFunction) requireFunction('TripletMarginWithDistanceLoss', 'distanceFunction', distanceFunction)
    this.distanceFunction = distanceFunction ?? ((a, b) => ops.pairwiseDistance(a, b))
    requireNumber('TripletMarginWithDistanceLoss', 'margin', this.margin, { least: 0 })
  }

  override forward(anchor: Tensor, positive: Tensor, negative: Tensor): Tensor {
    const { distanceFunction, margin, swap, reduction } = this
    return tripletMarginWithDistanceLoss(anchor, positive, negative, { distanceFunction, margin, swap, reduction })
  }
}

/** Negative log likelihood of counts under Poisson distributions. */
export class PoissonNLLLoss extends Loss<PoissonNllLossOptions> {
  declare readonly logInput: boolean
  declare readonly full: boolean
  declare readonly eps: number

  constructor(options: PoissonNllLossOptions = {}) {
    super(options, { logInput: true, full: false, eps: 1e-8 })
  }

  override forward(input: Tensor, target: Tensor): Tensor {
    const { logInput, full, eps, reduction } = this
    return poissonNllLoss(input, target, { logInput, full, eps, reduction })
  }
}

/** Negative log likelihood of targets under normal distributions with the input as mean, and `variance`. */
export class GaussianNLLLoss extends Loss<GaussianNllLossOptions> {
  declare readonly full: boolean
  declare readonly eps: number

  constructor(options: GaussianNllLossOptions = {}) {
    super(options, { full: false, eps: 1e-6 })
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
export class CTCLoss extends Loss<CTCLossOptions> {
  declare readonly blank: number
  declare readonly zeroInfinity: boolean

  constructor(options: CTCLossOptions = {}) {
    super(options, { blank: 0, zeroInfinity: false })
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
