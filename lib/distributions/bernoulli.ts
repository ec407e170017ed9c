import { arange, ops, type Tensor } from '../tensor/index.js'
import { type DistributionOptions, type Value, withProbsOrLogits } from './arguments.js'
import { boolean } from './constraints.js'
import { choose } from './math.js'
import { BinaryFamily, type ProbsOrLogits } from './probs-or-logits.js'

/** Bernoulli distribution: 1 with probability `probs`, else 0. */
export class Bernoulli extends BinaryFamily {
  static {
    Bernoulli.define({ support: boolean, hasEnumerateSupport: true })
  }

  constructor(probs: Value, options?: DistributionOptions)
  constructor(probs: null, logits: Value, options?: DistributionOptions)
  constructor(named: ProbsOrLogits & DistributionOptions)
  constructor(...args: unknown[]) {
    super(...withProbsOrLogits('Bernoulli', ['probs', 'logits'], args))
  }

  protected override computeMean(): Tensor {
    return this.probs
  }

  /** NaN for probability 0.5. */
  protected override computeMode(): Tensor {
    const { probs } = this
    return choose(probs.ne(0.5), probs.gt(0.5).to(probs.dtype), Number.NaN)
  }

  protected override computeVariance(): Tensor {
    const { probs } = this
    return probs.mul(probs.rsub(1))
  }

  protected override computeSample(shape: number[]): Tensor {
    return ops.bernoulli(this.probs.expand(shape))
  }

  protected override computeLogProb(value: Tensor): Tensor {
    return crossEntropy(this.logits, value).neg()
  }

  protected override computeEntropy(): Tensor {
    return crossEntropy(this.logits, this.probs)
  }

  protected override computeSupport(): Tensor {
    return arange(0, 2, this.factory)
  }

  override get meanCarrierMeasure(): number {
    return 0
  }

  protected override computeNaturalParams(): Tensor[] {
    return [this.logits]
  }

  protected override computeLogNormalizer(logits: Tensor): Tensor {
    return ops.softplus(logits)
  }
}

/** Return the binary cross-entropy of log odds against the probability of 1. */
export function crossEntropy(logits: Tensor, target: Tensor): Tensor {
  const [left, right] = ops.broadcastTensors([logits, target]) as [Tensor, Tensor]
  return ops.binaryCrossEntropyWithLogits(left, right, null, null, 0)
}
