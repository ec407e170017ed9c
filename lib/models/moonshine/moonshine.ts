import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { type AudioClip, SPEECH_RATE } from '../../audio/clip.js'
import { writeFolderAtomically } from '../../base/atomic-folder.js'
import { CheckpointError, ConfigError } from '../../base/errors.js'
import { toSnake } from '../../base/words.js'
import { writeJson } from '../../files/json/json.js'
import { type GenerationConfig, generationConfig } from '../../generation/config.js'
import { readGenerationConfig } from '../../generation/files.js'
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
import { withActiveAdapters } from '../../nn/native-module.js'
import type { MakeOptions } from '../../nn/parameter.js'
import { noGrad, scope, tensor } from '../../tensor/index.js'
import { Tokenizer } from '../../text/tokenizer.js'
import { readFeatureExtractor, settingsIn, WAVEFORM_KEYS } from '../feature-extractor.js'
import { networkClass } from '../network.js'
import type { SaveNetworkOptions } from '../pretrained.js'
import { savedPlainRope, withPlainRope } from '../rope.js'
import { type MoonshineConfig, moonshineKeys, moonshineSizes } from './config.js'
import type {
  MoonshineEncoderInputs,
  MoonshineEncoderOutput,
  MoonshineGenerateInputs,
  MoonshineInputs,
  MoonshineOutput,
} from './inputs.js'
import { type MoonshineTranscribeOptions, type MoonshineTranscription, transcribeMoonshine } from './transcribe.js'

const encoderForward = opAsync('voxtorch::moonshine_encoder_forward')

/**
 * Moonshine (Jeffries et al. 2024, https://arxiv.org/abs/2410.15608), speech recognition with little computation for short clips: transformers'
 * MoonshineForConditionalGeneration. It reads samples, and its encoder takes time in proportion to the clip. Runs in native code.
 *
 * ```ts
 * const model = await Moonshine.fromPretrained('UsefulSensors/moonshine-tiny')
 * const { text } = await model.transcribe('speech.wav')
 * ```
 *
 * Published sizes: `'tiny'` and `'base'`. `fromPretrained` also loads the folder's generation configuration and tokenizer, if they exist.
 */
