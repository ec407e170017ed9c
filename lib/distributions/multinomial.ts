import { argumentError } from '../base/check.js'
import { ops, type Tensor, zeros } from '../tensor/index.js'
import type { DistributionOptions } from './arguments.js'
import { Binomial } from './binomial.js'
import { Categorical, drawClasses } from './categorical.js'
import { type Constraint, multinomial } from './constraints.js'
import { choose } from './math.js'
import { Classes, classArguments, type ProbsOrLogits } from './probs-or-logits.js'

/** Multinomial distribution: how often each of k classes occurs among `totalCount` draws (default 1). Samples are [..., k]. */
export class Multinomial extends Classes {
  /** Number of draws. */
  readonly totalCount: number

  constructor(totalCount: number, probs: Tensor, options?: DistributionOptions)
  constructor(totalCount: number, probs: null, logits: Tensor, options?: DistributionOptions)
  constructor(totalCount: number, named: ProbsOrLogits<Tensor> & DistributionOptions)
  constructor(named: { totalCount?: number } & ProbsOrLogits<Tensor> & DistributionOptions)
  constructor(...args: unknown[]) {
    const { batchShape, classes, setup, found } = classArguments('Multinomial', args, ['totalCount'])
    const { totalCount = 1 } = found
    if (!Number.isSafeInteger(totalCount) || (totalCount as number) < 0) {
      throw argumentError(
        'Multinomial',
        'totalCount',
        'an integer of at least 0, the same for the whole batch',
        totalCount,
      )
    }
    super(batchShape, [classes], setup)
    this.totalCount = totalCount as number
  }

  override get support(): Constraint {
    return multinomial(this.totalCount)
  }

  protected override computeMean(): Tensor {
    return this.probs.mul(this.totalCount)
  }

  protected override computeVariance(): Tensor {
    const { probs } = this
    return probs.mul(probs.rsub(1)).mul(this.totalCount)
  }

  protected override computeSample(shape: number[]): Tensor {
    const draws = drawClasses(this.probs, [this.totalCount, ...shape.slice(0, -1)])
    const last = draws.movedim(0, -1)
    const options = { dtype: 'int64', device: draws.device } as const
    const counts = zeros(shape, options).scatterAdd(-1, last, ops.onesLike(last))
    return counts.to(this.factory.dtype)
  }

  protected override computeLogProb(value: Tensor): Tensor {
    const { logits } = this
    const impossible = logits.eq(-Infinity).logicalAnd(value.eq(0))
    const powers = choose(impossible.logicalNot(), logits, 0).mul(value).sum(-1)
    return value.sum(-1).add(1).lgamma().sub(value.add(1).lgamma().sum(-1)).add(powers)
  }

  protected override computeEntropy(): Tensor {
    const n = this.totalCount
    const draws = new Categorical({ logits: this.logits, validateArgs: false }).entropy().mul(n)
    const counts = new Binomial(n, { probs: this.probs, validateArgs: false })
    // A class that occurs 0 or 1 times contributes log(1) = 0.
    const values = counts.enumerateSupport(false).narrow(0, Math.min(1, n), n)
    const expected = counts.logProb(values).exp().mul(values.add(1).lgamma()).sum([0, -1])
    return draws.sub(this.filled(n + 1).lgamma()).add(expected)
  }
}
