import { empty, type Tensor } from '../tensor/index.js'
import type { DistributionOptions, Value } from './arguments.js'
import { LocationScale } from './location-scale.js'
import { floatLimits } from './math.js'

/** Laplace distribution: exponential on both sides of `loc`, with mean distance `scale`. */
export class Laplace extends LocationScale {
  constructor(loc: Value, scale: Value, options?: DistributionOptions)
  constructor(named: { loc: Value; scale: Value } & DistributionOptions)
  constructor(...args: unknown[]) {
    super('Laplace', args)
  }

  protected override computeMean(): Tensor {
    return this.loc
  }

  protected override computeVariance(): Tensor {
    return this.scale.square().mul(2)
  }

  protected override computeStddev(): Tensor {
    return this.scale.mul(Math.SQRT2)
  }

  protected override computeRsample(shape: number[]): Tensor {
    const u = empty(shape, this.factory).uniform_(floatLimits(this.factory.dtype).eps - 1, 1)
    return this.loc.sub(this.scale.mul(u.sign()).mul(u.abs().neg().log1p()))
  }

  protected override computeLogProb(value: Tensor): Tensor {
    return this.standardized(value).abs().neg().sub(this.scale.mul(2).log())
  }

  protected override computeCdf(value: Tensor): Tensor {
    const z = this.standardized(value)
    return z.sign().mul(z.abs().neg().expm1()).mul(-0.5).add(0.5)
  }

  protected override computeIcdf(value: Tensor): Tensor {
    const side = value.sub(0.5)
    return this.loc.sub(this.scale.mul(side.sign()).mul(side.abs().mul(-2).log1p()))
  }

  protected override computeEntropy(): Tensor {
    return this.scale.mul(2).log().add(1)
  }
}
