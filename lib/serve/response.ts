import type { IncomingMessage, ServerResponse } from 'node:http'
import { defined } from '../base/check.js'
import type { ApiError } from './api-error.js'

/** Headers of every response. The page loads only its own files, and other pages cannot embed it. */
export const SECURITY_HEADERS: Record<string, string> = {
  'Content-Security-Policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src blob:; connect-src 'self'; " +
    "worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  'X-Content-Type-Options': 'nosniff',
  'X-Frame-Options': 'DENY',
  'Referrer-Policy': 'no-referrer',
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Permissions-Policy': 'microphone=(self), camera=(self), geolocation=()',
  'Cache-Control': 'no-store',
}

export function sendJson(response: ServerResponse, status: number, value: object, headers = {}): void {
  const body = JSON.stringify(value)
  response.writeHead(status, {
    'Content-Type': 'application/json; charset=utf-8',
    'Content-Length': Buffer.byteLength(body),
    ...headers,
  })
  response.end(body)
}

/** Time for which the rest of a refused body is read and discarded, in milliseconds, so that the client can read the error. */
const LINGER = 2_000

export function sendError(request: IncomingMessage, response: ServerResponse, error: ApiError): void {
  const { retryAfter, headers } = error.facts
  const more = defined({ ...headers, 'Retry-After': retryAfter?.toString() })
  if (request.complete || !hasBody(request)) return sendJson(response, error.status, error.body, more)
  // Ending now would close the connection while bytes still arrive. That resets it, and the client loses the response.
  const body = JSON.stringify(error.body)
  response.writeHead(error.status, {
    'Content-Type': 'application/json; charset=utf-8',
    'Content-Length': Buffer.byteLength(body),
    ...more,
    Connection: 'close',
  })
  response.write(body)
  const done = () => {
    clearTimeout(timer)
    response.end()
  }
  const timer = setTimeout(done, LINGER)
  request.once('end', done).once('close', done).on('error', done).resume()
}

const hasBody = ({ headers }: IncomingMessage) =>
  headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0
