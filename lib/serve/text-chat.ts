import { argumentError, defined, requireObject, requireOptions, requireString } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { ContinuousBatching, type ContinuousBatchingOptions } from '../generation/batching.js'
import type { GenerationConfig } from '../generation/config.js'
import type { GenerateOptions, GenerateOutput, GenerateStep } from '../generation/generate.js'
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

/** Continuous batching by default. */
export const DEFAULT_BATCHING: ContinuousBatchingOptions = { maxNumSeqs: 8, prefixCacheBytes: 256 * 2 ** 20 }

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
    requirePositions(this.name, ids?.length, maxNewTokens, most)
    if (ids === undefined)
      throw new ConfigError(`${this.name}: messages: expected at most ${MOST_TOKENS} tokens, got more`, {})
    const generator = seed === undefined ? undefined : new Generator({ seed })
    const inputIds = tensor([ids], { device: this.model.parameters()[0]?.device ?? 'cpu' })
    const control: GenerateOptions = { batching: this.#batching, ...defined({ signal, generator }) }
    try {
      const ends = this.model.generationConfig.eosTokenId ?? this.tokenizer.eosTokenId
      const config = answerConfig(ends, options)
      yield* answerOf(this.tokenizer, ids.length, config, {
        generate: () => this.model.generate({ inputIds }, config, control),
        stream: () => this.model.stream({ inputIds }, config, control),
      })
    } finally {
      inputIds.dispose()
      generator?.dispose()
    }
  }

  /** Return the gauges of `/metrics`: running and waiting sequences, size of the prefix cache. */
  metrics(): Record<string, number> {
    return batchingMetrics(this.#batching)
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
}

/** Return the gauges of a batching. */
export function batchingMetrics(batching: ContinuousBatching): Record<string, number> {
  const { running, waiting, prefixCache, mediaCache } = batching.stats()
  return {
    batch_running: running,
    batch_waiting: waiting,
    prefix_cache_texts: prefixCache.texts,
    prefix_cache_bytes: prefixCache.bytes,
    media_cache_windows: mediaCache.windows,
    media_cache_bytes: mediaCache.bytes,
  }
}

/**
 * Refuse a conversation that leaves too few positions for the answer.
 * @param tokens tokens of the conversation; undefined for more than `most`
 */
export function requirePositions(
  name: string,
  tokens: number | undefined,
  maxNewTokens: number,
  most: number | undefined,
): void {
  if (most === undefined || (tokens !== undefined && tokens + maxNewTokens <= most)) return
  const [count, left] = tokens === undefined ? [`more than ${most}`, 0] : [tokens, Math.max(0, most - tokens)]
  throw new ConfigError(
    `${name}: expected at most ${most} tokens for the conversation and the answer, but the conversation has ${count}, which leaves ${left} for the answer, and maxNewTokens is ${maxNewTokens}. Shorten the conversation or lower maxNewTokens.`,
    { tokens, maxNewTokens, maxPositionEmbeddings: most },
  )
}

/** Return the generation settings of an answer. @param ends tokens that end it */
export function answerConfig(
  ends: number | readonly number[] | null | undefined,
  { maxNewTokens, temperature, topP, topK, numBeams }: ChatAnswerOptions,
): GenerationConfig {
  return {
    ...defined({ maxNewTokens, topP, topK, numBeams }),
    ...(ends == null ? {} : { eosTokenId: ends as number | number[] }),
    ...(temperature === undefined ? {} : temperature > 0 ? { doSample: true, temperature } : { doSample: false }),
  }
}

/** Yield an answer token by token, or with beams at once. */
export async function* answerOf(
  tokenizer: Tokenizer,
  promptTokens: number,
  config: GenerationConfig,
  { generate, stream }: { generate(): Promise<GenerateOutput>; stream(): AsyncIterable<GenerateStep> },
): AsyncGenerator<ChatDelta, void, void> {
  if ((config.numBeams ?? 1) > 1) {
    const { tokens } = await generate()
    const answer = tokens[0] ?? []
    yield { text: tokenizer.decode(answer, { skipSpecialTokens: true }), tokens: answer.length, promptTokens }
    return
  }
  const decoder = tokenizer.decodeStream({ skipSpecialTokens: true })
  for await (const { tokens, cachedTokens } of stream()) {
    const text = decoder.push(tokens[0] as number)
    yield { text, tokens: 1, promptTokens, ...defined({ cachedTokens }) }
  }
  const rest = decoder.end()
  if (rest !== '') yield { text: rest, tokens: 0, promptTokens }
}
