import { misuse, requireObject, requireOneOf, requireOptions, requireString, requireWhole } from '../../base/check.js'
import { ConfigError } from '../../base/errors.js'
import { ModuleDict } from '../../nn/containers.js'
import { evaluating } from '../../nn/evaluating.js'
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
  MODALITIES,
  textTowerConfig,
  wholeTowers,
} from './config.js'
import { type LanguageBindFrom, type LoadLanguageBindOptions, loadLanguageBind, saveLanguageBind } from './files.js'
import { batchesOf, type LanguageBindInputs, type LanguageBindRawInputs, type LanguageBindTokens } from './inputs.js'

export interface ScaleOptions {
  /** Whether all but texts are multiplied with their modality's temperature, as published. Default true. */
  useTemp?: boolean
}

export interface EmbedOptions extends ScaleOptions {
  /** How many texts, clips or pictures are computed together. Default 8. */
  batchSize?: number
  /** Pictures are made smaller without averaging over what is left out, as for the published checkpoints' training. */
  compat?: 'published'
}

/** Of each modality that was given, [items, projectionDim]. */
export type LanguageBindEmbeddings<Inputs> = { [K in keyof Inputs]-?: Tensor }

export interface ZeroShotOptions extends Pick<EmbedOptions, 'batchSize' | 'compat'> {
  /** Around each label, with {} in its place. Default '{}'. */
  template?: string
}

export interface ZeroShotLabel {
  label: string
  /** 0 … 1; together 1. */
  score: number
}

/** The first temperature's logarithm, ln(1 / 0.07). */
const FIRST_SCALE = 2.6592

