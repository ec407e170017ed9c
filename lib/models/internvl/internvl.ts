import { requireObject, requireOptions, requireWhole } from '../../base/check.js'
import { ConfigError } from '../../base/errors.js'
import { currentContext } from '../../native/context.js'
import type { MakeOptions, NetworkOptions } from '../../nn/parameter.js'
import { type Device, scope, type Tensor } from '../../tensor/index.js'
import { withSeed } from '../../tensor/random.js'
import { DecoderLM } from '../decoder/decoder-lm.js'
import {
  type ImageTextGenerateInputs,
  type ImageTextImages,
  type ImageTextInputs,
  ImageTextModel,
  type ImageTextOutput,
  requireImages,
} from '../image-text.js'
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
export type InternVLImages = ImageTextImages
export type InternVLInputs = ImageTextInputs
export type InternVLOutput = ImageTextOutput
export type InternVLGenerateInputs = ImageTextGenerateInputs

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
export class InternVL extends ImageTextModel implements SavableNetwork<InternVLConfig> {
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

  /** The projector, `mlp1`. */
  get projector(): InternVLProjector {
    return this.mlp1
  }
  protected get partNames() {
    return { encoder: 'vision_model', connector: 'mlp1', decoder: 'language_model' }
  }
  protected get imageToken() {
    return { id: this.config.imgContextTokenId ?? null, token: '<IMG_CONTEXT>', key: 'imgContextTokenId' }
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

  /** Write config.json and safetensors, in the published layout or that of transformers' port. */
  save(directory: string, options: SaveInternVLOptions = {}): Promise<void> {
    return saveInternVL(this, directory, options)
  }
}
