import {
  Dropout,
  LayerNorm,
  Linear,
  Module,
  ModuleDict,
  Parameter,
  TransformerEncoderLayer,
} from '../../../nn/index.js'
import type { FactoryOptions } from '../../../nn/parameter.js'
import { cat, ops, rand, scope, stack, type Tensor, zeros } from '../../../tensor/index.js'
import { type EmotionModality, MODALITIES, type ResolvedEmotionConfig } from './config.js'
import { FrameFusion } from './frames.js'

/** Vectors of utterances, and masks that tell which utterances have which modality. */
export interface EmotionVectors {
  /** [utterances, size]; rows of a missing modality may have any values except NaN. */
  vectors: Readonly<Partial<Record<EmotionModality, Tensor>>>
  /** bool [utterances], true where the utterance has that modality. */
  present: Readonly<Partial<Record<EmotionModality, Tensor>>>
}

/** Fusion of the vectors of an utterance's modalities into one; see `EmotionFusion`. */
export class Fusion extends Module {
  /** One per modality; null for 'concat' and 'frames'. */
  norms: ModuleDict<LayerNorm> | null
  /** One per modality, to `hiddenSize`; for 'gated' and 'cross-attention'. */
  projections: ModuleDict<Linear> | null = null
  /** [modalities, hiddenSize]: replaces a missing modality in 'gated'; embedding of the modality in 'cross-attention'. */
  kinds: Parameter | null = null
  gate: Linear | null = null
  layer: TransformerEncoderLayer | null = null
  frames: FrameFusion | null = null
  dropout: Dropout
  readonly #config: ResolvedEmotionConfig
  readonly #modalities: readonly EmotionModality[]

