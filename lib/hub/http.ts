import { setTimeout as sleep } from 'node:timers/promises'
import { defined } from '../base/check.js'
import { CancelledError, HubError, VoxtorchError } from '../base/errors.js'
import { JsonScan } from '../files/json/scan.js'

/** How the server is spoken to. */
export interface Wire {
  /** Without a slash at the end. */
  endpoint: string
  token?: string
  /** `user:password` in base64, in place of a token. */
  basic?: string
  /** The Hub, or an index of Python packages: its errors say what to do about it. Default the Hub. */
  kind?: 'hub' | 'index'
  /** Seconds without a byte after which a request is given up. */
  timeout: number
  /** Further attempts after one that failed for a passing reason. */
  retries: number
  signal: AbortSignal
}

/** A failure that another attempt may not meet: the network, a stall, an overloaded server. */
export class PassingFailure extends Error {
  constructor(
    message: string,
    readonly facts: { status?: number; wait?: number; cause?: unknown } = {},
  ) {
    super(message, { cause: facts.cause })
  }
}

/** Fewer bytes than these in `timeout` seconds are no progress: a server could hold a request for ever with one at a time. */
const LEAST = 1024

/**
 * One request. `consume` reads the body and calls `alive` with the length of each piece; when neither the head nor a
 * kilobyte comes for `timeout` seconds, the request is given up.
 * @throws PassingFailure, or HubError where another attempt would meet the same
 */
export async function request<T>(
  wire: Wire,
  url: string,
  init: RequestInit,
  consume: (response: Response, alive: (bytes: number) => void) => Promise<T>,
): Promise<T> {
  cancelIfAborted(wire.signal)
  const stall = new AbortController()
  const timer = setTimeout(() => stall.abort(), wire.timeout * 1000)
  const headers = new Headers(init.headers)
  headers.set('user-agent', 'voxtorch')
  // Lists may lead to other servers, whom the token does not concern. On redirects fetch itself takes it away.
  const ours = new URL(url).origin === new URL(wire.endpoint).origin
  if (wire.token !== undefined && ours) headers.set('authorization', `Bearer ${wire.token}`)
  if (wire.basic !== undefined && ours) headers.set('authorization', `Basic ${wire.basic}`)
  try {
    const response = await fetch(url, { ...init, headers, signal: AbortSignal.any([wire.signal, stall.signal]) })
    timer.refresh()
    let come = 0
    const alive = (bytes: number): void => {
      come += bytes
      if (come < LEAST) return
      come = 0
      timer.refresh()
    }
    try {
      if (!response.ok && response.status !== 416) throw refusal(response, url, wire.kind)
      return await consume(response, alive)
    } finally {
      // A body that nobody reads would keep its connection.
      if (!response.bodyUsed) await response.body?.cancel()
    }
  } catch (error) {
    cancelIfAborted(wire.signal)
    if (error instanceof VoxtorchError || error instanceof PassingFailure) throw error
    if (stall.signal.aborted)
      throw new PassingFailure(`nothing came for ${wire.timeout} s, or next to nothing`, { cause: error })
    const { message, cause } = error as Error & { cause?: { message?: string; code?: string } }
    throw new PassingFailure(cause?.message || cause?.code || message, { cause: error })
  } finally {
    clearTimeout(timer)
  }
}

