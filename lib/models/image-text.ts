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
import type { KvCache } from '../generation/kv-cache.js'
import { Module } from '../nn/module.js'
import type { NativeModule } from '../nn/native-module.js'
import { scope, type Tensor } from '../tensor/index.js'
import type { DecoderLM, DecoderLMInputs, DecoderLMOutput } from './decoder/decoder-lm.js'

/** Images as tiles, features or embeddings: at most one of the three. */
export interface ImageTextImages {
  /** Tiles of all images [tiles, channels, height, width], in the order of their positions in the text. */
  pixelValues?: Tensor | null
  /** Output of `encodeImages`, [tiles, tokens, width]; the vision encoder does not run again. */
  imageFeatures?: Tensor | null
  /** Output of `projectImages`, [tiles, tokens, hiddenSize]. */
  imageEmbeds?: Tensor | null
}

export interface ImageTextInputs extends ImageTextImages, Omit<DecoderLMInputs, 'inputIds' | 'inputsEmbeds'> {
  /** Token ids [batch, time], int64, with the image token once for each token of a tile. */
  inputIds: Tensor
}

export interface ImageTextOutput extends DecoderLMOutput {
  /** Image embeddings in the text, [tiles, tokens, hiddenSize]; null without images. */
  imageEmbeds: Tensor | null
}

export interface ImageTextGenerateInputs extends ImageTextImages {
  /** [batch, time], int64, with the image token at the places of images. Shorter rows are padded on the left. */
  inputIds: Tensor
  /** [batch, time], with a cache [batch, cache.length + time]: 1 for real tokens and 0 for padding. */
  attentionMask?: Tensor | null
  /** Cache of a prefix, images included; `inputIds` follow it. */
  cache?: KvCache | null
}

const PICTURES: readonly (keyof ImageTextImages)[] = ['pixelValues', 'imageFeatures', 'imageEmbeds']

/** Base class of models in which embeddings of images replace image tokens of a language model's text. */
export abstract class ImageTextModel extends Module {
  abstract readonly vision_model: NativeModule
  abstract readonly language_model: DecoderLM
  /** Projection to embeddings of the language model. */
  abstract readonly projector: NativeModule & { forward(features: Tensor): Promise<Tensor> }
  /** Id of the image token, its text, and the configuration's key of the id. */
  protected abstract readonly imageToken: { id: number | null; token: string; key: string }

  /** Encode tiles [tiles, channels, height, width] as input of the projection, [tiles, tokens, width]. */
  abstract encodeImages(pixelValues: Tensor): Promise<Tensor>

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

  /** Set training mode. A frozen vision encoder stays in evaluation mode, without dropout. */
  override train(mode = true): this {
    super.train(mode)
    if (this.vision_model.parameters().every(({ requiresGrad }) => !requiresGrad)) this.vision_model.eval()
    return this
  }

  /** Project the output of `encodeImages` to embeddings of the language model, [tiles, tokens, hiddenSize]. */
  projectImages(imageFeatures: Tensor): Promise<Tensor> {
    return scope(async () => {
      const { device, dtype } = this.projector.parameters()[0] as Tensor
      const features = requireImages('projectImages', 'imageFeatures', imageFeatures, 3).to({ device, dtype })
      return this.projector.forward(features)
    })
  }