  constructor(config: ResolvedEmotionConfig, factory: FactoryOptions = {}) {
    super()
    this.#config = config
    const { sizes, fusion, hiddenSize, dropout } = config
    this.#modalities = MODALITIES.filter((name) => sizes[name] !== undefined)
    const each = <M extends Module>(make: (size: number) => M) =>
      new ModuleDict(Object.fromEntries(this.#modalities.map((name) => [name, make(sizes[name] as number)])))
    this.norms = fusion === 'concat' || fusion === 'frames' ? null : each((size) => new LayerNorm([size], factory))
    if (fusion === 'gated' || fusion === 'cross-attention') {
      this.projections = each((size) => new Linear(size, hiddenSize, factory))
      this.kinds = new Parameter(zeros([this.#modalities.length, hiddenSize], factory))
    }
    if (fusion === 'gated') {
      this.gate = new Linear(hiddenSize * this.#modalities.length, this.#modalities.length, factory)
    }
    if (fusion === 'cross-attention') {
      const heads = [8, 4, 2, 1].find((count) => hiddenSize % count === 0) as number
      const sizes = { dimFeedforward: 2 * hiddenSize, dropout, activation: 'gelu' as const }
      this.layer = new TransformerEncoderLayer(hiddenSize, heads, {
        ...sizes,
        batchFirst: true,
        normFirst: true,
        ...factory,
      })
    }
    if (fusion === 'frames') {
      const [videoSize, textSize] = [this.#stateSize('video'), this.#stateSize('text')]
      const heads = [4, 2, 1].find((count) => textSize % count === 0) as number
      this.frames = new FrameFusion(videoSize, textSize, heads, config.compat === 'published', factory)
    }
    this.dropout = new Dropout(dropout)
  }

  #stateSize(name: EmotionModality): number {
    const { sizes, steps } = this.#config
    return (sizes[name] as number) / (steps[name] ?? 1)
  }

  /** Size of the fused vector. */
  get size(): number {
    const { fusion, hiddenSize, sizes } = this.#config
    if (fusion === 'frames') return this.#stateSize('text')
    const all = this.#modalities.reduce((sum, name) => sum + (sizes[name] as number), 0)
    return fusion === 'concat' || fusion === 'concat-ln' ? all : hiddenSize
  }

  /** [utterances, size] */
  override forward(inputs: EmotionVectors): Tensor {
    return scope(() => {
      if (this.frames) return this.#framed(this.frames, inputs)
      const shown = this.#shown(inputs) // [utterances, modalities], 1 or 0
      const columns = this.#modalities.map((name, i) => {
        const raw = inputs.vectors[name] as Tensor
        const even = this.norms ? this.norms.at(name).forward(raw) : raw
        const projected = this.projections ? this.dropout.forward(this.projections.at(name).forward(even)) : even
        return projected.mul(shown.narrow(1, i, 1).to({ dtype: projected.dtype }))
      })
      if (this.projections === null)
        return this.#config.fusion === 'concat' ? cat(columns, 1) : this.dropout.forward(cat(columns, 1))
      return this.gate ? this.#gated(columns, shown) : this.#attended(columns, shown)
    })
  }

  /** Return a mask of the modalities to use. Training drops some of those that are present, but at least one remains. */
  #shown({ present }: EmotionVectors): Tensor {
    const there = stack(
      this.#modalities.map((name) => present[name] as Tensor),
      1,
    ) // bool [utterances, modalities]
    const { modalityDropout } = this.#config
    if (!this.training || modalityDropout === 0 || this.#modalities.length === 1) return there.to({ dtype: 'float32' })
    const drawn = rand(there.shape, { device: there.device })
    const kept = there.logicalAnd(drawn.ge(modalityDropout))
    // Where all were dropped, the one with the highest draw stays.
    const best = ops.where(there, drawn, drawn.sub(2)).argmax(1, true)
    const one = drawn.lt(0).scatter(1, best, true).logicalAnd(there)
    return kept.logicalOr(one.logicalAnd(kept.any(1, true).logicalNot())).to({ dtype: 'float32' })
  }

  /** Fuse the states of frames and tokens. A state that is 0 in all places is padding. */
  #framed(frames: FrameFusion, { vectors, present }: EmotionVectors): Tensor {
    const of = (name: EmotionModality) => {
      const rows = vectors[name] as Tensor
      const there = (present[name] as Tensor).to({ dtype: rows.dtype }).unsqueeze(1)
      return rows.mul(there).reshape([rows.size(0), -1, this.#stateSize(name)])
    }
    const text = of('text')
    return frames.fused(of('video'), text, { video: present.video ?? null, text: text.ne(0).any(2) })
  }

  #gated(columns: readonly Tensor[], shown: Tensor): Tensor {
    const gate = this.gate as Linear
    const missing = columns.map((column, i) => {
      const absent = shown.narrow(1, i, 1).neg().add(1).to({ dtype: column.dtype })
      return column.add(absent.mul((this.kinds as Parameter).select(0, i).to({ dtype: column.dtype })))
    })
    const logits = gate.forward(cat(missing, 1))
    // A missing modality gets weight 0. If all are missing, weights are equal, and the sum is 0.
    const none = shown.sum([1], true).eq(0)
    const weights = ops
      .maskedFill(logits, shown.eq(0).logicalAnd(none.logicalNot()), Number.NEGATIVE_INFINITY)
      .softmax(1)
    const mixed = stack([...columns], 1).mul(weights.unsqueeze(2))
    return mixed.sum([1])
  }

  #attended(columns: readonly Tensor[], shown: Tensor): Tensor {
    const kinds = this.kinds as Parameter
    const tokens = stack([...columns], 1).add(kinds.to({ dtype: (columns[0] as Tensor).dtype })) // [utterances, modalities, hiddenSize]
    const none = shown.sum([1], true).eq(0)
    const hidden = shown.eq(0).logicalAnd(none.logicalNot())
    const states = (this.layer as TransformerEncoderLayer).forward(tokens, { keyPaddingMask: hidden })
    const weights = shown.div(shown.sum([1], true).clampMin(1)).to({ dtype: states.dtype })
    return states.mul(weights.unsqueeze(2)).sum([1])
  }
}
