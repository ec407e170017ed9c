import { existsSync } from 'node:fs'
import { argumentError, requireOptions, requireSignal, requireString, requireWhole } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { isGguf } from '../files/gguf/find.js'
import type { GgufValue } from '../files/gguf/types.js'
import { resolveModel } from '../hub/resolve.js'
import { type AddedTokenInput, completeToken } from './added-tokens.js'
import { type BatchEncoding, type BatchOptions, encodeBatch, type TensorBatch } from './batch.js'
import { type ChatEncoding, type ChatMessage, type ChatOptions, renderChat } from './chat.js'
import type { SpecialName, TokenizerConfig } from './config.js'
import { DecodeStream } from './decode-stream.js'
import type { Encoding } from './encoding.js'
import { ggufOf } from './gguf.js'
import type { Pipeline } from './pipeline.js'
import type { PostProcessor } from './postprocessors.js'
import { loadDirectory, loadFile, TOKENIZER_FILES } from './pretrained.js'
import type { Saver } from './save.js'
import type { SentencePieceProto } from './sentencepiece/proto.js'
import { encodeInSlices, surelyHasMore } from './slices.js'
import { nextId } from './spec.js'
import type { Rendered } from './template.js'
import { type TruncationOptions, truncate } from './truncation.js'

/** The parts of a tokenizer, whatever its file format. */
export interface TokenizerParts {
  pipeline: Pipeline
  postProcessor: PostProcessor
  config: TokenizerConfig
  decode(ids: number[], cleansUp: boolean): string
  save: Saver
  /** Source for GGUF files: byte-level BPE, or a SentencePiece model. */
  source?: TokenizerSource
}

export type TokenizerSource =
  | { kind: 'bytes'; spec: Readonly<Record<string, unknown>>; merges(): readonly (readonly [string, string])[] }
  | { kind: 'sentencepiece'; proto: SentencePieceProto }

export interface EncodeOptions extends TruncationOptions {
  /** Add the model's special tokens. Default true. */
  addSpecialTokens?: boolean
}

export interface EncodeAsyncOptions extends EncodeOptions {
  signal?: AbortSignal
}

export interface EncodeWithinOptions {
  /** Maximum number of tokens. */
  maxTokens: number
  signal?: AbortSignal
}

export interface DecodeOptions {
  /** Leave out special tokens. Default false. */
  skipSpecialTokens?: boolean
  /** Remove spaces before punctuation. Default: `clean_up_tokenization_spaces` of the configuration. */
  cleanUpSpaces?: boolean
}

/**
 * Tokenizer: converts text to token ids, and back.
 *
 * ```ts
 * const tokenizer = await Tokenizer.fromPretrained('./roberta-base')
 * tokenizer.encode('Hello world!').inputIds // [0, 31414, 232, 328, 2]
 * ```
 */
export class Tokenizer {
  readonly #parts: TokenizerParts

  private constructor(parts: TokenizerParts) {
    this.#parts = parts
  }

  /**
   * Load a tokenizer from a folder in Hugging Face's format, a GGUF file, a repository of the Hugging Face Hub, or a name of
   * `publishedWeights`. In a folder the first of these is read: tokenizer.json; Mistral's tekken.json; a SentencePiece model (tokenizer.model,
   * spiece.model, sentencepiece.bpe.model); vocab.json with merges.txt; vocab.txt; a GGUF file. tokenizer_config.json,
   * special_tokens_map.json, added_tokens.json and chat_template.jinja are read too.
   * @throws DataError naming the file, and the entry or byte, for an invalid file; ConfigError without a tokenizer, or for
   *   unsupported settings
   */
  static async fromPretrained(directory: string): Promise<Tokenizer> {
    requireString('Tokenizer.fromPretrained', 'directory', directory)
    const isThere = existsSync(directory) || isGguf(directory)
    return new Tokenizer(
      await loadDirectory(isThere ? directory : await resolveModel(directory, { files: TOKENIZER_FILES })),
    )
  }

