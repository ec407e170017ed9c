import { defined, misuse, requireObject, requireOptions, requireString } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { ContinuousBatching, type ContinuousBatchingOptions } from '../generation/batching.js'
import type { GenerationConfig } from '../generation/config.js'
import type { GenerateOptions } from '../generation/generate.js'
import { requireRoom } from '../kit/chat.js'
import type { DecoderLM } from '../models/decoder/decoder-lm.js'
import { tensor } from '../tensor/index.js'
import { Generator } from '../tensor/random.js'
import type { Tokenizer } from '../text/tokenizer.js'
import type { ChatAnswerOptions, ChatDelta, ChatModel, ChatTurn } from './chat-model.js'

export interface TextChatSettings {
  /** As in `/v1/models`. Default 'text'. */
  name?: string
  /** How answers share passes, and beginnings that were read before. Default: 8 at once, and 256 MB of beginnings. */
  batching?: ContinuousBatchingOptions
}

/** Of a prompt for a model that sets no limit. */
const MOST_TOKENS = 2 ** 20

const PRESET: ContinuousBatchingOptions = { maxNumSeqs: 8, prefixCacheBytes: 256 * 2 ** 20 }

/**
 * A language model in conversation, for `serve`: messages in the tokenizer's chat template, answers that are written in the
 * same passes. What a conversation begins with, such as a system message or its earlier turns, is read once.
 *
 * ```ts
 * const model = await DecoderLM.fromPretrained('smollm2-135m-instruct')
 * const chat = new TextChat(model, await Tokenizer.fromPretrained('smollm2-135m-instruct'))
 * await serve(chat, { port: 8080 })
 * ```
 *
 * Its caches live as long as it does: `dispose()` it, or declare it with `using`. The model is not disposed with it.
 * @throws ConfigError for an unknown setting, and a tokenizer without a chat template
 */
export class TextChat implements ChatModel {
  readonly model: DecoderLM
  readonly tokenizer: Tokenizer
  readonly name: string
  readonly inputModalities = ['text'] as const
  /** Answers at once. */
  readonly concurrent: number
  readonly #batching: ContinuousBatching

  constructor(model: DecoderLM, tokenizer: Tokenizer, settings: TextChatSettings = {}) {
    requireOptions('TextChat', settings, ['name', 'batching'])
    requireObject('TextChat', 'tokenizer', tokenizer)
    const { name = 'text', batching = {} } = settings
    requireString('TextChat', 'name', name)
    if (tokenizer.chatTemplate === null) {
      throw new ConfigError('TextChat: the tokenizer has no chat template; set `tokenizer.chatTemplate`', {})
    }
    requireObject('TextChat', 'batching', batching)
    const options = { ...PRESET, ...batching }
    this.#batching = new ContinuousBatching(model, options)
    this.concurrent = options.maxNumSeqs as number
    this.model = model
    this.tokenizer = tokenizer
    this.name = name
  }

  /**
   * The answer to the last message. Leaving the loop, or the signal, ends it.
   * @throws ConfigError for a message with audio, and for a conversation that leaves no room for an answer
   */
  async *stream(messages: readonly ChatTurn[], options: ChatAnswerOptions): AsyncGenerator<ChatDelta, void, void> {
    const { maxNewTokens, seed, signal } = options
    const { maxPositionEmbeddings: room } = this.model.config
    const ids = await this.#promptOf(messages, room, signal)
    if (room !== undefined && (ids === undefined || ids.length + maxNewTokens > room)) {
      const [tokens, left] = ids === undefined ? [`more than ${room}`, 0] : [ids.length, Math.max(0, room - ids.length)]
      throw new ConfigError(
        `${this.name}: the conversation has ${tokens} tokens, which leaves ${left} of ${room} for the answer, not ${maxNewTokens}`,
        { tokens: ids?.length, maxNewTokens, maxPositionEmbeddings: room },
      )
    }
    if (ids === undefined)
      throw new ConfigError(`${this.name}: the conversation has more than ${MOST_TOKENS} tokens`, {})
    const generator = seed === undefined ? undefined : new Generator({ seed })
    const inputIds = tensor([ids], { device: this.model.parameters()[0]?.device ?? 'cpu' })
    const control: GenerateOptions = { batching: this.#batching, ...defined({ signal, generator }) }
    const decoder = this.tokenizer.decodeStream({ skipSpecialTokens: true })
    const promptTokens = ids.length
    try {
      const config = this.#configOf(options)
      if ((config.numBeams ?? 1) > 1) {
        const { tokens } = await this.model.generate({ inputIds }, config, control)
        const answer = tokens[0] ?? []
        yield { text: this.tokenizer.decode(answer, { skipSpecialTokens: true }), tokens: answer.length, promptTokens }
        return
      }
      for await (const { tokens, cachedTokens } of this.model.stream({ inputIds }, config, control)) {
        const text = decoder.push(tokens[0] as number)
        yield { text, tokens: 1, promptTokens, ...defined({ cachedTokens }) }
      }
      const rest = decoder.end()
      if (rest !== '') yield { text: rest, tokens: 0, promptTokens }
    } finally {
      inputIds.dispose()
      generator?.dispose()
    }
  }

  /** For `/metrics`. */
  metrics(): Record<string, number> {
    const { running, waiting, prefixCache } = this.#batching.stats()
    return {
      batch_running: running,
      batch_waiting: waiting,
      prefix_cache_texts: prefixCache.texts,
      prefix_cache_bytes: prefixCache.bytes,
    }
  }

  /** Ends what is being written, and frees what is kept of conversations. */
  dispose(): void {
    this.#batching.dispose()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }

  async #promptOf(
    messages: readonly ChatTurn[],
    room: number | undefined,
    signal: AbortSignal,
  ): Promise<number[] | undefined> {
    if (!Array.isArray(messages) || messages.length === 0) {
      throw misuse(this.name, 'messages', 'a list of messages', messages)
    }
    const plain = (messages as readonly ChatTurn[]).map(({ role, content }, i) => {
      const texts = content.map((part) => {
        if (part.type === 'text') return part.text
        throw new ConfigError(`${this.name} reads text alone, but messages[${i}] has ${part.type}`, { index: i })
      })
      return { role, content: texts.join('') }
    })
    await requireRoom(this.name, this.tokenizer, room, messages, signal)
    const text = this.tokenizer.applyChatTemplate(plain, { addGenerationPrompt: true, tokenize: false })
    return this.tokenizer.encodeWithin(text, { maxTokens: room ?? MOST_TOKENS, signal })
  }

  #configOf({ maxNewTokens, temperature, topP, topK, numBeams }: ChatAnswerOptions): GenerationConfig {
    const { eosTokenId } = this.model.generationConfig
    const ends = eosTokenId ?? this.tokenizer.eosTokenId
    return {
      ...defined({ maxNewTokens, topP, topK, numBeams }),
      ...(ends === null ? {} : { eosTokenId: ends }),
      ...(temperature === undefined ? {} : temperature > 0 ? { doSample: true, temperature } : { doSample: false }),
    }
  }
}
