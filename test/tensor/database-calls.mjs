// From PyTorch's names to voxtorch's: `nn.functional.conv1d` is ops.conv1d, `linalg.norm` ops.linalgNorm, and what is not
// ATen's has its call here.
import * as voxtorch from 'voxtorch'

const { ops, functional, Tensor } = voxtorch
/** @type {Record<string, unknown>} */
const library = { ...voxtorch }

const camel = (name) => name.replace(/(?<=[A-Za-z0-9])_([a-zA-Z0-9])/g, (_, letter) => letter.toUpperCase())
const options = (kwargs) => Object.fromEntries(Object.entries(kwargs).map(([key, value]) => [camel(key), value]))
const given = (args, kwargs) => (Object.keys(kwargs).length === 0 ? args : [...args, options(kwargs)])

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
  const short = camel(
    name
      .replace(/^(nn\.functional|torch\.ops\.aten|torch)\./, '')
      .replaceAll('.', '_')
      .replace(/^_ops_aten_/, ''),
  )
  // Reductions by name are those of functional.
  if (typeof kwargs.reduction === 'string' && functional[short]) return functional[short](input, ...given(args, kwargs))
  if (typeof ops[short] === 'function') return ops[short](input, ...given(args, kwargs))
  if (typeof functional[short] === 'function' && name.startsWith('nn.functional'))
    return functional[short](input, ...given(args, kwargs))
  if (input instanceof Tensor && typeof input[short] === 'function') return input[short](...given(args, kwargs))
  if (input instanceof Tensor && short in input) return input[short]
  if (typeof library[short] === 'function') return library[short](input, ...given(args, kwargs))
  return undefined
}

const REDUCTIONS = { none: 0, mean: 1, sum: 2 }
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
const list = (value, dims) => (Array.isArray(value) ? value : Array(dims).fill(Number(value)))

const adaptive =
  (dims, max) =>
  (input, ...args) => {
    const { outputSize, returnIndices = false } = named(['outputSize', 'returnIndices'], args)
    const sizes = list(outputSize, dims).map((size, i) => size ?? input.shape.at(i - dims))
    const result = ops[`adaptive${max ? 'Max' : 'Avg'}Pool${dims}d`](input, sizes)
    return max && !returnIndices ? result[0] : result
  }
const maxPool =
  (dims) =>
  (input, ...args) => {
    const names = ['kernelSize', 'stride', 'padding', 'dilation', 'ceilMode', 'returnIndices']
    const { kernelSize, stride, padding = 0, dilation = 1, ceilMode = false, returnIndices } = named(names, args)
    const steps = stride === null || stride === undefined || stride.length === 0 ? kernelSize : stride
    const values = [kernelSize, steps, padding, dilation].map((value) => list(value, dims))
    return ops[`maxPool${dims}d${returnIndices ? 'WithIndices' : ''}`](input, ...values, ceilMode)
  }
const maxUnpool =
  (dims) =>
  (input, indices, ...args) => {
    const {
      kernelSize,
      stride,
      padding = 0,
      outputSize,
    } = named(['kernelSize', 'stride', 'padding', 'outputSize'], args)
    const [kernel, pad] = [list(kernelSize, dims), list(padding, dims)]
    const step = stride === null || stride === undefined ? kernel : list(stride, dims)
    const sizes = outputSize
      ? outputSize.slice(-dims)
      : kernel.map((size, i) => (input.shape.at(i - dims) - 1) * step[i] + size - 2 * pad[i])
    return dims === 3 ? ops.maxUnpool3d(input, indices, sizes, step, pad) : ops.maxUnpool2d(input, indices, sizes)
  }
const fractional =
  (dims) =>
  (input, ...args) => {
    const names = ['kernelSize', 'outputSize', 'outputRatio', 'returnIndices', 'RandomSamples']
    const { kernelSize, outputSize, outputRatio, returnIndices } = named(names, args)
    const ratio =
      outputRatio === undefined || outputRatio === null ? null : list(outputRatio?.value ?? outputRatio, dims)
    const sizes = ratio
      ? ratio.map((value, i) => Math.trunc(input.shape.at(i - dims) * (value?.value ?? value)))
      : list(outputSize, dims)
    const batch = input.ndim === dims + 1 ? 1 : input.shape[0]
    const samples = voxtorch.rand([batch, input.shape.at(-dims - 1), dims], { dtype: input.dtype })
    const result = flatList(ops[`fractionalMaxPool${dims}d`](input, list(kernelSize, dims), sizes, samples))
    return returnIndices ? result : result[0]
  }
