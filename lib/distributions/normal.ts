import { ops, randn, type Tensor } from '../tensor/index.js'
import { type DistributionOptions, elementwise, type Value } from './arguments.js'
import * as constraints from './constraints.js'
import { Distribution } from './distribution.js'
import { ExponentialFamily } from './exponential-family.js'
import { LocationScale } from './location-scale.js'
import { choose } from './math.js'

const HALF_LOG_2PI = 0.5 * Math.log(2 * Math.PI)

/** Normal (Gaussian) distribution with mean `loc` and standard deviation `scale`. */
export class Normal extends ExponentialFamily {
  declare readonly loc: Tensor
  declare readonly scale: Tensor

  static {
    Normal.define(
      { support: constraints.real, hasRsample: true },
      { loc: constraints.real, scale: constraints.positive },
    )
  }

  constructor(loc: Value, scale: Value, options?: DistributionOptions)
  constructor(named: { loc: Value; scale: Value } & DistributionOptions)
  constructor(...args: unknown[]) {
    super(...elementwise('Normal', ['loc', 'scale'], args))
  }

  override get meanCarrierMeasure(): number {
    return 0
  }

  protected override computeNaturalParams(): Tensor[] {
    const precision = this.scale.pow(-2)
    return [this.loc.mul(precision), precision.mul(-0.5)]
  }

  protected override computeLogNormalizer(x: Tensor, y: Tensor): Tensor {
    return x.square().div(y).mul(-0.25).add(y.reciprocal().mul(-Math.PI).log().mul(0.5))
  }

  protected override computeMode(): Tensor {
    return this.loc
  }

  protected override computeMean(): Tensor {
    return this.loc
  }

  protected override computeStddev(): Tensor {
    return this.scale
  }

  protected override computeVariance(): Tensor {
    return this.scale.square()
  }

  protected override computeSample(shape: number[]): Tensor {
    return ops.normal(this.loc.expand(shape), this.scale.expand(shape))
  }

  protected override computeRsample(shape: number[]): Tensor {
    return randn(shape, this.factory).mul(this.scale).add(this.loc)
  }

  protected override computeLogProb(value: Tensor): Tensor {
    return value.sub(this.loc).div(this.scale).square().mul(-0.5).sub(this.scale.log()).sub(HALF_LOG_2PI)
  }

  protected override computeCdf(value: Tensor): Tensor {
    return value.sub(this.loc).div(this.scale).mul(Math.SQRT1_2).erf().add(1).mul(0.5)
  }

  protected override computeIcdf(value: Tensor): Tensor {
    return value.mul(2).sub(1).erfinv().mul(Math.SQRT2).mul(this.scale).add(this.loc)
  }

  protected override computeEntropy(): Tensor {
    return this.scale.log().add(0.5 + HALF_LOG_2PI)
  }
}

/** Distribution of |x| for a normal x with mean 0 and standard deviation `scale`. */
export class HalfNormal extends Distribution {
  declare readonly scale: Tensor

  static {
    HalfNormal.define({ support: constraints.nonnegative, hasRsample: true }, { scale: constraints.positive })
  }

  constructor(scale: Value, options?: DistributionOptions)
  constructor(named: { scale: Value } & DistributionOptions)
  constructor(...args: unknown[]) {
    super(...elementwise('HalfNormal', ['scale'], args))
  }

  /** The normal distribution of x. */
  get baseDist(): Normal {
    return new Normal(0, this.scale, { validateArgs: false })
  }

  protected override computeMean(): Tensor {
    return this.scale.mul(Math.sqrt(2 / Math.PI))
  }

  protected override computeMode(): Tensor {
    return ops.zerosLike(this.scale)
  }

  protected override computeVariance(): Tensor {
    return this.scale.square().mul(1 - 2 / Math.PI)
  }

  protected override computeSample(shape: number[]): Tensor {
    return ops.normal(this.filled(0).expand(shape), this.scale.expand(shape)).abs()
  }

  protected override computeRsample(shape: number[]): Tensor {
    return randn(shape, this.factory).mul(this.scale).abs()
  }

  protected override computeLogProb(value: Tensor): Tensor {
    return choose(value.ge(0), this.baseDist.logProb(value).add(Math.LN2), -Infinity)
  }

  protected override computeCdf(value: Tensor): Tensor {
    return value.div(this.scale).mul(Math.SQRT1_2).erf()
  }

  protected override computeIcdf(value: Tensor): Tensor {
    return value.erfinv().mul(Math.SQRT2).mul(this.scale)
  }

  protected override computeEntropy(): Tensor {
    return this.baseDist.entropy().sub(Math.LN2)
  }
}

/** Distribution of exp(x) for a normal x with mean `loc` and standard deviation `scale`. */
export class LogNormal extends LocationScale {
  constructor(loc: Value, scale: Value, options?: DistributionOptions)
  constructor(named: { loc: Value; scale: Value } & DistributionOptions)
  constructor(...args: unknown[]) {
    super('LogNormal', args)
  }

  /** The normal distribution of x. */
  get baseDist(): Normal {
    return new Normal(this.loc, this.scale, { validateArgs: false })
  }

  override get support() {
    return constraints.positive
  }

  protected override computeMean(): Tensor {
    return this.scale.square().div(2).add(this.loc).exp()
  }

  protected override computeMode(): Tensor {
    return this.loc.sub(this.scale.square()).exp()
  }

  protected override computeVariance(): Tensor {
    const variance = this.scale.square()
    return variance.expm1().mul(this.loc.mul(2).add(variance).exp())
  }

  protected override computeSample(shape: number[]): Tensor {
    return ops.normal(this.loc.expand(shape), this.scale.expand(shape)).exp()
  }

  protected override computeRsample(shape: number[]): Tensor {
    return randn(shape, this.factory).mul(this.scale).add(this.loc).exp()
  }

  protected override computeLogProb(value: Tensor): Tensor {
    const log = value.log()
    return this.baseDist.logProb(log).sub(log)
  }

  protected override computeCdf(value: Tensor): Tensor {
    return this.baseDist.cdf(value.log())
  }

  protected override computeIcdf(value: Tensor): Tensor {
    return this.baseDist.icdf(value).exp()
  }

  protected override computeEntropy(): Tensor {
    return this.baseDist.entropy().add(this.loc)
  }
}
