import { argumentError, requireObject, requireOptions, requireString } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import type { GenerationConfig } from '../../../generation/config.js'
import { AudioBranch } from '../../../kit/audio-encoding/branch.js'
import { type AudioEncoding, audioEncoding, encodeClips } from '../../../kit/audio-encoding/encode.js'
import { embedRows, expandPlaceholders } from '../../../kit/embed-rows.js'
import { FreshValues } from '../../../kit/fresh-values.js'
import { Beats } from '../../../models/beats/beats.js'
import { DecoderLM } from '../../../models/decoder/decoder-lm.js'
import { QFormer } from '../../../models/q-former/q-former.js'
import { WhisperEncoder } from '../../../models/whisper/whisper.js'
import { Linear } from '../../../nn/linear.js'
import { Module } from '../../../nn/module.js'
import type { NetworkOptions, Parameter } from '../../../nn/parameter.js'
import { getPeftModel, type PeftModel } from '../../../peft/model.js'
import { cat, noGrad, scope, type Tensor } from '../../../tensor/index.js'
import { withSeed } from '../../../tensor/random.js'
import type { Tokenizer } from '../../../text/index.js'
import { isEncoded, type SalmonnAudio, salmonnSamples, wrongTensor } from './clips.js'
import { type CompleteSalmonnConfig, type SalmonnConfig, salmonnConfig } from './config.js'
import { type LoadSalmonnOptions, loadSalmonn, type SalmonnPartsFrom, saveSalmonn } from './files.js'
import {
  generateSalmonn,
  type SalmonnAnswers,
  type SalmonnGenerateOptions,
  type SalmonnStep,
  streamSalmonn,
} from './generate.js'
import { AUDIO, idsOf, promptSegments, requireRoom } from './prompt.js'

/** A prompt: text with one `<SpeechHere>` for each clip, in order. */
export interface SalmonnQuestion {
  text: string
  /** Audio clips, or outputs of `encodeAudio`, [tokens, hiddenSize]. */
  clips: readonly SalmonnAudio[]
}

export interface SalmonnInputs {
  prompts: readonly SalmonnQuestion[]
  /** Target answers for training. */
  targets?: readonly string[]
  /** Label smoothing: probability that the loss spreads over the vocabulary, 0 … 1. Default 0. */
  labelSmoothing?: number | undefined
}

export interface SalmonnOptions {
  /** Encode audio as the published code does: 88 tokens for each window of 30 s. Default: the model's `compat`. */
  compat?: 'published' | undefined
  /**
   * Overlap in seconds of the windows of a clip longer than the encoder's 30 s, at most half a window. Default: the model's `overlap`,
   * otherwise 2.56: BEATs' position convolution reaches 1.28 s to both sides.
   */
  overlap?: number | undefined
  /** Scale of LoRA, 4 as published. About 2 restores abilities that LoRA training has suppressed. */
  loraScale?: number | undefined
}

export interface SalmonnOutput {
  /** Mean cross-entropy over the tokens of all targets; null without targets. */
  loss: Tensor | null
  /** In evaluation mode with targets: number of tokens with a correct top prediction, and of all tokens (`total`). */
  correct?: number
  total?: number
}

/** Existing networks for the constructor. */
export interface SalmonnParts {
  whisper: WhisperEncoder
  /** null for no BEATs. */
  beats: Beats | null
  llm: DecoderLM
}

/** Module that adds PEFT's names around the language model. */
class Wrapped extends Module {}

/**
 * SALMONN (Tang et al. 2024, https://arxiv.org/abs/2310.13289): a language model with audio input. Whisper's encoder and BEATs encode the
 * audio, a window-level Q-Former and a projection convert it to tokens, and the language model with LoRA answers.
 *
 * ```ts
 * const model = await Salmonn.fromPretrained({ whisper, beats, llm, adapter: 'salmonn_v1.pth' })
 * for await (const { text } of model.stream({ text: salmonnQuestion('What do you hear?'), clips: [samples] })) show(text)
 * ```
 *
 * Names in the state dictionary are those of the published code. Encoders and language model are frozen; the trainable parts are those of
 * the published adapter file. The model owns the networks that it receives, and disposes them.
 */
