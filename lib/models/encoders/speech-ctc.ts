import { existsSync } from 'node:fs'
import { join } from 'node:path'
import type { AudioClip } from '../../audio/clip.js'
import { makeDirectory } from '../../base/atomic.js'
import { writeFolderAtomically } from '../../base/atomic-folder.js'
import { requireOptions, requireString, shown } from '../../base/check.js'
import { CheckpointError, ConfigError } from '../../base/errors.js'
import { writeJson } from '../../files/json/json.js'
import { loadSafetensors, saveSafetensors } from '../../files/safetensors/safetensors.js'
import { HUB_OPTIONS, type ResolveModelOptions, resolveModel } from '../../hub/resolve.js'
import { Dropout } from '../../nn/dropout.js'
import { Linear } from '../../nn/linear.js'
import type { MakeOptions } from '../../nn/parameter.js'
import { areAlike, differences, misfit } from '../../nn/text.js'
import { scope, type Tensor } from '../../tensor/index.js'
import { CtcTokenizer } from '../../text/ctc-tokenizer.js'
import { readFeatureExtractor } from '../feature-extractor.js'
import type { NetworkConstructor } from '../network.js'
import { LOAD_OPTIONS, type LoadNetworkOptions, type SaveNetworkOptions } from '../pretrained.js'
import type { Fillable } from '../weights.js'
import { ctcLossOf, requireCtcReduction } from './ctc-loss.js'
import { type CtcTranscribeOptions, type CtcTranscription, transcribeCtc } from './ctc-transcribe.js'
import type { Data2VecAudio } from './data2vec-audio.js'
import type { Hubert } from './hubert.js'
import {
  data2vecAudio,
  hubert,
  SpeechHead,
  type SpeechHeadConfig,
  type SpeechLabelInputs,
  wav2vec2,
  wav2vec2Bert,
  wav2vec2Conformer,
  wavlm,
} from './speech-head.js'
import { preprocessorKeysOf, preprocessorOf } from './speech-inputs.js'
import type { Wav2Vec2 } from './wav2vec2.js'
import type { Wav2Vec2Bert } from './wav2vec2-bert.js'
import type { Wav2Vec2Conformer } from './wav2vec2-conformer.js'
import type { WavLM } from './wavlm.js'

export interface SpeechCTCOutput {
  /** Loss reduced by `ctcLossReduction`, float32 (float64 for float64); null without `labels`. */
  loss: Tensor | null
  /** [batch, frames, vocabSize] */
  logits: Tensor
  /** Input of the first layer and output of each layer; [] without `outputHiddenStates`. */
  hiddenStates: Tensor[]
  attentions: Tensor[]
}

export interface LoadCTCOptions extends LoadNetworkOptions {
  /** For a network with `adapterAttnDim`: language whose adapter and vocabulary are loaded. */
  targetLang?: string
}

abstract class SpeechForCTC extends SpeechHead {
  static override readonly task = 'ForCTC'
  static override readonly layers: readonly string[] = ['lm_head']
  readonly dropout: Dropout
  /** Output layer; a language's adapter may replace it by one of another width. */
  lm_head: Linear
  /** Tokenizer of `transcribe`, from vocab.json if there is one. */
  tokenizer: CtcTokenizer | null = null
  /** Whether `transcribe` normalizes clips to mean 0 and variance 1; from preprocessor_config.json. */
  normalizesAudio = true
  #from = ''

  constructor(config: SpeechHeadConfig, options: MakeOptions = {}) {
    super(config, options)
    const { addAdapter, hiddenSize, outputHiddenSize, vocabSize, finalDropout, ctcLossReduction } = this.config
    requireCtcReduction(ctcLossReduction)
    const width = (addAdapter ? outputHiddenSize : hiddenSize) as number
    this.dropout = new Dropout(finalDropout)
    this.lm_head = new Linear(width, vocabSize as number, { device: options.device, dtype: options.dtype })
    this.begin(options)
  }

  /**
   * Load the weights of a directory or hub repository in transformers' layout, or with fairseq's names, with the tokenizer if there is
   * a vocab.json. For a checkpoint without this head, `allowMissing` initializes it.
   * @throws CheckpointError with missing, unexpected and mis-shaped names
   */
  static override async fromPretrained<M extends Fillable>(
    this: NetworkConstructor<SpeechHeadConfig, M>,
    from: string,
    options: LoadCTCOptions = {},
  ): Promise<M> {
    requireOptions('fromPretrained', options, [...LOAD_OPTIONS, 'targetLang'])
    const { targetLang, ...rest } = options
    // biome-ignore lint/complexity/noThisInStatic: the class that the method is called on
    const model = await (SpeechHead.fromPretrained<M>).call(this, from, rest)
    try {
      if (model instanceof SpeechForCTC && targetLang !== undefined) await model.loadAdapter(targetLang)
    } catch (error) {
      model.dispose()
      throw error
    }
    return model
  }

