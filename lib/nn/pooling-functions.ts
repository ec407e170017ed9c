import { argumentError, requireBoolean } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { ops, rand, scope, type Tensor } from '../tensor/index.js'
import { byPosition, type WithIndices } from './by-position.js'
import { otherRank, requireNumbers, requireTensors, sizeList } from './check.js'

type Sizes = number | readonly number[]
type Dims = 1 | 2 | 3

/** Sizes of the output; null keeps the input's. */
export type OutputSize = number | null | readonly (number | null)[]

export interface MaxPoolArguments {
  /** Size of the window. */
  kernelSize: Sizes
  /** Stride. Default: the kernel's size. */
  stride?: Sizes | null
  /** Elements of -Infinity added at both ends. Default: 0. */
  padding?: Sizes
  /** Dilation of the window. Default: 1. */
  dilation?: Sizes
  /** Include windows that extend beyond the end. Default: false. */
  ceilMode?: boolean
  /** Return `[output, indices]`, with the indices of the maxima in each channel's plane, int64. Default: false. */
  returnIndices?: boolean
}

const MAX_POOL = ['kernelSize', 'stride', 'padding', 'dilation', 'ceilMode', 'returnIndices'] as const
type MaxPool = WithIndices<MaxPoolArguments, typeof MAX_POOL, [input: Tensor], Tensor>
type MaxPoolIndices = (...args: Parameters<MaxPool>) => [output: Tensor, indices: Tensor]

// ATen takes an empty list as the kernel's size.
const strideOf = (stride: Sizes | null | undefined): Sizes => stride ?? []

function maxPool(dims: Dims, always: boolean) {
  const plain = [ops.maxPool1d, ops.maxPool2d, ops.maxPool3d][dims - 1]!
  const indexed = [ops.maxPool1dWithIndices, ops.maxPool2dWithIndices, ops.maxPool3dWithIndices][dims - 1]!
  const where = `maxPool${dims}d${always ? 'WithIndices' : ''}`
  return byPosition(where, MAX_POOL, (input: Tensor, options: MaxPoolArguments): unknown => {
    const { kernelSize, stride, padding = 0, dilation = 1, ceilMode = false, returnIndices = false } = options
    requireBoolean(where, 'returnIndices', returnIndices)
    return (always || returnIndices ? indexed : plain)(input, kernelSize, strideOf(stride), padding, dilation, ceilMode)
  })
}

/** Return the maximum of each window of [batch, channels, length]. */
export const maxPool1d = maxPool(1, false) as MaxPool
/** Return the maximum of each window of [batch, channels, height, width]. */
export const maxPool2d = maxPool(2, false) as MaxPool
/** Return the maximum of each window of [batch, channels, depth, height, width]. */
export const maxPool3d = maxPool(3, false) as MaxPool
/** Return {@link maxPool1d} and the indices of the maxima. */
export const maxPool1dWithIndices = maxPool(1, true) as MaxPoolIndices
/** Return {@link maxPool2d} and the indices of the maxima. */
export const maxPool2dWithIndices = maxPool(2, true) as MaxPoolIndices
/** Return {@link maxPool3d} and the indices of the maxima. */
export const maxPool3dWithIndices = maxPool(3, true) as MaxPoolIndices

export interface AvgPoolArguments {
  /** Size of the window. */
  kernelSize: Sizes
  /** Stride. Default: the kernel's size. */
  stride?: Sizes | null
  /** Zeros added at both ends. Default: 0. */
  padding?: Sizes
  /** Include windows that extend beyond the end. Default: false. */
  ceilMode?: boolean
  /** Whether the added zeros count. Default: true. */
  countIncludePad?: boolean
}

export interface DividedAvgPoolArguments extends AvgPoolArguments {
  /** Divisor instead of the window's size. Default: null. */
  divisorOverride?: number | null
}

const AVG_POOL = ['kernelSize', 'stride', 'padding', 'ceilMode', 'countIncludePad'] as const

/** Return the mean of each window of [batch, channels, length]. */
export const avgPool1d = byPosition('avgPool1d', AVG_POOL, (input: Tensor, options: AvgPoolArguments): Tensor => {
  const { kernelSize, stride, padding = 0, ceilMode = false, countIncludePad = true } = options
  return ops.avgPool1d(input, kernelSize, strideOf(stride), padding, ceilMode, countIncludePad)
})