export class Salmonn extends AudioBranch {
  readonly config: CompleteSalmonnConfig
  readonly speech_Qformer: Module
  readonly speech_query_tokens: Parameter
  readonly speech_llama_proj: Linear
  readonly llama_model: Module
  /** Default audio options of calls; see {@link SalmonnOptions}. */
  compat: 'published' | undefined
  overlap: number | undefined
  /** Locations of its parts, which `save` records. */
  origin: Pick<SalmonnPartsFrom, 'whisper' | 'beats' | 'llm'> | null = null
  /** Default generation options of `generate` and `stream`. */
  generationConfig: GenerationConfig = { maxNewTokens: 200 }
  readonly #qformer: QFormer
  readonly #llm: DecoderLM
  readonly #peft: PeftModel<DecoderLM> | null
  #tokenizer: Tokenizer | null = null
  #fresh: FreshValues | undefined

  /** @throws ConfigError if the parts do not fit each other */
  constructor(
    given: SalmonnConfig | string,
    options: NetworkOptions & { parts?: SalmonnParts; initialize?: boolean } = {},
  ) {
    const { parts, initialize = true, ...factory } = options
    const config = salmonnConfig(parts ? { ...configObject(given), ...configsOf(parts) } : given)
    const { whisper, beats, llm, qformer, lora } = config
    const encoder = parts?.whisper ?? new WhisperEncoder(whisper, factory)
    super(encoder, beats && (parts?.beats ?? new Beats(beats, factory)), factory)
    this.config = config
    // The fields below have the names of the published file, so the Q-Former itself is private.
    this.#qformer = new QFormer(qformer, { ...factory, initialize })
    const fields = this.#qformer as unknown as { Qformer: Module; query_tokens: Parameter }
    const { device = fields.query_tokens.device, dtype } = factory
    this.speech_Qformer = fields.Qformer
    this.speech_query_tokens = fields.query_tokens
    this.#llm = parts?.llm ?? new DecoderLM(llm, factory)
    // The language model's own generation defaults are for text chat.
    this.#llm.generationConfig = {}
    const { hiddenSize = 4096 } = this.#llm.config
    this.speech_llama_proj = new Linear(qformer.hiddenSize as number, hiddenSize, { device, dtype })
    this.#llm.freeze()
    this.#peft = lora ? getPeftModel(this.#llm, lora) : null
    this.llama_model = lora ? adapterNames(this.#llm) : this.#llm
    if (initialize) this.noteUntrained(UNTRAINED_PARTS)
    this.train()
  }

  /** Create a model with random weights from a configuration, `'7b'` or `'13b'`. Device `'meta'` allocates no memory. */
  static fromConfig(config: SalmonnConfig | string, options: NetworkOptions = {}): Salmonn {
    requireOptions('Salmonn.fromConfig', options, ['device', 'dtype', 'seed'])
    const { seed, ...factory } = options
    return withSeed(seed, () => new Salmonn(config, factory), factory.device)
  }

  /**
   * Load the four published parts, or a directory that `save` wrote.
   * @throws CheckpointError that lists missing, unexpected and mis-shaped tensors, or names the language model that the adapter was trained
   * with, if another one is detected
   */
  static fromPretrained(from: SalmonnPartsFrom | string, options: LoadSalmonnOptions = {}): Promise<Salmonn> {
    return loadSalmonn(from, options, (config, build) => new Salmonn(config, build))
  }

  /** The language model. */
  get llm(): DecoderLM {
    return this.#llm
  }

  /** LoRA adapter of the language model, or null. */
  get peft(): PeftModel<DecoderLM> | null {
    return this.#peft
  }

  get tokenizer(): Tokenizer {
    if (this.#tokenizer) return this.#tokenizer
    throw new ConfigError(
      'Salmonn.tokenizer: expected a tokenizer, got none. Set it to that of the language model.',
      {},
    )
  }
  set tokenizer(tokenizer: Tokenizer) {
    this.#tokenizer = tokenizer
  }

  /** Tells the Trainer that `forward` takes `labelSmoothing`. */
  get smoothsLabels(): true {
    return true
  }

  /** Whether the model has a tokenizer. */
  get hasTokenizer(): boolean {
    return this.#tokenizer !== null
  }

  /**
   * Return the parts between encoders and language model that still have their initial random weights. Until they are loaded or trained,
   * answers do not depend on the audio in any useful way.
   */
  untrainedParts(): ('qformer' | 'projection')[] {
    const left = this.#fresh?.left(this) ?? []
    return UNTRAINED_PARTS.filter((part) => left.includes(MARKS[part]))
  }

  /** Mark the present weights of these parts as initial. @internal */
  noteUntrained(parts: readonly ('qformer' | 'projection')[]): void {
    this.#fresh = new FreshValues(
      this,
      parts.map((part) => MARKS[part]),
    )
  }

  /** Free the encoders after all audio is encoded. `encodeAudio` then fails; use its earlier outputs in prompts. */
  releaseEncoders(): void {
    this.speech_encoder?.dispose()
    this.beats?.dispose()
    this.speech_encoder = null
    this.beats = null
  }

  /**
   * Encode clips as embeddings for the language model, [tokens, hiddenSize] each, in the projection's dtype. A token covers a window of the
   * Q-Former, a third of a second. Prompts can contain the result in place of the clip.
   * @throws ConfigError if the encoders were freed, and for an invalid clip, by its index
   */
  async encodeAudio(
    clips: readonly SalmonnAudio[],
    options: Pick<SalmonnOptions, 'compat' | 'overlap'> = {},
  ): Promise<Tensor[]> {
    const where = 'Salmonn.encodeAudio'
    if (!Array.isArray(clips)) throw argumentError(where, 'clips', 'a list of audio clips', clips)
    requireOptions(where, options, ['compat', 'overlap'])
    const encoding = this.encoding(where, options)
    return scope(async () => {
      const samples: Tensor[] = []
      for (const [i, clip] of clips.entries()) samples.push(await salmonnSamples(clip, `clips[${i}]`))
      return samples.length === 0 ? [] : encodeClips(this.encoders, samples, encoding)
    })
  }

  /**
   * Compute the loss of targets after their prompts, as published: only the tokens of an answer and its end contribute. Rows are padded on
   * the right, and positions skip the padding.
   * @throws ConfigError for prompts whose markers and clips do not match
   */
  override async forward(batch: SalmonnInputs, options: SalmonnOptions = {}): Promise<SalmonnOutput> {
    requireObject('Salmonn.forward', 'the batch', batch)
    const { prompts, targets, labelSmoothing = 0 } = batch
    if (!Array.isArray(prompts) || prompts.length === 0) {
      throw argumentError('Salmonn.forward', 'prompts', 'a list of prompts', prompts)
    }
    if (targets !== undefined && targets.length !== prompts.length) {
      throw new ConfigError(
        `Salmonn.forward.targets: expected ${prompts.length}, one per prompt, got ${targets.length}.`,
        {},
      )
    }
    if (!targets) return { loss: null }
    return scope(async () => {
      const { rows, audio } = await this.read(prompts, this.encoding('Salmonn.forward', options))
      const answers = targets.map((target) => this.#answer(target))
      const whole = rows.map((row, i) => [...row, ...(answers[i] as number[])])
      const wanted = rows.map((row, i) => [...row.map(() => -100), ...(answers[i] as number[])])
      const embedded = embedRows(this.#llm, whole, { placeholder: AUDIO, embeddings: audio, labels: wanted })
      const { labels } = embedded
      const longest = labels.size(1)
      const first = Math.min(...rows.map(({ length }) => length))
      const kept = this.training ? null : longest - first + 1
      const { loss, logits } = await this.scaled(options.loraScale, () =>
        this.#llm.forward({ ...embedded, labelSmoothing, logitsToKeep: kept }),
      )
      if (kept === null || !logits) return { loss }
      return { loss, ...counts(logits, labels.narrow(1, first, longest - first)) }
    })
  }

  /** Generate answers to a batch of prompts: greedily, by sampling or by beam search. Each row ends independently. */
  generate(prompts: readonly SalmonnQuestion[], options: SalmonnGenerateOptions = {}): Promise<SalmonnAnswers> {
    return generateSalmonn(this, prompts, options)
  }

  /** Stream one answer. Leaving the loop, or aborting the signal, ends it. With beams it comes in one piece. */
  stream(prompt: SalmonnQuestion, options: SalmonnGenerateOptions = {}): AsyncGenerator<SalmonnStep, void, void> {
    return streamSalmonn(this, prompt, options)
  }

  /**
   * Write a directory that `fromPretrained` reads: configuration, audio options, trainable parts, tokenizer and fingerprint of the language
   * model; with `whole` also encoders and language model.
   */
  save(directory: string, options: { whole?: boolean } = {}): Promise<void> {
    return saveSalmonn(this, directory, options)
  }

  /** Return the rows of a batch of prompts, with placeholders, and the audio embeddings for these. @internal */
  async read(
    prompts: readonly SalmonnQuestion[],
    encoding: AudioEncoding,
  ): Promise<{ rows: number[][]; audio: Tensor | null }> {
    const segments: number[][][] = []
    for (const prompt of prompts) segments.push(await this.segments(prompt))
    const clips: Tensor[] = []
    for (const [i, prompt] of prompts.entries()) clips.push(...(await this.audios(prompt, `prompts[${i}].`)))
    const embeddings = await this.embeddingsOf(clips, encoding)
    let next = 0
    const rows = segments.map((parts, index) =>
      this.rowOf(parts, embeddings.slice(next, (next += parts.length - 1)), `prompts[${index}]`),
    )
    return { rows, audio: embeddings.length === 0 ? null : cat(embeddings, 0) }
  }

  /** Return the token ids of a prompt, with a placeholder for each audio embedding. @internal */
  rowOf(segments: readonly (readonly number[])[], embeddings: readonly Tensor[], name: string): number[] {
    const marked = segments.flatMap((ids, i) => (i === 0 ? ids : [AUDIO, ...ids]))
    const counts = embeddings.map((clip) => clip.size(0))
    const row = [...this.begin(segments), ...expandPlaceholders(marked, AUDIO, counts)]
    requireRoom(this.#llm, row, name)
    return row
  }

  /** Return the begin-of-sequence token of a row, unless a chat template has written it already. @internal */
  begin([first]: readonly (readonly number[])[] = []): number[] {
    const { bosTokenId } = this.tokenizer
    return bosTokenId === null || first?.[0] === bosTokenId ? [] : [bosTokenId]
  }

  /** Return the token ids of a prompt's text between its clips. @internal */
  async segments(prompt: SalmonnQuestion): Promise<number[][]> {
    requireObject('Salmonn', 'a prompt', prompt)
    requireString('Salmonn', "a prompt's text", prompt.text)
    if (!Array.isArray(prompt.clips))
      throw argumentError('Salmonn', "a prompt's clips", 'a list of clips', prompt.clips)
    return promptSegments(this.tokenizer, prompt.text, prompt.clips.length)
  }

  /** Return the audio options of a call, with the model's defaults. @internal */
  encoding(where: string, { compat = this.compat, overlap = this.overlap }: SalmonnOptions): AudioEncoding {
    return audioEncoding(where, this.config.whisper, { compat, overlap })
  }

  /** Return a prompt's clips: samples [n], or embeddings [tokens, hiddenSize]. @internal */
  async audios({ clips }: SalmonnQuestion, of = ''): Promise<Tensor[]> {
    const width = this.speech_llama_proj.outFeatures
    const audios: Tensor[] = []
    for (const [i, clip] of clips.entries()) {
      const name = `${of}clips[${i}]`
      if (!isEncoded(clip)) audios.push(await salmonnSamples(clip, name))
      else if (clip.size(0) > 0 && clip.size(1) === width) audios.push(clip)
      else throw wrongTensor(name, `float32 [samples], or [tokens, ${width}] of encodeAudio`, clip)
    }
    return audios
  }

  /** Return the embeddings of clips, some of which can be encoded already. @internal */
  async embeddingsOf(clips: readonly Tensor[], encoding: AudioEncoding): Promise<Tensor[]> {
    const fresh = clips.filter((clip) => !isEncoded(clip))
    const encoded = fresh.length === 0 ? [] : await encodeClips(this.encoders, fresh, encoding)
    return clips.map((clip) => (isEncoded(clip) ? clip : (encoded.shift() as Tensor)))
  }

  /** Call `fn` with another scale of LoRA. @internal */
  scaled<T>(loraScale: number | undefined, fn: () => T): T {
    if (loraScale === undefined) return fn()
    const { lora } = this.config
    if (!this.#peft || !lora)
      throw new ConfigError('Salmonn.loraScale: expected a model with LoRA, got one without. Leave loraScale out.', {
        loraScale,
      })
    return this.#peft.scaleAdapter((loraScale * lora.r) / lora.loraAlpha, fn)
  }

  protected override freeNative(): void {
    super.freeNative()
    this.#qformer.dispose()
  }

  #answer(target: string): number[] {
    requireString('Salmonn.forward', 'a target', target)
    const { maxTextLength, endSymbol } = this.config
    const ids = idsOf(this.tokenizer, target + endSymbol).slice(0, maxTextLength)
    if (ids.length > 0) return ids
    throw new ConfigError('Salmonn.forward.targets: expected at least one token in each target, got none.', { target })
  }

  protected get connector() {
    this.#qformer.training = this.speech_Qformer.training
    return { qformer: this.#qformer, projection: this.speech_llama_proj }
  }
}

/** Weight of each part that tells whether the part was trained. */
const MARKS = { qformer: 'speech_query_tokens', projection: 'speech_llama_proj.weight' } as const
const UNTRAINED_PARTS = ['qformer', 'projection'] as const

const configObject = (given: SalmonnConfig | string): SalmonnConfig =>
  typeof given === 'string' ? salmonnConfig(given) : given

const configsOf = ({ whisper, beats, llm }: SalmonnParts): SalmonnConfig => ({
  whisper: whisper.config,
  beats: beats === null ? null : beats.config,
  llm: llm.config,
})

/** Wrap a network as PEFT does, with `base_model.model` in front of its names. */
function adapterNames(llm: DecoderLM): Module {
  const outer = new Wrapped() as Wrapped & { base_model: Module }
  const inner = new Wrapped() as Wrapped & { model: Module }
  inner.model = llm
  outer.base_model = inner
  return outer
}

/** Count correct and all labels [rows, n], from the logits [rows, n + 1, vocabulary] that predict them. */
function counts(logits: Tensor, labels: Tensor): { correct: number; total: number } {
  return noGrad(() =>
    scope(() => {
      const chosen = logits.narrow(1, 0, labels.size(1)).argmax(-1)
      const wanted = labels.ne(-100)
      const sum = (mask: Tensor) => Number(mask.sum().item())
      return { correct: sum(chosen.eq(labels).logicalAnd(wanted)), total: sum(wanted) }
    }),
  )
}

export type { SalmonnAnswers, SalmonnGenerateOptions, SalmonnStep }
