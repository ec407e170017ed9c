import { argumentError } from '../base/check.js'
import type { Tensor } from '../tensor/index.js'
import { type DistributionOptions, namedArguments } from './arguments.js'
import { type Constraint, independent } from './constraints.js'
import { Distribution } from './distribution.js'
import { sumLast } from './math.js'

/** Check that an argument is a distribution. */
export function requireDistribution(where: string, name: string, value: unknown): Distribution {
  if (value instanceof Distribution) return value
  throw argumentError(where, name, 'a distribution', value)
}

/**
 * A distribution whose last `reinterpretedBatchNdims` batch dimensions count as dimensions of the event: `logProb` and `entropy`
 * are summed over them. A normal distribution with a diagonal covariance is `new Independent(new Normal(loc, scale), 1)`.
 */
export class Independent<D extends Distribution = Distribution> extends Distribution {
  readonly baseDist: D
  readonly reinterpretedBatchNdims: number

  constructor(baseDistribution: D, reinterpretedBatchNdims: number, options?: DistributionOptions)
  constructor(named: { baseDistribution: D; reinterpretedBatchNdims: number } & DistributionOptions)
  constructor(...args: unknown[]) {
    const names = ['baseDistribution', 'reinterpretedBatchNdims']
    const { validateArgs, ...found } = namedArguments('Independent', names, args)
    const base = requireDistribution('Independent', 'baseDistribution', found.baseDistribution)
    const dims = found.reinterpretedBatchNdims as number
    const { batchShape } = base
    if (!Number.isSafeInteger(dims) || dims < 0 || dims > batchShape.length) {
      throw argumentError(
        'Independent',
        'reinterpretedBatchNdims',
        `an integer from 0 to ${batchShape.length}, the batch dimensions of ${base}`,
        dims,
      )
    }
    const kept = batchShape.length - dims
    super(batchShape.slice(0, kept), [...batchShape.slice(kept), ...base.eventShape], { validateArgs })
    this.baseDist = base as D
    this.reinterpretedBatchNdims = dims
  }

  override get hasRsample(): boolean {
    return this.baseDist.hasRsample
  }

  override get hasEnumerateSupport(): boolean {
    return this.reinterpretedBatchNdims === 0 && this.baseDist.hasEnumerateSupport
  }

  override get support(): Constraint {
    return independent(this.baseDist.support, this.reinterpretedBatchNdims)
  }

  override expand(batchShape: readonly number[]): this {
    const { batchShape: wanted } = super.expand(batchShape)
    const base = this.baseDist.expand([...wanted, ...this.eventShape.slice(0, this.reinterpretedBatchNdims)])
    return this.copyWith({ batchShape: wanted, baseDist: base })
  }

  override toString(): string {
    return `Independent(${this.baseDist}, ${this.reinterpretedBatchNdims})`
  }

  /** @internal */
  override get factory() {
    return this.baseDist.factory
  }

  protected override computeMean(): Tensor {
    return this.baseDist.mean
  }

  protected override computeMode(): Tensor {
    return this.baseDist.mode
  }

  protected override computeVariance(): Tensor {
    return this.baseDist.variance
  }

  protected override computeSample(shape: number[]): Tensor {
    return this.baseDist.sample(this.sampleShapeOf(shape))
  }

  protected override computeRsample(shape: number[]): Tensor {
    return this.baseDist.rsample(this.sampleShapeOf(shape))
  }

  protected override computeLogProb(value: Tensor): Tensor {
    return sumLast(this.baseDist.logProb(value), this.reinterpretedBatchNdims)
  }

  protected override computeEntropy(): Tensor {
    return sumLast(this.baseDist.entropy(), this.reinterpretedBatchNdims)
  }

  protected override computeSupport(): Tensor {
    if (this.reinterpretedBatchNdims > 0) throw this.missing('enumerateSupport')
    return this.baseDist.enumerateSupport(false)
  }
}
