import { isIP } from 'node:net'
import {
  argumentError,
  requireNumber,
  requireObject,
  requireOptions,
  requireString,
  requireWhole,
  shown,
} from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import type { ChatModel } from './chat-model.js'

/** Limits of a server. Sizes in bytes, times in seconds. */
export interface ServeLimits {
  /** Size of a request's body. Default 25 MB. */
  maxBodyBytes: number
  /** Total duration of the audio clips in a conversation. Default 600. */
  maxAudioSeconds: number
  /** Audio clips in a conversation. Default 32. */
  maxAudioParts: number
  /** Images and videos in a conversation. Default 16. */
  maxMediaParts: number
  /** Total pixels of all images in a conversation and of the video frames that the model encodes. Default 64 million. */
  maxPixels: number
  /** Total frames of a conversation's videos that are sent as frames. Default 512. */
  maxVideoFrames: number
  /** Messages in a conversation. Default 256. */
  maxMessages: number
  /** Total UTF-16 code units of all texts in a conversation. Default 1 million. */
  maxTextLength: number
  /** Largest `max_tokens` that a request may set. Default 2048. */
  maxNewTokens: number
  /** Maximum tokens of an answer if the request does not set them. Default 512. */
  defaultNewTokens: number
  /** Requests that are processed at once. Default: the model's `concurrent`, else 2. */
  maxConcurrent: number
  /**
   * Requests that wait in the queue. The bodies that are queued or being received share a memory budget of `maxBodyBytes`
   * times `maxConcurrent` (at least 4); further bodies are read as it frees up. Default 16.
   */
  maxQueued: number
  /** Open connections. Default 256. */
  maxConnections: number
  /** Time to receive a request's headers. Default 10. */
  headerTimeout: number
  /** Time to receive a request's body. A client that sends less than 5 kB in 5 s is refused sooner. Default 30. */
  bodyTimeout: number
  /** Time to wait for memory for the body, and for a free slot. Default 60. */
  queueTimeout: number
  /** Time to generate an answer. Default 300. */
  answerTimeout: number
  /** Time to wait for a client that does not read its response. Default 30. */
  writeTimeout: number
  /** Time between two requests on one connection. Default 5. */
  idleTimeout: number
  /** Time for running answers to finish after `close`, before they are aborted. Default 10. */
  shutdownTimeout: number
}

export interface ServeOptions extends Partial<ServeLimits> {
  /** Address to listen on. Default `'127.0.0.1'`, which only this machine can reach. */
  host?: string
  /** Port to listen on. Default 0: the system picks a free one. */
  port?: number
  /** Key that clients send as `Authorization: Bearer …`. Required unless `host` is a loopback address. */
  apiKey?: string
  /**
   * Allowed values of a request's Host header, without port. Default on a loopback address: the loopback names and `host`,
   * which prevents DNS rebinding. Default elsewhere: any.
   */
  allowedHosts?: string[]
  /** Called with a line for each request and each internal error. Default: no log. */
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

/** Longest delay of a timer in Node, in seconds. */
const LONGEST = 2 ** 31 / 1000

export function requireModel(model: ChatModel): void {
  requireObject(WHERE, 'model', model)
  requireString(WHERE, 'model.name', model.name)
  if (typeof model.stream !== 'function') throw argumentError(WHERE, 'model.stream', 'a function', model.stream)
  if (model.outputModalities?.includes('audio')) requireWhole(WHERE, 'model.audioRate', model.audioRate, 1)
  if (model.concurrent !== undefined) requireWhole(WHERE, 'model.concurrent', model.concurrent, 1)
  if (model.videoFrames !== undefined) requireWhole(WHERE, 'model.videoFrames', model.videoFrames, 1)
  if (model.metrics !== undefined && typeof model.metrics !== 'function') {
    throw argumentError(WHERE, 'model.metrics', 'a function', model.metrics)
  }
}

/** Check options and fill in defaults. @throws ConfigError for an unknown option, a wrong value, or an open server without a key */
export function settingsOf(
  options: ServeOptions,
  { concurrent = limits.maxConcurrent }: Partial<ChatModel> = {},
): Settings {
  requireOptions(WHERE, options, [...others, ...Object.keys(limits)])
  const { host = '127.0.0.1', port = 0, apiKey, allowedHosts, log = () => {} } = options
  requireString(WHERE, 'host', host)
  requireWhole(WHERE, 'port', port)
  if (port > 65535) throw argumentError(WHERE, 'port', 'at most 65535', port)
  if (typeof log !== 'function') throw argumentError(WHERE, 'log', 'a function', log)
  if (apiKey !== undefined && (typeof apiKey !== 'string' || !/^[\x21-\x7e]{8,}$/.test(apiKey))) {
    throw new ConfigError(
      `${WHERE}: apiKey: expected at least 8 printable ASCII characters without spaces, got ${typeof apiKey === 'string' ? `a string of ${apiKey.length} characters` : shown(apiKey)}.`,
    )
  }
  if (
    allowedHosts !== undefined &&
    !(Array.isArray(allowedHosts) && allowedHosts.every((x) => typeof x === 'string'))
  ) {
    throw argumentError(WHERE, 'allowedHosts', 'an array of host names', allowedHosts)
  }
  if (!isLoopback(host) && apiKey === undefined) {
    throw new ConfigError(
      `${WHERE}: apiKey: expected a key, because other machines can reach host '${host}'. Set apiKey, or leave host out to serve this machine only.`,
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
    throw argumentError(
      WHERE,
      'defaultNewTokens',
      `at most maxNewTokens, ${whole.maxNewTokens}`,
      whole.defaultNewTokens,
    )
  }
  return whole
}

/** Return the names of this machine's loopback interface, with the loopback address that a server listens on. */
export const loopbackNames = (host: string): string[] => [
  ...new Set(['localhost', '127.0.0.1', '[::1]', ...(isLoopback(host) && isIP(host) === 4 ? [host] : [])]),
]

/** Return whether only this machine can reach an address. */
export function isLoopback(host: string): boolean {
  if (host === 'localhost' || host === '::1') return true
  return isIP(host) === 4 && host.startsWith('127.')
}
