import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import type { ByteSource } from '../files/byte-source.js'
import { loadNative, packageDirectory } from '../native/load.js'
import { AAC_PACKAGE } from './codecs/aac.js'
import type { Decoded } from './codecs/decoder.js'
import type { CodedFormat } from './sniff.js'

/** Request to the decoder thread: one of `open`, `feed`, `next` and `end`. */
export interface DecoderRequest {
  open?: CodedFormat | 'ogg-flac'
  /** Size of the opened file in bytes. */
  size?: number
  feed?: Uint8Array
  next?: true
  end?: true
}

export interface DecoderReply extends Decoded {
  /** Whether more samples can be decoded without further input. */
  more: boolean
}

interface Failure {
  error: string
  /** Whether an optional package is missing, rather than the file being invalid. */
  missing: boolean
}

/** Bytes per message to the thread. */
const FEED = 1 << 20
const PATIENCE_MS = 20_000
/** Threads that wait for the next file: as many files are read at once as there are processors. */
const MOST_IDLE = Math.min(8, Math.max(2, availableParallelism()))
const idle: Worker[] = []

/**
 * Decode a compressed file in a worker thread, from its beginning, as far as the consumer reads. Memory is bounded, except for
 * an M4A file whose index is at the end: its decoder needs the whole file.
 * @throws DataError when decoding fails, or takes more than 20 seconds for a piece; the reason of `signal` when it is aborted
 */
export async function* decodeCompressed(
  source: ByteSource,
  format: CodedFormat,
  signal?: AbortSignal,
): AsyncGenerator<Decoded> {
  // Here, because a library whose first user is a thread is unloaded when that thread ends.
  loadNative()
  const worker = idle.pop() ?? startWorker()
  worker.ref()
  let isDone = false
  const indexed = format === 'm4a'
  const feed = indexed ? Math.max(FEED, Math.ceil(source.size / 64)) : FEED
  const patience = PATIENCE_MS + (indexed ? source.size / 1000 : 0)
  const ask = async (request: DecoderRequest): Promise<DecoderReply> => {
    signal?.throwIfAborted()
    const reply = await answer(worker, request, source, format, patience, signal)
    if (!('error' in reply)) return reply
    throw source.error(reply.missing ? reply.error : `cannot decode ${format}: ${reply.error}`, {
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
      isDone = request.end === true
      yield reply
    }
  } finally {
    worker.unref()
    // After an error, or within a file, the decoder cannot be reused.
    if (isDone && idle.length < MOST_IDLE) idle.push(worker)
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
  format: CodedFormat,
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
    const onError = (cause: Error) => fail(`the ${format} decoder failed: ${cause.message}`, { cause })
    const onExit = () => fail(`the ${format} decoder thread ended unexpectedly`)
    const onAbort = () => done(() => reject(signal!.reason))
    const timer = setTimeout(() => fail(`the ${format} decoder did not respond for ${patience / 1000} s`), patience)
    worker.on('message', onMessage)
    worker.on('error', onError)
    worker.on('exit', onExit)
    signal?.addEventListener('abort', onAbort)
    worker.postMessage(message)
  })
}
