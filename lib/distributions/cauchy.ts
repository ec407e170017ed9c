import { empty, ops, type Tensor } from '../tensor/index.js'
import { type DistributionOptions, elementwise, type Value } from './arguments.js'
import { nonnegative, positive } from './constraints.js'
import { Distribution } from './distribution.js'
import { LocationScale } from './location-scale.js'
import { choose } from './math.js'

/** Cauchy distribution with median `loc` and half width at half maximum `scale`. Its mean does not exist (NaN). */
export class Cauchy extends LocationScale {
  constructor(loc: Value, scale: Value, options?: DistributionOptions)
  constructor(named: { loc: Value; scale: Value } & DistributionOptions)
  constructor(...args: unknown[]) {
    super('Cauchy', args)
  }

  protected override computeMean(): Tensor {
    return this.filled(Number.NaN)
  }

  protected override computeVariance(): Tensor {
    return this.filled(Infinity)
  }

  protected override computeRsample(shape: number[]): Tensor {
    return empty(shape, this.factory).cauchy_().mul(this.scale).add(this.loc)
  }

  protected override computeLogProb(value: Tensor): Tensor {
    return this.standardized(value).square().log1p().neg().sub(this.scale.log()).sub(Math.log(Math.PI))
  }

  protected override computeCdf(value: Tensor): Tensor {
    return this.standardized(value).atan().div(Math.PI).add(0.5)
  }

  protected override computeIcdf(value: Tensor): Tensor {
    return value.sub(0.5).mul(Math.PI).tan().mul(this.scale).add(this.loc)
  }

  protected override computeEntropy(): Tensor {
    return this.scale.log().add(Math.log(4 * Math.PI))
  }
}

/** Distribution of |x| for x from a Cauchy distribution around 0 with `scale`. */
export class HalfCauchy extends Distribution {
  declare readonly scale: Tensor

  static {
    HalfCauchy.define({ support: nonnegative, hasRsample: true }, { scale: positive })
  }

  constructor(scale: Value, options?: DistributionOptions)
  constructor(named: { scale: Value } & DistributionOptions)
  constructor(...args: unknown[]) {
    super(...elementwise('HalfCauchy', ['scale'], args))
  }

  /** The Cauchy distribution of x. */
  get baseDist(): Cauchy {
    return new Cauchy(0, this.scale, { validateArgs: false })
  }

  protected override computeMean(): Tensor {
    return this.filled(Infinity)
  }

  protected override computeMode(): Tensor {
    return ops.zerosLike(this.scale)
  }

  protected override computeVariance(): Tensor {
    return this.filled(Infinity)
  }

  protected override computeRsample(shape: number[]): Tensor {
    return empty(shape, this.factory).cauchy_().mul(this.scale).abs()
  }

  protected override computeLogProb(value: Tensor): Tensor {
    return choose(value.ge(0), this.baseDist.logProb(value).add(Math.LN2), -Infinity)
  }

  protected override computeCdf(value: Tensor): Tensor {
    return value
      .div(this.scale)
      .atan()
      .mul(2 / Math.PI)
  }

  protected override computeIcdf(value: Tensor): Tensor {
    return value
      .mul(Math.PI / 2)
      .tan()
      .mul(this.scale)
  }

  protected override computeEntropy(): Tensor {
    return this.scale.log().add(Math.log(2 * Math.PI))
  }
}
