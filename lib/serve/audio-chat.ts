import { argumentError, defined, requireObject, requireOptions, requireString } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { ContinuousBatching, type ContinuousBatchingOptions } from '../generation/batching.js'
import type { GenerateOptions } from '../generation/generate.js'
import { requireRoom } from '../kit/chat.js'
import type { AudioLM } from '../models/audio-lm/audio-lm.js'
import { familyOf } from '../models/audio-lm/config.js'
import type { AudioLMMessage, AudioLMPrepared } from '../models/audio-lm/processor.js'
import { endOf } from '../models/audio-lm/transcribe.js'
import { scope } from '../tensor/index.js'
import { Generator } from '../tensor/random.js'
import type { Tokenizer } from '../text/tokenizer.js'
import type { ChatAnswerOptions, ChatDelta, ChatModel, ChatTurn } from './chat-model.js'
import { answerConfig, answerOf, batchingMetrics, DEFAULT_BATCHING, requirePositions } from './text-chat.js'

export interface AudioChatSettings {
  /** Name of the model in `/v1/models`. Default 'audio'. */
  name?: string
  /** Continuous batching and the prefix cache. Default: 8 sequences at once, 256 MiB of cached prefixes. */
  batching?: ContinuousBatchingOptions
}

/**
 * A speech language model as a chat model for `serve`: messages have text and audio clips in any order and turn. It generates several
 * answers at once with continuous batching. A clip that is longer than the family takes is refused.
 *
 * ```ts
 * const chat = new AudioChat(await AudioLM.fromPretrained('Qwen/Qwen2-Audio-7B-Instruct'))
 * await serve(chat, { port: 8080 })
 * ```
 *
 * `dispose()`, or declaring it with `using`, frees its caches. The model itself is not disposed.
 * @throws ConfigError for an unknown setting, and a model without a tokenizer or a chat template
 */
export class AudioChat implements ChatModel {
  readonly model: AudioLM
  readonly name: string
  readonly inputModalities = ['text', 'audio'] as const
  /** Answers at once. */
  readonly concurrent: number
  readonly #tokenizer: Tokenizer
  readonly #batching: ContinuousBatching

  constructor(model: AudioLM, settings: AudioChatSettings = {}) {
    requireOptions('AudioChat', settings, ['name', 'batching'])
    const { name = 'audio', batching = {} } = settings
    requireString('AudioChat', 'name', name)
    requireObject('AudioChat', 'batching', batching)
    const { tokenizer } = model
    if (tokenizer === null) {
      throw new ConfigError('AudioChat: expected a model with a tokenizer, got none. Set model.tokenizer.', {})
    }
    if (tokenizer.chatTemplate === null && familyOf(model.config).chatTemplate === undefined) {
      throw new ConfigError(
        'AudioChat: model.tokenizer.chatTemplate: expected a chat template, got null. Set it first.',
        {},
      )
    }
    const options = { ...DEFAULT_BATCHING, ...batching }
    this.#batching = new ContinuousBatching(model.language_model, options)
    this.concurrent = options.maxNumSeqs as number
    this.model = model
    this.#tokenizer = tokenizer
    this.name = name
  }

  /**
   * Generate the answer to the last message. Leaving the loop, or the signal, ends the generation.
   * @throws ConfigError for a message with other parts than text and audio, and for a conversation that leaves too few positions for
   *   `maxNewTokens`; DataError for a clip that is too long for the model
   */
  async *stream(messages: readonly ChatTurn[], options: ChatAnswerOptions): AsyncGenerator<ChatDelta, void, void> {
    const { maxNewTokens, seed, signal } = options
    const { maxPositionEmbeddings: most } = this.model.language_model.config
    const conversation = this.#conversationOf(messages)
    await requireRoom(this.name, this.#tokenizer, most, messages, signal)
    const inputs = await scope(() => this.model.prepare(conversation, { signal }))
    const promptTokens = inputs.inputIds.size(1)
    const generator = seed === undefined ? undefined : new Generator({ seed })
    const control: GenerateOptions = { batching: this.#batching, ...defined({ signal, generator }) }
    try {
      requirePositions(this.name, promptTokens, maxNewTokens, most)
      const config = answerConfig(endOf(this.model).eosTokenId, options)
      yield* answerOf(this.#tokenizer, promptTokens, config, {
        generate: () => this.model.generate(inputs, config, control),
        stream: () => this.model.stream(inputs, config, control),
      })
    } finally {
      for (const one of Object.values(inputs) as AudioLMPrepared[keyof AudioLMPrepared][]) one?.dispose()
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

  #conversationOf(messages: readonly ChatTurn[]): AudioLMMessage[] {
    if (!Array.isArray(messages) || messages.length === 0) {
      throw argumentError(this.name, 'messages', 'a list of messages', messages)
    }
    return (messages as readonly ChatTurn[]).map(({ role, content }, i) => {
      const parts = content.map((part) => {
        if (part.type === 'text') return { type: 'text' as const, text: part.text }
        if (part.type === 'audio') return { type: 'audio' as const, audio: part.samples }
        const message = `${this.name}: messages[${i}]: expected text or audio, got a part of type ${part.type}.`
        throw new ConfigError(message, { index: i })
      })
      // Templates may take system messages and answers as texts only.
      const isText = parts.every((part) => part.type === 'text')
      return { role, content: isText ? parts.map((part) => (part as { text: string }).text).join('') : parts }
    })
  }
}
