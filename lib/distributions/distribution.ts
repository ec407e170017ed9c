import { argumentError } from '../base/check.js'
import { ConfigError, NotImplementedError, ShapeError } from '../base/errors.js'
import { type DType, full, noGrad, scope, Tensor } from '../tensor/index.js'
import {
  broadcastShapes,
  type DistributionOptions,
  requireShape,
  requireTensor,
  type Setup,
  type Value,
} from './arguments.js'
import type { Constraint } from './constraints.js'

let validateByDefault = true

/**
 * A probability distribution: the base of all others, and of your own.
 *
 * `batchShape` is the shape of independent, differently parameterized distributions, `eventShape` that of one sample of one of
 * them. `sample(shape)` has the shape [...shape, ...batchShape, ...eventShape], and `logProb` of it [...shape, ...batchShape].
 *
 * **Memory**: a distribution holds the tensors that you pass, and owns no other: whatever it computes belongs to the scope of
 * the call. A distribution of numbers, or of a module's parameters, is therefore usable in every scope. One of tensors that a
 * scope frees ends with them, unless you return it from the scope or pass it to `keepAlive`.
 *
 * For a distribution of your own, extend this class and override `logProb`, `sample` and what else you need, or the `compute…`
 * methods, whose arguments are already checked and whose temporaries are freed.
 */
export class Distribution {
  readonly batchShape: readonly number[]
  readonly eventShape: readonly number[]
  /** Whether `logProb` and `cdf` check that their values are in the support. */
  readonly validateArgs: boolean
  protected readonly parameters: Record<string, Value>

  /**
   * @param batchShape shape of the independent distributions
   * @param eventShape shape of one sample
   * @throws ConfigError if a parameter is outside its constraint, unless `validateArgs` is false
   */
  constructor(
    batchShape: readonly number[] = [],
    eventShape: readonly number[] = [],
    options: DistributionOptions = {},
  ) {
    const { validateArgs = validateByDefault, parameters = {} } = options as Setup
    this.batchShape = requireShape(this.name, 'batchShape', batchShape)
    this.eventShape = requireShape(this.name, 'eventShape', eventShape)
    this.validateArgs = validateArgs
    this.parameters = parameters
    if (validateArgs) this.checkParameters()
  }

  /** Set whether distributions check their arguments when `validateArgs` is not passed. The checks cost a few operators a call. */
  static setDefaultValidateArgs(value: boolean): void {
    if (typeof value !== 'boolean')
      throw argumentError('Distribution.setDefaultValidateArgs', 'value', 'a boolean', value)
    validateByDefault = value
  }

  /**
   * Define properties that are the same for all instances of a class, and the constraints of its parameters. A parameter
   * without a getter gets one, which returns its value expanded to the batch shape.
   */
  protected static define(
    properties: Partial<Pick<Distribution, 'support' | 'hasRsample' | 'hasEnumerateSupport'>>,
    argConstraints?: Record<string, Constraint>,
  ): void {
    // biome-ignore lint/complexity/noThisInStatic: the class that the method is called on
    const { prototype } = this
    const getter = (name: string, get: (this: Distribution) => unknown) =>
      Object.defineProperty(prototype, name, { get, configurable: true })
    for (const [name, value] of Object.entries(properties)) getter(name, () => value)
    if (!argConstraints) return
    getter('argConstraints', () => argConstraints)
    for (const name of Object.keys(argConstraints)) {
      if (!(name in prototype))
        getter(name, function () {
          return this.parameter(name)
        })
    }
  }

  /** Whether `rsample` is available: samples through which gradients flow to the parameters. */
  get hasRsample(): boolean {
    return false
  }

  /** Whether `enumerateSupport` is available. */
  get hasEnumerateSupport(): boolean {
    return false
  }

  /** Constraints of the parameters by name. */
  get argConstraints(): Record<string, Constraint> {
    return {}
  }

  /** Constraint of the samples. */
  get support(): Constraint {
    throw this.missing('support')
  }

  /** Expectation, [...batchShape, ...eventShape]. */
  get mean(): Tensor {
    return scope(() => this.computeMean())
  }

  /** Most likely value, [...batchShape, ...eventShape]. */
  get mode(): Tensor {
    return scope(() => this.computeMode())
  }

  /** Variance of each element, [...batchShape, ...eventShape]. */
  get variance(): Tensor {
    return scope(() => this.computeVariance())
  }

