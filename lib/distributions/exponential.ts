import { empty, ops, type Tensor } from '../tensor/index.js'
import { type DistributionOptions, elementwise, type Value } from './arguments.js'
import { nonnegative, positive } from './constraints.js'
import { ExponentialFamily } from './exponential-family.js'

/** Exponential distribution with `rate`, the inverse of its mean. */
export class Exponential extends ExponentialFamily {
  declare readonly rate: Tensor

  static {
    Exponential.define({ support: nonnegative, hasRsample: true }, { rate: positive })
  }

  constructor(rate: Value, options?: DistributionOptions)
  constructor(named: { rate: Value } & DistributionOptions)
  constructor(...args: unknown[]) {
    super(...elementwise('Exponential', ['rate'], args))
  }

  protected override computeMean(): Tensor {
    return this.rate.reciprocal()
  }

  protected override computeMode(): Tensor {
    return ops.zerosLike(this.rate)
  }

  protected override computeVariance(): Tensor {
    return this.rate.pow(-2)
  }

  protected override computeStddev(): Tensor {
    return this.rate.reciprocal()
  }

  protected override computeRsample(shape: number[]): Tensor {
    return empty(shape, this.factory).exponential_().div(this.rate)
  }

  protected override computeLogProb(value: Tensor): Tensor {
    return this.rate.log().sub(this.rate.mul(value))
  }

  protected override computeCdf(value: Tensor): Tensor {
    return this.rate.mul(value).neg().expm1().neg()
  }

  protected override computeIcdf(value: Tensor): Tensor {
    return value.neg().log1p().neg().div(this.rate)
  }

  protected override computeEntropy(): Tensor {
    return this.rate.log().rsub(1)
  }

  override get meanCarrierMeasure(): number {
    return 0
  }

  protected override computeNaturalParams(): Tensor[] {
    return [this.rate.neg()]
  }

  protected override computeLogNormalizer(negativeRate: Tensor): Tensor {
    return negativeRate.neg().log().neg()
  }
}
