import {
  argumentError,
  requireObject,
  requireOneOf,
  requireOptions,
  requireString,
  requireWhole,
  shown,
} from '../../base/check.js'
import { ConfigError } from '../../base/errors.js'
import { ModuleDict } from '../../nn/containers.js'
import { withEvalMode } from '../../nn/eval-mode.js'
import { Linear } from '../../nn/linear.js'
import { Module } from '../../nn/module.js'
import { NativeModule } from '../../nn/native-module.js'
import type { MakeOptions, NetworkOptions } from '../../nn/parameter.js'
import { cat, type Device, full, noGrad, ops, scope, Tensor } from '../../tensor/index.js'
import { withSeed } from '../../tensor/random.js'
import { ClipTextModel, ClipVisionModel } from '../clip/clip.js'
import type { ClipTokenizer } from '../clip/tokenizer.js'
import {
  type CompleteLanguageBindConfig,
  completeConfig,
  type LanguageBindConfig,
  type LanguageBindModality,
  textEncoderConfig,
  wholeEncoders,
} from './config.js'
import { type LanguageBindFrom, type LoadLanguageBindOptions, loadLanguageBind, saveLanguageBind } from './files.js'
import { batchesOf, type LanguageBindInputs, type LanguageBindRawInputs, type LanguageBindTokens } from './inputs.js'

export interface ScaleOptions {
  /** Whether to multiply embeddings other than text by the temperature of their modality, as published. Default true. */
  useTemp?: boolean
}

export interface EmbedOptions extends ScaleOptions {
  /** Inputs per batch. Default 8. */
  batchSize?: number
  /** 'published': resize images without antialiasing, as in the training of the published checkpoints. */
  compat?: 'published'
}

/** Embeddings of each input modality, [items, projectionDim]. */
export type LanguageBindEmbeddings<Inputs> = { [K in keyof Inputs]-?: Tensor }

export interface ZeroShotOptions extends Pick<EmbedOptions, 'batchSize' | 'compat'> {
  /** Text around each label, which replaces {}. Default '{}'. */
  template?: string
}

export interface ZeroShotLabel {
  label: string
  /** Probability; the scores of all labels sum to 1. */
  score: number
}

/** Logarithm of the initial temperature, ln(1 / 0.07). */
const FIRST_SCALE = 2.6592

/** Logarithms of the temperatures, as buffers, which an optimizer does not change. */
class Scales extends Module {
  constructor(config: CompleteLanguageBindConfig, device: Device | undefined) {
    super()
    scope(() => {
      for (const [modality, { logitScaleInitValue = FIRST_SCALE }] of Object.entries(config)) {
        this.registerBuffer(modality, full([], logitScaleInitValue, { dtype: 'float32', ...(device && { device }) }))
      }
    })
  }

  of(modality: string): Tensor {
    return Reflect.get(this, modality) as Tensor
  }
}

/**
 * LanguageBind (Zhu et al. 2023, https://arxiv.org/abs/2310.01852; https://github.com/PKU-YuanGroup/LanguageBind): embeddings of
 * video, audio, image, depth and thermal inputs in the embedding space of texts. Each modality has a vision encoder of CLIP, and all
 * share a text encoder. Runs in native code.
 *
 * ```ts
 * const model = await LanguageBind.fromPretrained({ video: 'LanguageBind/LanguageBind_Video_FT', audio: 'LanguageBind/LanguageBind_Audio_FT' })
 * const { text, audio } = await model.embed({ text: ['a dog barks', 'rain'], audio: ['clip.wav'] })
 * const probabilities = model.similarity(audio, text).softmax(-1)
 * ```
 *
 * Names in the state dictionary are those of the published wrapper, plus the temperatures as buffers, such as
 * `modality_scale.video`.
 */
export class LanguageBind extends Module {
  readonly config: CompleteLanguageBindConfig
  readonly modality_encoder: ModuleDict<ClipVisionModel | ClipTextModel>
  readonly modality_proj: ModuleDict<Linear>
  readonly modality_scale: Module
  /** Tokenizer for `embed` and `classify`; null if the directory has none. */
  tokenizer: ClipTokenizer | null = null