/** The logarithms of the temperatures: buffers, which no optimiser changes. */
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
 * LanguageBind (Zhu et al. 2023, https://arxiv.org/abs/2310.01852; https://github.com/PKU-YuanGroup/LanguageBind): video,
 * sound, pictures, depth and warmth in the space of texts. Each modality has a vision tower of CLIP's, and all share one text
 * tower. Runs in native code.
 *
 * ```ts
 * const model = await LanguageBind.fromPretrained({ video: 'LanguageBind/LanguageBind_Video_FT', audio: 'LanguageBind/LanguageBind_Audio_FT' })
 * const { text, audio } = await model.embed({ text: ['a dog barks', 'rain'], audio: ['clip.wav'] })
 * const probabilities = model.similarity(audio, text).softmax(-1)
 * ```
 *
 * Names in the state dictionary are those of the published wrapper, which keeps its temperatures elsewhere; here they are
 * buffers, `modality_scale.video`.
 */
export class LanguageBind extends Module {
  readonly config: CompleteLanguageBindConfig
  readonly modality_encoder: ModuleDict<ClipVisionModel | ClipTextModel>
  readonly modality_proj: ModuleDict<Linear>
  readonly modality_scale: Module
  /** Turns texts into tokens; null where the directory had none. */
  tokenizer: ClipTokenizer | null = null

  /** @throws ConfigError where the configuration contradicts itself */
  constructor(given: LanguageBindConfig, options: MakeOptions = {}) {
    super()
    requireOptions('LanguageBind', options, ['device', 'dtype', 'seed', 'initialize'])
    const { seed, initialize = true, ...factory } = options
    const config = wholeTowers(completeConfig('LanguageBind', given))
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
            throw new ConfigError(`LanguageBind: ${modality} has a space of its own, of ${projectionDim} dimensions`, {
              modality,
              projectionDim,
            })
          }
          const encoder = new ClipVisionModel(visionConfig, make)
          this.modality_encoder.set(modality, encoder)
          const dim = visionConfig.hiddenSize ?? 768
          this.modality_proj.set(modality, new Linear(dim, projectionDim, { ...factory, bias: false }))
        }
        const text = textTowerConfig(last)
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
   * Random weights. Each modality has a configuration as a published config.json in camelCase, or the name of a published
   * checkpoint: `{ video: 'LanguageBind_Video_FT', audio: 'LanguageBind_Audio_FT' }`. The text tower is the last one's.
   */
  static fromConfig(config: LanguageBindConfig, options: NetworkOptions = {}): LanguageBind {
    requireOptions('LanguageBind.fromConfig', options, ['device', 'dtype', 'seed'])
    return new LanguageBind(config, options)
  }

  /**
   * Load published checkpoints, or folders that `save` wrote: a directory or hub repository for each modality, or one directory
   * for all. In evaluation mode.
   * @throws CheckpointError that lists missing, unexpected and mis-shaped names, or says of which checkpoint a table of
   *   positions is that does not fit
   */
  static fromPretrained(from: LanguageBindFrom | string, options: LoadLanguageBindOptions = {}): Promise<LanguageBind> {
    return loadLanguageBind(from, options, (config, factory) => new LanguageBind(config, factory))
  }

  /** The modalities that have a tower, in order. */
  get modalities(): LanguageBindModality[] {
    return Object.keys(this.config) as LanguageBindModality[]
  }

  /** The tower of a modality, or of texts. @throws ConfigError where there is none */
  tower(modality: 'text'): ClipTextModel
  tower(modality: LanguageBindModality): ClipVisionModel
  tower(modality: LanguageBindModality | 'text'): ClipTextModel | ClipVisionModel
  tower(modality: LanguageBindModality | 'text'): ClipTextModel | ClipVisionModel {
    this.#require('LanguageBind.tower', modality)
    return this.modality_encoder.at(keyOf(modality))
  }

  /** What the modality's embeddings are multiplied with. */
  temperature(modality: LanguageBindModality): number {
    this.#require('LanguageBind.temperature', modality)
    return Math.exp(Number((this.modality_scale as Scales).of(modality).item()))
  }

  /** Fills the parameters and buffers with these names with fresh values, from the default generator. */
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
   * Embeddings [items, projectionDim] of each modality that is given: of length 1, those of all but texts then multiplied with
   * their temperature. With gradients where these are recorded.
   * @throws ConfigError for a modality without a tower
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
   * The same without gradients and in evaluation mode, from texts, sounds, pictures and frames as they are: the same input
   * gives the same numbers, every time.
   * @throws ConfigError where there are texts and no tokenizer; DataError naming a file that cannot be read
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
    return evaluating(this, () =>
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

  /** Products of embeddings [n, dim] and [m, dim], as `embed` gave them: [n, m]. Their softmax over texts is what is published. */
  similarity(first: Tensor, second: Tensor): Tensor {
    for (const [name, value] of Object.entries({ first, second })) {
      if (!(value instanceof Tensor)) throw misuse('LanguageBind.similarity', name, 'a tensor', value)
    }
    return scope(() => first.matmul(second.t()))
  }

  /**
   * Which of some labels fits each item of one modality, without having been trained to tell: labels and their probabilities,
   * the likeliest first.
   *
   * ```ts
   * const [sorts] = await model.classify({ audio: ['clip.wav'] }, ['rain', 'a dog'], { template: 'the sound of {}' })
   * ```
   * @throws ConfigError for more than one modality, and for no labels
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
    if (!template.includes('{}')) throw misuse(where, 'template', 'a text with {} in it', template)
    if (!Array.isArray(labels) || labels.length === 0 || !labels.every((label) => typeof label === 'string')) {
      throw misuse(where, 'labels', 'a list of at least one text', labels)
    }
    const given = Object.entries(inputs).filter(([, value]) => value !== undefined)
    if (given.length !== 1 || given[0]?.[0] === 'text') {
      throw new ConfigError(`${where} takes items of one modality other than text`, {
        given: given.map(([name]) => name),
      })
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

  /** Writes config.json, model.safetensors, adapters in PEFT's layout and the tokenizer, which `fromPretrained` reads. */
  save(directory: string): Promise<void> {
    return saveLanguageBind(this, directory)
  }

  #require(where: string, modality: unknown): void {
    if (modality === 'text' || (typeof modality === 'string' && Object.hasOwn(this.config, modality))) return
    const known = (MODALITIES as readonly unknown[]).includes(modality)
    const what = known ? `has no tower for ${String(modality)}` : `knows no modality ${JSON.stringify(modality)}`
    throw new ConfigError(`${where}: this LanguageBind ${what}; it has ${['text', ...this.modalities].join(', ')}`, {
      modality,
    })
  }

  #given(where: string, inputs: object): [LanguageBindModality | 'text', unknown][] {
    const given = Object.entries(inputs).filter(([, value]) => value !== undefined && value !== null)
    for (const [modality] of given) this.#require(where, modality)
    if (given.length === 0) throw new ConfigError(`${where}: there is nothing to embed`, {})
    return given as [LanguageBindModality | 'text', unknown][]
  }

  async #embedded(modality: LanguageBindModality | 'text', value: unknown, scale: ScaleOptions): Promise<Tensor> {
    return scope(async () => {
      const { poolerOutput } = await (modality === 'text'
        ? this.tower('text').forward(value as LanguageBindTokens)
        : this.tower(modality).forward({ pixelValues: value as Tensor }))
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