  /**
   * Load a tokenizer from one file: a tokenizer.json or tekken.json, a SentencePiece `.model`, OpenAI's CLIP merges
   * (`bpe_simple_vocab_16e6.txt.gz`), a WordPiece `vocab.txt`, or a GGUF file. Except for GGUF, it has no configuration.
   * @throws DataError, ConfigError as `fromPretrained`
   */
  static async fromFile(path: string): Promise<Tokenizer> {
    requireString('Tokenizer.fromFile', 'path', path)
    return new Tokenizer(await loadFile(path))
  }

  /** Number of ids: vocabulary and added tokens. An embedding table needs at least the highest id + 1 rows. */
  get vocabSize(): number {
    const { addedTokens, model } = this.#parts.pipeline
    let size = model.size
    for (const [id, { content }] of addedTokens.entries()) {
      if (model.idToToken(id) === undefined && model.tokenToId(content) === undefined) size++
    }
    return size
  }

  tokenToId(token: string): number | undefined {
    requireString('Tokenizer.tokenToId', 'token', token)
    const { addedTokens, model } = this.#parts.pipeline
    return addedTokens.id(token) ?? model.tokenToId(token)
  }

  /** Return the token of an id as in decoded text: an added token is normalized if it is matched in normalized text. */
  idToToken(id: number): string | undefined {
    const { addedTokens, model } = this.#parts.pipeline
    return addedTokens.spelled(id) ?? model.idToToken(id)
  }

  /** Return all tokens with their ids, including added ones. */
  vocabulary(): Map<string, number> {
    const { addedTokens, model } = this.#parts.pipeline
    const all = new Map(model.entries())
    for (const [id, { content }] of addedTokens.entries()) all.set(content, id)
    return all
  }

  get bosToken(): string | null {
    return this.#named('bos')
  }
  get bosTokenId(): number | null {
    return this.#namedId('bos')
  }
  get eosToken(): string | null {
    return this.#named('eos')
  }
  get eosTokenId(): number | null {
    return this.#namedId('eos')
  }
  get unkToken(): string | null {
    return this.#named('unk')
  }
  get unkTokenId(): number | null {
    return this.#namedId('unk')
  }
  get sepToken(): string | null {
    return this.#named('sep')
  }
  get sepTokenId(): number | null {
    return this.#namedId('sep')
  }
  get clsToken(): string | null {
    return this.#named('cls')
  }
  get clsTokenId(): number | null {
    return this.#namedId('cls')
  }
  get maskToken(): string | null {
    return this.#named('mask')
  }
  get maskTokenId(): number | null {
    return this.#namedId('mask')
  }
  get padTokenId(): number | null {
    return this.#namedId('pad')
  }

  /** Padding token. Many language models have none; set `tokenizer.padToken = tokenizer.eosToken`. */
  get padToken(): string | null {
    return this.#named('pad')
  }
  set padToken(token: string | null) {
    if (token !== null && this.tokenToId(token) === undefined) {
      throw new ConfigError(
        `Tokenizer: padToken: expected a token of the vocabulary, got ${JSON.stringify(token)}. Add it with addSpecialTokens first.`,
        {
          argument: 'padToken',
          value: token,
        },
      )
    }
    if (token === null) delete this.#parts.config.special.pad
    else this.#parts.config.special.pad = token
  }

