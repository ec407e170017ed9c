/** Layers and losses as functions of tensors, without state. Shapes as in PyTorch's torch.nn.functional. */

import { requireOneOf, requireOptions } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { op } from '../native/call.js'
import { arange, noGrad, ops, scope, type Tensor } from '../tensor/index.js'
import {
  badIndices,
  explain,
  notFloating,
  otherRank,
  otherSize,
  otherType,
  requireNumbers,
  requireTensors,
} from './check.js'

export {
  alphaDropout,
  type DropoutOptions,
  dropout,
  dropout1d,
  dropout2d,
  dropout3d,
  featureAlphaDropout,
} from './dropout.js'
export * from './losses.js'
export * from './resize.js'

// ---- activations

/** max(x, 0) */
export const relu = (input: Tensor): Tensor => ops.relu(input)

/** x Φ(x), exact or by the tanh formula. */
export const gelu = (input: Tensor, options: { approximate?: 'none' | 'tanh' } = {}): Tensor => {
  requireOptions('gelu', options, ['approximate'])
  const { approximate = 'none' } = options
  return ops.gelu(input, { approximate })
}

/** x sigmoid(x) */
export const silu = (input: Tensor): Tensor => ops.silu(input)

export const softmax = (input: Tensor, dim: number): Tensor => ops.softmax(input, dim)

export const logSoftmax = (input: Tensor, dim: number): Tensor => ops.logSoftmax(input, dim)

/** Apply softmax to -x. */
export function softmin(input: Tensor, dim: number): Tensor {
  requireTensors('softmin', input)
  return scope(() => ops.softmax(input.neg(), dim))
}

/** x / (1 + |x|) */
export function softsign(input: Tensor): Tensor {
  requireTensors('softsign', input)
  return scope(() => input.div(input.abs().add(1)))
}

/** x - tanh(x) */
export function tanhshrink(input: Tensor): Tensor {
  requireTensors('tanhshrink', input)
  return scope(() => input.sub(input.tanh()))
}

/** Split `dim` into halves a and b: a sigmoid(b). */
export const glu = (input: Tensor, dim = -1): Tensor => ops.glu(input, dim)

// ---- linear, convolution, embedding

const fastLinear = op('voxtorch::linear')

/** Multiply input [..., in] by weight [out, in] transposed, and add bias [out]. */
export function linear(input: Tensor, weight: Tensor, bias: Tensor | null = null): Tensor {
  try {
    return fastLinear(input, weight, bias) as Tensor
  } catch (error) {
    throw explain(error, () => [
      notFloating('linear', input),
      weight.ndim === 2 && otherSize('linear', input, -1, weight.size(1)),
      otherType('linear', input, weight),
    ])
  }
}

export interface ConvOptions {
  bias?: Tensor | null
  stride?: number | number[]
  /** Zeros added at both ends, or 'valid' (none), or 'same' (output as long as the input; stride 1). */
  padding?: number | number[] | 'valid' | 'same'
  dilation?: number | number[]
  groups?: number
}

/** Convolve input [batch, in, length] (or [in, length]) with weight [out, in / groups, kernel]. */
export const conv1d = (input: Tensor, weight: Tensor, options: ConvOptions = {}): Tensor =>
  convolution(ops.conv1d, 1, input, weight, options)

/** Convolve input [batch, in, height, width] (or [in, height, width]) with weight [out, in / groups, kernel, kernel]. */
export const conv2d = (input: Tensor, weight: Tensor, options: ConvOptions = {}): Tensor =>
  convolution(ops.conv2d, 2, input, weight, options)

function convolution(
  run: typeof ops.conv1d,
  dims: number,
  input: Tensor,
  weight: Tensor,
  options: ConvOptions,
): Tensor {
  requireOptions(`conv${dims}d`, options, ['bias', 'stride', 'padding', 'dilation', 'groups'])
  const { bias = null, stride = 1, padding = 0, dilation = 1, groups = 1 } = options
  const list = (value: number | number[]) => (typeof value === 'number' ? Array<number>(dims).fill(value) : value)
  try {
    // A string selects the overload with named padding; the generated types allow one overload at a time.
    const pad = typeof padding === 'string' ? (padding as unknown as number[]) : list(padding)
    return run(input, weight, bias, list(stride), pad, list(dilation), groups)
  } catch (error) {
    const where = `conv${dims}d`
    throw explain(error, () => [
      notFloating(where, input),
      otherRank(where, input, [dims + 1, dims + 2], `[batch, channels, ${dims === 1 ? 'length' : 'height, width'}]`),
      otherSize(where, input, -dims - 1, weight.size(1) * groups),
      otherType(where, input, weight),
    ])
  }
}

