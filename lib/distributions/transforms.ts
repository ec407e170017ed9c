import { argumentError } from '../base/check.js'
import { NotImplementedError, ShapeError } from '../base/errors.js'
import { ops, scope, type Tensor } from '../tensor/index.js'
import { broadcastShapes, requireTensor, type Value } from './arguments.js'
import {
  type Constraint,
  independent,
  interval,
  lowerCholesky,
  positive,
  positiveDefinite,
  real,
  realVector,
  simplex,
  unitInterval,
} from './constraints.js'
import { floatLimits, inOpenInterval, logAndRest, sumLast } from './math.js'

/**
 * A differentiable function of tensors with an inverse and the logarithm of its Jacobian determinant, for a
 * `TransformedDistribution`. For one of your own, extend this class and override the `compute…` methods, whose temporaries are
 * freed.
 */
export abstract class Transform {
  /** Values that `forward` takes. */
  get domain(): Constraint {
    return real
  }

  /** Values that `forward` returns. */
  get codomain(): Constraint {
    return real
  }

  /** Whether each value of the codomain has one inverse. */
  get bijective(): boolean {
    return true
  }

  /** 1 if the function increases, -1 if it decreases; a tensor where that depends on the element. */
  get sign(): Value {
    throw new NotImplementedError(`${this.constructor.name}.sign: this transform is not monotonic`)
  }

  /** Return f(x). */
  forward(x: Tensor): Tensor {
    requireTensor(`${this.constructor.name}.forward`, 'x', x)
    return scope(() => this.computeForward(x))
  }

  /** Return the x with f(x) = y. */
  inverse(y: Tensor): Tensor {
    requireTensor(`${this.constructor.name}.inverse`, 'y', y)
    return scope(() => this.computeInverse(y))
  }

  /** Return log |det J| at x, where y = forward(x), without the dimensions of the domain's event. */
  logAbsDetJacobian(x: Tensor, y: Tensor): Tensor {
    requireTensor(`${this.constructor.name}.logAbsDetJacobian`, 'x', x)
    requireTensor(`${this.constructor.name}.logAbsDetJacobian`, 'y', y)
    return scope(() => this.computeLogAbsDetJacobian(x, y))
  }

  protected abstract computeForward(x: Tensor): Tensor
  protected abstract computeInverse(y: Tensor): Tensor

  protected computeLogAbsDetJacobian(_x: Tensor, _y: Tensor): Tensor {
    throw new NotImplementedError(`${this.constructor.name}.logAbsDetJacobian: this transform is not bijective`)
  }

  /** Return the shape of `forward` of a shape. */
  forwardShape(shape: readonly number[]): number[] {
    return [...shape]
  }

  /** Return the shape of `inverse` of a shape. */
  inverseShape(shape: readonly number[]): number[] {
    return [...shape]
  }

  /** The inverse as a transform. */
  get inv(): Transform {
    return new InverseTransform(this)
  }

  /** Return whether another transform is the same function. */
  equals(other: Transform): boolean {
    return other === this
  }

  toString(): string {
    return `${this.constructor.name}()`
  }
}

class InverseTransform extends Transform {
  constructor(readonly base: Transform) {
    super()
  }

  override get domain(): Constraint {
    return this.base.codomain
  }

  override get codomain(): Constraint {
    return this.base.domain
  }

  override get bijective(): boolean {
    return this.base.bijective
  }

  override get sign(): Value {
    return this.base.sign
  }

  override get inv(): Transform {
    return this.base
  }

  protected override computeForward(x: Tensor): Tensor {
    return this.base.inverse(x)
  }

  protected override computeInverse(y: Tensor): Tensor {
    return this.base.forward(y)
  }

  protected override computeLogAbsDetJacobian(x: Tensor, y: Tensor): Tensor {
    return this.base.logAbsDetJacobian(y, x).neg()
  }

  override forwardShape(shape: readonly number[]): number[] {
    return this.base.inverseShape(shape)
  }

