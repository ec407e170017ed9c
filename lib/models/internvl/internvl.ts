import { argumentError, requireObject, requireOptions, requireWhole } from '../../base/check.js'
import { ConfigError, ShapeError } from '../../base/errors.js'
import type { GenerationConfig } from '../../generation/config.js'
import {
  type GenerateOptions,
  type GenerateOutput,
  type GenerateStep,
  generate,
  stream,
} from '../../generation/generate.js'
import type { KvCache } from '../../generation/kv-cache.js'
import { currentContext } from '../../native/context.js'
import { Module } from '../../nn/module.js'
import type { NativeModule } from '../../nn/native-module.js'
import type { MakeOptions, NetworkOptions } from '../../nn/parameter.js'
import { type Device, scope, type Tensor } from '../../tensor/index.js'
import { withSeed } from '../../tensor/random.js'
import { DecoderLM, type DecoderLMInputs, type DecoderLMOutput } from '../decoder/decoder-lm.js'
import { type ConfigChanges, configOf, type SavableNetwork } from '../network.js'
import type { LoadNetworkOptions } from '../pretrained.js'
import {
  type CompleteInternVLConfig,
  completedInternVL,
  type InternVLConfig,
  internVLSizes,
  shuffleFactor,
} from './config.js'
import { loadInternVL, type SaveInternVLOptions, saveInternVL } from './files.js'
import { InternViT } from './intern-vit.js'
import { InternVLProjector, pixelShuffle } from './projector.js'

/** Images as tiles, features or embeddings: at most one of the three. */
export interface InternVLImages {
  /** Tiles of all images [tiles, channels, height, width], in the order of their positions in the text. */
  pixelValues?: Tensor | null
  /** Output of `encodeImages`, [tiles, tokens, width]; the vision encoder does not run again. */
  imageFeatures?: Tensor | null
  /** Output of `projectImages`, [tiles, tokens, hiddenSize]. */
  imageEmbeds?: Tensor | null
}

export interface InternVLInputs extends InternVLImages, Omit<DecoderLMInputs, 'inputIds' | 'inputsEmbeds'> {
  /** Token ids [batch, time], int64, with the id of `<IMG_CONTEXT>` once for each token of a tile. */
  inputIds: Tensor
}

export interface InternVLOutput extends DecoderLMOutput {
  /** Image embeddings in the text, [tiles, tokens, hiddenSize]; null without images. */
  imageEmbeds: Tensor | null
}

export interface InternVLGenerateInputs extends InternVLImages {
  /** [batch, time], int64, with the id of `<IMG_CONTEXT>` at image tokens. Shorter rows are padded on the left. */
  inputIds: Tensor
  /** [batch, time], with a cache [batch, cache.length + time]: 1 for real tokens and 0 for padding. */
  attentionMask?: Tensor | null
  /** Cache of a prefix, images included; `inputIds` follow it. */
  cache?: KvCache | null
}

const PICTURES: readonly (keyof InternVLImages)[] = ['pixelValues', 'imageFeatures', 'imageEmbeds']

/**
 * InternVL 2, 2.5 and 3 (Chen et al. 2024, https://arxiv.org/abs/2404.16821 and https://arxiv.org/abs/2412.05271; Zhu et al. 2025,
 * https://arxiv.org/abs/2504.10479): a vision-language model. InternViT encodes tiles of an image, pixel
 * shuffle joins four neighboring patches, and a projector (mlp1) converts them to embeddings, which replace `<IMG_CONTEXT>` tokens in the
 * language model's text. Any {@link DecoderLM} can be the language model.
 *
 * ```ts
 * const model = await InternVL.fromPretrained('./InternVL2-2B')
 * const { tokens } = await model.generate({ inputIds, pixelValues }, { maxNewTokens: 64 })
 * ```
 *
 * Names in the state dictionary are those of the published checkpoints (https://huggingface.co/OpenGVLab/InternVL3-1B). Folders of
 * transformers' port (https://huggingface.co/OpenGVLab/InternVL3-1B-hf) work as well.
 * Published sizes: `'internvl2-1b'`, `'internvl2.5-8b'`, `'internvl3-8b'` and so on; the error for an unknown name lists them.
 */
