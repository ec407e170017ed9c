import { rand, type Tensor } from '../tensor/index.js'
import { type DistributionOptions, elementwise, type Value } from './arguments.js'
import { greaterThan, interval, lessThan } from './constraints.js'
import { Distribution } from './distribution.js'

/** Uniform distribution over [low, high). */
export class Uniform extends Distribution {
  constructor(low: Value, high: Value, options?: DistributionOptions)
  constructor(named: { low: Value; high: Value } & DistributionOptions)
  constructor(...args: unknown[]) {
    super(...elementwise('Uniform', ['low', 'high'], args))
  }

  get low(): Tensor {
    return this.parameter('low')
  }

  get high(): Tensor {
    return this.parameter('high')
  }

  override get hasRsample(): boolean {
    return true
  }

  override get argConstraints() {
    return { low: lessThan(this.high), high: greaterThan(this.low) }
  }

  override get support() {
    return interval(this.low, this.high)
  }

  private get width(): Tensor {
    return this.high.sub(this.low)
  }

  protected override computeMean(): Tensor {
    return this.high.add(this.low).div(2)
  }

  /** NaN: every value is as likely. */
  protected override computeMode(): Tensor {
    return this.filled(Number.NaN)
  }

  protected override computeVariance(): Tensor {
    return this.width.square().div(12)
  }

  protected override computeStddev(): Tensor {
    return this.width.div(Math.sqrt(12))
  }

  protected override computeRsample(shape: number[]): Tensor {
    return rand(shape, this.factory).mul(this.width).add(this.low)
  }

  protected override computeLogProb(value: Tensor): Tensor {
    const inside = value.ge(this.low).logicalAnd(value.lt(this.high))
    return inside.to(this.factory.dtype).log().sub(this.width.log())
  }

  protected override computeCdf(value: Tensor): Tensor {
    return value.sub(this.low).div(this.width).clamp(0, 1)
  }

  protected override computeIcdf(value: Tensor): Tensor {
    return value.mul(this.width).add(this.low)
  }

  protected override computeEntropy(): Tensor {
    return this.width.log()
  }
}
