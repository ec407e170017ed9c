import type { IncomingMessage, ServerResponse } from 'node:http'
import { JsonScan } from '../files/json/scan.js'
import { ApiError, badRequest } from './api-error.js'

/** Refuses by its headers what cannot be a JSON body within the limit, before a byte of it is read. */
export function checkBodyHeaders({ headers }: IncomingMessage, most: number): void {
  const [type] = (headers['content-type'] ?? '').split(';', 1)
  if (type?.trim().toLowerCase() !== 'application/json') {
    throw new ApiError(415, 'The body must be JSON, with Content-Type: application/json.', {
      code: 'unsupported_media_type',
    })
  }
  if (headers['content-encoding'] !== undefined && headers['content-encoding'] !== 'identity') {
    throw new ApiError(415, 'The body must not be compressed.', { code: 'unsupported_encoding' })
  }
  if (Number(headers['content-length'] ?? 0) > most) throw tooLarge(most)
}

/** Reads and parses a body that `checkBodyHeaders` let pass. */
export async function readJson(
  request: IncomingMessage,
  response: ServerResponse,
  { maxBodyBytes, bodyTimeout }: { maxBodyBytes: number; bodyTimeout: number },
): Promise<unknown> {
  if (request.headers.expect?.toLowerCase() === '100-continue') response.writeContinue()
  const bytes = await readBytes(request, maxBodyBytes, bodyTimeout)
  const scan = new JsonScan()
  if (scan.push(bytes) >= 0 || scan.tooMuch() !== undefined) {
    throw badRequest('The body nests too deep, or holds more values than can be read.', undefined, 'invalid_json')
  }
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    throw badRequest('The body is not UTF-8.', undefined, 'invalid_json')
  }
  try {
    return JSON.parse(text)
  } catch {
    throw badRequest('The body is not valid JSON.', undefined, 'invalid_json')
  }
}

function readBytes(request: IncomingMessage, most: number, seconds: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const parts: Buffer[] = []
    let size = 0
    const settle = (finish: () => void) => {
      clearTimeout(timer)
      request.off('data', take).off('end', end).off('error', gone).off('close', gone)
      request.pause()
      finish()
    }
    const take = (part: Buffer) => {
      size += part.length
      if (size > most) settle(() => reject(tooLarge(most)))
      else parts.push(part)
    }
    const end = () => settle(() => resolve(Buffer.concat(parts, size)))
    const gone = () => settle(() => reject(badRequest('The body ended before its end.', undefined, 'aborted')))
    const timer = setTimeout(
      () => settle(() => reject(new ApiError(408, `The body did not come within ${seconds} s.`, { code: 'timeout' }))),
      seconds * 1000,
    )
    if (request.destroyed) return gone()
    request.on('data', take).on('end', end).on('error', gone).on('close', gone)
  })
}

const tooLarge = (most: number) =>
  new ApiError(413, `The body is larger than ${most} bytes.`, { code: 'request_too_large' })
