import { requireOptions } from '../../../base/check.js'
import { Dropout, Linear, Module, type ModuleDict } from '../../../nn/index.js'
import type { NetworkOptions } from '../../../nn/parameter.js'
import { scope, type Tensor } from '../../../tensor/index.js'
import { withSeed } from '../../../tensor/random.js'
import {
  type EmotionClassifierConfig,
  type EmotionModality,
  emotionConfig,
  MODALITIES,
  type ResolvedEmotionConfig,
} from './config.js'
import { DialogContext } from './context.js'
import type { EmotionEncoder } from './encoders.js'
import { type LoadEmotionOptions, loadClassifier, saveClassifier } from './files.js'
import { Fusion } from './fusion.js'
import { checkMask, encoderNetworks, utteranceVectors } from './vectors.js'

const MODEL_TYPE = 'languagebind-emotion'

/** Dialogs as a batch: D dialogs of at most T utterances. */
export interface EmotionInputs {
  /** bool [D, T], true where there is an utterance. */
  mask: Tensor
  /** int64 [D, T]: speaker number, counted within each dialog. */
  speakers: Tensor
  /** bool [D, T] per modality: whether the utterance has it. */
  present: Readonly<Partial<Record<EmotionModality, Tensor>>>
  /** float [D, T, size] per modality: vectors computed before. */
  vectors?: Readonly<Partial<Record<EmotionModality, Tensor>>>
  /** Encoder inputs of the other modalities, one per utterance that has the modality, in the order of the dialogs. */
  inputs?: Readonly<Partial<Record<EmotionModality, readonly unknown[]>>>
}

export interface EmotionOutput {
  /** [D, T, labels]; values at padding are undefined. */
  logits: Tensor
  /** [D, T, size]: the vectors of utterances in context, from which the logits are computed. */
  states: Tensor
}

export interface MakeEmotionOptions extends NetworkOptions {
  /** Encoders that are part of the model and train with it. Default: none; batches contain vectors. */
  encoders?: Readonly<Partial<Record<EmotionModality, EmotionEncoder>>>
}

/** Layers between the encoders' vectors and the logits: fusion, context and classifier. */
export class EmotionHead extends Module {
  fusion: Fusion
  /** Projection to the size of the context; null without context, or if the size fits. */
  entry: Linear | null
  context: DialogContext | null
  dropout: Dropout
  /** Named as in the published checkpoints. */
  linear: Linear

  constructor(
    readonly config: ResolvedEmotionConfig,
    options: NetworkOptions = {},
  ) {
    super()
    const { hiddenSize, context, dropout, labels, headBias } = config
    const { device, dtype } = options
    const factory = { device, dtype }
    this.fusion = new Fusion(config, factory)
    this.entry = context && this.fusion.size !== hiddenSize ? new Linear(this.fusion.size, hiddenSize, factory) : null
    this.context = context ? new DialogContext(hiddenSize, context, dropout, factory) : null
    this.dropout = new Dropout(dropout)
    const size = context ? hiddenSize : this.fusion.size
    this.linear = new Linear(size, labels.length, { bias: headBias, ...factory })
  }

  override forward(inputs: Required<Pick<EmotionInputs, 'mask' | 'speakers' | 'present' | 'vectors'>>): EmotionOutput {
    const { mask, speakers } = inputs
    const [dialogs, time] = mask.shape as [number, number]
    return scope(() => {
      const flat = (all: EmotionInputs['present'], rest: readonly number[]) =>
        Object.fromEntries(
          Object.entries(all).map(([name, tensor]) => [name, tensor.reshape([dialogs * time, ...rest])]),
        )
      const fused = this.fusion.forward({ vectors: flat(inputs.vectors, [-1]), present: flat(inputs.present, []) })
      const entered = this.entry ? this.entry.forward(fused) : fused
      const rows = entered.reshape([dialogs, time, -1])
      const states = this.context ? this.context.forward(rows, mask, speakers) : rows
      // The published heads have no dropout.
      const bare = this.context === null && (this.config.fusion === 'concat' || this.config.compat !== null)
      return { logits: this.linear.forward(bare ? states : this.dropout.forward(states)), states }
    })
  }
}

/**
 * Emotion classifier of utterances in dialogs, from text, video, audio or a subset. Encoders compute a vector per modality, which
 * are fused; a transformer adds the context of the dialog; a linear layer classifies. The published heads for SemEval-2024 Task 3
 * on LanguageBind (Zhu et al. 2023, https://arxiv.org/abs/2310.01852) are configurations of it.
 *
 * Missing modalities are masked, and training may drop some (`modalityDropout`).
 */
export class EmotionClassifier extends Module {
  readonly config: ResolvedEmotionConfig
  /** The networks of the encoders that are part of the model. */
  encoders: ModuleDict
  head: EmotionHead
  readonly #encoders: Readonly<Partial<Record<EmotionModality, EmotionEncoder>>>

  constructor(config: EmotionClassifierConfig, options: MakeEmotionOptions = {}) {
    super()
    requireOptions('EmotionClassifier', options, ['encoders', 'device', 'dtype', 'seed'])
    const { encoders = {}, ...factory } = options
    this.config = emotionConfig(config)
    this.#encoders = encoders
    this.encoders = encoderNetworks('EmotionClassifier', encoders, this.config.sizes)
    this.head = withSeed(factory.seed, () => new EmotionHead(this.config, factory))
  }

  /** Load a classifier that `save` wrote. @throws CheckpointError for a folder of another kind */
  static fromPretrained(folder: string, options: LoadEmotionOptions = {}): Promise<EmotionClassifier> {
    return loadClassifier(MODEL_TYPE, EmotionClassifier, folder, options)
  }

  /** The modalities in use, in the order of the published heads. */
  get modalities(): EmotionModality[] {
    return MODALITIES.filter((name) => this.config.sizes[name] !== undefined)
  }

  /** The encoders that are part of the model. */
  get ownEncoders(): Readonly<Partial<Record<EmotionModality, EmotionEncoder>>> {
    return this.#encoders
  }

  /**
   * Compute the logits of a batch. Encoders run on the executor.
   * @throws ShapeError if the batch lacks a modality, or if shapes do not match
   */
  override async forward(inputs: EmotionInputs): Promise<EmotionOutput> {
    requireOptions('EmotionClassifier.forward', inputs, ['mask', 'speakers', 'present', 'vectors', 'inputs'])
    const { mask, speakers, present } = inputs
    checkMask('EmotionClassifier', { mask, speakers })
    return scope(async () => {
      const vectors: Partial<Record<EmotionModality, Tensor>> = {}
      for (const name of this.modalities)
        vectors[name] = await utteranceVectors(
          'EmotionClassifier',
          name,
          this.config.sizes[name] as number,
          this.#encoders[name],
          inputs,
        )
      return this.head.forward({ mask, speakers, present, vectors })
    })
  }

  /**
   * Write config.json, model.safetensors, and a folder for each encoder that is part of the model.
   * @param frozen encoders that computed the training vectors; their place is saved, so that `fromPretrained` finds them
   */
  save(folder: string, frozen: readonly EmotionEncoder[] = []): Promise<void> {
    return saveClassifier(MODEL_TYPE, this, folder, frozen)
  }
}