const interpolate = (input, names, args, fixed) => {
  const asked = Object.entries(named(names, args)).filter(([, value]) => value !== null && value !== undefined)
  const plain = (value) => (Array.isArray(value) ? value.map(plain) : (value?.value ?? value))
  return functional.interpolate(input, {
    ...Object.fromEntries(asked.map(([key, value]) => [key, plain(value)])),
    ...fixed,
  })
}
const flatList = (result) => (Array.isArray(result) ? result : Object.values(result))
const unique =
  (names, run) =>
  (input, ...args) => {
    const asked = named(names, args)
    const result = flatList(run(input, asked))
    return [result[0], ...(asked.returnInverse ? [result[1]] : []), ...(asked.returnCounts ? [result[2]] : [])]
  }
const drop =
  (name, on = true) =>
  (input, ...args) => {
    const { p = 0.5, training = on } = named(['p', 'training'], args)
    return functional[name](input, Number(p?.value ?? p), { training })
  }
const converted = (dtype) => (input) => input.to(dtype)
const loss =
  (name, names) =>
  (input, ...args) => {
    const tensors = args.filter((value) => value instanceof Tensor)
    const asked = named(names, args.slice(tensors.length))
    if (typeof asked.reduction === 'string') asked.reduction = REDUCTIONS[asked.reduction]
    for (const key of ['sizeAverage', 'reduce']) delete asked[key]
    return ops[name](input, ...tensors, asked)
  }

