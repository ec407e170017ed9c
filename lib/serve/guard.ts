import { createHash, timingSafeEqual } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { ApiError } from './api-error.js'
import type { Settings } from './options.js'

/**
 * Keeps other web pages out: one that made its own name point here (DNS rebinding) has that name as Host, and one that
 * sends across sites has its own Origin.
 */
export function checkSource({ headers }: IncomingMessage, { allowedHosts }: Settings): void {
  const host = headers.host?.toLowerCase() ?? ''
  const name = host.replace(/:\d+$/, '')
  if (allowedHosts !== undefined && !allowedHosts.includes(name)) {
    throw new ApiError(403, 'This server is not to be addressed by that host name.', { code: 'forbidden_host' })
  }
  const { origin } = headers
  if (origin === undefined) return
  if (!URL.canParse(origin) || new URL(origin).host !== host) {
    throw new ApiError(403, 'Pages of other origins may not use this server.', { code: 'forbidden_origin' })
  }
}

export function checkKey({ headers }: IncomingMessage, { apiKey }: Settings): void {
  if (apiKey === undefined) return
  const [, given = ''] = /^bearer +(\S+) *$/i.exec(headers.authorization ?? '') ?? []
  // Digests are equally long, and comparing them takes equally long.
  if (timingSafeEqual(digest(given), digest(apiKey))) return
  throw new ApiError(401, 'The API key is missing or wrong.', {
    code: 'invalid_api_key',
    headers: { 'WWW-Authenticate': 'Bearer' },
  })
}

const digest = (text: string) => createHash('sha256').update(text).digest()