  /**
   * Return the embeddings of token ids [batch, time], with those of images in place of image tokens, in order: [batch, time, hiddenSize].
   * Gradients flow into both.
   * @throws ShapeError with both numbers if positions and embeddings differ in number
   */
  async embed(inputIds: Tensor, images: ImageTextImages = {}): Promise<Tensor> {
    return (await this.#read(`${this.constructor.name}.embed`, inputIds, images)).inputsEmbeds
  }

  /**
   * @throws ShapeError with both numbers if the text has more or fewer positions than the images have tokens
   */
  override async forward(inputs: ImageTextInputs): Promise<ImageTextOutput> {
    requireObject(`${this.constructor.name}.forward`, 'inputs', inputs)
    const { inputIds, pixelValues, imageFeatures, imageEmbeds, ...rest } = inputs
    return scope(async () => {
      const read = await this.#read(`${this.constructor.name}.forward`, inputIds, {
        pixelValues,
        imageFeatures,
        imageEmbeds,
      })
      const output = await this.language_model.forward({ ...rest, inputsEmbeds: read.inputsEmbeds })
      return { ...output, imageEmbeds: read.imageEmbeds }
    })
  }

  /**
   * Generate from texts with images until every row has ended; greedily unless the configuration says otherwise.
   * @throws ConfigError for an invalid or contradictory configuration
   */
  generate(
    inputs: ImageTextGenerateInputs,
    config: GenerationConfig = {},
    options: GenerateOptions = {},
  ): Promise<GenerateOutput> {
    return scope(async () => generate(this.language_model, await this.#prompt(inputs), config, options))
  }

  /** Generate token by token. Leaving the loop, or aborting the signal in `options`, stops it and frees its memory. */
  async *stream(
    inputs: ImageTextGenerateInputs,
    config: GenerationConfig = {},
    options: GenerateOptions = {},
  ): AsyncGenerator<GenerateStep, void, void> {
    const prompt = await scope(() => this.#prompt(inputs))
    try {
      yield* stream(this.language_model, prompt, config, options)
    } finally {
      prompt.inputsEmbeds.dispose()
    }
  }

  /** Return the inputs of the language model. @internal */
  async #prompt(inputs: ImageTextGenerateInputs) {
    requireObject(`${this.constructor.name}.generate`, 'inputs', inputs)
    requireOptions(`${this.constructor.name}.generate`, inputs, ['inputIds', 'attentionMask', 'cache', ...PICTURES])
    const { inputIds, attentionMask, cache, ...images } = inputs
    const { inputsEmbeds } = await this.#read(`${this.constructor.name}.generate`, inputIds, images)
    return {
      inputIds: inputIds.to({ device: inputsEmbeds.device }),
      inputsEmbeds,
      attentionMask: attentionMask ?? null,
      cache: cache ?? null,
    }
  }

  async #read(where: string, inputIds: Tensor, images: ImageTextImages) {
    requireOptions(where, images, PICTURES)
    const given = PICTURES.filter((key) => images[key] != null)
    if (given.length > 1) {
      throw new ConfigError(
        `${where}: expected one of pixelValues, imageFeatures and imageEmbeds, got ${given.join(' and ')}. Pass one of them.`,
        {},
      )
    }
    return scope(async () => {
      const textEmbeds = this.language_model.embed(here(inputIds, this))
      const tokens = await this.#tokensOf(images)
      const { id, token, key } = this.imageToken
      if (id === null) {
        if (tokens === null) return { inputsEmbeds: textEmbeds, imageEmbeds: null }
        throw new ConfigError(
          `${where}: expected ${key}, the id of ${token}, in the configuration, got none. Set it.`,
          {},
        )
      }
      // Count ids that are on the CPU there, without device synchronization.
      const places = inputIds.eq(id)
      const count = Number((await places.sum().data())[0])
      const found = tokens ? tokens.size(0) * tokens.size(1) : 0
      if (count !== found) {
        const message = `${where}: expected ${found} times ${token} (${id}) for the image tokens, got ${count} in inputIds.`
        throw new ShapeError(message, { places: count, tokens: found })
      }
      if (tokens === null) return { inputsEmbeds: textEmbeds, imageEmbeds: null }
      const rows = tokens.to({ dtype: textEmbeds.dtype, device: textEmbeds.device })
      return {
        inputsEmbeds: textEmbeds.maskedScatter(places.to({ device: textEmbeds.device }).unsqueeze(-1), rows),
        imageEmbeds: tokens,
      }
    })
  }

  async #tokensOf({ pixelValues, imageFeatures, imageEmbeds }: ImageTextImages): Promise<Tensor | null> {
    if (imageEmbeds) return requireImages(this.constructor.name, 'imageEmbeds', imageEmbeds, 3)
    if (imageFeatures) return this.projectImages(imageFeatures)
    return pixelValues ? this.projectImages(await this.encodeImages(pixelValues)) : null
  }
}

/** Move token ids from the CPU to a network's device. */
function here(inputIds: Tensor, { projector }: { readonly projector: Module }): Tensor {
  const { device } = projector.parameters()[0] as Tensor
  return inputIds?.device === 'cpu' && device !== 'cpu' ? inputIds.to({ device }) : inputIds
}

/** Return an input that has so many dimensions. @throws ShapeError */
export function requireImages(where: string, name: string, value: Tensor, dimensions: number): Tensor {
  if (typeof value !== 'object' || value === null || !('ndim' in value))
    throw argumentError(where, name, 'a tensor', value)
  if (value.ndim === dimensions && value.isFloatingPoint()) return value
  const form = dimensions === 4 ? '[tiles, channels, height, width]' : '[tiles, tokens, width]'
  throw new ShapeError(
    `${where}: ${name}: expected floating-point ${form}, got ${value.dtype} [${value.shape.join(', ')}].`,
    {
      shape: value.shape,
    },
  )
}
