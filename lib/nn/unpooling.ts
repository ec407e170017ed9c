import { requireOptions } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import type { Tensor } from '../tensor/index.js'
import { sizeList } from './check.js'
import { forDims, Module } from './module.js'
import { type PoolResult, pooled } from './pooling.js'
import {
  fractionalMaxPool2d,
  fractionalMaxPool3d,
  maxUnpool1d,
  maxUnpool2d,
  maxUnpool3d,
  ratioList,
} from './pooling-functions.js'

type Sizes = number | number[]

export interface MaxUnpoolOptions {
  /** Stride of the pooling layer. Default: the kernel's size. */
  stride?: Sizes
  /** Padding of the pooling layer. Default: 0. */
  padding?: Sizes
}

class MaxUnpool extends Module {
  readonly kernelSize: number[]
  readonly stride: number[]
  readonly padding: number[]

  constructor(dims: number, kernelSize: Sizes, options: MaxUnpoolOptions = {}) {
    super()
    const layer = new.target.name
    requireOptions(layer, options, ['stride', 'padding'])
    this.kernelSize = sizeList(layer, 'kernelSize', kernelSize, dims, 1)
    this.stride = sizeList(layer, 'stride', options.stride ?? kernelSize, dims, 1)
    this.padding = sizeList(layer, 'padding', options.padding ?? 0, dims)
  }

  /**
   * @param indices indices that the pooling layer returned with its output
   * @param options.outputSize spatial sizes of the pooling layer's input, if the unpooled size is ambiguous
   */
  override forward(input: Tensor, indices: Tensor, options: { outputSize?: number[] } = {}): Tensor {
    const { kernelSize, stride, padding } = this
    requireOptions(`${this.constructor.name}.forward`, options, ['outputSize'])
    const unpool = [maxUnpool1d, maxUnpool2d, maxUnpool3d][kernelSize.length - 1]!
    return unpool(input, indices, { kernelSize, stride, padding, outputSize: options.outputSize ?? null })
  }
}

/** Puts pooled values of [batch, channels, length] back at their indices, among zeros. */
export class MaxUnpool1d extends forDims(1, MaxUnpool) {}

/** Puts pooled values of [batch, channels, height, width] back at their indices, among zeros. */
export class MaxUnpool2d extends forDims(2, MaxUnpool) {}

/** Puts pooled values of [batch, channels, depth, height, width] back at their indices, among zeros. */
export class MaxUnpool3d extends forDims(3, MaxUnpool) {}

export interface FractionalMaxPoolOptions {
  /** Sizes of the output; alternative to `outputRatio`. */
  outputSize?: Sizes
  /** Ratio of the output's sizes to the input's, above 0 and below 1. */
  outputRatio?: number | number[]
  /** Return `{ output, indices }`. Default: false. */
  returnIndices?: boolean
}

class FractionalMaxPool extends Module {
  readonly kernelSize: number[]
  readonly outputSize: number[] | null
  readonly outputRatio: number[] | null
  readonly returnIndices: boolean

  constructor(dims: number, kernelSize: Sizes, options: FractionalMaxPoolOptions) {
    super()
    const layer = new.target.name
    requireOptions(layer, options, ['outputSize', 'outputRatio', 'returnIndices'])
    const { outputSize, outputRatio, returnIndices = false } = options
    if ((outputSize === undefined) === (outputRatio === undefined)) {
      throw new ConfigError(`${layer}: expected either outputSize or outputRatio`, { outputSize, outputRatio })
    }
    this.kernelSize = sizeList(layer, 'kernelSize', kernelSize, dims, 1)
    this.outputSize = outputSize === undefined ? null : sizeList(layer, 'outputSize', outputSize, dims, 1)
    this.outputRatio = outputRatio === undefined ? null : ratioList(layer, outputRatio, dims)
    this.returnIndices = returnIndices
  }

  /** @param randomSamples uniform in [0, 1), [batch, channels, dimensions]; default: drawn at random */
  override forward(input: Tensor, randomSamples?: Tensor | null): Tensor
  override forward(input: Tensor, randomSamples: Tensor | null = null): Tensor | PoolResult {
    const { kernelSize, outputSize, outputRatio, returnIndices } = this
    const pool = kernelSize.length === 2 ? fractionalMaxPool2d : fractionalMaxPool3d
    return pooled(pool(input, { kernelSize, outputSize, outputRatio, returnIndices, randomSamples }))
  }
}

/** Maxima of windows of random sizes, [batch, channels, height, width] (Graham 2014, https://arxiv.org/abs/1412.6071). */
export class FractionalMaxPool2d extends forDims(2, FractionalMaxPool) {}

/** Maxima of windows of random sizes, [batch, channels, depth, height, width]. */
export class FractionalMaxPool3d extends forDims(3, FractionalMaxPool) {}
