import { asTyped, shown } from '../base/arguments.js'
import { elementsOf, isList } from '../base/check.js'
import { ConfigError, DTypeError, IndexError } from '../base/errors.js'
import { op } from '../native/call.js'
import { isOptions } from '../native/encode.js'
import { isHalf } from './dtype.js'
import { scope } from './scope.js'
import { isTensor, type Tensor } from './tensor.js'

// Arguments of torch's Python functions beyond ATen's operators of the same name. Each form returns the operator that
// implements it and its arguments, or null if they are already ATen's. The generator has their types (`pythonForms` in
// generate.ts).

export type Form = (args: readonly unknown[]) => [operator: string, args: unknown[]] | null

/** Return the arguments by name; a last plain object is read by its keys. */
function named(where: string, args: readonly unknown[], names: readonly string[]): Record<string, unknown> {
  const found: Record<string, unknown> = {}
  args.forEach((value, i) => {
    if (i > 0 && i === args.length - 1 && isOptions(value)) Object.assign(found, value)
    else if (i < names.length) found[names[i]!] = value
    else throw new ConfigError(`${where}: expected at most ${names.length} arguments`, {})
  })
  const wrong = Object.keys(found).find((name) => !names.includes(name))
  if (wrong !== undefined) throw new ConfigError(`${where}: expected a known option, got '${wrong}'`, { key: wrong })
  return found
}

/** Return whether an argument, by position or name, is a string. */
const isText = (args: readonly unknown[], place: number, name: string): boolean => {
  const last = args.at(-1)
  return typeof args[place] === 'string' || (isOptions(last) && typeof last[name] === 'string')
}

/** Convert `nonzero({ asTuple: true })`: the indices of each dimension. */
const nonzero: Form = (args) => {
  const last = args.at(-1)
  if (!isOptions(last) || !Object.hasOwn(last, 'asTuple')) return null
  const { self, asTuple } = named('nonzero', args, ['self', 'asTuple'])
  if (typeof asTuple !== 'boolean')
    throw new ConfigError(`nonzero: expected asTuple to be a boolean, got ${shown(asTuple)}`, {})
  return [asTuple ? 'aten::nonzero_numpy' : 'aten::nonzero', [self]]
}

/** Convert `norm('fro')` and `norm('nuc')`, over all elements of the tensor or the dimensions given. */
const norm: Form = (args) => {
  if (!isText(args, 1, 'p')) return null
  const {
    self,
    p,
    dim = null,
    keepdim = false,
    dtype = null,
  } = named('norm', args, ['self', 'p', 'dim', 'keepdim', 'dtype'])
  if (p !== 'fro' && p !== 'nuc') {
    throw new ConfigError(`norm: expected p to be a number, 'fro' or 'nuc', got ${shown(p)}`, { p })
  }
  if (p === 'fro' && (dim === null || typeof dim === 'number' || (dim as unknown[]).length <= 2)) {
    return ['aten::linalg_vector_norm', [self, 2, typeof dim === 'number' ? [dim] : dim, keepdim, { dtype }]]
  }
  const dims = dim === null && isTensor(self) ? Array.from({ length: self.ndim }, (_, i) => i) : dim
  return ['aten::linalg_matrix_norm', [self, p, typeof dims === 'number' ? [dims] : dims, keepdim, { dtype }]]
}

/**
 * Convert `tensordot(a, b, { dims: 2 })`: the last two dimensions of a with the first two of b; also `{ dims: [[...], [...]]
 * }`.
 */
const tensordot: Form = (args) => {
  const last = args.at(-1)
  const byName = isOptions(last) && Object.hasOwn(last, 'dims')
  if (!byName && !(args.length === 3 && (typeof args[2] === 'number' || isPair(args[2])))) return null
  const { self, other, dims } = named('tensordot', args, ['self', 'other', 'dims'])
  if (isPair(dims)) return ['aten::tensordot', [self, other, ...dims]]
  const most = isTensor(self) && isTensor(other) ? Math.min(self.ndim, other.ndim) : 0
  if (!Number.isInteger(dims) || (dims as number) < 0 || (dims as number) > most) {
    throw new ConfigError(
      `tensordot: expected dims to be two lists or a number of dimensions that both tensors have, got ${shown(dims)}`,
      {
        dims,
      },
    )
  }
  const first = Array.from({ length: dims as number }, (_, i) => i)
  return ['aten::tensordot', [self, other, first.map((i) => i - first.length), first]]
}

