import { ConfigError } from '../native/errors.js'
import { noGrad, scope, type Tensor } from '../tensor/index.js'
import { layerOptions, requireSizes } from './check.js'
import { embedding } from './functional.js'
import { normal_ } from './init.js'
import { adaptersOf, Module } from './module.js'
import { type FactoryOptions, type Parameter, parameter } from './parameter.js'

export interface EmbeddingOptions extends FactoryOptions {
  /** Row that starts as zeros and gets no gradient; negative counts from the end. */
  paddingIdx?: number | null
}

/** A table of `numEmbeddings` vectors, looked up by number; starts normal with deviation 1. */
export class Embedding extends Module {
  readonly numEmbeddings: number
  readonly embeddingDim: number
  readonly paddingIdx: number | null
  weight: Parameter

  constructor(numEmbeddings: number, embeddingDim: number, options: EmbeddingOptions = {}) {
    super()
    const { paddingIdx = null, ...factory } = layerOptions('Embedding', options, 'paddingIdx')
    requireSizes('Embedding', { numEmbeddings, embeddingDim })
    if (paddingIdx !== null && !(paddingIdx >= -numEmbeddings && paddingIdx < numEmbeddings)) {
      throw new ConfigError(`Embedding: paddingIdx ${paddingIdx} is not one of the ${numEmbeddings} rows`, {
        paddingIdx,
      })
    }
    this.numEmbeddings = numEmbeddings
    this.embeddingDim = embeddingDim
    this.paddingIdx = paddingIdx !== null && paddingIdx < 0 ? paddingIdx + numEmbeddings : paddingIdx
    this.weight = parameter([numEmbeddings, embeddingDim], factory)
    this.resetParameters()
  }

  resetParameters(): void {
    normal_(this.weight)
    const { paddingIdx, weight } = this
    if (paddingIdx !== null) scope(() => noGrad(() => void weight.select(0, paddingIdx).zero_()))
  }

  /** Integer indices [...] → [..., embeddingDim] */
  override forward(indices: Tensor): Tensor {
    return adaptersOf(this)?.forward(indices) ?? embedding(indices, this.weight, { paddingIdx: this.paddingIdx })
  }
}
