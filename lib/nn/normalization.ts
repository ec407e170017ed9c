import { ConfigError } from '../base/errors.js'
import type { Tensor } from '../tensor/index.js'
import { explain, layerOptions, otherSize, requireSizes, setOptions } from './check.js'
import { ones_, zeros_ } from './init.js'
import { Module } from './module.js'
import { groupNorm, layerNorm, localResponseNorm, rmsNorm } from './norm-functions.js'
import { type FactoryOptions, type Parameter, parameter } from './parameter.js'

export interface LayerNormOptions extends FactoryOptions {
  /** Added to the variance. Default: 1e-5. */
  eps?: number
  /** Whether weight (ones) and bias (zeros) are learned. Default: true. */
  elementwiseAffine?: boolean
  /** Whether the layer has a bias. Default: true. */
  bias?: boolean
}

export interface RMSNormOptions extends FactoryOptions {
  /** Added to the mean square; null, the default, means the input dtype's machine epsilon. */
  eps?: number | null
  /** Whether the weight (ones) is learned. Default: true. */
  elementwiseAffine?: boolean
}

export interface ChannelNormOptions extends FactoryOptions {
  /** Added to the variance. Default: 1e-5. */
  eps?: number
  /** Whether weight (ones) and bias (zeros) of each channel are learned. Default: true. */
  affine?: boolean
}

const shapeOf = (layer: string, shape: number | number[]): number[] => {
  const sizes = Array.isArray(shape) ? [...shape] : [shape]
  requireSizes(layer, Object.fromEntries(sizes.map((size, i) => [`normalizedShape[${i}]`, size])))
  if (sizes.length === 0)
    throw new ConfigError(`${layer}: expected a normalizedShape of at least one dimension, got none`, {})
  return sizes
}

/** Normalizes over the trailing dimensions to zero mean and unit variance (Ba et al. 2016). */
export class LayerNorm extends Module {
  readonly normalizedShape: number[]
  readonly eps: number
  weight: Parameter | null
  bias: Parameter | null

  constructor(normalizedShape: number | number[], options: LayerNormOptions = {}) {
    super()
    const {
      eps = 1e-5,
      elementwiseAffine = true,
      bias = true,
      ...factory
    } = layerOptions('LayerNorm', options, 'eps', 'elementwiseAffine', 'bias')
    this.normalizedShape = shapeOf('LayerNorm', normalizedShape)
    this.eps = eps
    this.weight = elementwiseAffine ? parameter(this.normalizedShape, factory) : null
    this.bias = elementwiseAffine && bias ? parameter(this.normalizedShape, factory) : null
    this.resetParameters()
  }

  resetParameters(): void {
    if (this.weight) ones_(this.weight)
    if (this.bias) zeros_(this.bias)
  }

  /** Normalize [..., ...normalizedShape]; the shape is kept. */
  override forward(input: Tensor): Tensor {
    const { weight, bias, eps } = this
    return layerNorm(input, this.normalizedShape, { weight, bias, eps })
  }
}

/** Returns x / sqrt(mean(x²) + eps), over the trailing dimensions (Zhang and Sennrich 2019). */
export class RMSNorm extends Module {
  readonly normalizedShape: number[]
  readonly eps: number | null
  weight: Parameter | null

  constructor(normalizedShape: number | number[], options: RMSNormOptions = {}) {
    super()
    const {
      eps = null,
      elementwiseAffine = true,
      ...factory
    } = layerOptions('RMSNorm', options, 'eps', 'elementwiseAffine')
    this.normalizedShape = shapeOf('RMSNorm', normalizedShape)
    this.eps = eps
    this.weight = elementwiseAffine ? parameter(this.normalizedShape, factory) : null
    this.resetParameters()
  }

  resetParameters(): void {
    if (this.weight) ones_(this.weight)
  }

  /** Normalize [..., ...normalizedShape]; the shape is kept. */
  override forward(input: Tensor): Tensor {
    const { weight, eps } = this
    return rmsNorm(input, this.normalizedShape, { weight, eps })
  }
}

/** Normalizes each of `numGroups` groups of channels to zero mean and unit variance (Wu and He 2018). */
export class GroupNorm extends Module {
  readonly numGroups: number
  readonly numChannels: number
  readonly eps: number
  weight: Parameter | null
  bias: Parameter | null

  constructor(numGroups: number, numChannels: number, options: ChannelNormOptions = {}) {
    super()
    const { eps = 1e-5, affine = true, ...factory } = layerOptions('GroupNorm', options, 'eps', 'affine')
    requireSizes('GroupNorm', { numGroups, numChannels })
    if (numChannels % numGroups !== 0) {
      throw new ConfigError(
        `GroupNorm: expected numChannels to be a multiple of numGroups ${numGroups}, got ${numChannels}`,
        {
          numGroups,
          numChannels,
        },
      )
    }
    this.numGroups = numGroups
    this.numChannels = numChannels
    this.eps = eps
    this.weight = affine ? parameter([numChannels], factory) : null
    this.bias = affine ? parameter([numChannels], factory) : null
    this.resetParameters()
  }

  resetParameters(): void {
    if (this.weight) ones_(this.weight)
    if (this.bias) zeros_(this.bias)
  }

  /** Normalize [batch, channels, ...]; the shape is kept. */
  override forward(input: Tensor): Tensor {
    const { numGroups, weight, bias, eps } = this
    try {
      return groupNorm(input, { numGroups, weight, bias, eps })
    } catch (error) {
      throw explain(error, () => [otherSize('GroupNorm', input, 1, this.numChannels)])
    }
  }
}

export interface LocalResponseNormOptions {
  /** Factor of the mean. Default: 1e-4. */
  alpha?: number
  /** Exponent. Default: 0.75. */
  beta?: number
  /** Added to the scaled mean. Default: 1. */
  k?: number
}

/** Returns x / (k + alpha · mean of x² over `size` neighboring channels)^beta (Krizhevsky et al. 2012). */
export class LocalResponseNorm extends Module {
  readonly size: number
  declare readonly alpha: number
  declare readonly beta: number
  declare readonly k: number

  constructor(size: number, options: LocalResponseNormOptions = {}) {
    super()
    requireSizes('LocalResponseNorm', { size })
    setOptions(this, options, { alpha: 1e-4, beta: 0.75, k: 1 })
    this.size = size
  }

  /** Normalize [batch, channels, ...]; the shape is kept. */
  override forward(input: Tensor): Tensor {
    const { size, alpha, beta, k } = this
    return localResponseNorm(input, { size, alpha, beta, k })
  }
}