/**
 * Look up rows of weight [count, dim] by integer indices [...]: [..., dim]. Row `paddingIdx` (negative counts from the end)
 * gets no gradient.
 */
export function embedding(indices: Tensor, weight: Tensor, options: { paddingIdx?: number | null } = {}): Tensor {
  requireOptions('embedding', options, ['paddingIdx'])
  const { paddingIdx = null } = options
  requireTensors('embedding', indices, weight)
  if (paddingIdx !== null) requireNumbers('embedding', { paddingIdx })
  // In ATen -1 means no padding index.
  const padding = paddingIdx === null ? -1 : paddingIdx < 0 ? paddingIdx + weight.size(0) : paddingIdx
  try {
    return ops.embedding(weight, indices, padding)
  } catch (error) {
    throw explain(error, () => [badIndices('embedding', indices, weight.size(0))])
  }
}

export interface EmbeddingBagOptions {
  /** First index of each bag among one-dimensional indices, [bags]; none for indices [bags, length]. */
  offsets?: Tensor | null
  /** Reduction of a bag's rows. Default: 'mean'. */
  mode?: 'sum' | 'mean' | 'max'
  /** Factor of each row, in the indices' shape; for 'sum' only. */
  perSampleWeights?: Tensor | null
  /** Whether `offsets` ends with the number of indices. Default: false. */
  includeLastOffset?: boolean
  /** Row that is ignored and gets no gradient; negative counts from the end. */
  paddingIdx?: number | null
  /** Divide gradients by the number of an index's lookups; not for 'max'. Default: false. */
  scaleGradByFreq?: boolean
  /** Make the gradient of the weight a sparse tensor; not for 'max'. Default: false. */
  sparse?: boolean
  /** Maximum norm: rows that are looked up and longer are scaled down to it in place. */
  maxNorm?: number | null
  /** Order of that norm. Default: 2. */
  normType?: number
}

const BAG = [
  'offsets',
  'mode',
  'perSampleWeights',
  'includeLastOffset',
  'paddingIdx',
  'scaleGradByFreq',
  'sparse',
  'maxNorm',
  'normType',
]

/** Return sums, means or maxima over bags of rows of weight [count, dim] by integer indices: [bags, dim]. */
export function embeddingBag(indices: Tensor, weight: Tensor, options: EmbeddingBagOptions = {}): Tensor {
  const where = 'embeddingBag'
  requireOptions(where, options, BAG)
  requireTensors(where, indices, weight)
  const { mode = 'mean', perSampleWeights = null, paddingIdx = null, maxNorm = null, normType = 2, ...rest } = options
  const { offsets = null, includeLastOffset = false, scaleGradByFreq = false, sparse = false } = rest
  requireOneOf(where, 'mode', mode, ['sum', 'mean', 'max'])
  const flat = indices.ndim === 1
  if (flat === (offsets === null)) {
    throw new ConfigError(
      `${where}: expected offsets with one-dimensional indices, and none with two-dimensional ones`,
      {},
    )
  }
  if (perSampleWeights !== null && mode !== 'sum') {
    throw new ConfigError(`${where}: expected mode 'sum' with perSampleWeights, got '${mode}'`, { mode })
  }
  return scope(() => {
    if (maxNorm !== null) noGrad(() => weight.embeddingRenorm_(indices.contiguous().flatten(), maxNorm, normType))
    const starts = offsets ?? arange(0, indices.numel(), Math.max(1, indices.size(1)), { dtype: indices.dtype })
    const [bags] = ops.embeddingBag(weight, flat ? indices : indices.flatten(), starts, {
      mode,
      scaleGradByFreq,
      sparse,
      perSampleWeights: flat || perSampleWeights === null ? perSampleWeights : perSampleWeights.flatten(),
      includeLastOffset,
      paddingIdx,
    })
    return bags
  })
}

/** Encode integer classes [...] as int64 zeros and ones [..., numClasses]; -1 (default) uses the greatest class + 1. */
export const oneHot = (classes: Tensor, numClasses = -1): Tensor => ops.oneHot(classes, numClasses)

// ---- normalization

export interface LayerNormOptions {
  weight?: Tensor | null
  bias?: Tensor | null
  /** Added to the variance. Default: 1e-5. */
  eps?: number
}

const fastLayerNorm = op('voxtorch::layer_norm')

/** Normalize over the trailing dimensions, which must equal `normalizedShape`. */
export function layerNorm(input: Tensor, normalizedShape: number[], options: LayerNormOptions = {}): Tensor {
  requireOptions('layerNorm', options, ['weight', 'bias', 'eps'])
  const { weight = null, bias = null, eps = 1e-5 } = options
  try {
    return fastLayerNorm(input, normalizedShape, weight, bias, eps)
  } catch (error) {
    throw explain(error, () => [
      notFloating('layerNorm', input),
      ...normalizedShape.map((size, i) => otherSize('layerNorm', input, i - normalizedShape.length, size)),
    ])
  }
}