  /** @throws ConfigError for an inconsistent configuration */
  constructor(given: LanguageBindConfig, options: MakeOptions = {}) {
    super()
    requireOptions('LanguageBind', options, ['device', 'dtype', 'seed', 'initialize'])
    const { seed, initialize = true, ...factory } = options
    const config = wholeEncoders(completeConfig('LanguageBind', given))
    this.config = config
    this.modality_encoder = new ModuleDict()
    this.modality_proj = new ModuleDict()
    this.modality_scale = new Scales(config, factory.device)
    const make = { ...factory, initialize }
    withSeed(
      seed,
      () => {
        const entries = Object.entries(config)
        const [, last] = entries.at(-1) as [string, NonNullable<CompleteLanguageBindConfig['video']>]
        for (const [modality, { visionConfig = {}, projectionDim = 512 }] of entries) {
          if (projectionDim !== (last.projectionDim ?? 512)) {
            throw new ConfigError(
              `LanguageBind: ${modality}.projectionDim: expected ${last.projectionDim ?? 512}, as in the other modalities, got ${projectionDim}. Use the same value.`,
              {
                modality,
                projectionDim,
              },
            )
          }
          const encoder = new ClipVisionModel(visionConfig, make)
          this.modality_encoder.set(modality, encoder)
          const dim = visionConfig.hiddenSize ?? 768
          this.modality_proj.set(modality, new Linear(dim, projectionDim, { ...factory, bias: false }))
        }
        const text = textEncoderConfig(last)
        this.modality_encoder.set('language', new ClipTextModel(text, make))
        const { projectionDim = 512 } = last
        this.modality_proj.set(
          'language',
          new Linear(text.hiddenSize ?? 512, projectionDim, { ...factory, bias: false }),
        )
        if (initialize) this.initialize([...this.modality_proj.keys()].map((name) => `modality_proj.${name}.weight`))
      },
      factory.device,
    )
  }

  /**
   * Create a model with random weights. Each modality has a configuration as in a published config.json, in camelCase, or the name
   * of a published checkpoint: `{ video: 'LanguageBind_Video_FT', audio: 'LanguageBind_Audio_FT' }`. The text encoder is that of the
   * last modality.
   */
  static fromConfig(config: LanguageBindConfig, options: NetworkOptions = {}): LanguageBind {
    requireOptions('LanguageBind.fromConfig', options, ['device', 'dtype', 'seed'])
    return new LanguageBind(config, options)
  }

  /**
   * Load published checkpoints, or folders that `save` wrote: a directory or hub repository for each modality, or one directory for
   * all. The model is in evaluation mode.
   * @throws CheckpointError with missing, unexpected and mis-shaped names; a position table of wrong size is named with the
   * checkpoint that it belongs to
   */
  static fromPretrained(from: LanguageBindFrom | string, options: LoadLanguageBindOptions = {}): Promise<LanguageBind> {
    return loadLanguageBind(from, options, (config, factory) => new LanguageBind(config, factory))
  }

  /** The modalities that have an encoder, in order. */
  get modalities(): LanguageBindModality[] {
    return Object.keys(this.config) as LanguageBindModality[]
  }

  /** Return the encoder of a modality or of text. @throws ConfigError if there is none */
  encoder(modality: 'text'): ClipTextModel
  encoder(modality: LanguageBindModality): ClipVisionModel
  encoder(modality: LanguageBindModality | 'text'): ClipTextModel | ClipVisionModel
  encoder(modality: LanguageBindModality | 'text'): ClipTextModel | ClipVisionModel {
    this.#require('LanguageBind.encoder', modality)
    return this.modality_encoder.at(keyOf(modality))
  }

  /** Return the factor on the embeddings of a modality. */
  temperature(modality: LanguageBindModality): number {
    this.#require('LanguageBind.temperature', modality)
    return Math.exp(Number((this.modality_scale as Scales).of(modality).item()))
  }

