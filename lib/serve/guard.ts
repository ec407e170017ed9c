import { createHash, timingSafeEqual } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { shown } from '../base/check.js'
import { ApiError } from './api-error.js'
import type { Settings } from './options.js'

/**
 * Refuse requests of other web pages. A page that uses DNS rebinding sends its own name as Host; a cross-site request has
 * the page's Origin.
 * @throws ApiError 403
 */
export function checkSource({ headers }: IncomingMessage, { allowedHosts }: Settings): void {
  const host = headers.host?.toLowerCase() ?? ''
  const name = host.replace(/:\d+$/, '')
  if (allowedHosts !== undefined && !allowedHosts.includes(name)) {
    const names = allowedHosts.join(', ')
    throw new ApiError(
      403,
      `Host: expected one of ${names}, got ${shown(name)}. The server's option allowedHosts adds names.`,
      {
        code: 'forbidden_host',
      },
    )
  }
  const { origin } = headers
  if (origin === undefined) return
  if (!URL.canParse(origin) || new URL(origin).host !== host) {
    throw new ApiError(403, `Origin: expected the server's own page, got ${shown(origin)}.`, {
      code: 'forbidden_origin',
    })
  }
}

export function checkKey({ headers }: IncomingMessage, { apiKey }: Settings): void {
  if (apiKey === undefined) return
  const [, key = ''] = /^bearer +(\S+) *$/i.exec(headers.authorization ?? '') ?? []
  // Digests have equal lengths, which timingSafeEqual needs.
  if (timingSafeEqual(digest(key), digest(apiKey))) return
  throw new ApiError(
    401,
    'Authorization: expected "Bearer" and the API key of this server; the key is missing or wrong.',
    {
      code: 'invalid_api_key',
      headers: { 'WWW-Authenticate': 'Bearer' },
    },
  )
}

const digest = (text: string) => createHash('sha256').update(text).digest()
