import { argumentError } from '../base/check.js'
import { arange, ops, randn, type Tensor } from '../tensor/index.js'
import { broadcastShapes, type DistributionOptions, namedArguments, requireValue, type Value } from './arguments.js'
import { Beta } from './beta.js'
import { corrCholesky, positive } from './constraints.js'
import { Distribution } from './distribution.js'
import { floatLimits } from './math.js'

/**
 * LKJ distribution over the Cholesky factors of correlation matrices [dim, dim] (Lewandowski, Kurowicka and Joe 2009). A
 * `concentration` of 1 (default) makes all correlation matrices as likely, a larger one those near the identity.
 */
export class LKJCholesky extends Distribution {
  declare readonly concentration: Tensor

  static {
    LKJCholesky.define({ support: corrCholesky }, { concentration: positive })
  }

  constructor(dim: number, concentration?: Value, options?: DistributionOptions)
  constructor(dim: number, options?: { concentration?: Value } & DistributionOptions)
  constructor(named: { dim: number; concentration?: Value } & DistributionOptions)
  constructor(...args: unknown[]) {
    const where = 'LKJCholesky'
    const { validateArgs, ...found } = namedArguments(where, ['dim', 'concentration'], args)
    const dim = found.dim as number
    if (!Number.isSafeInteger(dim) || dim < 2) throw argumentError(where, 'dim', 'an integer of at least 2', dim)
    const concentration = requireValue(where, 'concentration', found.concentration ?? 1)
    const shapes: Record<string, number[]> =
      typeof concentration === 'number' ? {} : { concentration: concentration.shape }
    super(broadcastShapes(where, shapes), [dim, dim], {
      validateArgs,
      parameters: { concentration },
    } as DistributionOptions)
  }

  /** Number of rows. */
  get dim(): number {
    return this.eventShape[0]!
  }

  /** Draw the squared length of each row's part left of the diagonal, and its direction on the sphere. */
  protected override computeSample(shape: number[]): Tensor {
    const { dim, factory } = this
    const row = arange(0, dim, factory).sub(1).clamp(0)
    const rest = this.concentration
      .add(0.5 * (dim - 2))
      .unsqueeze(-1)
      .sub(row.mul(0.5))
    const lengths = new Beta(row.add(0.5), rest, { validateArgs: false })
      .sample(this.sampleShapeOf(shape))
      .unsqueeze(-1)
    const noise = randn(shape, factory).tril(-1)
    const norm = ops.linalgVectorNorm(noise, 2, [-1], true)
    // The first row has nothing left of the diagonal.
    const left = lengths.sqrt().mul(noise.div(norm.where(norm.gt(0), 1)))
    const diagonal = left.square().sum(-1).rsub(1).clamp(floatLimits(factory.dtype).tiny).sqrt()
    return left.add(diagonal.diagEmbed())
  }

  protected override computeLogProb(value: Tensor): Tensor {
    const { dim, concentration, factory } = this
    const count = dim - 1
    const order = concentration
      .sub(1)
      .mul(2)
      .unsqueeze(-1)
      .add(arange(count - 1, -1, -1, factory))
    const density = order.mul(value.diagonal(0, -2, -1).narrow(-1, 1, count).log()).sum(-1)
    const alpha = concentration.add(0.5 * count)
    const normalizer = alpha.sub(0.5).mvlgamma(count).sub(alpha.lgamma().mul(count))
    return density.sub(normalizer).sub(0.5 * count * Math.log(Math.PI))
  }
}
