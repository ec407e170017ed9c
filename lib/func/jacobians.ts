import { optionsOf } from '../base/arguments.js'
import { eye, scope, type Tensor } from '../tensor/index.js'
import { type GradTransformOptions, pullback, pushforward, selected } from './gradients.js'
import { requireTransformed, splitAux, type TensorFunction } from './level.js'
import { mapTree, type Tree, tensorsOf, treeLike } from './tree.js'
import { type VmapOptions, vmap } from './vmap.js'

/** Return all unit vectors of a tree of tensors, as a tree of tensors [number of elements of all, ...shape]. */
function unitVectors(where: string, tree: Tree): Tree {
  const tensors = tensorsOf(where, 'the value', tree)
  const first = tensors[0] as Tensor
  const sizes = tensors.map((tensor) => tensor.numel())
  const total = sizes.reduce((sum, size) => sum + size, 0)
  const columns = eye(total, { device: first.device, dtype: first.dtype }).splitWithSizes(sizes, 1)
  return treeLike(
    tree,
    columns.map((column, i) => {
      const { shape, dtype, device } = tensors[i] as Tensor
      return column.reshape([total, ...shape]).to({ dtype, device })
    }),
  )
}

/** Split rows [elements of all tensors of `tree`, ...rest] into a tree of tensors [...shape, ...rest]. */
function splitRows(where: string, rows: Tensor, tree: Tree): Tree {
  const tensors = tensorsOf(where, 'the value', tree)
  const parts = rows.splitWithSizes(
    tensors.map((tensor) => tensor.numel()),
    0,
  )
  return treeLike(
    tree,
    parts.map((part, i) => part.reshape([...(tensors[i] as Tensor).shape, ...rows.shape.slice(1)])),
  )
}

export interface JacobianOptions extends GradTransformOptions {
  /** Compute so many rows of the Jacobian at a time, to save memory. Default: all at once. */
  chunkSize?: number | null
}

/**
 * Return a function that computes the Jacobian of `fn`, one backward pass for each element of the output: best where the output has
 * fewer elements than the input. For one output [...out] and one input [...in] it is a tensor [...out, ...in], else in the form
 * of the output, with the form of the arguments inside. Like `torch.func.jacrev`.
 */
export function jacrev(fn: TensorFunction, options: JacobianOptions = {}): TensorFunction {
  requireTransformed('jacrev', fn)
  const {
    argnums = 0,
    hasAux = false,
    chunkSize = null,
  } = optionsOf(options, 'jacrev', ['argnums', 'hasAux', 'chunkSize'])
  return (...args) =>
    scope(() => {
      const { output, aux, pull } = pullback('jacrev', fn, argnums, args, hasAux)
      try {
        const rows = vmap(pull, { chunkSize })(unitVectors('jacrev', output)) as Tree
        const inputs = tensorsOf('jacrev', 'a differentiated argument', rows)
        const columns = inputs.map((input) => tensorsOf('jacrev', 'the result', splitRows('jacrev', input, output)))
        let leaf = 0
        const jacobian = mapTree(output, () => {
          leaf += 1
          return treeLike(
            rows,
            columns.map((column) => column[leaf - 1]),
          )
        })
        return hasAux ? [jacobian, aux] : jacobian
      } finally {
        pull.dispose()
      }
    })
}

export interface ForwardJacobianOptions extends GradTransformOptions {
  /** Behavior of random operators in the batch of all directions; see {@link VmapOptions}. Default: 'error'. */
  randomness?: VmapOptions['randomness']
}

/**
 * Return a function that computes the Jacobian of `fn` by forward differentiation, all directions of the input in one batch: best
 * where the input has fewer elements than the output. The result has the form of {@link jacrev}'s. Like `torch.func.jacfwd`.
 */
export function jacfwd(fn: TensorFunction, options: ForwardJacobianOptions = {}): TensorFunction {
  requireTransformed('jacfwd', fn)
  const {
    argnums = 0,
    hasAux = false,
    randomness = 'error',
  } = optionsOf(options, 'jacfwd', ['argnums', 'hasAux', 'randomness'])
  return (...args) =>
    scope(() => {
      const inputs = selected('jacfwd', argnums, args)
      const push = (tangents: Tree): Tree => {
        const { tangent, aux } = pushforward('jacfwd', fn, argnums, args, tangents, hasAux)
        return hasAux ? [tangent, aux] : tangent
      }
      const result = vmap(push, { randomness })(unitVectors('jacfwd', inputs)) as Tree
      const [columns, aux] = hasAux ? splitAux('jacfwd', result) : [result, undefined]
      const jacobian = mapTree(columns, (leaf) => {
        const last = (leaf as Tensor).ndim - 1
        return mapTree(splitRows('jacfwd', leaf as Tensor, inputs), (part) => {
          // [...in, ...out] to [...out, ...in]
          const tensor = part as Tensor
          const own = tensor.ndim - last
          const order = [...tensor.shape.keys()]
          return tensor.permute([...order.slice(own), ...order.slice(0, own)])
        })
      })
      // Each direction computed the same aux.
      return hasAux ? [jacobian, mapTree(aux, (leaf) => (leaf as Tensor).select(0, 0))] : jacobian
    })
}

/**
 * Return a function that computes the Hessian of `fn`, by forward differentiation of {@link jacrev}. For one output [...out] and one
 * input [...in] it is a tensor [...out, ...in, ...in]. Like `torch.func.hessian`.
 */
export function hessian(fn: TensorFunction, options: Pick<GradTransformOptions, 'argnums'> = {}): TensorFunction {
  const { argnums = 0 } = optionsOf(options, 'hessian', ['argnums'])
  return jacfwd(jacrev(fn, { argnums }), { argnums })
}
