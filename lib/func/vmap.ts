import { optionsOf, shown } from '../base/arguments.js'
import { requireWhole } from '../base/check.js'
import { ConfigError, IndexError, ShapeError } from '../base/errors.js'
import { ops, scope, Tensor } from '../tensor/index.js'
import { atLevel, batch, requireTransformed, run, type TensorFunction, unbatch } from './level.js'
import { describe, leavesOf, mapTree, spreadOver, type Tree, tensorsOf, treeLike } from './tree.js'

/** One dimension for all tensors, or dimensions in the form of the arguments or results; null: not batched. */
export type Dims = number | null | readonly Dims[] | { readonly [name: string]: Dims }

export interface VmapOptions {
  /** Batch dimension of each argument; null passes the argument as it is. Default: 0. */
  inDims?: Dims
  /** Batch dimension of each result. Default: 0. */
  outDims?: Dims
  /** Behavior of random operators: throw, draw the same numbers for each sample, or different ones. Default: 'error'. */
  randomness?: 'error' | 'same' | 'different'
  /** Compute so many samples at a time, to save memory. Default: all at once. */
  chunkSize?: number | null
}

const isInDim = (value: unknown): value is number | null => value === null || typeof value === 'number'
const isOutDim = (value: unknown): value is number => typeof value === 'number'

/**
 * Return a function that runs `fn`, written for one sample, on a batch: each operator computes all samples at once. Batch
 * dimensions are removed from the arguments, and `fn` must return tensors, which get one. It may not look at elements, such as by
 * `item()` or in a condition, and mask selections have no batched form. Operators without a batched form run in a loop. Like
 * `torch.func.vmap`.
 */
export function vmap(fn: TensorFunction, options: VmapOptions = {}): TensorFunction {
  requireTransformed('vmap', fn)
  const {
    inDims = 0,
    outDims = 0,
    randomness = 'error',
    chunkSize = null,
  } = optionsOf(options, 'vmap', ['inDims', 'outDims', 'randomness', 'chunkSize'])
  if (!['error', 'same', 'different'].includes(randomness)) {
    throw new ConfigError(`vmap: expected randomness 'error', 'same' or 'different', got ${shown(randomness)}`)
  }
  if (chunkSize !== null) requireWhole('vmap', 'chunkSize', chunkSize, 1)
  return (...args) =>
    scope(() => {
      const dims = batchDims(inDims, args)
      const size = batchSize(args, dims)
      if (chunkSize === null || size <= chunkSize) return runBatch(fn, args, dims, size, outDims, randomness)
      const parts: unknown[] = []
      for (let start = 0; start < size; start += chunkSize) {
        const length = Math.min(chunkSize, size - start)
        const part = mapLeaves(args, dims, (tensor, dim) => tensor.narrow(dim, start, length)) as unknown[]
        parts.push(runBatch(fn, part, dims, length, outDims, randomness))
      }
      const places = spreadOver('vmap: outDims', outDims, parts[0], isOutDim)
      const columns = parts.map((part) => leavesOf(part) as Tensor[])
      return treeLike(
        parts[0],
        places.map((dim, i) =>
          ops.cat(
            columns.map((column) => column[i] as Tensor),
            dim,
          ),
        ),
      )
    })
}

/** Return the batch dimension of each leaf, counted from the first. */
function batchDims(inDims: Dims, args: readonly unknown[]): (number | null)[] {
  const leaves = leavesOf(args)
  return spreadOver('vmap: inDims', inDims, args, isInDim).map((dim, i) => {
    if (dim === null) return null
    const leaf = leaves[i]
    if (!(leaf instanceof Tensor)) {
      throw new ConfigError(
        `vmap: expected tensors where inDims has a dimension, got ${describe(leaf)}. Set its inDims to null`,
      )
    }
    const { ndim } = leaf
    if (Number.isInteger(dim) && dim >= -ndim && dim < ndim) return dim < 0 ? dim + ndim : dim
    throw new IndexError(
      `vmap: expected inDims to name one of the ${ndim} dimensions of a tensor of shape [${leaf.shape}], got ${dim}`,
      { dim },
    )
  })
}

function batchSize(args: readonly unknown[], dims: readonly (number | null)[]): number {
  const leaves = leavesOf(args)
  const sizes = dims.flatMap((dim, i) => (dim === null ? [] : [(leaves[i] as Tensor).size(dim)]))
  const [size] = sizes
  if (size === undefined) throw new ConfigError('vmap: expected a batch dimension in at least one argument, got none')
  if (sizes.every((other) => other === size)) return size
  throw new ShapeError(`vmap: expected batch dimensions of one size, got sizes ${[...new Set(sizes)].join(', ')}`)
}

function mapLeaves(
  args: Tree,
  dims: readonly (number | null)[],
  change: (tensor: Tensor, dim: number) => Tensor,
): Tree {
  let next = 0
  return mapTree(args, (leaf) => {
    const dim = dims[next] ?? null
    next += 1
    return dim === null ? leaf : change(leaf as Tensor, dim)
  })
}

function runBatch(
  fn: TensorFunction,
  args: readonly unknown[],
  dims: readonly (number | null)[],
  size: number,
  outDims: Dims,
  randomness: string,
): Tree {
  return atLevel(
    'vmap',
    (level) => {
      const batched = mapLeaves(args, dims, (tensor, dim) => batch(tensor, dim, level)) as unknown[]
      const result = run('vmap', fn, batched)
      const outputs = tensorsOf('vmap', 'the result of the function', result)
      const places = spreadOver('vmap: outDims', outDims, result, isOutDim)
      return treeLike(
        result,
        outputs.map((output, i) => unbatch(output, level, size, places[i] as number)),
      )
    },
    size,
    randomness,
  )
}
