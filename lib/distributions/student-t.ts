import { randn, type Tensor } from '../tensor/index.js'
import { type DistributionOptions, elementwise, type Value } from './arguments.js'
import { positive, real } from './constraints.js'
import { Distribution } from './distribution.js'
import { Chi2 } from './gamma.js'
import { choose } from './math.js'

/** Student's t-distribution with `df` degrees of freedom, moved by `loc` (default 0) and stretched by `scale` (default 1). */
export class StudentT extends Distribution {
  declare readonly df: Tensor
  declare readonly loc: Tensor
  declare readonly scale: Tensor

  static {
    StudentT.define({ support: real, hasRsample: true }, { df: positive, loc: real, scale: positive })
  }

  constructor(df: Value, loc?: Value, scale?: Value, options?: DistributionOptions)
  constructor(df: Value, options?: { loc?: Value; scale?: Value } & DistributionOptions)
  constructor(named: { df: Value; loc?: Value; scale?: Value } & DistributionOptions)
  constructor(...args: unknown[]) {
    super(...elementwise('StudentT', ['df', 'loc', 'scale'], args, { loc: 0, scale: 1 }))
  }

  /** NaN for at most 1 degree of freedom. */
  protected override computeMean(): Tensor {
    return choose(this.df.gt(1), this.loc, Number.NaN)
  }

  protected override computeMode(): Tensor {
    return this.loc
  }

  /** Infinite for at most 2 degrees of freedom, NaN for at most 1. */
  protected override computeVariance(): Tensor {
    const { df } = this
    const finite = df.gt(2)
    // A safe divisor where the variance is infinite keeps its gradient finite.
    const variance = this.scale
      .square()
      .mul(df)
      .div(choose(finite, df.sub(2), 1))
    return choose(finite, variance, choose(df.gt(1), this.filled(Infinity), Number.NaN))
  }

  protected override computeRsample(shape: number[]): Tensor {
    const { df } = this
    const normal = randn(shape, this.factory)
    const sampleShape = this.sampleShapeOf(shape)
    const chi2 = new Chi2(df, { validateArgs: false }).rsample(sampleShape)
    return normal.mul(chi2.div(df).rsqrt()).mul(this.scale).add(this.loc)
  }

  /** Return the logarithm of the beta function of df/2 and 1/2. */
  private logBeta(): Tensor {
    const half = this.df.mul(0.5)
    return half
      .lgamma()
      .add(0.5 * Math.log(Math.PI))
      .sub(half.add(0.5).lgamma())
  }

  protected override computeLogProb(value: Tensor): Tensor {
    const { df, scale } = this
    const z = value.sub(this.loc).div(scale)
    const normalizer = scale.log().add(df.log().mul(0.5)).add(this.logBeta())
    return df.add(1).mul(-0.5).mul(z.square().div(df).log1p()).sub(normalizer)
  }

  protected override computeEntropy(): Tensor {
    const { df } = this
    const upper = df.add(1).mul(0.5)
    const difference = upper.digamma().sub(df.mul(0.5).digamma())
    return this.scale.log().add(upper.mul(difference)).add(df.log().mul(0.5)).add(this.logBeta())
  }
}
