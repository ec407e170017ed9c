import { isIP } from 'node:net'
import { misuse, requireNumber, requireObject, requireOptions, requireString, requireWhole } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import type { ChatModel } from './chat-model.js'

/** What a server refuses, and how long it waits. Sizes in bytes, times in seconds. */
export interface ServeLimits {
  /** Of a request's body. Default 25 MB. */
  maxBodyBytes: number
  /** Of all clips of a conversation together. Default 600. */
  maxAudioSeconds: number
  /** Clips in a conversation. Default 32. */
  maxAudioParts: number
  /** Pictures and films in a conversation. Default 16. */
  maxMediaParts: number
  /** Of all pictures of a conversation together, and of the frames of its films that are looked at. Default 64 million. */
  maxPixels: number
  /** Frames of all films of a conversation that come as frames. Default 512. */
  maxVideoFrames: number
  /** Messages in a conversation. Default 256. */
  maxMessages: number
  /** Characters (UTF-16) of all texts of a conversation together. Default 1 million. */
  maxTextLength: number
  /** Tokens of an answer that a request may ask for. Default 2048. */
  maxNewTokens: number
  /** Tokens of an answer where the request does not say. Default 512. */
  defaultNewTokens: number
  /** Requests that are worked on at once. Default: as many as the model says that it takes at once, else 2. */
  maxConcurrent: number
  /**
   * Requests that wait for a place. Their bodies have come; together with those that are still coming they take about
   * `maxBodyBytes` times `maxConcurrent` (4 at least), and others are read when there is room again. Default 16.
   */
  maxQueued: number
  /** Open connections. Default 256. */
  maxConnections: number
  /** For a request's headers. Default 10. */
  headerTimeout: number
  /** For a request's body. One that brings less than 5 kB in 5 s is given up sooner. Default 30. */
  bodyTimeout: number
  /** For room for the body, and for a place to be free. Default 60. */
  queueTimeout: number
  /** For a whole answer. Default 300. */
  answerTimeout: number
  /** For a client that does not take what it asked for. Default 30. */
  writeTimeout: number
  /** Between two requests on one connection. Default 5. */
  idleTimeout: number
  /** For running answers to finish when the server is closed, before they are aborted. Default 10. */
  shutdownTimeout: number
}

export interface ServeOptions extends Partial<ServeLimits> {
  /** The address to listen at. Default `'127.0.0.1'`, which nobody else can reach. */
  host?: string
  /** Default 0: the system picks a free one. */
  port?: number
  /** What clients give as `Authorization: Bearer …`. Needed where `host` is no loopback address. */
  apiKey?: string
  /**
   * Names under which the server may be addressed, without port: the request's Host. Default: the loopback's own names
   * and `host` where it listens there (a page elsewhere cannot reach it by a name of its own), else any.
   */
  allowedHosts?: string[]
  /** Gets a line for each request and each failure. Default: nothing. */
  log?: (line: string) => void
}

export interface Settings extends ServeLimits {
  host: string
  port: number
  apiKey: string | undefined
  allowedHosts: readonly string[] | undefined
  log: (line: string) => void
}

const limits: ServeLimits = {
  maxBodyBytes: 25_000_000,
  maxAudioSeconds: 600,
  maxAudioParts: 32,
  maxMediaParts: 16,
  maxPixels: 64_000_000,
  maxVideoFrames: 512,
  maxMessages: 256,
  maxTextLength: 1_000_000,
  maxNewTokens: 2048,
  defaultNewTokens: 512,
  maxConcurrent: 2,
  maxQueued: 16,
  maxConnections: 256,
  headerTimeout: 10,
  bodyTimeout: 30,
  queueTimeout: 60,
  answerTimeout: 300,
  writeTimeout: 30,
  idleTimeout: 5,
  shutdownTimeout: 10,
}
const others = ['host', 'port', 'apiKey', 'allowedHosts', 'log']
const WHERE = 'serve'

/** A timer's longest wait, in seconds. */
const LONGEST = 2 ** 31 / 1000