const avgPool = (where: string, run: typeof ops.avgPool2d) =>
  byPosition(where, [...AVG_POOL, 'divisorOverride'], (input: Tensor, options: DividedAvgPoolArguments): Tensor => {
    const {
      kernelSize,
      stride,
      padding = 0,
      ceilMode = false,
      countIncludePad = true,
      divisorOverride = null,
    } = options
    return run(input, kernelSize, strideOf(stride), padding, ceilMode, countIncludePad, divisorOverride)
  })

/** Return the mean of each window of [batch, channels, height, width]. */
export const avgPool2d = avgPool('avgPool2d', ops.avgPool2d)
/** Return the mean of each window of [batch, channels, depth, height, width]. */
export const avgPool3d = avgPool('avgPool3d', ops.avgPool3d)

export interface AdaptivePoolArguments {
  /** Sizes of the output; null keeps the input's. */
  outputSize: OutputSize
}

export interface AdaptiveMaxPoolArguments extends AdaptivePoolArguments {
  /** Return `[output, indices]`. Default: false. */
  returnIndices?: boolean
}

/** Return the sizes of the output, those of `input` for null. */
function outputSizes(where: string, input: Tensor, outputSize: OutputSize, dims: number): number[] {
  requireTensors(where, input)
  const sizes = Array.isArray(outputSize) ? outputSize : Array<number | null>(dims).fill(outputSize as number | null)
  const kept = input.shape.slice(-dims)
  return sizeList(
    where,
    'outputSize',
    sizes.map((size: number | null, i: number) => size ?? kept[i] ?? 0),
    dims,
  )
}

const adaptiveAvgPool = (dims: Dims) => {
  const where = `adaptiveAvgPool${dims}d`
  const run = [ops.adaptiveAvgPool1d, ops.adaptiveAvgPool2d, ops.adaptiveAvgPool3d][dims - 1]!
  return byPosition(
    where,
    ['outputSize'],
    (input: Tensor, { outputSize }: AdaptivePoolArguments): Tensor =>
      run(input, outputSizes(where, input, outputSize, dims)),
  )
}

/** Return means of windows of [batch, channels, length], as many as `outputSize`. */
export const adaptiveAvgPool1d = adaptiveAvgPool(1)
/** Return means of windows of [batch, channels, height, width], as many as `outputSize`. */
export const adaptiveAvgPool2d = adaptiveAvgPool(2)
/** Return means of windows of [batch, channels, depth, height, width], as many as `outputSize`. */
export const adaptiveAvgPool3d = adaptiveAvgPool(3)

const ADAPTIVE_MAX = ['outputSize', 'returnIndices'] as const
type AdaptiveMaxPool = WithIndices<AdaptiveMaxPoolArguments, typeof ADAPTIVE_MAX, [input: Tensor], Tensor>
type AdaptiveMaxPoolIndices = (...args: Parameters<AdaptiveMaxPool>) => [output: Tensor, indices: Tensor]

function adaptiveMaxPool(dims: Dims, always: boolean) {
  const where = `adaptiveMaxPool${dims}d${always ? 'WithIndices' : ''}`
  const run = [ops.adaptiveMaxPool1d, ops.adaptiveMaxPool2d, ops.adaptiveMaxPool3d][dims - 1]!
  return byPosition(where, ADAPTIVE_MAX, (input: Tensor, options: AdaptiveMaxPoolArguments): unknown => {
    const { outputSize, returnIndices = false } = options
    requireBoolean(where, 'returnIndices', returnIndices)
    const sizes = outputSizes(where, input, outputSize, dims)
    return scope(() => {
      const both = run(input, sizes)
      return always || returnIndices ? both : both[0]
    })
  })
}

/** Return maxima of windows of [batch, channels, length], as many as `outputSize`. */
export const adaptiveMaxPool1d = adaptiveMaxPool(1, false) as AdaptiveMaxPool
/** Return maxima of windows of [batch, channels, height, width], as many as `outputSize`. */
export const adaptiveMaxPool2d = adaptiveMaxPool(2, false) as AdaptiveMaxPool
/** Return maxima of windows of [batch, channels, depth, height, width], as many as `outputSize`. */
export const adaptiveMaxPool3d = adaptiveMaxPool(3, false) as AdaptiveMaxPool
/** Return {@link adaptiveMaxPool1d} and the indices of the maxima. */
export const adaptiveMaxPool1dWithIndices = adaptiveMaxPool(1, true) as AdaptiveMaxPoolIndices
/** Return {@link adaptiveMaxPool2d} and the indices of the maxima. */
export const adaptiveMaxPool2dWithIndices = adaptiveMaxPool(2, true) as AdaptiveMaxPoolIndices
/** Return {@link adaptiveMaxPool3d} and the indices of the maxima. */
export const adaptiveMaxPool3dWithIndices = adaptiveMaxPool(3, true) as AdaptiveMaxPoolIndices

