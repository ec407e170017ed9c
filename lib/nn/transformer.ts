import { shown } from '../base/arguments.js'
import { requireOptions } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { scope, type Tensor } from '../tensor/index.js'
import { MultiheadAttention } from './attention.js'
import { layerOptions, requireLayers, requireTensors } from './check.js'
import { type Layer, ModuleList } from './containers.js'
import { Dropout } from './dropout.js'
import { gelu, relu } from './functional.js'
import { skipInit } from './init.js'
import { Linear } from './linear.js'
import { Module } from './module.js'
import { LayerNorm } from './normalization.js'
import type { FactoryOptions } from './parameter.js'

export type Activation = 'relu' | 'gelu' | ((input: Tensor) => Tensor)

export interface TransformerEncoderLayerOptions extends FactoryOptions {
  /** Number of features of the feed-forward layer. Default: 2048. */
  dimFeedforward?: number
  /** Dropout probability. Default: 0.1. */
  dropout?: number
  /** Activation of the feed-forward layer. Default: 'relu'. */
  activation?: Activation
  /** Epsilon of the layer norms. Default: 1e-5. */
  layerNormEps?: number
  /** Input is [batch, time, dModel] instead of [time, batch, dModel]. Default: false. */
  batchFirst?: boolean
  /** Normalize before attention and feed-forward instead of after. Default: false. */
  normFirst?: boolean
  /** Whether linear layers and norms have biases. Default: true. */
  bias?: boolean
}

export interface EncoderMasks {
  /** [time, time] or [batch · heads, time, time]: true where attention is forbidden, or added numbers. */
  mask?: Tensor | null
  /** [batch, time]: true where the input is padding. */
  keyPaddingMask?: Tensor | null
  /** Each position attends only to positions up to its own. Default: false. */
  isCausal?: boolean
}

export const LAYER_OPTIONS = [
  'dimFeedforward',
  'dropout',
  'activation',
  'layerNormEps',
  'batchFirst',
  'normFirst',
  'bias',
] as const satisfies (keyof TransformerEncoderLayerOptions)[]

/** Return the function of an activation; default relu. */
export function activationOf(layer: string, activation: Activation = 'relu'): (input: Tensor) => Tensor {
  if (activation === 'relu') return relu
  if (activation === 'gelu') return (input) => gelu(input)
  if (typeof activation === 'function') return activation
  throw new ConfigError(`${layer}: expected activation to be 'relu', 'gelu' or a function, got ${shown(activation)}`, {
    activation,
  })
}

/** Self-attention and feed-forward with residuals and layer norms (Vaswani et al. 2017). */
export class TransformerEncoderLayer extends Module {
  self_attn: MultiheadAttention
  linear1: Linear
  dropout: Dropout
  linear2: Linear
  norm1: LayerNorm
  norm2: LayerNorm
  dropout1: Dropout
  dropout2: Dropout
  readonly #arguments: [number, number, TransformerEncoderLayerOptions]
  readonly #activation: (input: Tensor) => Tensor

  constructor(dModel: number, nhead: number, options: TransformerEncoderLayerOptions = {}) {
    super()
    const {
      dimFeedforward = 2048,
      dropout = 0.1,
      activation = 'relu',
      layerNormEps = 1e-5,
    } = layerOptions('TransformerEncoderLayer', options, ...LAYER_OPTIONS)
    const { batchFirst = false, bias = true, device, dtype } = options
    this.#activation = activationOf('TransformerEncoderLayer', activation)
    this.#arguments = [dModel, nhead, options]
    const factory = { device, dtype }
    this.self_attn = new MultiheadAttention(dModel, nhead, { dropout, bias, batchFirst, ...factory })
    this.linear1 = new Linear(dModel, dimFeedforward, { bias, ...factory })
    this.dropout = new Dropout(dropout)
    this.linear2 = new Linear(dimFeedforward, dModel, { bias, ...factory })
    this.norm1 = new LayerNorm(dModel, { eps: layerNormEps, bias, ...factory })
    this.norm2 = new LayerNorm(dModel, { eps: layerNormEps, bias, ...factory })
    this.dropout1 = new Dropout(dropout)
    this.dropout2 = new Dropout(dropout)
  }

  /** Return a new layer with the same settings and values. No random number is drawn. */
  clone(): TransformerEncoderLayer {
    const [dModel, nhead, options] = this.#arguments
    const { device, dtype } = this.linear1.weight
    const copy = skipInit(() => new TransformerEncoderLayer(dModel, nhead, { ...options, device, dtype }))
    if (device !== 'meta') copy.loadStateDict(this.stateDict())
    return copy.train(this.training)
  }

  /** Encode [time, batch, dModel], with `batchFirst` [batch, time, dModel], or [time, dModel]; the shape is kept. */
  override forward(input: Tensor, masks: EncoderMasks = {}): Tensor {
    requireTensors('TransformerEncoderLayer', input)
    requireOptions('TransformerEncoderLayer.forward', masks, ['mask', 'keyPaddingMask', 'isCausal'])
    return scope(() => {
      if (this.#arguments[2].normFirst) {
        const attended = input.add(this.#attention(this.norm1.forward(input), masks))
        return attended.add(this.#feedForward(this.norm2.forward(attended)))
      }
      const attended = this.norm1.forward(input.add(this.#attention(input, masks)))
      return this.norm2.forward(attended.add(this.#feedForward(attended)))
    })
  }

  #attention(x: Tensor, { mask, keyPaddingMask, isCausal }: EncoderMasks): Tensor {
    const settings = { attnMask: mask, keyPaddingMask, isCausal, needWeights: false }
    return this.dropout1.forward(this.self_attn.forward(x, x, x, settings).output)
  }

  #feedForward(x: Tensor): Tensor {
    return this.dropout2.forward(this.linear2.forward(this.dropout.forward(this.#activation(this.linear1.forward(x)))))
  }
}

/**
 * Stack of `numLayers` copies of `layer`, which the caller keeps; as in PyTorch all have its initial values. Unlike PyTorch in
 * evaluation, outputs at padded positions are not set to zero.
 */
export class TransformerEncoder extends Module {
  layers: ModuleList<TransformerEncoderLayer>
  norm: Layer | null

  constructor(layer: TransformerEncoderLayer, numLayers: number, options: { norm?: Layer | null } = {}) {
    super()
    requireOptions('TransformerEncoder', options, ['norm'])
    const { norm = null } = options
    requireLayers('TransformerEncoder', numLayers)
    if (!(layer instanceof TransformerEncoderLayer)) {
      throw new ConfigError('TransformerEncoder: expected a TransformerEncoderLayer as first argument', {})
    }
    this.layers = new ModuleList(Array.from({ length: numLayers }, () => layer.clone()))
    this.norm = norm
  }

  /** Encode [time, batch, dModel], with the layer's `batchFirst` [batch, time, dModel]; the shape is kept. */
  override forward(input: Tensor, masks: EncoderMasks = {}): Tensor {
    return scope(() => {
      let output = input
      for (const layer of this.layers) output = layer.forward(output, masks)
      return this.norm ? this.norm.forward(output) : output
    })
  }
}
