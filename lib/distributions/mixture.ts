import { argumentError } from '../base/check.js'
import { ShapeError } from '../base/errors.js'
import { scope, type Tensor } from '../tensor/index.js'
import { broadcastShapes, type DistributionOptions, namedArguments } from './arguments.js'
import { Categorical } from './categorical.js'
import type { Constraint } from './constraints.js'
import { Distribution } from './distribution.js'
import { requireDistribution } from './independent.js'

/**
 * Mixture of k distributions of one family: a component is drawn by `mixtureDistribution`, a {@link Categorical} over k, and a
 * sample from it. The last batch dimension of `componentDistribution` is k.
 */
export class MixtureSameFamily<D extends Distribution = Distribution> extends Distribution {
  readonly mixtureDistribution: Categorical
  readonly componentDistribution: D

  constructor(mixtureDistribution: Categorical, componentDistribution: D, options?: DistributionOptions)
  constructor(named: { mixtureDistribution: Categorical; componentDistribution: D } & DistributionOptions)
  constructor(...args: unknown[]) {
    const where = 'MixtureSameFamily'
    const { validateArgs, ...found } = namedArguments(where, ['mixtureDistribution', 'componentDistribution'], args)
    const mixture = found.mixtureDistribution
    if (!(mixture instanceof Categorical)) throw argumentError(where, 'mixtureDistribution', 'a Categorical', mixture)
    const component = requireDistribution(where, 'componentDistribution', found.componentDistribution)
    const batchShape = component.batchShape.slice(0, -1)
    const [count, own] = [scope(() => mixture.probs.size(-1)), component.batchShape.at(-1)]
    if (count !== own) {
      throw new ShapeError(
        `${where}: expected the last batch dimension of componentDistribution to be the ${count} classes of ` +
          `mixtureDistribution, got batch shape [${component.batchShape}]`,
        { shape: component.batchShape, expected: count },
      )
    }
    const whole = broadcastShapes(where, {
      'the batch of mixtureDistribution': mixture.batchShape,
      'the batch of componentDistribution without its last dimension': batchShape,
    })
    super(whole, component.eventShape, { validateArgs })
    this.mixtureDistribution = mixture
    const wanted = [...whole, count]
    this.componentDistribution = (
      whole.length === batchShape.length && whole.every((size, i) => size === batchShape[i])
        ? component
        : component.expand(wanted)
    ) as D
  }

  override get support(): Constraint {
    const { support } = this.componentDistribution
    return {
      ...support,
      // A support that depends on the component, such as [low, high], has one dimension more than the value.
      check: (value) => support.check(this.padded(value)).all(-1),
    }
  }

  override expand(batchShape: readonly number[]): this {
    const { batchShape: wanted } = super.expand(batchShape)
    const count = this.componentDistribution.batchShape.at(-1)!
    return this.copyWith({
      batchShape: wanted,
      mixtureDistribution: this.mixtureDistribution.expand(wanted),
      componentDistribution: this.componentDistribution.expand([...wanted, count]),
    })
  }

  override toString(): string {
    return `MixtureSameFamily(${this.mixtureDistribution}, ${this.componentDistribution})`
  }

  /** @internal */
  override get factory() {
    return this.componentDistribution.factory
  }

  /** Return a value with a dimension for the components before those of the event. */
  private padded(value: Tensor): Tensor {
    return value.unsqueeze(-1 - this.eventShape.length)
  }

  /** Return the average over components of values [...batchShape, k, ...eventShape]. */
  private averaged(value: Tensor): Tensor {
    const { probs } = this.mixtureDistribution
    const weights = probs.reshape([...probs.shape, ...this.eventShape.map(() => 1)])
    return weights.mul(value).sum(-1 - this.eventShape.length)
  }

  protected override computeMean(): Tensor {
    return this.averaged(this.componentDistribution.mean)
  }

  protected override computeVariance(): Tensor {
    const { mean, variance } = this.componentDistribution
    return this.averaged(variance).add(this.averaged(mean.sub(this.padded(this.averaged(mean))).square()))
  }

  protected override computeSample(shape: number[]): Tensor {
    const sampleShape = this.sampleShapeOf(shape)
    const whole = this.mixtureDistribution.expand(this.batchShape)
    const chosen = whole.sample(sampleShape)
    const samples = this.componentDistribution.sample(sampleShape)
    const dim = chosen.ndim
    const index = chosen.reshape([...chosen.shape, 1, ...this.eventShape.map(() => 1)])
    return samples.gather(dim, index.expand([...chosen.shape, 1, ...this.eventShape])).squeeze(dim)
  }

  protected override computeLogProb(value: Tensor): Tensor {
    const logProb = this.componentDistribution.logProb(this.padded(value))
    return logProb.add(this.mixtureDistribution.logits).logsumexp(-1)
  }

  protected override computeCdf(value: Tensor): Tensor {
    return this.componentDistribution.cdf(this.padded(value)).mul(this.mixtureDistribution.probs).sum(-1)
  }
}
