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
import { type LoadEmotionOptions, loadEmotionClassifier, saveEmotionClassifier } from './files.js'
import { Fusion } from './fusion.js'
import type { EmotionTower } from './towers.js'
import { checkMask, towerNetworks, utteranceVectors } from './vectors.js'

/** Dialogs as a batch: D dialogs of at most T utterances. */
export interface EmotionInputs {
  /** bool [D, T], true where there is an utterance. */
  mask: Tensor
  /** int64 [D, T]: who speaks, numbered in each dialog. */
  speakers: Tensor
  /** bool [D, T] of each modality: whether the utterance has it. */
  present: Readonly<Partial<Record<EmotionModality, Tensor>>>
  /** float [D, T, size] of each modality whose vectors are known; */
  vectors?: Readonly<Partial<Record<EmotionModality, Tensor>>>
  /** of the others what a tower reads, for each utterance that has it, in the order of the dialogs. */
  inputs?: Readonly<Partial<Record<EmotionModality, readonly unknown[]>>>
}

export interface EmotionOutput {
  /** [D, T, labels]; at padding whatever comes out. */
  logits: Tensor
  /** [D, T, size]: what they are made of, the vectors of utterances in their dialogs. */
  states: Tensor
}

export interface MakeEmotionOptions extends NetworkOptions {
  /** Networks that are part of this one, and train with it. Default: none; batches bring vectors. */
  towers?: Readonly<Partial<Record<EmotionModality, EmotionTower>>>
}

/** What is between vectors and logits. */
export class EmotionHead extends Module {
  fusion: Fusion
  /** To the size of the context, where there is one. */
  entry: Linear | null
  context: DialogContext | null
  dropout: Dropout
  /** As the published checkpoints call it. */
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
      // The published heads read their vectors as they are.
      const bare = this.context === null && (this.config.fusion === 'concat' || this.config.compat !== null)
      return { logits: this.linear.forward(bare ? states : this.dropout.forward(states)), states }
    })
  }
}

/**
 * What speakers feel, from any of text, video and audio: towers make a vector of each utterance, which are fused, see the
 * other utterances of their dialog, and are told apart. After LanguageBind (Zhu et al. 2023,
 * https://arxiv.org/abs/2310.01852) as it was used for SemEval-2024 Task 3, whose heads are some of its configurations.
 *
 * A modality that an utterance lacks counts for nothing, and training may drop some.
 */
export class EmotionClassifier extends Module {
  readonly config: ResolvedEmotionConfig
  /** The networks of towers that are part of this one. */
  towers: ModuleDict
  head: EmotionHead
  readonly #towers: Readonly<Partial<Record<EmotionModality, EmotionTower>>>

  constructor(config: EmotionClassifierConfig, options: MakeEmotionOptions = {}) {
    super()
    requireOptions('EmotionClassifier', options, ['towers', 'device', 'dtype', 'seed'])
    const { towers = {}, ...factory } = options
    this.config = emotionConfig(config)
    this.#towers = towers
    this.towers = towerNetworks('EmotionClassifier', towers, this.config.sizes)
    this.head = withSeed(factory.seed, () => new EmotionHead(this.config, factory))
  }

  /** @throws CheckpointError for a folder that is none of its own */
  static fromPretrained(folder: string, options: LoadEmotionOptions = {}): Promise<EmotionClassifier> {
    return loadEmotionClassifier(folder, options, (config, making) => new EmotionClassifier(config, making))
  }

  /** Which modalities it knows, in the order of the published heads. */
  get modalities(): EmotionModality[] {
    return MODALITIES.filter((name) => this.config.sizes[name] !== undefined)
  }

  /** The towers that are part of it. */
  get ownTowers(): Readonly<Partial<Record<EmotionModality, EmotionTower>>> {
    return this.#towers
  }

  /**
   * Runs on the executor where there are towers.
   * @throws ShapeError where the batch lacks a modality, or its tensors do not fit each other
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
          this.#towers[name],
          inputs,
        )
      return this.head.forward({ mask, speakers, present, vectors })
    })
  }

  /**
   * Writes config.json, model.safetensors, and a folder for each tower that is part of it.
   * @param frozen towers whose vectors it was trained on: where they are is written, so that `fromPretrained` finds them
   */
  save(folder: string, frozen: readonly EmotionTower[] = []): Promise<void> {
    return saveEmotionClassifier(this, folder, frozen)
  }
}
