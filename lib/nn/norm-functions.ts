import { requireBoolean } from '../base/check.js'
import { ShapeError } from '../base/errors.js'
import { op } from '../native/call.js'
import { ops, scope, type Tensor } from '../tensor/index.js'
import { byPosition } from './by-position.js'
import { explain, notFloating, otherRank, otherSize, requireNumbers, requireTensors } from './check.js'

export interface AffineOptions {
  /** Factor of each normalized channel or feature. */
  weight?: Tensor | null
  /** Added to each normalized channel or feature. */
  bias?: Tensor | null
  /** Added to the variance. Default: 1e-5. */
  eps?: number
}

export interface LayerNormArguments extends AffineOptions {
  /** Sizes of the trailing dimensions. */
  normalizedShape: number | readonly number[]
}

const fastLayerNorm = op('voxtorch::layer_norm')
const sizesOf = (shape: number | readonly number[]): readonly number[] => (typeof shape === 'number' ? [shape] : shape)

const otherSizes = (where: string, input: Tensor, sizes: readonly number[]) =>
  sizes.map((size, i) => otherSize(where, input, i - sizes.length, size))

/** Normalize over the trailing dimensions, which must equal `normalizedShape` (Ba et al. 2016). */
export const layerNorm = byPosition(
  'layerNorm',
  ['normalizedShape', 'weight', 'bias', 'eps'],
  (input: Tensor, options: LayerNormArguments): Tensor => {
    const { normalizedShape, weight = null, bias = null, eps = 1e-5 } = options
    const sizes = sizesOf(normalizedShape)
    try {
      return fastLayerNorm(input, sizes, weight, bias, eps)
    } catch (error) {
      throw explain(error, () => [notFloating('layerNorm', input), ...otherSizes('layerNorm', input, sizes)])
    }
  },
)

export interface RMSNormArguments {
  /** Sizes of the trailing dimensions. */
  normalizedShape: number | readonly number[]
  /** Factor of each feature, in `normalizedShape`. */
  weight?: Tensor | null
  /** Added to the mean square. Default: the dtype's machine epsilon. */
  eps?: number | null
}

/** Return x / sqrt(mean(x²) + eps) over the trailing dimensions (Zhang and Sennrich 2019). */
export const rmsNorm = byPosition(
  'rmsNorm',
  ['normalizedShape', 'weight', 'eps'],
  (input: Tensor, { normalizedShape, weight = null, eps = null }: RMSNormArguments): Tensor => {
    const sizes = sizesOf(normalizedShape)
    try {
      return ops.rmsNorm(input, sizes as number[], weight, eps)
    } catch (error) {
      throw explain(error, () => [notFloating('rmsNorm', input), ...otherSizes('rmsNorm', input, sizes)])
    }
  },
)

export interface GroupNormArguments extends AffineOptions {
  /** Number of groups of channels. */
  numGroups: number
}

/** Normalize each of `numGroups` groups of channels of [batch, channels, ...] (Wu and He 2018). */
export const groupNorm = byPosition(
  'groupNorm',
  ['numGroups', 'weight', 'bias', 'eps'],
  (input: Tensor, { numGroups, weight = null, bias = null, eps = 1e-5 }: GroupNormArguments): Tensor => {
    try {
      return ops.groupNorm(input, numGroups, weight, bias, eps)
    } catch (error) {
      throw explain(error, () => [
        notFloating('groupNorm', input),
        weight !== null && otherSize('groupNorm', input, 1, weight.size(0)),
      ])
    }
  },
)

export interface BatchNormArguments extends AffineOptions {
  /** Use the statistics of the batch, and update the running ones. Default: false. */
  training?: boolean
  /** Weight of the batch in the running statistics. Default: 0.1. */
  momentum?: number
}

/**
 * Normalize each channel of [batch, channels, ...] (Ioffe and Szegedy 2015).
 * @param runningMean [channels], updated in training; null uses the batch's statistics
 * @param runningVar [channels], updated in training
 */
export const batchNorm = byPosition(
  'batchNorm',
  ['weight', 'bias', 'training', 'momentum', 'eps'],
  (
    input: Tensor,
    runningMean: Tensor | null,
    runningVar: Tensor | null,
    { weight = null, bias = null, training = false, momentum = 0.1, eps = 1e-5 }: BatchNormArguments,
  ): Tensor => {
    requireTensors('batchNorm', input)
    requireBoolean('batchNorm', 'training', training)
    if (training) requireBatch('batchNorm', input)
    return ops.batchNorm(input, weight, bias, runningMean, runningVar, training, momentum, eps, true)
  },
)