  /** Return the metadata of this tokenizer in a GGUF file of a model with `rows` embeddings. @internal */
  ggufMetadata(rows: number): Record<string, GgufValue> {
    const ids = this.encode('a').inputIds
    return {
      ...ggufOf(this.#parts, rows),
      'tokenizer.ggml.add_bos_token': this.bosTokenId !== null && ids[0] === this.bosTokenId,
      'tokenizer.ggml.add_eos_token': this.eosTokenId !== null && ids.at(-1) === this.eosTokenId,
    }
  }

  /** Longest input of the model in tokens; null for no limit. */
  get modelMaxLength(): number | null {
    return this.#parts.config.modelMaxLength
  }
  set modelMaxLength(length: number | null) {
    if (length !== null) requireWhole('Tokenizer', 'modelMaxLength', length, 1)
    this.#parts.config.modelMaxLength = length
  }

  /** Default side of padding. */
  get paddingSide(): 'left' | 'right' {
    return this.#parts.config.paddingSide ?? 'right'
  }

  /** The default template of `applyChatTemplate`; null if the files have none. */
  get chatTemplate(): string | null {
    return this.#parts.config.chatTemplates.default ?? null
  }
  set chatTemplate(template: string | null) {
    if (template === null) delete this.#parts.config.chatTemplates.default
    else {
      requireString('Tokenizer', 'chatTemplate', template)
      this.#parts.config.chatTemplates.default = template
    }
  }

  /** Return whether an id is a special token, which decoding with `skipSpecialTokens` leaves out. */
  isSpecial(id: number): boolean {
    return this.#parts.pipeline.addedTokens.isSpecial(id) || this.#namedIds().has(id)
  }

  /** Return the number of special tokens that are added to one text, or to a pair. */
  specialTokensAdded(pair = false): number {
    return this.#parts.postProcessor.added(pair)
  }

  /**
   * Encode a text or a pair of texts. Texts are only cut with `truncation`.
   * @throws ConfigError for invalid arguments
   */
  encode(text: string | readonly [string, string], options: EncodeOptions = {}): Encoding {
    requireOptions('Tokenizer.encode', options, ['addSpecialTokens', 'truncation', 'maxLength', 'truncationSide'])
    const texts = textsOf('Tokenizer.encode', text)
    const [first, second] = texts
    const { pipeline } = this.#parts
    return this.#complete(texts, pipeline.run(first), second === undefined ? null : pipeline.run(second), options)
  }

  /**
   * Encode a text or a pair of texts like `encode`, without blocking the event loop for more than about 10 ms.
   * @throws ConfigError for invalid arguments; the reason of `signal` when it is aborted
   */
  async encodeAsync(text: string | readonly [string, string], options: EncodeAsyncOptions = {}): Promise<Encoding> {
    const where = 'Tokenizer.encodeAsync'
    requireOptions(where, options, ['addSpecialTokens', 'truncation', 'maxLength', 'truncationSide', 'signal'])
    requireSignal(where, options.signal)
    const texts = textsOf(where, text)
    const [first, second] = texts
    const { pipeline } = this.#parts
    const one = await pipeline.runUnhurried(first, options.signal)
    const two = second === undefined ? null : await pipeline.runUnhurried(second, options.signal)
    return this.#complete(texts, one, two, options)
  }

  /** Truncate, and add special tokens. */
  #complete(
    [first, second]: [string, string | undefined],
    one: Encoding,
    two: Encoding | null,
    options: EncodeOptions,
  ): Encoding {
    const { postProcessor, config } = this.#parts
    const { addSpecialTokens = true } = options
    const added = addSpecialTokens ? postProcessor.added(two !== null) : 0
    const [kept, keptPair] = truncate(one, two, added, options, config)
    postProcessor.trim?.(kept, first)
    if (keptPair !== null) postProcessor.trim?.(keptPair, second!)
    return postProcessor.process(kept, keptPair, addSpecialTokens)
  }

