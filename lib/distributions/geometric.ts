import { ConfigError } from '../base/errors.js'
import { empty, ops, scope, type Tensor } from '../tensor/index.js'
import { type DistributionOptions, type Value, withProbsOrLogits } from './arguments.js'
import { crossEntropy } from './bernoulli.js'
import { type Constraint, nonnegativeInteger } from './constraints.js'
import { choose, floatLimits } from './math.js'
import { Binary, type ProbsOrLogits } from './probs-or-logits.js'

/** Geometric distribution: the number of failures before the first success, which has probability `probs` each time. */
export class Geometric extends Binary {
  constructor(probs: Value, options?: DistributionOptions)
  constructor(probs: null, logits: Value, options?: DistributionOptions)
  constructor(named: ProbsOrLogits & DistributionOptions)
  constructor(...args: unknown[]) {
    super(...withProbsOrLogits('Geometric', ['probs', 'logits'], args))
    const { probs } = this.parameters
    if (!this.validateArgs || probs === undefined) return
    const isPositive =
      typeof probs === 'number' ? probs > 0 : probs.device === 'meta' || scope(() => probs.gt(0).all().item<boolean>())
    if (!isPositive)
      throw new ConfigError('Geometric: expected probs above 0, got a probability of 0', { argument: 'probs' })
  }

  override get support(): Constraint {
    return nonnegativeInteger
  }

  protected override computeMean(): Tensor {
    return this.probs.reciprocal().sub(1)
  }

  protected override computeMode(): Tensor {
    return ops.zerosLike(this.probs)
  }

  protected override computeVariance(): Tensor {
    const { probs } = this
    return probs.reciprocal().sub(1).div(probs)
  }

  protected override computeSample(shape: number[]): Tensor {
    const u = empty(shape, this.factory).uniform_(floatLimits(this.factory.dtype).tiny, 1)
    return u.log().div(this.probs.neg().log1p()).floor()
  }

  protected override computeLogProb(value: Tensor): Tensor {
    const { probs } = this
    // For probability 1, log(1 - p) is infinite, and 0 failures times it are 0.
    const failure = choose(probs.eq(1).logicalAnd(value.eq(0)).logicalNot(), probs, 0)
    return value.mul(failure.neg().log1p()).add(probs.log())
  }

  protected override computeEntropy(): Tensor {
    return crossEntropy(this.logits, this.probs).div(this.probs)
  }
}
