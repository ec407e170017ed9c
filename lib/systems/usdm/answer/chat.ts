import { createHash } from 'node:crypto'
import { abortable, argumentError, defined, requireObject } from '../../../base/check.js'
import { ConfigError, DataError } from '../../../base/errors.js'
import { LruCache } from '../../../base/lru-cache.js'
import { type ChangesOf, checkedBy, settings } from '../../../base/settings.js'
import { ContinuousBatching, type ContinuousBatchingOptions } from '../../../generation/batching.js'
import { Conversations, requireConversation, requireParts, requireRoom } from '../../../kit/chat.js'
import { UNIT_RESAMPLING } from '../../../models/units/encoder.js'
import type { ChatAnswerOptions, ChatDelta, ChatModel, ChatPart, ChatTurn } from '../../../serve/chat-model.js'
import { type UsdmTurn, usdmPrompt } from '../data/prompt.js'
import { UsdmCache } from '../network/cache.js'
import { Usdm } from '../network/network.js'
import { PIECE_SETTINGS } from '../network/options.js'
import type { UsdmVoice } from '../network/speech.js'

const SETTINGS = settings({
  /** Model name in `/v1/models`. Default 'usdm'. */
  name: { type: 'string', default: 'usdm' },
  /** Conversations whose KV cache is kept for their next turn. Default 2. */
  conversations: { type: 'integer', min: 1, default: 2 },
  /** Voicebox evaluations per piece of speech, when a request does not set `steps`. Default 15. */
  steps: { type: 'integer', min: 1, default: 15 },
  ...PIECE_SETTINGS.table,
  /** Continuous batching of the replies. Default: 4 replies at once. */
  batching: { type: checkedBy<Omit<ContinuousBatchingOptions, 'prefixCacheBytes'>>(requireObject), default: {} },
})

/** Settings of a {@link UsdmChat}. @interface */
export type UsdmChatSettings = ChangesOf<typeof SETTINGS.table>

/** Maximum number of tokens of a transcript, and of a reply's text. */
const TEXT_TOKENS = 512
/** Capacities of the caches: units of clips, turns, voices. */
const KEPT = { clips: 256, turns: 2000, voices: 4 }

/**
 * A USDM chat model for `serve`: takes the user's speech, and streams the reply as text and audio. Each request contains the whole
 * conversation. Earlier clips and replies are looked up by the hash of their samples and text, so they are not encoded or generated
 * again. Replies are generated with `strict`.
 *
 * ```ts
 * const chat = new UsdmChat(await Usdm.fromPretrained('./usdm'))
 * await serve(chat, { port: 8080 })
 * ```
 *
 * Its caches are freed by `dispose()`, or declare it with `using`. The Usdm is not disposed with it.
 */
export class UsdmChat implements ChatModel {
  readonly model: Usdm
  readonly name: string
  readonly inputModalities = ['audio'] as const
  readonly outputModalities: readonly ('text' | 'audio')[]
  readonly clipQuality = UNIT_RESAMPLING
  readonly audioRate: number
  /** Number of replies generated at once. */
  readonly concurrent: number
  readonly #pieces: { firstUnits: number; chunkUnits: number }
  readonly #steps: number
  readonly #batching: ContinuousBatching
  readonly #conversations: Conversations<UsdmCache>
  readonly #clips = new LruCache<Promise<Int32Array>>(KEPT.clips)
  readonly #turns = new LruCache<UsdmTurn>(KEPT.turns)
  readonly #voices = new LruCache<Voice>(KEPT.voices, undefined, (voice) => voice.leave())

  constructor(model: Usdm, options: UsdmChatSettings = {}) {
    if (!(model instanceof Usdm)) throw argumentError('UsdmChat', 'model', 'a Usdm', model)
    const { name, conversations, steps, firstUnits, chunkUnits, batching } = SETTINGS.read('UsdmChat', options)
    this.model = model
    this.name = name
    this.outputModalities = model.speaks ? ['text', 'audio'] : ['text']
    this.audioRate = model.sampleRate
    this.#steps = steps
    this.#pieces = { firstUnits, chunkUnits }
    this.#batching = new ContinuousBatching(model.llm, { maxNumSeqs: 4, ...batching })
    this.concurrent = batching.maxNumSeqs ?? 4
    this.#conversations = new Conversations(() => new UsdmCache(), conversations)
  }

