import { rand, type Tensor, zeros } from '../tensor/index.js'
import { type DistributionOptions, elementwise, type Value } from './arguments.js'
import { positive, real } from './constraints.js'
import { Distribution } from './distribution.js'
import { choose } from './math.js'

/** Von Mises distribution over angles in [-π, π): a circular normal distribution around `loc`, in radians. */
export class VonMises extends Distribution {
  declare readonly loc: Tensor
  declare readonly concentration: Tensor

  static {
    VonMises.define({ support: real }, { loc: real, concentration: positive })
  }

  constructor(loc: Value, concentration: Value, options?: DistributionOptions)
  constructor(named: { loc: Value; concentration: Value } & DistributionOptions)
  constructor(...args: unknown[]) {
    super(...elementwise('VonMises', ['loc', 'concentration'], args))
  }

  protected override computeMean(): Tensor {
    return this.loc
  }

  protected override computeMode(): Tensor {
    return this.loc
  }

  /** Circular variance. */
  protected override computeVariance(): Tensor {
    const k = this.concentration
    return k.specialI1e().div(k.specialI0e()).rsub(1)
  }

  /** Draw by rejection from a wrapped Cauchy distribution (Best and Fisher 1979), in float64. */
  protected override computeSample(shape: number[]): Tensor {
    const [loc, k] = [this.loc.double(), this.concentration.double()]
    const tau = k.square().mul(4).add(1).sqrt().add(1)
    const rho = tau.sub(tau.mul(2).sqrt()).div(k.mul(2))
    const r = choose(k.lt(1e-5), k.reciprocal().add(k), rho.square().add(1).div(rho.mul(2)))
    const { device } = loc
    let angle = zeros(shape, { dtype: 'float64', device })
    let done = zeros(shape, { dtype: 'bool', device })
    while (!done.all().item<boolean>()) {
      const [u1, u2, u3] = rand([3, ...shape], { dtype: 'float64', device }).unbind() as [Tensor, Tensor, Tensor]
      const z = u1.mul(Math.PI).cos()
      const f = r.mul(z).add(1).div(r.add(z))
      const c = k.mul(r.sub(f))
      const accepted = c.mul(c.rsub(2)).sub(u2).gt(0).logicalOr(c.div(u2).log().add(1).sub(c).ge(0))
      angle = choose(accepted, u3.sub(0.5).sign().mul(f.acos()), angle)
      done = done.logicalOr(accepted)
    }
    const turned = angle
      .add(Math.PI)
      .add(loc)
      .remainder(2 * Math.PI)
      .sub(Math.PI)
    return turned.to(this.factory.dtype)
  }

  protected override computeLogProb(value: Tensor): Tensor {
    const k = this.concentration
    const logBessel = k.specialI0e().log().add(k)
    return k
      .mul(value.sub(this.loc).cos())
      .sub(Math.log(2 * Math.PI))
      .sub(logBessel)
  }
}