  /** Read the other files of the directory: tokenizer and feature extractor. @internal */
  async loaded(directory: string, from: string): Promise<void> {
    this.#from = from
    if (existsSync(join(directory, 'vocab.json'))) this.tokenizer = await CtcTokenizer.fromPretrained(directory)
    this.normalizesAudio =
      (await readFeatureExtractor(directory, preprocessorKeysOf(this.config))).doNormalize !== false
  }

  /**
   * Compute the logits, and with `labels` the CTC loss. The encoder runs on the executor.
   * @param inputs `labels`: int64 [batch, length], -100 for padding
   * @throws ConfigError for a label outside the vocabulary
   */
  override forward(inputs: SpeechLabelInputs): Promise<SpeechCTCOutput> {
    return scope(async () => {
      const { labels = null, ...rest } = inputs
      const { lastHiddenState, hiddenStates, attentions } = await this.trunk.forward(rest)
      const logits = this.lm_head.forward(this.dropout.forward(lastHiddenState))
      const loss = labels ? this.#loss(logits, labels, rest.attentionMask ?? null) : null
      return { loss, logits, hiddenStates, attentions }
    })
  }

  #loss(logits: Tensor, labels: Tensor, attentionMask: Tensor | null): Tensor {
    const { ctcLossReduction, ctcZeroInfinity, padTokenId } = this.config
    return ctcLossOf(logits, labels, attentionMask ? this.frameLengths(attentionMask) : null, {
      blank: padTokenId ?? 0,
      reduction: ctcLossReduction ?? 'sum',
      zeroInfinity: ctcZeroInfinity ?? false,
    })
  }

  /**
   * Transcribe a recording.
   *
   * ```ts
   * const { text, words } = await model.transcribe('speech.wav', { timestamps: 'word', beamWidth: 50 })
   * ```
   * @param audio a file, its bytes, the result of `readAudio`, or samples [n] at 16 kHz
   * @throws ConfigError for invalid options, and for a network without a tokenizer
   */
  transcribe(audio: AudioClip, options: CtcTranscribeOptions = {}): Promise<CtcTranscription> {
    return transcribeCtc(this, audio, options)
  }

  /**
   * Load a language's adapter, `adapter.<language>.safetensors`, and its vocabulary: MMS (Pratap et al. 2023,
   * https://arxiv.org/abs/2305.13516). The output layer gets the size of the vocabulary.
   * @param options `from`: a directory or hub repository, default that of the network; and options of the hub
   * @throws ConfigError for a network without `adapterAttnDim`; CheckpointError for an adapter of another shape
   */
  async loadAdapter(
    language: string,
    options: Omit<ResolveModelOptions, 'files'> & { from?: string } = {},
  ): Promise<void> {
    const where = 'loadAdapter'
    this.#requireAdapters(where, language)
    requireOptions(where, options, [...HUB_OPTIONS, 'from'])
    const { from = this.#from, ...hub } = options
    if (from === '')
      throw new ConfigError(`${where}: from: expected a directory or repository, got none. Pass { from }.`, {
        language,
      })
    const name = `adapter.${language}.safetensors`
    const directory = await resolveModel(from, { ...hub, files: [name] })
    const file = join(directory, name)
    if (!existsSync(file))
      throw new CheckpointError(`${file}: expected a file, got a path that does not exist. Check the language.`, {
        file,
      })
    const { tensors } = await loadSafetensors(file)
    try {
      scope(() => this.#take(file, tensors))
    } finally {
      for (const tensor of Object.values(tensors)) tensor.dispose()
    }
    if (this.tokenizer?.languages.includes(language)) this.tokenizer.setTargetLang(language)
  }

  /** Write `adapter.<language>.safetensors`, which `loadAdapter` and transformers read. */
  async saveAdapter(directory: string, language: string): Promise<void> {
    this.#requireAdapters('saveAdapter', language)
    requireString('saveAdapter', 'directory', directory)
    makeDirectory(directory, CheckpointError)
    await saveSafetensors(join(directory, `adapter.${language}.safetensors`), this.#adapter(), { format: 'pt' })
  }

  #requireAdapters(where: string, language: string): void {
    requireString(where, 'language', language)
    if (!/^[\w-]+$/.test(language))
      throw new ConfigError(
        `${where}: language: expected letters, digits, - and _, got ${shown(language)}. Correct it.`,
        {},
      )
    if (!this.config.adapterAttnDim) {
      throw new ConfigError(
        `${where}: expected a network with adapters (adapterAttnDim), got one without. Load a checkpoint of MMS.`,
        {},
      )
    }
  }

  #adapter(): Record<string, Tensor> {
    return Object.fromEntries(
      Object.entries(this.stateDict()).filter(([name]) => /\.adapter_layer\.|^lm_head\./.test(name)),
    )
  }

  #take(file: string, tensors: Record<string, Tensor>): void {
    const own = this.#adapter()
    const { 'lm_head.weight': weight, 'lm_head.bias': bias } = tensors
    const { inFeatures } = this.lm_head
    const found = differences(own, new Map(Object.entries(tensors)))
    // The output layer gets the size of the vocabulary.
    const mismatched = found.mismatched.filter(({ name }) => !name.startsWith('lm_head.'))
    const [vocabSize = 0, width] = weight?.shape ?? []
    if (weight && (weight.ndim !== 2 || width !== inFeatures || bias?.shape.join() !== String(vocabSize))) {
      mismatched.push({ name: 'lm_head.weight', expected: [vocabSize, inFeatures], actual: weight.shape })
    }
    if (!areAlike({ ...found, mismatched })) {
      throw misfit(`${file} is not an adapter of this network`, { ...found, mismatched }, { file })
    }
    if (vocabSize !== this.lm_head.outFeatures) {
      const { device, dtype } = this.lm_head.weight
      const wider = new Linear(inFeatures, vocabSize, { device, dtype }).train(this.lm_head.training)
      this.lm_head.dispose()
      this.lm_head = wider
      this.config.vocabSize = vocabSize
    }
    this.loadStateDict(tensors, { strict: false })
  }

  /** Write config.json, model.safetensors, the tokenizer and preprocessor_config.json, in transformers' layout. */
  override async save(directory: string, options: SaveNetworkOptions = {}): Promise<void> {
    const preprocessor = preprocessorOf(this.config, this.normalizesAudio)
    await writeFolderAtomically(directory, CheckpointError, async (folder) => {
      await super.save(folder, options)
      await writeJson(join(folder, 'preprocessor_config.json'), preprocessor, { indent: 2 })
      this.tokenizer?.save(folder)
    })
  }
}

