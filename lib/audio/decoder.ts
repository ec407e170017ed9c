import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import type { ByteSource } from '../data/byte-source.js'
import { packageDirectory } from '../native/load.js'
import type { AudioFormat } from './formats.js'

/** Decoded samples, one array for each channel, all equally long. */
export interface Decoded {
  channelData: Float32Array[]
  sampleRate: number
}

interface Reply extends Decoded {
  more: boolean
  error?: string
}

/** What each format is called in npm's `audio-decode`. */
const codecs: Record<Exclude<AudioFormat, 'wav'>, string> = {
  flac: 'flac',
  mp3: 'mp3',
  vorbis: 'oga',
  opus: 'opus',
  m4a: 'm4a',
  aac: 'aac',
}

/** The most bytes that the decoder gets at once; it gets fewer where they unfold to much. */
const PIECE = 4096
const FEED = 1 << 18
const PATIENCE_MS = 20_000
const MOST_IDLE = 2
const idle: Worker[] = []

/**
 * Decodes a compressed file in a thread of its own, from its beginning, as far as the consumer goes. Memory is
 * bounded, except for an M4A file whose index comes last: its decoder starts when it has seen all of it.
 * @param bits of each sample of a FLAC file
 * @throws DataError when the decoder gives up, or makes nothing of a piece within 20 seconds
 */
export async function* decodeCompressed(
  source: ByteSource,
  format: AudioFormat,
  bits?: number,
): AsyncGenerator<Decoded> {
  const worker = idle.pop() ?? startWorker()
  worker.ref()
  let sound = false
  // M4A: the decoder looks through all that it has for the index, with each piece anew, and may decode all at once.
  const indexed = format === 'm4a'
  const piece = indexed ? Math.max(PIECE, Math.ceil(source.size / 64)) : PIECE
  const patience = PATIENCE_MS + (indexed ? source.size / 1000 : 0)
  const ask = async (message: object): Promise<Reply> => {
    const reply = await answer(worker, message, source, patience)
    if (reply.error !== undefined) throw source.error(`the ${format} decoder gives up: ${reply.error}`, { format })
    return reply
  }
  try {
    await ask({ open: codecs[format as keyof typeof codecs], piece, bits })
    for await (const bytes of source.stream(0, source.size, Math.max(FEED, piece))) {
      let reply = await ask({ feed: new Uint8Array(bytes) })
      yield reply
      while (reply.more) {
        reply = await ask({ next: true })
        yield reply
      }
    }
    const last = await ask({ end: true })
    sound = true
    yield last
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

function answer(worker: Worker, message: object, source: ByteSource, patience: number): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const done = (finish: () => void) => {
      clearTimeout(timer)
      worker.off('message', onMessage)
      worker.off('error', onError)
      worker.off('exit', onExit)
      finish()
    }
    const fail = (what: string, fields = {}) => done(() => reject(source.error(what, fields)))
    const onMessage = (reply: Reply) => done(() => resolve(reply))
    const onError = (cause: Error) => fail(`its decoder failed: ${cause.message}`, { cause })
    const onExit = () => fail('its decoder ended')
    const timer = setTimeout(() => fail(`its decoder makes nothing of it in ${patience / 1000} s`), patience)
    worker.on('message', onMessage)
    worker.on('error', onError)
    worker.on('exit', onExit)
    worker.postMessage(message)
  })
}
