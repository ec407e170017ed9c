import { requireOptions } from '../base/check.js'
import { ops, scope, type Tensor } from '../tensor/index.js'
import { requireSettings, requireTensors, sizeList } from './check.js'
import { Module } from './module.js'

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

const maxPool = [ops.maxPool1d, ops.maxPool2d, ops.maxPool3d] as const
const maxPoolWithIndices = [ops.maxPool1dWithIndices, ops.maxPool2dWithIndices, ops.maxPool3dWithIndices] as const

class MaxPool extends Module {
  readonly kernelSize: number[]
  readonly stride: number[]
  readonly padding: number[]
  readonly dilation: number[]
  readonly returnIndices: boolean
  readonly ceilMode: boolean
  readonly #dims: number

  constructor(dims: number, kernelSize: Sizes, options: MaxPoolOptions) {
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
    const { kernelSize, stride, padding, dilation, ceilMode } = this
    const settings = [kernelSize, stride, padding, dilation, ceilMode] as const
    if (!this.returnIndices) return maxPool[(this.#dims - 1) as 0](input, ...settings)
    const [output, indices] = maxPoolWithIndices[(this.#dims - 1) as 0](input, ...settings) as [Tensor, Tensor]
    return { output, indices }
  }
}

/** Maximum of each window of [batch, channels, length]. */
export class MaxPool1d extends MaxPool {
  constructor(kernelSize: Sizes, options: MaxPoolOptions = {}) {
    super(1, kernelSize, options)
  }
}

/** Maximum of each window of [batch, channels, height, width]. */
export class MaxPool2d extends MaxPool {
  constructor(kernelSize: Sizes, options: MaxPoolOptions = {}) {
    super(2, kernelSize, options)
  }
}

/** Maximum of each window of [batch, channels, depth, height, width]. */
export class MaxPool3d extends MaxPool {
  constructor(kernelSize: Sizes, options: MaxPoolOptions = {}) {
    super(3, kernelSize, options)
  }
}

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

  constructor(dims: number, kernelSize: Sizes, options: AvgPoolOptions) {
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
    const { kernelSize, stride, padding, ceilMode, countIncludePad } = this
    if (this.#dims === 1) return ops.avgPool1d(input, kernelSize, stride, padding, ceilMode, countIncludePad)
    const run = this.#dims === 2 ? ops.avgPool2d : ops.avgPool3d
    return run(input, kernelSize, stride, padding, ceilMode, countIncludePad, this.divisorOverride)
  }
}

/** Mean of each window of [batch, channels, length]. */
export class AvgPool1d extends AvgPool {
  constructor(kernelSize: Sizes, options: AvgPoolOptions = {}) {
    super(1, kernelSize, options)
  }
}

/** Mean of each window of [batch, channels, height, width]. */
export class AvgPool2d extends AvgPool {
  constructor(kernelSize: Sizes, options: AvgPoolOptions = {}) {
    super(2, kernelSize, options)
  }
}

/** Mean of each window of [batch, channels, depth, height, width]. */
export class AvgPool3d extends AvgPool {
  constructor(kernelSize: Sizes, options: AvgPoolOptions = {}) {
    super(3, kernelSize, options)
  }
}

/** Sizes of the output; null keeps the input's. */
export type OutputSize = number | null | (number | null)[]

class AdaptivePool extends Module {
  readonly outputSize: (number | null)[]

  constructor(dims: number, outputSize: OutputSize) {
    super()
    const sizes = Array.isArray(outputSize) ? outputSize : Array<number | null>(dims).fill(outputSize)
    const known = sizes.map((size) => size ?? 1)
    sizeList(new.target.name, 'outputSize', known, dims)
    this.outputSize = [...sizes]
  }

  protected sizeFor(input: Tensor): number[] {
    requireTensors(this.constructor.name, input)
    const { outputSize } = this
    return outputSize.map((size, i) => size ?? (input.shape[input.ndim - outputSize.length + i] as number))
  }
}

class AdaptiveAvgPool extends AdaptivePool {
  /** Pool an input with or without a batch. */
  override forward(input: Tensor): Tensor {
    const run = [ops.adaptiveAvgPool1d, ops.adaptiveAvgPool2d, ops.adaptiveAvgPool3d] as const
    return run[(this.outputSize.length - 1) as 0](input, this.sizeFor(input))
  }
}

/** Means of windows of [batch, channels, length], as many as `outputSize`. */
export class AdaptiveAvgPool1d extends AdaptiveAvgPool {
  constructor(outputSize: OutputSize) {
    super(1, outputSize)
  }
}

/** Means of windows of [batch, channels, height, width], as many as `outputSize`. */
export class AdaptiveAvgPool2d extends AdaptiveAvgPool {
  constructor(outputSize: OutputSize) {
    super(2, outputSize)
  }
}

/** Means of windows of [batch, channels, depth, height, width], as many as `outputSize`. */
export class AdaptiveAvgPool3d extends AdaptiveAvgPool {
  constructor(outputSize: OutputSize) {
    super(3, outputSize)
  }
}

class AdaptiveMaxPool extends AdaptivePool {
  readonly returnIndices: boolean

  constructor(dims: number, outputSize: OutputSize, options: { returnIndices?: boolean }) {
    super(dims, outputSize)
    requireOptions(new.target.name, options, ['returnIndices'])
    this.returnIndices = options.returnIndices ?? false
  }

  /** Pool an input with or without a batch; with `returnIndices` returns `{ output, indices }`. */
  override forward(input: Tensor): Tensor
  override forward(input: Tensor): Tensor | PoolResult {
    const run = [ops.adaptiveMaxPool1d, ops.adaptiveMaxPool2d, ops.adaptiveMaxPool3d] as const
    return scope(() => {
      const [output, indices] = run[(this.outputSize.length - 1) as 0](input, this.sizeFor(input))
      return this.returnIndices ? { output, indices } : output
    })
  }
}

/** Maxima of windows of [batch, channels, length], as many as `outputSize`. */
export class AdaptiveMaxPool1d extends AdaptiveMaxPool {
  constructor(outputSize: OutputSize, options: { returnIndices?: boolean } = {}) {
    super(1, outputSize, options)
  }
}

/** Maxima of windows of [batch, channels, height, width], as many as `outputSize`. */
export class AdaptiveMaxPool2d extends AdaptiveMaxPool {
  constructor(outputSize: OutputSize, options: { returnIndices?: boolean } = {}) {
    super(2, outputSize, options)
  }
}

/** Maxima of windows of [batch, channels, depth, height, width], as many as `outputSize`. */
export class AdaptiveMaxPool3d extends AdaptiveMaxPool {
  constructor(outputSize: OutputSize, options: { returnIndices?: boolean } = {}) {
    super(3, outputSize, options)
  }
}

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

  constructor(dims: number, normType: number, kernelSize: Sizes, options: LPPoolOptions) {
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
    const { kernelSize, stride, normType, ceilMode } = this
    const run = [ops.avgPool1d, ops.avgPool2d, ops.avgPool3d] as const
    const count = kernelSize.reduce((product, size) => product * size, 1)
    return scope(() => {
      const mean = run[(kernelSize.length - 1) as 0](ops.pow(input, normType), kernelSize, stride, 0, ceilMode)
      return mean
        .sign()
        .mul(mean.abs().relu())
        .mul(count)
        .pow(1 / normType)
    })
  }
}

/** Norm of order `normType` of each window of [batch, channels, length]. */
export class LPPool1d extends LPPool {
  constructor(normType: number, kernelSize: Sizes, options: LPPoolOptions = {}) {
    super(1, normType, kernelSize, options)
  }
}

/** Norm of order `normType` of each window of [batch, channels, height, width]. */
export class LPPool2d extends LPPool {
  constructor(normType: number, kernelSize: Sizes, options: LPPoolOptions = {}) {
    super(2, normType, kernelSize, options)
  }
}

/** Norm of order `normType` of each window of [batch, channels, depth, height, width]. */
export class LPPool3d extends LPPool {
  constructor(normType: number, kernelSize: Sizes, options: LPPoolOptions = {}) {
    super(3, normType, kernelSize, options)
  }
}