export interface LPPoolArguments {
  /** Order of the norm; Infinity gives the maximum of the absolute values. */
  normType: number
  /** Size of the window. */
  kernelSize: Sizes
  /** Stride. Default: the kernel's size. */
  stride?: Sizes | null
  /** Include windows that extend beyond the end. Default: false. */
  ceilMode?: boolean
}

const lpPool = (dims: Dims) => {
  const where = `lpPool${dims}d`
  const mean = [ops.avgPool1d, ops.avgPool2d, ops.avgPool3d][dims - 1]!
  const maximum = [ops.maxPool1d, ops.maxPool2d, ops.maxPool3d][dims - 1]!
  const names = ['normType', 'kernelSize', 'stride', 'ceilMode'] as const
  return byPosition(where, names, (input: Tensor, options: LPPoolArguments): Tensor => {
    const { normType, stride, ceilMode = false } = options
    requireTensors(where, input)
    requireNumbers(where, { normType })
    const kernel = sizeList(where, 'kernelSize', options.kernelSize, dims, 1)
    const count = kernel.reduce((product, size) => product * size, 1)
    return scope(() => {
      if (normType === Number.POSITIVE_INFINITY) return maximum(input.abs(), kernel, strideOf(stride), 0, 1, ceilMode)
      if (normType === Number.NEGATIVE_INFINITY)
        return maximum(input.abs().neg(), kernel, strideOf(stride), 0, 1, ceilMode).neg()
      const means = mean(input.pow(normType), kernel, strideOf(stride), 0, ceilMode)
      return means
        .sign()
        .mul(means.abs().relu())
        .mul(count)
        .pow(1 / normType)
    })
  })
}

/** Return the norm of order `normType` of each window of [batch, channels, length]. */
export const lpPool1d = lpPool(1)
/** Return the norm of order `normType` of each window of [batch, channels, height, width]. */
export const lpPool2d = lpPool(2)
/** Return the norm of order `normType` of each window of [batch, channels, depth, height, width]. */
export const lpPool3d = lpPool(3)

export interface MaxUnpoolArguments {
  /** Size of the pooling's window. */
  kernelSize: Sizes
  /** Stride of the pooling. Default: the kernel's size. */
  stride?: Sizes | null
  /** Padding of the pooling. Default: 0. */
  padding?: Sizes
  /** Spatial sizes of the pooling's input, or its whole shape, if the unpooled size is ambiguous. */
  outputSize?: readonly number[] | null
}

const maxUnpool = (dims: Dims) => {
  const where = `maxUnpool${dims}d`
  const names = ['kernelSize', 'stride', 'padding', 'outputSize'] as const
  return byPosition(where, names, (input: Tensor, indices: Tensor, options: MaxUnpoolArguments): Tensor => {
    requireTensors(where, input, indices)
    const kernel = sizeList(where, 'kernelSize', options.kernelSize, dims, 1)
    const stride = sizeList(where, 'stride', options.stride ?? kernel, dims, 1)
    const padding = sizeList(where, 'padding', options.padding ?? 0, dims)
    const wrong = otherRank(where, input, [dims + 1, dims + 2], `[batch, channels, ...] with ${dims} more dimensions`)
    if (wrong) throw wrong
    const lengths = input.shape.slice(-dims)
    const usual = kernel.map((size, i) => (lengths[i]! - 1) * stride[i]! - 2 * padding[i]! + size)
    const size = unpooledSize(where, options.outputSize ?? null, usual, stride)
    if (dims === 3) return ops.maxUnpool3d(input, indices, size, stride, padding)
    if (dims === 2) return ops.maxUnpool2d(input, indices, size)
    return scope(() => ops.maxUnpool2d(input.unsqueeze(-1), indices.unsqueeze(-1), [...size, 1]).squeeze(-1))
  })
}

/** Return the spatial sizes that were requested, each less than a stride from the usual one. */
function unpooledSize(
  where: string,
  outputSize: readonly number[] | null,
  usual: number[],
  stride: number[],
): number[] {
  if (outputSize === null) return usual
  const dims = usual.length
  const spatial = Array.isArray(outputSize) && outputSize.length === dims + 2 ? outputSize.slice(2) : outputSize
  const sizes = sizeList(where, 'outputSize', spatial, dims, 1)
  sizes.forEach((size, i) => {
    const [least, most] = [usual[i]! - stride[i]! + 1, usual[i]! + stride[i]! - 1]
    if (size >= least && size <= most) return
    throw argumentError(where, `dimension ${i} of outputSize`, `from ${least} to ${most}`, size)
  })
  return sizes
}

