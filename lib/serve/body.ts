import { isUtf8 } from 'node:buffer'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { shown } from '../base/check.js'
import { JsonScan } from '../files/json/scan.js'
import { ApiError, badRequest } from './api-error.js'
import type { ServeLimits } from './options.js'

/** Most JSON values in a body: many times as many as the largest allowed number of messages and parts has. */
const MOST_VALUES = 2 ** 19

/**
 * A client that sends less than `STALL_BYTES` in `STALL_SECONDS` is refused. Only seconds in which the server listened
 * count: a late check means a busy machine, not a slow client.
 */
const STALL_SECONDS = 5
const STALL_BYTES = 5_000
const SECOND = 1000

const BYTE_ORDER_MARK = Buffer.from([0xef, 0xbb, 0xbf])

/** The reader of one body. */
interface Reader {
  /** Resume or pause reading. */
  flow(isOpen: boolean): void
}

/**
 * A memory budget for all request bodies that are being read or queued. A body counts with the bytes received so far, so a
 * slow client does not reserve memory. When the budget is spent, only the oldest body is read further, which guarantees
 * progress.
 */
export class BodyRoom {
  readonly #readers = new Set<Reader>()
  #bytes = 0

  constructor(readonly most: number) {}

  begin(reader: Reader): void {
    this.#readers.add(reader)
    this.#balance()
  }

  take(bytes: number): void {
    this.#bytes += bytes
    this.#balance()
  }

  /** Remove the reader of a body that is complete or was aborted. */
  end(reader: Reader): void {
    this.#readers.delete(reader)
    this.#balance()
  }

  leave(bytes: number): void {
    this.#bytes -= bytes
    this.#balance()
  }

  #balance(): void {
    let isFirst = true
    for (const reader of this.#readers) {
      reader.flow(isFirst || this.#bytes < this.most)
      isFirst = false
    }
  }
}

/** A complete body, parsed when the request gets a slot. */
export interface Body {
  /** Parse the JSON and release the bytes. @throws ApiError 400 for invalid JSON */
  parse(): unknown
  /** Release the bytes. */
  drop(): void
}

/** Check the headers of a request before its body is read. @throws ApiError 415 without JSON, 413 above `most` bytes */
export function checkBodyHeaders({ headers }: IncomingMessage, most: number): void {
  const [type] = (headers['content-type'] ?? '').split(';', 1)
  if (type?.trim().toLowerCase() !== 'application/json') {
    throw new ApiError(415, `Content-Type: expected application/json, got ${shown(headers['content-type'])}.`, {
      code: 'unsupported_media_type',
    })
  }
  if (headers['content-encoding'] !== undefined && headers['content-encoding'] !== 'identity') {
    const encoding = shown(headers['content-encoding'])
    throw new ApiError(415, `Content-Encoding: expected an uncompressed body, got ${encoding}.`, {
      code: 'unsupported_encoding',
    })
  }
  if (Number(headers['content-length'] ?? 0) > most) throw tooLarge(most)
}

type BodyLimits = Pick<ServeLimits, 'maxBodyBytes' | 'bodyTimeout' | 'queueTimeout'>

/** Read a body after `checkBodyHeaders`. @throws ApiError for a body that is too large, too slow or nested too deeply */
export async function readBody(
  request: IncomingMessage,
  response: ServerResponse,
  limits: BodyLimits,
  room: BodyRoom,
): Promise<Body> {
  if (request.headers.expect?.toLowerCase() === '100-continue') response.writeContinue()
  let parts: Buffer[] | undefined = await readParts(request, limits, room)
  const size = sizeOf(parts)
  const drop = () => {
    if (parts !== undefined) room.leave(size)
    parts = undefined
  }
  const parse = () => {
    const bytes = Buffer.concat(parts ?? [], size)
    drop()
    return parseBytes(bytes)
  }
  return { parse, drop }
}

const sizeOf = (parts: readonly Buffer[]): number => parts.reduce((sum, { length }) => sum + length, 0)

function parseBytes(bytes: Buffer): unknown {
  // Several times faster than a TextDecoder, which would block the event loop for long on a large body.
  if (!isUtf8(bytes)) throw badRequest('body: expected UTF-8 text, got other bytes.', undefined, 'invalid_json')
  const text = bytes.toString('utf8', bytes.subarray(0, 3).equals(BYTE_ORDER_MARK) ? 3 : 0)
  try {
    return JSON.parse(text)
  } catch {
    throw badRequest('body: expected valid JSON.', undefined, 'invalid_json')
  }
}

