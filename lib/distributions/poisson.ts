import { ops, type Tensor } from '../tensor/index.js'
import { type DistributionOptions, elementwise, type Value } from './arguments.js'
import { nonnegative, nonnegativeInteger } from './constraints.js'
import { ExponentialFamily } from './exponential-family.js'

/** Poisson distribution: the number of events whose expectation is `rate`. */
export class Poisson extends ExponentialFamily {
  declare readonly rate: Tensor

  static {
    Poisson.define({ support: nonnegativeInteger }, { rate: nonnegative })
  }

  constructor(rate: Value, options?: DistributionOptions)
  constructor(named: { rate: Value } & DistributionOptions)
  constructor(...args: unknown[]) {
    super(...elementwise('Poisson', ['rate'], args))
  }

  protected override computeMean(): Tensor {
    return this.rate
  }

  protected override computeMode(): Tensor {
    return this.rate.floor()
  }

  protected override computeVariance(): Tensor {
    return this.rate
  }

  protected override computeSample(shape: number[]): Tensor {
    return ops.poisson(this.rate.expand(shape))
  }

  protected override computeLogProb(value: Tensor): Tensor {
    return value.xlogy(this.rate).sub(this.rate).sub(value.add(1).lgamma())
  }

  protected override computeNaturalParams(): Tensor[] {
    return [this.rate.log()]
  }

  protected override computeLogNormalizer(logRate: Tensor): Tensor {
    return logRate.exp()
  }
}