  /** Initialize the parameters and buffers with these names, with the default random generator. */
  initialize(names: string[]): this {
    for (const [name, encoder] of this.modality_encoder) {
      const prefix = `modality_encoder.${name}.`
      const own = names.filter((each) => each.startsWith(prefix)).map((each) => each.slice(prefix.length))
      if (own.length > 0 && encoder instanceof NativeModule) encoder.initialize(own)
    }
    noGrad(() => {
      for (const [name, { weight, inFeatures }] of this.modality_proj) {
        if (names.includes(`modality_proj.${name}.weight`)) weight.normal_(0, inFeatures ** -0.5)
      }
      for (const modality of this.modalities) {
        if (!names.includes(`modality_scale.${modality}`)) continue
        const { logitScaleInitValue = FIRST_SCALE } = this.config[modality] ?? {}
        ;(this.modality_scale as Scales).of(modality).fill_(logitScaleInitValue)
      }
    })
    return this
  }

  /**
   * Compute embeddings [items, projectionDim] of each modality in `inputs`: unit vectors, those of all modalities except text
   * multiplied by their temperature. Records gradients if they are enabled.
   * @throws ConfigError for a modality without an encoder
   */
  override async forward<I extends LanguageBindInputs>(
    inputs: I,
    options: ScaleOptions = {},
  ): Promise<LanguageBindEmbeddings<I>> {
    const where = 'LanguageBind.forward'
    requireObject(where, 'inputs', inputs)
    requireOptions(where, options, ['useTemp'])
    return scope(async () => {
      const outputs: Record<string, Tensor> = {}
      for (const [modality, value] of this.#given(where, inputs)) {
        outputs[modality] = await this.#embedded(modality, value, options)
      }
      return outputs as LanguageBindEmbeddings<I>
    })
  }

  /**
   * Compute embeddings of raw texts, audio, images and videos, without gradients and in evaluation mode. The result is deterministic.
   * @throws ConfigError for texts without a tokenizer; DataError with the file for one that cannot be read
   */
  async embed<I extends LanguageBindRawInputs>(
    inputs: I,
    options: EmbedOptions = {},
  ): Promise<LanguageBindEmbeddings<I>> {
    const where = 'LanguageBind.embed'
    requireObject(where, 'inputs', inputs)
    requireOptions(where, options, ['useTemp', 'batchSize', 'compat'])
    const { batchSize = 8, compat } = options
    requireWhole(where, 'batchSize', batchSize, 1)
    if (compat !== undefined) requireOneOf(where, 'compat', compat, ['published'])
    return withEvalMode(this, () =>
      noGrad(() =>
        scope(async () => {
          const outputs: Record<string, Tensor> = {}
          for (const [modality, value] of this.#given(where, inputs)) {
            outputs[modality] = await this.#embedAll(where, modality, value, options)
          }
          return outputs as LanguageBindEmbeddings<I>
        }),
      ),
    )
  }

  /** Compute dot products of embeddings [n, dim] and [m, dim] from `embed`: [n, m]. The published scores are their softmax over texts. */
  similarity(first: Tensor, second: Tensor): Tensor {
    for (const [name, value] of Object.entries({ first, second })) {
      if (!(value instanceof Tensor)) throw argumentError('LanguageBind.similarity', name, 'a tensor', value)
    }
    return scope(() => first.matmul(second.t()))
  }