export class Moonshine extends networkClass<Moonshine, MoonshineConfig, MoonshineInputs, MoonshineOutput>({
  kind: 'moonshine',
  forward: 'voxtorch::moonshine_forward',
  modelType: 'moonshine',
  architecture: 'MoonshineForConditionalGeneration',
  sizes: moonshineSizes,
  keys: moonshineKeys,
  completed: withPlainRope,
  saved: savedPlainRope,
  prefix: '',
  ignored: [/\.rotary_emb\.inv_freq$/],
  tied: ({ tieWordEmbeddings }) => (tieWordEmbeddings === false ? [] : [/^proj_out\.weight$/]),
  // The names in transformers' MoonshineModel.
  rename: (name) => (/^(encoder|decoder)\./.test(name) ? `model.${name}` : name),
}) {
  /** Defaults of `generate` and `transcribe`, for options missing in their own configuration. */
  generationConfig: GenerationConfig
  /** Decodes tokens for `transcribe`; null if the folder has none. */
  tokenizer: Tokenizer | null = null
  /** Whether `transcribe` normalizes clips to mean 0 and variance 1, from preprocessor_config.json. Default false. */
  normalizesAudio = false

  /** @throws ConfigError for a contradictory configuration */
  constructor(config: MoonshineConfig, options: MakeOptions = {}) {
    super(config, options)
    const { eosTokenId, padTokenId } = this.config
    const end = eosTokenId ?? undefined
    const pad = padTokenId ?? (Array.isArray(end) ? end[0] : end)
    this.generationConfig = {
      ...(end !== undefined && { eosTokenId: end }),
      ...(pad !== undefined && { padTokenId: pad }),
    }
  }

  /** Load the directory's tokenizer, generation settings and feature extractor. @internal */
  async loaded(directory: string): Promise<void> {
    const files = ['tokenizer.json', 'tokenizer.model']
    if (files.some((name) => existsSync(join(directory, name))))
      this.tokenizer = await Tokenizer.fromPretrained(directory)
    if ((await settingsIn(directory)) !== undefined)
      this.normalizesAudio = (await readFeatureExtractor(directory, WAVEFORM_KEYS)).doNormalize === true
    this.generationConfig = { ...this.generationConfig, ...(await readGenerationConfig(directory, this.config)) }
  }

  /** Run the encoder alone, to reuse its result for several calls. Runs on the executor. */
  async encode(inputs: MoonshineEncoderInputs): Promise<MoonshineEncoderOutput> {
    requireTensorInputs('Moonshine.encode', inputs)
    return encoderForward(withActiveAdapters(this), inputs) as Promise<MoonshineEncoderOutput>
  }

  /**
   * Generate tokens for audio after `inputIds`: greedily, by sampling or by beam search. By default `inputIds` are the start token of each
   * row, and the limit is `maxPositionEmbeddings` tokens.
   * @throws ConfigError for an invalid or contradictory configuration
   */
  async generate(
    inputs: MoonshineGenerateInputs,
    config: GenerationConfig = {},
    options?: GenerateOptions,
  ): Promise<GenerateOutput> {
    return scope(async () => generate(this, await this.#prepared(inputs), this.#limited(config), options))
  }

  /** Generate token by token. Leaving the loop, or aborting the signal in `options`, stops generation and frees its memory. */
  async *stream(
    inputs: MoonshineGenerateInputs,
    config: GenerationConfig = {},
    options?: GenerateOptions,
  ): AsyncGenerator<GenerateStep, void, void> {
    const prepared = await this.#prepared(inputs)
    try {
      yield* stream(this, prepared, this.#limited(config), options)
    } finally {
      if (inputs.inputValues) {
        prepared.encoderHiddenStates?.dispose()
        prepared.encoderAttentionMask?.dispose()
      }
      if (!inputs.inputIds) prepared.inputIds?.dispose()
    }
  }

  async #prepared(inputs: MoonshineGenerateInputs): Promise<GenerateInputs> {
    const where = 'Moonshine.generate'
    requireTensorInputs(where, inputs)
    const { inputValues, inputValuesMask, ...rest } = inputs
    const prepared: GenerateInputs = { ...rest }
    if (inputValues) {
      if (rest.encoderHiddenStates)
        throw new ConfigError(`${where}: expected either inputValues or encoderHiddenStates, got both. Leave one out.`)
      const { lastHiddenState, attentionMask } = await noGrad(() =>
        this.encode({ inputValues, ...(inputValuesMask && { attentionMask: inputValuesMask }) }),
      )
      prepared.encoderHiddenStates = lastHiddenState
      prepared.encoderAttentionMask = attentionMask
    } else if (inputValuesMask) {
      throw new ConfigError(`${where}: inputValuesMask: expected inputValues with it, got none. Pass inputValues.`)
    }
    if (!rest.inputIds && !rest.inputsEmbeds) {
      const rows = prepared.encoderHiddenStates?.shape[0] ?? 1
      const start = BigInt(this.config.decoderStartTokenId as number)
      prepared.inputIds = tensor(Array.from({ length: rows }, () => [start]))
    }
    return prepared
  }

  #limited(config: GenerationConfig): GenerationConfig {
    const { maxNewTokens, maxLength } = { ...this.generationConfig, ...config }
    if (maxNewTokens != null || maxLength != null) return config
    return { ...config, maxLength: this.config.maxPositionEmbeddings as number }
  }

  /**
   * Transcribe a recording. One longer than `chunkSeconds` is split at pauses, and each piece is transcribed alone.
   *
   * @param audio a file, its bytes, a result of `readAudio`, or samples [n] at 16 kHz
   * @throws ConfigError for invalid options, and for a network without a tokenizer; DataError for a clip shorter than 895 samples, 56 ms
   */
  transcribe(audio: AudioClip, options: MoonshineTranscribeOptions = {}): Promise<MoonshineTranscription> {
    return transcribeMoonshine(this, audio, options)
  }

  /** Save config.json, generation_config.json, preprocessor_config.json, model.safetensors and the tokenizer, in transformers' layout. */
  override async save(directory: string, options: SaveNetworkOptions = {}): Promise<void> {
    const { decoderStartTokenId, bosTokenId, maxPositionEmbeddings } = this.config
    const { prefixAllowedTokensFn: _, ...plain } = generationConfig(this.generationConfig)
    const generation = {
      ...toSnake(plain),
      // Without a limit, transformers stops after 20 tokens.
      ...(plain.maxLength == null && plain.maxNewTokens == null && { max_length: maxPositionEmbeddings }),
      ...(bosTokenId != null && { bos_token_id: bosTokenId }),
      decoder_start_token_id: decoderStartTokenId,
    }
    const preprocessor = {
      feature_extractor_type: 'Wav2Vec2FeatureExtractor',
      do_normalize: this.normalizesAudio,
      feature_size: 1,
      padding_side: 'right',
      padding_value: 0,
      processor_class: 'Wav2Vec2Processor',
      return_attention_mask: true,
      sampling_rate: SPEECH_RATE,
    }
    await writeFolderAtomically(directory, CheckpointError, async (folder) => {
      await super.save(folder, options)
      await writeJson(join(folder, 'generation_config.json'), generation, { indent: 2 })
      await writeJson(join(folder, 'preprocessor_config.json'), preprocessor, { indent: 2 })
      this.tokenizer?.saveTo(folder)
    })
  }
}
