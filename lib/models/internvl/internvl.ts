import { misuse, requireObject, requireOptions, requireWhole } from '../../base/check.js'
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

/** What pictures are given as: tiles, or what the network made of them before. One of the three, or none. */
export interface InternVLPictures {
  /** Tiles of all pictures [tiles, channels, height, width], in the order of their places in the text. */
  pixelValues?: Tensor | null
  /** What `encodeImages` gave of them, [tiles, tokens, width]: the vision part is not run again. */
  imageFeatures?: Tensor | null
  /** What `projectImages` gave of that, [tiles, tokens, hiddenSize]. */
  imageEmbeds?: Tensor | null
}

export interface InternVLInputs extends InternVLPictures, Omit<DecoderLMInputs, 'inputIds' | 'inputsEmbeds'> {
  /** Token ids [batch, time], int64, with the id of `<IMG_CONTEXT>` once for each token of a tile. */
  inputIds: Tensor
}

export interface InternVLOutput extends DecoderLMOutput {
  /** [tiles, tokens, hiddenSize], what stood in the text; null without pictures. */
  imageEmbeds: Tensor | null
}

export interface InternVLGenerateInputs extends InternVLPictures {
  /** [batch, time], int64, with the id of `<IMG_CONTEXT>` at pictures. Shorter rows are padded on the left. */
  inputIds: Tensor
  /** [batch, time], with a cache [batch, cache.length + time]: 1 for real tokens and 0 for padding. */
  attentionMask?: Tensor | null
  /** What was read before, pictures included; `inputIds` is what comes behind it. */
  cache?: KvCache | null
}

const PICTURES: readonly (keyof InternVLPictures)[] = ['pixelValues', 'imageFeatures', 'imageEmbeds']

/**
 * InternVL 2 (Chen et al. 2024, https://arxiv.org/abs/2404.16821): a language model that sees. InternViT looks at tiles of a
 * picture, pixel shuffle joins four neighbouring patches, a projection (mlp1) makes tokens of them, and these stand in the
 * language model's text at the places of `<IMG_CONTEXT>`. Any {@link DecoderLM} can be the language model.
 *
 * ```ts
 * const model = await InternVL.fromPretrained('./InternVL2-2B')
 * const { tokens } = await model.generate({ inputIds, pixelValues }, { maxNewTokens: 64 })
 * ```
 *
 * Names in the state dictionary are those of the published checkpoints (https://huggingface.co/OpenGVLab/InternVL2-2B).
 * Published sizes: `'internvl2-1b'`, `'internvl2-2b'`, `'internvl2-4b'`, `'internvl2-8b'`.
 */
export class InternVL extends Module implements SavableNetwork<InternVLConfig> {
  readonly config: CompleteInternVLConfig
  readonly vision_model: InternViT
  readonly language_model: DecoderLM
  readonly mlp1: InternVLProjector

  /** @throws ConfigError where the configuration contradicts itself */
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

  /** Random weights; `config` is a configuration or the name of a published size. With device `'meta'` it is shapes only. */
  static fromConfig(config: InternVLConfig | string, options: NetworkOptions = {}): InternVL {
    requireOptions('InternVL.fromConfig', options, ['device', 'dtype', 'seed'])
    const { seed, ...factory } = options
    const device = (factory.device ?? currentContext().deviceName ?? 'cpu') as Device
    return withSeed(seed, () => new InternVL(configOf('InternVL', config, internVLSizes), factory), device)
  }

  /**
   * A folder or repository of the hub as published (`internvl_chat`), or as transformers' port of it has it (`internvl`): in one
   * file or in shards, in evaluation mode.
   * @throws CheckpointError that lists missing, unexpected and mis-shaped names
   */
  static fromPretrained(
    from: string,
    options: LoadNetworkOptions & ConfigChanges<InternVLConfig> = {},
  ): Promise<InternVL> {
    return loadInternVL(from, options, (config, factory) => new InternVL(config, factory))
  }

  /** What `generate` and `stream` take for what their own configuration leaves out. */
  get generationConfig(): GenerationConfig {
    return this.language_model.generationConfig
  }
  set generationConfig(config: GenerationConfig) {
    this.language_model.generationConfig = config
  }

