import { rand, type Tensor } from '../tensor/index.js'
import { type DistributionOptions, elementwise, type Value } from './arguments.js'
import { type Constraint, interval, positive, real } from './constraints.js'
import { Distribution } from './distribution.js'
import { choose } from './math.js'

/** Generalized Pareto distribution of numbers above `loc`, with `scale` and shape `concentration`; exponential for 0. */
export class GeneralizedPareto extends Distribution {
  declare readonly loc: Tensor
  declare readonly scale: Tensor
  declare readonly concentration: Tensor

  static {
    GeneralizedPareto.define({ hasRsample: true }, { loc: real, scale: positive, concentration: real })
  }

  constructor(loc: Value, scale: Value, concentration: Value, options?: DistributionOptions)
  constructor(named: { loc: Value; scale: Value; concentration: Value } & DistributionOptions)
  constructor(...args: unknown[]) {
    super(...elementwise('GeneralizedPareto', ['loc', 'scale', 'concentration'], args))
  }

  override get support(): Constraint {
    const { loc, scale, concentration } = this
    return interval(loc, choose(concentration.lt(0), loc.sub(scale.div(concentration)), Infinity))
  }

  /** Whether the concentration is far enough from 0 to divide by it, and a safe divisor. */
  private get shape(): [Tensor, Tensor] {
    const k = this.concentration
    const curved = k.abs().gt(1e-8)
    return [curved, choose(curved, k, 1)]
  }

  /** Return the logarithm of the probability of values above `value`. */
  private logSurvival(value: Tensor): Tensor {
    const [curved, k] = this.shape
    const z = value.sub(this.loc).div(this.scale)
    return choose(curved, k.mul(z).log1p().div(k), z).neg()
  }

  /** NaN for a concentration of at least 1. */
  protected override computeMean(): Tensor {
    const k = this.concentration
    const finite = k.lt(1)
    return choose(finite, this.loc.add(this.scale.div(choose(finite, k, 0.5).rsub(1))), Number.NaN)
  }

  protected override computeMode(): Tensor {
    return this.loc
  }

  /** NaN for a concentration of at least 0.5. */
  protected override computeVariance(): Tensor {
    const finite = this.concentration.lt(0.5)
    const k = choose(finite, this.concentration, 0.25)
    return choose(finite, this.scale.square().div(k.rsub(1).square().mul(k.mul(-2).add(1))), Number.NaN)
  }

  protected override computeRsample(shape: number[]): Tensor {
    return this.computeIcdf(rand(shape, this.factory))
  }

  protected override computeLogProb(value: Tensor): Tensor {
    // The density is the survival to the power of 1 + k, divided by the scale.
    return this.logSurvival(value).mul(this.concentration.add(1)).sub(this.scale.log())
  }

  protected override computeCdf(value: Tensor): Tensor {
    return this.logSurvival(value).expm1().neg()
  }

  protected override computeIcdf(value: Tensor): Tensor {
    const [curved, k] = this.shape
    const log = value.neg().log1p()
    return this.loc.add(this.scale.mul(choose(curved, k.neg().mul(log).expm1().div(k), log.neg())))
  }

  protected override computeEntropy(): Tensor {
    return this.scale.log().add(this.concentration).add(1)
  }
}