const calls = {
  'normal/number_mean': (std, mean, ...rest) => ops.normal(mean, std, ...rest),
  // The database has the other function under this name.
  rand_like: (input, ...args) => ops.randnLike(input, ...args),
  where: (input, condition, other) => ops.where(condition, input, other),
  zero_: (input) => input.clone().zero_(),
  H: (input) => input.adjoint(),
  'nn.functional.upsample_nearest': (input, ...args) => interpolate(input, ['size', 'scaleFactor'], args, {}),
  'nn.functional.upsample_bilinear': (input, ...args) =>
    interpolate(input, ['size', 'scaleFactor'], args, { mode: 'bilinear', alignCorners: true }),
  'nn.functional.hinge_embedding_loss': loss('hingeEmbeddingLoss', ['margin']),
  'nn.functional.poisson_nll_loss': (input, target, ...args) => {
    const names = ['logInput', 'full', 'sizeAverage', 'eps', 'reduce', 'reduction']
    const { logInput = true, full = false, eps = 1e-8, reduction = 'mean' } = named(names, args)
    return ops.poissonNllLoss(input, target, logInput, full, Number(eps?.value ?? eps), REDUCTIONS[reduction])
  },
  'special.polygamma': (input, n) => ops.specialPolygamma(n, input),
  'linalg.pinv/singular': (a, b) => ops.linalgPinv(a.matmul(b.mT)),
  'linalg.lstsq/grad_oriented': (...args) => flatList(ops.linalgLstsq(...args)).slice(0, 2),
  'nn.functional.softmin': (input, ...args) => {
    const { dim, dtype } = named(['dim', 'stacklevel', 'dtype'], args)
    return functional.softmin(dtype ? input.to(dtype) : input, dim)
  },
  'nn.functional.local_response_norm': (input, size, ...args) =>
    functional.localResponseNorm(
      input,
      size,
      Object.fromEntries(
        Object.entries(named(['alpha', 'beta', 'k'], args)).map(([key, value]) => [key, Number(value?.value ?? value)]),
      ),
    ),
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
  'nn.functional.adaptive_avg_pool1d': adaptive(1, false),
  'nn.functional.adaptive_avg_pool2d': adaptive(2, false),
  'nn.functional.adaptive_avg_pool3d': adaptive(3, false),
  'nn.functional.adaptive_max_pool1d': adaptive(1, true),
  'nn.functional.adaptive_max_pool2d': adaptive(2, true),
  'nn.functional.adaptive_max_pool3d': adaptive(3, true),
  'nn.functional.max_pool1d': maxPool(1),
  'nn.functional.max_pool2d': maxPool(2),
  'nn.functional.max_pool3d': maxPool(3),
  'nn.functional.max_unpool2d': maxUnpool(2),
  'nn.functional.max_unpool3d': maxUnpool(3),
  'nn.functional.fractional_max_pool2d': fractional(2),
  'nn.functional.fractional_max_pool3d': fractional(3),
  'nn.functional.instance_norm': (input, ...args) => {
    const names = ['runningMean', 'runningVar', 'weight', 'bias', 'useInputStats', 'momentum', 'eps']
    const { runningMean = null, runningVar = null, weight = null, bias = null, ...rest } = named(names, args)
    const { useInputStats = true, momentum = 0.1, eps = 1e-5 } = rest
    return ops.instanceNorm(input, weight, bias, runningMean, runningVar, useInputStats, momentum, eps, false)
  },
  'nn.functional.batch_norm': (input, ...args) => {
    const names = ['runningMean', 'runningVar', 'weight', 'bias', 'training', 'momentum', 'eps']
    const { runningMean = null, runningVar = null, weight = null, bias = null, ...rest } = named(names, args)
    const { training = false, momentum = 0.1, eps = 1e-5 } = rest
    return ops.batchNorm(input, weight, bias, runningMean, runningVar, training, momentum, eps, false)
  },
  'nn.functional.unfold': (input, ...args) => {
    const {
      kernelSize,
      dilation = 1,
      padding = 0,
      stride = 1,
    } = named(['kernelSize', 'dilation', 'padding', 'stride'], args)
    return ops.im2col(input, ...[kernelSize, dilation, padding, stride].map((value) => list(value, 2)))
  },
  'nn.functional.fold': (input, ...args) => {
    const names = ['outputSize', 'kernelSize', 'dilation', 'padding', 'stride']
    const { outputSize, kernelSize, dilation = 1, padding = 0, stride = 1 } = named(names, args)
    return ops.col2im(input, ...[outputSize, kernelSize, dilation, padding, stride].map((value) => list(value, 2)))
  },
  'nn.functional.interpolate': (input, ...args) =>
    interpolate(input, ['size', 'scaleFactor', 'mode', 'alignCorners', 'recomputeScaleFactor', 'antialias'], args, {}),
  'nn.functional.grid_sample': (input, grid, ...args) =>
    functional.gridSample(input, grid, named(['mode', 'paddingMode', 'alignCorners'], args)),
  'nn.functional.affine_grid': (theta, ...args) => {
    const { size, alignCorners = false } = named(['size', 'alignCorners'], args)
    return functional.affineGrid(theta, size, { alignCorners })
  },
  'nn.functional.embedding_bag': (weight, indices, offsets, ...args) => {
    if (offsets !== undefined && !(offsets instanceof Tensor)) [offsets, args] = [null, [offsets, ...args]]
    return functional.embeddingBag(indices, weight, { offsets, ...named([], args) })
  },
  'nn.functional.logsigmoid': (input) => ops.logSigmoid(input),
  'nn.functional.dropout': drop('dropout'),
  'nn.functional.dropout2d': drop('dropout2d'),
  'nn.functional.dropout3d': drop('dropout3d'),
  'nn.functional.alpha_dropout': drop('alphaDropout', false),
  'nn.functional.feature_alpha_dropout': drop('featureAlphaDropout', false),
  'nn.functional.soft_margin_loss': loss('softMarginLoss', []),
  'nn.functional.margin_ranking_loss': loss('marginRankingLoss', ['margin']),
  'nn.functional.multilabel_margin_loss': loss('multilabelMarginLoss', []),
  'nn.functional.triplet_margin_loss': loss('tripletMarginLoss', ['margin', 'p', 'eps', 'swap']),
}
