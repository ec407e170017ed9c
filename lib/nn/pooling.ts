import { requireOptions } from '../base/check.js'
import type { Tensor } from '../tensor/index.js'
import { requireSettings, sizeList } from './check.js'
import { forDims, Module } from './module.js'
import * as run from './pooling-functions.js'

export type { OutputSize } from './pooling-functions.js'

type Sizes = number | number[]

/** Maxima, and their indices in each channel's plane, int64: the input of {@link MaxUnpool2d}. */
export interface PoolResult {
  output: Tensor
  indices: Tensor
}

export interface MaxPoolOptions {
  /** Stride. Default: the kernel's size. */
  stride?: Sizes
  /** Elements of -Infinity added at both ends. Default: 0. */
  padding?: Sizes
  /** Dilation of the window. Default: 1. */
  dilation?: Sizes
  /** Return `{ output, indices }`. Default: false. */
  returnIndices?: boolean
  /** Include windows that extend beyond the end. Default: false. */
  ceilMode?: boolean
}

/** Name the results of a pooling function, as a layer returns them. */
export const pooled = (result: Tensor | [output: Tensor, indices: Tensor]): Tensor | PoolResult =>
  Array.isArray(result) ? { output: result[0], indices: result[1] } : result

const maxPool = [run.maxPool1d, run.maxPool2d, run.maxPool3d]
const adaptiveAvgPool = [run.adaptiveAvgPool1d, run.adaptiveAvgPool2d, run.adaptiveAvgPool3d]
const adaptiveMaxPool = [run.adaptiveMaxPool1d, run.adaptiveMaxPool2d, run.adaptiveMaxPool3d]
const lpPool = [run.lpPool1d, run.lpPool2d, run.lpPool3d]

class MaxPool extends Module {
  readonly kernelSize: number[]
  readonly stride: number[]
  readonly padding: number[]
  readonly dilation: number[]
  readonly returnIndices: boolean
  readonly ceilMode: boolean
  readonly #dims: number

  constructor(dims: number, kernelSize: Sizes, options: MaxPoolOptions = {}) {
    super()
    const layer = new.target.name
    requireOptions(layer, options, ['stride', 'padding', 'dilation', 'returnIndices', 'ceilMode'])
    const { stride = kernelSize, padding = 0, dilation = 1, returnIndices = false, ceilMode = false } = options
    this.#dims = dims
    this.kernelSize = sizeList(layer, 'kernelSize', kernelSize, dims, 1)
    this.stride = sizeList(layer, 'stride', stride, dims, 1)
    this.padding = sizeList(layer, 'padding', padding, dims)
    this.dilation = sizeList(layer, 'dilation', dilation, dims, 1)
    this.returnIndices = returnIndices
    this.ceilMode = ceilMode
  }