/**
 * wav2vec 2.0 for speech recognition, by connectionist temporal classification (Graves et al. 2006): transformers'
 * Wav2Vec2ForCTC, with the adapters of MMS.
 */
export class Wav2Vec2ForCTC extends SpeechForCTC {
  static override readonly trunk = wav2vec2
  declare readonly wav2vec2: Wav2Vec2
}

/** WavLM for speech recognition by CTC: transformers' WavLMForCTC. */
export class WavLMForCTC extends SpeechForCTC {
  static override readonly trunk = wavlm
  declare readonly wavlm: WavLM
}

/** HuBERT for speech recognition by CTC: transformers' HubertForCTC. */
export class HubertForCTC extends SpeechForCTC {
  static override readonly trunk = hubert
  declare readonly hubert: Hubert
}

/** data2vec for speech recognition by CTC: transformers' Data2VecAudioForCTC. */
export class Data2VecAudioForCTC extends SpeechForCTC {
  static override readonly trunk = data2vecAudio
  declare readonly data2vec_audio: Data2VecAudio
}

/** wav2vec 2.0 with Conformer layers for speech recognition by CTC: transformers' Wav2Vec2ConformerForCTC. */
export class Wav2Vec2ConformerForCTC extends SpeechForCTC {
  static override readonly trunk = wav2vec2Conformer
  declare readonly wav2vec2_conformer: Wav2Vec2Conformer
}

/** w2v-BERT 2.0 for speech recognition by CTC: transformers' Wav2Vec2BertForCTC. Takes `inputFeatures`. */
export class Wav2Vec2BertForCTC extends SpeechForCTC {
  static override readonly trunk = wav2vec2Bert
  declare readonly wav2vec2_bert: Wav2Vec2Bert
}

export type { SpeechForCTC }
