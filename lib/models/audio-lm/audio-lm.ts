import { argumentError, requireObject, requireOptions } from '../../base/check.js'
import { ConfigError, ShapeError } from '../../base/errors.js'
import { currentContext } from '../../native/context.js'
import type { MakeOptions, NetworkOptions } from '../../nn/parameter.js'
import { type Device, scope, type Tensor, tensor } from '../../tensor/index.js'
import { withSeed } from '../../tensor/random.js'
import type { DecoderLMOutput } from '../decoder/decoder-lm.js'
import { DecoderLM } from '../decoder/decoder-lm.js'
import { type MultimodalGenerateInputs, type MultimodalInputs, MultimodalLM } from '../multimodal.js'
import { type ConfigChanges, configOf, type NetworkConfig, type SavableNetwork } from '../network.js'
import type { LoadNetworkOptions, SaveNetworkOptions } from '../pretrained.js'
import { type AudioLMConfig, type CompleteAudioLMConfig, completedAudioLM, familyOf } from './config.js'
import { AUDIO_FAMILIES } from './families.js'
import type { AudioConnector, AudioEncoder, AudioFamily } from './family.js'
import { loadAudioLM, saveAudioLM } from './files.js'

/** Audio as features, states or embeddings: at most one of the three. */
export interface AudioLMAudio {
  /** Features of all windows [windows, ...], in the order of their positions in the text. */
  inputFeatures?: Tensor | null
  /** [windows, steps]: 1 for audio and 0 for padding after it. Default: all is audio. */
  featuresMask?: Tensor | null
  /** Output of `encodeAudio` [windows, frames, width], with the mask of its features; the encoder does not run again. */
  audioFeatures?: Tensor | null
  /** Output of `projectAudio`, [tokens, hiddenSize]. */
  audioEmbeds?: Tensor | null
}

export interface AudioLMInputs extends AudioLMAudio, MultimodalInputs {}

export interface AudioLMOutput extends DecoderLMOutput {
  /** Audio embeddings in the text, [tokens, hiddenSize]; null without audio. */
  audioEmbeds: Tensor | null
}

export interface AudioLMGenerateInputs extends AudioLMAudio, MultimodalGenerateInputs {}

/** Published sizes by name. */
const SIZES: Record<string, NetworkConfig> = Object.assign(
  {},
  ...Object.values<AudioFamily>(AUDIO_FAMILIES).map(({ sizes }) => sizes),
)

/**
 * A speech language model: an audio encoder, a connector, and a {@link DecoderLM}. The connector converts states of the encoder to
 * embeddings, which replace audio tokens in the language model's text. Families, by `model_type` of config.json:
 *
 * | Model type | Published models | Encoder | Connector |
 * | --- | --- | --- | --- |
 * | `qwen2_audio` | Qwen2-Audio (Chu et al. 2024, https://arxiv.org/abs/2407.10759) | Whisper, pooled | linear |
 * | `voxtral` | Voxtral (Liu et al. 2025, https://arxiv.org/abs/2507.13264) | Whisper | four stacked frames, two layers |
 * | `audioflamingo3` | Audio Flamingo 3 (Goel et al. 2025, https://arxiv.org/abs/2507.08128) | Whisper, pooled | two layers |
 * | `qwen3_asr` | Qwen3-ASR (Shi et al. 2026, https://arxiv.org/abs/2601.21337) | Whisper's layers in windows | two layers |
 * | `glmasr` | GLM-ASR (https://huggingface.co/zai-org/GLM-ASR-Nano-2512) | Whisper with rotary positions | four stacked frames, two layers |
 * | `granite_speech` | Granite Speech (Saon et al. 2025, https://arxiv.org/abs/2505.08699) | Conformer | Q-Former of windows |
 *
 * ```ts
 * const model = await AudioLM.fromPretrained('Qwen/Qwen2-Audio-7B-Instruct')
 * const inputs = await model.prepare([{ role: 'user', content: [{ type: 'audio', audio: 'talk.mp3' }, 'What is said?'] }])
 * const { tokens } = await model.generate(inputs, { maxNewTokens: 64 })
 * ```
 *
 * Names in the state dictionary are those of the published files of Qwen2-Audio: `audio_tower.`, `multi_modal_projector.`,
 * `language_model.model.` and `language_model.lm_head.`, in every family. Files have the family's names.
 */
