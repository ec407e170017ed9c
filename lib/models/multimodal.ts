import { argumentError, requireObject, requireOptions } from '../base/check.js'
import { ConfigError, ShapeError } from '../base/errors.js'
import { ContinuousBatching, type MediaCache, mediaCacheOf } from '../generation/batching.js'
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
import type { LoraConfig } from '../peft/config.js'
import { weightsIdentity } from '../peft/identity.js'
import type { PeftModel } from '../peft/model.js'
import { cat, noGrad, scope, Tensor, tensor } from '../tensor/index.js'
import { upload } from '../tensor/upload.js'
import type { DecoderLM, DecoderLMInputs, DecoderLMOutput } from './decoder/decoder-lm.js'
import { type PartNames, type PartsTraining, trainParts } from './train-parts.js'

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
  /** Token that the language model reads in its place, for a token that it does not have. Labels of such a token are ignored. */
  standIn?: number
}

/** Media as units that are encoded one without another, such as windows of audio. */
export interface MediaUnits {
  /** Bytes of the content of each unit: everything but weights that its embeddings depend on. */
  contents: readonly Uint8Array[]
  /** Return the embeddings of a unit, [tokens, hiddenSize]. */
  embed(unit: number): Promise<Tensor>
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
  /** Names of the fields of encoder, connector and language model. */
  protected abstract readonly partNames: PartNames
  /** Inputs that give embeddings, of which a call may have one, and others that go with them. */
  protected abstract readonly mediaInputs: { one: readonly (keyof Media)[]; more?: readonly (keyof Media)[] }

  /** Return the embeddings of the media in the order of their tokens, [..., hiddenSize]; null without media. */
  protected abstract mediaEmbeds(media: Media): Promise<Tensor | null>

  /** Return the media as units for a cache by content; null for media that it does not keep. */
  protected async mediaUnits(_media: Media): Promise<MediaUnits | null> {
    return null
  }

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

