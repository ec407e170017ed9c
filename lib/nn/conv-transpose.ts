import { requireOptions } from '../base/check.js'
import { ConfigError, ShapeError } from '../base/errors.js'
import { ops, type Tensor } from '../tensor/index.js'
import { explain, layerOptions, notFloating, otherRank, otherSize, otherType, requireSizes, sizeList } from './check.js'
import { calculateFans, kaimingUniform_, uniform_ } from './init.js'
import { forDims, Module } from './module.js'
import { type FactoryOptions, type Parameter, parameter } from './parameter.js'

export interface ConvTransposeOptions extends FactoryOptions {
  /** Stride. Default: 1. */
  stride?: number | number[]
  /** Padding of the corresponding convolution from the output to the input. Default: 0. */
  padding?: number | number[]
  /** Size added to one side of the output, below stride or dilation. Default: 0. */
  outputPadding?: number | number[]
  /** Number of groups of channels. Default: 1. */
  groups?: number
  /** Whether the layer has a bias. Default: true. */
  bias?: boolean
  /** Dilation of the kernel. Default: 1. */
  dilation?: number | number[]
}

/** Base class of the transposed convolutions. Weight and bias are initialized uniformly in ±1/√(out / groups · kernel). */
class TransposedConvolution extends Module {
  readonly inChannels: number
  readonly outChannels: number
  readonly kernelSize: number[]
  readonly stride: number[]
  readonly padding: number[]
  readonly outputPadding: number[]
  readonly dilation: number[]
  readonly groups: number
  weight: Parameter
  bias: Parameter | null

  constructor(
    dims: number,
    inChannels: number,
    outChannels: number,
    kernelSize: number | number[],
    options: ConvTransposeOptions = {},
  ) {
    super()
    const layer = new.target.name
    const {
      stride = 1,
      padding = 0,
      outputPadding = 0,
      groups = 1,
      bias = true,
      dilation = 1,
      ...factory
    } = layerOptions(layer, options, 'stride', 'padding', 'outputPadding', 'groups', 'bias', 'dilation')
    requireSizes(layer, { inChannels, outChannels, groups })
    if (inChannels % groups !== 0 || outChannels % groups !== 0) {
      throw new ConfigError(
        `${layer}: expected multiples of groups ${groups} as channels, got ${inChannels} and ${outChannels}`,
        {
          groups,
        },
      )
    }
    this.inChannels = inChannels
    this.outChannels = outChannels
    this.kernelSize = sizeList(layer, 'kernelSize', kernelSize, dims, 1)
    this.stride = sizeList(layer, 'stride', stride, dims, 1)
    this.padding = sizeList(layer, 'padding', padding, dims)
    this.outputPadding = sizeList(layer, 'outputPadding', outputPadding, dims)
    this.dilation = sizeList(layer, 'dilation', dilation, dims, 1)
    this.groups = groups
    this.weight = parameter([inChannels, outChannels / groups, ...this.kernelSize], factory)
    this.bias = bias ? parameter([outChannels], factory) : null
    this.resetParameters()
  }

  resetParameters(): void {
    kaimingUniform_(this.weight, { a: Math.sqrt(5) })
    const bound = 1 / Math.sqrt(calculateFans(this.weight).fanIn)
    if (this.bias) uniform_(this.bias, -bound, bound)
  }

  /**
   * Map [batch, in, ...] (or [in, ...]) to [batch, out, ...].
   * @param options.outputSize spatial sizes of the output, instead of `outputPadding`: with a stride above 1 several are
   *   possible
   */
  override forward(input: Tensor, options: { outputSize?: number[] } = {}): Tensor {
    const layer = this.constructor.name
    requireOptions(`${layer}.forward`, options, ['outputSize'])
    const { kernelSize, weight, stride, padding, dilation, groups } = this
    const dims = kernelSize.length
    const wrong = otherRank(layer, input, [dims + 1, dims + 2], `[batch, channels, ...] with ${dims} more dimensions`)
    if (wrong) throw wrong
    const extra = options.outputSize ? this.#paddingFor(input, options.outputSize) : this.outputPadding
    const run = [ops.convTranspose1d, ops.convTranspose2d, ops.convTranspose3d] as const
    try {
      return run[(dims - 1) as 0](input, weight, this.bias, stride, padding, extra, groups, dilation)
    } catch (error) {
      throw explain(error, () => [
        notFloating(layer, input),
        otherSize(layer, input, -dims - 1, this.inChannels),
        otherType(layer, input, weight),
      ])
    }
  }

  #paddingFor(input: Tensor, outputSize: number[]): number[] {
    const layer = this.constructor.name
    const dims = this.kernelSize.length
    return sizeList(layer, 'outputSize', outputSize, dims, 1).map((size, i) => {
      const length = input.shape[input.ndim - dims + i] as number
      const least =
        (length - 1) * this.stride[i]! - 2 * this.padding[i]! + this.dilation[i]! * (this.kernelSize[i]! - 1) + 1
      const most = least + this.stride[i]! - 1
      if (size >= least && size <= most) return size - least
      throw new ShapeError(`${layer}: expected dimension ${i} of outputSize from ${least} to ${most}, got ${size}`, {
        outputSize,
      })
    })
  }
}

/** Transposed convolution along one dimension, [batch, in, length]. */
export class ConvTranspose1d extends forDims(1, TransposedConvolution) {}

/** Transposed convolution along two dimensions, [batch, in, height, width]. */
export class ConvTranspose2d extends forDims(2, TransposedConvolution) {}

/** Transposed convolution along three dimensions, [batch, in, depth, height, width]. */
export class ConvTranspose3d extends forDims(3, TransposedConvolution) {}
