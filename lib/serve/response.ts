import type { IncomingMessage, ServerResponse } from 'node:http'
import { defined } from '../base/check.js'
import type { ApiError } from './api-error.js'

/** Of every response. Nothing but the page's own files runs or is shown in it, and no other page may hold it. */
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

/** How long the rest of a refused body is thrown away, so that the client gets to read why. */
const LINGER = 2_000

export function sendError(request: IncomingMessage, response: ServerResponse, error: ApiError): void {
  const { retryAfter, headers } = error.facts
  const more = defined({ ...headers, 'Retry-After': retryAfter?.toString() })
  if (request.complete || !hasBody(request)) return sendJson(response, error.status, error.body, more)
  // To end now would close the connection while bytes still come, which resets it and takes the response away again.
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