  /**
   * Choose how each part trains: frozen, in full, or by adapters of its linear layers (LoRA, DoRA). Adapters are saved with the
   * parts that train in full, as `modulesToSave`.
   *
   * ```ts
   * const peft = model.trainParts({ encoder: 'lora', connector: 'full', decoder: 'lora' }, { r: 16, loraAlpha: 32 })
   * await peft?.savePretrained('adapter')
   * ```
   * @param training `'frozen'` (default), `'lora'` or `'full'` for `encoder`, `connector` and `decoder`
   * @param lora settings of the adapters; `targetModules` lists names of layers, by default all linear ones but the output layer
   * @returns the adapters; null if no part has any
   * @throws ConfigError for invalid settings, if no part trains, and for a model with adapters
   */
  trainParts(training: PartsTraining, lora: Partial<LoraConfig> = {}): PeftModel<this> | null {
    return trainParts(this, this.partNames, training, lora)
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
      const { id, standIn } = this.mediaToken
      const { labels } = rest as { labels?: Tensor | null }
      const known = standIn !== undefined && labels && { labels: labels.maskedFill(labels.eq(id as number), -100) }
      const output = await this.withAdapters(mediaEmbeds !== null, () =>
        this.language_model.forward({ ...rest, ...known, inputsEmbeds }),
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
      const { hasMedia, ...prompt } = await this.#prompt(inputs, options)
      return this.withAdapters(hasMedia, () => generate(this.language_model, prompt, config, options))
    })
  }

  /** Generate token by token. Leaving the loop, or aborting the signal in `options`, stops it and frees its memory. */
  async *stream(
    inputs: MultimodalGenerateInputs & Media,
    config: GenerationConfig = {},
    options: GenerateOptions = {},
  ): AsyncGenerator<GenerateStep, void, void> {
    const { hasMedia, ...prompt } = await scope(() => this.#prompt(inputs, options))
    try {
      yield* eachStep(stream(this.language_model, prompt, config, options), (step) => this.withAdapters(hasMedia, step))
    } finally {
      prompt.inputsEmbeds?.dispose()
      prompt.prefixKeys?.dispose()
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

  /** Return token ids that the language model has: of a media token that it does not have, those of its stand-in. @internal */
  textIds(inputIds: Tensor): Tensor {
    const { id, standIn } = this.mediaToken
    return standIn === undefined ? inputIds : inputIds.maskedFill(inputIds.eq(id as number), standIn)
  }

  /** Return the inputs of the language model. @internal */
  async #prompt(inputs: MultimodalGenerateInputs & Media, { batching }: GenerateOptions) {
    const where = `${this.constructor.name}.generate`
    requireObject(where, 'inputs', inputs)
    requireOptions(where, inputs, ['inputIds', 'attentionMask', 'cache', ...(this.#mediaKeys as string[])])
    const { inputIds, media } = this.#apart(inputs)
    const isAlone = inputIds instanceof Tensor && inputIds.ndim === 2 && inputIds.size(0) === 1
    const cache = isAlone && batching instanceof ContinuousBatching ? mediaCacheOf(batching) : undefined
    const { inputsEmbeds, mediaEmbeds, prefixKeys } = await this.#read(where, inputIds, media, cache)
    const hasMedia = mediaEmbeds !== null
    return {
      hasMedia,
      inputIds: upload(this.textIds(inputIds), inputsEmbeds.device),
      ...(hasMedia && { inputsEmbeds }),
      // The media's token does not tell one clip from another.
      ...(prefixKeys && { prefixKeys }),
      attentionMask: inputs.attentionMask ?? null,
      cache: inputs.cache ?? null,
    }
  }

  /** Return the embeddings of media, and a number for the content of each, from a cache as far as it has them. */
  async #cached(media: Media, cache: MediaCache): Promise<{ embeds: Tensor; keys: bigint[] } | null> {
    const units = await noGrad(() => this.mediaUnits(media))
    if (units === null || units.contents.length === 0) return null
    const identity = new TextEncoder().encode(weightsIdentity(this))
    const hashes: BigInt64Array[] = []
    for (const content of units.contents) hashes.push(await contentHash(identity, content))
    const names = hashes.map((hash) => hash.join(' '))
    const found = new Map<string, Tensor>()
    for (const [unit, name] of names.entries()) {
      if (found.has(name)) continue
      const known = cache.get(name)
      const embeds = known ?? (await noGrad(() => units.embed(unit)))
      if (known === undefined) cache.keep(name, embeds)
      found.set(name, embeds)
    }
    const all = names.map((name) => found.get(name) as Tensor)
    // All 256 bits of the hash take part, 63 in each position: a token's id is not below 0, so no text is equal to audio.
    const keys = all.flatMap((embeds, unit) =>
      Array.from(
        { length: embeds.size(0) },
        (_, i) => -1n - BigInt.asUintN(63, (hashes[unit] as BigInt64Array)[i % 4] as bigint),
      ),
    )
    return { embeds: cat(all, 0), keys }
  }

  async #read(where: string, inputIds: Tensor, media: Media, cache?: MediaCache) {
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
      const textEmbeds = await this.language_model.embedQueued(this.textIds(ids))
      const cached = found.length > 0 && cache !== undefined ? await this.#cached(media, cache) : null
      const mediaEmbeds = cached?.embeds ?? (found.length > 0 ? await this.mediaEmbeds(media) : null)
      const { id, token, key, media: name } = this.mediaToken
      if (id === null) {
        if (mediaEmbeds === null) return { inputsEmbeds: textEmbeds, mediaEmbeds, prefixKeys: null }
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
      if (mediaEmbeds === null) return { inputsEmbeds: textEmbeds, mediaEmbeds, prefixKeys: null }
      if (mediaEmbeds.size(-1) !== textEmbeds.size(-1)) {
        const message = `${where}: ${String(found[0])}: expected embeddings of width ${textEmbeds.size(-1)}, got [${mediaEmbeds.shape.join(', ')}].`
        throw new ShapeError(message, { shape: mediaEmbeds.shape })
      }
      const rows = mediaEmbeds.to({ dtype: textEmbeds.dtype, device: textEmbeds.device })
      return {
        inputsEmbeds: textEmbeds.maskedScatter(upload(places, textEmbeds.device).unsqueeze(-1), rows),
        mediaEmbeds,
        prefixKeys: cached && (await keysOf(inputIds, id, cached.keys)),
      }
    })
  }
}

/** Return the SHA-256 of contents, computed by another thread. */
async function contentHash(...contents: Uint8Array[]): Promise<BigInt64Array> {
  return new BigInt64Array(await crypto.subtle.digest('SHA-256', Buffer.concat(contents)))
}

/** Return token ids [1, time] with these numbers in place of the media's token. */
async function keysOf(inputIds: Tensor, id: number, keys: readonly bigint[]): Promise<Tensor> {
  let next = 0
  const ids = Array.from((await inputIds.data()) as Iterable<bigint | number>, (one) =>
    Number(one) === id ? (keys[next++] as bigint) : BigInt(one),
  )
  return tensor([ids], { dtype: 'int64', device: 'cpu' })
}
