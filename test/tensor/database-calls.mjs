// From PyTorch's names to voxtorch's: `nn.functional.conv1d` is functional.conv1d, `linalg.norm` is linalg.norm, both with the
// arguments of Python; others are in `ops`, and what is not ATen's has its call here.
import * as voxtorch from 'voxtorch'

const { ops, fft, functional, linalg, special, Tensor } = voxtorch
const modules = { 'nn.functional': functional, fft, linalg, special }
/** @type {Record<string, unknown>} */
const library = { ...voxtorch }

const camel = (name) => name.replace(/(?<=[A-Za-z0-9])_([a-zA-Z0-9])/g, (_, letter) => letter.toUpperCase())
const options = (kwargs) => Object.fromEntries(Object.entries(kwargs).map(([key, value]) => [camel(key), value]))
const given = (args, kwargs) => (Object.keys(kwargs).length === 0 ? args : [...args, options(kwargs)])

/** Numbers as users pass them, without the mark of a floating point number. */
const plain = (value) => {
  if (Array.isArray(value)) return value.map(plain)
  if (value === null || typeof value !== 'object' || value instanceof Tensor) return value
  if (Object.getPrototypeOf(value) !== Object.prototype) return value.value
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key.replace(/^_/, ''), plain(item)]))
}

/** What is in memory that nobody wrote: only shapes and dtypes can be compared. */
export const unwritten = new Set([
  'empty',
  'empty_like',
  'empty_permuted',
  'empty_strided',
  'new_empty',
  'new_empty_strided',
])
/** Vectors that are right up to their signs or phases. */
export const unsigned = new Set([
  'linalg.eig', 'linalg.eigh', 'linalg.svd', 'svd', 'pca_lowrank', 'svd_lowrank', 'lobpcg',
]) // biome-ignore format: a list

/** What the operator gives; undefined where there is none of this name. */
export function called({ name, variant }, input, args, { requires_grad: _, ...kwargs }) {
  const special = calls[variant ? `${name}/${variant}` : name] ?? calls[name]
  if (special) return special(input, ...given(args, kwargs))
  const [, module, inner] = /^(nn\.functional|fft|linalg|special)\.(\w+)$/.exec(name) ?? []
  const own = module && modules[module][camel(inner)]
  // In place on a copy: a leaf that requires a gradient refuses it.
  if (own && inner.endsWith('_')) return own(input.clone(), ...plain(given(args, kwargs)))
  if (own)
    return module === 'nn.functional' ? own(input, ...plain(given(args, kwargs))) : own(input, ...given(args, kwargs))
  const short = camel(
    name
      .replace(/^(nn\.functional|torch\.ops\.aten|torch)\./, '')
      .replaceAll('.', '_')
      .replace(/^_ops_aten_/, ''),
  )
  if (typeof ops[short] === 'function') return ops[short](input, ...given(args, kwargs))
  if (input instanceof Tensor && typeof input[short] === 'function') return input[short](...given(args, kwargs))
  if (input instanceof Tensor && short in input) return input[short]
  if (typeof library[short] === 'function') return library[short](input, ...given(args, kwargs))
  return undefined
}

/** The arguments of a function of Python by name. */
const named = (names, args) => {
  const last = args.at(-1)
  const byName =
    last !== null && typeof last === 'object' && Object.getPrototypeOf(last) === Object.prototype && !('re' in last)
  const found = byName ? { ...last } : {}
  const places = byName ? args.slice(0, -1) : args
  places.forEach((value, i) => {
    found[names[i]] = value
  })
  return found
}
const spread =
  (run) =>
  (input, ...args) => {
    const { tensors, rest } = split(args)
    return run(Array.isArray(input) ? input : [input, ...tensors], ...rest)
  }
const split = (args) => ({
  tensors: args.filter((value) => value instanceof Tensor),
  rest: args.filter((value) => !(value instanceof Tensor)),
})
const flatList = (result) => (Array.isArray(result) ? result : Object.values(result))
const unique =
  (names, run) =>
  (input, ...args) => {
    const asked = named(names, args)
    const result = flatList(run(input, asked))
    return [result[0], ...(asked.returnInverse ? [result[1]] : []), ...(asked.returnCounts ? [result[2]] : [])]
  }
const converted = (dtype) => (input) => input.to(dtype)
const calls = {
  'normal/number_mean': (std, mean, ...rest) => ops.normal(mean, std, ...rest),
  // The database has the other function under this name.
  rand_like: (input, ...args) => ops.randnLike(input, ...args),
  where: (input, condition, other) => ops.where(condition, input, other),
  zero_: (input) => input.clone().zero_(),
  H: (input) => input.adjoint(),
  'special.polygamma': (input, n) => special.polygamma(n, input),
  'nn.functional.embedding': (weight, indices, ...args) => functional.embedding(indices, weight, ...plain(args)),
  'linalg.pinv/singular': (a, b) => ops.linalgPinv(a.matmul(b.mT)),
  'linalg.lstsq/grad_oriented': (...args) => flatList(ops.linalgLstsq(...args)).slice(0, 2),
  broadcast_tensors: spread(ops.broadcastTensors),
  block_diag: spread(ops.blockDiag),
  cartesian_prod: spread(ops.cartesianProd),
  meshgrid: spread(ops.meshgrid),
  normal: (input, ...args) =>
    args.length === 2 && args.every((value) => !(value instanceof Tensor)) && input.requiresGrad === false
      ? input.clone().normal_(...args)
      : ops.normal(input, ...args),
  einsum: (tensors, equation) => ops.einsum(equation, tensors),
  polygamma: (input, n) => ops.polygamma(n, input),
  unique: unique(['sorted', 'returnInverse', 'returnCounts', 'dim'], (input, { sorted = true, dim }) =>
    voxtorch.unique(input, { sorted, returnInverse: true, returnCounts: true, dim: dim ?? null }),
  ),
  unique_consecutive: unique(['returnInverse', 'returnCounts', 'dim'], (input, { dim = null }) =>
    ops.uniqueConsecutive(input, true, true, dim),
  ),
  __getitem__: (input, index) => input.at(...(Array.isArray(index) ? index : [index])),
  byte: converted('uint8'),
  char: converted('int8'),
  short: converted('int16'),
  cdouble: converted('complex128'),
  cfloat: converted('complex64'),
  chalf: converted('complex32'),
  double: converted('float64'),
  long: converted('int64'),
  'nn.functional.embedding_bag': (weight, indices, offsets, ...args) => {
    if (offsets !== undefined && !(offsets instanceof Tensor)) [offsets, args] = [null, [offsets, ...args]]
    return functional.embeddingBag(indices, weight, { offsets, ...named([], args) })
  },
}
