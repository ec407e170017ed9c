import { randomUUID } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { setImmediate } from 'node:timers/promises'
import { pcm16Bytes, wavBytes } from '../audio/write.js'
import { untilStop } from '../kit/chat.js'
import type { Admission } from './admission.js'
import { ApiError, apiErrorOf } from './api-error.js'
import { type Body, type BodyRoom, checkBodyHeaders, readBody } from './body.js'
import type { ChatDelta, ChatModel } from './chat-model.js'
import { decodeMessages, decodeSpoken, parseChatRequest } from './chat-request.js'
import { type MediaBudget, mediaBudget, release } from './media-part.js'
import type { Metrics } from './metrics.js'
import type { Settings } from './options.js'
import { sendJson } from './response.js'
import { viewsOf } from './views.js'

/**
 * `POST /v1/chat/completions`. The body is read before the request takes a place, so that a client that sends slowly holds
 * none; it is parsed when it has one.
 */
export async function complete(
  request: IncomingMessage,
  response: ServerResponse,
  model: ChatModel,
  settings: Settings,
  admission: Admission,
  room: BodyRoom,
  metrics: Metrics,
  signal: AbortSignal,
): Promise<void> {
  checkBodyHeaders(request, settings.maxBodyBytes)
  admission.requireRoom()
  const body = await readBody(request, response, settings, room)
  const leave = await entered(admission, body, signal)
  const late = new AbortController()
  const timer = setTimeout(() => late.abort(timedOut(settings.answerTimeout)), settings.answerTimeout * 1000)
  const budget = mediaBudget(settings)
  try {
    const until = AbortSignal.any([signal, late.signal])
    const asked = await understand(body, model, settings, budget, until)
    const options = { ...asked.options, ...(asked.speech && { speech: asked.speech }), signal: until }
    const answer = untilAborted(untilStop(model.stream(asked.messages, options), options.stop ?? []), until)
    const reply = new Reply(model, asked)
    try {
      if (asked.stream) await sendEvents(response, answer, reply, settings.writeTimeout)
      else sendJson(response, 200, await reply.whole(answer))
    } finally {
      reply.tell(metrics)
    }
  } finally {
    clearTimeout(timer)
    await release(budget)
    leave()
  }
}

async function entered(admission: Admission, body: Body, signal: AbortSignal): Promise<() => void> {
  try {
    return await admission.enter(signal)
  } catch (error) {
    body.drop()
    throw error
  }
}

/** In a function of its own: nothing of the encoded clips is held while the answer is made. */
async function understand(body: Body, model: ChatModel, settings: Settings, budget: MediaBudget, signal: AbortSignal) {
  const { messages, spoken, ...parsed } = parseChatRequest(body.parse(), model, settings)
  const decoded = await decodeMessages(messages, settings, budget, model, signal)
  return { ...parsed, format: spoken?.format, messages: decoded, speech: await decodeSpoken(spoken, signal) }
}

type Asked = Awaited<ReturnType<typeof understand>>

const timedOut = (seconds: number) =>
  new ApiError(504, `The answer was not finished within ${seconds} s.`, { code: 'answer_timeout' })

/** How long a model that is told to stop may take for it before it is given up, in milliseconds. */
const STUBBORN = 1_000

/** How long a model may go on without waiting for anything, in milliseconds: no timer fires and nobody is heard meanwhile. */
const BREATHLESS = 10

/** An answer that ends with its signal, whatever its model does then: it may hang, go on, or end quietly. */
async function* untilAborted(answer: AsyncGenerator<ChatDelta>, signal: AbortSignal): AsyncGenerator<ChatDelta> {
  let aborted = () => {}
  const abort = new Promise<never>((_, reject) => {
    aborted = () => reject(signal.reason)
  })
  signal.addEventListener('abort', aborted)
  let waited = performance.now()
  try {
    for (;;) {
      if (performance.now() - waited > BREATHLESS) {
        await setImmediate()
        waited = performance.now()
      }
      signal.throwIfAborted()
      const step = await Promise.race([answer.next(), abort])
      if (step.done) break
      yield step.value
    }
  } catch (error) {
    throw signal.aborted ? signal.reason : error
  } finally {
    signal.removeEventListener('abort', aborted)
    await withinReason(answer.return(undefined))
  }
  signal.throwIfAborted()
}

function withinReason(end: Promise<unknown>): Promise<unknown> {
  let timer: NodeJS.Timeout | undefined
  const patience = new Promise((resolve) => {
    timer = setTimeout(resolve, STUBBORN)
  })
  // What it throws after it was told to stop is of no interest to anybody.
  return Promise.race([end.catch(() => {}), patience]).finally(() => clearTimeout(timer))
}

const base64 = ({ buffer, byteOffset, length }: Uint8Array): string =>
  Buffer.from(buffer, byteOffset, length).toString('base64')

/** How long a model that speaks is asked to know its answers by their ids, in seconds. */
const AUDIO_SECONDS = 3600

/** The objects of OpenAI's API for one answer. */
class Reply {
  readonly #id = `chatcmpl-${randomUUID()}`
  readonly #created = Math.floor(Date.now() / 1000)
  readonly #asked: Asked
  readonly #model: ChatModel
  /** Of the answer as sound. */
  #audioId = `audio_${randomUUID()}`
  #finish: 'length' | 'stop' | undefined
  #tokens = 0
  #promptTokens = 0
  #cachedTokens: number | undefined

  constructor(model: ChatModel, asked: Asked) {
    this.#model = model
    this.#asked = asked
  }

