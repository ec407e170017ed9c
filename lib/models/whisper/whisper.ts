import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { writeFolderAtomically } from '../../base/atomic-folder.js'
import { CheckpointError, ConfigError } from '../../base/errors.js'
import { writeJson } from '../../files/json/json.js'
import type { GenerationConfig } from '../../generation/config.js'
import {
  type GenerateInputs,
  type GenerateOptions,
  type GenerateOutput,
  type GenerateStep,
  generate,
  stream,
} from '../../generation/generate.js'
import { opAsync } from '../../native/call.js'
import { requireTensorInputs } from '../../nn/check.js'
import { type NativeModule, withActiveAdapters } from '../../nn/native-module.js'
import { freezeConstant, type MakeOptions } from '../../nn/parameter.js'
import { noGrad, scope, type Tensor, tensor } from '../../tensor/index.js'
import { Tokenizer } from '../../text/index.js'
import { readFeatureExtractor, spectrogramKeys, whisperExtractor } from '../feature-extractor.js'
import { networkClass } from '../network.js'
import { readConfig, type SaveNetworkOptions } from '../pretrained.js'
import { type AlignTextOptions, alignText } from './align-text.js'
import {
  alignTokens,
  readHeads,
  type TokenTimestamp,
  usualHeads,
  type WhisperAlignmentInputs,
  type WhisperHead,
} from './alignment.js'
import { melBinsOf, nativeWhisper, positionsOf, sizes, type WhisperConfig, whisperKeys, windowOf } from './config.js'
import { ctranslate2Checkpoint, isCTranslate2 } from './ctranslate2.js'
import { readWhisperGeneration, type TranscribeDefaults, whisperGeneration } from './generation-files.js'
import type {
  WhisperEncoderInputs,
  WhisperEncoderOutput,
  WhisperGenerateInputs,
  WhisperInputs,
  WhisperOutput,
} from './inputs.js'
import { detectLanguages } from './language.js'
import type { TranscribeOptions, WhisperAudio, WhisperSegment, WhisperTranscription } from './options.js'
import { lastTimestampOf, readTokens, tokensOf, type WhisperTokens } from './tokens.js'
import { transcribeSegments } from './transcribe.js'
import type { WhisperWord } from './words.js'

const ENCODER = 'voxtorch::whisper_encoder_forward'
const encoderForward = opAsync(ENCODER)

/** Whisper's encoder without the decoder, for speech features with less memory. */
export class WhisperEncoder extends networkClass<
  WhisperEncoder,
  WhisperConfig,
  WhisperEncoderInputs,
  WhisperEncoderOutput
>({
  kind: 'whisper_encoder',
  forward: ENCODER,
  modelType: 'whisper',
  architecture: 'WhisperModel',
  sizes,
  keys: whisperKeys,
  native: nativeWhisper,
  prefix: 'model.encoder.',
  ignored: [],
  // The names in transformers' WhisperModel.
  rename: (name) => name.replace(/^encoder\./, ''),
  foreign: ctranslate2Checkpoint,
  optional: [/^decoder\./],
}) {
  constructor(config: WhisperConfig, options: MakeOptions = {}) {
    super(config, options)
    freezePositions(this)
  }
}

/**
 * Whisper (Radford et al. 2022, https://arxiv.org/abs/2212.04356), like transformers' WhisperForConditionalGeneration: all published sizes and
 * their derivatives. Runs in native code.
 *
 * ```ts
 * const whisper = await Whisper.fromPretrained('openai/whisper-small')
 * const { text, language, segments } = await whisper.transcribe('talk.mp3')
 * ```
 *
 * Published sizes: `'tiny.en'` to `'large-v3'`. Folders of CTranslate2 (faster-whisper) work as well as transformers'; their int8 weights are
 * dequantized. `fromPretrained` also loads the directory's generation configuration and tokenizer, if they exist.
 */