  /** Standard deviation of each element, [...batchShape, ...eventShape]. */
  get stddev(): Tensor {
    return scope(() => this.computeStddev())
  }

  /** Draw samples [...shape, ...batchShape, ...eventShape] without gradients. */
  sample(shape: readonly number[] = []): Tensor {
    const extended = this.extendedShape(requireShape(`${this.name}.sample`, 'shape', shape))
    return scope(() => noGrad(() => this.computeSample(extended)))
  }

  /**
   * Draw reparameterized samples [...shape, ...batchShape, ...eventShape]: gradients flow through them to the parameters.
   * @throws NotImplementedError if `hasRsample` is false
   */
  rsample(shape: readonly number[] = []): Tensor {
    if (!this.hasRsample) throw this.missing('rsample')
    const extended = this.extendedShape(requireShape(`${this.name}.rsample`, 'shape', shape))
    return scope(() => this.computeRsample(extended))
  }

  /**
   * Return the logarithm of the probability or probability density of `value`.
   * @param value [..., ...eventShape], broadcast against the batch
   * @returns [..., ...batchShape]
   * @throws ShapeError if the shapes do not broadcast; ConfigError for a value outside the support, unless `validateArgs` is false
   */
  logProb(value: Tensor): Tensor {
    return scope(() => this.computeLogProb(this.checkedValue('logProb', value)))
  }

  /** Return the probability of values of at most `value`; shapes and errors as in {@link logProb}. */
  cdf(value: Tensor): Tensor {
    return scope(() => this.computeCdf(this.checkedValue('cdf', value)))
  }

  /** Return the value below which a sample lies with probability `value`, the inverse of {@link cdf}. */
  icdf(value: Tensor): Tensor {
    return scope(() => this.computeIcdf(requireTensor(`${this.name}.icdf`, 'value', value)))
  }

  /** Return the entropy in nats, `batchShape`. */
  entropy(): Tensor {
    return scope(() => this.computeEntropy())
  }

  /** Return the exponential of the entropy, `batchShape`. */
  perplexity(): Tensor {
    return scope(() => this.entropy().exp())
  }

  /**
   * Return all values of a discrete distribution along a new first dimension, [values, ...batchShape, ...eventShape].
   * @param expand false leaves the batch dimensions at size 1
   * @throws NotImplementedError if `hasEnumerateSupport` is false
   */
  enumerateSupport(expand = true): Tensor {
    return scope(() => {
      const values = this.computeSupport()
      const [count = 0] = values.shape
      const batch = this.batchShape
      const shaped = values.reshape([count, ...batch.map(() => 1), ...this.eventShape])
      return expand ? shaped.expand([count, ...batch, ...this.eventShape]) : shaped
    })
  }

  /**
   * Return this distribution with its parameters expanded to another batch shape.
   * @throws ShapeError if the present batch shape does not broadcast to it
   */
  expand(batchShape: readonly number[]): this {
    const wanted = requireShape(`${this.name}.expand`, 'batchShape', batchShape)
    this.requireExpandable(wanted)
    return this.copyWith({ batchShape: wanted })
  }

  toString(): string {
    const shown = Object.entries(this.parameters).map(([name, value]) =>
      value instanceof Tensor ? `${name}: [${value.shape}]` : `${name}: ${value}`,
    )
    return `${this.name}(${shown.join(', ')})`
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return this.toString()
  }

  protected get name(): string {
    return this.constructor.name
  }

  protected computeMean(): Tensor {
    throw this.missing('mean')
  }

  protected computeMode(): Tensor {
    throw this.missing('mode')
  }

  protected computeVariance(): Tensor {
    throw this.missing('variance')
  }

  protected computeStddev(): Tensor {
    return this.variance.sqrt()
  }

  /** Draw without gradients; `shape` is the shape of the result. */
  protected computeSample(shape: number[]): Tensor {
    if (!this.hasRsample) throw this.missing('sample')
    return this.computeRsample(shape)
  }

  protected computeRsample(_shape: number[]): Tensor {
    throw this.missing('rsample')
  }

  protected computeLogProb(_value: Tensor): Tensor {
    throw this.missing('logProb')
  }

  protected computeCdf(_value: Tensor): Tensor {
    throw this.missing('cdf')
  }

  protected computeIcdf(_value: Tensor): Tensor {
    throw this.missing('icdf')
  }

  protected computeEntropy(): Tensor {
    throw this.missing('entropy')
  }

