import { argumentError } from '../base/check.js'
import { ShapeError } from '../base/errors.js'
import { scope, type Tensor } from '../tensor/index.js'
import { type DistributionOptions, namedArguments, type Value } from './arguments.js'
import { type Constraint, independent } from './constraints.js'
import { Distribution } from './distribution.js'
import { Independent, requireDistribution } from './independent.js'
import { sumLast } from './math.js'
import { Normal } from './normal.js'
import { ComposeTransform, StickBreakingTransform, Transform } from './transforms.js'

/** Distribution of f(x) for x from `baseDistribution` and f the `transforms`, one after the other. */
export class TransformedDistribution<D extends Distribution = Distribution> extends Distribution {
  readonly baseDist: Distribution
  readonly transforms: readonly Transform[]

  constructor(baseDistribution: D, transforms: Transform | readonly Transform[], options?: DistributionOptions)
  constructor(named: { baseDistribution: D; transforms: Transform | readonly Transform[] } & DistributionOptions)
  constructor(...args: unknown[]) {
    const where = 'TransformedDistribution'
    const { validateArgs, ...found } = namedArguments(where, ['baseDistribution', 'transforms'], args)
    const given = requireDistribution(where, 'baseDistribution', found.baseDistribution)
    const list = found.transforms instanceof Transform ? [found.transforms] : found.transforms
    if (!Array.isArray(list) || !list.every((part) => part instanceof Transform))
      throw argumentError(where, 'transforms', 'a transform or a list of transforms', found.transforms)
    const transform = new ComposeTransform(list)
    const shape = [...given.batchShape, ...given.eventShape]
    const [input, output] = [transform.domain.eventDim, transform.codomain.eventDim]
    if (shape.length < input) {
      throw new ShapeError(
        `${where}: expected a base distribution of at least ${input} dimensions for ${transform}, got shape [${shape}]`,
        { shape, expected: input },
      )
    }
    const whole = transform.forwardShape(shape)
    const needed = transform.inverseShape(whole)
    const own = given.eventShape.length
    let base = given
    if (needed.some((size, i) => size !== shape[i]) || needed.length !== shape.length)
      base = base.expand(needed.slice(0, needed.length - own))
    if (input > own) base = new Independent(base, input - own, { validateArgs })
    const eventDims = Math.max(output, own + output - input)
    const cut = whole.length - eventDims
    super(whole.slice(0, cut), whole.slice(cut), { validateArgs })
    this.baseDist = base
    this.transforms = list
  }

  override get hasRsample(): boolean {
    return this.baseDist.hasRsample
  }

  override get support(): Constraint {
    const last = this.transforms.at(-1)
    if (last === undefined) return this.baseDist.support
    const { codomain } = last
    return independent(codomain, Math.max(0, this.eventShape.length - codomain.eventDim))
  }

  override expand(batchShape: readonly number[]): this {
    const { batchShape: wanted } = super.expand(batchShape)
    const shape = new ComposeTransform(this.transforms).inverseShape([...wanted, ...this.eventShape])
    const base = this.baseDist.expand(shape.slice(0, shape.length - this.baseDist.eventShape.length))
    return this.copyWith({ batchShape: wanted, baseDist: base })
  }

  override toString(): string {
    return `${this.name}(${this.baseDist}, ${this.transforms.join(', ')})`
  }

  /** @internal */
  override get factory() {
    return this.baseDist.factory
  }

  protected override computeSample(shape: number[]): Tensor {
    return this.transformed(this.baseDist.sample(this.sampleShapeOf(shape)))
  }

  protected override computeRsample(shape: number[]): Tensor {
    return this.transformed(this.baseDist.rsample(this.sampleShapeOf(shape)))
  }

  private transformed(value: Tensor): Tensor {
    return this.transforms.reduce((x, transform) => transform.forward(x), value)
  }

  private inverted(value: Tensor): Tensor {
    return this.transforms.reduceRight((y, transform) => transform.inverse(y), value)
  }

  protected override computeLogProb(value: Tensor): Tensor {
    let dims = this.eventShape.length
    let y = value
    let jacobian: Tensor | undefined
    for (const transform of [...this.transforms].reverse()) {
      const x = transform.inverse(y)
      dims += transform.domain.eventDim - transform.codomain.eventDim
      const term = sumLast(transform.logAbsDetJacobian(x, y), dims - transform.domain.eventDim)
      jacobian = jacobian === undefined ? term : jacobian.add(term)
      y = x
    }
    const density = sumLast(this.baseDist.logProb(y), dims - this.baseDist.eventShape.length)
    return jacobian === undefined ? density : density.sub(jacobian)
  }

  /** Reverse probabilities where the transforms decrease. */
  private monotonic(probability: Tensor): Tensor {
    const sign: Value = new ComposeTransform(this.transforms).sign
    if (sign === 1) return probability
    return probability
      .sub(0.5)
      .mul(sign as Tensor)
      .add(0.5)
  }

  protected override computeCdf(value: Tensor): Tensor {
    return this.monotonic(this.baseDist.cdf(this.inverted(value)))
  }

  protected override computeIcdf(value: Tensor): Tensor {
    return this.transformed(this.baseDist.icdf(this.monotonic(value)))
  }
}

/** Distribution over vectors of n + 1 probabilities: the {@link StickBreakingTransform} of n normal numbers. */
export class LogisticNormal extends TransformedDistribution<Normal> {
  constructor(loc: Value, scale: Value, options?: DistributionOptions)
  constructor(named: { loc: Value; scale: Value } & DistributionOptions)
  constructor(...args: unknown[]) {
    const { validateArgs, ...found } = namedArguments('LogisticNormal', ['loc', 'scale'], args)
    const normal = new Normal(found.loc as Value, found.scale as Value, { validateArgs })
    super(normal.batchShape.length === 0 ? normal.expand([1]) : normal, new StickBreakingTransform(), { validateArgs })
  }

  /** The normal distribution before the transform. */
  private get normal(): Normal {
    return (this.baseDist as Independent<Normal>).baseDist
  }

  get loc(): Tensor {
    return scope(() => this.normal.loc)
  }

  get scale(): Tensor {
    return scope(() => this.normal.scale)
  }
}
