import { requireObject, requireOptions } from '../../base/check.js'
import { ConfigError } from '../../base/errors.js'
import { opAsync } from '../../native/call.js'
import { currentContext } from '../../native/context.js'
import { makeNative, NativeModule, withActiveAdapters } from '../../nn/native-module.js'
import type { MakeOptions, NetworkOptions } from '../../nn/parameter.js'
import { type Device, scope, type Tensor } from '../../tensor/index.js'
import { withSeed } from '../../tensor/random.js'
import { DecoderLM } from '../decoder/decoder-lm.js'
import { ImageTextModel, requireImages } from '../image-text.js'
import { pixelShuffle } from '../internvl/projector.js'
import { type ConfigChanges, configOf, type SavableNetwork } from '../network.js'
import type { LoadNetworkOptions, SaveNetworkOptions } from '../pretrained.js'
import {
  type CompleteSmolVLMConfig,
  completedSmolVLM,
  patchesPerSide,
  type SmolVLMConfig,
  type SmolVLMVisionConfig,
  smolVLMSizes,
} from './config.js'
import { loadSmolVLM, saveSmolVLM } from './files.js'
import { type SmolVLMGrid, smolVLMPrompt } from './images.js'

const encode = opAsync('voxtorch::siglip_vision_forward')
const connect = opAsync('voxtorch::smolvlm_connect')

/** SigLIP's vision encoder without the head; each patch's position follows from its place in the image. */
class SmolVLMVision extends NativeModule {
  constructor({ initializerRange, ...config }: SmolVLMVisionConfig, options: MakeOptions) {
    const native = { ...config, normalStd: initializerRange, visionUseHead: false, fractionalPositions: true }
    super(makeNative('siglip_vision', native, options))
  }

  /** @returns [tiles, patches, hiddenSize] */
  override async forward(pixelValues: Tensor): Promise<Tensor> {
    const { lastHiddenState } = (await encode(withActiveAdapters(this), pixelValues)) as { lastHiddenState: Tensor }
    return lastHiddenState
  }
}

/** Projection [tiles, tokens, inputSize] -> [tiles, tokens, hiddenSize]. */
class SmolVLMConnector extends NativeModule {
  override forward(features: Tensor): Promise<Tensor> {
    return connect(withActiveAdapters(this), features) as Promise<Tensor>
  }
}

/**
 * SmolVLM (Marafioti et al. 2025, https://arxiv.org/abs/2504.05299) and Idefics3 (Laurençon et al. 2024,
 * https://arxiv.org/abs/2408.12637), as transformers' SmolVLMForConditionalGeneration and Idefics3ForConditionalGeneration: SigLIP
 * encodes tiles of an image, pixel shuffle joins neighboring patches, and a projection converts them to embeddings, which replace
 * `<image>` tokens in a language model's text. {@link smolVLMImages} makes the tiles, and `prompt` the text.
 *
 * ```ts
 * const model = await SmolVLM.fromPretrained('HuggingFaceTB/SmolVLM-256M-Instruct')
 * const { pixelValues, grids } = await smolVLMImages('photo.jpg', { folder })
 * const { inputIds } = tokenizer.encode(model.prompt('User:<image>What is it?<end_of_utterance>\nAssistant:', grids))
 * const { tokens } = await model.generate({ inputIds: tensor([inputIds]), pixelValues }, { maxNewTokens: 64 })
 * ```
 *
 * Names in the state dictionary are those of transformers without the prefix `model.`, with `language_model.model.` for `text_model.`
 * and `language_model.lm_head.` for `lm_head.`; files have transformers' names. Published sizes: `'smolvlm-256m'`, `'smolvlm-500m'`,
 * `'smolvlm-2.2b'`, also of SmolVLM2. Videos of SmolVLM2 are not supported.
 */
export class SmolVLM extends ImageTextModel implements SavableNetwork<SmolVLMConfig> {
  readonly config: CompleteSmolVLMConfig
  readonly vision_model: SmolVLMVision
  readonly connector: SmolVLMConnector
  readonly language_model: DecoderLM

