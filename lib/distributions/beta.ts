import { scope, stack, type Tensor } from '../tensor/index.js'
import { type DistributionOptions, elementwise, type Value } from './arguments.js'
import { positive, unitInterval } from './constraints.js'
import { Dirichlet, drawDirichlet } from './dirichlet.js'
import { ExponentialFamily } from './exponential-family.js'

/** Beta distribution over [0, 1]; its mean is concentration1 / (concentration1 + concentration0). */
export class Beta extends ExponentialFamily {
  declare readonly concentration1: Tensor
  declare readonly concentration0: Tensor

  static {
    Beta.define({ support: unitInterval, hasRsample: true }, { concentration1: positive, concentration0: positive })
  }

  constructor(concentration1: Value, concentration0: Value, options?: DistributionOptions)
  constructor(named: { concentration1: Value; concentration0: Value } & DistributionOptions)
  constructor(...args: unknown[]) {
    super(...elementwise('Beta', ['concentration1', 'concentration0'], args))
  }

  private get concentrations(): Tensor {
    return stack([this.concentration1, this.concentration0], -1)
  }

  /** The Dirichlet distribution of [x, 1 - x]. */
  private get dirichlet(): Dirichlet {
    return new Dirichlet(this.concentrations, { validateArgs: false })
  }

  protected override computeMean(): Tensor {
    return this.concentration1.div(this.concentration1.add(this.concentration0))
  }

  protected override computeMode(): Tensor {
    return this.dirichlet.mode.select(-1, 0)
  }

  protected override computeVariance(): Tensor {
    const [a, b] = [this.concentration1, this.concentration0]
    const total = a.add(b)
    return a.mul(b).div(total.square().mul(total.add(1)))
  }

  protected override computeRsample(shape: number[]): Tensor {
    return drawDirichlet(this.concentrations.expand([...shape, 2])).select(-1, 0)
  }

  protected override computeLogProb(value: Tensor): Tensor {
    return this.dirichlet.logProb(stack([value, value.rsub(1)], -1))
  }

  protected override computeEntropy(): Tensor {
    return this.dirichlet.entropy()
  }

  /** Expectation of -log(x) - log(1 - x). */
  override get meanCarrierMeasure(): Tensor {
    return scope(() => {
      const [a, b] = [this.concentration1, this.concentration0]
      return a.add(b).digamma().mul(2).sub(a.digamma()).sub(b.digamma())
    })
  }

  protected override computeNaturalParams(): Tensor[] {
    return [this.concentration1, this.concentration0]
  }

  protected override computeLogNormalizer(a: Tensor, b: Tensor): Tensor {
    return a.lgamma().add(b.lgamma()).sub(a.add(b).lgamma())
  }
}