  count({ tokens, promptTokens, cachedTokens, audioId, finishReason }: ChatDelta): void {
    this.#tokens += tokens
    this.#cachedTokens = cachedTokens ?? this.#cachedTokens
    this.#promptTokens = promptTokens ?? this.#promptTokens
    this.#audioId = audioId ?? this.#audioId
    this.#finish = finishReason ?? this.#finish
  }

  tell(metrics: Metrics): void {
    metrics.promptTokens += this.#promptTokens
    metrics.cachedTokens += this.#cachedTokens ?? 0
    metrics.completionTokens += this.#tokens
  }

  async whole(answer: AsyncIterable<ChatDelta>): Promise<object> {
    let content = ''
    let heard = ''
    let extras = {}
    const sounds: Float32Array[] = []
    for await (const delta of answer) {
      this.count(delta)
      content += delta.text
      heard += delta.heard ?? ''
      if (delta.audio) sounds.push(delta.audio)
      extras = { ...extras, ...(await extrasOf(delta)) }
    }
    const { format } = this.#asked
    const rate = this.#model.audioRate ?? 0
    const message = {
      role: 'assistant',
      content: format === undefined ? content : null,
      refusal: null,
      ...(heard !== '' && { input_transcript: heard }),
      ...extras,
      ...(format !== undefined && {
        audio: {
          id: this.#audioId,
          data: base64(format === 'wav' ? wavBytes(sounds, rate) : pcm16Bytes(sounds)),
          transcript: content,
          sample_rate: rate,
          expires_at: this.#created + AUDIO_SECONDS,
        },
      }),
    }
    const choices = [{ index: 0, message, logprobs: null, finish_reason: this.#finishReason }]
    return { ...this.#head('chat.completion'), choices, usage: this.#usage }
  }

  chunk(delta: object, finished = false): object {
    const choices = [{ index: 0, delta, logprobs: null, finish_reason: finished ? this.#finishReason : null }]
    return { ...this.#head('chat.completion.chunk'), choices }
  }

  /** What a piece of the answer is to whoever reads it; there may be nothing. */
  async deltas(delta: ChatDelta): Promise<object[]> {
    const { text, heard = '', audio } = delta
    const { format } = this.#asked
    const id = this.#audioId
    const extras = await extrasOf(delta)
    const found: object[] = Object.keys(extras).length > 0 ? [extras] : []
    if (heard !== '') found.push({ input_transcript: heard })
    if (text !== '') found.push(format === undefined ? { content: text } : { audio: { id, transcript: text } })
    if (audio && audio.length > 0 && format !== undefined) {
      found.push({ audio: { id, data: base64(pcm16Bytes([audio])), sample_rate: this.#model.audioRate } })
    }
    return found
  }

  /** Says how long the answer may be meant by its id. */
  audioEnd(): object | undefined {
    if (this.#asked.format === undefined) return undefined
    return { audio: { id: this.#audioId, expires_at: this.#created + AUDIO_SECONDS } }
  }

  /** The last event, for those who asked for it. */
  usageChunk(): object | undefined {
    if (!this.#asked.includeUsage) return undefined
    return { ...this.#head('chat.completion.chunk'), choices: [], usage: this.#usage }
  }

  #head(object: string) {
    return { id: this.#id, object, created: this.#created, model: this.#model.name }
  }

  get #finishReason(): 'length' | 'stop' {
    return this.#finish ?? (this.#tokens >= this.#asked.options.maxNewTokens ? 'length' : 'stop')
  }

  get #usage() {
    const [prompt, completion] = [this.#promptTokens, this.#tokens]
    return {
      prompt_tokens: prompt,
      completion_tokens: completion,
      total_tokens: prompt + completion,
      ...(this.#cachedTokens === undefined ? {} : { prompt_tokens_details: { cached_tokens: this.#cachedTokens } }),
    }
  }
}

/** What a piece has beside the answer. */
async function extrasOf({ asked, labelScores, views }: ChatDelta): Promise<object> {
  return {
    ...(asked !== undefined && { asked }),
    ...(labelScores !== undefined && { label_scores: labelScores }),
    ...(views !== undefined && { views: await viewsOf(views) }),
  }
}

/** Server-sent events. Until there is a first piece, a failure still has a status of its own. */
async function sendEvents(
  response: ServerResponse,
  answer: AsyncIterable<ChatDelta>,
  reply: Reply,
  writeTimeout: number,
): Promise<void> {
  const send = (event: object | string) =>
    written(response, `data: ${typeof event === 'string' ? event : JSON.stringify(event)}\n\n`, writeTimeout)
  const open = async () => {
    if (response.headersSent) return
    response.writeHead(200, { 'Content-Type': 'text/event-stream; charset=utf-8', 'X-Accel-Buffering': 'no' })
    await send(reply.chunk({ role: 'assistant', content: '' }))
  }
  try {
    for await (const delta of answer) {
      await open()
      reply.count(delta)
      for (const one of await reply.deltas(delta)) await send(reply.chunk(one))
    }
    await open()
    const audioEnd = reply.audioEnd()
    if (audioEnd !== undefined) await send(reply.chunk(audioEnd))
    await send(reply.chunk({}, true))
    const usage = reply.usageChunk()
    if (usage !== undefined) await send(usage)
    await send('[DONE]')
    response.end()
  } catch (error) {
    if (!response.headersSent || response.destroyed) throw error
    await send(apiErrorOf(error).body)
    response.end()
    throw error
  }
}

/** Waits for a slow reader, for a while. */
function written(response: ServerResponse, text: string, seconds: number): Promise<void> {
  if (response.destroyed || response.write(text)) return Promise.resolve()
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer)
      response.off('drain', done).off('close', done)
      resolve()
    }
    const timer = setTimeout(() => response.destroy(), seconds * 1000)
    response.on('drain', done).on('close', done)
  })
}
