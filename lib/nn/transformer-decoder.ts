import { requireOptions } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { scope, type Tensor } from '../tensor/index.js'
import { MultiheadAttention } from './attention.js'
import { layerOptions, requireLayers, requireTensors } from './check.js'
import { type Layer, ModuleList } from './containers.js'
import { Dropout } from './dropout.js'
import { skipInit } from './init.js'
import { Linear } from './linear.js'
import { Module } from './module.js'
import { LayerNorm } from './normalization.js'
import { activationOf, LAYER_OPTIONS, type TransformerEncoderLayerOptions } from './transformer.js'

export type TransformerDecoderLayerOptions = TransformerEncoderLayerOptions

export interface DecoderMasks {
  /** [target, target] or [batch · heads, target, target]: true where attention is forbidden, or added numbers. */
  targetMask?: Tensor | null
  /** [target, source], or with heads as above. */
  memoryMask?: Tensor | null
  /** [batch, target]: true where the target is padding. */
  targetKeyPaddingMask?: Tensor | null
  /** [batch, source]: true where the memory is padding. */
  memoryKeyPaddingMask?: Tensor | null
  /** Each target position attends only to positions up to its own. Default: false. */
  targetIsCausal?: boolean
  /** Position i of the target attends only to the memory up to i. Default: false. */
  memoryIsCausal?: boolean
}

const MASKS = [
  'targetMask',
  'memoryMask',
  'targetKeyPaddingMask',
  'memoryKeyPaddingMask',
  'targetIsCausal',
  'memoryIsCausal',
] as const satisfies (keyof DecoderMasks)[]

/** Self-attention, attention to an encoder's output and feed-forward, with residuals and layer norms (Vaswani et al. 2017). */
export class TransformerDecoderLayer extends Module {
  self_attn: MultiheadAttention
  multihead_attn: MultiheadAttention
  linear1: Linear
  dropout: Dropout
  linear2: Linear
  norm1: LayerNorm
  norm2: LayerNorm
  norm3: LayerNorm
  dropout1: Dropout
  dropout2: Dropout
  dropout3: Dropout
  readonly #arguments: [number, number, TransformerDecoderLayerOptions]
  readonly #activation: (input: Tensor) => Tensor

  constructor(dModel: number, nhead: number, options: TransformerDecoderLayerOptions = {}) {
    super()
    const where = 'TransformerDecoderLayer'
    const { dimFeedforward = 2048, dropout = 0.1, layerNormEps = 1e-5 } = layerOptions(where, options, ...LAYER_OPTIONS)
    const { batchFirst = false, bias = true, device, dtype } = options
    this.#activation = activationOf(where, options.activation)
    this.#arguments = [dModel, nhead, options]
    const factory = { device, dtype }
    const norm = () => new LayerNorm(dModel, { eps: layerNormEps, bias, ...factory })
    this.self_attn = new MultiheadAttention(dModel, nhead, { dropout, bias, batchFirst, ...factory })
    this.multihead_attn = new MultiheadAttention(dModel, nhead, { dropout, bias, batchFirst, ...factory })
    this.linear1 = new Linear(dModel, dimFeedforward, { bias, ...factory })
    this.dropout = new Dropout(dropout)
    this.linear2 = new Linear(dimFeedforward, dModel, { bias, ...factory })
    this.norm1 = norm()
    this.norm2 = norm()
    this.norm3 = norm()
    this.dropout1 = new Dropout(dropout)
    this.dropout2 = new Dropout(dropout)
    this.dropout3 = new Dropout(dropout)
  }

  /** Return a new layer with the same settings and values. No random number is drawn. */
  clone(): TransformerDecoderLayer {
    const [dModel, nhead, options] = this.#arguments
    const { device, dtype } = this.linear1.weight
    const copy = skipInit(() => new TransformerDecoderLayer(dModel, nhead, { ...options, device, dtype }))
    if (device !== 'meta') copy.loadStateDict(this.stateDict())
    return copy.train(this.training)
  }

  /**
   * @param target [time, batch, dModel], with `batchFirst` [batch, time, dModel], or [time, dModel]; the output has its shape
   * @param memory the encoder's output, [source, batch, dModel], with the same layouts
   */
  override forward(target: Tensor, memory: Tensor, masks: DecoderMasks = {}): Tensor {
    requireTensors('TransformerDecoderLayer', target, memory)
    requireOptions('TransformerDecoderLayer.forward', masks, MASKS)
    return scope(() => {
      if (this.#arguments[2].normFirst) {
        const selfAttended = target.add(this.#selfAttention(this.norm1.forward(target), masks))
        const attended = selfAttended.add(this.#attention(this.norm2.forward(selfAttended), memory, masks))
        return attended.add(this.#feedForward(this.norm3.forward(attended)))
      }
      const selfAttended = this.norm1.forward(target.add(this.#selfAttention(target, masks)))
      const attended = this.norm2.forward(selfAttended.add(this.#attention(selfAttended, memory, masks)))
      return this.norm3.forward(attended.add(this.#feedForward(attended)))
    })
  }

  #selfAttention(x: Tensor, { targetMask, targetKeyPaddingMask, targetIsCausal }: DecoderMasks): Tensor {
    const settings = {
      attnMask: targetMask ?? null,
      keyPaddingMask: targetKeyPaddingMask ?? null,
      isCausal: targetIsCausal ?? false,
      needWeights: false,
    }
    return this.dropout1.forward(this.self_attn.forward(x, x, x, settings).output)
  }

  #attention(x: Tensor, memory: Tensor, masks: DecoderMasks): Tensor {
    const { memoryMask, memoryKeyPaddingMask, memoryIsCausal } = masks
    const settings = {
      attnMask: memoryMask ?? null,
      keyPaddingMask: memoryKeyPaddingMask ?? null,
      isCausal: memoryIsCausal ?? false,
      needWeights: false,
    }
    return this.dropout2.forward(this.multihead_attn.forward(x, memory, memory, settings).output)
  }

  #feedForward(x: Tensor): Tensor {
    const hidden = this.dropout.forward(this.#activation(this.linear1.forward(x)))
    return this.dropout3.forward(this.linear2.forward(hidden))
  }
}

/** Stack of `numLayers` copies of `layer`, which the caller keeps; as in PyTorch all have its initial values. */
export class TransformerDecoder extends Module {
  layers: ModuleList<TransformerDecoderLayer>
  norm: Layer | null

  constructor(layer: TransformerDecoderLayer, numLayers: number, options: { norm?: Layer | null } = {}) {
    super()
    requireOptions('TransformerDecoder', options, ['norm'])
    requireLayers('TransformerDecoder', numLayers)
    if (!(layer instanceof TransformerDecoderLayer)) {
      throw new ConfigError('TransformerDecoder: expected a TransformerDecoderLayer as first argument', {})
    }
    this.layers = new ModuleList(Array.from({ length: numLayers }, () => layer.clone()))
    this.norm = options.norm ?? null
  }

  /** Run the layers; see {@link TransformerDecoderLayer.forward}. */
  override forward(target: Tensor, memory: Tensor, masks: DecoderMasks = {}): Tensor {
    return scope(() => {
      let output = target
      for (const layer of this.layers) output = layer.forward(output, memory, masks)
      return this.norm ? this.norm.forward(output) : output
    })
  }
}