  /**
   * Encode an untrusted text up to `maxTokens`, without special tokens and without blocking the event loop. The ids are those of
   * `encode`.
   * @returns undefined if the text has more tokens
   * @throws ConfigError for invalid arguments; the reason of `signal` when it is aborted
   */
  async encodeWithin(text: string, options: EncodeWithinOptions): Promise<number[] | undefined> {
    const where = 'Tokenizer.encodeWithin'
    requireString(where, 'text', text)
    const { maxTokens, ...rest } = withinOptions(where, options)
    return encodeInSlices(this.#parts.pipeline, text, { most: maxTokens, ...rest })
  }

  /**
   * Return whether a text certainly has more tokens than `maxTokens`, without special tokens and without blocking the event loop. If
   * false, it may have a few more tokens.
   * @throws ConfigError as `encodeWithin`; the reason of `signal` when it is aborted
   */
  async exceeds(text: string, options: EncodeWithinOptions): Promise<boolean> {
    const where = 'Tokenizer.exceeds'
    requireString(where, 'text', text)
    const { maxTokens, ...rest } = withinOptions(where, options)
    return surelyHasMore(this.#parts.pipeline, text, { most: maxTokens, ...rest })
  }

  /**
   * Encode several texts, padded to one length with `padding`.
   * @returns columns of `[batch, length]`: arrays, or int64 tensors with `returnTensors: true`
   * @throws ConfigError for invalid arguments, padding without a pad token, and tensors of unequal lengths
   */
  encodeBatch(
    texts: readonly (string | readonly [string, string])[],
    options: BatchOptions & { returnTensors: true },
  ): TensorBatch
  encodeBatch(texts: readonly (string | readonly [string, string])[], options?: BatchOptions): BatchEncoding
  encodeBatch(
    texts: readonly (string | readonly [string, string])[],
    options: BatchOptions = {},
  ): BatchEncoding | TensorBatch {
    return encodeBatch(this, this.#parts.config, texts, options)
  }

  /**
   * Decode ids to text. Ids without a token are skipped.
   * @throws ConfigError for values that are not ids
   */
  decode(ids: Iterable<number | bigint>, options: DecodeOptions = {}): string {
    requireOptions('Tokenizer.decode', options, ['skipSpecialTokens', 'cleanUpSpaces'])
    const { skipSpecialTokens = false, cleanUpSpaces = this.#parts.config.cleanUpSpaces } = options
    let wanted = idsOf('Tokenizer.decode', ids)
    if (skipSpecialTokens) {
      const skips = this.#skips()
      wanted = wanted.filter((id) => !skips(id))
    }
    return this.#parts.decode(wanted, cleanUpSpaces)
  }

  decodeBatch(rows: Iterable<Iterable<number | bigint>>, options: DecodeOptions = {}): string[] {
    return Array.from(rows, (row) => this.decode(row, options))
  }

  /** Return a decoder for streaming, token by token: see {@link DecodeStream}. */
  decodeStream(options: Pick<DecodeOptions, 'skipSpecialTokens'> = {}): DecodeStream {
    requireOptions('Tokenizer.decodeStream', options, ['skipSpecialTokens'])
    const { skipSpecialTokens = false } = options
    const skips = skipSpecialTokens ? this.#skips() : () => false
    return new DecodeStream((ids) => this.#parts.decode(ids, false), skips)
  }

  /**
   * Add tokens that are matched in the text before all other steps. Encoding time does not depend on their number.
   * @returns number of new tokens
   */
  addTokens(tokens: Iterable<AddedTokenInput>): number {
    return this.#add('Tokenizer.addTokens', tokens, false)
  }

  /** Add tokens as `addTokens`, which `skipSpecialTokens` leaves out. */
  addSpecialTokens(tokens: Iterable<AddedTokenInput>): number {
    return this.#add('Tokenizer.addSpecialTokens', tokens, true)
  }

  #add(where: string, tokens: Iterable<AddedTokenInput>, special: boolean): number {
    if (typeof tokens === 'string' || typeof tokens?.[Symbol.iterator] !== 'function') {
      throw argumentError(where, 'tokens', 'a list of texts or token objects', tokens)
    }
    const { addedTokens, model } = this.#parts.pipeline
    let added = 0
    for (const input of [...tokens].map((token) => completeToken(where, token, special))) {
      if (input.content === '') continue
      const known = addedTokens.id(input.content) ?? model.tokenToId(input.content)
      addedTokens.add(known ?? nextId(addedTokens, model), input)
      if (known === undefined) added++
    }
    return added
  }

  /**
   * Render a conversation with a chat template, as transformers' `apply_chat_template` does.
   * @returns token ids; with `tokenize: false` the text; with `returnAssistantTokensMask` ids and mask
   * @throws ConfigError without a template, or if it raises an exception; DataError with line and column for an invalid template
   */
  applyChatTemplate(messages: readonly ChatMessage[], options: ChatOptions & { tokenize: false }): string
  applyChatTemplate(
    messages: readonly ChatMessage[],
    options: ChatOptions & { tokenize?: true; returnAssistantTokensMask: true },
  ): ChatEncoding
  applyChatTemplate(
    messages: readonly ChatMessage[],
    options?: ChatOptions & { tokenize?: true; returnAssistantTokensMask?: false },
  ): number[]
  applyChatTemplate(messages: readonly ChatMessage[], options: ChatOptions = {}): string | number[] | ChatEncoding {
    const { text, generated } = this.renderChat(messages, options)
    if (options.tokenize === false) return text
    const { inputIds, offsets } = this.encode(text, { addSpecialTokens: false })
    if (!options.returnAssistantTokensMask) return inputIds
    const assistantMasks = inputIds.map(() => 0)
    let at = 0
    // Blocks are in order, so each token is visited once.
    const tokenAt = (character: number): number => {
      while (at < offsets.length && offsets[at]![1] <= character) at++
      return at < offsets.length && offsets[at]![0] <= character ? at : -1
    }
    for (const [start, end] of generated) {
      if (end === start) continue
      const first = tokenAt(start)
      if (first === -1) break
      // As in transformers: if no token, or the first one, contains the last character, the mask extends to the end.
      const last = tokenAt(end - 1)
      assistantMasks.fill(1, first, last > 0 ? last + 1 : inputIds.length)
    }
    return { inputIds, assistantMasks }
  }

  /** Render a conversation with a chat template as text, with the ranges of its `{% generation %}` blocks. @internal */
  renderChat(messages: readonly ChatMessage[], options: ChatOptions = {}): Rendered {
    return renderChat(messages, options, this.#parts.config)
  }

  /**
   * Save the tokenizer with its added tokens for `fromPretrained` and Python's transformers: tokenizer.json or tokenizer.model,
   * tokenizer_config.json and special_tokens_map.json.
   * @throws DataError if a file cannot be written
   */
  saveTo(directory: string): void {
    requireString('Tokenizer.saveTo', 'directory', directory)
    this.#parts.save(directory, this.#parts.pipeline.addedTokens, this.#parts.config)
  }

  #named(name: SpecialName): string | null {
    return this.#parts.config.special[name] ?? null
  }

  #namedIds(): Set<number | undefined> {
    return new Set(Object.values(this.#parts.config.special).map((token) => this.tokenToId(token)))
  }

  /** Whether `skipSpecialTokens` leaves out an id. As in tokenizers, a special token that its normalizer changes is kept. */
  #skips(): (id: number) => boolean {
    const { addedTokens } = this.#parts.pipeline
    const named = this.#namedIds()
    return (id) =>
      (named.has(id) || addedTokens.isSpecial(id)) && addedTokens.spelled(id) === addedTokens.get(id)?.content
  }

  #namedId(name: SpecialName): number | null {
    const token = this.#named(name)
    return token === null ? null : (this.tokenToId(token) ?? null)
  }
}

function withinOptions(where: string, options: EncodeWithinOptions) {
  requireOptions(where, options, ['maxTokens', 'signal'])
  const { maxTokens, signal } = options
  requireWhole(where, 'maxTokens', maxTokens)
  requireSignal(where, signal)
  return { maxTokens, ...(signal && { signal }) }
}

function textsOf(where: string, text: string | readonly [string, string]): [string, string | undefined] {
  if (typeof text === 'string') return [text, undefined]
  if (Array.isArray(text) && text.length === 2 && text.every((one) => typeof one === 'string')) {
    return [text[0], text[1]]
  }
  throw argumentError(where, 'text', 'a string or a pair of strings', text)
}

function idsOf(where: string, ids: Iterable<number | bigint>): number[] {
  if (typeof ids === 'string' || typeof ids?.[Symbol.iterator] !== 'function') {
    throw argumentError(where, 'ids', 'a list of ids', ids)
  }
  return Array.from(ids, (id) => {
    const number = Number(id)
    if (!Number.isSafeInteger(number) || number < 0) throw argumentError(where, 'ids', 'integers of at least 0', id)
    return number
  })
}
