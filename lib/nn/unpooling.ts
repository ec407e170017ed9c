import { requireOptions } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { ops, rand, scope, type Tensor } from '../tensor/index.js'
import { otherRank, requireTensors, sizeList } from './check.js'
import { Module } from './module.js'
import type { PoolResult } from './pooling.js'

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

  constructor(dims: number, kernelSize: Sizes, options: MaxUnpoolOptions) {
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
    const layer = this.constructor.name
    requireTensors(layer, input, indices)
    requireOptions(`${layer}.forward`, options, ['outputSize'])
    const dims = kernelSize.length
    const wrong = otherRank(layer, input, [dims + 1, dims + 2], `[batch, channels, ...] with ${dims} more dimensions`)
    if (wrong) throw wrong
    const plain = kernelSize.map(
      (size, i) => ((input.shape[input.ndim - dims + i] as number) - 1) * stride[i]! - 2 * padding[i]! + size,
    )
    const size = options.outputSize ? sizeList(layer, 'outputSize', options.outputSize, dims, 1) : plain
    if (dims === 3) return ops.maxUnpool3d(input, indices, size, stride, padding)
    if (dims === 2) return ops.maxUnpool2d(input, indices, size)
    return scope(() => ops.maxUnpool2d(input.unsqueeze(-1), indices.unsqueeze(-1), [...size, 1]).squeeze(-1))
  }
}

/** Puts pooled values of [batch, channels, length] back at their indices, among zeros. */
export class MaxUnpool1d extends MaxUnpool {
  constructor(kernelSize: Sizes, options: MaxUnpoolOptions = {}) {
    super(1, kernelSize, options)
  }
}

/** Puts pooled values of [batch, channels, height, width] back at their indices, among zeros. */
export class MaxUnpool2d extends MaxUnpool {
  constructor(kernelSize: Sizes, options: MaxUnpoolOptions = {}) {
    super(2, kernelSize, options)
  }
}

/** Puts pooled values of [batch, channels, depth, height, width] back at their indices, among zeros. */
export class MaxUnpool3d extends MaxUnpool {
  constructor(kernelSize: Sizes, options: MaxUnpoolOptions = {}) {
    super(3, kernelSize, options)
  }
}

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
    const ratios = typeof outputRatio === 'number' ? Array<number>(dims).fill(outputRatio) : (outputRatio ?? null)
    if (ratios && !(Array.isArray(ratios) && ratios.length === dims && ratios.every((one) => one > 0 && one < 1))) {
      throw new ConfigError(`${layer}: expected outputRatio to be ${dims} numbers above 0 and below 1`, { outputRatio })
    }
    this.outputRatio = ratios
    this.returnIndices = returnIndices
  }

  /** @param randomSamples uniform in [0, 1), [batch, channels, dimensions]; default: drawn at random */
  override forward(input: Tensor, randomSamples?: Tensor | null): Tensor
  override forward(input: Tensor, randomSamples: Tensor | null = null): Tensor | PoolResult {
    const { kernelSize, outputRatio } = this
    const dims = kernelSize.length
    const wrong = otherRank(this.constructor.name, input, [dims + 1, dims + 2], '[batch, channels, ...]')
    if (wrong) throw wrong
    const spatial = input.shape.slice(-dims)
    const size = this.outputSize ?? spatial.map((length, i) => Math.floor(length * outputRatio![i]!))
    return scope(() => {
      const batch = input.ndim === dims + 2 ? input.size(0) : 1
      const { dtype, device } = input
      const samples = randomSamples ?? rand([batch, input.size(-dims - 1), dims], { dtype, device })
      const run = dims === 2 ? ops.fractionalMaxPool2d : ops.fractionalMaxPool3d
      const [output, indices] = run(input, kernelSize, size, samples)
      return this.returnIndices ? { output, indices } : output
    })
  }
}

/** Maxima of windows of random sizes, [batch, channels, height, width] (Graham 2014, https://arxiv.org/abs/1412.6071). */
export class FractionalMaxPool2d extends FractionalMaxPool {
  constructor(kernelSize: Sizes, options: FractionalMaxPoolOptions) {
    super(2, kernelSize, options)
  }
}

/** Maxima of windows of random sizes, [batch, channels, depth, height, width]. */
export class FractionalMaxPool3d extends FractionalMaxPool {
  constructor(kernelSize: Sizes, options: FractionalMaxPoolOptions) {
    super(3, kernelSize, options)
  }
}
