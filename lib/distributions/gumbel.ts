import { rand, type Tensor } from '../tensor/index.js'
import type { DistributionOptions, Value } from './arguments.js'
import { LocationScale } from './location-scale.js'
import { EULER, floatLimits } from './math.js'

/** Gumbel distribution with mode `loc`: that of the maximum of many samples of an exponential tail. */
export class Gumbel extends LocationScale {
  constructor(loc: Value, scale: Value, options?: DistributionOptions)
  constructor(named: { loc: Value; scale: Value } & DistributionOptions)
  constructor(...args: unknown[]) {
    super('Gumbel', args)
  }

  protected override computeMean(): Tensor {
    return this.scale.mul(EULER).add(this.loc)
  }

  protected override computeVariance(): Tensor {
    return this.stddev.square()
  }

  protected override computeStddev(): Tensor {
    return this.scale.mul(Math.PI / Math.sqrt(6))
  }

  protected override computeRsample(shape: number[]): Tensor {
    const { tiny, eps } = floatLimits(this.factory.dtype)
    // As PyTorch's, from a uniform number within [tiny, 1 - eps), so that both logarithms are finite.
    return this.computeIcdf(
      rand(shape, this.factory)
        .mul(1 - eps - tiny)
        .add(tiny),
    )
  }

  protected override computeLogProb(value: Tensor): Tensor {
    const z = this.standardized(value).neg()
    return z.sub(z.exp()).sub(this.scale.log())
  }

  protected override computeCdf(value: Tensor): Tensor {
    return this.standardized(value).neg().exp().neg().exp()
  }

  protected override computeIcdf(value: Tensor): Tensor {
    return this.loc.sub(this.scale.mul(value.log().neg().log()))
  }

  protected override computeEntropy(): Tensor {
    return this.scale.log().add(1 + EULER)
  }
}