export class Whisper extends networkClass<Whisper, WhisperConfig, WhisperInputs, WhisperOutput>({
  kind: 'whisper',
  forward: 'voxtorch::whisper_forward',
  modelType: 'whisper',
  architecture: 'WhisperForConditionalGeneration',
  sizes,
  keys: whisperKeys,
  native: nativeWhisper,
  prefix: '',
  ignored: [],
  // Older files contain the tied head a second time, and some were saved without `model.`.
  tied: ({ tieWordEmbeddings }) => (tieWordEmbeddings === false ? [] : [/^proj_out\.weight$/]),
  rename: (name) => (/^(encoder|decoder)\./.test(name) ? `model.${name}` : name),
  foreign: ctranslate2Checkpoint,
}) {
  /** Defaults of `generate` and `transcribe`, for options missing in their own configuration. */
  generationConfig: GenerationConfig
  /** Defaults of `transcribe` from the folder's generation_config.json. */
  transcribeDefaults: TranscribeDefaults = {}
  /** The ids of special tokens. */
  tokens: WhisperTokens
  /** Decodes tokens for `transcribe`; null if the directory has none. */
  tokenizer: Tokenizer | null = null
  /** Cross-attention heads for alignment. Default: all in the upper half of the layers. */
  alignmentHeads: WhisperHead[]
  /** Special tokens that the folder lists, which decide the default prompt of `generate`, as in transformers. */
  #listed = { languages: false, noTimestamps: false }

  /** @throws ConfigError for a contradictory configuration */
  constructor(config: WhisperConfig, options: MakeOptions = {}) {
    super(config, options)
    freezePositions((this as unknown as { model: { encoder: NativeModule } }).model.encoder)
    this.tokens = tokensOf(this.config)
    this.alignmentHeads = usualHeads(this.config)
    this.generationConfig = { eosTokenId: this.tokens.endOfText, padTokenId: this.config.padTokenId ?? 50256 }
  }

  /** Load the directory's tokenizer, and its settings of tokens, heads and generation. @internal */
  async loaded(directory: string): Promise<void> {
    const files = ['tokenizer.json', 'vocab.json']
    if (files.some((name) => existsSync(join(directory, name))))
      this.tokenizer = await Tokenizer.fromPretrained(directory)
    await readFeatureExtractor(directory, spectrogramKeys(melBinsOf(this.config), windowOf(this.config)))
    this.tokens = await readTokens(directory, this.config, this.tokenizer)
    this.#listed = await listedTokens(directory)
    this.alignmentHeads = await readHeads(directory, this.config)
    const { generation, defaults } = await readWhisperGeneration(directory, this.config, this.tokens)
    this.generationConfig = { ...this.generationConfig, ...generation }
    this.transcribeDefaults = defaults
  }

  /** Run the encoder alone, to reuse its result for several calls. Runs on the executor. */
  async encode(inputs: WhisperEncoderInputs): Promise<WhisperEncoderOutput> {
    requireTensorInputs('Whisper.encode', inputs)
    return encoderForward(withActiveAdapters(this), inputs) as Promise<WhisperEncoderOutput>
  }

  /**
   * Generate tokens for audio after `inputIds`: greedily, by sampling or by beam search. It generates one window without the rules of
   * `transcribe`; `returnTimestamps` enables those of timestamps. By default `inputIds` are the start of a transcript with the language
   * and task of the model's folder. If the folder names no language and lists several, the language of each row is detected, as in
   * transformers.
   * @throws ConfigError for an invalid or contradictory configuration
   */
  async generate(
    inputs: WhisperGenerateInputs,
    config: GenerationConfig = {},
    options?: GenerateOptions,
  ): Promise<GenerateOutput> {
    return scope(async () => {
      const prepared = await this.#prepared(inputs, config, options)
      return generate(this, prepared, this.#whole(prepared, config), options)
    })
  }

  /** Generate token by token. Leaving the loop, or aborting the signal in `options`, stops generation and frees its memory. */
  async *stream(
    inputs: WhisperGenerateInputs,
    config: GenerationConfig = {},
    options?: GenerateOptions,
  ): AsyncGenerator<GenerateStep, void, void> {
    requireTensorInputs('Whisper.stream', inputs)
    const { inputFeatures, featuresMask } = inputs
    const made = await this.#prepared(inputs, config, options)
    try {
      yield* stream(this, made, this.#whole(made, config), options)
    } finally {
      if (inputFeatures || featuresMask) {
        made.encoderHiddenStates?.dispose()
        if (featuresMask) made.encoderAttentionMask?.dispose()
        if (!inputs.assistantEncoderHiddenStates) made.assistantEncoderHiddenStates?.dispose()
      }
      if (!inputs.inputIds) made.inputIds?.dispose()
    }
  }

  async #prepared(
    inputs: WhisperGenerateInputs,
    config: GenerationConfig,
    options: GenerateOptions = {},
  ): Promise<GenerateInputs> {
    requireTensorInputs('Whisper.generate', inputs)
    const { inputFeatures, featuresMask, ...rest } = inputs
    const made: GenerateInputs = { ...rest }
    if (inputFeatures) {
      if (rest.encoderHiddenStates) {
        throw new ConfigError('Whisper.generate: expected either inputFeatures or encoderHiddenStates, got both')
      }
      const { lastHiddenState, attentionMask } = await noGrad(() =>
        this.encode({ inputFeatures, attentionMask: featuresMask }),
      )
      made.encoderHiddenStates = lastHiddenState
      made.encoderAttentionMask = attentionMask
      const { assistantModel } = options
      if (assistantModel instanceof Whisper && !rest.assistantEncoderHiddenStates) {
        const assistant = await noGrad(() => assistantModel.encode({ inputFeatures, attentionMask: featuresMask }))
        made.assistantEncoderHiddenStates = assistant.lastHiddenState
      }
    } else if (featuresMask) {
      throw new ConfigError('Whisper.generate: featuresMask: expected inputFeatures with it, got none')
    }
    if (!rest.inputIds && !rest.inputsEmbeds) {
      const { encoderHiddenStates, encoderAttentionMask } = made
      const isNamed = this.transcribeDefaults.language !== undefined || Object.keys(this.tokens.languages).length === 0
      const detected =
        this.#listed.languages && !isNamed && encoderHiddenStates
          ? await detectLanguages(this, encoderHiddenStates, { encoderAttentionMask })
          : []
      const rows = Array.from({ length: encoderHiddenStates?.shape[0] ?? 1 }, (_, i) => detected[i]?.[0])
      made.inputIds = tensor(rows.map((language) => this.#start(config, language).map(BigInt)))
    }
    return made
  }

  /** Return the default prompt. */
  #start(config: GenerationConfig, language = this.transcribeDefaults.language): number[] {
    const { startOfTranscript, languages, noTimestamps } = this.tokens
    const { task = 'transcribe' } = this.transcribeDefaults
    const { returnTimestamps = false } = { ...this.generationConfig, ...config }
    const id = language === undefined ? undefined : languages[language]
    const end = returnTimestamps ? [] : [noTimestamps]
    if (id !== undefined) return [startOfTranscript, id, this.tokens[task], ...end]
    return [startOfTranscript, ...(this.#listed.noTimestamps ? end : [])]
  }

  /** Fill in the defaults: without a limit, the text may use all positions. */
  #whole(inputs: GenerateInputs, config: GenerationConfig): GenerationConfig {
    const { noTimestamps } = this.tokens
    const whole = { ...config }
    if ({ ...this.generationConfig, ...config }.returnTimestamps) {
      whole.noTimestampsTokenId ??= noTimestamps
      if (whole.lastTimestampTokenId === undefined) whole.lastTimestampTokenId = lastTimestampOf(this)
    }
    if (config.maxNewTokens == null && config.maxLength == null) {
      const past = (inputs.cache?.length ?? 0) + (inputs.inputIds?.shape[1] ?? this.#start(config).length)
      const room = Math.max(1, positionsOf(this.config) - past)
      // As in transformers' Whisper, a folder's max_length counts new tokens.
      const { maxNewTokens, maxLength } = this.generationConfig
      whole.maxNewTokens = maxNewTokens ?? Math.min(maxLength ?? room, room)
    }
    return whole
  }

  /**
   * Return the time and the probability of each token, by dynamic time warping of the attention of `alignmentHeads`. Works for any text,
   * generated by this network or not. It matches transformers' `return_token_timestamps`.
   * @returns a list per row, with one entry per token
   * @throws ConfigError for tokens that are not lists of ids
   */
  tokenTimestamps(inputs: WhisperAlignmentInputs): Promise<TokenTimestamp[][]> {
    return alignTokens(this, inputs)
  }

  /**
   * Align a known text to audio: return the start and end of each word, by forced alignment with the cross-attention.
   *
   * @param audio a file, its bytes, a result of `readAudio`, or samples [n] at 16 kHz; at most one window (30 seconds)
   * @throws DataError for a longer clip, and for a text that is empty or too long; ConfigError for an unknown language, or a
   * network without a tokenizer
   */
  alignText(audio: WhisperAudio, text: string, options: AlignTextOptions = {}): Promise<WhisperWord[]> {
    return alignText(this, audio, text, options)
  }

  /**
   * Transcribe a recording of any length, with the times of its segments, by the authors' method: windows of 30 seconds, each starting at the
   * end of the last complete segment. A window with a repetitive or unlikely text is tried again by sampling at rising temperatures.
   *
   * @param audio a file, its bytes, a result of `readAudio`, or samples [n] at 16 kHz
   * @throws ConfigError for wrong options, an unknown language, or a network without a tokenizer
   */
  async transcribe(audio: WhisperAudio, options: TranscribeOptions = {}): Promise<WhisperTranscription> {
    const segments = transcribeSegments(this, audio, options)
    let step = await segments.next()
    while (!step.done) step = await segments.next()
    return step.value
  }

  /**
   * Transcribe segment by segment, as windows are finished; the return value is the whole transcription.
   *
   * ```ts
   * for await (const { start, end, text } of whisper.transcribeStream('talk.mp3')) console.log(start, end, text)
   * ```
   */
  transcribeStream(
    audio: WhisperAudio,
    options: TranscribeOptions = {},
  ): AsyncGenerator<WhisperSegment, WhisperTranscription, void> {
    return transcribeSegments(this, audio, options)
  }

  /** Save config.json, generation_config.json, preprocessor_config.json, model.safetensors and the tokenizer. */
  override async save(directory: string, options: SaveNetworkOptions = {}): Promise<void> {
    const preprocessor = whisperExtractor(melBinsOf(this.config), windowOf(this.config))
    await writeFolderAtomically(directory, CheckpointError, async (folder) => {
      await super.save(folder, options)
      await writeJson(join(folder, 'generation_config.json'), whisperGeneration(this), { indent: 2 })
      await writeJson(join(folder, 'preprocessor_config.json'), preprocessor, { indent: 2 })
      this.tokenizer?.saveTo(folder)
    })
  }
}

/** Return which special tokens a folder lists: CTranslate2's format has all, transformers' has them in generation_config.json. */
async function listedTokens(directory: string): Promise<{ languages: boolean; noTimestamps: boolean }> {
  const name = 'generation_config.json'
  if (!existsSync(join(directory, name))) {
    const isListed = isCTranslate2(directory)
    return { languages: isListed, noTimestamps: isListed }
  }
  const { langToId, noTimestampsTokenId } = await readConfig(directory, name)
  return { languages: langToId != null, noTimestamps: noTimestampsTokenId != null }
}

/** The encoder's sinusoidal positions are not trained. */
function freezePositions(encoder: NativeModule): void {
  const { embed_positions } = encoder as unknown as { embed_positions: { weight: Tensor } }
  freezeConstant(embed_positions.weight)
}
