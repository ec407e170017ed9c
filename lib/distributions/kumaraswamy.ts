import { rand, type Tensor } from '../tensor/index.js'
import { type DistributionOptions, elementwise, type Value } from './arguments.js'
import { positive, unitInterval } from './constraints.js'
import { Distribution } from './distribution.js'
import { choose, EULER } from './math.js'

/** Kumaraswamy distribution over [0, 1], similar to a beta distribution, with a cdf in closed form. */
export class Kumaraswamy extends Distribution {
  declare readonly concentration1: Tensor
  declare readonly concentration0: Tensor

  static {
    Kumaraswamy.define(
      { support: unitInterval, hasRsample: true },
      { concentration1: positive, concentration0: positive },
    )
  }

  constructor(concentration1: Value, concentration0: Value, options?: DistributionOptions)
  constructor(named: { concentration1: Value; concentration0: Value } & DistributionOptions)
  constructor(...args: unknown[]) {
    super(...elementwise('Kumaraswamy', ['concentration1', 'concentration0'], args))
  }

  /** Return b · B(1 + order/a, b), the moment of an order. */
  private moment(order: number): Tensor {
    const [a, b] = [this.concentration1, this.concentration0]
    const first = a.reciprocal().mul(order).add(1)
    return b.mul(first.lgamma().add(b.lgamma()).sub(first.add(b).lgamma()).exp())
  }

  protected override computeMean(): Tensor {
    return this.moment(1)
  }

  /** NaN where a concentration is below 1. */
  protected override computeMode(): Tensor {
    const [a, b] = [this.concentration1, this.concentration0]
    const mode = a.sub(1).div(a.mul(b).sub(1)).pow(a.reciprocal())
    return choose(a.lt(1).logicalOr(b.lt(1)), this.filled(Number.NaN), mode)
  }

  protected override computeVariance(): Tensor {
    return this.moment(2).sub(this.moment(1).square())
  }

  protected override computeRsample(shape: number[]): Tensor {
    const { concentration1, concentration0 } = this
    const first = rand(shape, this.factory).pow(concentration0.reciprocal())
    return first.rsub(1).pow(concentration1.reciprocal())
  }

  protected override computeLogProb(value: Tensor): Tensor {
    const [a, b] = [this.concentration1, this.concentration0]
    const log = value.log()
    return a
      .mul(b)
      .log()
      .add(a.sub(1).mul(log))
      .add(b.sub(1).mul(value.pow(a).neg().log1p()))
  }

  protected override computeCdf(value: Tensor): Tensor {
    return value.pow(this.concentration1).neg().log1p().mul(this.concentration0).expm1().neg()
  }

  protected override computeIcdf(value: Tensor): Tensor {
    const upper = value.neg().log1p().div(this.concentration0).expm1().neg()
    return upper.pow(this.concentration1.reciprocal())
  }

  protected override computeEntropy(): Tensor {
    const [a, b] = [this.concentration1, this.concentration0]
    const harmonic = b.add(1).digamma().add(EULER)
    return b.reciprocal().rsub(1).add(a.reciprocal().rsub(1).mul(harmonic)).sub(a.log()).sub(b.log())
  }
}
