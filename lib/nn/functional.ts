/** Layers and losses as functions of tensors, without state. Shapes as in PyTorch's torch.nn.functional. */

import { ShapeError } from '../base/errors.js'
import { op } from '../native/call.js'
import { ops, Tensor } from '../tensor/index.js'
import { byPosition } from './by-position.js'
import { explain, notFloating, otherRank, otherSize, otherType } from './check.js'

export * from './activation-functions.js'
export { type MultiHeadAttentionForwardArguments, multiHeadAttentionForward } from './attention-functions.js'
export {
  alphaDropout,
  type DropoutOptions,
  dropout,
  dropout1d,
  dropout2d,
  dropout3d,
  featureAlphaDropout,
} from './dropout.js'
export {
  type EmbeddingArguments,
  type EmbeddingBagArguments,
  embedding,
  embeddingBag,
  oneHot,
} from './embedding-functions.js'
export * from './losses.js'
export {
  batchNorm,
  groupNorm,
  instanceNorm,
  layerNorm,
  localResponseNorm,
  normalize,
  rmsNorm,
} from './norm-functions.js'
export {
  adaptiveAvgPool1d,
  adaptiveAvgPool2d,
  adaptiveAvgPool3d,
  adaptiveMaxPool1d,
  adaptiveMaxPool1dWithIndices,
  adaptiveMaxPool2d,
  adaptiveMaxPool2dWithIndices,
  adaptiveMaxPool3d,
  adaptiveMaxPool3dWithIndices,
  avgPool1d,
  avgPool2d,
  avgPool3d,
  fractionalMaxPool2d,
  fractionalMaxPool2dWithIndices,
  fractionalMaxPool3d,
  fractionalMaxPool3dWithIndices,
  lpPool1d,
  lpPool2d,
  lpPool3d,
  maxPool1d,
  maxPool1dWithIndices,
  maxPool2d,
  maxPool2dWithIndices,
  maxPool3d,
  maxPool3dWithIndices,
  maxUnpool1d,
  maxUnpool2d,
  maxUnpool3d,
} from './pooling-functions.js'
export {
  type AffineGridArguments,
  affineGrid,
  channelShuffle,
  type FoldArguments,
  fold,
  type GridSampleOptions,
  gridSample,
  type InterpolateMode,
  type InterpolateOptions,
  interpolate,
  type PadArguments,
  type PaddingMode,
  pad,
  pixelShuffle,
  pixelUnshuffle,
  type UnfoldArguments,
  unfold,
  upsample,
  upsampleBilinear,
  upsampleNearest,
} from './resize.js'

// ---- linear, convolution, embedding

const fastLinear = op('voxtorch::linear')

/** Multiply input [..., in] by weight [out, in] transposed, and add bias [out]. */
export function linear(input: Tensor, weight: Tensor, bias: Tensor | null = null): Tensor {
  try {
    // Native code may take a weight of four dimensions for one in its own order of tiles.
    if (weight instanceof Tensor && weight.ndim > 2)
      throw new ShapeError(`linear: expected a weight [out, in], got shape [${weight.shape}]`, { shape: weight.shape })
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
  stride?: number | readonly number[]
  /** Zeros added at both ends, or 'valid' (none), or 'same' (output as long as the input; stride 1). */
  padding?: number | readonly number[] | 'valid' | 'same'
  dilation?: number | readonly number[]
  groups?: number
}

const LAYOUTS = ['length', 'height, width', 'depth, height, width']

function convolution(dims: 1 | 2 | 3) {
  const where = `conv${dims}d`
  const convolve = [ops.conv1d, ops.conv2d, ops.conv3d][dims - 1] as typeof ops.conv1d
  const list = (value: number | readonly number[]) =>
    typeof value === 'number' ? Array<number>(dims).fill(value) : (value as number[])
  return byPosition(
    where,
    ['bias', 'stride', 'padding', 'dilation', 'groups'],
    (input: Tensor, weight: Tensor, options: ConvOptions): Tensor => {
      const { bias = null, stride = 1, padding = 0, dilation = 1, groups = 1 } = options
      try {
        // A string selects the overload with named padding; the generated types allow one overload at a time.
        const pad = typeof padding === 'string' ? (padding as unknown as number[]) : list(padding)
        return convolve(input, weight, bias, list(stride), pad, list(dilation), groups)
      } catch (error) {
        throw explain(error, () => [
          notFloating(where, input),
          otherRank(where, input, [dims + 1, dims + 2], `[batch, channels, ${LAYOUTS[dims - 1]}]`),
          otherSize(where, input, -dims - 1, weight.size(1) * groups),
          otherType(where, input, weight),
        ])
      }
    },
  )
}

/** Convolve input [batch, in, length] (or [in, length]) with weight [out, in / groups, kernel]. */
export const conv1d = convolution(1)
/** Convolve input [batch, in, height, width] (or [in, height, width]) with weight [out, in / groups, kernel, kernel]. */
export const conv2d = convolution(2)
/** Convolve input [batch, in, depth, height, width] (or [in, ...]) with weight [out, in / groups, kernel, kernel, kernel]. */
export const conv3d = convolution(3)

export const { convTbc, convTranspose1d, convTranspose2d, convTranspose3d } = ops

export const { bilinear, cosineSimilarity, pairwiseDistance, pdist } = ops

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

/** Return softmax(query keyᵀ scale + mask) value; query [..., L, dim], key [..., S, dim], value [..., S, dimV]. */
export const scaledDotProductAttention = byPosition(
  'scaledDotProductAttention',
  ['attnMask', 'dropoutP', 'isCausal'],
  (query: Tensor, key: Tensor, value: Tensor, options: AttentionOptions): Tensor => {
    const { attnMask = null, dropoutP = 0, isCausal = false, scale = null, enableGqa = false } = options
    return ops.scaledDotProductAttention(query, key, value, attnMask, dropoutP, isCausal, { scale, enableGqa })
  },
  ['scale', 'enableGqa'],
)