function refusal(response: Response, url: string, from: Wire['kind'] = 'hub'): Error {
  const { status, headers } = response
  const kind = headers.get('x-error-code')
  const fields = { status, url }
  if ([408, 429, 500, 502, 503, 504].includes(status)) {
    const wait = Number(headers.get('retry-after') ?? Number.NaN)
    return new PassingFailure(`the server answered ${status}`, { status, wait: wait >= 0 ? wait : undefined })
  }
  if (from === 'index' && [401, 403, 404].includes(status)) {
    const what = status === 404 ? 'does not have it' : 'refuses access'
    return new HubError(`the index ${what} (${url}); --index-url or PIP_INDEX_URL names another`, {
      ...fields,
      reason: status === 404 ? 'not-found' : 'access',
    })
  }
  if (kind === 'RevisionNotFound') {
    return new HubError(`the repository has no such revision (${url}); check the name`, {
      ...fields,
      reason: 'not-found',
    })
  }
  if (kind === 'GatedRepo') {
    return new HubError(`the repository is gated (${url}); accept its terms on its page and set HF_TOKEN`, {
      ...fields,
      reason: 'access',
    })
  }
  // Without a token the Hub answers 401 for what does not exist, so as not to tell what does.
  if (status === 404 || kind === 'RepoNotFound') {
    return new HubError(`the server does not have it (${url}); check the name, and set HF_TOKEN if it is private`, {
      ...fields,
      reason: 'not-found',
    })
  }
  if (status === 401 || status === 403) {
    return new HubError(`the server refuses access (${url}); set HF_TOKEN to a token that may read it`, {
      ...fields,
      reason: 'access',
    })
  }
  return new HubError(`the server answered ${status} (${url})`, { ...fields, reason: 'network' })
}

const LONGEST_WAIT = 60

/**
 * Does something again while it fails in passing, waiting longer each time. `advanced` tells whether the last attempt
 * got further; then counting starts anew.
 * @throws HubError with the reason `network` after the last attempt
 */
export async function withRetries<T>(
  wire: Wire,
  what: string,
  work: () => Promise<T>,
  advanced: () => boolean = () => false,
): Promise<T> {
  for (let failures = 1; ; failures++) {
    try {
      return await work()
    } catch (error) {
      if (!(error instanceof PassingFailure)) throw error
      const { status, wait, cause } = error.facts
      if (advanced()) failures = 1
      if (failures > wire.retries || (wait ?? 0) > LONGEST_WAIT) {
        throw new HubError(`${what}: ${error.message}; check the connection and try again`, {
          reason: 'network',
          cause: cause ?? error,
          ...defined({ status }),
        })
      }
      // Several processes that failed together should not come back together.
      const seconds = wait ?? Math.min(10, 0.25 * 2 ** failures) * (0.5 + Math.random() / 2)
      await sleep(seconds * 1000, undefined, { signal: wire.signal }).catch(() => cancelIfAborted(wire.signal))
    }
  }
}

export function cancelIfAborted(signal: AbortSignal): void {
  if (!signal.aborted) return
  // The workers beside one that failed end with its error.
  if (signal.reason instanceof HubError) throw signal.reason
  throw new CancelledError('the download was cancelled; what came so far is kept', { cause: signal.reason })
}

// The package builds all of an answer's values, which take thirty times its bytes. A page of a list has 300 kB.
const MAX_ANSWER = 1 << 24
const MAX_ANSWERS = 1000
/** Of all answers together; 100,000 files take 25 MB. */
const MAX_BYTES = 1 << 26

/** A `fetch` for the package: with the stall clock, the retries, the token and bounds on what a server may send. */
export function boundedFetch(wire: Wire): typeof fetch {
  let answers = 0
  let bytes = 0
  return (input, init = {}) => {
    const url = String(input)
    if (++answers > MAX_ANSWERS || bytes > MAX_BYTES) {
      throw new HubError(`the server's list of files does not end (${url})`, { reason: 'integrity', url })
    }
    return withRetries(wire, url, () =>
      request(wire, url, init, async (response, alive) => {
        const parts: Uint8Array[] = []
        const scan = new JsonScan()
        let size = 0
        for await (const part of response.body ?? []) {
          alive(part.length)
          size += part.length
          if (size > MAX_ANSWER) {
            throw new HubError(`the server's answer has more than ${MAX_ANSWER} bytes (${url})`, {
              reason: 'integrity',
              url,
            })
          }
          if (scan.push(part) >= 0) {
            throw new HubError(`the server's answer nests without end (${url})`, { reason: 'integrity', url })
          }
          parts.push(part)
        }
        bytes += size
        return new Response(Buffer.concat(parts), { status: response.status, headers: response.headers })
      }),
    )
  }
}