/** Check that each channel has several values, without which it has no variance. */
export function requireBatch(where: string, input: Tensor): void {
  const perChannel = input.shape.reduce((product, size, dim) => (dim === 1 ? product : product * size), 1)
  if (perChannel !== 1) return
  throw new ShapeError(
    `${where}: expected more than one value per channel for batch statistics, got an input of shape [${input.shape}]. ` +
      'Use a larger batch or eval()',
    { shape: input.shape },
  )
}

export interface InstanceNormArguments extends AffineOptions {
  /** Running mean, [channels]. */
  runningMean?: Tensor | null
  /** Running variance, [channels]. */
  runningVar?: Tensor | null
  /** Use the statistics of each item instead of the running ones. Default: true. */
  useInputStats?: boolean
  /** Weight of the batch in the running statistics. Default: 0.1. */
  momentum?: number
}

/** Normalize each channel of each item of [batch, channels, ...] (Ulyanov et al. 2016, https://arxiv.org/abs/1607.08022). */
export const instanceNorm = byPosition(
  'instanceNorm',
  ['runningMean', 'runningVar', 'weight', 'bias', 'useInputStats', 'momentum', 'eps'],
  (input: Tensor, options: InstanceNormArguments): Tensor => {
    const { runningMean = null, runningVar = null, weight = null, bias = null } = options
    const { useInputStats = true, momentum = 0.1, eps = 1e-5 } = options
    requireTensors('instanceNorm', input)
    requireBoolean('instanceNorm', 'useInputStats', useInputStats)
    if (useInputStats) requirePlane('instanceNorm', input, 2)
    return ops.instanceNorm(input, weight, bias, runningMean, runningVar, useInputStats, momentum, eps, true)
  },
)

/** Check that a channel has several values. @param from first dimension of a channel's values */
export function requirePlane(where: string, input: Tensor, from: number): void {
  if (!input.shape.slice(from).every((size) => size === 1)) return
  throw new ShapeError(`${where}: expected more than one value per channel, got an input of shape [${input.shape}]`, {
    shape: input.shape,
  })
}

export interface LocalResponseNormArguments {
  /** Number of neighboring channels. */
  size: number
  /** Factor of the mean. Default: 1e-4. */
  alpha?: number
  /** Exponent. Default: 0.75. */
  beta?: number
  /** Added to the scaled mean. Default: 1. */
  k?: number
}

/**
 * Return x / (k + alpha mean(x²))^beta, with the mean over `size` neighboring channels of input [batch, channels, ...]
 * (Krizhevsky et al. 2012).
 */
export const localResponseNorm = byPosition(
  'localResponseNorm',
  ['size', 'alpha', 'beta', 'k'],
  (input: Tensor, { size, alpha = 1e-4, beta = 0.75, k = 1 }: LocalResponseNormArguments): Tensor => {
    const where = 'localResponseNorm'
    requireNumbers(where, { size, alpha, beta, k })
    const wrong = otherRank(where, input, [3, 4, 5, 6], '[batch, channels, ...]')
    if (wrong) throw wrong
    return scope(() => {
      const [batch, channels] = input.shape as [number, number]
      const rows = input.square().reshape(batch, 1, channels, -1)
      const padded = ops.pad(rows, [0, 0, Math.floor(size / 2), Math.floor((size - 1) / 2)])
      const mean = ops.avgPool2d(padded, [size, 1], [1, 1]).reshape(input.shape)
      return input.div(mean.mul(alpha).add(k).pow(beta))
    })
  },
)

export interface NormalizeOptions {
  /** Order of the norm. Default: 2. */
  p?: number
  /** Dimension of the norm. Default: 1. */
  dim?: number | readonly number[]
  /** Minimum of the norm. Default: 1e-12. */
  eps?: number
}

/** Return x / max(|x|, eps), with the norm of order `p` along `dim`. */
export const normalize = byPosition(
  'normalize',
  ['p', 'dim', 'eps'],
  (input: Tensor, { p = 2, dim = 1, eps = 1e-12 }: NormalizeOptions): Tensor => {
    requireTensors('normalize', input)
    const dims = typeof dim === 'number' ? [dim] : dim
    return scope(() => input.div(ops.linalgVectorNorm(input, p, dims, true).clampMin(eps)))
  },
)