  /** Pool an input with or without a batch; with `returnIndices` returns `{ output, indices }`. */
  override forward(input: Tensor): Tensor
  override forward(input: Tensor): Tensor | PoolResult {
    const { kernelSize, stride, padding, dilation, ceilMode, returnIndices } = this
    const settings = { kernelSize, stride, padding, dilation, ceilMode, returnIndices }
    return pooled(maxPool[this.#dims - 1]!(input, settings))
  }
}

/** Maximum of each window of [batch, channels, length]. */
export class MaxPool1d extends forDims(1, MaxPool) {}

/** Maximum of each window of [batch, channels, height, width]. */
export class MaxPool2d extends forDims(2, MaxPool) {}

/** Maximum of each window of [batch, channels, depth, height, width]. */
export class MaxPool3d extends forDims(3, MaxPool) {}

export interface AvgPoolOptions {
  /** Stride. Default: the kernel's size. */
  stride?: Sizes
  /** Zeros added at both ends. Default: 0. */
  padding?: Sizes
  /** Include windows that extend beyond the end. Default: false. */
  ceilMode?: boolean
  /** Whether the added zeros count. Default: true. */
  countIncludePad?: boolean
  /** Divisor instead of the window's size, in two and three dimensions. Default: null. */
  divisorOverride?: number | null
}

class AvgPool extends Module {
  readonly kernelSize: number[]
  readonly stride: number[]
  readonly padding: number[]
  readonly ceilMode: boolean
  readonly countIncludePad: boolean
  readonly divisorOverride: number | null
  readonly #dims: number

  constructor(dims: number, kernelSize: Sizes, options: AvgPoolOptions = {}) {
    super()
    const layer = new.target.name
    const optionNames = ['stride', 'padding', 'ceilMode', 'countIncludePad']
    requireOptions(layer, options, dims === 1 ? optionNames : [...optionNames, 'divisorOverride'])
    const { stride = kernelSize, padding = 0, ceilMode = false, countIncludePad = true } = options
    this.#dims = dims
    this.kernelSize = sizeList(layer, 'kernelSize', kernelSize, dims, 1)
    this.stride = sizeList(layer, 'stride', stride, dims, 1)
    this.padding = sizeList(layer, 'padding', padding, dims)
    this.ceilMode = ceilMode
    this.countIncludePad = countIncludePad
    this.divisorOverride = options.divisorOverride ?? null
  }

  /** Pool an input with or without a batch. */
  override forward(input: Tensor): Tensor {
    const { kernelSize, stride, padding, ceilMode, countIncludePad, divisorOverride } = this
    const settings = { kernelSize, stride, padding, ceilMode, countIncludePad }
    if (this.#dims === 1) return run.avgPool1d(input, settings)
    return (this.#dims === 2 ? run.avgPool2d : run.avgPool3d)(input, { ...settings, divisorOverride })
  }
}

/** Mean of each window of [batch, channels, length]. */
export class AvgPool1d extends forDims(1, AvgPool) {}

/** Mean of each window of [batch, channels, height, width]. */
export class AvgPool2d extends forDims(2, AvgPool) {}

/** Mean of each window of [batch, channels, depth, height, width]. */
export class AvgPool3d extends forDims(3, AvgPool) {}

class AdaptivePool extends Module {
  readonly outputSize: (number | null)[]

  constructor(dims: number, outputSize: run.OutputSize) {
    super()
    const sizes: readonly (number | null)[] = Array.isArray(outputSize) ? outputSize : Array(dims).fill(outputSize)
    const known = sizes.map((size) => size ?? 1)
    sizeList(new.target.name, 'outputSize', known, dims)
    this.outputSize = [...sizes]
  }
}

class AdaptiveAvgPool extends AdaptivePool {
  /** Pool an input with or without a batch. */
  override forward(input: Tensor): Tensor {
    return adaptiveAvgPool[this.outputSize.length - 1]!(input, this.outputSize)
  }
}

/** Means of windows of [batch, channels, length], as many as `outputSize`. */
export class AdaptiveAvgPool1d extends forDims(1, AdaptiveAvgPool) {}

/** Means of windows of [batch, channels, height, width], as many as `outputSize`. */
export class AdaptiveAvgPool2d extends forDims(2, AdaptiveAvgPool) {}

/** Means of windows of [batch, channels, depth, height, width], as many as `outputSize`. */
export class AdaptiveAvgPool3d extends forDims(3, AdaptiveAvgPool) {}

class AdaptiveMaxPool extends AdaptivePool {
  readonly returnIndices: boolean

  constructor(dims: number, outputSize: run.OutputSize, options: { returnIndices?: boolean } = {}) {
    super(dims, outputSize)
    requireOptions(new.target.name, options, ['returnIndices'])
    this.returnIndices = options.returnIndices ?? false
  }

  /** Pool an input with or without a batch; with `returnIndices` returns `{ output, indices }`. */
  override forward(input: Tensor): Tensor
  override forward(input: Tensor): Tensor | PoolResult {
    const { outputSize, returnIndices } = this
    return pooled(adaptiveMaxPool[outputSize.length - 1]!(input, { outputSize, returnIndices }))
  }
}

/** Maxima of windows of [batch, channels, length], as many as `outputSize`. */
export class AdaptiveMaxPool1d extends forDims(1, AdaptiveMaxPool) {}

/** Maxima of windows of [batch, channels, height, width], as many as `outputSize`. */
export class AdaptiveMaxPool2d extends forDims(2, AdaptiveMaxPool) {}

/** Maxima of windows of [batch, channels, depth, height, width], as many as `outputSize`. */
export class AdaptiveMaxPool3d extends forDims(3, AdaptiveMaxPool) {}

export interface LPPoolOptions {
  /** Stride. Default: the kernel's size. */
  stride?: Sizes
  /** Include windows that extend beyond the end. Default: false. */
  ceilMode?: boolean
}

class LPPool extends Module {
  readonly normType: number
  readonly kernelSize: number[]
  readonly stride: number[]
  readonly ceilMode: boolean

  constructor(dims: number, normType: number, kernelSize: Sizes, options: LPPoolOptions = {}) {
    super()
    const layer = new.target.name
    requireSettings(layer, { normType })
    requireOptions(layer, options, ['stride', 'ceilMode'])
    this.normType = normType
    this.kernelSize = sizeList(layer, 'kernelSize', kernelSize, dims, 1)
    this.stride = sizeList(layer, 'stride', options.stride ?? kernelSize, dims, 1)
    this.ceilMode = options.ceilMode ?? false
  }

  /** Pool an input with or without a batch. */
  override forward(input: Tensor): Tensor {
    const { normType, kernelSize, stride, ceilMode } = this
    return lpPool[kernelSize.length - 1]!(input, { normType, kernelSize, stride, ceilMode })
  }
}

/** Norm of order `normType` of each window of [batch, channels, length]. */
export class LPPool1d extends forDims(1, LPPool) {}

/** Norm of order `normType` of each window of [batch, channels, height, width]. */
export class LPPool2d extends forDims(2, LPPool) {}

/** Norm of order `normType` of each window of [batch, channels, depth, height, width]. */
export class LPPool3d extends forDims(3, LPPool) {}
