import { statSync } from 'node:fs'
import { argumentError, requireOneOf, requireOptions, requireString, requireWhole } from '../../base/check.js'
import { ConfigError } from '../../base/errors.js'
import { HUB_OPTIONS, type ResolveModelOptions, resolveModel } from '../../hub/resolve.js'
import type { Tensor } from '../../tensor/index.js'
import { Tokenizer } from '../../text/index.js'

export interface ClipEncodeOptions {
  /** Padding to `maxLength` (default), or to the longest text. Embeddings do not depend on it. */
  padding?: 'maxLength' | 'longest'
  /** Maximum number of tokens of a text, including start and end; longer texts are cut. Default 77. */
  maxLength?: number
}

export interface ClipTokens {
  /** int64 [texts, time] */
  inputIds: Tensor
  /** int64 [texts, time], 1 for tokens and 0 for padding. */
  attentionMask: Tensor
}

const FILES = ['tokenizer.json', 'tokenizer_config.json', 'special_tokens_map.json', 'added_tokens.json']

/**
 * CLIP's tokenizer, as transformers' CLIPTokenizer: byte-level BPE of lower-cased text, padded to 77 tokens with the end token.
 *
 * ```ts
 * const tokenizer = await ClipTokenizer.fromPretrained('openai/clip-vit-base-patch32')
 * const { inputIds, attentionMask } = tokenizer.encode(['a dog', 'a cat'])
 * ```
 */
export class ClipTokenizer {
  readonly tokenizer: Tokenizer
  /** Maximum number of tokens of a text, including start and end. */
  readonly maxLength: number
  readonly #start: number
  readonly #end: number

  /** @throws ConfigError for a tokenizer without start or end token */
  constructor(tokenizer: Tokenizer) {
    if (!(tokenizer instanceof Tokenizer)) throw argumentError('ClipTokenizer', 'tokenizer', 'a Tokenizer', tokenizer)
    const { bosTokenId, eosTokenId, eosToken } = tokenizer
    if (bosTokenId === null || eosTokenId === null) {
      throw new ConfigError(
        'ClipTokenizer: tokenizer: expected a bosToken and an eosToken, got a tokenizer without. Use one of CLIP.',
        {},
      )
    }
    if (tokenizer.padToken === null) tokenizer.padToken = eosToken
    this.tokenizer = tokenizer
    this.maxLength = Math.min(tokenizer.modelMaxLength ?? 77, 77)
    this.#start = bosTokenId
    this.#end = eosTokenId
  }

  /**
   * Load the tokenizer of a directory or hub repository in transformers' layout (vocab.json and merges.txt, or tokenizer.json), such
   * as those of CLIP and LanguageBind; or OpenAI's file of merges, `bpe_simple_vocab_16e6.txt.gz`.
   * @throws DataError, ConfigError as `Tokenizer.fromPretrained`
   */
  static async fromPretrained(from: string, options: Omit<ResolveModelOptions, 'files'> = {}): Promise<ClipTokenizer> {
    const where = 'ClipTokenizer.fromPretrained'
    requireString(where, 'from', from)
    requireOptions(where, options, HUB_OPTIONS)
    if (statSync(from, { throwIfNoEntry: false })?.isFile()) return new ClipTokenizer(await Tokenizer.fromFile(from))
    const directory = await resolveModel(from, { ...options, files: [...FILES, 'vocab.json', 'merges.txt'] })
    return new ClipTokenizer(await Tokenizer.fromPretrained(directory))
  }

  get startTokenId(): number {
    return this.#start
  }
  /** Id of the end token, which is also the padding. */
  get endTokenId(): number {
    return this.#end
  }

  /** Encode texts as token ids. @throws ConfigError for wrong arguments */
  encode(texts: string | readonly string[], options: ClipEncodeOptions = {}): ClipTokens {
    const where = 'ClipTokenizer.encode'
    requireOptions(where, options, ['padding', 'maxLength'])
    const list = typeof texts === 'string' ? [texts] : texts
    if (!Array.isArray(list) || list.length === 0 || !list.every((text) => typeof text === 'string')) {
      throw argumentError(where, 'texts', 'a string or a list of at least one', texts)
    }
    const { padding = 'maxLength', maxLength = this.maxLength } = options
    requireOneOf(where, 'padding', padding, ['maxLength', 'longest'])
    requireWhole(where, 'maxLength', maxLength, 2)
    const encoded = this.tokenizer.encodeBatch(list, {
      padding,
      maxLength,
      truncation: true,
      paddingSide: 'right',
      returnTensors: true,
    })
    encoded.tokenTypeIds.dispose()
    encoded.specialTokensMask.dispose()
    return { inputIds: encoded.inputIds, attentionMask: encoded.attentionMask }
  }

  /** Decode token ids to text, without special tokens. */
  decode(ids: Iterable<number | bigint>): string {
    return this.tokenizer.decode(ids, { skipSpecialTokens: true })
  }
}