export function requireModel(model: ChatModel): void {
  requireObject(WHERE, 'model', model)
  requireString(WHERE, 'model.name', model.name)
  if (typeof model.stream !== 'function') throw misuse(WHERE, 'model.stream', 'a function', model.stream)
  if (model.outputModalities?.includes('audio')) requireWhole(WHERE, 'model.audioRate', model.audioRate, 1)
  if (model.concurrent !== undefined) requireWhole(WHERE, 'model.concurrent', model.concurrent, 1)
  if (model.videoFrames !== undefined) requireWhole(WHERE, 'model.videoFrames', model.videoFrames, 1)
  if (model.metrics !== undefined && typeof model.metrics !== 'function') {
    throw misuse(WHERE, 'model.metrics', 'a function', model.metrics)
  }
}

/** Fills the options up. @throws ConfigError for an unknown one, a wrong value, and an open server without a key */
export function settingsOf(
  options: ServeOptions,
  { concurrent = limits.maxConcurrent }: Partial<ChatModel> = {},
): Settings {
  requireOptions(WHERE, options, [...others, ...Object.keys(limits)])
  const { host = '127.0.0.1', port = 0, apiKey, allowedHosts, log = () => {} } = options
  requireString(WHERE, 'host', host)
  requireWhole(WHERE, 'port', port)
  if (port > 65535) throw misuse(WHERE, 'port', 'at most 65535', port)
  if (typeof log !== 'function') throw misuse(WHERE, 'log', 'a function', log)
  if (apiKey !== undefined && (typeof apiKey !== 'string' || !/^[\x21-\x7e]{8,}$/.test(apiKey))) {
    throw new ConfigError(`${WHERE}: apiKey must be at least 8 printable ASCII characters without spaces`)
  }
  if (
    allowedHosts !== undefined &&
    !(Array.isArray(allowedHosts) && allowedHosts.every((x) => typeof x === 'string'))
  ) {
    throw misuse(WHERE, 'allowedHosts', 'an array of host names', allowedHosts)
  }
  if (!isLoopback(host) && apiKey === undefined) {
    throw new ConfigError(
      `${WHERE}: host '${host}' is open to other machines and needs an apiKey; leave host out to serve this machine only`,
      { host },
    )
  }
  return {
    ...checkedLimits(options, concurrent),
    host,
    port,
    apiKey,
    allowedHosts:
      allowedHosts?.map((name) => name.toLowerCase()) ?? (isLoopback(host) ? loopbackNames(host) : undefined),
    log,
  }
}

function checkedLimits(options: ServeOptions, maxConcurrent: number): ServeLimits {
  const whole = { ...limits, maxConcurrent }
  for (const key of Object.keys(limits) as (keyof ServeLimits)[]) {
    const value = options[key]
    if (value === undefined) continue
    if (/^max|Tokens$/.test(key) && key !== 'maxAudioSeconds')
      requireWhole(WHERE, key, value, key === 'maxQueued' ? 0 : 1)
    else requireNumber(WHERE, key, value, { least: 0, below: LONGEST })
    whole[key] = value
  }
  if (options.defaultNewTokens === undefined)
    whole.defaultNewTokens = Math.min(whole.defaultNewTokens, whole.maxNewTokens)
  if (whole.defaultNewTokens > whole.maxNewTokens) {
    throw misuse(WHERE, 'defaultNewTokens', `at most maxNewTokens, ${whole.maxNewTokens}`, whole.defaultNewTokens)
  }
  return whole
}

/** Names by which this machine calls itself, and the address of its own at which a server listens. */
export const loopbackNames = (host: string): string[] => [
  ...new Set(['localhost', '127.0.0.1', '[::1]', ...(isLoopback(host) && isIP(host) === 4 ? [host] : [])]),
]

function isLoopback(host: string): boolean {
  if (host === 'localhost' || host === '::1') return true
  return isIP(host) === 4 && host.startsWith('127.')
}
