import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { resample } from '../audio/resample.js'
import { DataError, DisposedError, type VoxtorchError } from '../base/errors.js'
import { packageDirectory } from '../native/load.js'
import { ops, type Tensor, tensor, zeros } from '../tensor/index.js'
import type { FrameSource, ReadAudioTrackOptions } from './video.js'
import type { VideoFacts, VideoLimits } from './video-decoder.js'
import {
  type AudioBlock,
  LEFT,
  PENDING,
  STOPPED,
  type VideoReply,
  type VideoRequest,
  type VideoWork,
} from './video-messages.js'

/** Limits on the frames that are decoded ahead: bytes, minimum and maximum number. */
const AHEAD_BYTES = 1 << 26
const LEAST_AHEAD = 2
const MOST_AHEAD = 32
/** Time without a message after which the worker thread counts as hung; it sends one every second. */
const PATIENCE_MS = 120_000
const MOST_AUDIO_BYTES = 2 ** 30

/** Time in which a thread must finish after it was stopped: it looks after every packet. */
const STOP_MS = 5000

/**
 * A thread that decodes videos. It ends by itself, after the call of FFmpeg that it is in: Node ends a thread by making all its
 * calls of N-API fail, and node-av aborts the process then.
 */
class VideoThread {
  readonly control = new Int32Array(new SharedArrayBuffer(12))
  readonly worker = new Worker(join(packageDirectory, 'dist/vision/video-worker.js'), {
    execArgv: [],
    name: 'voxtorch video',
    workerData: this.control,
  })
  readonly #exited: Promise<void>

  constructor() {
    running.add(this)
    if (running.size === 1) process.on('exit', stopAll)
    this.#exited = new Promise((resolve) => {
      this.worker.once('exit', () => {
        running.delete(this)
        if (running.size === 0) process.off('exit', stopAll)
        resolve()
      })
    })
    // Readers listen while they wait for it.
    this.worker.on('error', () => {})
  }

  post(request: VideoRequest): void {
    if (!('exit' in request)) Atomics.add(this.control, PENDING, 1)
    this.worker.postMessage(request)
  }

  stop(): void {
    Atomics.store(this.control, STOPPED, 1)
    Atomics.notify(this.control, LEFT)
  }

  /** End the thread. Returns after `STOP_MS` if a call of FFmpeg does not end. */
  async end(): Promise<void> {
    this.stop()
    this.post({ exit: true })
    this.worker.ref()
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, STOP_MS)
    })
    await Promise.race([this.#exited, late])
    clearTimeout(timer)
    this.worker.unref()
  }

  /** Wait until the thread does nothing, blocking this one. */
  waitUntilIdle(): void {
    for (let pending = 1; pending > 0; pending = Atomics.load(this.control, PENDING)) {
      if (Atomics.wait(this.control, PENDING, pending, STOP_MS) === 'timed-out') return
    }
  }
}

const running = new Set<VideoThread>()

function stopAll(): void {
  for (const thread of running) thread.stop()
  for (const thread of running) thread.waitUntilIdle()
}

/**
 * Idle threads of closed videos, for reuse: starting a thread and loading FFmpeg takes longer than reading a short video. They
 * end after `IDLE_MS`.
 */
const idle: { thread: VideoThread; leave: () => void; timer: NodeJS.Timeout }[] = []
const MOST_IDLE = 2
const IDLE_MS = 10_000

function freeThread(thread: VideoThread): void {
  thread.post({ close: true })
  const leave = () => {
    const at = idle.findIndex((one) => one.thread === thread)
    if (at >= 0) clearTimeout(idle.splice(at, 1)[0]?.timer)
    void thread.end()
  }
  thread.worker.on('exit', leave)
  idle.push({ thread, leave, timer: setTimeout(leave, IDLE_MS).unref() })
  if (idle.length > MOST_IDLE) idle[0]?.leave()
}

function takeThread(): VideoThread {
  const free = idle.pop()
  if (free === undefined) return new VideoThread()
  clearTimeout(free.timer)
  free.thread.worker.off('exit', free.leave)
  return free.thread
}

