import { requireOptions } from '../../../base/check.js'
import { Module, type ModuleDict } from '../../../nn/index.js'
import { cat, scope, type Tensor } from '../../../tensor/index.js'
import { withSeed } from '../../../tensor/random.js'
import { type EmotionModality, emotionConfig, MODALITIES } from '../network/config.js'
import type { EmotionEncoder } from '../network/encoders.js'
import { type LoadEmotionOptions, loadClassifier, saveClassifier } from '../network/files.js'
import type { EmotionInputs, MakeEmotionOptions } from '../network/network.js'
import { checkMask, encoderNetworks, utteranceVectors } from '../network/vectors.js'
import { PairHead } from './heads.js'

export interface EmotionPairConfig {
  /** Class names of the first utterance's emotion, in the order of the logits. Default EMOTIONS. */
  labels?: readonly string[]
  /** Size of the vectors of each modality that the model uses. */
  sizes: Readonly<Partial<Record<EmotionModality, number>>>
}

const MODEL_TYPE = 'emotion-pairs'

/**
 * Model of experiments 9 and 10: encoders, and from the vectors of two utterances the emotion of the first and whether the second
 * is its cause. In a batch, each pair is a dialog of two utterances.
 */
export class EmotionPairClassifier extends Module {
  readonly config: Required<EmotionPairConfig>
  /** The networks of the encoders that are part of the model. */
  encoders: ModuleDict
  head: PairHead
  readonly #encoders: Readonly<Partial<Record<EmotionModality, EmotionEncoder>>>

  constructor(config: EmotionPairConfig, options: MakeEmotionOptions = {}) {
    super()
    const where = 'EmotionPairClassifier'
    requireOptions(where, config, ['labels', 'sizes'])
    requireOptions(where, options, ['encoders', 'device', 'dtype', 'seed'])
    const { encoders = {}, seed, ...factory } = options
    const { labels, sizes } = emotionConfig(config)
    this.config = { labels, sizes }
    this.#encoders = encoders
    this.encoders = encoderNetworks(where, encoders, sizes)
    this.head = withSeed(seed, () => new PairHead({ size: 2 * this.size, labels: labels.length, ...factory }))
  }

  /** Load a model that `save` wrote. @throws CheckpointError for a folder of another kind */
  static fromPretrained(folder: string, options: LoadEmotionOptions = {}): Promise<EmotionPairClassifier> {
    return loadClassifier(MODEL_TYPE, EmotionPairClassifier, folder, options)
  }

  /** The modalities in use, in the order in which the head reads them. */
  get modalities(): EmotionModality[] {
    return MODALITIES.filter((name) => this.config.sizes[name] !== undefined)
  }

  /** Size of an utterance's concatenated vectors. */
  get size(): number {
    return this.modalities.reduce((sum, name) => sum + (this.config.sizes[name] as number), 0)
  }

  /** The encoders that are part of the model. */
  get ownEncoders(): Readonly<Partial<Record<EmotionModality, EmotionEncoder>>> {
    return this.#encoders
  }

  /** Return the concatenated vectors of utterances, 0 for missing modalities: [dialogs, utterances, size]. */
  async encode(inputs: EmotionInputs): Promise<Tensor> {
    const where = 'EmotionPairClassifier'
    requireOptions(where, inputs, ['mask', 'speakers', 'present', 'vectors', 'inputs'])
    const { mask, speakers } = inputs
    checkMask(where, { mask, speakers })
    return scope(async () => {
      const columns: Tensor[] = []
      for (const name of this.modalities) {
        const size = this.config.sizes[name] as number
        columns.push(await utteranceVectors(where, name, size, this.#encoders[name], inputs))
      }
      return cat(columns, 2)
    })
  }

  /** Compute logits of pairs, given as dialogs of two utterances: [pairs, labels], [pairs, 2]. */
  override async forward(inputs: EmotionInputs): Promise<{ emotion: Tensor; cause: Tensor }> {
    return scope(async () => {
      const rows = await this.encode(inputs)
      return this.head.forward(rows.reshape([-1, 2 * this.size]))
    })
  }

  /** Write config.json, model.safetensors, and a folder for each encoder; `frozen` as in `EmotionClassifier.save`. */
  save(folder: string, frozen: readonly EmotionEncoder[] = []): Promise<void> {
    return saveClassifier(MODEL_TYPE, this, folder, frozen)
  }
}
