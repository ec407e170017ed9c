import { argumentError, requireWhole } from '../base/check.js'
import { op } from '../native/call.js'
import { ops, scope, type Tensor } from '../tensor/index.js'
import { requireTensor, requireValue } from './arguments.js'
import { floatLimits } from './math.js'

/**
 * A set of values that a parameter or a sample may have. `eventDim` is the number of last dimensions that belong to one value:
 * 0 for a number, 1 for a vector, 2 for a matrix.
 */
export interface Constraint {
  readonly name: string
  readonly isDiscrete: boolean
  readonly eventDim: number
  /** Ends of an interval of real numbers. */
  readonly low?: Tensor | number
  readonly high?: Tensor | number
  /** Constraint of each element, if this is one of vectors or larger events. */
  readonly base?: Constraint
  /** Return for each value whether it is in the set, a bool tensor without the last `eventDim` dimensions. */
  check(value: Tensor): Tensor
}

type Check = (value: Tensor) => Tensor
/** An end of an interval. */
type End = Tensor | number

const make = (name: string, check: Check, eventDim = 0, isDiscrete = false): Constraint => ({
  name,
  isDiscrete,
  eventDim,
  check: (value) => scope(() => check(requireTensor(`constraint (${name})`, 'value', value))),
})

const shownEnd = (end: End): string => (typeof end === 'number' ? String(end) : 'tensor')

function requireEnds(where: string, ends: Record<string, End>): void {
  for (const [name, end] of Object.entries(ends)) requireValue(`constraints.${where}`, name, end, true)
}
const both = (a: Tensor, b: Tensor): Tensor => a.logicalAnd(b)
const isInteger = (value: Tensor): Tensor =>
  value.dtype.includes('float') ? value.eq(value.floor()) : ops.onesLike(value, { dtype: 'bool' })
const choleskyEx = op('aten::linalg_cholesky_ex') as (matrix: Tensor) => { L: Tensor; info: Tensor }
const all = (value: Tensor, dims: number[]): Tensor => dims.reduce((rest) => rest.all(-1), value)

/** Every number but NaN. */
export const real = make('real', (value) => value.eq(value))
/** Vectors of real numbers. */
export const realVector = independent(real, 1)
/** 0 and 1. */
export const boolean = make('boolean', (value) => value.eq(0).logicalOr(value.eq(1)), 0, true)
/** Numbers above 0. */
export const positive = greaterThan(0)
/** Numbers of at least 0. */
export const nonnegative = greaterThanEq(0)
/** Numbers in [0, 1]. */
export const unitInterval = interval(0, 1)
/** Integers of at least 0. */
export const nonnegativeInteger = make('integer >= 0', (value) => both(isInteger(value), value.ge(0)), 0, true)
/** Integers of at least 1. */
export const positiveInteger = make('integer >= 1', (value) => both(isInteger(value), value.ge(1)), 0, true)
/** Vectors of numbers of at least 0 whose sum is 1. */
export const simplex = make('simplex', (value) => both(value.ge(0).all(-1), value.sum(-1).sub(1).abs().lt(1e-6)), 1)
/** Vectors with one 1 and zeros. */
export const oneHot = make(
  'one-hot vector',
  (value) => both(value.eq(0).logicalOr(value.eq(1)).all(-1), value.sum(-1).eq(1)),
  1,
  true,
)
/** Square matrices. */
export const square = make(
  'square matrix',
  (value) => ops.full(value.shape.slice(0, -2), value.size(-1) === value.size(-2), { dtype: 'bool' }),
  2,
)
/** Symmetric matrices. */
export const symmetric = make('symmetric matrix', (value) => all(ops.isclose(value, value.mT, 1e-5, 1e-6), [-1, -2]), 2)
/** Symmetric matrices with positive eigenvalues. */
export const positiveDefinite = make(
  'positive definite matrix',
  (value) => both(symmetric.check(value), choleskyEx(value).info.eq(0)),
  2,
)
/** Lower triangular matrices. */
export const lowerTriangular = make('lower triangular matrix', (value) => all(value.tril().eq(value), [-1, -2]), 2)
/** Lower triangular matrices with a positive diagonal. */
export const lowerCholesky = make(
  'lower triangular matrix with a positive diagonal',
  (value) => both(lowerTriangular.check(value), value.diagonal(0, -2, -1).gt(0).all(-1)),
  2,
)

/** Cholesky factors of correlation matrices: lower triangular, with a positive diagonal and rows of length 1. */
export const corrCholesky = make(
  'Cholesky factor of a correlation matrix',
  (value) => {
    const tolerance = 10 * value.size(-1) * floatLimits(value.dtype).eps
    const lengths = ops.linalgVectorNorm(value, 2, [-1])
    return both(lowerCholesky.check(value), lengths.sub(1).abs().lt(tolerance).all(-1))
  },
  2,
)

/** Numbers above `low`. */
export function greaterThan(low: End): Constraint {
  requireEnds('greaterThan', { low })
  return { ...make(`> ${shownEnd(low)}`, (value) => value.gt(low as number)), low }
}
/** Numbers of at least `low`. */
export function greaterThanEq(low: End): Constraint {
  requireEnds('greaterThanEq', { low })
  return { ...make(`>= ${shownEnd(low)}`, (value) => value.ge(low as number)), low }
}
/** Numbers below `high`. */
export function lessThan(high: End): Constraint {
  requireEnds('lessThan', { high })
  return { ...make(`< ${shownEnd(high)}`, (value) => value.lt(high as number)), high }
}
/** Numbers in [low, high]. */
export function interval(low: End, high: End): Constraint {
  requireEnds('interval', { low, high })
  const name = `in [${shownEnd(low)}, ${shownEnd(high)}]`
  return { ...make(name, (value) => both(value.ge(low as number), value.le(high as number))), low, high }
}
/** Numbers in [low, high). */
export function halfOpenInterval(low: End, high: End): Constraint {
  requireEnds('halfOpenInterval', { low, high })
  const name = `in [${shownEnd(low)}, ${shownEnd(high)})`
  return { ...make(name, (value) => both(value.ge(low as number), value.lt(high as number))), low, high }
}
/** Integers from `low` to `high`, both included. */
export function integerInterval(low: End, high: End): Constraint {
  requireEnds('integerInterval', { low, high })
  return make(
    `integer in [${shownEnd(low)}, ${shownEnd(high)}]`,
    (value) => both(isInteger(value), both(value.ge(low as number), value.le(high as number))),
    0,
    true,
  )
}
/** Vectors of counts whose sum is `totalCount`. */
export function multinomial(totalCount: number): Constraint {
  requireWhole('constraints.multinomial', 'totalCount', totalCount)
  return make(
    `counts with sum ${totalCount}`,
    (value) => both(both(isInteger(value), value.ge(0)).all(-1), value.sum(-1).eq(totalCount)),
    1,
    true,
  )
}
/** Values whose last `dims` batch dimensions belong to the event: all their elements are in `base`. */
export function independent(base: Constraint, dims: number): Constraint {
  if (typeof (base as Constraint | null)?.check !== 'function')
    throw argumentError('constraints.independent', 'base', 'a constraint', base)
  requireWhole('constraints.independent', 'dims', dims)
  if (dims === 0) return base
  const name = dims === 1 && base.eventDim === 0 ? `vector of ${base.name}` : `${base.name}, ${dims} dimensions`
  const check: Check = (value) => all(base.check(value), Array<number>(dims).fill(-1))
  return { ...make(name, check, base.eventDim + dims, base.isDiscrete), base }
}
