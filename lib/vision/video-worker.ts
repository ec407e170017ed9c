import { parentPort, workerData } from 'node:worker_threads'
import { type Av, VideoDecoder, VideoFault } from './video-decoder.js'
import {
  type AudioBlock,
  LEFT,
  PENDING,
  STOPPED,
  type VideoReply,
  type VideoRequest,
  type VideoWork,
} from './video-messages.js'

// Entry point of the worker thread of a video. Handles one request at a time.

const NAME = 'node-av/lib'
const BEAT_MS = 1000
/** Samples per channel in one message. */
const BLOCK = 1 << 18

class Stopped extends Error {}
class Missing extends Error {}

const port = parentPort!
const control = workerData as Int32Array
let decoder: VideoDecoder | undefined

port.on('message', async (request: VideoRequest) => {
  if ('exit' in request) {
    decoder?.close()
    process.exit()
  }
  try {
    if ('close' in request) {
      decoder?.close()
      decoder = undefined
      return
    }
    await answer(request)
    post({ done: true })
  } catch (error) {
    if (error instanceof Stopped) return post({ done: true })
    const message = error instanceof Error ? error.message : String(error)
    const reason = error instanceof VideoFault ? error.reason : undefined
    post({ error: message, missing: error instanceof Missing, fault: error instanceof VideoFault, reason })
  } finally {
    Atomics.sub(control, PENDING, 1)
    Atomics.notify(control, PENDING)
  }
})

const post = (reply: VideoReply, transfer: ArrayBuffer[] = []) => port.postMessage(reply, transfer)

async function answer({ open, frames, audio }: VideoWork): Promise<void> {
  let last = Date.now()
  const watch = () => {
    if (Atomics.load(control, STOPPED) !== 0) throw new Stopped()
    if (Date.now() - last < BEAT_MS) return
    last = Date.now()
    post({ alive: true })
  }
  const turn = () => {
    while (Atomics.load(control, LEFT) <= 0) {
      watch()
      Atomics.wait(control, LEFT, 0, BEAT_MS)
    }
    Atomics.sub(control, LEFT, 1)
  }
  if (open !== undefined) {
    decoder?.close()
    decoder = new VideoDecoder(await load(), open.path, open.limits, watch)
    post({ facts: decoder.facts })
  }
  if (decoder === undefined) throw new Error('no video is open')
  for (const { place, pixels } of frames === undefined ? [] : decoder.frames(frames, watch)) {
    turn()
    post({ place, pixels }, [pixels.buffer as ArrayBuffer])
  }
  if (audio) sendAudio(between(decoder.audio(watch), audio), turn)
}

/** Yield the audio from `start` to `end`, in seconds, and stop decoding there. */
function* between(
  blocks: Generator<AudioBlock>,
  { start, end }: NonNullable<VideoWork['audio']>,
): Generator<AudioBlock> {
  let at = 0
  for (const { channelData, sampleRate } of blocks) {
    const length = channelData[0]?.length ?? 0
    const last = end === null ? Number.POSITIVE_INFINITY : Math.round(end * sampleRate)
    const [from, to] = [Math.max(0, Math.round(start * sampleRate) - at), Math.min(length, last - at)]
    if (to > from) yield { channelData: channelData.map((plane) => plane.subarray(from, to)), sampleRate }
    at += length
    if (at >= last) return
  }
}

/** Send audio in messages of about `BLOCK` samples; a decoder's blocks have about a thousand. */
function sendAudio(blocks: Generator<AudioBlock>, turn: () => void): void {
  let waiting: Float32Array[][] = []
  let count = 0
  let sampleRate = 0
  const send = () => {
    if (count === 0) return
    const channelData = waiting[0]!.map((_, channel) => {
      const whole = new Float32Array(count)
      let at = 0
      for (const block of waiting) {
        whole.set(block[channel]!, at)
        at += block[channel]!.length
      }
      return whole
    })
    turn()
    const transfer = channelData.map(({ buffer }) => buffer as ArrayBuffer)
    post({ channelData, sampleRate }, transfer)
    waiting = []
    count = 0
  }
  for (const block of blocks) {
    const channels = block.channelData.length
    if (sampleRate !== 0 && block.sampleRate !== sampleRate)
      throw new VideoFault(`expected one sample rate, got ${sampleRate} and then ${block.sampleRate} Hz`)
    if (waiting.length > 0 && waiting[0]!.length !== channels) {
      throw new VideoFault(`expected a constant number of channels, got ${waiting[0]!.length} and then ${channels}`)
    }
    sampleRate = block.sampleRate
    waiting.push(block.channelData)
    count += block.channelData[0]!.length
    if (count >= BLOCK) send()
  }
  send()
}

async function load(): Promise<Av> {
  try {
    return (await import(NAME)) as Av
  } catch (cause) {
    const { code, message } = cause as Error & { code?: string }
    const missing = code === 'ERR_MODULE_NOT_FOUND'
    throw new Missing(missing ? 'which is not installed' : `which does not load (${message.split('\n')[0]})`)
  }
}