/** Return x / sqrt(mean(x²) + eps) over the trailing dimensions; `eps` null uses the dtype's machine epsilon. */
export function rmsNorm(
  input: Tensor,
  normalizedShape: number[],
  options: { weight?: Tensor | null; eps?: number | null } = {},
): Tensor {
  requireOptions('rmsNorm', options, ['weight', 'eps'])
  const { weight = null, eps = null } = options
  try {
    return ops.rmsNorm(input, normalizedShape, weight, eps)
  } catch (error) {
    throw explain(error, () => [
      notFloating('rmsNorm', input),
      ...normalizedShape.map((size, i) => otherSize('rmsNorm', input, i - normalizedShape.length, size)),
    ])
  }
}

/**
 * Return x / (k + alpha mean(x²))^beta, with the mean over `size` neighboring channels of input [batch, channels, ...]
 * (Krizhevsky et al. 2012).
 */
export function localResponseNorm(
  input: Tensor,
  size: number,
  options: { alpha?: number; beta?: number; k?: number } = {},
): Tensor {
  const where = 'localResponseNorm'
  requireOptions(where, options, ['alpha', 'beta', 'k'])
  const { alpha = 1e-4, beta = 0.75, k = 1 } = options
  requireNumbers(where, { size, alpha, beta, k })
  const wrong = otherRank(where, input, [3, 4, 5, 6], '[batch, channels, ...]')
  if (wrong) throw wrong
  return scope(() => {
    const [batch, channels] = input.shape as [number, number]
    const rows = input.square().reshape(batch, 1, channels, -1)
    const padded = ops.pad(rows, [0, 0, Math.floor(size / 2), Math.floor((size - 1) / 2)])
    const mean = ops.avgPool2d(padded, [size, 1], [1, 1]).reshape(input.shape)
    return input.div(mean.mul(alpha).add(k).pow(beta))
  })
}

/** Return x / max(|x|, eps), with the norm of order `p` along `dim`. */
export function normalize(input: Tensor, options: { p?: number; dim?: number; eps?: number } = {}): Tensor {
  requireOptions('normalize', options, ['p', 'dim', 'eps'])
  const { p = 2, dim = 1, eps = 1e-12 } = options
  requireTensors('normalize', input)
  return scope(() => input.div(ops.linalgVectorNorm(input, p, [dim], true).clampMin(eps)))
}

/** Return the cosine of the angle between x1 and x2 along `dim` (default 1). */
export const cosineSimilarity = (x1: Tensor, x2: Tensor, options: { dim?: number; eps?: number } = {}): Tensor => {
  requireOptions('cosineSimilarity', options, ['dim', 'eps'])
  const { dim = 1, eps = 1e-8 } = options
  return ops.cosineSimilarity(x1, x2, dim, eps)
}

// ---- attention

export interface AttentionOptions {
  /** Boolean, true where attention is allowed; or floating point, added to the scores. Broadcast to [..., L, S]. */
  attnMask?: Tensor | null
  dropoutP?: number
  /** Position i attends only to positions up to i. */
  isCausal?: boolean
  /** Factor of the scores. Default: 1 / sqrt(dim). */
  scale?: number | null
  /** Key and value may have fewer heads, each shared by several query heads. */
  enableGqa?: boolean
}

const ATTENTION = ['attnMask', 'dropoutP', 'isCausal', 'scale', 'enableGqa']

/** Return softmax(query keyᵀ scale + mask) value; query [..., L, dim], key [..., S, dim], value [..., S, dimV]. */
export const scaledDotProductAttention = (
  query: Tensor,
  key: Tensor,
  value: Tensor,
  options: AttentionOptions = {},
): Tensor => {
  requireOptions('scaledDotProductAttention', options, ATTENTION)
  const { attnMask = null, dropoutP = 0, isCausal = false, scale = null, enableGqa = false } = options
  return ops.scaledDotProductAttention(query, key, value, attnMask, dropoutP, isCausal, { scale, enableGqa })
}

// ---- resizing

export type PaddingMode = 'constant' | 'reflect' | 'replicate' | 'circular'

/**
 * Pad a tensor at both ends: `padding` is [before, after] of the last dimension, then of the second to last, …; negative
 * numbers crop.
 */
export const pad = (
  input: Tensor,
  padding: number[],
  options: { mode?: PaddingMode; value?: number | null } = {},
): Tensor => {
  requireOptions('pad', options, ['mode', 'value'])
  const { mode = 'constant', value = null } = options
  return ops.pad(input, padding, mode, value)
}