  override inverseShape(shape: readonly number[]): number[] {
    return this.base.forwardShape(shape)
  }

  override equals(other: Transform): boolean {
    return other instanceof InverseTransform && this.base.equals(other.base)
  }

  override toString(): string {
    return `${this.base}.inv`
  }
}

/** A transform without parameters: two of one class are the same. */
abstract class Fixed extends Transform {
  override equals(other: Transform): boolean {
    return other.constructor === this.constructor
  }

  override get sign(): Value {
    return 1
  }
}

/** exp(x) */
export class ExpTransform extends Fixed {
  override get codomain(): Constraint {
    return positive
  }

  protected override computeForward(x: Tensor): Tensor {
    return x.exp()
  }

  protected override computeInverse(y: Tensor): Tensor {
    return y.log()
  }

  protected override computeLogAbsDetJacobian(x: Tensor): Tensor {
    return ops.alias(x)
  }
}

/** 1 / (1 + exp(-x)), clamped to (0, 1). */
export class SigmoidTransform extends Fixed {
  override get codomain(): Constraint {
    return unitInterval
  }

  protected override computeForward(x: Tensor): Tensor {
    return inOpenInterval(x.sigmoid())
  }

  protected override computeInverse(y: Tensor): Tensor {
    const [log, logRest] = logAndRest(y)
    return log.sub(logRest)
  }

  protected override computeLogAbsDetJacobian(x: Tensor): Tensor {
    return ops.softplus(x.neg()).add(ops.softplus(x)).neg()
  }
}

/** tanh(x) */
export class TanhTransform extends Fixed {
  override get codomain(): Constraint {
    return interval(-1, 1)
  }

  protected override computeForward(x: Tensor): Tensor {
    return x.tanh()
  }

  protected override computeInverse(y: Tensor): Tensor {
    return y.atanh()
  }

  protected override computeLogAbsDetJacobian(x: Tensor): Tensor {
    // log(1 - tanh²x), which rounds to -∞ for large x if computed from y.
    return x
      .add(ops.softplus(x.mul(-2)))
      .rsub(Math.LN2)
      .mul(2)
  }
}

/** log(1 + exp(x)) */
export class SoftplusTransform extends Fixed {
  override get codomain(): Constraint {
    return positive
  }

  protected override computeForward(x: Tensor): Tensor {
    return ops.softplus(x)
  }

  protected override computeInverse(y: Tensor): Tensor {
    return y.neg().expm1().neg().log().add(y)
  }

  protected override computeLogAbsDetJacobian(x: Tensor): Tensor {
    return ops.softplus(x.neg()).neg()
  }
}

/** |x|, with the positive inverse. */
export class AbsTransform extends Fixed {
  override get codomain(): Constraint {
    return positive
  }

  override get bijective(): boolean {
    return false
  }

  override get sign(): Value {
    throw new NotImplementedError('AbsTransform.sign: this transform is not monotonic')
  }

  protected override computeForward(x: Tensor): Tensor {
    return x.abs()
  }

  protected override computeInverse(y: Tensor): Tensor {
    return ops.alias(y)
  }
}

/** Return whether two parameters have the same values. */
function sameValues(a: Value, b: Value): boolean {
  if (typeof a === 'number') return typeof b === 'number' ? a === b : b.eq(a).all().item<boolean>()
  return a
    .eq(b as Tensor)
    .all()
    .item<boolean>()
}

const shapeOf = (value: Value): number[] => (typeof value === 'number' ? [] : value.shape)

/** loc + scale · x. The last `eventDim` dimensions belong to one event. */
export class AffineTransform extends Transform {
  readonly loc: Value
  readonly scale: Value
  readonly eventDim: number

