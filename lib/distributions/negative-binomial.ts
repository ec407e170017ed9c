import { ops, scope, type Tensor } from '../tensor/index.js'
import { type DistributionOptions, type Value, withProbsOrLogits } from './arguments.js'
import { halfOpenInterval, nonnegative, nonnegativeInteger, real } from './constraints.js'
import { Gamma } from './gamma.js'
import { choose } from './math.js'
import { Binary, type ProbsOrLogits } from './probs-or-logits.js'

/** Negative binomial distribution: the number of successes of probability `probs` before `totalCount` failures. */
export class NegativeBinomial extends Binary {
  static {
    NegativeBinomial.define(
      { support: nonnegativeInteger },
      { totalCount: nonnegative, probs: halfOpenInterval(0, 1), logits: real },
    )
  }

  constructor(totalCount: Value, probs: Value, options?: DistributionOptions)
  constructor(totalCount: Value, probs: null, logits: Value, options?: DistributionOptions)
  constructor(totalCount: Value, named: ProbsOrLogits & DistributionOptions)
  constructor(named: { totalCount: Value } & ProbsOrLogits & DistributionOptions)
  constructor(...args: unknown[]) {
    super(...withProbsOrLogits('NegativeBinomial', ['totalCount', 'probs', 'logits'], args))
  }

  get totalCount(): Tensor {
    return scope(() => this.parameter('totalCount').to({ dtype: this.factory.dtype, copy: true }))
  }

  protected override computeMean(): Tensor {
    return this.totalCount.mul(this.logits.exp())
  }

  protected override computeMode(): Tensor {
    return this.totalCount.sub(1).mul(this.logits.exp()).floor().clamp(0)
  }

  protected override computeVariance(): Tensor {
    return this.mean.div(this.logits.neg().sigmoid())
  }

  protected override computeSample(shape: number[]): Tensor {
    const sampleShape = this.sampleShapeOf(shape)
    const rates = new Gamma(this.totalCount, this.logits.neg().exp(), { validateArgs: false })
    return ops.poisson(rates.sample(sampleShape))
  }

  protected override computeLogProb(value: Tensor): Tensor {
    const { totalCount, logits } = this
    const total = totalCount.add(value)
    const choices = total.lgamma().sub(value.add(1).lgamma()).sub(totalCount.lgamma())
    const unnormalized = totalCount.mul(ops.logSigmoid(logits.neg())).add(value.mul(ops.logSigmoid(logits)))
    return unnormalized.add(choose(total.ne(0), choices, 0))
  }
}
