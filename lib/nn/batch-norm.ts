import { noGrad, ops, scope, type Tensor, zeros } from '../tensor/index.js'
import { explain, layerOptions, notFloating, otherRank, otherSize, requireSizes } from './check.js'
import { ones_, zeros_ } from './init.js'
import { Module } from './module.js'
import { requireBatch, requirePlane } from './norm-functions.js'
import type { ChannelNormOptions } from './normalization.js'
import { type FactoryOptions, type Parameter, parameter } from './parameter.js'

export interface BatchNormOptions extends ChannelNormOptions {
  /** Weight of the newest batch in the running statistics; null averages over all batches. Default: 0.1. */
  momentum?: number | null
  /** Whether running statistics are kept, and used in `eval()`. Default: true. */
  trackRunningStats?: boolean
}

/** Parameters and running statistics of batch and instance normalization. `ranks` and `layout` describe the inputs. */
abstract class RunningNorm extends Module {
  readonly numFeatures: number
  readonly eps: number
  readonly momentum: number | null
  weight: Parameter | null
  bias: Parameter | null
  declare running_mean: Tensor | null
  declare running_var: Tensor | null
  declare num_batches_tracked: Tensor | null

  constructor(
    numFeatures: number,
    options: Required<Omit<BatchNormOptions, keyof FactoryOptions>>,
    factory: FactoryOptions,
  ) {
    super()
    const { eps, momentum, affine, trackRunningStats } = options
    requireSizes(new.target.name, { numFeatures })
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

  /** Run the normalization, and explain its errors. */
  protected normed(input: Tensor, channels: number, run: () => Tensor): Tensor {
    try {
      return run()
    } catch (error) {
      const layer = this.constructor.name
      throw explain(error, () => [notFloating(layer, input), otherSize(layer, input, channels, this.numFeatures)])
    }
  }
}

const BATCH = { eps: 1e-5, momentum: 0.1, affine: true, trackRunningStats: true }
const OWN = ['eps', 'momentum', 'affine', 'trackRunningStats'] as const

/** Base class of the batch normalizations. */
export abstract class BatchNorm extends RunningNorm {
  constructor(numFeatures: number, options: BatchNormOptions = {}) {
    const { device, dtype, ...own } = layerOptions(new.target.name, options, ...OWN)
    super(numFeatures, { ...BATCH, ...own }, { device, dtype })
  }

  protected normalize(input: Tensor, ranks: number[], layout: string): Tensor {
    const layer = this.constructor.name
    const wrong = otherRank(layer, input, ranks, layout)
    if (wrong) throw wrong
    const useBatch = this.training || !this.running_mean
    if (useBatch) requireBatch(layer, input)
    return scope(() => {
      const momentum = this.training ? this.countBatch() : 0
      const { weight, bias, running_mean, running_var, eps } = this
      return this.normed(input, 1, () =>
        ops.batchNorm(input, weight, bias, running_mean, running_var, useBatch, momentum, eps, true),
      )
    })
  }

  /** Count a batch, and return the weight of its statistics. */
  protected countBatch(): number {
    const count = this.num_batches_tracked
    if (!count) return 0
    noGrad(() => count.add_(1))
    return this.momentum ?? 1 / Number(count.item())
  }
}

/** Normalizes each channel over the batch (Ioffe and Szegedy 2015). */
export class BatchNorm1d extends BatchNorm {
  /** Normalize [batch, channels] or [batch, channels, length]; the shape is kept. In training, updates the running statistics. */
  override forward(input: Tensor): Tensor {
    return this.normalize(input, [2, 3], '[batch, channels] or [batch, channels, length]')
  }
}

/** Normalizes each channel over batch and plane (Ioffe and Szegedy 2015). */
export class BatchNorm2d extends BatchNorm {
  /** Normalize [batch, channels, height, width]; the shape is kept. In training, updates the running statistics. */
  override forward(input: Tensor): Tensor {
    return this.normalize(input, [4], '[batch, channels, height, width]')
  }
}

/** Normalizes each channel over batch and volume (Ioffe and Szegedy 2015). */
export class BatchNorm3d extends BatchNorm {
  /** Normalize [batch, channels, depth, height, width]; the shape is kept. In training, updates the running statistics. */
  override forward(input: Tensor): Tensor {
    return this.normalize(input, [5], '[batch, channels, depth, height, width]')
  }
}

export interface InstanceNormOptions extends FactoryOptions {
  /** Added to the variance. Default: 1e-5. */
  eps?: number
  /** Weight of the newest batch in the running statistics; null means 0. Default: 0.1. */
  momentum?: number | null
  /** Whether weight (ones) and bias (zeros) of each channel are learned. Default: false. */
  affine?: boolean
  /** Whether running statistics are kept, and used in `eval()`. Default: false. */
  trackRunningStats?: boolean
}

abstract class InstanceNorm extends RunningNorm {
  constructor(numFeatures: number, options: InstanceNormOptions = {}) {
    const { device, dtype, ...own } = layerOptions(new.target.name, options, ...OWN)
    super(numFeatures, { ...BATCH, affine: false, trackRunningStats: false, ...own }, { device, dtype })
  }

  protected normalize(input: Tensor, dims: number, layout: string): Tensor {
    const layer = this.constructor.name
    const wrong = otherRank(layer, input, [dims + 1, dims + 2], `[batch, channels, ${layout}] or [channels, ${layout}]`)
    if (wrong) throw wrong
    const useInput = this.training || !this.running_mean
    if (useInput) requirePlane(layer, input, input.ndim - dims)
    const { weight, bias, running_mean, running_var, momentum, eps } = this
    return scope(() => {
      const whole = input.ndim === dims + 2
      const batch = whole ? input : input.unsqueeze(0)
      const output = this.normed(batch, 1, () =>
        ops.instanceNorm(batch, weight, bias, running_mean, running_var, useInput, momentum ?? 0, eps, true),
      )
      return whole ? output : output.squeeze(0)
    })
  }
}

/** Normalizes each channel of each item (Ulyanov et al. 2016, https://arxiv.org/abs/1607.08022). */
export class InstanceNorm1d extends InstanceNorm {
  /** Normalize [batch, channels, length] or [channels, length]; the shape is kept. */
  override forward(input: Tensor): Tensor {
    return this.normalize(input, 1, 'length')
  }
}

/** Normalizes each channel of each item (Ulyanov et al. 2016, https://arxiv.org/abs/1607.08022). */
export class InstanceNorm2d extends InstanceNorm {
  /** Normalize [batch, channels, height, width] or [channels, height, width]; the shape is kept. */
  override forward(input: Tensor): Tensor {
    return this.normalize(input, 2, 'height, width')
  }
}

/** Normalizes each channel of each item (Ulyanov et al. 2016, https://arxiv.org/abs/1607.08022). */
export class InstanceNorm3d extends InstanceNorm {
  /** Normalize [batch, channels, depth, height, width] or [channels, depth, height, width]; the shape is kept. */
  override forward(input: Tensor): Tensor {
    return this.normalize(input, 3, 'depth, height, width')
  }
}
