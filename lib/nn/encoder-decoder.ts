import { requireOptions } from '../base/check.js'
import { type Device, type DType, full, noGrad, scope, type Tensor } from '../tensor/index.js'
import { layerOptions, requireSizes } from './check.js'
import { xavierUniform_ } from './init.js'
import { Module } from './module.js'
import { LayerNorm } from './normalization.js'
import type { TransformerEncoderLayerOptions } from './transformer.js'
import { LAYER_OPTIONS, TransformerEncoder, TransformerEncoderLayer } from './transformer.js'
import { type DecoderMasks, TransformerDecoder, TransformerDecoderLayer } from './transformer-decoder.js'

export interface TransformerOptions extends TransformerEncoderLayerOptions {
  /** Number of features. Default: 512. */
  dModel?: number
  /** Number of attention heads. Default: 8. */
  nhead?: number
  /** Number of encoder layers. Default: 6. */
  numEncoderLayers?: number
  /** Number of decoder layers. Default: 6. */
  numDecoderLayers?: number
}

export interface TransformerMasks extends DecoderMasks {
  /** [source, source] or [batch · heads, source, source]: true where attention is forbidden, or added numbers. */
  sourceMask?: Tensor | null
  /** [batch, source]: true where the source is padding. */
  sourceKeyPaddingMask?: Tensor | null
  /** Each source position attends only to positions up to its own. Default: false. */
  sourceIsCausal?: boolean
}

const MASKS = [
  'sourceMask',
  'sourceKeyPaddingMask',
  'sourceIsCausal',
  'targetMask',
  'memoryMask',
  'targetKeyPaddingMask',
  'memoryKeyPaddingMask',
  'targetIsCausal',
  'memoryIsCausal',
] as const satisfies (keyof TransformerMasks)[]

/** Encoder and decoder with a final norm each (Vaswani et al. 2017); weights are initialized by {@link xavierUniform_}. */
export class Transformer extends Module {
  encoder: TransformerEncoder
  decoder: TransformerDecoder

  constructor(options: TransformerOptions = {}) {
    super()
    const optionNames = ['dModel', 'nhead', 'numEncoderLayers', 'numDecoderLayers'] as const
    const {
      dModel = 512,
      nhead = 8,
      numEncoderLayers = 6,
      numDecoderLayers = 6,
      ...layer
    } = layerOptions('Transformer', options, ...optionNames, ...LAYER_OPTIONS)
    requireSizes('Transformer', { dModel, nhead, numEncoderLayers, numDecoderLayers })
    const { layerNormEps = 1e-5, bias = true, device, dtype } = layer
    const norm = () => new LayerNorm(dModel, { eps: layerNormEps, bias, device, dtype })
    const encoderLayer = new TransformerEncoderLayer(dModel, nhead, layer)
    this.encoder = new TransformerEncoder(encoderLayer, numEncoderLayers, { norm: norm() })
    encoderLayer.dispose()
    const decoderLayer = new TransformerDecoderLayer(dModel, nhead, layer)
    this.decoder = new TransformerDecoder(decoderLayer, numDecoderLayers, { norm: norm() })
    decoderLayer.dispose()
    this.resetParameters()
  }

  resetParameters(): void {
    for (const parameter of this.parameters()) if (parameter.ndim > 1) xavierUniform_(parameter)
  }

  /**
   * @param source [source, batch, dModel], with `batchFirst` [batch, source, dModel], or [source, dModel]
   * @param target [target, batch, dModel], with the same layouts; the output has its shape
   */
  override forward(source: Tensor, target: Tensor, masks: TransformerMasks = {}): Tensor {
    requireOptions('Transformer.forward', masks, MASKS)
    const { sourceMask = null, sourceKeyPaddingMask = null, sourceIsCausal = false, ...rest } = masks
    return scope(() => {
      const memory = this.encoder.forward(source, {
        mask: sourceMask,
        keyPaddingMask: sourceKeyPaddingMask,
        isCausal: sourceIsCausal,
      })
      return this.decoder.forward(target, memory, rest)
    })
  }

  /** Return a causal mask [size, size]: -Infinity above the diagonal and 0 elsewhere. */
  static generateSquareSubsequentMask(size: number, options: { device?: Device; dtype?: DType } = {}): Tensor {
    requireSizes('generateSquareSubsequentMask', { size })
    return scope(() => noGrad(() => full([size, size], Number.NEGATIVE_INFINITY, options).triu(1)))
  }
}
