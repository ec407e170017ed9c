import { isUtf8 } from 'node:buffer'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { JsonScan } from '../files/json/scan.js'
import { ApiError, badRequest } from './api-error.js'
import type { ServeLimits } from './options.js'

/** Values of a body: many times what the most messages and parts have. */
const MOST_VALUES = 2 ** 19

/**
 * How long a body may bring nearly nothing, in seconds, and what that is in bytes. Only seconds count in which the server listened:
 * a look that comes late by another second tells of a busy machine, not of a slow client.
 */
const STALL_SECONDS = 5
const STALL_BYTES = 5_000
const SECOND = 1000

const BYTE_ORDER_MARK = Buffer.from([0xef, 0xbb, 0xbf])

/** A body that is being read. */
interface Reader {
  /** Goes on, or lets the client wait. */
  flow(isOpen: boolean): void
}

/**
 * The memory of all bodies that are being read, or wait for a place. A body takes as much as has come of it, so that clients
 * that send slowly take nothing from others. While all is taken, only the body that came first is read on: it comes to its
 * end whatever the others hold.
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

  /** The body has come, or comes no more. */
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

/** A body that has come: its value is parsed when there is a place for the request. */
export interface Body {
  /** @throws ApiError 400; the bytes are let go in any case */
  parse(): unknown
  /** Lets the bytes go. */
  drop(): void
}

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

type BodyLimits = Pick<ServeLimits, 'maxBodyBytes' | 'bodyTimeout' | 'queueTimeout'>

/** Reads a body that `checkBodyHeaders` let pass. @throws ApiError for one that is too large, too slow or too deep */
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
  // Several times as quick as a TextDecoder, which a large body would be noticed by.
  if (!isUtf8(bytes)) throw badRequest('The body is not UTF-8.', undefined, 'invalid_json')
  const text = bytes.toString('utf8', bytes.subarray(0, 3).equals(BYTE_ORDER_MARK) ? 3 : 0)
  try {
    return JSON.parse(text)
  } catch {
    throw badRequest('The body is not valid JSON.', undefined, 'invalid_json')
  }
}

function readParts(
  request: IncomingMessage,
  { maxBodyBytes: most, bodyTimeout, queueTimeout }: BodyLimits,
  room: BodyRoom,
): Promise<Buffer[]> {
  return new Promise((resolve, reject) => {
    const parts: Buffer[] = []
    // Looked at as it comes, so that a large one holds nobody up.
    const scan = new JsonScan({ values: MOST_VALUES })
    let [size, before, quiet, looked] = [0, 0, 0, performance.now()]
    let isSettled = false
    const settle = (finish: () => void) => {
      isSettled = true
      reading.stop()
      waiting.stop()
      clearInterval(watch)
      request.off('data', take).off('end', end).off('error', gone).off('close', gone)
      request.pause()
      finish()
      room.end(reader)
    }
    const refuse = (error: unknown) =>
      settle(() => {
        reject(error)
        room.leave(sizeOf(parts))
      })
    // What came while the server was busy is read first, and may be what is missing.
    const late = (what: string, isLate = () => true) =>
      setImmediate(() =>
        setImmediate(() => {
          if (!isSettled && isLate()) refuse(new ApiError(408, what, { code: 'timeout' }))
        }),
      )
    const reading = new StopWatch(bodyTimeout, () => late(`The body did not come within ${bodyTimeout} s.`))
    const waiting = new StopWatch(queueTimeout, () => {
      const facts = { code: 'queue_timeout', retryAfter: Math.ceil(queueTimeout) }
      refuse(new ApiError(503, `There was no room for the body within ${queueTimeout} s.`, facts))
    })
    const take = (part: Buffer) => {
      size += part.length
      if (size > most) return refuse(tooLarge(most))
      if (scan.push(part) >= 0 || scan.tooMuch() !== undefined) return refuse(tooMuch())
      parts.push(part)
      room.take(part.length)
    }
    const end = () => settle(() => resolve(parts))
    const gone = () => refuse(badRequest('The body ended before its end.', undefined, 'aborted'))
    const isQuiet = () => reading.isRunning && size - before < STALL_BYTES
    const watch = setInterval(() => {
      const now = performance.now()
      const isLate = now - looked > 2 * SECOND
      looked = now
      if (!isQuiet()) [before, quiet] = [size, 0]
      else if (!isLate) quiet += 1
      if (quiet < STALL_SECONDS) return
      late(`The body brought less than ${STALL_BYTES} bytes in ${STALL_SECONDS} s.`, isQuiet)
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
    if (request.destroyed) return gone()
    request.on('data', take).on('end', end).on('error', gone).on('close', gone).pause()
    room.begin(reader)
    if (!reading.isRunning) waiting.start()
  })
}

/** Calls somebody once it has run for so many seconds in all. */
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
  badRequest('The body nests too deep, or holds more values than can be read.', undefined, 'invalid_json')

const tooLarge = (most: number) =>
  new ApiError(413, `The body is larger than ${most} bytes.`, { code: 'request_too_large' })
