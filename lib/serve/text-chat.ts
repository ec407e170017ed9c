import { argumentError, defined, requireObject, requireOptions, requireString } from '../base/check.js'
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
  /** Name of the model in `/v1/models`. Default 'text'. */
  name?: string
  /** Continuous batching and the prefix cache. Default: 8 sequences at once, 256 MiB of cached prefixes. */
  batching?: ContinuousBatchingOptions
}

/** Most tokens of a prompt, for a model without `maxPositionEmbeddings`. */
const MOST_TOKENS = 2 ** 20

const DEFAULT_BATCHING: ContinuousBatchingOptions = { maxNumSeqs: 8, prefixCacheBytes: 256 * 2 ** 20 }

/**
 * A language model as a chat model for `serve`. It applies the tokenizer's chat template and generates several answers at
 * once with continuous batching. A prefix cache keeps system messages and earlier turns.
 *
 * ```ts
 * const model = await DecoderLM.fromPretrained('smollm2-135m-instruct')
 * const chat = new TextChat(model, await Tokenizer.fromPretrained('smollm2-135m-instruct'))
 * await serve(chat, { port: 8080 })
 * ```
 *
 * `dispose()`, or declaring it with `using`, frees its caches. The model itself is not disposed.
 * @throws ConfigError for an unknown setting, or a tokenizer without a chat template
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
      throw new ConfigError('TextChat: tokenizer.chatTemplate: expected a chat template, got null. Set it first.', {})
    }
    requireObject('TextChat', 'batching', batching)
    const options = { ...DEFAULT_BATCHING, ...batching }
    this.#batching = new ContinuousBatching(model, options)
    this.concurrent = options.maxNumSeqs as number
    this.model = model
    this.tokenizer = tokenizer
    this.name = name
  }

  /**
   * Generate the answer to the last message. Leaving the loop, or the signal, ends the generation.
   * @throws ConfigError for a message with other parts than text, and for a conversation that leaves too few positions for `maxNewTokens`
   */
  async *stream(messages: readonly ChatTurn[], options: ChatAnswerOptions): AsyncGenerator<ChatDelta, void, void> {
    const { maxNewTokens, seed, signal } = options
    const { maxPositionEmbeddings: most } = this.model.config
    const ids = await this.#promptOf(messages, most, signal)
    if (most !== undefined && (ids === undefined || ids.length + maxNewTokens > most)) {
      const [tokens, left] = ids === undefined ? [`more than ${most}`, 0] : [ids.length, Math.max(0, most - ids.length)]
      throw new ConfigError(
        `${this.name}: expected at most ${most} tokens for the conversation and the answer, but the conversation has ${tokens}, which leaves ${left} for the answer, and maxNewTokens is ${maxNewTokens}. Shorten the conversation or lower maxNewTokens.`,
        { tokens: ids?.length, maxNewTokens, maxPositionEmbeddings: most },
      )
    }
    if (ids === undefined)
      throw new ConfigError(`${this.name}: messages: expected at most ${MOST_TOKENS} tokens, got more`, {})
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

  /** Return the gauges of `/metrics`: running and waiting sequences, size of the prefix cache. */
  metrics(): Record<string, number> {
    const { running, waiting, prefixCache } = this.#batching.stats()
    return {
      batch_running: running,
      batch_waiting: waiting,
      prefix_cache_texts: prefixCache.texts,
      prefix_cache_bytes: prefixCache.bytes,
    }
  }

  /** End running answers and free the prefix cache. */
  dispose(): void {
    this.#batching.dispose()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }

  async #promptOf(
    messages: readonly ChatTurn[],
    most: number | undefined,
    signal: AbortSignal,
  ): Promise<number[] | undefined> {
    if (!Array.isArray(messages) || messages.length === 0) {
      throw argumentError(this.name, 'messages', 'a list of messages', messages)
    }
    const plain = (messages as readonly ChatTurn[]).map(({ role, content }, i) => {
      const texts = content.map((part) => {
        if (part.type === 'text') return part.text
        throw new ConfigError(`${this.name}: messages[${i}]: expected text, got a part of type ${part.type}.`, {
          index: i,
        })
      })
      return { role, content: texts.join('') }
    })
    await requireRoom(this.name, this.tokenizer, most, messages, signal)
    const text = this.tokenizer.applyChatTemplate(plain, { addGenerationPrompt: true, tokenize: false })
    return this.tokenizer.encodeWithin(text, { maxTokens: most ?? MOST_TOKENS, signal })
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
