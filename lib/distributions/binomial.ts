import { NotImplementedError } from '../base/errors.js'
import { arange, ops, scope, type Tensor } from '../tensor/index.js'
import { type DistributionOptions, type Value, withProbsOrLogits } from './arguments.js'
import { type Constraint, integerInterval, nonnegativeInteger } from './constraints.js'
import { Binary, type ProbsOrLogits } from './probs-or-logits.js'

/** Binomial distribution: the number of successes among `totalCount` attempts (default 1) of probability `probs` each. */
export class Binomial extends Binary {
  constructor(totalCount: Value, probs: Value, options?: DistributionOptions)
  constructor(totalCount: Value, probs: null, logits: Value, options?: DistributionOptions)
  constructor(totalCount: Value, named: ProbsOrLogits & DistributionOptions)
  constructor(named: { totalCount?: Value } & ProbsOrLogits & DistributionOptions)
  constructor(...args: unknown[]) {
    super(...withProbsOrLogits('Binomial', ['totalCount', 'probs', 'logits'], args, { totalCount: 1 }))
  }

  get totalCount(): Tensor {
    return scope(() => this.parameter('totalCount').to({ dtype: this.factory.dtype, copy: true }))
  }

  override get hasEnumerateSupport(): boolean {
    return true
  }

  override get argConstraints(): Record<string, Constraint> {
    return { ...super.argConstraints, totalCount: nonnegativeInteger }
  }

  override get support(): Constraint {
    return integerInterval(0, this.totalCount)
  }

  protected override computeMean(): Tensor {
    return this.totalCount.mul(this.probs)
  }

  protected override computeMode(): Tensor {
    const { totalCount } = this
    return ops.minimum(totalCount.add(1).mul(this.probs).floor(), totalCount)
  }

  protected override computeVariance(): Tensor {
    const { probs } = this
    return this.totalCount.mul(probs).mul(probs.rsub(1))
  }

  protected override computeSample(shape: number[]): Tensor {
    return ops.binomial(this.totalCount.expand(shape), this.probs.expand(shape))
  }

  protected override computeLogProb(value: Tensor): Tensor {
    const { totalCount, logits } = this
    const choices = totalCount.add(1).lgamma().sub(value.add(1).lgamma()).sub(totalCount.sub(value).add(1).lgamma())
    return value
      .mul(logits)
      .add(choices)
      .sub(totalCount.mul(ops.softplus(logits)))
  }

  protected override computeEntropy(): Tensor {
    const logProb = this.logProb(this.enumerateSupport(false))
    return logProb.exp().mul(logProb).sum(0).neg()
  }

  protected override computeSupport(): Tensor {
    const { min, max } = this.totalCount.aminmax()
    const most = max.item()
    if (min.item() !== most) {
      throw new NotImplementedError(
        `Binomial.enumerateSupport: expected one totalCount for all, got ${min.item()} to ${most}`,
        { method: 'enumerateSupport' },
      )
    }
    return arange(0, most + 1, this.factory)
  }
}
