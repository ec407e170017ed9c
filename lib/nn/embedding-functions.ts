import { requireOneOf } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { arange, noGrad, ops, scope, type Tensor } from '../tensor/index.js'
import { byPosition } from './by-position.js'
import { badIndices, explain, requireNumbers, requireTensors } from './check.js'

/** Scale the rows that are about to be looked up down to `maxNorm`, in place. */
export function shortenRows(
  where: string,
  indices: Tensor,
  weight: Tensor,
  maxNorm: number | null,
  normType: number,
): void {
  if (maxNorm === null) return
  requireNumbers(where, { maxNorm, normType })
  scope(() => noGrad(() => void weight.detach().embeddingRenorm_(indices.reshape([-1]), maxNorm, normType)))
}

export interface EmbeddingArguments {
  /** Row that gets no gradient; negative counts from the end. */
  paddingIdx?: number | null
  /** Maximum norm: rows that are looked up and longer are scaled down to it in place. */
  maxNorm?: number | null
  /** Order of that norm. Default: 2. */
  normType?: number
  /** Divide each row's gradient by the number of its lookups. Default: false. */
  scaleGradByFreq?: boolean
  /** Make the gradient of the weight a sparse tensor. Default: false. */
  sparse?: boolean
}

/** Look up rows of weight [count, dim] by integer indices [...]: [..., dim]. */
export const embedding = byPosition(
  'embedding',
  ['paddingIdx', 'maxNorm', 'normType', 'scaleGradByFreq', 'sparse'],
  (indices: Tensor, weight: Tensor, options: EmbeddingArguments): Tensor => {
    const { paddingIdx = null, maxNorm = null, normType = 2, scaleGradByFreq = false, sparse = false } = options
    requireTensors('embedding', indices, weight)
    if (paddingIdx !== null) requireNumbers('embedding', { paddingIdx })
    // In ATen -1 means no padding index.
    const padding = paddingIdx === null ? -1 : paddingIdx < 0 ? paddingIdx + weight.size(0) : paddingIdx
    shortenRows('embedding', indices, weight, maxNorm, normType)
    try {
      return ops.embedding(weight, indices, padding, scaleGradByFreq, sparse)
    } catch (error) {
      throw explain(error, () => [badIndices('embedding', indices, weight.size(0))])
    }
  },
)

export interface EmbeddingBagArguments extends EmbeddingArguments {
  /** First index of each bag among one-dimensional indices, [bags]; none for indices [bags, length]. */
  offsets?: Tensor | null
  /** Reduction of a bag's rows. Default: 'mean'. */
  mode?: 'sum' | 'mean' | 'max'
  /** Factor of each row, in the indices' shape; for 'sum' only. */
  perSampleWeights?: Tensor | null
  /** Whether `offsets` ends with the number of indices. Default: false. */
  includeLastOffset?: boolean
}

/**
 * Return sums, means or maxima over bags of rows of weight [count, dim] by integer indices: [bags, dim]. `scaleGradByFreq` and
 * `sparse` are not for 'max'.
 */
export const embeddingBag = byPosition(
  'embeddingBag',
  [
    ...(['offsets', 'maxNorm', 'normType', 'scaleGradByFreq', 'mode', 'sparse', 'perSampleWeights'] as const),
    ...(['includeLastOffset', 'paddingIdx'] as const),
  ],
  (indices: Tensor, weight: Tensor, options: EmbeddingBagArguments): Tensor => {
    const where = 'embeddingBag'
    requireTensors(where, indices, weight)
    const { mode = 'mean', perSampleWeights = null, paddingIdx = null, maxNorm = null, normType = 2, ...rest } = options
    const { offsets = null, includeLastOffset = false, scaleGradByFreq = false, sparse = false } = rest
    requireTensors(where, ...[offsets, perSampleWeights].filter((one) => one !== null))
    requireOneOf(where, 'mode', mode, ['sum', 'mean', 'max'])
    const flat = indices.ndim === 1
    if (flat === (offsets === null) || indices.ndim > 2) {
      throw new ConfigError(
        `${where}: expected offsets with indices [count], and none with [bags, length], got [${indices.shape}] ` +
          `${offsets ? 'with' : 'without'} offsets`,
        { shape: indices.shape },
      )
    }
    if (perSampleWeights !== null && mode !== 'sum') {
      throw new ConfigError(`${where}: expected mode 'sum' with perSampleWeights, got '${mode}'`, { mode })
    }
    shortenRows(where, indices, weight, maxNorm, normType)
    return scope(() => {
      const { dtype, device } = indices
      const starts = offsets ?? arange(0, indices.numel(), Math.max(1, indices.size(1)), { dtype, device })
      const [bags] = ops.embeddingBag(weight, flat ? indices : indices.reshape([-1]), starts, {
        mode,
        scaleGradByFreq,
        sparse,
        perSampleWeights: flat || perSampleWeights === null ? perSampleWeights : perSampleWeights.reshape([-1]),
        includeLastOffset,
        paddingIdx,
      })
      return bags
    })
  },
)

/** Encode integer classes [...] as int64 zeros and ones [..., numClasses]; -1 (default) uses the greatest class + 1. */
export const oneHot = byPosition(
  'oneHot',
  ['numClasses'],
  (classes: Tensor, { numClasses = -1 }: { numClasses?: number }): Tensor => ops.oneHot(classes, numClasses),
)