  constructor(loc: Value, scale: Value, options: { eventDim?: number } = {}) {
    super()
    const { eventDim = 0 } = options
    if (!Number.isSafeInteger(eventDim) || eventDim < 0)
      throw argumentError('AffineTransform', 'eventDim', 'an integer of at least 0', eventDim)
    this.loc = loc
    this.scale = scale
    this.eventDim = eventDim
  }

  override get domain(): Constraint {
    return independent(real, this.eventDim)
  }

  override get codomain(): Constraint {
    return independent(real, this.eventDim)
  }

  override get sign(): Value {
    return typeof this.scale === 'number' ? Math.sign(this.scale) : this.scale.sign()
  }

  protected override computeForward(x: Tensor): Tensor {
    return x.mul(this.scale as Tensor).add(this.loc as Tensor)
  }

  protected override computeInverse(y: Tensor): Tensor {
    return y.sub(this.loc as Tensor).div(this.scale as Tensor)
  }

  protected override computeLogAbsDetJacobian(x: Tensor): Tensor {
    const { scale } = this
    const log =
      typeof scale === 'number' ? ops.fullLike(x, Math.log(Math.abs(scale))) : scale.abs().log().expand(x.shape)
    return sumLast(log, this.eventDim)
  }

  override forwardShape(shape: readonly number[]): number[] {
    return broadcastShapes('AffineTransform', { x: shape, loc: shapeOf(this.loc), scale: shapeOf(this.scale) })
  }

  override inverseShape(shape: readonly number[]): number[] {
    return this.forwardShape(shape)
  }

  override equals(other: Transform): boolean {
    return other instanceof AffineTransform && sameValues(this.loc, other.loc) && sameValues(this.scale, other.scale)
  }
}

/** x ^ exponent, for positive x. */
export class PowerTransform extends Transform {
  constructor(readonly exponent: Value) {
    super()
  }

  override get domain(): Constraint {
    return positive
  }

  override get codomain(): Constraint {
    return positive
  }

  override get sign(): Value {
    return typeof this.exponent === 'number' ? Math.sign(this.exponent) : this.exponent.sign()
  }

  protected override computeForward(x: Tensor): Tensor {
    return x.pow(this.exponent as number)
  }

  protected override computeInverse(y: Tensor): Tensor {
    const { exponent } = this
    return typeof exponent === 'number' ? y.pow(1 / exponent) : y.pow(exponent.reciprocal())
  }

  protected override computeLogAbsDetJacobian(x: Tensor, y: Tensor): Tensor {
    return y
      .mul(this.exponent as Tensor)
      .div(x)
      .abs()
      .log()
  }

  override forwardShape(shape: readonly number[]): number[] {
    return broadcastShapes('PowerTransform', { x: shape, exponent: shapeOf(this.exponent) })
  }

  override inverseShape(shape: readonly number[]): number[] {
    return this.forwardShape(shape)
  }

  override equals(other: Transform): boolean {
    return other instanceof PowerTransform && sameValues(this.exponent, other.exponent)
  }
}

/** Softmax of vectors. Not bijective: the inverse is the logarithm. */
export class SoftmaxTransform extends Fixed {
  override get domain(): Constraint {
    return realVector
  }

  override get codomain(): Constraint {
    return simplex
  }

  override get bijective(): boolean {
    return false
  }

  protected override computeForward(x: Tensor): Tensor {
    return x.softmax(-1)
  }

  protected override computeInverse(y: Tensor): Tensor {
    return y.log()
  }
}

/** Vectors of n numbers to n + 1 probabilities, by breaking fractions off a stick of length 1. */
export class StickBreakingTransform extends Fixed {
  override get domain(): Constraint {
    return realVector
  }

  override get codomain(): Constraint {
    return simplex
  }

  /** Return log(n), …, log(1): with them the zero vector becomes equal probabilities. */
  private offset(like: Tensor, n: number): Tensor {
    return ops.arange(n, 0, -1, { dtype: like.dtype, device: like.device }).log()
  }