/** A video file, decoded in a worker thread. The thread starts with the first read and ends after an error or abort. */
export class VideoFile implements FrameSource {
  #thread: VideoThread | undefined
  #closed = false
  /** Rejects the pending read of an open generator. */
  #abandon: (() => void) | undefined

  private constructor(
    /** Path as written by the caller, for errors. */
    readonly file: string,
    private readonly path: string,
    private readonly limits: VideoLimits,
    private facts: VideoFacts,
  ) {}

  static async open(file: string, path: string, limits: VideoLimits, signal?: AbortSignal): Promise<VideoFile> {
    const video = new VideoFile(file, path, limits, undefined as never)
    try {
      video.facts = await video.#start(signal)
      return video
    } catch (error) {
      await video.close()
      throw error
    }
  }

  get width(): number {
    return this.facts.width
  }

  get height(): number {
    return this.facts.height
  }

  get rate(): number | null {
    return this.facts.rate
  }

  get frameCount(): number {
    return this.facts.frameCount
  }

  get times(): Float64Array | null {
    return this.facts.times
  }

  get codec(): string {
    return this.facts.codec
  }

  get audio(): { sampleRate: number; channels: number } | null {
    return this.facts.audio
  }

  async *frames(
    places: readonly number[],
    signal?: AbortSignal,
  ): AsyncGenerator<{ place: number; pixels: Uint8Array }> {
    if (places.length === 0) return
    const bytes = 3 * this.width * this.height
    const ahead = Math.max(LEAST_AHEAD, Math.min(MOST_AHEAD, Math.floor(AHEAD_BYTES / bytes)))
    for await (const reply of this.#ask({ frames: places }, ahead, signal)) if ('pixels' in reply) yield reply
  }

  async decodeAudio({
    sampleRate,
    channels = 'mean',
    start = 0,
    duration,
    maxBytes = MOST_AUDIO_BYTES,
    signal,
  }: ReadAudioTrackOptions): Promise<{ samples: Tensor; sampleRate: number }> {
    const blocks: AudioBlock[] = []
    let bytes = 0
    const audio = { start, end: duration === undefined ? null : start + duration }
    for await (const reply of this.#ask({ audio }, LEAST_AHEAD, signal)) {
      if (!('channelData' in reply)) continue
      bytes += reply.channelData.reduce((sum, { byteLength }) => sum + byteLength, 0)
      if (bytes > maxBytes)
        throw this.#error(`expected at most ${maxBytes} bytes of audio, got more. Set maxBytes to allow it.`)
      blocks.push(reply)
    }
    const first = blocks[0]
    if (first === undefined) {
      if (start === 0 && duration !== 0) throw this.#error('the audio cannot be decoded')
      const { sampleRate: fileRate, channels: count } = this.audio as NonNullable<VideoFacts['audio']>
      return { samples: zeros(channels === 'all' ? [count, 0] : [0]), sampleRate: sampleRate ?? fileRate }
    }
    const planes = first.channelData.map((_, channel) => {
      const parts = blocks.map(({ channelData }) => tensor(channelData[channel]!))
      return parts.length === 1 ? parts[0]! : ops.cat(parts)
    })
    const all = ops.stack(planes)
    const rate = first.sampleRate
    const wanted = channels === 'all' ? all : all.mean(0)
    if (sampleRate === undefined || sampleRate === rate) return { samples: wanted, sampleRate: rate }
    return { samples: await resample(wanted, rate, sampleRate), sampleRate }
  }

  async close(): Promise<void> {
    this.#closed = true
    const thread = this.#thread
    // A busy thread cannot be reused, because it reads no messages until its work ends.
    if (thread === undefined || this.#abandon !== undefined) return this.#end()
    this.#thread = undefined
    freeThread(thread)
  }

  async #start(signal?: AbortSignal): Promise<VideoFacts> {
    const { path, limits } = this
    let facts: VideoFacts | undefined
    for await (const reply of this.#ask({ open: { path, limits } }, 1, signal))
      if ('facts' in reply) facts = reply.facts
    if (facts === undefined) throw this.#error('the decoder returned no information about the file')
    return facts
  }

  async #end(): Promise<void> {
    const thread = this.#thread
    this.#thread = undefined
    this.#abandon?.()
    await thread?.end()
  }

  /** Yield replies as they arrive. Each consumed reply allows the worker thread to send another one. */
  async *#ask(request: VideoWork, ahead: number, signal: AbortSignal | undefined): AsyncGenerator<VideoReply, void> {
    signal?.throwIfAborted()
    if (this.#closed) throw new DisposedError(`${this.file}: the video was closed`, { file: this.file })
    if (this.#thread === undefined) {
      this.#thread = takeThread()
      if (request.open === undefined) await this.#start(signal)
    }
    const thread = this.#thread
    const { control, worker } = thread
    Atomics.store(control, LEFT, ahead)
    const queue = new Replies()
    let messages = 0
    const timer = setTimeout(() => {
      // If this thread was blocked for that long, waiting messages are delivered before the immediate.
      const before = messages
      setImmediate(() => {
        if (messages === before) queue.fail(this.#error(`the decoder did not respond for ${PATIENCE_MS / 1000} s`))
      })
    }, PATIENCE_MS)
    const onMessage = (reply: VideoReply) => {
      messages += 1
      timer.refresh()
      if (!('alive' in reply)) queue.push(reply)
    }
    const onError = (cause: Error) => queue.fail(this.#error(`the decoder failed: ${cause.message}`, { cause }))
    const onExit = () => queue.fail(this.#error('the decoder thread ended unexpectedly'))
    const onAbort = () => queue.fail(signal!.reason)
    this.#abandon = () => queue.fail(new DisposedError(`${this.file}: the video was closed`, { file: this.file }))
    worker.on('message', onMessage).on('error', onError).on('exit', onExit)
    signal?.addEventListener('abort', onAbort)
    worker.ref()
    let isDone = false
    try {
      thread.post(request)
      for (;;) {
        const reply = await queue.next()
        if ('done' in reply) {
          isDone = true
          return
        }
        if ('error' in reply) throw this.#refusal(reply)
        yield reply
        Atomics.add(control, LEFT, 1)
        Atomics.notify(control, LEFT)
      }
    } finally {
      clearTimeout(timer)
      worker.off('message', onMessage).off('error', onError).off('exit', onExit)
      signal?.removeEventListener('abort', onAbort)
      this.#abandon = undefined
      worker.unref()
      // A thread that was interrupted may stay busy; the next call starts another.
      if (!isDone && this.#thread === thread) await this.#end()
    }
  }

  #refusal({ error, missing, fault, reason }: Extract<VideoReply, { error: string }>): VoxtorchError {
    if (!missing)
      return this.#error(fault ? error : `the decoder failed: ${error}`, reason === undefined ? {} : { reason })
    return this.#error(
      `video files are read by npm's node-av, ${error}: npm install node-av. Its license is MIT, that of the FFmpeg in it ` +
        'GPL-3.0. A folder of images needs no package.',
      { missing: 'node-av' },
    )
  }

  #error(what: string, fields: Record<string, unknown> = {}): VoxtorchError {
    return new DataError(`${this.file}: ${what}`, { file: this.file, ...fields })
  }
}

/** Queue of replies that were not consumed yet. */
class Replies {
  readonly #waiting: VideoReply[] = []
  #failure: { reason: unknown } | undefined
  #wake: (() => void) | undefined

  push(reply: VideoReply): void {
    this.#waiting.push(reply)
    this.#wake?.()
  }

  fail(reason: unknown): void {
    this.#failure ??= { reason }
    this.#wake?.()
  }

  async next(): Promise<VideoReply> {
    for (;;) {
      if (this.#failure !== undefined) throw this.#failure.reason
      const reply = this.#waiting.shift()
      if (reply !== undefined) return reply
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
  }
}
