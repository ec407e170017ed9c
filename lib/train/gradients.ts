import { ConfigError, DisposedError, GradientError } from '../base/errors.js'
import { op } from '../native/call.js'
import type { Tensor } from '../tensor/index.js'
import type { Foreach } from './foreach.js'

/** Parameter and its gradient, with the same memory layout. */
export interface Gradient {
  param: Tensor
  grad: Tensor
  /** The gradient is a copy for this step alone, which a queued job has yet to fill: only queued jobs may read or change it. */
  owned?: boolean
}

/** Return the parameters that have a gradient, with the gradient. */
export function withGradients(params: Tensor[]): Gradient[] {
  const pairs: Gradient[] = []
  for (const param of params) {
    const grad = param.grad
    if (grad) pairs.push({ param, grad: sameLayout(dense(grad), param) })
  }
  return pairs
}

const nonzeros = op('aten::_nnz')

/** Return whether a tensor is sparse. No operator returns the layout, but only a sparse tensor has `_nnz`. */
export function isSparse(grad: Tensor): boolean {
  try {
    return nonzeros(grad) !== undefined
  } catch (error) {
    if (error instanceof DisposedError) throw error
    return false
  }
}

/** Return a gradient after checking that it is dense. @throws GradientError for a sparse one, which no fused kernel supports */
export function dense(grad: Tensor): Tensor {
  // A contiguous tensor is dense; the check avoids an operator call for each parameter.
  if (grad.isContiguous() || !isSparse(grad)) return grad
  throw new GradientError(
    `Optimizer: expected a dense gradient for the parameter of shape [${grad.shape}], got a sparse one (sparse: true), which the fused optimizers and clipping ` +
      'cannot read. Leave sparse out, or set param.grad = param.grad.toDense() first',
    { shape: grad.shape },
  )
}

/**
 * Return a gradient with the parameter's strides. The fused kernels read both as plain memory and would silently mix up other
 * strides.
 */
function sameLayout(grad: Tensor, param: Tensor): Tensor {
  if (grad.isContiguous() && param.isContiguous()) return grad
  const copy = param.emptyLike().copy_(grad)
  if (copy.strides.join() === param.strides.join()) return copy
  throw new ConfigError(
    `Optimizer: expected a dense parameter of shape [${param.shape}], got a view with gaps or overlaps in memory, which the fused optimizers cannot ` +
      'update. Create the parameter from its clone',
    { shape: param.shape },
  )
}

/** Options that change the gradient before the update. */
export interface GradientOptions {
  maximize: boolean
  /** L2 penalty: weightDecay times the parameter is added to the gradient. */
  weightDecay?: number
}

/** Return the gradients to descend: negated to maximize, with the L2 penalty added. Changed gradients are copies. */
export function gradientsOf(
  pairs: readonly Gradient[],
  run: Foreach,
  { maximize, weightDecay = 0 }: GradientOptions,
): Tensor[] {
  const changed = maximize || weightDecay !== 0
  const grads = pairs.map(({ grad, owned }) => (changed && !owned ? grad.clone() : grad))
  if (maximize) run.neg(grads)
  if (weightDecay !== 0) {
    const params = pairs.map(({ param }) => param)
    run.add(grads, params, { alpha: weightDecay })
  }
  return grads
}