  /**
   * Classify items of one modality by labels, zero-shot: for each item the labels and their probabilities, the most likely first.
   *
   * ```ts
   * const [sorts] = await model.classify({ audio: ['clip.wav'] }, ['rain', 'a dog'], { template: 'a recording of {}' })
   * ```
   * @throws ConfigError for more than one modality, and without labels
   */
  async classify(
    inputs: Omit<LanguageBindRawInputs, 'text'>,
    labels: readonly string[],
    options: ZeroShotOptions = {},
  ): Promise<ZeroShotLabel[][]> {
    const where = 'LanguageBind.classify'
    requireObject(where, 'inputs', inputs)
    requireOptions(where, options, ['template', 'batchSize', 'compat'])
    const { template = '{}', ...rest } = options
    requireString(where, 'template', template)
    if (!template.includes('{}')) throw argumentError(where, 'template', 'a string with {} in it', template)
    if (!Array.isArray(labels) || labels.length === 0 || !labels.every((label) => typeof label === 'string')) {
      throw argumentError(where, 'labels', 'a list of at least one string', labels)
    }
    const given = Object.entries(inputs).filter(([, value]) => value !== undefined)
    if (given.length !== 1 || given[0]?.[0] === 'text') {
      throw new ConfigError(
        `${where}: inputs: expected items of one modality other than text, got ${given.map(([name]) => name).join(' and ') || 'none'}. Pass one.`,
        {
          given: given.map(([name]) => name),
        },
      )
    }
    return scope(async () => {
      const text = labels.map((label) => template.replaceAll('{}', label))
      const found = (await this.embed({ ...inputs, text }, rest)) as Record<string, Tensor>
      const items = found[given[0]?.[0] as string] as Tensor
      const scores = this.similarity(items.float(), (found.text as Tensor).float()).softmax(-1)
      const rows = (await scores.data()) as Float32Array
      return Array.from({ length: items.shape[0] ?? 0 }, (_, row) =>
        labels
          .map((label, i) => ({ label, score: rows[row * labels.length + i] as number }))
          .sort((a, b) => b.score - a.score),
      )
    })
  }

  /** Write config.json, model.safetensors, adapters in PEFT's layout and the tokenizer, for `fromPretrained`. */
  save(directory: string): Promise<void> {
    return saveLanguageBind(this, directory)
  }

  #require(where: string, modality: unknown): void {
    if (modality === 'text' || (typeof modality === 'string' && Object.hasOwn(this.config, modality))) return
    throw new ConfigError(
      `${where}: expected a modality of ${['text', ...this.modalities].join(', ')}, got ${shown(modality)}. Load its checkpoint, or leave it out.`,
      {
        modality,
      },
    )
  }

  #given(where: string, inputs: object): [LanguageBindModality | 'text', unknown][] {
    const given = Object.entries(inputs).filter(([, value]) => value !== undefined && value !== null)
    for (const [modality] of given) this.#require(where, modality)
    if (given.length === 0)
      throw new ConfigError(`${where}: inputs: expected at least one modality, got none. Pass one.`, {})
    return given as [LanguageBindModality | 'text', unknown][]
  }

  async #embedded(modality: LanguageBindModality | 'text', value: unknown, scale: ScaleOptions): Promise<Tensor> {
    return scope(async () => {
      const { poolerOutput } = await (modality === 'text'
        ? this.encoder('text').forward(value as LanguageBindTokens)
        : this.encoder(modality).forward({ pixelValues: value as Tensor }))
      const projected = this.modality_proj.at(keyOf(modality)).forward(poolerOutput)
      const unit = projected.div(ops.linalgVectorNorm(projected, 2, [-1], true))
      if (modality === 'text' || scale.useTemp === false) return unit
      return unit.mul((this.modality_scale as Scales).of(modality).exp())
    })
  }

  async #embedAll(
    where: string,
    modality: LanguageBindModality | 'text',
    value: unknown,
    { batchSize = 8, compat, ...scale }: EmbedOptions,
  ): Promise<Tensor> {
    const rows: Tensor[] = []
    const { device, dtype } = this.modality_proj.at('language').weight
    const vision = modality === 'text' ? {} : (this.config[modality]?.visionConfig ?? {})
    const { tokenizer } = this
    const reader = { where, tokenizer, vision, batchSize, compat, device, dtype }
    for await (const batch of batchesOf(modality, value, reader)) {
      rows.push(await this.#embedded(modality, batch, scale))
    }
    return rows.length === 1 ? (rows[0] as Tensor) : cat(rows, 0)
  }
}

const keyOf = (modality: string): string => (modality === 'text' ? 'language' : modality)