export class AudioLM extends MultimodalLM<AudioLMAudio> implements SavableNetwork<AudioLMConfig> {
  readonly config: CompleteAudioLMConfig
  readonly audio_tower: AudioEncoder
  readonly multi_modal_projector: AudioConnector
  readonly language_model: DecoderLM

  /** @throws ConfigError for a contradictory configuration */
  constructor(config: AudioLMConfig, options: MakeOptions = {}) {
    super()
    requireObject('AudioLM', 'config', config)
    this.config = completedAudioLM(config)
    const family = familyOf(this.config)
    this.audio_tower = family.encoder(this.config, options)
    this.language_model = new DecoderLM(this.config.textConfig, options)
    const { hiddenSize = 4096 } = this.language_model.config
    this.multi_modal_projector = family.connector(this.config, hiddenSize, options)
  }

  /** Create a model with random weights from a configuration or the name of a published size. Device `'meta'` allocates no memory. */
  static fromConfig(config: AudioLMConfig | string, options: NetworkOptions = {}): AudioLM {
    requireOptions('AudioLM.fromConfig', options, ['device', 'dtype', 'seed'])
    const { seed, ...factory } = options
    const device = (factory.device ?? currentContext().deviceName ?? 'cpu') as Device
    return withSeed(seed, () => new AudioLM(configOf('AudioLM', config, SIZES) as AudioLMConfig, factory), device)
  }

  /**
   * Load a folder or repository of the Hugging Face hub, in one file or in shards, with its tokenizer and feature extractor. The model is
   * in evaluation mode.
   * @throws CheckpointError that lists missing, unexpected and mis-shaped names
   */
  static fromPretrained(
    from: string,
    options: LoadNetworkOptions & ConfigChanges<AudioLMConfig> = {},
  ): Promise<AudioLM> {
    return loadAudioLM(from, options, (config, factory) => new AudioLM(config, factory))
  }

  /** The audio encoder, `audio_tower`. */
  get encoder(): AudioEncoder {
    return this.audio_tower
  }
  /** The connector, `multi_modal_projector`. */
  get connector(): AudioConnector {
    return this.multi_modal_projector
  }
  /** The language model, `language_model`. */
  get decoder(): DecoderLM {
    return this.language_model
  }

  protected get mediaEncoder(): AudioEncoder {
    return this.audio_tower
  }
  protected get mediaToken() {
    const { text, key } = familyOf(this.config).token
    return { id: this.config[key] as number, token: text, key, media: 'audio' }
  }
  protected get mediaInputs() {
    return { one: ['inputFeatures', 'audioFeatures', 'audioEmbeds'], more: ['featuresMask'] } as const
  }