  /** For the Trainer: the first label of a row is not learnt, and `forward` takes `labelSmoothing`. */
  get shiftsLabels(): true {
    return true
  }
  get smoothsLabels(): true {
    return true
  }

  /**
   * Tokens of a tile of `height` x `width` pixels; by default of the size that the network is for.
   * @throws ConfigError where the sides are no multiples of what one token sees
   */
  tileTokens(height = this.config.visionConfig.imageSize ?? 224, width = height): number {
    const where = 'InternVL.tileTokens'
    requireWhole(where, 'height', height, 1)
    requireWhole(where, 'width', width, 1)
    const { patchSize = 14 } = this.config.visionConfig
    const side = shuffleFactor(this.config.downsampleRatio ?? 0.5) * patchSize
    if (height % side === 0 && width % side === 0) return (height / side) * (width / side)
    throw new ConfigError(`${where}: ${height} x ${width} pixels are no squares of ${side}`, { height, width })
  }

  /** Gives the parameters with these names fresh values, from the default generator. */
  initialize(names: string[]): this {
    for (const [field, part] of this.namedChildren()) {
      const inside = names.filter((name) => name.startsWith(`${field}.`)).map((name) => name.slice(field.length + 1))
      if (inside.length > 0) (part as NativeModule).initialize(inside)
    }
    return this
  }

  /** What is frozen stays in evaluation mode: nothing is dropped in the vision part unless it is trained. */
  override train(mode = true): this {
    super.train(mode)
    if (this.vision_model.parameters().every(({ requiresGrad }) => !requiresGrad)) this.vision_model.eval()
    return this
  }

  /**
   * Tiles [tiles, channels, height, width] as what the projection reads, [tiles, tokens, width]: without anything that is trained
   * beside a frozen vision part, so it may be kept for the next time.
   */
  async encodeImages(pixelValues: Tensor): Promise<Tensor> {
    const { visionConfig, downsampleRatio = 0.5, psVersion = 'v2', selectLayer = -1 } = this.config
    return scope(async () => {
      const factor = shuffleFactor(downsampleRatio)
      const { device, dtype } = this.vision_model.parameters()[0] as Tensor
      const outputHiddenStates = selectLayer !== -1
      const pictures = requirePictures('encodeImages', 'pixelValues', pixelValues, 4).to({ device, dtype })
      const output = await this.vision_model.forward({ pixelValues: pictures, outputHiddenStates })
      const states = outputHiddenStates ? (output.hiddenStates.at(selectLayer) as Tensor) : output.lastHiddenState
      const { patchSize = 14 } = visionConfig
      const grid = [pixelValues.size(2) / patchSize, pixelValues.size(3) / patchSize] as const
      return pixelShuffle(states, grid, factor, psVersion === 'v1')
    })
  }

  /** What `encodeImages` gave, as embeddings of the language model: [tiles, tokens, hiddenSize]. */
  projectImages(imageFeatures: Tensor): Promise<Tensor> {
    return scope(async () => {
      const { device, dtype } = this.mlp1.parameters()[0] as Tensor
      const features = requirePictures('projectImages', 'imageFeatures', imageFeatures, 3).to({ device, dtype })
      return this.mlp1.forward(features)
    })
  }

