import { ConfigError, ShapeError } from '../native/errors.js'
import { noGrad, ops, scope, type Tensor, zeros } from '../tensor/index.js'
import { explain, layerOptions, notFloating, otherRank, otherSize, requireSizes } from './check.js'
import { layerNorm, rmsNorm } from './functional.js'
import { ones_, zeros_ } from './init.js'
import { Module } from './module.js'
import { type FactoryOptions, type Parameter, parameter } from './parameter.js'

export interface LayerNormOptions extends FactoryOptions {
  /** Added to the variance. Default: 1e-5. */
  eps?: number
  /** Whether weight (ones) and bias (zeros) are learnt. Default: true. */
  elementwiseAffine?: boolean
  /** Default: true. */
  bias?: boolean
}

export interface RMSNormOptions extends FactoryOptions {
  /** Added to the mean square; null, the default, means the input dtype's machine epsilon. */
  eps?: number | null
  /** Whether the weight (ones) is learnt. Default: true. */
  elementwiseAffine?: boolean
}

export interface ChannelNormOptions extends FactoryOptions {
  /** Added to the variance. Default: 1e-5. */
  eps?: number
  /** Whether weight (ones) and bias (zeros) of each channel are learnt. Default: true. */
  affine?: boolean
}

const shapeOf = (layer: string, shape: number | number[]): number[] => {
  const sizes = Array.isArray(shape) ? [...shape] : [shape]
  requireSizes(layer, Object.fromEntries(sizes.map((size, i) => [`normalizedShape[${i}]`, size])))
  if (sizes.length === 0) throw new ConfigError(`${layer}: normalizedShape must not be empty`, {})
  return sizes
}

/** Zero mean and unit variance over the trailing dimensions (Ba et al. 2016). */
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

  /** [..., ...normalizedShape], the same out */
  override forward(input: Tensor): Tensor {
    const { weight, bias, eps } = this
    return layerNorm(input, this.normalizedShape, { weight, bias, eps })
  }
}

/** x / sqrt(mean(x²) + eps), over the trailing dimensions (Zhang and Sennrich 2019). */
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

  /** [..., ...normalizedShape], the same out */
  override forward(input: Tensor): Tensor {
    const { weight, eps } = this
    return rmsNorm(input, this.normalizedShape, { weight, eps })
  }
}

/** Zero mean and unit variance of each of `numGroups` groups of channels (Wu and He 2018). */
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
      throw new ConfigError(`GroupNorm: numChannels ${numChannels} is not a multiple of numGroups ${numGroups}`, {
        numGroups,
        numChannels,
      })
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

  /** [batch, channels, ...], the same out */
  override forward(input: Tensor): Tensor {
    try {
      return ops.groupNorm(input, this.numGroups, this.weight, this.bias, this.eps)
    } catch (error) {
      throw explain(error, () => [notFloating('GroupNorm', input), otherSize('GroupNorm', input, 1, this.numChannels)])
    }
  }
}

export interface BatchNormOptions extends ChannelNormOptions {
  /** Weight of the newest batch in the running statistics; null averages over all batches. Default: 0.1. */
  momentum?: number | null
  /** Whether running statistics are kept, and used in `eval()`. Default: true. */
  trackRunningStats?: boolean
}

/** Zero mean and unit variance of each channel over the batch (Ioffe and Szegedy 2015). */
export class BatchNorm1d extends Module {
  readonly numFeatures: number
  readonly eps: number
  readonly momentum: number | null
  weight: Parameter | null
  bias: Parameter | null
  declare running_mean: Tensor | null
  declare running_var: Tensor | null
  declare num_batches_tracked: Tensor | null

  constructor(numFeatures: number, options: BatchNormOptions = {}) {
    super()
    const {
      eps = 1e-5,
      momentum = 0.1,
      affine = true,
      trackRunningStats = true,
      ...factory
    } = layerOptions('BatchNorm1d', options, 'eps', 'momentum', 'affine', 'trackRunningStats')
    requireSizes('BatchNorm1d', { numFeatures })
    this.numFeatures = numFeatures
    this.eps = eps
    this.momentum = momentum
    this.weight = affine ? parameter([numFeatures], factory) : null
    this.bias = affine ? parameter([numFeatures], factory) : null
    const { device } = factory
    this.registerBuffer('running_mean', trackRunningStats ? zeros([numFeatures], factory) : null)
    this.registerBuffer('running_var', trackRunningStats ? zeros([numFeatures], factory) : null)
    this.registerBuffer('num_batches_tracked', trackRunningStats ? zeros([], { device, dtype: 'int64' }) : null)
    this.resetParameters()
  }

  resetParameters(): void {
    if (this.running_mean) zeros_(this.running_mean)
    if (this.running_var) ones_(this.running_var)
    if (this.num_batches_tracked) zeros_(this.num_batches_tracked)
    if (this.weight) ones_(this.weight)
    if (this.bias) zeros_(this.bias)
  }

  /** [batch, channels] or [batch, channels, length], the same out. In training, updates the running statistics. */
  override forward(input: Tensor): Tensor {
    const wrong = otherRank('BatchNorm1d', input, [2, 3], '[batch, channels] or [batch, channels, length]')
    if (wrong) throw wrong
    const useBatch = this.training || !this.running_mean
    const [batch = 0, , length = 1] = input.shape
    if (useBatch && batch * length < 2) {
      throw new ShapeError(
        `BatchNorm1d: statistics of a batch need more than one value per channel, but the input is [${input.shape}]; ` +
          'use a larger batch or eval()',
        { shape: input.shape },
      )
    }
    return scope(() => {
      const momentum = this.training ? this.#countBatch() : 0
      try {
        return ops.batchNorm(
          input,
          this.weight,
          this.bias,
          this.running_mean,
          this.running_var,
          useBatch,
          momentum,
          this.eps,
          true,
        )
      } catch (error) {
        throw explain(error, () => [
          notFloating('BatchNorm1d', input),
          otherSize('BatchNorm1d', input, 1, this.numFeatures),
        ])
      }
    })
  }

  #countBatch(): number {
    const count = this.num_batches_tracked
    if (!count) return 0
    noGrad(() => count.add_(1))
    return this.momentum ?? 1 / Number(count.item())
  }
}
