import { argumentError, requireObject, requireOptions } from '../base/check.js'
import { ConfigError, ShapeError } from '../base/errors.js'
import type { GenerationConfig } from '../generation/config.js'
import {
  type GenerateOptions,
  type GenerateOutput,
  type GenerateStep,
  generate,
  stream,
} from '../generation/generate.js'
import { eachStep } from '../generation/generators.js'
import type { KvCache } from '../generation/kv-cache.js'
import { Module } from '../nn/module.js'
import type { NativeModule } from '../nn/native-module.js'
import { scope, Tensor } from '../tensor/index.js'
import { upload } from '../tensor/upload.js'
import type { DecoderLM, DecoderLMInputs, DecoderLMOutput } from './decoder/decoder-lm.js'

/** Inputs of a pass, without those of its media. */
export interface MultimodalInputs extends Omit<DecoderLMInputs, 'inputIds' | 'inputsEmbeds'> {
  /** Token ids [batch, time], int64, with the media's token once for each of their embeddings. */
  inputIds: Tensor
}

/** Inputs of generation, without those of its media. */
export interface MultimodalGenerateInputs {
  /** [batch, time], int64, with the media's token at the places of their embeddings. Shorter rows are padded on the left. */
  inputIds: Tensor
  /** [batch, time], with a cache [batch, cache.length + time]: 1 for real tokens and 0 for padding. */
  attentionMask?: Tensor | null
  /** Cache of a prefix, media included; `inputIds` follow it. */
  cache?: KvCache | null
}

/** The token that media replace, and how the messages name both. */
export interface MediaToken {
  /** Its id; null if the configuration has none. */
  id: number | null
  token: string
  /** Key of the id in the configuration. */
  key: string
  /** The media's name: `'image'` or `'audio'`. */
  media: string
}

/**
 * Base class of models in which embeddings of images or audio replace tokens with one id in a language model's text. `Media` are the
 * inputs that give those embeddings.
 */
export abstract class MultimodalLM<Media extends object> extends Module {
  abstract readonly language_model: DecoderLM
  /** The network that encodes the media. */
  protected abstract readonly mediaEncoder: Module
  protected abstract readonly mediaToken: MediaToken
  /** Inputs that give embeddings, of which a call may have one, and others that go with them. */
  protected abstract readonly mediaInputs: { one: readonly (keyof Media)[]; more?: readonly (keyof Media)[] }

  /** Return the embeddings of the media in the order of their tokens, [..., hiddenSize]; null without media. */
  protected abstract mediaEmbeds(media: Media): Promise<Tensor | null>

  /** Call `fn`, which runs the language model, with the adapters of a text with media, or of one without. */
  protected withAdapters<T>(_hasMedia: boolean, fn: () => T): T {
    return fn()
  }

  /** Default generation settings of `generate` and `stream`. */
  get generationConfig(): GenerationConfig {
    return this.language_model.generationConfig
  }
  set generationConfig(config: GenerationConfig) {
    this.language_model.generationConfig = config
  }

  /** Tells the Trainer that the first label of a row is ignored, and that `forward` takes `labelSmoothing`. */
  get shiftsLabels(): true {
    return true
  }
  get smoothsLabels(): true {
    return true
  }

  /** Reinitialize the parameters with these names from the default generator. */
  initialize(names: string[]): this {
    for (const [field, part] of this.namedChildren()) {
      const inside = names.filter((name) => name.startsWith(`${field}.`)).map((name) => name.slice(field.length + 1))
      if (inside.length > 0) (part as NativeModule).initialize(inside)
    }
    return this
  }

  /** Set training mode. A frozen encoder of media stays in evaluation mode, without dropout. */
  override train(mode = true): this {
    super.train(mode)
    if (this.mediaEncoder.parameters().every(({ requiresGrad }) => !requiresGrad)) this.mediaEncoder.eval()
    return this
  }

