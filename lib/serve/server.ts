import type { createServer as CreateServer, IncomingMessage, Server, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { ConfigError } from '../base/errors.js'
import { Admission } from './admission.js'
import { ApiError, apiErrorOf } from './api-error.js'
import { BodyRoom } from './body.js'
import type { ChatModel } from './chat-model.js'
import { complete } from './completion.js'
import { checkKey, checkSource } from './guard.js'
import { Metrics } from './metrics.js'
import { requireModel, type ServeOptions, type Settings, settingsOf } from './options.js'
import { pageFiles } from './page/files.js'
import { SECURITY_HEADERS, sendError, sendJson } from './response.js'

/** A running server. */
export interface Served {
  /** Where it listens, such as `http://127.0.0.1:8080`. */
  readonly url: string
  readonly port: number
  /**
   * Takes no more requests, refuses those that wait, lets running answers finish for `shutdownTimeout` seconds, aborts what
   * is left and closes every connection. A second call, or `{ now: true }`, aborts at once.
   */
  close(options?: { now?: boolean }): Promise<void>
}

/**
 * Serves a chat model over HTTP: OpenAI's chat completions with parts of sound, pictures and films at `POST /v1/chat/completions` (whole or
 * streamed, with answers in sound from models that speak), `GET /v1/models`, `GET /health`, `GET /metrics` for Prometheus, and at `/` a page to record or drop audio and ask about it.
 *
 * ```ts
 * const { url, close } = await serve(model, { port: 8080 })
 * ```
 * A request holds all earlier turns, their audio included; what a model keeps of them saves time, and nothing else. By default it listens to this
 * machine only, and to no page but its own. Limits: {@link ServeOptions}. An aborted request ends its generation.
 * API: https://platform.openai.com/docs/api-reference/chat
 *
 * @throws ConfigError for wrong options, an open server without a key, and an address that cannot be listened at
 */
export async function serve(model: ChatModel, options: ServeOptions = {}): Promise<Served> {
  requireModel(model)
  const settings = settingsOf(options, model)
  // Not before it is needed: whoever imports voxtorch would wait for it.
  const { createServer } = await import('node:http')
  const running = new Running(model, settings, createServer)
  await running.listen()
  return { url: running.url, port: running.port, close: (how) => running.close(how?.now === true) }
}

/** Bodies of the largest size that are held at once, where fewer requests are worked on. */
const LEAST_BODIES = 4

const LONGEST_TIMER = 2 ** 31 - 1

/** How long an aborted answer may take to end when the server is closed, in milliseconds. */
const STUBBORN = 3_000

class Running {
  readonly #server: Server
  readonly #admission: Admission
  /** One for each request that is answered. */
  readonly #requests = new Map<AbortController, Promise<void>>()
  readonly #aborted = new AbortController()
  readonly #metrics = new Metrics()
  readonly #bodies: BodyRoom
  #closing: Promise<void> | undefined

  constructor(
    readonly model: ChatModel,
    readonly settings: Settings,
    createServer: typeof CreateServer,
  ) {
    this.#admission = new Admission(settings.maxConcurrent, settings.maxQueued, settings.queueTimeout)
    this.#bodies = new BodyRoom(Math.max(LEAST_BODIES, settings.maxConcurrent) * settings.maxBodyBytes)
    const answer = (request: IncomingMessage, response: ServerResponse) => this.#answer(request, response)
    this.#server = createServer({
      headersTimeout: settings.headerTimeout * 1000,
      // Bodies have a clock of their own.
      requestTimeout: 0,
      keepAliveTimeout: settings.idleTimeout * 1000,
      connectionsCheckingInterval: 1000,
      maxHeaderSize: 16_384,
    })
      .on('request', answer)
      .on('checkContinue', answer)
    this.#server.maxConnections = settings.maxConnections
    // Longer than whatever else has a limit: for a client that is gone without a word.
    const { queueTimeout, bodyTimeout, answerTimeout, writeTimeout } = settings
    this.#server.timeout = Math.min(LONGEST_TIMER, (queueTimeout + bodyTimeout + answerTimeout + writeTimeout) * 1000)
  }

  listen(): Promise<void> {
    const { host, port } = this.settings
    return new Promise((resolve, reject) => {
      this.#server.once('error', (cause) =>
        reject(
          new ConfigError(`serve: cannot listen at ${host}, port ${port}: ${cause.message}`, { host, port, cause }),
        ),
      )
      this.#server.listen({ host, port }, resolve)
    })
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port
  }

  get url(): string {
    const { host } = this.settings
    return `http://${host.includes(':') ? `[${host}]` : host}:${this.port}`
  }

  close(now: boolean): Promise<void> {
    if (now || this.#closing !== undefined) this.#abort()
    this.#closing ??= this.#end(now)
    return this.#closing
  }

  async #end(now: boolean): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()))
    this.#admission.close()
    this.#server.closeIdleConnections()
    const timer = setTimeout(() => this.#abort(), now ? 0 : this.settings.shutdownTimeout * 1000)
    await Promise.race([Promise.all(this.#requests.values()), this.#abortedLongAgo()])
    clearTimeout(timer)
    this.#server.closeAllConnections()
    await closed
  }

  /** For a model that does not stop when it is told to. */
  #abortedLongAgo(): Promise<void> {
    return new Promise((resolve) => {
      this.#aborted.signal.addEventListener('abort', () => setTimeout(resolve, STUBBORN).unref(), { once: true })
      if (this.#aborted.signal.aborted) setTimeout(resolve, STUBBORN).unref()
    })
  }

  #abort(): void {
    this.#aborted.abort()
    for (const request of this.#requests.keys()) {
      request.abort(new ApiError(503, 'The server is shutting down.', { code: 'shutting_down', retryAfter: 5 }))
    }
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const gone = new AbortController()
    const started = performance.now()
    const sent = new Promise<void>((resolve) => {
      response.once('finish', resolve).once('close', () => {
        if (!response.writableFinished) gone.abort(new Error('the client has gone'))
        resolve()
      })
    })
    response.on('error', () => {})
    const work = this.#respond(request, response, gone.signal).then(async () => {
      await sent
      this.#requests.delete(gone)
      const took = ((performance.now() - started) / 1000).toFixed(2)
      const status = response.headersSent ? response.statusCode : 'gone'
      if (request.url?.startsWith('/v1/')) this.#metrics.count(response.writableFinished ? String(status) : 'gone')
      this.settings.log(`${request.method} ${printable(request.url)} ${status} ${took} s`)
    })
    this.#requests.set(gone, work)
  }

  /** Never rejects. */
  async #respond(request: IncomingMessage, response: ServerResponse, signal: AbortSignal): Promise<void> {
    try {
      for (const [name, value] of Object.entries(SECURITY_HEADERS)) response.setHeader(name, value)
      checkSource(request, this.settings)
      await this.#route(request, response, signal)
    } catch (error) {
      const shown = apiErrorOf(error)
      if (shown.status === 500 && !response.destroyed) this.settings.log((error as Error)?.stack ?? String(error))
      if (!response.headersSent && !response.destroyed) sendError(request, response, shown)
    }
  }

  async #route(request: IncomingMessage, response: ServerResponse, signal: AbortSignal): Promise<void> {
    const [path = ''] = (request.url ?? '').split('?', 1)
    const need = (...methods: string[]) => {
      if (methods.includes(request.method ?? '')) return
      const allow = methods.join(', ')
      throw new ApiError(405, `${path} takes ${allow}.`, { code: 'method_not_allowed', headers: { Allow: allow } })
    }
    const file = pageFiles().get(path)
    if (file !== undefined) {
      need('GET', 'HEAD')
      response.writeHead(200, { 'Content-Type': file.type, 'Content-Length': file.body.length })
      response.end(request.method === 'HEAD' ? undefined : file.body)
      return
    }
    switch (path) {
      case '/health': {
        need('GET', 'HEAD')
        const { running, queued } = this.#admission
        return sendJson(response, 200, { status: this.#closing ? 'closing' : 'ok', running, queued })
      }
      case '/metrics': {
        need('GET', 'HEAD')
        checkKey(request, this.settings)
        const { running, queued } = this.#admission
        const now = { requests_running: running, requests_waiting: queued, ...this.model.metrics?.() }
        const text = this.#metrics.text(now)
        const length = Buffer.byteLength(text)
        response.writeHead(200, { 'Content-Type': 'text/plain; version=0.0.4', 'Content-Length': length })
        response.end(request.method === 'HEAD' ? undefined : text)
        return
      }
      case '/v1/models': {
        need('GET', 'HEAD')
        checkKey(request, this.settings)
        const { maxAudioSeconds, maxAudioParts, maxMediaParts, maxPixels, maxVideoFrames } = this.settings
        const { maxBodyBytes, maxTextLength, maxNewTokens, defaultNewTokens } = this.settings
        const limits = {
          ...{ maxAudioSeconds, maxAudioParts, maxMediaParts, maxPixels, maxVideoFrames },
          ...{ maxBodyBytes, maxTextLength, maxNewTokens, defaultNewTokens },
        }
        const { name: id, inputModalities: input_modalities = ['text', 'audio'] } = this.model
        const { outputModalities: output_modalities = ['text'], audioRate } = this.model
        const speech = output_modalities.includes('audio') ? { output_modalities, audio_rate: audioRate } : {}
        const { tasks = [], extras = [] } = this.model
        const own = { ...(tasks.length > 0 && { tasks }), ...(extras.length > 0 && { extras }) }
        const head = { id, object: 'model', created: 0, owned_by: 'voxtorch' }
        const entry = { ...head, input_modalities, ...speech, ...own, limits }
        return sendJson(response, 200, { object: 'list', data: [entry] })
      }
      case '/v1/chat/completions':
        need('POST')
        checkKey(request, this.settings)
        return await complete(
          request,
          response,
          this.model,
          this.settings,
          this.#admission,
          this.#bodies,
          this.#metrics,
          signal,
        )
      default:
        throw new ApiError(404, 'There is nothing at this address.', { code: 'not_found' })
    }
  }
}

/** A path as a log may show it. */
const printable = (path = '') => path.slice(0, 100).replace(/[^\x21-\x7e]/g, '?')
