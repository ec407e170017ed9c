import { empty, type Tensor } from '../tensor/index.js'
import { type DistributionOptions, elementwise, type Value } from './arguments.js'
import { positive } from './constraints.js'
import { Distribution } from './distribution.js'
import { EULER } from './math.js'

/** Weibull distribution with `scale` and shape `concentration`. */
export class Weibull extends Distribution {
  declare readonly scale: Tensor
  declare readonly concentration: Tensor

  static {
    Weibull.define({ support: positive, hasRsample: true }, { scale: positive, concentration: positive })
  }

  constructor(scale: Value, concentration: Value, options?: DistributionOptions)
  constructor(named: { scale: Value; concentration: Value } & DistributionOptions)
  constructor(...args: unknown[]) {
    super(...elementwise('Weibull', ['scale', 'concentration'], args))
  }

  /** Return the logarithm of the moment of an order, without the scale. */
  private logMoment(order: number): Tensor {
    return this.concentration.reciprocal().mul(order).add(1).lgamma()
  }

  protected override computeMean(): Tensor {
    return this.scale.mul(this.logMoment(1).exp())
  }

  /** NaN for a concentration below 1, whose density is infinite at 0. */
  protected override computeMode(): Tensor {
    const k = this.concentration
    return this.scale.mul(k.sub(1).div(k).pow(k.reciprocal()))
  }

  protected override computeVariance(): Tensor {
    return this.scale.square().mul(this.logMoment(2).exp().sub(this.logMoment(1).mul(2).exp()))
  }

  protected override computeRsample(shape: number[]): Tensor {
    return this.scale.mul(empty(shape, this.factory).exponential_().pow(this.concentration.reciprocal()))
  }

  protected override computeLogProb(value: Tensor): Tensor {
    const [k, ratio] = [this.concentration, value.div(this.scale)]
    return k.div(this.scale).log().add(k.sub(1).mul(ratio.log())).sub(ratio.pow(k))
  }

  protected override computeCdf(value: Tensor): Tensor {
    return value.div(this.scale).pow(this.concentration).neg().expm1().neg()
  }

  protected override computeIcdf(value: Tensor): Tensor {
    return this.scale.mul(value.neg().log1p().neg().pow(this.concentration.reciprocal()))
  }

  protected override computeEntropy(): Tensor {
    const inverse = this.concentration.reciprocal()
    return inverse.rsub(1).mul(EULER).add(this.scale.mul(inverse).log()).add(1)
  }
}
