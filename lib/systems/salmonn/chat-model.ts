import { requireObject, requireWhole } from '../../base/check.js'
import { requireForm } from '../../base/form.js'
import { Generator } from '../../tensor/index.js'
import { SalmonnCache } from './network/cache.js'
import type { Salmonn, SalmonnGenerateOptions } from './network/network.js'
import { type SalmonnChatMessage, type SalmonnChatOptions, salmonnChatPrompt } from './prompts/chat.js'

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
}

interface Conversation {
  cache: SalmonnCache
  text: string
  isBusy: boolean
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
  readonly #template: SalmonnChatOptions
  readonly #most: number
  /** The latest comes last. */
  readonly #conversations: Conversation[] = []

  constructor(model: Salmonn, settings: SalmonnChatSettings = {}) {
    requireForm('SalmonnChat', 'model', model, { config: { endSymbol: 'string' } })
    requireObject('SalmonnChat', 'settings', settings)
    const { name = 'salmonn', conversations = 2, ...template } = settings
    requireWhole('SalmonnChat', 'conversations', conversations)
    this.model = model
    this.name = name
    this.#most = conversations
    this.#template = { endOfTurn: model.config.endSymbol, ...template }
  }

  /**
   * The answer to the last message. Leaving the loop, or the signal, ends it.
   * @throws ConfigError for messages that are no conversation
   */
  async *stream(
    messages: readonly SalmonnChatMessage[],
    options: SalmonnAnswerOptions = {},
  ): AsyncGenerator<{ text: string; tokens: number; promptTokens?: number }, void, void> {
    const prompt = salmonnChatPrompt(messages, this.#template)
    const { temperature, seed, stop = [], ...rest } = options
    const doSample = typeof temperature === 'number' && temperature > 0
    const conversation = this.#take(prompt.text)
    const generator = seed === undefined ? undefined : new Generator({ seed })
    const until = new StopTexts(stop)
    try {
      const steps = this.model.stream(prompt, {
        ...rest,
        doSample,
        ...(doSample && { temperature }),
        ...(generator && { generator }),
        ...(conversation && { cache: conversation.cache }),
      })
      for await (const { text, tokens, promptTokens } of steps) {
        yield { text: until.push(text), tokens: tokens.length, promptTokens }
        if (until.met) return
      }
      const text = until.end()
      if (text !== '') yield { text, tokens: 0 }
    } finally {
      generator?.dispose()
      if (conversation) conversation.isBusy = false
    }
  }

  /** Frees what is kept of all conversations. */
  dispose(): void {
    for (const { cache } of this.#conversations.splice(0)) cache.dispose()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }

  /** The conversation that this text goes on from, else a new one in place of the oldest; none where all are busy. */
  #take(text: string): Conversation | undefined {
    const free = this.#conversations.filter(({ isBusy }) => !isBusy)
    const alike = ({ text: before }: Conversation) => commonLength(before, text)
    const best = [...free].sort((a, b) => alike(b) - alike(a))[0]
    const isNext = best !== undefined && alike(best) === best.text.length
    const room = this.#conversations.length < this.#most
    const found = isNext || !room ? (isNext ? best : free[0]) : { cache: new SalmonnCache(), text, isBusy: true }
    if (!found) return undefined
    const at = this.#conversations.indexOf(found)
    if (at >= 0) this.#conversations.splice(at, 1)
    this.#conversations.push(found)
    found.text = text
    found.isBusy = true
    return found
  }
}

function commonLength(a: string, b: string): number {
  const most = Math.min(a.length, b.length)
  let same = 0
  while (same < most && a[same] === b[same]) same += 1
  return same
}

/** Holds back what may be the beginning of a text that ends the answer. */
class StopTexts {
  met = false
  #held = ''

  constructor(readonly stops: readonly string[]) {}

  push(text: string): string {
    this.#held += text
    const ends = this.stops.filter((stop) => stop !== '').map((stop) => this.#held.indexOf(stop))
    const found = ends.filter((at) => at >= 0)
    if (found.length > 0) {
      this.met = true
      return this.#held.slice(0, Math.min(...found))
    }
    const longest = Math.max(0, ...this.stops.map((stop) => beginning(this.#held, stop)))
    const certain = this.#held.slice(0, this.#held.length - longest)
    this.#held = this.#held.slice(certain.length)
    return certain
  }

  end(): string {
    const rest = this.#held
    this.#held = ''
    return rest
  }
}

/** How many characters at the end of a text are the beginning of another. */
function beginning(text: string, stop: string): number {
  for (let length = Math.min(text.length, stop.length - 1); length > 0; length -= 1) {
    if (text.endsWith(stop.slice(0, length))) return length
  }
  return 0
}
