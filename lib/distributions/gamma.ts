import { op } from '../native/call.js'
import { scope, type Tensor } from '../tensor/index.js'
import { type DistributionOptions, elementwise, type Value } from './arguments.js'
import { type Constraint, nonnegative, positive } from './constraints.js'
import { ExponentialFamily } from './exponential-family.js'
import { choose, floatLimits } from './math.js'

const standardGamma = op('aten::_standard_gamma') as (concentration: Tensor) => Tensor

/** Draw from gamma distributions of rate 1, in the shape of `concentration`, with gradients. */
function drawGamma(concentration: Tensor, rate: Tensor): Tensor {
  const value = standardGamma(concentration).div(rate)
  // In place and unrecorded, as PyTorch: a sample that underflowed to 0 has no finite log density.
  value.detach().clamp_(floatLimits(value.dtype).tiny)
  return value
}

/** Marks the arguments of the constructor that Chi2 calls. */
const DF = Symbol('df')

/** A distribution with parameters `concentration` and `rate`. */
abstract class ConcentrationRate extends ExponentialFamily {
  static {
    ConcentrationRate.define({ hasRsample: true }, { concentration: positive, rate: positive })
  }

  get concentration(): Tensor {
    return this.parameter('concentration')
  }

  get rate(): Tensor {
    return this.parameter('rate')
  }
}

/** Gamma distribution with shape `concentration` and `rate`, the inverse of the scale. */
export class Gamma extends ConcentrationRate {
  constructor(concentration: Value, rate: Value, options?: DistributionOptions)
  constructor(named: { concentration: Value; rate: Value } & DistributionOptions)
  /** @internal */
  constructor(mark: typeof DF, setup: ReturnType<typeof elementwise>)
  constructor(...args: unknown[]) {
    super(
      ...(args[0] === DF
        ? (args[1] as ReturnType<typeof elementwise>)
        : elementwise('Gamma', ['concentration', 'rate'], args)),
    )
  }

  override get support(): Constraint {
    return nonnegative
  }

  protected override computeMean(): Tensor {
    return this.concentration.div(this.rate)
  }

  protected override computeMode(): Tensor {
    return this.concentration.sub(1).div(this.rate).clamp(0)
  }

  protected override computeVariance(): Tensor {
    return this.concentration.div(this.rate.square())
  }

  protected override computeRsample(shape: number[]): Tensor {
    return drawGamma(this.concentration.expand(shape), this.rate.expand(shape))
  }

  protected override computeLogProb(value: Tensor): Tensor {
    const [a, rate] = [this.concentration, this.rate]
    return a.xlogy(rate).add(a.sub(1).xlogy(value)).sub(rate.mul(value)).sub(a.lgamma())
  }

  protected override computeCdf(value: Tensor): Tensor {
    return this.concentration.specialGammainc(this.rate.mul(value))
  }

  protected override computeEntropy(): Tensor {
    const a = this.concentration
    return a.sub(this.rate.log()).add(a.lgamma()).add(a.rsub(1).mul(a.digamma()))
  }

  override get meanCarrierMeasure(): number {
    return 0
  }

  protected override computeNaturalParams(): Tensor[] {
    return [this.concentration.sub(1), this.rate.neg()]
  }

  protected override computeLogNormalizer(power: Tensor, negativeRate: Tensor): Tensor {
    const a = power.add(1)
    return a.lgamma().sub(a.mul(negativeRate.neg().log()))
  }
}

/** Chi-squared distribution with `df` degrees of freedom: a gamma distribution of concentration df/2 and rate 1/2. */
export class Chi2 extends Gamma {
  declare readonly df: Tensor

  static {
    Chi2.define({}, { df: positive })
  }

  constructor(df: Value, options?: DistributionOptions)
  constructor(named: { df: Value } & DistributionOptions)
  constructor(...args: unknown[]) {
    super(DF, elementwise('Chi2', ['df'], args))
  }

  override get concentration(): Tensor {
    return scope(() => this.df.mul(0.5))
  }

  override get rate(): Tensor {
    return this.filled(0.5)
  }
}

/** Distribution of 1/x for x from a gamma distribution. */
export class InverseGamma extends ConcentrationRate {
  constructor(concentration: Value, rate: Value, options?: DistributionOptions)
  constructor(named: { concentration: Value; rate: Value } & DistributionOptions)
  constructor(...args: unknown[]) {
    super(...elementwise('InverseGamma', ['concentration', 'rate'], args))
  }

  /** The gamma distribution of x. */
  get baseDist(): Gamma {
    return new Gamma(this.concentration, this.rate, { validateArgs: false })
  }

  override get support(): Constraint {
    return positive
  }

  /** Infinite for a concentration of at most 1. */
  protected override computeMean(): Tensor {
    const a = this.concentration
    return choose(a.gt(1), this.rate.div(a.sub(1)), Infinity)
  }

  protected override computeMode(): Tensor {
    return this.rate.div(this.concentration.add(1))
  }

  /** Infinite for a concentration of at most 2. */
  protected override computeVariance(): Tensor {
    const a = this.concentration
    return choose(a.gt(2), this.rate.square().div(a.sub(1).square().mul(a.sub(2))), Infinity)
  }

  protected override computeRsample(shape: number[]): Tensor {
    return drawGamma(this.concentration.expand(shape), this.rate.expand(shape)).reciprocal()
  }

  protected override computeLogProb(value: Tensor): Tensor {
    return this.baseDist.logProb(value.reciprocal()).sub(value.log().mul(2))
  }

  protected override computeCdf(value: Tensor): Tensor {
    return this.concentration.specialGammaincc(this.rate.div(value))
  }

  protected override computeEntropy(): Tensor {
    const a = this.concentration
    return a.add(this.rate.log()).add(a.lgamma()).sub(a.add(1).mul(a.digamma()))
  }

  override get meanCarrierMeasure(): number {
    return 0
  }

  protected override computeNaturalParams(): Tensor[] {
    return [this.concentration.neg().sub(1), this.rate.neg()]
  }

  protected override computeLogNormalizer(power: Tensor, negativeRate: Tensor): Tensor {
    const a = power.neg().sub(1)
    return a.lgamma().sub(a.mul(negativeRate.neg().log()))
  }
}