  /** Return all values, [values, ...eventShape]. */
  protected computeSupport(): Tensor {
    throw this.missing('enumerateSupport')
  }

  /** Return [...shape, ...batchShape, ...eventShape]. */
  protected extendedShape(shape: readonly number[] = []): number[] {
    return [...shape, ...this.batchShape, ...this.eventShape]
  }

  /** Return the sample dimensions of an extended shape. */
  protected sampleShapeOf(shape: readonly number[]): number[] {
    return shape.slice(0, shape.length - this.batchShape.length - this.eventShape.length)
  }

  /** Dtype and device of the parameters: those of the first tensor among them. @internal */
  get factory(): { dtype: DType; device?: Tensor['device'] } {
    for (const value of Object.values(this.parameters))
      if (value instanceof Tensor && value.dtype.includes('float')) return { dtype: value.dtype, device: value.device }
    return { dtype: 'float32' }
  }

  /** Return a parameter expanded to the batch shape; its last `eventDims` dimensions belong to the event. */
  protected parameter(name: string, eventDims = 0): Tensor {
    const value = this.parameters[name]
    if (value instanceof Tensor) {
      const { shape } = value
      return value.expand([...this.batchShape, ...shape.slice(shape.length - eventDims)])
    }
    return this.filled(value!)
  }

  /** Return a tensor of one number in the batch shape. */
  protected filled(value: number): Tensor {
    return full(this.batchShape, value, this.factory)
  }

  protected copyWith(changes: object): this {
    return Object.assign(Object.create(Object.getPrototypeOf(this)), this, changes)
  }

  protected requireExpandable(wanted: readonly number[]): void {
    const own = this.batchShape
    const skipped = wanted.length - own.length
    if (skipped >= 0 && own.every((size, i) => size === 1 || size === wanted[skipped + i])) return
    throw new ShapeError(`${this.name}.expand: expected a batch shape that [${own}] broadcasts to, got [${wanted}]`, {
      shape: wanted,
      expected: own,
    })
  }

  /** Return a value in the parameters' dtype if it is an integer. @throws if it does not fit the shapes or the support */
  protected checkedValue(method: string, value: Tensor): Tensor {
    const where = `${this.name}.${method}`
    requireTensor(where, 'value', value)
    if (this.validateArgs) this.checkValue(where, value)
    return value.dtype.includes('float') ? value : value.to(this.factory.dtype)
  }

  private checkValue(where: string, value: Tensor): void {
    const { shape } = value
    const { eventShape } = this
    const event = shape.slice(Math.max(0, shape.length - eventShape.length))
    if (event.length !== eventShape.length || event.some((size, i) => size !== eventShape[i])) {
      throw new ShapeError(
        `${where}: expected the last dimensions of value to be [${eventShape}], got shape [${shape}]`,
        {
          shape,
          expected: eventShape,
        },
      )
    }
    broadcastShapes(where, { value: shape, 'batchShape and eventShape': this.extendedShape() })
    if (value.device === 'meta') return
    const { support } = this
    const count = outside(support, value)
    if (count === 0) return
    throw new ConfigError(
      `${where}: expected values in the support (${support.name}), got ${count} outside it. ` +
        'Pass { validateArgs: false } to the distribution to skip this check',
      { argument: 'value', support: support.name },
    )
  }

  private checkParameters(): void {
    scope(() => {
      for (const [name, constraint] of Object.entries(this.argConstraints)) {
        if (this.parameters[name] === undefined) continue
        const value = (this as unknown as Record<string, Tensor>)[name]!
        if (value.device === 'meta') continue
        const count = outside(constraint, value)
        if (count === 0) continue
        throw new ConfigError(
          `${this.name}: expected ${name} to satisfy its constraint (${constraint.name}), got ${count} invalid ` +
            `${count === 1 ? 'value' : 'values'} in shape [${value.shape}]. Pass { validateArgs: false } to skip this check`,
          { argument: name, constraint: constraint.name },
        )
      }
    })
  }

  /** Return the error for a method or property that this distribution does not have. */
  protected missing(what: string): NotImplementedError {
    return new NotImplementedError(`${this.name}.${what}: ${this.name} has no ${what}`, { method: what })
  }
}

const outside = (constraint: Constraint, value: Tensor): number =>
  scope(() => {
    const valid = constraint.check(value)
    return valid.all().item<boolean>() ? 0 : valid.logicalNot().sum().item()
  })
