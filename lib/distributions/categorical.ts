import { arange, ops, type Tensor } from '../tensor/index.js'
import type { DistributionOptions } from './arguments.js'
import { type Constraint, integerInterval } from './constraints.js'
import { floatLimits } from './math.js'
import { Classes, classArguments, type ProbsOrLogits } from './probs-or-logits.js'

/** Draw classes by `probs` [..., k], which the batch shape precedes: int64 [...shape]. */
export function drawClasses(probs: Tensor, shape: number[]): Tensor {
  const rows = probs.reshape([-1, probs.size(-1)])
  const batch = rows.size(0)
  const count = shape.reduce((product, size) => product * size, 1) / Math.max(batch, 1)
  return ops.multinomial(rows, count, true).T.reshape(shape)
}

/**
 * Categorical distribution over the classes 0 to k - 1, with `probs` or unnormalized log-probabilities `logits` [..., k].
 * Samples are int64.
 */
export class Categorical extends Classes {
  constructor(probs: Tensor, options?: DistributionOptions)
  constructor(probs: null, logits: Tensor, options?: DistributionOptions)
  constructor(named: ProbsOrLogits<Tensor> & DistributionOptions)
  constructor(...args: unknown[]) {
    const { batchShape, setup } = classArguments('Categorical', args)
    super(batchShape, [], setup)
  }

  override get hasEnumerateSupport(): boolean {
    return true
  }

  override get support(): Constraint {
    return integerInterval(0, this.classes - 1)
  }

  /** NaN: classes have no order. */
  protected override computeMean(): Tensor {
    return this.filled(Number.NaN)
  }

  protected override computeMode(): Tensor {
    return this.probs.argmax(-1)
  }

  protected override computeVariance(): Tensor {
    return this.filled(Number.NaN)
  }

  protected override computeSample(shape: number[]): Tensor {
    return drawClasses(this.probs, shape)
  }

  protected override computeLogProb(value: Tensor): Tensor {
    const { logits } = this
    const [classes, all] = ops.broadcastTensors([value.long().unsqueeze(-1), logits]) as [Tensor, Tensor]
    return all.gather(-1, classes.narrow(-1, 0, 1)).squeeze(-1)
  }

  protected override computeEntropy(): Tensor {
    const { logits } = this
    // Classes of probability 0 contribute 0, not 0 · -∞.
    return logits.clamp(-floatLimits(logits.dtype).max).mul(this.probs).sum(-1).neg()
  }

  protected override computeSupport(): Tensor {
    const device = (this.factory as { device?: Tensor['device'] }).device
    return arange(0, this.classes, { dtype: 'int64', device })
  }
}
