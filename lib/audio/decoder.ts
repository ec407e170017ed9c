import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import type { ByteSource } from '../files/byte-source.js'
import { packageDirectory } from '../native/load.js'
import { AAC_PACKAGE } from './codecs/aac.js'
import type { Decoded } from './codecs/decoder.js'
import type { CodedFormat } from './sniff.js'

/** What the decoder's thread is asked for: one of `open`, `feed`, `next` and `end`. */
export interface DecoderRequest {
  open?: CodedFormat | 'ogg-flac'
  /** Bytes of the file that is opened. */
  size?: number
  feed?: Uint8Array
  next?: true
  end?: true
}

export interface DecoderReply extends Decoded {
  /** Whether there is more of what was fed. */
  more: boolean
}

interface Failure {
  error: string
  /** A package is missing: nothing is wrong with the file. */
  missing: boolean
}

const FEED = 1 << 18
const PATIENCE_MS = 20_000
const MOST_IDLE = 2
const idle: Worker[] = []

/**
 * Decodes a compressed file in a thread of its own, from its beginning, as far as the consumer goes. Memory is
 * bounded, except for an M4A file whose index comes last: its decoder starts when it has seen all of it.
 * @throws DataError when the decoder gives up, or makes nothing of a piece within 20 seconds; the reason of `signal` when
 *   it is aborted
 */
export async function* decodeCompressed(
  source: ByteSource,
  format: CodedFormat,
  signal?: AbortSignal,
): AsyncGenerator<Decoded> {
  const worker = idle.pop() ?? startWorker()
  worker.ref()
  let sound = false
  const indexed = format === 'm4a'
  const feed = indexed ? Math.max(FEED, Math.ceil(source.size / 64)) : FEED
  const patience = PATIENCE_MS + (indexed ? source.size / 1000 : 0)
  const ask = async (request: DecoderRequest): Promise<DecoderReply> => {
    signal?.throwIfAborted()
    const reply = await answer(worker, request, source, patience, signal)
    if (!('error' in reply)) return reply
    throw source.error(reply.missing ? reply.error : `the ${format} decoder gives up: ${reply.error}`, {
      ...{ format, ...(reply.missing && { missing: AAC_PACKAGE }) },
    })
  }
  const inOgg = format === 'flac' && (await source.bytes(0, Math.min(4, source.size))).toString('latin1') === 'OggS'
  try {
    await ask({ open: inOgg ? 'ogg-flac' : format, size: source.size })
    async function* requests(): AsyncGenerator<DecoderRequest> {
      for await (const bytes of source.stream(0, source.size, feed)) yield { feed: new Uint8Array(bytes) }
      yield { end: true }
    }
    for await (const request of requests()) {
      let reply = await ask(request)
      while (reply.more) {
        yield reply
        reply = await ask({ next: true })
      }
      sound = request.end === true
      yield reply
    }
  } finally {
    worker.unref()
    // After an error, or in the middle of a file, nobody knows what state the decoder is in.
    if (sound && idle.length < MOST_IDLE) idle.push(worker)
    else await worker.terminate()
  }
}

function startWorker(): Worker {
  const worker = new Worker(join(packageDirectory, 'dist/audio/decoder-worker.js'), { execArgv: [] })
  const forget = () => {
    const place = idle.indexOf(worker)
    if (place >= 0) idle.splice(place, 1)
  }
  worker.on('error', forget)
  worker.on('exit', forget)
  return worker
}

function answer(
  worker: Worker,
  message: DecoderRequest,
  source: ByteSource,
  patience: number,
  signal: AbortSignal | undefined,
): Promise<DecoderReply | Failure> {
  return new Promise((resolve, reject) => {
    const done = (finish: () => void) => {
      clearTimeout(timer)
      worker.off('message', onMessage)
      worker.off('error', onError)
      worker.off('exit', onExit)
      signal?.removeEventListener('abort', onAbort)
      finish()
    }
    const fail = (what: string, fields = {}) => done(() => reject(source.error(what, fields)))
    const onMessage = (reply: DecoderReply | Failure) => done(() => resolve(reply))
    const onError = (cause: Error) => fail(`its decoder failed: ${cause.message}`, { cause })
    const onExit = () => fail('its decoder ended')
    const onAbort = () => done(() => reject(signal!.reason))
    const timer = setTimeout(() => fail(`its decoder makes nothing of it in ${patience / 1000} s`), patience)
    worker.on('message', onMessage)
    worker.on('error', onError)
    worker.on('exit', onExit)
    signal?.addEventListener('abort', onAbort)
    worker.postMessage(message)
  })
}