const isPair = (value: unknown): value is [number[], number[]] =>
  Array.isArray(value) && value.length === 2 && value.every(Array.isArray)

const CDIST = ['use_mm_for_euclid_dist_if_necessary', 'use_mm_for_euclid_dist', 'donot_use_mm_for_euclid_dist']

/** Convert `cdist` with its computation mode by name. */
const cdist: Form = (args) => {
  if (!isText(args, 3, 'computeMode')) return null
  const { x1, x2, p = 2, computeMode } = named('cdist', args, ['x1', 'x2', 'p', 'computeMode'])
  const mode = CDIST.indexOf(computeMode as string)
  if (mode < 0) throw new ConfigError(`cdist: expected computeMode to be one of ${CDIST.join(', ')}`, { computeMode })
  return ['aten::cdist', [x1, x2, p, mode === 0 ? null : mode]]
}

const BAGS = ['sum', 'mean', 'max']

/** Convert `embeddingBag` with its mode by name. */
const embeddingBag: Form = (args) => {
  if (!isText(args, 4, 'mode')) return null
  const names = ['weight', 'indices', 'offsets', 'scaleGradByFreq', 'mode', 'sparse', 'perSampleWeights']
  const { mode, ...rest } = named('embeddingBag', args, [...names, 'includeLastOffset', 'paddingIdx'])
  if (!BAGS.includes(mode as string)) {
    throw new ConfigError(`embeddingBag: expected mode to be 'sum', 'mean' or 'max', got ${shown(mode)}`, { mode })
  }
  const { weight, indices, offsets, ...options } = rest
  return ['aten::embedding_bag', [weight, indices, offsets, { ...options, mode: BAGS.indexOf(mode as string) }]]
}

const scalarTensor = op('aten::scalar_tensor')

/**
 * Convert `mul_` of a bfloat16 or float16 tensor by a number, as Python calls it: by a tensor of that number. In ATen's
 * `mul_.Scalar` the CPU's kernel rounds the number to half precision: 0.9 becomes 0.8984 in bfloat16.
 */
const multiply: Form = (args) => {
  const [self, other] = args
  if (args.length !== 2 || typeof other !== 'number' || !isTensor(self)) return null
  if (!isHalf(self.dtype) || self.device !== 'cpu') return null
  return ['aten::mul_', [self, scalarTensor(other, { dtype: 'float64', device: 'cpu' })]]
}

export const pythonForms: Readonly<Record<string, Form>> = {
  ...{ nonzero, norm, tensordot, cdist, embeddingBag, mul_: multiply, multiply_: multiply },
}

/**
 * Return the coordinates in a tensor of `shape` of flat `indices`, int64 [...]: a tensor [...] for each dimension, like NumPy's
 * unravel_index.
 * @throws IndexError if an index is out of range
 */
export function unravelIndex(indices: Tensor, shape: number | readonly number[]): Tensor[] {
  try {
    return unravelled(indices, shape)
  } catch (error) {
    throw asTyped('unravelIndex', error)
  }
}

function unravelled(indices: Tensor, shape: number | readonly number[]): Tensor[] {
  const given = typeof shape === 'number' ? [shape] : shape
  if (!isTensor(indices) || !/^u?int/.test(indices.dtype)) {
    throw new DTypeError(
      `unravelIndex: expected a tensor of integers, got ${isTensor(indices) ? indices.dtype : shown(indices)}`,
    )
  }
  const wrong = () => new ConfigError('unravelIndex: expected shape to be a list of integers of at least 0', { shape })
  if (!isList(given)) throw wrong()
  const sizes = elementsOf('unravelIndex', 'shape', given, (size) => {
    if (!Number.isSafeInteger(size) || (size as number) < 0) throw wrong()
    return size as number
  })
  const count = sizes.reduce((product, size) => product * size, 1)
  return scope(() => {
    if (indices.numel() > 0 && indices.device !== 'meta') {
      const { min, max } = indices.aminmax()
      if (Number(min.item()) < 0 || Number(max.item()) >= count) {
        throw new IndexError(`unravelIndex: expected indices within [${sizes}], got ${min.item()} to ${max.item()}`, {
          shape,
        })
      }
    }
    // The result is int64 for any integer indices, as in PyTorch, which divides by an int64 tensor of the sizes.
    const places = indices.long()
    let step = count
    return sizes.map((size) => {
      step = size === 0 ? 1 : step / size
      return places.div(step, { roundingMode: 'floor' }).remainder(size)
    })
  })
}
