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

/** How an answer is written; what is left out is the model's own. */
export interface SalmonnAnswerOptions
  extends Pick<SalmonnGenerateOptions, 'maxNewTokens' | 'topP' | 'topK' | 'numBeams' | 'signal' | 'loraScale'> {
  /** 0 takes the likeliest token each time, as does leaving it out. */
  temperature?: number | null
  seed?: number
  /** Texts that end the answer, and are not part of it. */
  stop?: readonly string[]
}

export interface SalmonnChatSettings extends SalmonnChatOptions {
  /** Default 'salmonn'. */
  name?: string
  /** Conversations whose audio and text are kept for their next turn. Default 2. */
  conversations?: number
  /**
   * Answers at once, which are written in the same passes; their limits, and how much of prompts a pass reads. Default 8.
   * What is kept of a conversation is `conversations`' matter.
   */
  batching?: Omit<ContinuousBatchingOptions, 'prefixCacheBytes'>
}

/**
 * SALMONN in conversation: messages in, the answer out as it is written. Each call has the whole conversation, and what
 * was read of it in earlier turns, above all its audio, is not read again. Several conversations may go on at once.
 *
 * Its caches live as long as it does: `dispose()` it, or declare it with `using`. The model is not disposed with it.
 */
export class SalmonnChat {
  readonly model: Salmonn
  readonly name: string
  /** Answers at once. */
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
   * The answer to the last message. Leaving the loop, or the signal, ends it.
   * @throws ConfigError for messages that are no conversation of texts and sounds
   */
  async *stream(
    messages: readonly SalmonnChatMessage[] | readonly ChatTurn[],
    options: SalmonnAnswerOptions = {},
  ): AsyncGenerator<{ text: string; tokens: number; promptTokens?: number }, void, void> {
    const { maxPositionEmbeddings: room } = this.model.llm.config
    // Parts of other kinds are refused below.
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

  /** For `/metrics`. */
  metrics(): Record<string, number> {
    const { running, waiting } = this.#batching.stats()
    return { batch_running: running, batch_waiting: waiting }
  }

  /** Ends what is being written, and frees what is kept of all conversations. */
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
