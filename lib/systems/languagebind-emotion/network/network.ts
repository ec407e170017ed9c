import { misuse, requireOptions } from '../../../base/check.js'
import { ShapeError } from '../../../base/errors.js'
import { Dropout, Linear, Module, ModuleDict } from '../../../nn/index.js'
import type { NetworkOptions } from '../../../nn/parameter.js'
import { noGrad, scope, Tensor, zeros } from '../../../tensor/index.js'
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
      // The published head reads its vectors as they are.
      const bare = this.context === null && this.config.fusion === 'concat'
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
    for (const [name, tower] of Object.entries(towers)) {
      const size = this.config.sizes[name as EmotionModality]
      if (tower.modality !== name)
        throw misuse('EmotionClassifier', `towers.${name}`, `a tower of ${name}`, tower.modality)
      if (tower.size !== size) {
        const message = `EmotionClassifier: the tower of ${name} gives vectors of ${tower.size}, and sizes.${name} is ${size}`
        throw new ShapeError(message, { modality: name })
      }
    }
    const networks = Object.entries(towers).flatMap(([name, { network }]) =>
      network ? [[name, network] as const] : [],
    )
    this.towers = new ModuleDict(Object.fromEntries(networks))
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
    for (const [name, tensor] of Object.entries({ mask, speakers })) {
      if (!(tensor instanceof Tensor) || tensor.ndim !== 2) {
        throw new ShapeError(`EmotionClassifier: ${name} must be a tensor [dialogs, utterances]`, { argument: name })
      }
    }
    return scope(async () => {
      const vectors: Partial<Record<EmotionModality, Tensor>> = {}
      for (const name of this.modalities) vectors[name] = await this.#vectorsOf(name, inputs)
      return this.head.forward({ mask, speakers, present, vectors })
    })
  }

  /** [dialogs, utterances, size] */
  async #vectorsOf(name: EmotionModality, { mask, present, vectors, inputs }: EmotionInputs): Promise<Tensor> {
    const shape = [...mask.shape, this.config.sizes[name] as number]
    const fits = (tensor: unknown, wanted: readonly number[]) =>
      tensor instanceof Tensor && tensor.shape.length === wanted.length && tensor.shape.every((n, i) => n === wanted[i])
    const there = present[name]
    if (!there || !fits(there, mask.shape)) {
      throw new ShapeError(`EmotionClassifier: present.${name} must be [${mask.shape}], as the mask is`, {
        modality: name,
      })
    }
    const given = vectors?.[name]
    if (given !== undefined) {
      if (fits(given, shape)) return given
      throw new ShapeError(`EmotionClassifier: vectors.${name} is [${given.shape}], expected [${shape}]`, {
        modality: name,
      })
    }
    const tower = this.#towers[name]
    const items = inputs?.[name]
    if (!tower || items === undefined) {
      const what = tower ? 'nothing that its tower reads' : 'no vectors, and there is no tower'
      throw new ShapeError(`EmotionClassifier: the batch has ${what} for ${name}`, { modality: name })
    }
    const empty = zeros(shape, { device: mask.device })
    if (items.length === 0) return empty
    const rows = await tower.encode(items) // [items, size]
    const places = noGrad(() => there.reshape([-1]).nonzero().reshape([-1]))
    if (places.numel() !== items.length) {
      throw new ShapeError(
        `EmotionClassifier: present.${name} has ${places.numel()} utterances, and there are ${items.length} to read`,
        { modality: name },
      )
    }
    return empty
      .reshape([-1, shape[2] as number])
      .to({ dtype: rows.dtype })
      .indexAdd(0, places, rows)
      .reshape(shape)
  }

  /**
   * Writes config.json, model.safetensors, and a folder for each tower that is part of it.
   * @param frozen towers whose vectors it was trained on: where they are is written, so that `fromPretrained` finds them
   */
  save(folder: string, frozen: readonly EmotionTower[] = []): Promise<void> {
    return saveEmotionClassifier(this, folder, frozen)
  }
}
