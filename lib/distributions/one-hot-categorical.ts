import { eye, ops, type Tensor } from '../tensor/index.js'
import type { DistributionOptions } from './arguments.js'
import { Categorical, drawClasses } from './categorical.js'
import { oneHot } from './constraints.js'
import { Classes, classArguments, type ProbsOrLogits } from './probs-or-logits.js'

/** Categorical distribution whose samples are one-hot vectors [..., k]. */
export class OneHotCategorical extends Classes {
  static {
    OneHotCategorical.define({ support: oneHot, hasEnumerateSupport: true })
  }

  constructor(probs: Tensor, options?: DistributionOptions)
  constructor(probs: null, logits: Tensor, options?: DistributionOptions)
  constructor(named: ProbsOrLogits<Tensor> & DistributionOptions)
  constructor(...args: unknown[]) {
    const { batchShape, classes, setup } = classArguments('OneHotCategorical', args)
    super(batchShape, [classes], setup)
  }

  /** The distribution of the index of the 1. */
  get categorical(): Categorical {
    return new Categorical({ logits: this.logits, validateArgs: false })
  }

  protected override computeMean(): Tensor {
    return this.probs
  }

  protected override computeMode(): Tensor {
    return ops.oneHot(this.probs.argmax(-1), this.classes).to(this.factory.dtype)
  }

  protected override computeVariance(): Tensor {
    const { probs } = this
    return probs.mul(probs.rsub(1))
  }

  protected override computeSample(shape: number[]): Tensor {
    return ops.oneHot(drawClasses(this.probs, shape.slice(0, -1)), this.classes).to(this.factory.dtype)
  }

  protected override computeLogProb(value: Tensor): Tensor {
    return this.categorical.logProb(value.argmax(-1))
  }

  protected override computeEntropy(): Tensor {
    return this.categorical.entropy()
  }

  protected override computeSupport(): Tensor {
    return eye(this.classes, this.factory)
  }
}

/**
 * {@link OneHotCategorical} with straight-through gradients: `rsample` returns one-hot vectors whose gradient is that of the
 * probabilities (Bengio et al. 2013).
 */
export class OneHotCategoricalStraightThrough extends OneHotCategorical {
  override get hasRsample(): boolean {
    return true
  }

  protected override computeRsample(shape: number[]): Tensor {
    const sample = this.sample(this.sampleShapeOf(shape))
    const { probs } = this
    return sample.add(probs.sub(probs.detach()))
  }
}