  /**
   * The embeddings of token ids [batch, time], with those of pictures where `<IMG_CONTEXT>` stands, in order: [batch, time,
   * hiddenSize]. Gradients go back into both.
   * @throws ShapeError with both numbers where there are not as many places as embeddings
   */
  async embed(inputIds: Tensor, pictures: InternVLPictures = {}): Promise<Tensor> {
    return (await this.#read('InternVL.embed', inputIds, pictures)).inputsEmbeds
  }

  /**
   * @throws ShapeError with both numbers where the text has not as many places as the pictures have tokens
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
   * Goes on from texts with pictures until every row has ended; greedily where nothing else is asked for.
   * @throws ConfigError for a configuration that is wrong or contradicts itself
   */
  generate(
    inputs: InternVLGenerateInputs,
    config: GenerationConfig = {},
    options: GenerateOptions = {},
  ): Promise<GenerateOutput> {
    return scope(async () => generate(this.language_model, await this.#prompt(inputs), config, options))
  }

  /** The same token by token; leaving the loop, or the signal in `options`, gives it up and frees its memory. */
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

  /** Writes config.json and safetensors, as published or as transformers' port has them. */
  save(directory: string, options: SaveInternVLOptions = {}): Promise<void> {
    return saveInternVL(this, directory, options)
  }

  /** What the language model goes on from. @internal */
  async #prompt(inputs: InternVLGenerateInputs) {
    requireObject('InternVL.generate', 'inputs', inputs)
    requireOptions('InternVL.generate', inputs, ['inputIds', 'attentionMask', 'cache', ...PICTURES])
    const { inputIds, attentionMask, cache, ...pictures } = inputs
    const { inputsEmbeds } = await this.#read('InternVL.generate', inputIds, pictures)
    return {
      inputIds: inputIds.to({ device: inputsEmbeds.device }),
      inputsEmbeds,
      attentionMask: attentionMask ?? null,
      cache: cache ?? null,
    }
  }

  async #read(where: string, inputIds: Tensor, pictures: InternVLPictures) {
    requireOptions(where, pictures, PICTURES)
    const given = PICTURES.filter((key) => pictures[key] != null)
    if (given.length > 1) {
      throw new ConfigError(`${where}: give one of ${given.join(' and ')}, which are the same pictures`, {})
    }
    return scope(async () => {
      const words = this.language_model.embed(here(inputIds, this))
      const tokens = await this.#tokensOf(pictures)
      const id = this.config.imgContextTokenId ?? null
      if (id === null) {
        if (tokens === null) return { inputsEmbeds: words, imageEmbeds: null }
        throw new ConfigError(`${where}: the configuration has no imgContextTokenId, the id of <IMG_CONTEXT>`, {})
      }
      // Ids that are still on the CPU are counted there: nobody waits for a device.
      const places = inputIds.eq(id)
      const count = Number((await places.sum().data())[0])
      const found = tokens ? tokens.size(0) * tokens.size(1) : 0
      if (count !== found) {
        const message = `${where}: the text has ${count} places of <IMG_CONTEXT> (${id}), and the pictures ${found} tokens`
        throw new ShapeError(message, { places: count, tokens: found })
      }
      if (tokens === null) return { inputsEmbeds: words, imageEmbeds: null }
      const rows = tokens.to({ dtype: words.dtype, device: words.device })
      return {
        inputsEmbeds: words.maskedScatter(places.to({ device: words.device }).unsqueeze(-1), rows),
        imageEmbeds: tokens,
      }
    })
  }

  async #tokensOf({ pixelValues, imageFeatures, imageEmbeds }: InternVLPictures): Promise<Tensor | null> {
    if (imageEmbeds) return requirePictures('InternVL', 'imageEmbeds', imageEmbeds, 3)
    if (imageFeatures) return this.projectImages(imageFeatures)
    return pixelValues ? this.projectImages(await this.encodeImages(pixelValues)) : null
  }
}

/** Token ids on a network's device, where they are on the CPU. */
function here(inputIds: Tensor, { mlp1 }: InternVL): Tensor {
  const { device } = mlp1.parameters()[0] as Tensor
  return inputIds?.device === 'cpu' && device !== 'cpu' ? inputIds.to({ device }) : inputIds
}

function requirePictures(where: string, name: string, value: Tensor, dimensions: number): Tensor {
  if (typeof value !== 'object' || value === null || !('ndim' in value)) throw misuse(where, name, 'a tensor', value)
  if (value.ndim === dimensions && value.isFloatingPoint()) return value
  const form = dimensions === 4 ? '[tiles, channels, height, width]' : '[tiles, tokens, width]'
  throw new ShapeError(
    `${where}: ${name} must be floating-point ${form}, got ${value.dtype} [${value.shape.join(', ')}]`,
    {
      shape: value.shape,
    },
  )
}
