import type { AudioClip } from '../../audio/clip.js'
import { argumentError, requireObject, requireOptions, shown } from '../../base/check.js'
import { ConfigError, ShapeError } from '../../base/errors.js'
import { currentContext } from '../../native/context.js'
import { Linear } from '../../nn/linear.js'
import { crossEntropy } from '../../nn/losses.js'
import { isConfiguration } from '../../nn/native-module.js'
import type { MakeOptions, NetworkOptions } from '../../nn/parameter.js'
import type { AdapterFileNames } from '../../peft/file-names.js'
import type { PeftModel } from '../../peft/model.js'
import { tensorBytes } from '../../tensor/bytes.js'
import { type Device, noGrad, ops, scope, type Tensor, tensor } from '../../tensor/index.js'
import { withSeed } from '../../tensor/random.js'
import { upload } from '../../tensor/upload.js'
import type { Tokenizer } from '../../text/tokenizer.js'
import type { DecoderLMOutput } from '../decoder/decoder-lm.js'
import { DecoderLM } from '../decoder/decoder-lm.js'
import { labelCount } from '../labels.js'
import { type MediaUnits, type MultimodalGenerateInputs, type MultimodalInputs, MultimodalLM } from '../multimodal.js'
import { type ConfigChanges, configOf, type NetworkConfig, type SavableNetwork } from '../network.js'
import type { LoadNetworkOptions, SaveNetworkOptions } from '../pretrained.js'
import { type AlignedWord, type AudioLMAlignOptions, alignClip } from './align.js'
import { type AudioLMConfig, type CompleteAudioLMConfig, completedAudioLM, familyOf } from './config.js'
import { AUDIO_FAMILIES } from './families.js'
import type { AudioConnector, AudioEncoder, AudioFamily } from './family.js'
import { adapterFileNames, loadAudioLM, saveAudioLM } from './files.js'
import {
  type AudioLMConversation,
  type AudioLMFeatureOptions,
  type AudioLMFeatures,
  type AudioLMPrepared,
  type AudioLMPrepareOptions,
  audioFeatures,
  audioPrompt,
  prepareConversations,
} from './processor.js'
import { type AudioLMTranscribeOptions, type AudioLMTranscription, transcribeClips } from './transcribe.js'

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
 * | `ultravox` | Ultravox (https://github.com/fixie-ai/ultravox) | Whisper | eight stacked frames, two layers with norms |
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
  /** Classifier of a forced aligner, from states of the language model to bins of time; null for other models. */
  readonly score: Linear | null
  #tokenizer: Tokenizer | null = null
  /**
   * Adapter of the language model for texts with audio, of Granite Speech's folder; null without one. It is on in calls with audio, and off
   * in calls without, also if a cache has audio. Merge or unload it to add other adapters.
   */
  audioAdapter: PeftModel<AudioLM> | null = null

  /** @throws ConfigError for a contradictory configuration */
  constructor(config: AudioLMConfig, options: MakeOptions = {}) {
    super()
    if (!isConfiguration(config)) throw argumentError('AudioLM', 'config', 'a configuration', config)
    this.config = completedAudioLM(config)
    const family = familyOf(this.config)
    this.audio_tower = family.encoder(this.config, options)
    this.language_model = new DecoderLM(this.config.textConfig, options)
    const { hiddenSize = 4096 } = this.language_model.config
    this.multi_modal_projector = family.connector(this.config, hiddenSize, options)
    this.score = this.#classifier(hiddenSize, options)
  }

  #classifier(hiddenSize: number, { device, dtype, initialize }: MakeOptions): Linear | null {
    const { countKey, biasKey } = familyOf(this.config).aligner ?? {}
    if (countKey === undefined || biasKey === undefined || this.config[countKey] == null) return null
    const count = labelCount('AudioLM', { numLabels: this.config[countKey] as number })
    const score = new Linear(hiddenSize, count, { bias: this.config[biasKey] === true, device, dtype })
    if (initialize !== false) initializeScore(score, this.language_model)
    return score
  }

  /** Reinitialize the parameters with these names from the default generator. */
  override initialize(names: string[]): this {
    super.initialize(names.filter((name) => !name.startsWith('score.')))
    if (this.score !== null && names.includes('score.weight')) initializeScore(this.score, this.language_model)
    return this
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
   * in evaluation mode. Ultravox's folders may name others with the encoder and the language model. `revision` selects a commit of the
   * model alone; to pin a part, pass a local folder:
   *
   * ```ts
   * const model = await AudioLM.fromPretrained('ultravox', { config: { audioModelId: 'whisper', textModelId: 'llama' } })
   * ```
   * @throws CheckpointError that lists missing, unexpected and mis-shaped names, or that names a part whose folder is not available
   */
  static fromPretrained(
    from: string,
    options: LoadNetworkOptions & ConfigChanges<AudioLMConfig> = {},
  ): Promise<AudioLM> {
    return loadAudioLM(from, options, (config, factory) => new AudioLM(config, factory))
  }

  /** Tokenizer for `prepare`; null if the folder has none. Setting one of Ultravox adds the audio token to it. */
  get tokenizer(): Tokenizer | null {
    return this.#tokenizer
  }
  set tokenizer(tokenizer: Tokenizer | null) {
    this.#tokenizer = tokenizer
    const { text, key, isAdded = false } = familyOf(this.config).token
    if (tokenizer === null || !isAdded) return
    tokenizer.addSpecialTokens([text])
    this.config[key] = tokenizer.tokenToId(text)
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

  /** For the Trainer: false for a forced aligner, whose labels belong to their own token. */
  override get shiftsLabels(): true {
    // The base class declares the type.
    return (this.score === null) as true
  }

  protected get partNames() {
    return { encoder: 'audio_tower', connector: 'multi_modal_projector', decoder: 'language_model' }
  }

  /** Names in PEFT's files. @internal */
  get adapterFileNames(): AdapterFileNames {
    return adapterFileNames(familyOf(this.config), !this.language_model.config.tieWordEmbeddings)
  }

  protected get mediaEncoder(): AudioEncoder {
    return this.audio_tower
  }
  protected get mediaToken() {
    const { key, isAdded = false } = familyOf(this.config).token
    const media = { id: this.config[key] as number, token: this.audioToken, key, media: 'audio' }
    return isAdded ? { ...media, standIn: this.#endId() } : media
  }
  protected get mediaInputs() {
    return { one: ['inputFeatures', 'audioFeatures', 'audioEmbeds'], more: ['featuresMask'] } as const
  }

  /** The audio token, such as `<|AUDIO|>`: that of the tokenizer with the configuration's id. */
  get audioToken(): string {
    const { text, key } = familyOf(this.config).token
    return this.tokenizer?.idToToken(this.config[key] as number) ?? text
  }

  /**
   * Read audio clips, and compute the features of their windows on the CPU, as the family's processor of transformers does.
   *
   * ```ts
   * const { inputFeatures, featuresMask, audioTokens } = await model.features(['a.wav', 'b.wav'])
   * const text = model.prompt('<|audio_bos|><|AUDIO|><|audio_eos|>… <|audio_bos|><|AUDIO|><|audio_eos|>…', audioTokens)
   * ```
   * @throws DataError naming the file for a clip that cannot be read, or that is too long for the family; ConfigError for invalid options
   */
  features(clips: AudioClip | readonly AudioClip[], options: AudioLMFeatureOptions = {}): Promise<AudioLMFeatures> {
    return audioFeatures(this.config, clips, options)
  }

  /**
   * Return a text with each audio token repeated as often as its clip has tokens.
   * @param audioTokens `audioTokens` of `features`, one for each audio token of the text
   * @throws DataError with both numbers, unless there are as many clips as audio tokens
   */
  prompt(text: string, audioTokens: readonly number[]): string {
    return audioPrompt(this.audioToken, text, audioTokens)
  }

  /**
   * Convert a conversation, or several, to inputs of `forward` and `generate`: render it with the folder's chat template, and compute the
   * features of its clips. Any message may have any number of clips.
   *
   * ```ts
   * const inputs = await model.prepare([
   *   { role: 'user', content: [{ type: 'audio', audio: 'a.wav' }, { type: 'text', text: 'What is said?' }] },
   * ])
   * ```
   * @throws ConfigError without a tokenizer or a chat template, and for invalid messages; DataError with both numbers, unless the rendered
   *   text has as many audio tokens as the conversation has clips
   */
  prepare(
    conversations: AudioLMConversation | readonly AudioLMConversation[],
    options: AudioLMPrepareOptions = {},
  ): Promise<AudioLMPrepared> {
    return prepareConversations(this, conversations, options)
  }

  /**
   * Transcribe clips with the family's request, as its processor or model card writes it. Recordings that are longer than a piece are split
   * at pauses. The audio of a list is read clip by clip.
   *
   * ```ts
   * const { text } = await model.transcribe('talk.mp3')
   * const all = await model.transcribe(['a.wav', 'b.wav'], { batchSize: 8 })
   * ```
   * @throws ConfigError without a tokenizer, for an option that the family does not have, and for a piece that is too long for the language
   *   model; DataError naming the file for a clip that cannot be read
   */
  transcribe(clips: AudioClip, options?: AudioLMTranscribeOptions): Promise<AudioLMTranscription>
  transcribe(clips: readonly AudioClip[], options?: AudioLMTranscribeOptions): Promise<AudioLMTranscription[]>
  async transcribe(clips: AudioClip | readonly AudioClip[], options: AudioLMTranscribeOptions = {}) {
    const isMany = Array.isArray(clips)
    const all: AudioLMTranscription[] = []
    for await (const one of transcribeClips(this, isMany ? clips : [clips as AudioClip], options)) all.push(one)
    return isMany ? all : (all[0] as AudioLMTranscription)
  }

  /**
   * Find when each word of a text is said, with a forced aligner (Qwen3-ForcedAligner).
   *
   * ```ts
   * const aligner = await AudioLM.fromPretrained('Qwen/Qwen3-ForcedAligner-0.6B')
   * const words = await aligner.align('talk.mp3', 'What is said in it.', { language: 'en' })
   * ```
   * @param text a text, whose words are returned without punctuation, or a list of words; ideographs are words. Japanese and Korean texts
   *   are lists
   * @returns words with `start` and `end` in seconds, in order
   * @throws ConfigError for another model, without a tokenizer, and for a language that the aligner does not have; DataError for a clip that
   *   cannot be read or that is longer than the aligner's times
   */
  align(audio: AudioClip, text: string | readonly string[], options: AudioLMAlignOptions = {}): Promise<AlignedWord[]> {
    return alignClip(this, audio, text, options)
  }

  /**
   * Encode features of windows as input of the connector, [windows, frames, width]. With a frozen encoder the result does not depend on
   * trained weights, so it can be cached. Frames after the audio of a window may be left out.
   */
  encodeAudio(audio: Pick<AudioLMAudio, 'inputFeatures' | 'featuresMask'>): Promise<Tensor> {
    const where = 'AudioLM.encodeAudio'
    return scope(async () => {
      requireOptions(where, audio, ['inputFeatures', 'featuresMask'])
      const { device, dtype } = this.audio_tower.parameters()[0] as Tensor
      const features = requireStates(where, 'inputFeatures', audio.inputFeatures, 3).to({ device, dtype })
      const steps = features.size(familyOf(this.config).features(this.config).stepDim ?? 2)
      return this.audio_tower.forward(features, await this.#lengths(where, features.size(0), audio.featuresMask, steps))
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
      return rows.indexSelect(0, upload(tensor(kept, { dtype: 'int64', device: 'cpu' }), rows.device))
    })
  }

  /**
   * Run the encoder, the connector and the language model. With a forced aligner, `logits` and `labels` are classes of time, and labels
   * belong to their own token: a loss with reduction `'none'` is [batch, time].
   * @throws ShapeError with both numbers if the text has more or fewer positions than the audio has tokens; ConfigError for
   *   another `lossTemperature` than 1, or another `logitsToKeep` than 0, with a forced aligner
   */
  override async forward(inputs: AudioLMInputs): Promise<AudioLMOutput> {
    const { score } = this
    if (score !== null) return this.#classify(score, inputs)
    const { mediaEmbeds, ...output } = await this.run(inputs)
    return { ...output, audioEmbeds: mediaEmbeds }
  }

  #classify(score: Linear, inputs: AudioLMInputs): Promise<AudioLMOutput> {
    requireObject('AudioLM.forward', 'inputs', inputs)
    return scope(async () => {
      const { labels, labelSmoothing = 0, reduction = 'mean', lossTemperature, logitsToKeep, ...rest } = inputs
      // 1 and 0 are the temperature and the number of logits, all, that are computed.
      for (const [argument, value, computed] of [
        ['lossTemperature', lossTemperature, 1],
        ['logitsToKeep', logitsToKeep, 0],
      ] as const) {
        if (value === undefined || value === null || value === computed) continue
        throw new ConfigError(
          `AudioLM.forward: ${argument}: expected ${computed} with a forced aligner, got ${shown(value)}. Leave it out.`,
          { argument },
        )
      }
      const { mediaEmbeds, ...output } = await this.run({ ...rest, logitsToKeep: 1 })
      const logits = score.forward(output.lastHiddenState)
      if (!labels) return { ...output, logits, loss: null, audioEmbeds: mediaEmbeds }
      const targets = labels.to({ device: logits.device })
      const loss = crossEntropy(logits.flatten(0, 1), targets.flatten(), { labelSmoothing, reduction })
      const shaped = reduction === 'none' ? loss.reshape(targets.shape) : loss
      return { ...output, logits, loss: shaped, audioEmbeds: mediaEmbeds }
    })
  }

  /** @throws ConfigError for a forced aligner, which generates no text */
  override generate(...given: Parameters<MultimodalLM<AudioLMAudio>['generate']>) {
    if (this.score !== null) throw alignerError('generate')
    return super.generate(...given)
  }

  /** @throws ConfigError for a forced aligner, which generates no text */
  override stream(...given: Parameters<MultimodalLM<AudioLMAudio>['stream']>) {
    if (this.score !== null) throw alignerError('stream')
    return super.stream(...given)
  }

  protected override withAdapters<T>(hasMedia: boolean, fn: () => T): T {
    const peft = this.audioAdapter
    return hasMedia || peft === null || peft.adapterNames.length === 0 ? fn() : peft.disableAdapter(fn)
  }

  protected async mediaEmbeds({ inputFeatures, featuresMask, audioFeatures, audioEmbeds }: AudioLMAudio) {
    if (audioEmbeds) {
      if (featuresMask != null) throw maskless('audioEmbeds')
      return requireStates('AudioLM', 'audioEmbeds', audioEmbeds, 2)
    }
    const states = audioFeatures ?? (await this.encodeAudio({ inputFeatures, featuresMask }))
    return this.projectAudio(states, featuresMask)
  }

  /** Return the token that ends texts, or else 0. */
  #endId(): number {
    const { eosTokenId, vocabSize = 0 } = this.language_model.config as { eosTokenId?: unknown; vocabSize?: number }
    const [first] = [this.tokenizer?.eosTokenId ?? eosTokenId].flat()
    return typeof first === 'number' && first < vocabSize ? first : 0
  }

  /** Return windows of features as units; null for other inputs. */
  protected override async mediaUnits({ inputFeatures, featuresMask }: AudioLMAudio): Promise<MediaUnits | null> {
    if (!inputFeatures) return null
    const where = 'AudioLM.generate'
    const features = requireStates(where, 'inputFeatures', inputFeatures, 3)
    const { stepDim = 2 } = familyOf(this.config).features(this.config)
    const [windows, steps] = [features.size(0), features.size(stepDim)]
    const lengths = (await this.#lengths(where, windows, featuresMask, steps)) ?? Array<number>(windows).fill(steps)
    // The embeddings of such a window are those of no other call.
    const { readsPadding = false } = familyOf(this.config)
    if (readsPadding && lengths.some((length) => length !== steps)) return null
    const contents: Uint8Array[] = []
    for (const [window, length] of lengths.entries()) {
      const bytes = await tensorBytes(features.select(0, window).transpose(0, stepDim - 1))
      const stepBytes = bytes.length / steps
      const zeros = new Uint8Array(stepBytes)
      let end = steps
      // Zeros after a clip are padding to the longest clip of the call.
      while (end > length && Buffer.compare(bytes.subarray((end - 1) * stepBytes, end * stepBytes), zeros) === 0)
        end -= 1
      contents.push(Buffer.concat([Buffer.from(`${length} `), bytes.subarray(0, end * stepBytes)]))
    }
    return {
      contents,
      embed: async (window) => {
        const mask = featuresMask?.narrow(0, window, 1)
        return this.projectAudio(
          await this.encodeAudio({ inputFeatures: features.narrow(0, window, 1), featuresMask: mask ?? null }),
          mask,
        )
      },
    }
  }

  /** Return the number of steps of each window that are audio; null for all. */
  async #lengths(
    where: string,
    windows: number,
    mask: Tensor | null | undefined,
    steps?: number,
  ): Promise<number[] | null> {
    if (mask === null || mask === undefined) return null
    if (familyOf(this.config).wholeWindows) throw maskless(`${this.config.modelType}, which encodes whole windows`)
    if (typeof mask !== 'object' || !('ndim' in mask)) throw argumentError(where, 'featuresMask', 'a tensor', mask)
    if (mask.ndim !== 2 || mask.size(0) !== windows || (steps !== undefined && mask.size(1) !== steps)) {
      const form = `[${windows}, ${steps ?? 'steps'}]`
      throw new ShapeError(
        `${where}: featuresMask: expected ${form} for ${windows} windows, got [${mask.shape.join(', ')}].`,
        { shape: mask.shape },
      )
    }
    const real = mask.ne(0).to({ dtype: 'int64' })
    const counts = ops.stack([real.sum(1), real.cumprod(1).sum(1)])
    const values = Array.from((await counts.data()) as Iterable<number | bigint>, Number)
    const [lengths, leading] = [values.slice(0, windows), values.slice(windows)]
    const odd = lengths.findIndex((count, i) => count !== leading[i])
    if (odd < 0) return lengths
    throw new ConfigError(
      `${where}: featuresMask: expected 1 for audio and 0 after it, got 0 before audio in window ${odd}. Pad windows at the end.`,
      { window: odd },
    )
  }

  /**
   * Write config.json, safetensors, the tokenizer, the feature extractor and the adapter for texts with audio, in the family's published
   * layout.
   */
  save(directory: string, options: SaveNetworkOptions = {}): Promise<void> {
    return saveAudioLM(this, directory, options)
  }
}

const alignerError = (what: string): ConfigError =>
  new ConfigError(`AudioLM.${what}: expected a model that generates text, got a forced aligner. Call align.`, {})

function initializeScore({ weight, bias }: Linear, { config }: DecoderLM): void {
  noGrad(() => weight.normal_(0, Number(config.initializerRange ?? 0.02)))
  if (bias) noGrad(() => bias.zero_())
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