  protected override computeForward(x: Tensor): Tensor {
    const fraction = inOpenInterval(x.sub(this.offset(x, x.size(-1))).sigmoid())
    const rest = fraction.rsub(1).cumprod(-1)
    return ops.pad(fraction, [0, 1], 'constant', 1).mul(ops.pad(rest, [1, 0], 'constant', 1))
  }

  protected override computeInverse(y: Tensor): Tensor {
    const n = y.size(-1) - 1
    const parts = y.narrow(-1, 0, n)
    const rest = parts.cumsum(-1).rsub(1).clamp(floatLimits(y.dtype).tiny)
    return parts.log().sub(rest.log()).add(this.offset(y, n))
  }

  protected override computeLogAbsDetJacobian(x: Tensor, y: Tensor): Tensor {
    const n = x.size(-1)
    const moved = x.sub(this.offset(x, n))
    return ops
      .logSigmoid(moved)
      .sub(moved)
      .add(y.narrow(-1, 0, n).log())
      .sum(-1)
  }

  override forwardShape(shape: readonly number[]): number[] {
    return [...shape.slice(0, -1), lastSize('StickBreakingTransform', shape) + 1]
  }

  override inverseShape(shape: readonly number[]): number[] {
    return [...shape.slice(0, -1), lastSize('StickBreakingTransform', shape) - 1]
  }
}

function lastSize(where: string, shape: readonly number[]): number {
  const size = shape.at(-1)
  if (size !== undefined) return size
  throw new ShapeError(`${where}: expected vectors, got shape []`, { shape })
}

/** Square matrices to lower triangular ones with a positive diagonal: exp of the diagonal, zeros above. */
export class LowerCholeskyTransform extends Fixed {
  override get domain(): Constraint {
    return independent(real, 2)
  }

  override get codomain(): Constraint {
    return lowerCholesky
  }

  override get bijective(): boolean {
    return false
  }

  protected override computeForward(x: Tensor): Tensor {
    return x.tril(-1).add(x.diagonal(0, -2, -1).exp().diagEmbed())
  }

  protected override computeInverse(y: Tensor): Tensor {
    return y.tril(-1).add(y.diagonal(0, -2, -1).log().diagEmbed())
  }
}

/** Square matrices to symmetric positive definite ones: L · Lᵀ for the L of {@link LowerCholeskyTransform}. */
export class PositiveDefiniteTransform extends Fixed {
  override get domain(): Constraint {
    return independent(real, 2)
  }

  override get codomain(): Constraint {
    return positiveDefinite
  }

  override get bijective(): boolean {
    return false
  }

  protected override computeForward(x: Tensor): Tensor {
    const lower = new LowerCholeskyTransform().forward(x)
    return lower.matmul(lower.mT)
  }

  protected override computeInverse(y: Tensor): Tensor {
    return new LowerCholeskyTransform().inverse(ops.linalgCholesky(y))
  }
}

/** A transform whose last `reinterpretedBatchNdims` batch dimensions belong to the event: the log determinants are summed. */
export class IndependentTransform extends Transform {
  constructor(
    readonly baseTransform: Transform,
    readonly reinterpretedBatchNdims: number,
  ) {
    super()
    if (!(baseTransform instanceof Transform))
      throw argumentError('IndependentTransform', 'baseTransform', 'a transform', baseTransform)
    if (!Number.isSafeInteger(reinterpretedBatchNdims) || reinterpretedBatchNdims < 0) {
      const expected = 'an integer of at least 0'
      throw argumentError('IndependentTransform', 'reinterpretedBatchNdims', expected, reinterpretedBatchNdims)
    }
  }

  override get domain(): Constraint {
    return independent(this.baseTransform.domain, this.reinterpretedBatchNdims)
  }

  override get codomain(): Constraint {
    return independent(this.baseTransform.codomain, this.reinterpretedBatchNdims)
  }

  override get bijective(): boolean {
    return this.baseTransform.bijective
  }

  override get sign(): Value {
    return this.baseTransform.sign
  }

