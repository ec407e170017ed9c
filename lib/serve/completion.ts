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
 * Answer `POST /v1/chat/completions`. The body is read before the request takes a slot, so a slow client does not occupy one;
 * it is parsed afterwards.
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
  admission.requireCapacity()
  const body = await readBody(request, response, settings, room)
  const leave = await entered(admission, body, signal)
  const late = new AbortController()
  const timer = setTimeout(() => late.abort(timedOut(settings.answerTimeout)), settings.answerTimeout * 1000)
  const budget = mediaBudget(settings)
  try {
    const until = AbortSignal.any([signal, late.signal])
    const chat = await readRequest(body, model, settings, budget, until)
    const options = { ...chat.options, ...(chat.speech && { speech: chat.speech }), signal: until }
    const answer = untilAborted(untilStop(model.stream(chat.messages, options), options.stop ?? []), until)
    const reply = new Reply(model, chat)
    try {
      if (chat.stream) await sendEvents(response, answer, reply, settings.writeTimeout)
      else sendJson(response, 200, await reply.whole(answer))
    } finally {
      reply.addTo(metrics)
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

/** Parse and decode the request. A separate function, so that the encoded media are not kept in memory during generation. */
async function readRequest(body: Body, model: ChatModel, settings: Settings, budget: MediaBudget, signal: AbortSignal) {
  const { messages, spoken, ...parsed } = parseChatRequest(body.parse(), model, settings)
  const decoded = await decodeMessages(messages, settings, budget, model, signal)
  return { ...parsed, format: spoken?.format, messages: decoded, speech: await decodeSpoken(spoken, signal) }
}

type DecodedRequest = Awaited<ReturnType<typeof readRequest>>

const timedOut = (seconds: number) =>
  new ApiError(504, `The answer took more than ${seconds} s (answerTimeout).`, { code: 'answer_timeout' })

/** Time that an aborted model gets to stop before the server stops waiting for it, in milliseconds. */
const STOP_PATIENCE = 1_000

/** Longest time between two turns of the event loop, in milliseconds: until then no timer fires and no request is read. */
const MOST_BLOCKING = 10

/** Yield an answer until its signal aborts, even if the model then hangs, continues or ends without an error. */
async function* untilAborted(answer: AsyncGenerator<ChatDelta>, signal: AbortSignal): AsyncGenerator<ChatDelta> {
  let aborted = () => {}
  const abort = new Promise<never>((_, reject) => {
    aborted = () => reject(signal.reason)
  })
  signal.addEventListener('abort', aborted)
  let waited = performance.now()
  try {
    for (;;) {
      if (performance.now() - waited > MOST_BLOCKING) {
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
    await settledOrLate(answer.return(undefined))
  }
  signal.throwIfAborted()
}

function settledOrLate(end: Promise<unknown>): Promise<unknown> {
  let timer: NodeJS.Timeout | undefined
  const patience = new Promise((resolve) => {
    timer = setTimeout(resolve, STOP_PATIENCE)
  })
  // Errors of a model that was aborted are ignored.
  return Promise.race([end.catch(() => {}), patience]).finally(() => clearTimeout(timer))
}

const base64 = ({ buffer, byteOffset, length }: Uint8Array): string =>
  Buffer.from(buffer, byteOffset, length).toString('base64')

/** Time for which the response promises that `audioId` stays valid, in seconds. */
const AUDIO_SECONDS = 3600

/** Builder of the objects of OpenAI's API for one answer. */
class Reply {
  readonly #id = `chatcmpl-${randomUUID()}`
  readonly #created = Math.floor(Date.now() / 1000)
  readonly #request: DecodedRequest
  readonly #model: ChatModel
  /** Id of the spoken answer. */
  #audioId = `audio_${randomUUID()}`
  #finish: 'length' | 'stop' | undefined
  #tokens = 0
  #promptTokens = 0
  #cachedTokens: number | undefined

  constructor(model: ChatModel, request: DecodedRequest) {
    this.#model = model
    this.#request = request
  }

  count({ tokens, promptTokens, cachedTokens, audioId, finishReason }: ChatDelta): void {
    this.#tokens += tokens
    this.#cachedTokens = cachedTokens ?? this.#cachedTokens
    this.#promptTokens = promptTokens ?? this.#promptTokens
    this.#audioId = audioId ?? this.#audioId
    this.#finish = finishReason ?? this.#finish
  }

  addTo(metrics: Metrics): void {
    metrics.promptTokens += this.#promptTokens
    metrics.cachedTokens += this.#cachedTokens ?? 0
    metrics.completionTokens += this.#tokens
  }

  async whole(answer: AsyncIterable<ChatDelta>): Promise<object> {
    let content = ''
    let heard = ''
    let extras = {}
    const samples: Float32Array[] = []
    for await (const delta of answer) {
      this.count(delta)
      content += delta.text
      heard += delta.heard ?? ''
      if (delta.audio) samples.push(delta.audio)
      extras = { ...extras, ...(await extrasOf(delta)) }
    }
    const { format } = this.#request
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
          data: base64(format === 'wav' ? wavBytes(samples, rate) : pcm16Bytes(samples)),
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

  /** Convert a piece of the answer to the `delta` objects of stream events; possibly none. */
  async deltas(delta: ChatDelta): Promise<object[]> {
    const { text, heard = '', audio } = delta
    const { format } = this.#request
    const id = this.#audioId
    const extras = await extrasOf(delta)
    const deltas: object[] = Object.keys(extras).length > 0 ? [extras] : []
    if (heard !== '') deltas.push({ input_transcript: heard })
    if (text !== '') deltas.push(format === undefined ? { content: text } : { audio: { id, transcript: text } })
    if (audio && audio.length > 0 && format !== undefined) {
      deltas.push({ audio: { id, data: base64(pcm16Bytes([audio])), sample_rate: this.#model.audioRate } })
    }
    return deltas
  }

  /** Return the delta with the expiry time of `audioId`, for spoken answers. */
  audioEnd(): object | undefined {
    if (this.#request.format === undefined) return undefined
    return { audio: { id: this.#audioId, expires_at: this.#created + AUDIO_SECONDS } }
  }

  /** Return the last event if the request sets `stream_options.include_usage`. */
  usageChunk(): object | undefined {
    if (!this.#request.includeUsage) return undefined
    return { ...this.#head('chat.completion.chunk'), choices: [], usage: this.#usage }
  }

  #head(object: string) {
    return { id: this.#id, object, created: this.#created, model: this.#model.name }
  }

  get #finishReason(): 'length' | 'stop' {
    return this.#finish ?? (this.#tokens >= this.#request.options.maxNewTokens ? 'length' : 'stop')
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

/** Return the fields of a piece that OpenAI's API lacks. */
async function extrasOf({ asked, labelScores, views }: ChatDelta): Promise<object> {
  return {
    ...(asked !== undefined && { asked }),
    ...(labelScores !== undefined && { label_scores: labelScores }),
    ...(views !== undefined && { views: await viewsOf(views) }),
  }
}

/** Send an answer as server-sent events. The status line is sent with the first piece, so earlier errors keep their status. */
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

/** Write text. For a slow reader wait until the buffer drains; after `seconds` close the connection. */
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
