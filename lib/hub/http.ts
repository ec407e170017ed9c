import { setTimeout as sleep } from 'node:timers/promises'
import { defined } from '../base/check.js'
import { CancelledError, HubError, VoxtorchError } from '../base/errors.js'
import { JsonScan } from '../files/json/scan.js'

/** Connection settings. */
export interface Wire {
  /** URL of the server, without a slash at the end. */
  endpoint: string
  token?: string
  /** `user:password` in base64, instead of a token. */
  basic?: string
  /** Kind of server, for the advice in errors: the Hub, or an index of Python packages. Default the Hub. */
  kind?: 'hub' | 'index'
  /** Seconds without progress after which a request is aborted. */
  timeout: number
  /** Further attempts after a transient failure. */
  retries: number
  signal: AbortSignal
}

/** A transient failure, which is retried: of the network, a stalled connection, an overloaded server. */
export class PassingFailure extends Error {
  constructor(
    message: string,
    readonly facts: { status?: number; wait?: number; cause?: unknown } = {},
  ) {
    super(message, { cause: facts.cause })
  }
}

/** Bytes within `timeout` seconds that count as progress. Fewer are a stall, so a slow server cannot hold a request forever. */
const LEAST = 1024

/**
 * Send one request. `consume` reads the body and calls `alive` with the length of each piece. The request is aborted when neither
 * the headers nor 1 kB arrive within `timeout` seconds.
 * @throws PassingFailure for transient failures, HubError for others
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
  // File lists can refer to other servers, which must not receive the token. On redirects fetch removes it.
  const isEndpoint = new URL(url).origin === new URL(wire.endpoint).origin
  if (wire.token !== undefined && isEndpoint) headers.set('authorization', `Bearer ${wire.token}`)
  if (wire.basic !== undefined && isEndpoint) headers.set('authorization', `Basic ${wire.basic}`)
  try {
    const response = await fetch(url, { ...init, headers, signal: AbortSignal.any([wire.signal, stall.signal]) })
    timer.refresh()
    let received = 0
    const alive = (bytes: number): void => {
      received += bytes
      if (received < LEAST) return
      received = 0
      timer.refresh()
    }
    try {
      if (!response.ok && response.status !== 416) throw refusal(response, url, wire.kind)
      return await consume(response, alive)
    } finally {
      // An unread body would keep its connection open.
      if (!response.bodyUsed) await response.body?.cancel()
    }
  } catch (error) {
    cancelIfAborted(wire.signal)
    if (error instanceof VoxtorchError || error instanceof PassingFailure) throw error
    if (stall.signal.aborted)
      throw new PassingFailure(`less than ${LEAST} bytes arrived within ${wire.timeout} s`, { cause: error })
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
    return new PassingFailure(`the server responded with status ${status}`, {
      status,
      wait: wait >= 0 ? wait : undefined,
    })
  }
  if (from === 'index' && [401, 403, 404].includes(status)) {
    const what = status === 404 ? 'does not have the package' : 'denies access'
    return new HubError(`${url}: the index ${what}. Set --index-url or PIP_INDEX_URL to another one.`, {
      ...fields,
      reason: status === 404 ? 'not-found' : 'access',
    })
  }
  if (kind === 'RevisionNotFound') {
    return new HubError(`${url}: the repository does not have this revision. Check its name.`, {
      ...fields,
      reason: 'not-found',
    })
  }
  if (kind === 'GatedRepo') {
    return new HubError(`${url}: the repository is gated. Accept its terms on its page and set HF_TOKEN.`, {
      ...fields,
      reason: 'access',
    })
  }
  // Without a token the Hub responds with 401 for missing repositories, to not reveal private ones.
  if (status === 404 || kind === 'RepoNotFound') {
    return new HubError(`${url}: not found on the server. Check the name, and set HF_TOKEN if it is private.`, {
      ...fields,
      reason: 'not-found',
    })
  }
  if (status === 401 || status === 403) {
    return new HubError(`${url}: the server denies access. Set HF_TOKEN to a token with read access.`, {
      ...fields,
      reason: 'access',
    })
  }
  return new HubError(`${url}: the server responded with status ${status}.`, { ...fields, reason: 'network' })
}

const LONGEST_WAIT = 60

/**
 * Retry `work` after transient failures, with increasing delays. The count restarts when `advanced` returns that the last attempt
 * made progress.
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
        throw new HubError(`${what}: ${error.message}. Check the connection and try again.`, {
          reason: 'network',
          cause: cause ?? error,
          ...defined({ status }),
        })
      }
      // Random delays, so that processes that failed together do not retry together.
      const seconds = wait ?? Math.min(10, 0.25 * 2 ** failures) * (0.5 + Math.random() / 2)
      await sleep(seconds * 1000, undefined, { signal: wire.signal }).catch(() => cancelIfAborted(wire.signal))
    }
  }
}

export function cancelIfAborted(signal: AbortSignal): void {
  if (!signal.aborted) return
  // Concurrent downloads end with the error of the one that failed.
  if (signal.reason instanceof HubError) throw signal.reason
  throw new CancelledError('the download was canceled. The part downloaded so far is kept.', { cause: signal.reason })
}

// The package parses a whole response, which takes thirty times its bytes. A page of a file list has 300 kB.
const MAX_ANSWER = 1 << 24
const MAX_ANSWERS = 1000
/** Most bytes of all responses together; a list of 100,000 files takes 25 MB. */
const MAX_BYTES = 1 << 26

/** Return a `fetch` for the package: with timeout, retries, token, and limits on the size of responses. */
export function boundedFetch(wire: Wire): typeof fetch {
  let answers = 0
  let bytes = 0
  return (input, init = {}) => {
    const url = String(input)
    if (++answers > MAX_ANSWERS || bytes > MAX_BYTES) {
      throw new HubError(
        `${url}: expected a file list of at most ${MAX_ANSWERS} pages and ${MAX_BYTES} bytes, got more.`,
        { reason: 'integrity', url },
      )
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
            throw new HubError(`${url}: expected a response of at most ${MAX_ANSWER} bytes, got more.`, {
              reason: 'integrity',
              url,
            })
          }
          if (scan.push(part) >= 0) {
            throw new HubError(`${url}: expected JSON with limited nesting, got more.`, { reason: 'integrity', url })
          }
          parts.push(part)
        }
        bytes += size
        return new Response(Buffer.concat(parts), { status: response.status, headers: response.headers })
      }),
    )
  }
}
