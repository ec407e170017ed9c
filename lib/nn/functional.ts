/** Layers and losses as functions of tensors, without state. Shapes as in PyTorch's torch.nn.functional. */

import { optionsOf, shown } from '../native/arguments.js'
import { op } from '../native/call.js'
import { ConfigError } from '../native/errors.js'
import { ops, scope, type Tensor } from '../tensor/index.js'
import {
  badIndices,
  explain,
  notFloating,
  otherRank,
  otherSize,
  otherType,
  requireNumbers,
  requireProbability,
  requireTensors,
} from './check.js'

export * from './losses.js'

// ---- activations

/** max(x, 0) */
export const relu = (input: Tensor): Tensor => ops.relu(input)

/** x Φ(x), exact or by the tanh formula. */
export const gelu = (input: Tensor, options: { approximate?: 'none' | 'tanh' } = {}): Tensor => {
  const { approximate = 'none' } = optionsOf(options)
  return ops.gelu(input, { approximate })
}

/** x sigmoid(x) */
export const silu = (input: Tensor): Tensor => ops.silu(input)

export const softmax = (input: Tensor, dim: number): Tensor => ops.softmax(input, dim)

export const logSoftmax = (input: Tensor, dim: number): Tensor => ops.logSoftmax(input, dim)

/** Halves `dim` into a and b: a sigmoid(b). */
export const glu = (input: Tensor, dim = -1): Tensor => ops.glu(input, dim)

/** Zeroes elements with probability `p` and scales the rest by 1 / (1 - p), while `training` (default). */
export function dropout(input: Tensor, p = 0.5, options: { training?: boolean } = {}): Tensor {
  const { training = true } = optionsOf(options)
  requireProbability('dropout', p)
  return ops.dropout(input, p, training)
}

// ---- linear, convolution, embedding

const fastLinear = op('voxtorch::linear')

/** input [..., in] times weight [out, in] transposed, plus bias [out]. */
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

/** input [batch, in, length] (or [in, length]), weight [out, in / groups, kernel]. */
export const conv1d = (input: Tensor, weight: Tensor, options: ConvOptions = {}): Tensor =>
  convolution(ops.conv1d, 1, input, weight, options)

/** input [batch, in, height, width] (or [in, height, width]), weight [out, in / groups, kernel, kernel]. */
export const conv2d = (input: Tensor, weight: Tensor, options: ConvOptions = {}): Tensor =>
  convolution(ops.conv2d, 2, input, weight, options)

