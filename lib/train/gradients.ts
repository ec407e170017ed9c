import { ConfigError, DisposedError, GradientError } from '../base/errors.js'
import { op } from '../native/call.js'
import type { Tensor } from '../tensor/index.js'
import type { Foreach } from './foreach.js'

/** A parameter and its gradient, laid out alike in memory. */
export interface Gradient {
  param: Tensor
  grad: Tensor
  /** The gradient is a copy for this step alone, still to be filled by a queued job: only queued jobs may read or change it. */
  owned?: boolean
}

/** The parameters that have a gradient, with it. */
export function withGradients(params: Tensor[]): Gradient[] {
  const pairs: Gradient[] = []
  for (const param of params) {
    const grad = param.grad
    if (grad) pairs.push({ param, grad: sameLayout(dense(grad), param) })
  }
  return pairs
}

const nonzeros = op('aten::_nnz')

/** Only a sparse tensor says how many elements it stores; there is no operator that asks for the layout. */
function isSparse(grad: Tensor): boolean {
  try {
    return nonzeros(grad) !== undefined
  } catch (error) {
    if (error instanceof DisposedError) throw error
    return false
  }
}

/** A gradient, of whose every element there is a value. @throws GradientError for a sparse one, which no fused kernel takes */
export function dense(grad: Tensor): Tensor {
  // What is contiguous is dense, and asking costs an operator's time for each parameter.
  if (grad.isContiguous() || !isSparse(grad)) return grad
  throw new GradientError(
    `The gradient of a parameter of shape [${grad.shape}] is sparse (sparse: true), which the fused optimisers and clipping ` +
      'cannot read: leave sparse out, or set param.grad = param.grad.toDense() first',
    { shape: grad.shape },
  )
}

/** The fused kernels walk all tensors of a parameter as plain memory: other strides would be mixed up in silence. */
function sameLayout(grad: Tensor, param: Tensor): Tensor {
  if (grad.isContiguous() && param.isContiguous()) return grad
  const copy = param.emptyLike().copy_(grad)
  if (copy.strides.join() === param.strides.join()) return copy
  throw new ConfigError(
    `A parameter of shape [${param.shape}] is a view with gaps or overlaps in memory, which the fused optimisers cannot ` +
      'update: make the parameter from its clone',
    { shape: param.shape },
  )
}

/** Options that change the gradient before anything else. */
export interface GradientOptions {
  maximize: boolean
  /** L2 penalty: times the parameter, added to the gradient. */
  weightDecay?: number
}

/** The gradients that a step goes against: turned round to maximise, with the penalty; copies where they change. */
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
