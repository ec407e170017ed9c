import { empty, type Tensor } from '../tensor/index.js'
import { type DistributionOptions, elementwise, type Value } from './arguments.js'
import { greaterThanEq, positive } from './constraints.js'
import { Distribution } from './distribution.js'

/** Pareto distribution of type 1: numbers of at least `scale` with exponent `alpha`. */
export class Pareto extends Distribution {
  declare readonly scale: Tensor
  declare readonly alpha: Tensor

  static {
    Pareto.define({ hasRsample: true }, { scale: positive, alpha: positive })
  }

  constructor(scale: Value, alpha: Value, options?: DistributionOptions)
  constructor(named: { scale: Value; alpha: Value } & DistributionOptions)
  constructor(...args: unknown[]) {
    super(...elementwise('Pareto', ['scale', 'alpha'], args))
  }

  override get support() {
    return greaterThanEq(this.scale)
  }

  /** Infinite for alpha of at most 1. */
  protected override computeMean(): Tensor {
    const alpha = this.alpha.clamp(1)
    return alpha.mul(this.scale).div(alpha.sub(1))
  }

  protected override computeMode(): Tensor {
    return this.scale
  }

  /** Infinite for alpha of at most 2. */
  protected override computeVariance(): Tensor {
    const alpha = this.alpha.clamp(2)
    return this.scale
      .square()
      .mul(alpha)
      .div(alpha.sub(1).square().mul(alpha.sub(2)))
  }

  protected override computeRsample(shape: number[]): Tensor {
    return this.scale.mul(empty(shape, this.factory).exponential_().div(this.alpha).exp())
  }

  protected override computeLogProb(value: Tensor): Tensor {
    const { alpha, scale } = this
    return alpha
      .log()
      .sub(alpha.mul(value.div(scale).log()))
      .sub(value.log())
  }

  protected override computeCdf(value: Tensor): Tensor {
    return value.div(this.scale).log().mul(this.alpha).neg().expm1().neg()
  }

  protected override computeIcdf(value: Tensor): Tensor {
    return this.scale.mul(value.neg().log1p().neg().div(this.alpha).exp())
  }

  protected override computeEntropy(): Tensor {
    return this.scale.div(this.alpha).log().add(this.alpha.reciprocal()).add(1)
  }
}