function convolution(
  run: typeof ops.conv1d,
  dims: number,
  input: Tensor,
  weight: Tensor,
  options: ConvOptions,
): Tensor {
  const { bias = null, stride = 1, padding = 0, dilation = 1, groups = 1 } = optionsOf(options)
  const list = (value: number | number[]) => (typeof value === 'number' ? Array<number>(dims).fill(value) : value)
  try {
    // A string chooses the overload with named padding; the generated types want one overload at a time.
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
 * Rows of weight [count, dim] by integer indices [...]: [..., dim]. Row `paddingIdx`, negative from the end, gets no
 * gradient.
 */
export function embedding(indices: Tensor, weight: Tensor, options: { paddingIdx?: number | null } = {}): Tensor {
  const { paddingIdx = null } = optionsOf(options)
  requireTensors('embedding', indices, weight)
  if (paddingIdx !== null) requireNumbers('embedding', { paddingIdx })
  // ATen's -1 means none.
  const padding = paddingIdx === null ? -1 : paddingIdx < 0 ? paddingIdx + weight.size(0) : paddingIdx
  try {
    return ops.embedding(weight, indices, padding)
  } catch (error) {
    throw explain(error, () => [badIndices('embedding', indices, weight.size(0))])
  }
}

/** Integer classes [...] as int64 zeros and ones [..., numClasses]; -1 (default) takes the greatest class + 1. */
export const oneHot = (classes: Tensor, numClasses = -1): Tensor => ops.oneHot(classes, numClasses)

// ---- normalisation

export interface LayerNormOptions {
  weight?: Tensor | null
  bias?: Tensor | null
  /** Default: 1e-5. */
  eps?: number
}

const fastLayerNorm = op('voxtorch::layer_norm')

/** Over the trailing dimensions, which must be `normalizedShape`. */
export function layerNorm(input: Tensor, normalizedShape: number[], options: LayerNormOptions = {}): Tensor {
  const { weight = null, bias = null, eps = 1e-5 } = optionsOf(options)
  try {
    return fastLayerNorm(input, normalizedShape, weight, bias, eps)
  } catch (error) {
    throw explain(error, () => [
      notFloating('layerNorm', input),
      ...normalizedShape.map((size, i) => otherSize('layerNorm', input, i - normalizedShape.length, size)),
    ])
  }
}

/** x / sqrt(mean(x²) + eps), over the trailing dimensions; `eps` null means the dtype's machine epsilon. */
export function rmsNorm(
  input: Tensor,
  normalizedShape: number[],
  options: { weight?: Tensor | null; eps?: number | null } = {},
): Tensor {
  const { weight = null, eps = null } = optionsOf(options)
  try {
    return ops.rmsNorm(input, normalizedShape, weight, eps)
  } catch (error) {
    throw explain(error, () => [
      notFloating('rmsNorm', input),
      ...normalizedShape.map((size, i) => otherSize('rmsNorm', input, i - normalizedShape.length, size)),
    ])
  }
}

/** x / max(|x|, eps), the norm of order `p` along `dim`. */
export function normalize(input: Tensor, options: { p?: number; dim?: number; eps?: number } = {}): Tensor {
  const { p = 2, dim = 1, eps = 1e-12 } = optionsOf(options)
  requireTensors('normalize', input)
  return scope(() => input.div(ops.linalgVectorNorm(input, p, [dim], true).clampMin(eps)))
}

/** cos of the angle between x1 and x2 along `dim` (default 1). */
export const cosineSimilarity = (x1: Tensor, x2: Tensor, options: { dim?: number; eps?: number } = {}): Tensor => {
  const { dim = 1, eps = 1e-8 } = optionsOf(options)
  return ops.cosineSimilarity(x1, x2, dim, eps)
}

// ---- attention

export interface AttentionOptions {
  /** Boolean, true where attention is allowed; or floating point, added to the scores. Broadcast to [..., L, S]. */
  attnMask?: Tensor | null
  dropoutP?: number
  /** Position i sees positions up to i. */
  isCausal?: boolean
  /** Default: 1 / sqrt(dim). */
  scale?: number | null
  /** Key and value may have fewer heads, each used by several query heads. */
  enableGqa?: boolean
}

/** softmax(query keyᵀ scale + mask) value; query [..., L, dim], key [..., S, dim], value [..., S, dimV]. */
export const scaledDotProductAttention = (
  query: Tensor,
  key: Tensor,
  value: Tensor,
  options: AttentionOptions = {},
): Tensor => {
  const { attnMask = null, dropoutP = 0, isCausal = false, scale = null, enableGqa = false } = optionsOf(options)
  return ops.scaledDotProductAttention(query, key, value, attnMask, dropoutP, isCausal, { scale, enableGqa })
}

// ---- resizing

export type PaddingMode = 'constant' | 'reflect' | 'replicate' | 'circular'

/**
 * Adds elements at both ends: `padding` is [before, after] of the last dimension, then of the last but one ...;
 * negative numbers cut.
 */
export const pad = (
  input: Tensor,
  padding: number[],
  options: { mode?: PaddingMode; value?: number | null } = {},
): Tensor => {
  const { mode = 'constant', value = null } = optionsOf(options)
  return ops.pad(input, padding, mode, value)
}

export interface InterpolateOptions {
  /** Size of each spatial dimension after it; or give `scaleFactor`. */
  size?: number | number[]
  scaleFactor?: number | number[]
  /** Default: 'nearest'. 'linear' is for three dimensions, 'bilinear' four, 'trilinear' five. */
  mode?: 'nearest' | 'linear' | 'bilinear' | 'trilinear'
  /** Corner elements, rather than corner edges, coincide. Not for 'nearest'. Default: false. */
  alignCorners?: boolean
}

const LINEAR_RANK = { linear: 3, bilinear: 4, trilinear: 5 }

/** Resizes the spatial dimensions of input [batch, channels, ...spatial] (one to three of them). */
export function interpolate(input: Tensor, options: InterpolateOptions = {}): Tensor {
  const { size, scaleFactor, mode = 'nearest', alignCorners } = optionsOf(options)
  if ((size === undefined) === (scaleFactor === undefined)) {
    throw new ConfigError('interpolate needs either size or scaleFactor', { size, scaleFactor })
  }
  if (mode === 'nearest' && alignCorners !== undefined) {
    throw new ConfigError("interpolate: alignCorners has no meaning in mode 'nearest'", { mode })
  }
  if (mode !== 'nearest' && !Object.hasOwn(LINEAR_RANK, mode)) {
    throw new ConfigError(`interpolate: mode must be nearest, linear, bilinear or trilinear, not ${shown(mode)}`, {
      mode,
    })
  }
  const ranks = mode === 'nearest' ? [3, 4, 5] : [LINEAR_RANK[mode]]
  const wrong = otherRank(`interpolate in mode '${mode}'`, input, ranks, `${ranks.join(' or ')} dimensions`)
  if (wrong) throw wrong
  const spatial = input.ndim - 2
  const list = (value: number | number[] | undefined) =>
    value === undefined ? null : typeof value === 'number' ? Array<number>(spatial).fill(value) : value
  const [sizes, factors] = [list(size), list(scaleFactor)]
  if (mode === 'nearest') {
    const nearest = [ops.upsampleNearest1d, ops.upsampleNearest2d, ops.upsampleNearest3d] as const
    return nearest[(spatial - 1) as 0 | 1 | 2](input, sizes, factors)
  }
  const linear = [ops.upsampleLinear1d, ops.upsampleBilinear2d, ops.upsampleTrilinear3d] as const
  return linear[(spatial - 1) as 0 | 1 | 2](input, sizes, alignCorners ?? false, factors)
}