/** Put pooled values of [batch, channels, length] back at their indices, among zeros. */
export const maxUnpool1d = maxUnpool(1)
/** Put pooled values of [batch, channels, height, width] back at their indices, among zeros. */
export const maxUnpool2d = maxUnpool(2)
/** Put pooled values of [batch, channels, depth, height, width] back at their indices, among zeros. */
export const maxUnpool3d = maxUnpool(3)

export interface FractionalMaxPoolArguments {
  /** Size of the window. */
  kernelSize: Sizes
  /** Sizes of the output; alternative to `outputRatio`. */
  outputSize?: Sizes | null
  /** Ratio of the output's sizes to the input's, above 0 and below 1. */
  outputRatio?: number | readonly number[] | null
  /** Return `[output, indices]`. Default: false. */
  returnIndices?: boolean
  /** Uniform in [0, 1), [batch, channels, dimensions]. Default: drawn at random. */
  randomSamples?: Tensor | null
}

const FRACTIONAL = ['kernelSize', 'outputSize', 'outputRatio', 'returnIndices', 'randomSamples'] as const
type FractionalMaxPool = WithIndices<FractionalMaxPoolArguments, typeof FRACTIONAL, [input: Tensor], Tensor>
type FractionalMaxPoolIndices = (...args: Parameters<FractionalMaxPool>) => [output: Tensor, indices: Tensor]

/** Check `outputRatio`: one ratio for each dimension, or one for all. */
export function ratioList(where: string, outputRatio: number | readonly number[], dims: number): number[] {
  const ratios = typeof outputRatio === 'number' ? Array<number>(dims).fill(outputRatio) : outputRatio
  if (Array.isArray(ratios) && ratios.length === dims && ratios.every((ratio) => ratio > 0 && ratio < 1))
    return [...ratios]
  throw new ConfigError(`${where}: expected outputRatio to be ${dims} numbers above 0 and below 1`, { outputRatio })
}

function fractionalMaxPool(dims: 2 | 3, always: boolean) {
  const where = `fractionalMaxPool${dims}d${always ? 'WithIndices' : ''}`
  const run = dims === 2 ? ops.fractionalMaxPool2d : ops.fractionalMaxPool3d
  return byPosition(where, FRACTIONAL, (input: Tensor, options: FractionalMaxPoolArguments): unknown => {
    const { outputSize = null, outputRatio = null, returnIndices = false, randomSamples = null } = options
    requireBoolean(where, 'returnIndices', returnIndices)
    const kernel = sizeList(where, 'kernelSize', options.kernelSize, dims, 1)
    if ((outputSize === null) === (outputRatio === null)) {
      throw new ConfigError(`${where}: expected either outputSize or outputRatio`, { outputSize, outputRatio })
    }
    const wrong = otherRank(where, input, [dims + 1, dims + 2], '[batch, channels, ...]')
    if (wrong) throw wrong
    const ratios = outputRatio === null ? null : ratioList(where, outputRatio, dims)
    const size = ratios
      ? input.shape.slice(-dims).map((length, i) => Math.floor(length * ratios[i]!))
      : sizeList(where, 'outputSize', outputSize!, dims, 1)
    return scope(() => {
      const batch = input.ndim === dims + 2 ? input.size(0) : 1
      const { dtype, device } = input
      const samples = randomSamples ?? rand([batch, input.size(-dims - 1), dims], { dtype, device })
      const [output, indices] = run(input, kernel, size, samples)
      return always || returnIndices ? [output, indices] : output
    })
  })
}

/** Return maxima of windows of random sizes, [batch, channels, height, width] (Graham 2014, https://arxiv.org/abs/1412.6071). */
export const fractionalMaxPool2d = fractionalMaxPool(2, false) as FractionalMaxPool
/** Return maxima of windows of random sizes, [batch, channels, depth, height, width]. */
export const fractionalMaxPool3d = fractionalMaxPool(3, false) as FractionalMaxPool
/** Return {@link fractionalMaxPool2d} and the indices of the maxima. */
export const fractionalMaxPool2dWithIndices = fractionalMaxPool(2, true) as FractionalMaxPoolIndices
/** Return {@link fractionalMaxPool3d} and the indices of the maxima. */
export const fractionalMaxPool3dWithIndices = fractionalMaxPool(3, true) as FractionalMaxPoolIndices
