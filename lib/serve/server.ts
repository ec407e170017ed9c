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
  /** URL of the server, such as `http://127.0.0.1:8080`. */
  readonly url: string
  readonly port: number
  /**
   * Stop the server: accept no more requests, refuse queued ones, let running answers finish for `shutdownTimeout` seconds,
   * then abort the rest and close all connections. A second call, or `{ now: true }`, aborts at once.
   */
  close(options?: { now?: boolean }): Promise<void>
}

/**
 * Serve a chat model over HTTP. Endpoints:
 * - `POST /v1/chat/completions`: OpenAI's chat completions with audio, image and video parts, complete or streamed, with
 *   spoken answers if the model supports them
 * - `GET /v1/models`, `GET /health`, and `GET /metrics` for Prometheus
 * - `/`: a web page for chatting with text, audio, images and video
 *
 * ```ts
 * const { url, close } = await serve(model, { port: 8080 })
 * ```
 * The API is stateless: each request contains all earlier turns, including their audio. By default only this machine and the
 * server's own page can use it. Limits: {@link ServeOptions}. An aborted request ends its generation.
 * API: https://platform.openai.com/docs/api-reference/chat
 *
 * @throws ConfigError for wrong options, an open server without a key, and an address that is in use or not available
 */
export async function serve(model: ChatModel, options: ServeOptions = {}): Promise<Served> {
  requireModel(model)
  const settings = settingsOf(options, model)
  // Imported on first use, to keep `import 'voxtorch'` fast.
  const { createServer } = await import('node:http')
  const running = new Running(model, settings, createServer)
  await running.listen()
  return { url: running.url, port: running.port, close: (how) => running.close(how?.now === true) }
}

/** Minimum memory budget for bodies, as a multiple of `maxBodyBytes`. */
const LEAST_BODIES = 4

const LONGEST_TIMER = 2 ** 31 - 1

/** Time for which `close` waits for aborted answers to end, in milliseconds. */
const STOP_PATIENCE = 3_000

class Running {
  readonly #server: Server
  readonly #admission: Admission
  /** Running requests. */
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
      // The time limit of bodies is in body.ts.
      requestTimeout: 0,
      keepAliveTimeout: settings.idleTimeout * 1000,
      connectionsCheckingInterval: 1000,
      maxHeaderSize: 16_384,
    })
      .on('request', answer)
      .on('checkContinue', answer)
    this.#server.maxConnections = settings.maxConnections
    // The sum of all other limits: closes the socket of a client that vanished without closing its connection.
    const { queueTimeout, bodyTimeout, answerTimeout, writeTimeout } = settings
    this.#server.timeout = Math.min(LONGEST_TIMER, (queueTimeout + bodyTimeout + answerTimeout + writeTimeout) * 1000)
  }

  listen(): Promise<void> {
    const { host, port } = this.settings
    return new Promise((resolve, reject) => {
      this.#server.once('error', (cause) =>
        reject(
          new ConfigError(
            `serve: cannot listen on ${host}, port ${port}: ${cause.message}. Choose another host or port.`,
            { host, port, cause },
          ),
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
    await Promise.race([Promise.all(this.#requests.values()), this.#stopPatience()])
    clearTimeout(timer)
    this.#server.closeAllConnections()
    await closed
  }

  /** Wait until models that do not react to their signal are no longer waited for. */
  #stopPatience(): Promise<void> {
    return new Promise((resolve) => {
      this.#aborted.signal.addEventListener('abort', () => setTimeout(resolve, STOP_PATIENCE).unref(), { once: true })
      if (this.#aborted.signal.aborted) setTimeout(resolve, STOP_PATIENCE).unref()
    })
  }

  #abort(): void {
    this.#aborted.abort()
    for (const request of this.#requests.keys()) {
      request.abort(new ApiError(503, 'The server is shutting down.', { code: 'shutting_down', retryAfter: 5 }))
    }
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const disconnected = new AbortController()
    const started = performance.now()
    const sent = new Promise<void>((resolve) => {
      response.once('finish', resolve).once('close', () => {
        if (!response.writableFinished) disconnected.abort(new Error('the client disconnected'))
        resolve()
      })
    })
    response.on('error', () => {})
    const work = this.#respond(request, response, disconnected.signal).then(async () => {
      await sent
      this.#requests.delete(disconnected)
      const took = ((performance.now() - started) / 1000).toFixed(2)
      const status = response.headersSent ? response.statusCode : 'gone'
      if (request.url?.startsWith('/v1/')) this.#metrics.count(response.writableFinished ? String(status) : 'gone')
      this.settings.log(`${request.method} ${printable(request.url)} ${status} ${took} s`)
    })
    this.#requests.set(disconnected, work)
  }

  /** Answer a request; never rejects. */
  async #respond(request: IncomingMessage, response: ServerResponse, signal: AbortSignal): Promise<void> {
    try {
      for (const [name, value] of Object.entries(SECURITY_HEADERS)) response.setHeader(name, value)
      checkSource(request, this.settings)
      await this.#route(request, response, signal)
    } catch (error) {
      const apiError = apiErrorOf(error)
      if (apiError.status === 500 && !response.destroyed) this.settings.log((error as Error)?.stack ?? String(error))
      if (!response.headersSent && !response.destroyed) sendError(request, response, apiError)
    }
  }

  async #route(request: IncomingMessage, response: ServerResponse, signal: AbortSignal): Promise<void> {
    const [path = ''] = (request.url ?? '').split('?', 1)
    const need = (...methods: string[]) => {
      if (methods.includes(request.method ?? '')) return
      const allow = methods.join(', ')
      throw new ApiError(405, `${path}: expected ${allow}, got ${request.method}.`, {
        code: 'method_not_allowed',
        headers: { Allow: allow },
      })
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
        const abilities = { ...(tasks.length > 0 && { tasks }), ...(extras.length > 0 && { extras }) }
        const head = { id, object: 'model', created: 0, owned_by: 'voxtorch' }
        const entry = { ...head, input_modalities, ...speech, ...abilities, limits }
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
        throw new ApiError(404, `Unknown path ${printable(path)}. The API starts at /v1/chat/completions.`, {
          code: 'not_found',
        })
    }
  }
}

/** Return a path shortened to 100 printable ASCII characters, for the log. */
const printable = (path = '') => path.slice(0, 100).replace(/[^\x21-\x7e]/g, '?')