export class InternVL extends Module implements SavableNetwork<InternVLConfig> {
  readonly config: CompleteInternVLConfig
  readonly vision_model: InternViT
  readonly language_model: DecoderLM
  readonly mlp1: InternVLProjector

  /** @throws ConfigError for a contradictory configuration */
  constructor(config: InternVLConfig, options: MakeOptions = {}) {
    super()
    requireObject('InternVL', 'config', config)
    this.config = completedInternVL(config)
    const { visionConfig, llmConfig, downsampleRatio = 0.5 } = this.config
    this.vision_model = new InternViT(visionConfig, options)
    this.language_model = new DecoderLM(llmConfig, options)
    const inputSize = (visionConfig.hiddenSize ?? 3200) * shuffleFactor(downsampleRatio) ** 2
    const hiddenSize = this.language_model.config.hiddenSize ?? 4096
    this.mlp1 = new InternVLProjector(inputSize, hiddenSize, options)
  }

  /** Create a model with random weights from a configuration or the name of a published size. Device `'meta'` allocates no memory. */
  static fromConfig(config: InternVLConfig | string, options: NetworkOptions = {}): InternVL {
    requireOptions('InternVL.fromConfig', options, ['device', 'dtype', 'seed'])
    const { seed, ...factory } = options
    const device = (factory.device ?? currentContext().deviceName ?? 'cpu') as Device
    return withSeed(seed, () => new InternVL(configOf('InternVL', config, internVLSizes), factory), device)
  }