  protected override computeForward(x: Tensor): Tensor {
    return this.baseTransform.forward(x)
  }

  protected override computeInverse(y: Tensor): Tensor {
    return this.baseTransform.inverse(y)
  }

  protected override computeLogAbsDetJacobian(x: Tensor, y: Tensor): Tensor {
    return sumLast(this.baseTransform.logAbsDetJacobian(x, y), this.reinterpretedBatchNdims)
  }

  override forwardShape(shape: readonly number[]): number[] {
    return this.baseTransform.forwardShape(shape)
  }

  override inverseShape(shape: readonly number[]): number[] {
    return this.baseTransform.inverseShape(shape)
  }
}

/** Transforms in a row, the first one first. */
export class ComposeTransform extends Transform {
  constructor(readonly parts: readonly Transform[]) {
    super()
    if (!Array.isArray(parts) || !parts.every((part) => part instanceof Transform))
      throw argumentError('ComposeTransform', 'parts', 'a list of transforms', parts)
  }

  override get domain(): Constraint {
    const [first] = this.parts
    if (first === undefined) return real
    let dims = this.parts.at(-1)!.codomain.eventDim
    for (const { domain, codomain } of [...this.parts].reverse())
      dims = Math.max(dims + domain.eventDim - codomain.eventDim, domain.eventDim)
    return independent(first.domain, dims - first.domain.eventDim)
  }

  override get codomain(): Constraint {
    const last = this.parts.at(-1)
    if (last === undefined) return real
    let dims = this.parts[0]!.domain.eventDim
    for (const { domain, codomain } of this.parts)
      dims = Math.max(dims + codomain.eventDim - domain.eventDim, codomain.eventDim)
    return independent(last.codomain, dims - last.codomain.eventDim)
  }

  override get bijective(): boolean {
    return this.parts.every((part) => part.bijective)
  }

  override get sign(): Value {
    return this.parts.reduce<Value>((sign, part) => {
      const next = part.sign
      if (typeof sign !== 'number') return sign.mul(next as Tensor)
      return typeof next === 'number' ? sign * next : next.mul(sign)
    }, 1)
  }

  override get inv(): Transform {
    return new ComposeTransform([...this.parts].reverse().map((part) => part.inv))
  }

  protected override computeForward(x: Tensor): Tensor {
    return this.parts.reduce((value, part) => part.forward(value), ops.alias(x))
  }

  protected override computeInverse(y: Tensor): Tensor {
    return this.parts.reduceRight((value, part) => part.inverse(value), ops.alias(y))
  }

  protected override computeLogAbsDetJacobian(x: Tensor, y: Tensor): Tensor {
    if (this.parts.length === 0) return ops.zerosLike(x)
    let dims = this.domain.eventDim
    let value = x
    let sum: Tensor | undefined
    this.parts.forEach((part, i) => {
      const next = i === this.parts.length - 1 ? y : part.forward(value)
      const term = sumLast(part.logAbsDetJacobian(value, next), dims - part.domain.eventDim)
      sum = sum === undefined ? term : sum.add(term)
      dims += part.codomain.eventDim - part.domain.eventDim
      value = next
    })
    return sum!
  }

  override forwardShape(shape: readonly number[]): number[] {
    return this.parts.reduce((value, part) => part.forwardShape(value), [...shape])
  }

  override inverseShape(shape: readonly number[]): number[] {
    return this.parts.reduceRight((value, part) => part.inverseShape(value), [...shape])
  }

  override equals(other: Transform): boolean {
    return other instanceof ComposeTransform && sameTransforms(this.parts, other.parts)
  }

  override toString(): string {
    return `ComposeTransform(${this.parts.join(', ')})`
  }
}

/** Return whether two lists of transforms are the same functions. */
export const sameTransforms = (a: readonly Transform[], b: readonly Transform[]): boolean =>
  a.length === b.length && a.every((part, i) => part.equals(b[i]!))
