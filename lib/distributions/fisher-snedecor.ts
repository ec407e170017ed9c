import type { Tensor } from '../tensor/index.js'
import { type DistributionOptions, elementwise, type Value } from './arguments.js'
import { positive } from './constraints.js'
import { Distribution } from './distribution.js'
import { Gamma } from './gamma.js'
import { choose, floatLimits } from './math.js'

/** F-distribution (Fisher–Snedecor) with `df1` and `df2` degrees of freedom. */
export class FisherSnedecor extends Distribution {
  declare readonly df1: Tensor
  declare readonly df2: Tensor

  static {
    FisherSnedecor.define({ support: positive, hasRsample: true }, { df1: positive, df2: positive })
  }

  constructor(df1: Value, df2: Value, options?: DistributionOptions)
  constructor(named: { df1: Value; df2: Value } & DistributionOptions)
  constructor(...args: unknown[]) {
    super(...elementwise('FisherSnedecor', ['df1', 'df2'], args))
  }

  /** NaN for df2 of at most 2. */
  protected override computeMean(): Tensor {
    const { df2 } = this
    return choose(df2.gt(2), df2.div(df2.sub(2)), Number.NaN)
  }

  /** NaN for df1 of at most 2. */
  protected override computeMode(): Tensor {
    const { df1, df2 } = this
    return choose(df1.gt(2), df1.sub(2).div(df1).mul(df2).div(df2.add(2)), Number.NaN)
  }

  /** NaN for df2 of at most 4. */
  protected override computeVariance(): Tensor {
    const { df1, df2 } = this
    const above = df2.square().mul(2).mul(df1.add(df2).sub(2))
    return choose(df2.gt(4), above.div(df1.mul(df2.sub(2).square()).mul(df2.sub(4))), Number.NaN)
  }

  protected override computeRsample(shape: number[]): Tensor {
    const sampleShape = this.sampleShapeOf(shape)
    const { tiny } = floatLimits(this.factory.dtype)
    const [above, below] = [this.df1, this.df2].map((df) =>
      new Gamma(df.mul(0.5), df, { validateArgs: false }).rsample(sampleShape),
    ) as [Tensor, Tensor]
    return above.div(below.clamp(tiny)).clamp(tiny)
  }

  protected override computeLogProb(value: Tensor): Tensor {
    const [a, b, ratio] = [this.df1.mul(0.5), this.df2.mul(0.5), this.df1.div(this.df2)]
    const total = a.add(b)
    return total
      .lgamma()
      .sub(a.lgamma())
      .sub(b.lgamma())
      .add(a.mul(ratio.log()))
      .add(a.sub(1).mul(value.log()))
      .sub(total.mul(ratio.mul(value).log1p()))
  }
}