  /** @throws ConfigError for a contradictory configuration */
  constructor(config: SmolVLMConfig, options: MakeOptions = {}) {
    super()
    requireObject('SmolVLM', 'config', config)
    this.config = completedSmolVLM(config)
    const { visionConfig, textConfig, scaleFactor } = this.config
    this.vision_model = new SmolVLMVision(visionConfig, options)
    const inputSize = (visionConfig.hiddenSize as number) * scaleFactor ** 2
    this.language_model = new DecoderLM(textConfig, options)
    const { hiddenSize = 4096, initializerRange = 0.02 } = this.language_model.config
    this.connector = new SmolVLMConnector(
      makeNative('smolvlm_connector', { inputSize, hiddenSize, initializerRange }, options),
    )
  }

  /** Create a model with random weights from a configuration or the name of a published size. Device `'meta'` allocates no memory. */
  static fromConfig(config: SmolVLMConfig | string, options: NetworkOptions = {}): SmolVLM {
    requireOptions('SmolVLM.fromConfig', options, ['device', 'dtype', 'seed'])
    const { seed, ...factory } = options
    const device = (factory.device ?? currentContext().deviceName ?? 'cpu') as Device
    return withSeed(seed, () => new SmolVLM(configOf('SmolVLM', config, smolVLMSizes), factory), device)
  }

  /**
   * Load a folder or repository of the Hugging Face hub (`smolvlm` or `idefics3`), in one file or in shards. The model is in evaluation
   * mode.
   * @throws CheckpointError that lists missing, unexpected and mis-shaped names
   */
  static fromPretrained(
    from: string,
    options: LoadNetworkOptions & ConfigChanges<SmolVLMConfig> = {},
  ): Promise<SmolVLM> {
    return loadSmolVLM(from, options, (config, factory) => new SmolVLM(config, factory))
  }

  /** The projection, `connector`. */
  get projector(): SmolVLMConnector {
    return this.connector
  }
  protected get partNames() {
    return { encoder: 'vision_model', connector: 'connector', decoder: 'language_model' }
  }
  protected get imageToken() {
    return { id: this.config.imageTokenId, token: '<image>', key: 'imageTokenId' }
  }

  /** Number of tokens of a tile of the network's image size. */
  get tileTokens(): number {
    const { visionConfig, scaleFactor } = this.config
    return (patchesPerSide(visionConfig) / scaleFactor) ** 2
  }

  /**
   * Return a text with each `<image>` expanded to the tokens of its tiles, as transformers' SmolVLMProcessor and Idefics3Processor do:
   * `<row_1_col_1>` and so on before each tile, and `<global-img>` before the whole image.
   * @param grids `grids` of {@link smolVLMImages}, one for each `<image>`
   * @throws DataError with both numbers, unless there are as many grids as `<image>`
   */
  prompt(text: string, grids: readonly SmolVLMGrid[]): string {
    return smolVLMPrompt(text, grids, this.tileTokens)
  }

  /**
   * Encode tiles [tiles, channels, height, width] as input of the projection, [tiles, tokens, width]. With a frozen vision encoder the
   * result does not depend on trained weights, so it can be cached.
   */
  async encodeImages(pixelValues: Tensor): Promise<Tensor> {
    const { visionConfig, scaleFactor } = this.config
    return scope(async () => {
      const { device, dtype } = this.vision_model.parameters()[0] as Tensor
      const tiles = requireImages('encodeImages', 'pixelValues', pixelValues, 4).to({ device, dtype })
      const patchSize = visionConfig.patchSize as number
      const [down, across] = [Math.floor(tiles.size(2) / patchSize), Math.floor(tiles.size(3) / patchSize)]
      if (down % scaleFactor !== 0 || across % scaleFactor !== 0) {
        throw new ConfigError(
          `encodeImages: pixelValues: expected sides of a multiple of ${scaleFactor} patches of ${patchSize} pixels, got ${tiles.size(2)} x ${tiles.size(3)} pixels. Resize the tiles.`,
          { shape: pixelValues.shape },
        )
      }
      return pixelShuffle(await this.vision_model.forward(tiles), [down, across], scaleFactor, false)
    })
  }

  /** Write config.json and safetensors, which transformers and `fromPretrained` read. */
  save(directory: string, options: SaveNetworkOptions = {}): Promise<void> {
    return saveSmolVLM(this, directory, options)
  }
}
