import { ConfigError } from '../base/errors.js'
import { scope, type Tensor } from '../tensor/index.js'
import { layerOptions, requireSizes, sizeList } from './check.js'
import { type ConvOptions, conv1d, conv2d, conv3d, type PaddingMode, pad } from './functional.js'
import { calculateFans, kaimingUniform_, uniform_ } from './init.js'
import { adaptersOf, forDims, Module } from './module.js'
import { type FactoryOptions, type Parameter, parameter } from './parameter.js'

export interface ConvLayerOptions extends FactoryOptions, Omit<ConvOptions, 'bias'> {
  /** Whether the layer has a bias. Default: true. */
  bias?: boolean
  /** Values added at the ends. Default: 'zeros'. */
  paddingMode?: 'zeros' | Exclude<PaddingMode, 'constant'>
}

/** Base class of the convolutions. Weight and bias are initialized uniformly in ±1/√(in / groups · kernel). */
class Convolution extends Module {
  readonly inChannels: number
  readonly outChannels: number
  readonly kernelSize: number[]
  readonly stride: number[]
  readonly padding: number[] | 'valid' | 'same'
  readonly dilation: number[]
  readonly groups: number
  readonly paddingMode: 'zeros' | Exclude<PaddingMode, 'constant'>
  weight: Parameter
  bias: Parameter | null

  constructor(
    dims: number,
    inChannels: number,
    outChannels: number,
    kernelSize: number | number[],
    options: ConvLayerOptions = {},
  ) {
    super()
    const {
      stride = 1,
      padding = 0,
      dilation = 1,
      groups = 1,
      bias = true,
      ...rest
    } = layerOptions(this.constructor.name, options, 'stride', 'padding', 'dilation', 'groups', 'bias', 'paddingMode')
    const { paddingMode = 'zeros', ...factory } = rest
    const layer = this.constructor.name
    const list = (name: string, value: number | readonly number[], least: number) =>
      sizeList(layer, name, value, dims, least)
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
    this.kernelSize = list('kernelSize', kernelSize, 1)
    this.stride = list('stride', stride, 1)
    this.padding = typeof padding === 'string' ? padding : list('padding', padding, 0)
    this.dilation = list('dilation', dilation, 1)
    this.groups = groups
    this.paddingMode = paddingMode
    if (padding === 'same' && this.stride.some((step) => step !== 1)) {
      throw new ConfigError(`${layer}: expected stride 1 with padding 'same', got [${this.stride}]`, {})
    }
    this.weight = parameter([outChannels, inChannels / groups, ...this.kernelSize], factory)
    this.bias = bias ? parameter([outChannels], factory) : null
    this.resetParameters()
  }

  resetParameters(): void {
    kaimingUniform_(this.weight, { a: Math.sqrt(5) })
    const bound = 1 / Math.sqrt(calculateFans(this.weight).fanIn)
    if (this.bias) uniform_(this.bias, -bound, bound)
  }

  protected convolve(run: typeof conv1d, input: Tensor): Tensor {
    const { paddingMode } = this
    if (paddingMode === 'zeros') return run(input, this.weight, { ...this.#options(), padding: this.padding })
    const before = this.#sides()
    return scope(() => run(pad(input, before, { mode: paddingMode }), this.weight, { ...this.#options(), padding: 0 }))
  }

  #options(): ConvOptions {
    return { bias: this.bias, stride: this.stride, dilation: this.dilation, groups: this.groups }
  }

  /** Return the padding before and after each dimension, last dimension first. */
  #sides(): number[] {
    const { padding } = this
    const sides = this.kernelSize.map((kernel, i) => {
      if (padding === 'valid') return [0, 0]
      if (padding !== 'same') return [padding[i]!, padding[i]!]
      const total = this.dilation[i]! * (kernel - 1)
      return [Math.floor(total / 2), total - Math.floor(total / 2)]
    })
    return sides.reverse().flat()
  }
}

/** Convolution along one dimension. */
export class Conv1d extends forDims(1, Convolution) {
  /** Map [batch, in, length] (or [in, length]) to [batch, out, length']. */
  override forward(input: Tensor): Tensor {
    return adaptersOf(this)?.forward(input) ?? this.convolve(conv1d, input)
  }
}

/** Convolution along two dimensions. */
export class Conv2d extends forDims(2, Convolution) {
  /** Map [batch, in, height, width] (or [in, height, width]) to [batch, out, height', width']. */
  override forward(input: Tensor): Tensor {
    return this.convolve(conv2d, input)
  }
}

/** Convolution along three dimensions. */
export class Conv3d extends forDims(3, Convolution) {
  /** Map [batch, in, depth, height, width] (or [in, depth, height, width]) to [batch, out, depth', height', width']. */
  override forward(input: Tensor): Tensor {
    return this.convolve(conv3d, input)
  }
}