function readParts(
  request: IncomingMessage,
  { maxBodyBytes: most, bodyTimeout, queueTimeout }: BodyLimits,
  room: BodyRoom,
): Promise<Buffer[]> {
  return new Promise((resolve, reject) => {
    const parts: Buffer[] = []
    // Scanned as it arrives, so that a large body does not block the event loop.
    const scan = new JsonScan({ values: MOST_VALUES })
    let [size, before, quiet, looked] = [0, 0, 0, performance.now()]
    let isSettled = false
    const settle = (finish: () => void) => {
      isSettled = true
      reading.stop()
      waiting.stop()
      clearInterval(watch)
      request.off('data', take).off('end', end).off('error', abort).off('close', abort)
      request.pause()
      finish()
      room.end(reader)
    }
    const refuse = (error: unknown) =>
      settle(() => {
        reject(error)
        room.leave(sizeOf(parts))
      })
    // Bytes that arrived while the server was busy are read first, and may be the missing ones.
    const late = (expected: string, isLate = () => true) =>
      setImmediate(() =>
        setImmediate(() => {
          if (!isSettled && isLate()) refuse(new ApiError(408, `body: expected ${expected}.`, { code: 'timeout' }))
        }),
      )
    const reading = new StopWatch(bodyTimeout, () => late(`all bytes within ${bodyTimeout} s`))
    const waiting = new StopWatch(queueTimeout, () => {
      const facts = { code: 'queue_timeout', retryAfter: Math.ceil(queueTimeout) }
      refuse(
        new ApiError(
          503,
          `The server had too little memory for the body for ${queueTimeout} s. Try again later.`,
          facts,
        ),
      )
    })
    const take = (part: Buffer) => {
      size += part.length
      if (size > most) return refuse(tooLarge(most))
      if (scan.push(part) >= 0 || scan.tooMuch() !== undefined) return refuse(tooMuch())
      parts.push(part)
      room.take(part.length)
    }
    const end = () => settle(() => resolve(parts))
    const abort = () => refuse(badRequest('body: the connection closed before the last byte.', undefined, 'aborted'))
    const isQuiet = () => reading.isRunning && size - before < STALL_BYTES
    const watch = setInterval(() => {
      const now = performance.now()
      const isLate = now - looked > 2 * SECOND
      looked = now
      if (!isQuiet()) [before, quiet] = [size, 0]
      else if (!isLate) quiet += 1
      if (quiet < STALL_SECONDS) return
      late(`at least ${STALL_BYTES} bytes in each ${STALL_SECONDS} s, got ${size - before}`, isQuiet)
    }, SECOND)
    const reader: Reader = {
      flow(isOpen) {
        if (isOpen === reading.isRunning) return
        if (isOpen) {
          waiting.stop()
          reading.start()
          ;[before, quiet] = [size, 0]
          request.resume()
        } else {
          reading.stop()
          waiting.start()
          request.pause()
        }
      },
    }
    if (request.destroyed) return abort()
    request.on('data', take).on('end', end).on('error', abort).on('close', abort).pause()
    room.begin(reader)
    if (!reading.isRunning) waiting.start()
  })
}

/** A timer that can be paused: calls `over` once it has run for `seconds` in total. */
class StopWatch {
  #left: number
  #since = 0
  #timer: NodeJS.Timeout | undefined

  constructor(
    seconds: number,
    readonly over: () => void,
  ) {
    this.#left = seconds * 1000
  }

  get isRunning(): boolean {
    return this.#timer !== undefined
  }

  start(): void {
    if (this.#timer !== undefined) return
    this.#since = performance.now()
    this.#timer = setTimeout(this.over, this.#left)
  }

  stop(): void {
    if (this.#timer === undefined) return
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#left = Math.max(0, this.#left - (performance.now() - this.#since))
  }
}

const tooMuch = () =>
  badRequest(
    `body: expected at most ${MOST_VALUES} JSON values, nested at most as deep as the parser reads.`,
    undefined,
    'invalid_json',
  )

const tooLarge = (most: number) =>
  new ApiError(413, `body: expected at most ${most} bytes (maxBodyBytes), got more.`, { code: 'request_too_large' })
