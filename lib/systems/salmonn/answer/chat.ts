import { requireObject, requireWhole } from '../../../base/check.js'
import { requireForm } from '../../../base/form.js'
import { ContinuousBatching, type ContinuousBatchingOptions } from '../../../generation/batching.js'
import { Conversations, requireRoom, untilStop } from '../../../kit/chat.js'
import type { ChatTurn } from '../../../serve/chat-model.js'
import { Generator } from '../../../tensor/index.js'
import { SalmonnCache } from '../network/cache.js'
import type { SalmonnStep } from '../network/generate.js'
import type { Salmonn, SalmonnGenerateOptions } from '../network/network.js'
import { type SalmonnChatMessage, type SalmonnChatOptions, salmonnChatPrompt } from './chat-prompt.js'

/** Options of an answer. Defaults are those of the model. */
export interface SalmonnAnswerOptions
  extends Pick<SalmonnGenerateOptions, 'maxNewTokens' | 'topP' | 'topK' | 'numBeams' | 'signal' | 'loraScale'> {
  /** Sampling temperature. 0 or no value selects greedy decoding. */
  temperature?: number | null
  seed?: number
  /** Stop strings, which end the answer and are not part of it. */
  stop?: readonly string[]
}

export interface SalmonnChatSettings extends SalmonnChatOptions {
  /** Model name. Default 'salmonn'. */
  name?: string
  /** Number of conversations whose keys and values stay cached for their next turn. Default 2. */
  conversations?: number
  /**
   * Continuous batching of answers: at most `maxNumSeqs` (default 8) run concurrently in one batch. Prefix caching is set by
   * `conversations`.
   */
  batching?: Omit<ContinuousBatchingOptions, 'prefixCacheBytes'>
}

/**
 * SALMONN as a chat model: it takes messages and streams the answer. Each call receives the whole conversation; keys and values of earlier
 * turns, in particular of their audio, are reused. Several conversations can run concurrently.
 *
 * Call `dispose()`, or declare it with `using`, to free its caches. The model is not disposed.
 */
export class SalmonnChat {
  readonly model: Salmonn
  readonly name: string
  /** Number of answers that are generated concurrently. */
  readonly concurrent: number
  readonly #template: SalmonnChatOptions
  readonly #batching: ContinuousBatching
  readonly #conversations: Conversations<SalmonnCache>

  constructor(model: Salmonn, settings: SalmonnChatSettings = {}) {
    requireForm('SalmonnChat', 'model', model, { config: { endSymbol: 'string', 'template?': 'string' } })
    requireObject('SalmonnChat', 'settings', settings)
    const { name = 'salmonn', conversations = 2, batching = {}, ...template } = settings
    requireWhole('SalmonnChat', 'conversations', conversations)
    this.model = model
    this.name = name
    requireObject('SalmonnChat', 'batching', batching)
    this.#batching = new ContinuousBatching(model.llm, { maxNumSeqs: 8, ...batching })
    this.concurrent = batching.maxNumSeqs ?? 8
    this.#conversations = new Conversations(() => new SalmonnCache(), conversations)
    const { endSymbol: endOfTurn, template: own } = model.config
    this.#template = { endOfTurn, template: own, ...template }
  }

  /**
   * Stream the answer to the last message. Leaving the loop, or aborting the signal, ends the generation.
   * @throws ConfigError for messages that do not form a conversation of text and audio
   */
  async *stream(
    messages: readonly SalmonnChatMessage[] | readonly ChatTurn[],
    options: SalmonnAnswerOptions = {},
  ): AsyncGenerator<{ text: string; tokens: number; promptTokens?: number }, void, void> {
    const { maxPositionEmbeddings: room } = this.model.llm.config
    // salmonnChatPrompt rejects other kinds of parts.
    const texts = messages as readonly ChatTurn[]
    await requireRoom(this.name, this.model.tokenizer, room, texts, options.signal)
    const prompt = salmonnChatPrompt(messages as readonly SalmonnChatMessage[], this.#template)
    const { temperature, seed, stop = [], ...rest } = options
    const doSample = typeof temperature === 'number' && temperature > 0
    const conversation = this.#conversations.take(prompt.text)
    const generator = seed === undefined ? undefined : new Generator({ seed })
    try {
      const steps = this.model.stream(prompt, {
        ...rest,
        doSample,
        batching: this.#batching,
        ...(doSample && { temperature }),
        ...(generator && { generator }),
        ...(conversation && { cache: conversation.cache }),
      })
      yield* untilStop(piecesOf(steps), stop)
    } finally {
      generator?.dispose()
      conversation?.leave()
    }
  }

  /** Return the counters for `/metrics`. */
  metrics(): Record<string, number> {
    const { running, waiting } = this.#batching.stats()
    return { batch_running: running, batch_waiting: waiting }
  }

  /** Cancel running answers, and free the caches of all conversations. */
  dispose(): void {
    this.#batching.dispose()
    this.#conversations.dispose()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}

async function* piecesOf(steps: AsyncIterable<SalmonnStep>) {
  for await (const { text, tokens, promptTokens } of steps) yield { text, tokens: tokens.length, promptTokens }
}
