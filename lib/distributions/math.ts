import { shown } from '../base/arguments.js'
import { DTypeError } from '../base/errors.js'
import type { DType, Scalar, Tensor } from '../tensor/index.js'

/** Sum over the last `dims` dimensions. */
export const sumLast = (value: Tensor, dims: number): Tensor =>
  dims === 0 ? value : value.sum(Array.from({ length: dims }, (_, i) => -1 - i))

interface FloatLimits {
  eps: number
  tiny: number
  max: number
}

/** Return the limits of a format by the bits of its fraction and its least and greatest exponents. */
const limitsOf = (bits: number, least: number, greatest: number): FloatLimits => ({
  eps: 2 ** -bits,
  tiny: 2 ** least,
  max: (2 - 2 ** -bits) * 2 ** greatest,
})

const limits = new Map<DType, FloatLimits>([
  ['float64', limitsOf(52, -1022, 1023)],
  ['float32', limitsOf(23, -126, 127)],
  ['bfloat16', limitsOf(7, -126, 127)],
  ['float16', limitsOf(10, -14, 15)],
])

/** Return the spacing at 1, the smallest normal number and the largest number of a floating-point dtype. */
export function floatLimits(dtype: DType): FloatLimits {
  const found = limits.get(dtype)
  if (found === undefined) throw new DTypeError(`expected a floating-point dtype, got ${shown(dtype)}`, { dtype })
  return found
}

/** Clamp probabilities to (0, 1): at least the dtype's spacing at 1 from both ends. */
export function clampProbs(probs: Tensor): Tensor {
  const { eps } = floatLimits(probs.dtype)
  return probs.clamp(eps, 1 - eps)
}

/** Return the logits of probabilities of one event. */
export function binaryLogits(probs: Tensor): Tensor {
  const inside = clampProbs(probs)
  return inside.log().sub(inside.neg().log1p())
}

/** Return `yes` where a condition holds, and `no` elsewhere. */
export const choose = (condition: Tensor, yes: Tensor, no: Tensor | Scalar): Tensor => yes.where(condition, no)

/** Return x·log(x), 0 at 0. */
export const xLogX = (x: Tensor): Tensor => x.xlogy(x)

/** The Euler–Mascheroni constant. */
export const EULER = 0.577_215_664_901_532_9

/** Clamp to the open interval (0, 1). */
export function inOpenInterval(value: Tensor): Tensor {
  const { tiny, eps } = floatLimits(value.dtype)
  return value.clamp(tiny, 1 - eps)
}

/** Return log(x) and log(1 - x) of a number in [0, 1]. */
export function logAndRest(value: Tensor): [Tensor, Tensor] {
  const inside = inOpenInterval(value)
  return [inside.log(), inside.neg().log1p()]
}
