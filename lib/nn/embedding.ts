import { requireOneOf, requireOptions } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { noGrad, scope, type Tensor } from '../tensor/index.js'
import { layerOptions, requireSettings, requireSizes, requireTensors } from './check.js'
import { embedding, embeddingBag, shortenRows } from './embedding-functions.js'
import { normal_ } from './init.js'
import { adaptersOf, Module } from './module.js'
import { type FactoryOptions, type Parameter, parameter } from './parameter.js'
import { quantizationOf, quantizedEmbedding } from './quantized-weight.js'

export interface EmbeddingOptions extends FactoryOptions {
  /** Row that is initialized with zeros and gets no gradient; negative counts from the end. */
  paddingIdx?: number | null
  /** Maximum norm: rows that are looked up and longer are scaled down to it in place. Default: null. */
  maxNorm?: number | null
  /** Order of that norm. Default: 2. */
  normType?: number
  /** Divide each row's gradient by the number of its lookups. Default: false. */
  scaleGradByFreq?: boolean
  /** Whether the gradient of the table is sparse, with the rows that were looked up; for SparseAdam. Default: false. */
  sparse?: boolean
}

/** Table of `numEmbeddings` vectors, looked up by index; initialized from a normal distribution with deviation 1. */
export class Embedding extends Module {
  readonly numEmbeddings: number
  readonly embeddingDim: number
  readonly paddingIdx: number | null
  readonly maxNorm: number | null
  readonly normType: number
  readonly scaleGradByFreq: boolean
  readonly sparse: boolean
  weight: Parameter

  constructor(numEmbeddings: number, embeddingDim: number, options: EmbeddingOptions = {}) {
    super()
    const optionNames = ['paddingIdx', 'maxNorm', 'normType', 'scaleGradByFreq', 'sparse'] as const
    const { paddingIdx = null, ...rest } = layerOptions('Embedding', options, ...optionNames)
    const { maxNorm = null, normType = 2, scaleGradByFreq = false, sparse = false, ...factory } = rest
    requireSizes('Embedding', { numEmbeddings, embeddingDim })
    if (paddingIdx !== null && !(paddingIdx >= -numEmbeddings && paddingIdx < numEmbeddings)) {
      throw new ConfigError(
        `Embedding: expected paddingIdx to be one of the ${numEmbeddings} rows, got ${paddingIdx}`,
        {
          paddingIdx,
        },
      )
    }
    this.numEmbeddings = numEmbeddings
    this.embeddingDim = embeddingDim
    this.paddingIdx = paddingIdx !== null && paddingIdx < 0 ? paddingIdx + numEmbeddings : paddingIdx
    requireSettings('Embedding', { normType, maxNorm: maxNorm ?? 0 })
    this.maxNorm = maxNorm
    this.normType = normType
    this.scaleGradByFreq = scaleGradByFreq
    this.sparse = sparse
    this.weight = parameter([numEmbeddings, embeddingDim], factory)
    this.resetParameters()
  }

  resetParameters(): void {
    normal_(this.weight)
    const { paddingIdx, weight } = this
    if (paddingIdx !== null) scope(() => noGrad(() => void weight.select(0, paddingIdx).zero_()))
  }

  /** Map integer indices [...] to [..., embeddingDim]. */
  override forward(indices: Tensor): Tensor {
    const { weight, paddingIdx } = this
    const packed = quantizationOf(this)
    if (packed) return quantizedEmbedding(indices, packed)
    const { maxNorm, normType, scaleGradByFreq, sparse } = this
    const adapters = adaptersOf(this)
    if (adapters) {
      requireTensors('Embedding', indices)
      shortenRows('Embedding', indices, weight, maxNorm, normType)
      const adapted = adapters.forward(indices)
      if (adapted) return adapted
    }
    return embedding(indices, weight, { paddingIdx, maxNorm, normType, scaleGradByFreq, sparse })
  }
}

type Mode = 'sum' | 'mean' | 'max'

export interface EmbeddingBagOptions extends Omit<EmbeddingOptions, 'sparse'> {
  /** Reduction of a bag's rows. Default: 'mean'. */
  mode?: Mode
  /** Whether the offsets end with the number of indices. Default: false. */
  includeLastOffset?: boolean
}

export interface EmbeddingBagCall {
  /** First index of each bag, [bags] int64; for one-dimensional indices. */
  offsets?: Tensor | null
  /** Factor of each row, in the indices' shape; for mode 'sum'. */
  perSampleWeights?: Tensor | null
}

/** Computes sums, means or maxima of bags of rows of a table, without materializing the rows. */
export class EmbeddingBag extends Module {
  readonly numEmbeddings: number
  readonly embeddingDim: number
  readonly mode: Mode
  readonly paddingIdx: number | null
  readonly maxNorm: number | null
  readonly normType: number
  readonly scaleGradByFreq: boolean
  readonly includeLastOffset: boolean
  weight: Parameter

  constructor(numEmbeddings: number, embeddingDim: number, options: EmbeddingBagOptions = {}) {
    super()
    const optionNames = ['mode', 'includeLastOffset', 'paddingIdx', 'maxNorm', 'normType', 'scaleGradByFreq'] as const
    const { mode = 'mean', includeLastOffset = false, ...table } = layerOptions('EmbeddingBag', options, ...optionNames)
    requireOneOf('EmbeddingBag', 'mode', mode, ['sum', 'mean', 'max'])
    const rows = new Embedding(numEmbeddings, embeddingDim, table)
    this.numEmbeddings = numEmbeddings
    this.embeddingDim = embeddingDim
    this.mode = mode
    this.paddingIdx = rows.paddingIdx
    this.maxNorm = rows.maxNorm
    this.normType = rows.normType
    this.scaleGradByFreq = rows.scaleGradByFreq
    this.includeLastOffset = includeLastOffset
    this.weight = rows.weight
  }

  /** Map integer indices [bags, length], or [count] with `offsets`, to [bags, embeddingDim]. */
  override forward(indices: Tensor, options: EmbeddingBagCall = {}): Tensor {
    requireTensors('EmbeddingBag', indices)
    requireOptions('EmbeddingBag.forward', options, ['offsets', 'perSampleWeights'])
    const { weight, mode, paddingIdx, maxNorm, normType, scaleGradByFreq, includeLastOffset } = this
    const settings = { mode, paddingIdx, maxNorm, normType, scaleGradByFreq, includeLastOffset }
    return embeddingBag(indices, weight, { ...options, ...settings })
  }
}