  /**
   * Encode features of windows as input of the connector, [windows, frames, width]. With a frozen encoder the result does not depend on
   * trained weights, so it can be cached. Frames after the audio of a window may be left out.
   */
  encodeAudio({ inputFeatures, featuresMask }: Pick<AudioLMAudio, 'inputFeatures' | 'featuresMask'>): Promise<Tensor> {
    const where = 'AudioLM.encodeAudio'
    return scope(async () => {
      const { device, dtype } = this.audio_tower.parameters()[0] as Tensor
      const features = requireStates(where, 'inputFeatures', inputFeatures, 3).to({ device, dtype })
      return this.audio_tower.forward(features, await this.#lengths(where, features.size(0), featuresMask))
    })
  }

  /** Convert the output of `encodeAudio` to embeddings of the language model, [tokens, hiddenSize], those of audio only. */
  projectAudio(audioFeatures: Tensor, featuresMask: Tensor | null = null): Promise<Tensor> {
    const where = 'AudioLM.projectAudio'
    return scope(async () => {
      const { device, dtype } = this.multi_modal_projector.parameters()[0] as Tensor
      const states = requireStates(where, 'audioFeatures', audioFeatures, 3).to({ device, dtype })
      const lengths = await this.#lengths(where, states.size(0), featuresMask)
      const embeds = await this.multi_modal_projector.forward(states)
      const [windows, most, hiddenSize] = embeds.shape as [number, number, number]
      const { tokens } = familyOf(this.config)
      const counts = lengths?.map((steps) => Math.min(most, tokens(steps, this.config)))
      const rows = embeds.reshape([windows * most, hiddenSize])
      if (counts === undefined || counts.every((count) => count === most)) return rows
      const kept = counts.flatMap((count, window) => Array.from({ length: count }, (_, i) => window * most + i))
      return rows.indexSelect(0, tensor(kept, { dtype: 'int64' }).to({ device: rows.device }))
    })
  }

  /**
   * @throws ShapeError with both numbers if the text has more or fewer positions than the audio has tokens
   */
  override async forward(inputs: AudioLMInputs): Promise<AudioLMOutput> {
    const { mediaEmbeds, ...output } = await this.run(inputs)
    return { ...output, audioEmbeds: mediaEmbeds }
  }

  protected async mediaEmbeds({ inputFeatures, featuresMask, audioFeatures, audioEmbeds }: AudioLMAudio) {
    if (audioEmbeds) {
      if (featuresMask != null) throw maskless('audioEmbeds')
      return requireStates('AudioLM', 'audioEmbeds', audioEmbeds, 2)
    }
    const states = audioFeatures ?? (await this.encodeAudio({ inputFeatures, featuresMask }))
    return this.projectAudio(states, featuresMask)
  }

  /** Return the number of steps of each window that are audio; null for all. */
  async #lengths(where: string, windows: number, mask: Tensor | null | undefined): Promise<number[] | null> {
    if (mask === null || mask === undefined) return null
    if (familyOf(this.config).wholeWindows) throw maskless(`${this.config.modelType}, which encodes whole windows`)
    if (typeof mask !== 'object' || !('ndim' in mask)) throw argumentError(where, 'featuresMask', 'a tensor', mask)
    if (mask.ndim !== 2 || mask.size(0) !== windows) {
      throw new ShapeError(
        `${where}: featuresMask: expected [${windows}, steps] for ${windows} windows, got [${mask.shape.join(', ')}].`,
        { shape: mask.shape },
      )
    }
    return Array.from((await mask.to({ dtype: 'int64' }).sum(1).data()) as Iterable<number | bigint>, Number)
  }

  /** Write config.json, safetensors, the tokenizer and the feature extractor, in the family's published layout. */
  save(directory: string, options: SaveNetworkOptions = {}): Promise<void> {
    return saveAudioLM(this, directory, options)
  }
}

const maskless = (what: string): ConfigError =>
  new ConfigError(`AudioLM: featuresMask: expected none with ${what}, got one. Leave it out.`, {})

/** Return an input that has so many dimensions. @throws ShapeError */
function requireStates(where: string, name: string, value: Tensor | null | undefined, dimensions: number): Tensor {
  if (typeof value !== 'object' || value === null || !('ndim' in value))
    throw argumentError(where, name, 'a tensor', value)
  if (value.ndim === dimensions && value.isFloatingPoint()) return value
  const form = dimensions === 3 ? '[windows, ...], 3-dimensional' : '[tokens, hiddenSize]'
  throw new ShapeError(
    `${where}: ${name}: expected floating-point ${form}, got ${value.dtype} [${value.shape.join(', ')}].`,
    { shape: value.shape },
  )
}