  /**
   * Return the embeddings of token ids [batch, time], with those of the media in place of their tokens, in order: [batch, time, hiddenSize].
   * Gradients flow into both.
   * @throws ShapeError with both numbers if tokens and embeddings differ in number
   */
  async embed(inputIds: Tensor, media: Media = {} as Media): Promise<Tensor> {
    return (await this.#read(`${this.constructor.name}.embed`, inputIds, media)).inputsEmbeds
  }

  /** Run the language model, and return its output together with the embeddings of the media. */
  protected run(inputs: MultimodalInputs & Media): Promise<DecoderLMOutput & { mediaEmbeds: Tensor | null }> {
    const where = `${this.constructor.name}.forward`
    requireObject(where, 'inputs', inputs)
    const { inputIds, media, rest } = this.#apart(inputs)
    if (Reflect.get(rest, 'inputsEmbeds') != null) {
      const [key] = this.mediaInputs.one.slice(-1)
      throw new ConfigError(
        `${where}: expected inputIds, got inputsEmbeds. Pass inputIds with ${String(key)}, or call language_model.`,
        {},
      )
    }
    return scope(async () => {
      const { inputsEmbeds, mediaEmbeds } = await this.#read(where, inputIds, media)
      const output = await this.withAdapters(mediaEmbeds !== null, () =>
        this.language_model.forward({ ...rest, inputsEmbeds }),
      )
      return { ...output, mediaEmbeds }
    })
  }

  /**
   * Generate from texts with media until every row has ended; greedily unless the configuration says otherwise.
   * @throws ConfigError for an invalid or contradictory configuration
   */
  generate(
    inputs: MultimodalGenerateInputs & Media,
    config: GenerationConfig = {},
    options: GenerateOptions = {},
  ): Promise<GenerateOutput> {
    return scope(async () => {
      const { hasMedia, ...prompt } = await this.#prompt(inputs)
      return this.withAdapters(hasMedia, () => generate(this.language_model, prompt, config, options))
    })
  }

  /** Generate token by token. Leaving the loop, or aborting the signal in `options`, stops it and frees its memory. */
  async *stream(
    inputs: MultimodalGenerateInputs & Media,
    config: GenerationConfig = {},
    options: GenerateOptions = {},
  ): AsyncGenerator<GenerateStep, void, void> {
    const { hasMedia, ...prompt } = await scope(() => this.#prompt(inputs))
    try {
      yield* eachStep(stream(this.language_model, prompt, config, options), (step) => this.withAdapters(hasMedia, step))
    } finally {
      prompt.inputsEmbeds?.dispose()
      if (prompt.inputIds !== inputs.inputIds) prompt.inputIds.dispose()
    }
  }

  get #mediaKeys(): (keyof Media)[] {
    const { one, more = [] } = this.mediaInputs
    return [...one, ...more]
  }

  #apart<I extends { inputIds: Tensor } & Media>({ inputIds, ...others }: I) {
    const keys: ReadonlySet<PropertyKey> = new Set(this.#mediaKeys)
    const of = (isMedia: boolean) => Object.entries(others).filter(([key]) => keys.has(key) === isMedia)
    return { inputIds, media: Object.fromEntries(of(true)) as Media, rest: Object.fromEntries(of(false)) }
  }

  /** Return the inputs of the language model. @internal */
  async #prompt(inputs: MultimodalGenerateInputs & Media) {
    const where = `${this.constructor.name}.generate`
    requireObject(where, 'inputs', inputs)
    requireOptions(where, inputs, ['inputIds', 'attentionMask', 'cache', ...(this.#mediaKeys as string[])])
    const { inputIds, media } = this.#apart(inputs)
    const { inputsEmbeds, mediaEmbeds } = await this.#read(where, inputIds, media)
    const hasMedia = mediaEmbeds !== null
    return {
      hasMedia,
      inputIds: upload(inputIds, inputsEmbeds.device),
      // The prefix cache of a batching shares texts by their ids, which do not tell one clip from another.
      ...(hasMedia && { inputsEmbeds }),
      attentionMask: inputs.attentionMask ?? null,
      cache: inputs.cache ?? null,
    }
  }

  async #read(where: string, inputIds: Tensor, media: Media) {
    requireOptions(where, media, this.#mediaKeys as string[])
    if (!(inputIds instanceof Tensor)) throw argumentError(where, 'inputIds', 'a tensor', inputIds)
    const { one } = this.mediaInputs
    const found = one.filter((key) => media[key] != null)
    if (found.length > 1) {
      const list = `${one.slice(0, -1).join(', ')} and ${String(one.at(-1))}`
      throw new ConfigError(`${where}: expected one of ${list}, got ${found.join(' and ')}. Pass one of them.`, {})
    }
    const lone = found.length === 0 ? (this.mediaInputs.more ?? []).find((key) => media[key] != null) : undefined
    if (lone !== undefined) {
      const needed = one.join(' or ')
      throw new ConfigError(`${where}: expected ${needed} with ${String(lone)}, got none. Pass one of them.`, {})
    }
    return scope(async () => {
      const { device } = this.language_model.parameters()[0] as Tensor
      const ids = inputIds.device === 'cpu' && device !== 'cpu' ? upload(inputIds, device) : inputIds
      const textEmbeds = await this.language_model.embedQueued(ids)
      const mediaEmbeds = found.length > 0 ? await this.mediaEmbeds(media) : null
      const { id, token, key, media: name } = this.mediaToken
      if (id === null) {
        if (mediaEmbeds === null) return { inputsEmbeds: textEmbeds, mediaEmbeds }
        throw new ConfigError(
          `${where}: expected ${key}, the id of ${token}, in the configuration, got none. Set it.`,
          {},
        )
      }
      // Count ids that are on the CPU there, without device synchronization.
      const places = inputIds.eq(id)
      const count = Number((await places.sum().data())[0])
      const tokens = mediaEmbeds === null ? 0 : mediaEmbeds.numel() / mediaEmbeds.size(-1)
      if (count !== tokens) {
        const message = `${where}: expected ${tokens} times ${token} (${id}) for the ${name} tokens, got ${count} in inputIds.`
        throw new ShapeError(message, { places: count, tokens })
      }
      if (mediaEmbeds === null) return { inputsEmbeds: textEmbeds, mediaEmbeds }
      if (mediaEmbeds.size(-1) !== textEmbeds.size(-1)) {
        const message = `${where}: ${String(found[0])}: expected embeddings of width ${textEmbeds.size(-1)}, got [${mediaEmbeds.shape.join(', ')}].`
        throw new ShapeError(message, { shape: mediaEmbeds.shape })
      }
      const rows = mediaEmbeds.to({ dtype: textEmbeds.dtype, device: textEmbeds.device })
      return {
        inputsEmbeds: textEmbeds.maskedScatter(upload(places, textEmbeds.device).unsqueeze(-1), rows),
        mediaEmbeds,
      }
    })
  }
}