  /**
   * Stream the reply to the last message. Leaving the loop, or aborting the signal, stops generation.
   * @throws ConfigError for messages other than alternating user clips and replies, and for an `audioId` that is no longer cached;
   * DataError for a clip that cannot be used
   */
  async *stream(messages: readonly ChatTurn[], options: ChatAnswerOptions): AsyncGenerator<ChatDelta, void, void> {
    this.#requireClips(messages)
    const { llm, tokenizer } = this.model
    const room = Math.min(tokenizer.modelMaxLength, llm.config.maxPositionEmbeddings ?? Number.POSITIVE_INFINITY)
    await requireRoom(this.name, tokenizer.tokenizer, room, messages, options.signal)
    const { maxNewTokens, temperature, topP, topK, numBeams = 1, seed, speech, signal } = options
    if (numBeams > 1) {
      throw new ConfigError(
        `${this.name}: expected 1 beam (beam search is not supported), got ${numBeams}. Leave out numBeams.`,
        { argument: 'numBeams' },
      )
    }
    const { history, units, id } = await this.#heard(messages, signal)
    const key = history.map((turn) => `${turn.user.units}|${turn.agent.text}|${turn.agent.units}|`).join('')
    const promptTokens = usdmPrompt(this.model.tokenizer, { units, history }).length
    let [transcript, text] = ['', '']
    const voice = speech?.voice && (await this.#voice(speech.voice, signal))
    const conversation = this.#conversations.take(`${key}${units}`)
    try {
      const events = this.model.stream(
        { units },
        {
          ...this.#pieces,
          ...{ history, signal, strict: true, batching: this.#batching, audio: speech !== undefined },
          ...{ maxUnits: maxNewTokens, maxTextTokens: Math.min(maxNewTokens, TEXT_TOKENS) },
          sampling: defined({ temperature, topP, topK }),
          ...(speech && { steps: speech.steps ?? this.#steps }),
          ...defined({ seed, reference: voice?.value, cache: conversation?.cache }),
        },
      )
      for await (const event of events) {
        if (event.type === 'transcript') {
          yield { text: '', tokens: 0, promptTokens, heard: added(transcript, event.text) }
          transcript = longer(transcript, event.text)
        } else if (event.type === 'text') {
          yield { text: added(text, event.text), tokens: 1 }
          text = longer(text, event.text)
        } else if (event.type === 'speech') {
          yield { text: '', tokens: event.units.length, ...(event.samples && { audio: event.samples }) }
        } else if (event.type === 'reply') {
          const { turn, finish } = event.reply
          const audioId = idOf(id, units, turn.agent.text)
          if (turn.agent.units.length > 0) this.#turns.put(audioId, turn)
          const isCut = finish.text === 'length' || finish.units === 'length'
          const rest = added(text, turn.agent.text)
          yield { text: rest, tokens: 0, audioId, finishReason: isCut ? 'length' : 'stop' }
        }
      }
    } catch (error) {
      // A reply without units cannot be spoken: the caller still gets its text.
      if (!(error instanceof DataError && Reflect.get(error, 'text') !== undefined)) throw error
    } finally {
      voice?.leave()
      conversation?.leave()
    }
  }

  /** Return the counters for `/metrics`. */
  metrics(): Record<string, number> {
    const { running, waiting } = this.#batching.stats()
    return { batch_running: running, batch_waiting: waiting }
  }

  /** Stop the replies in progress, and free the caches of all conversations. */
  dispose(): void {
    this.#batching.dispose()
    this.#conversations.dispose()
    this.#voices.clear()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }

  #requireClips(messages: readonly ChatTurn[]): void {
    requireConversation<ChatPart>(this.name, messages, (message, name) => {
      const { role, content, audioId } = message as ChatTurn
      requireParts(this.name, message, name, ['audio', 'text'])
      const clips = content.filter(({ type }) => type === 'audio').length
      const words = content.map((part) => (part.type === 'text' ? part.text.trim() : '')).join('')
      if (role === 'system') {
        throw new ConfigError(
          `${this.name}: expected user and assistant messages, got a system message in ${name}. USDM has a fixed instruction.`,
        )
      }
      if (role === 'user' && words !== '') {
        throw new ConfigError(
          `${this.name}: expected only audio in ${name}, got text. Send the user's turn as a clip.`,
          { argument: name },
        )
      }
      if (role === 'assistant' && words === '' && audioId === undefined) {
        throw new ConfigError(
          `${this.name}: expected the reply's text or the id of its audio in ${name}, got neither.`,
          { argument: name },
        )
      }
      return { isEmpty: role === 'user' && clips === 0, isText: clips === 0 }
    })
  }

  /** Return the turns before the last message, and the units of the last message. */
  async #heard(messages: readonly ChatTurn[], signal: AbortSignal) {
    const history: UsdmTurn[] = []
    let id = ''
    let units: number[] = []
    for (const message of messages) {
      if (message.role === 'user') {
        units = []
        for (const part of message.content)
          if (part.type === 'audio') units.push(...(await this.#units(part.samples, signal)))
        continue
      }
      const text = message.content.map((part) => (part.type === 'text' ? part.text : '')).join('')
      id = message.audioId ?? idOf(id, units, text)
      let turn = this.#turns.get(id)
      if (!turn && message.audioId !== undefined) {
        throw new ConfigError(
          `${this.name}: expected the id of a cached reply, got ${id}, which is no longer cached. Send the reply's text.`,
          { audioId: id },
        )
      }
      turn ??= await this.#recalled(units, text, history, signal)
      this.#turns.put(id, turn)
      history.push({ user: { text: turn.user.text, units }, agent: turn.agent })
    }
    return { history, units, id }
  }

  async #units(samples: Float32Array, signal: AbortSignal): Promise<Int32Array> {
    const name = hashOf(samples)
    let units = this.#clips.get(name)
    if (!units) {
      units = this.model.hear(samples)
      this.#clips.put(name, units)
      units.catch(() => this.#clips.delete(name))
    }
    // Another request may await the same units, so the signal ends the waiting and not the extraction.
    return abortable(signal, units)
  }

  /** Regenerate a turn that is not cached, or was interrupted: its transcript and units, without audio. */
  async #recalled(units: number[], text: string, history: readonly UsdmTurn[], signal: AbortSignal): Promise<UsdmTurn> {
    const { turn } = await this.model.respond(
      { units },
      {
        ...{ history, reply: text, audio: false, strict: true, signal, batching: this.#batching },
        ...{ maxTextTokens: TEXT_TOKENS, maxUnits: TEXT_TOKENS },
      },
    )
    if (turn.agent.units.length > 0) return turn
    throw new DataError(
      `${this.name}: expected units for an earlier reply, got none for ${JSON.stringify(text.slice(0, 100))}`,
    )
  }

  /** Return the voice of a clip. The caller must call `leave()` on it. */
  async #voice(clip: { samples: Float32Array; sampleRate: number }, signal: AbortSignal): Promise<Voice> {
    const name = `${hashOf(clip.samples)} ${clip.sampleRate}`
    const voice = this.#voices.get(name) ?? new Voice(await this.model.voice(clip, { signal }))
    if (this.#voices.get(name) !== voice) this.#voices.put(name, voice.enter())
    return voice.enter()
  }
}

/** A voice with a reference count, freed by the last `leave()`. */
class Voice {
  #users = 0
  constructor(readonly value: UsdmVoice) {}
  enter(): this {
    this.#users += 1
    return this
  }
  leave(): void {
    if (--this.#users === 0) this.value.dispose()
  }
}

const hashOf = (samples: Float32Array): string =>
  createHash('sha256')
    .update(new Uint8Array(samples.buffer, samples.byteOffset, samples.byteLength))
    .digest('hex')

/** Return the id of a turn: a hash of the conversation up to and including it. */
const idOf = (before: string, units: ArrayLike<number>, text: string): string =>
  `audio_${createHash('sha256')
    .update(`${before}|${Array.from(units)}|${text}`)
    .digest('hex')
    .slice(0, 40)}`

/** Return the new end of a text that grows; empty if the text started anew. */
const added = (before: string, now: string): string => (now.startsWith(before) ? now.slice(before.length) : '')
const longer = (before: string, now: string): string => (now.startsWith(before) ? now : before)
