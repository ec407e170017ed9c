import { misuse, requireOneOf, requireString, requireWhole } from '../../../base/check.js'
import { ConfigError, DataError } from '../../../base/errors.js'
import { ContinuousBatching } from '../../../generation/batching.js'
import type { GenerationConfig } from '../../../generation/config.js'
import type { DecoderLMConfig } from '../../../models/decoder/config.js'
import { DecoderLM } from '../../../models/decoder/decoder-lm.js'
import { evaluating } from '../../../nn/index.js'
import { scope, tensor } from '../../../tensor/index.js'
import { Tokenizer } from '../../../text/index.js'
import type { EmoVerseSampleTokens } from '../data/collate.js'
import { MEDIA_KEYS, MEDIA_MARKERS, type SwiftRecord } from '../data/entry.js'
import {
  EMOVERSE_TEMPLATES,
  type EmoVerseTemplate,
  encodePieces,
  piecesOf,
  taskOf,
  templateOf,
} from '../data/prompt.js'
import { EMOVERSE_SYSTEM } from '../published/wording.js'
import {
  type EmoVerseStages,
  type LoadEmoVerseOptions,
  loadEmoVerse,
  type NewEmoVerseOptions,
  newEmoVerse,
  saveEmoVerse,
} from './files.js'

/** What an EmoVerse is made of. */
export interface EmoVerseParts {
  model: DecoderLM
  tokenizer: Tokenizer
  /** How turns are written. Default: by the tokenizer's tokens. */
  template?: EmoVerseTemplate
  /** Where a record has none. Default {@link EMOVERSE_SYSTEM}; null for none at all. */
  system?: string | null
}

export interface EmoVerseGenerateOptions extends GenerationConfig {
  /** Prompts of more tokens are refused. Default: no limit. */
  maxLength?: number
  /** 'published': such a prompt is answered with '' instead, as ms-swift 2.6 does. */
  compat?: 'published'
  /** Prompts that are answered at a time. Default 8. */
  batchSize?: number
  signal?: AbortSignal
}

/** An answer, and how it came about. */
export interface EmoVerseAnswer {
  text: string
  /** Tokens that were written. */
  tokens: number
}

/** Memory of what prompts begin with, which others that begin alike need not read again. */
const PREFIX_BYTES = 128e6

/**
 * EmoVerse (Li et al. 2024, https://arxiv.org/abs/2412.08049): a language model that was taught tasks of sentiment and emotion
 * by instructions. Without a network for pictures, as here, it reads the words alone: markers of media are left out of the text,
 * and {@link EmoVerse.seesMedia} says so.
 */
export class EmoVerse {
  readonly model: DecoderLM
  readonly tokenizer: Tokenizer
  readonly template: EmoVerseTemplate
  readonly system: string | null

  /** It owns the network: `dispose()` it. */
  constructor(parts: EmoVerseParts) {
    const where = 'EmoVerse'
    const { model, tokenizer, template, system = EMOVERSE_SYSTEM } = parts ?? {}
    if (!(model instanceof DecoderLM)) throw misuse(where, 'model', 'a DecoderLM', model)
    if (!(tokenizer instanceof Tokenizer)) throw misuse(where, 'tokenizer', 'a Tokenizer', tokenizer)
    if (template !== undefined) requireOneOf(where, 'template', template, Object.keys(EMOVERSE_TEMPLATES))
    if (system !== null) requireString(where, 'system', system)
    this.model = model
    this.tokenizer = tokenizer
    this.template = template ?? templateOf(tokenizer)
    this.system = system
  }

  /**
   * Reads a whole model, or a base with the adapters of its stages, which are added to its weights one after the other. Blocks of a
   * GGUF file become numbers, since they cannot take adapters in.
   *
   * ```ts
   * using model = await EmoVerse.fromPretrained({ base: 'smollm2-135m-instruct', adapters: ['run/stage-1/adapter', 'run/stage-2/adapter'] })
   * ```
   * @throws CheckpointError for an adapter that does not fit; else as `DecoderLM.fromPretrained`
   */
  static async fromPretrained(from: string | EmoVerseStages, options: LoadEmoVerseOptions = {}): Promise<EmoVerse> {
    return new EmoVerse(await loadEmoVerse(from, options))
  }

  /** One with random weights. @throws ConfigError as `DecoderLM.fromConfig` */
  static fromConfig(config: DecoderLMConfig | string, options: NewEmoVerseOptions): EmoVerse {
    return new EmoVerse(newEmoVerse(config, options))
  }

  /** Whether pictures and films reach the network; else only the words of a record do. */
  get seesMedia(): boolean {
    return false
  }

