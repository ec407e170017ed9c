import { argumentError, fieldOf } from '../base/check.js'
import { NotImplementedError } from '../base/errors.js'
import { Tensor } from '../tensor/index.js'
import { type Constraint, lowerCholesky, positiveDefinite, real, simplex } from './constraints.js'
import {
  AffineTransform,
  ComposeTransform,
  ExpTransform,
  IndependentTransform,
  LowerCholeskyTransform,
  PositiveDefiniteTransform,
  SigmoidTransform,
  SoftmaxTransform,
  StickBreakingTransform,
  type Transform,
} from './transforms.js'

/**
 * Return a transform from real numbers onto a constraint, such as the `support` of a distribution, for optimizing a constrained
 * value without constraints. It may have several values for one result, unlike {@link bijectTo}.
 * @throws NotImplementedError for a constraint without a transform, such as a discrete one
 */
export function transformTo(constraint: Constraint): Transform {
  return constraint === simplex ? new SoftmaxTransform() : transformOf('transformTo', constraint, transformTo)
}

/** Return a bijective transform from real numbers onto a constraint; errors as in {@link transformTo}. */
export function bijectTo(constraint: Constraint): Transform {
  return constraint === simplex ? new StickBreakingTransform() : transformOf('bijectTo', constraint, bijectTo)
}

function transformOf(where: string, constraint: Constraint, inner: (base: Constraint) => Transform): Transform {
  if (typeof fieldOf(constraint, 'check') !== 'function')
    throw argumentError(where, 'constraint', 'a constraint', constraint)
  const { base, low, high, eventDim, isDiscrete } = constraint
  if (base !== undefined && !isDiscrete) return new IndependentTransform(inner(base), eventDim - base.eventDim)
  if (constraint === real) return new ComposeTransform([])
  if (constraint === lowerCholesky) return new LowerCholeskyTransform()
  if (constraint === positiveDefinite) return new PositiveDefiniteTransform()
  if (low !== undefined && high !== undefined && !isDiscrete)
    return affine(new SigmoidTransform(), low, minus(high, low))
  if (low !== undefined && !isDiscrete) return affine(new ExpTransform(), low, 1)
  if (high !== undefined && !isDiscrete) return affine(new ExpTransform(), high, -1)
  throw new NotImplementedError(
    `${where}: expected a constraint that real numbers can be transformed to, got ${constraint.name}`,
    { constraint: constraint.name },
  )
}

/** Return the transform followed by loc + scale · x, which is left out where it does nothing. */
const affine = (transform: Transform, loc: Tensor | number, scale: Tensor | number): Transform =>
  loc === 0 && scale === 1 ? transform : new ComposeTransform([transform, new AffineTransform(loc, scale)])

function minus(a: Tensor | number, b: Tensor | number): Tensor | number {
  if (a instanceof Tensor) return a.sub(b as Tensor)
  return b instanceof Tensor ? b.rsub(a) : a - b
}