  /**
   * Load a folder or repository of the Hugging Face hub, as published (`internvl_chat`) or in transformers' port (`internvl`), in one file or
   * in shards. The model is in evaluation mode.
   * @throws CheckpointError that lists missing, unexpected and mis-shaped names
   */
  static fromPretrained(
    from: string,
    options: LoadNetworkOptions & ConfigChanges<InternVLConfig> = {},
  ): Promise<InternVL> {
    return loadInternVL(from, options, (config, factory) => new InternVL(config, factory))
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
   * Return the number of tokens of a tile of `height` x `width` pixels; by default of the network's tile size.
   * @throws ConfigError if the sides are not multiples of the side of one token
   */
  tileTokens(height = this.config.visionConfig.imageSize ?? 224, width = height): number {
    const where = 'InternVL.tileTokens'
    requireWhole(where, 'height', height, 1)
    requireWhole(where, 'width', width, 1)
    const { patchSize = 14 } = this.config.visionConfig
    const side = shuffleFactor(this.config.downsampleRatio ?? 0.5) * patchSize
    if (height % side === 0 && width % side === 0) return (height / side) * (width / side)
    throw new ConfigError(`${where}: expected sides that are multiples of ${side}, got ${height} x ${width} pixels.`, {
      height,
      width,
    })
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

  /**
   * Encode tiles [tiles, channels, height, width] as input of the projector, [tiles, tokens, width]. With a frozen vision encoder the result
   * does not depend on trained weights, so it can be cached.
   */
  async encodeImages(pixelValues: Tensor): Promise<Tensor> {
    const { visionConfig, downsampleRatio = 0.5, psVersion = 'v2', selectLayer = -1 } = this.config
    return scope(async () => {
      const factor = shuffleFactor(downsampleRatio)
      const { device, dtype } = this.vision_model.parameters()[0] as Tensor
      const outputHiddenStates = selectLayer !== -1
      const tiles = requireImages('encodeImages', 'pixelValues', pixelValues, 4).to({ device, dtype })
      const output = await this.vision_model.forward({ pixelValues: tiles, outputHiddenStates })
      const states = outputHiddenStates ? (output.hiddenStates.at(selectLayer) as Tensor) : output.lastHiddenState
      const { patchSize = 14 } = visionConfig
      const grid = [pixelValues.size(2) / patchSize, pixelValues.size(3) / patchSize] as const
      return pixelShuffle(states, grid, factor, psVersion === 'v1')
    })
  }

  /** Project the output of `encodeImages` to embeddings of the language model, [tiles, tokens, hiddenSize]. */
  projectImages(imageFeatures: Tensor): Promise<Tensor> {
    return scope(async () => {
      const { device, dtype } = this.mlp1.parameters()[0] as Tensor
      const features = requireImages('projectImages', 'imageFeatures', imageFeatures, 3).to({ device, dtype })
      return this.mlp1.forward(features)
    })
  }

  /**
   * Return the embeddings of token ids [batch, time], with those of images in place of `<IMG_CONTEXT>`, in order: [batch, time, hiddenSize].
   * Gradients flow into both.
   * @throws ShapeError with both numbers if positions and embeddings differ in number
   */
  async embed(inputIds: Tensor, images: InternVLImages = {}): Promise<Tensor> {
    return (await this.#read('InternVL.embed', inputIds, images)).inputsEmbeds
  }

  /**
   * @throws ShapeError with both numbers if the text has more or fewer positions than the images have tokens
   */
  override async forward(inputs: InternVLInputs): Promise<InternVLOutput> {
    requireObject('InternVL.forward', 'inputs', inputs)
    const { inputIds, pixelValues, imageFeatures, imageEmbeds, ...rest } = inputs
    return scope(async () => {
      const read = await this.#read('InternVL.forward', inputIds, { pixelValues, imageFeatures, imageEmbeds })
      const output = await this.language_model.forward({ ...rest, inputsEmbeds: read.inputsEmbeds })
      return { ...output, imageEmbeds: read.imageEmbeds }
    })
  }

  /**
   * Generate from texts with images until every row has ended; greedily unless the configuration says otherwise.
   * @throws ConfigError for an invalid or contradictory configuration
   */
  generate(
    inputs: InternVLGenerateInputs,
    config: GenerationConfig = {},
    options: GenerateOptions = {},
  ): Promise<GenerateOutput> {
    return scope(async () => generate(this.language_model, await this.#prompt(inputs), config, options))
  }

  /** Generate token by token. Leaving the loop, or aborting the signal in `options`, stops it and frees its memory. */
  async *stream(
    inputs: InternVLGenerateInputs,
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

  /** Write config.json and safetensors, in the published layout or that of transformers' port. */
  save(directory: string, options: SaveInternVLOptions = {}): Promise<void> {
    return saveInternVL(this, directory, options)
  }

  /** Return the inputs of the language model. @internal */
  async #prompt(inputs: InternVLGenerateInputs) {
    requireObject('InternVL.generate', 'inputs', inputs)
    requireOptions('InternVL.generate', inputs, ['inputIds', 'attentionMask', 'cache', ...PICTURES])
    const { inputIds, attentionMask, cache, ...images } = inputs
    const { inputsEmbeds } = await this.#read('InternVL.generate', inputIds, images)
    return {
      inputIds: inputIds.to({ device: inputsEmbeds.device }),
      inputsEmbeds,
      attentionMask: attentionMask ?? null,
      cache: cache ?? null,
    }
  }

  async #read(where: string, inputIds: Tensor, images: InternVLImages) {
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
      const id = this.config.imgContextTokenId ?? null
      if (id === null) {
        if (tokens === null) return { inputsEmbeds: textEmbeds, imageEmbeds: null }
        throw new ConfigError(
          `${where}: expected imgContextTokenId, the id of <IMG_CONTEXT>, in the configuration, got none. Set it.`,
          {},
        )
      }
      // Count ids that are on the CPU there, without device synchronization.
      const places = inputIds.eq(id)
      const count = Number((await places.sum().data())[0])
      const found = tokens ? tokens.size(0) * tokens.size(1) : 0
      if (count !== found) {
        const message = `${where}: expected ${found} times <IMG_CONTEXT> (${id}) for the image tokens, got ${count} in inputIds.`
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

  async #tokensOf({ pixelValues, imageFeatures, imageEmbeds }: InternVLImages): Promise<Tensor | null> {
    if (imageEmbeds) return requireImages('InternVL', 'imageEmbeds', imageEmbeds, 3)
    if (imageFeatures) return this.projectImages(imageFeatures)
    return pixelValues ? this.projectImages(await this.encodeImages(pixelValues)) : null
  }
}

/** Move token ids from the CPU to a network's device. */
function here(inputIds: Tensor, { mlp1 }: InternVL): Tensor {
  const { device } = mlp1.parameters()[0] as Tensor
  return inputIds?.device === 'cpu' && device !== 'cpu' ? inputIds.to({ device }) : inputIds
}

function requireImages(where: string, name: string, value: Tensor, dimensions: number): Tensor {
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