  /**
   * A record as tokens, each piece made tokens by itself as ms-swift does. With `answer` (default) it ends with the answer, and
   * all answers are labels; else where the answer begins.
   * @throws DataError for a record without an answer where it is wanted
   */
  encode(record: SwiftRecord, { answer = true }: { answer?: boolean } = {}): EmoVerseSampleTokens {
    const { template, system, tokenizer } = this
    const pieces = piecesOf(withoutMarkers(record), { template, system, answer })
    return { ...encodePieces(tokenizer, pieces), task: taskOf(record) }
  }

  /** Tokens of a record, as limits of data count them. */
  lengthOf = (record: SwiftRecord): { text: number; expanded: number } => {
    const media = MEDIA_KEYS.reduce((sum, key) => sum + (record[key]?.length ?? 0), 0)
    const { length } = this.encode(record, { answer: record.response !== null }).inputIds
    // Each counts as one there, whatever becomes of it.
    return { text: length + media, expanded: length }
  }

  /**
   * Answers records: greedily, or as the options say. Those that begin alike share what was read of it.
   * @throws DataError naming the record for a prompt that is too long, unless `compat` is 'published'
   */
  async generate(records: readonly SwiftRecord[], options: EmoVerseGenerateOptions = {}): Promise<EmoVerseAnswer[]> {
    const where = 'EmoVerse.generate'
    if (!Array.isArray(records)) throw misuse(where, 'records', 'a list of records', records)
    const { maxLength, compat, batchSize = 8, signal, ...config } = options
    if (maxLength !== undefined) requireWhole(where, 'maxLength', maxLength, 1)
    requireWhole(where, 'batchSize', batchSize, 1)
    if (compat !== undefined) requireOneOf(where, 'compat', compat, ['published'])
    const prompts = records.map((record, i) => {
      const { inputIds } = this.encode(record, { answer: false })
      if (maxLength === undefined || inputIds.length <= maxLength) return inputIds
      if (compat === 'published') return undefined
      throw new DataError(
        `Record ${i + 1} of ${records.length} has ${inputIds.length} tokens, more than ${maxLength}`,
        {
          record: i + 1,
          length: inputIds.length,
          most: maxLength,
        },
      )
    })
    const settings: GenerationConfig = { maxNewTokens: 2048, ...config, ...this.#end() }
    return evaluating(this.model, async () => {
      using batching = new ContinuousBatching(this.model, { maxNumSeqs: batchSize, prefixCacheBytes: PREFIX_BYTES })
      // Awaited here: what is declared with `using` is freed when the function returns.
      return await Promise.all(
        prompts.map(async (ids) => {
          if (ids === undefined) return { text: '', tokens: 0 }
          const written = await scope(async () => {
            const inputIds = tensor([ids], { dtype: 'int64', device: this.#device() })
            const { tokens } = await this.model.generate({ inputIds }, settings, {
              batching,
              ...(signal && { signal }),
            })
            return tokens[0] as number[]
          })
          return { text: this.textOf(written), tokens: written.length }
        }),
      )
    })
  }

  /**
   * The text of an answer's tokens: without one token that ends a text at its end, and without what ends an answer. Other special
   * tokens stay, as in ms-swift.
   */
  textOf(tokens: readonly number[]): string {
    const { end } = EMOVERSE_TEMPLATES[this.template]
    const ids = tokens.at(-1) === this.tokenizer.eosTokenId ? tokens.slice(0, -1) : tokens
    const text = this.tokenizer.decode(ids, { skipSpecialTokens: false })
    return text.endsWith(end) ? text.slice(0, -end.length) : text
  }

  /** What ends an answer, as the generation knows it. */
  #end(): GenerationConfig {
    const { end } = EMOVERSE_TEMPLATES[this.template]
    const { tokenizer } = this
    const id = tokenizer.tokenToId(end)
    const ends = [id, tokenizer.eosTokenId].filter((one): one is number => one !== undefined && one !== null)
    if (ends.length === 0) throw new ConfigError(`The tokenizer has no token that ends an answer, as ${end} does`, {})
    const spelled = id === undefined ? tokenizer.encode(end, { addSpecialTokens: false }).inputIds : undefined
    return { eosTokenId: [...new Set(ends)], ...(spelled && { stopSequences: [spelled] }) }
  }

  #device() {
    return this.model.parameters()[0]?.device ?? 'cpu'
  }

  /** Writes a folder that {@link EmoVerse.fromPretrained} reads, and transformers. */
  save(folder: string): Promise<void> {
    return saveEmoVerse(folder, this)
  }

  /** Frees the network. */
  dispose(): void {
    this.model.dispose()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}

/** The texts of a record for a network that sees nothing. */
function withoutMarkers(record: SwiftRecord): SwiftRecord {
  const without = (text: string) =>
    Object.values(MEDIA_MARKERS).reduce((rest, marker) => rest.replaceAll(marker, ''), text)
  const { history, query, response } = record
  return {
    ...record,
    query: without(query),
    response: response === null ? null : without(response),
    ...(history && { history: history.map(([asked, said]) => [without(asked), without(said)] as [string, string]) }),
  }
}
