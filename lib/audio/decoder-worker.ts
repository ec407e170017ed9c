import { parentPort } from 'node:worker_threads'
import { AacDecoder, MissingPackage } from './codecs/aac.js'
import type { Decoded, Decoder } from './codecs/decoder.js'
import { FlacDecoder, OggFlacDecoder } from './codecs/flac.js'
import { MatroskaDecoder } from './codecs/matroska.js'
import { Mp3Decoder } from './codecs/mp3.js'
import { OggDecoder, type PacketDecoder } from './codecs/ogg.js'
import { OpusDecoder } from './codecs/opus.js'
import { VorbisDecoder } from './codecs/vorbis.js'
import type { DecoderReply, DecoderRequest } from './decoder.js'

// Entry point of the decoder thread. Decodes one file at a time. A small input may decode to a large output, so frames are
// decoded one by one, and replies have a bounded size.

// Suppress the console output of decoder packages.
for (const name of ['log', 'info', 'warn', 'error', 'debug'] as const) console[name] = () => {}

const port = parentPort!

/** Decoded bytes after which a reply is sent. */
const REPLY = 1 << 22

let decoder: Decoder | undefined

const begins = (packet: Uint8Array, text: string) =>
  packet.length >= text.length && String.fromCharCode(...packet.subarray(0, text.length)) === text

const streams: Record<'vorbis' | 'opus' | 'ogg-flac', (first: Uint8Array) => Promise<PacketDecoder | undefined>> = {
  vorbis: async (first) => (begins(first, '\x01vorbis') ? new VorbisDecoder(first) : undefined),
  opus: async (first) => (begins(first, 'OpusHead') ? OpusDecoder.open(first) : undefined),
  'ogg-flac': async (first) => (begins(first, '\x7fFLAC') ? new OggFlacDecoder() : undefined),
}

async function open(format: NonNullable<DecoderRequest['open']>, size: number): Promise<Decoder> {
  if (format === 'flac') return new FlacDecoder()
  if (format === 'mp3') return new Mp3Decoder()
  if (format === 'matroska') return new MatroskaDecoder()
  if (format === 'aac' || format === 'm4a') return AacDecoder.open(format === 'm4a' ? size : 0)
  return new OggDecoder(streams[format])
}

port.on('message', async (request: DecoderRequest) => {
  try {
    if (request.open !== undefined) {
      decoder?.free?.()
      decoder = undefined
      decoder = await open(request.open, request.size ?? 0)
      return port.postMessage({ channelData: [], sampleRate: 0, more: false } satisfies DecoderReply)
    }
    if (decoder === undefined) throw new Error('no file is open in the decoder thread')
    if (request.feed !== undefined) decoder.feed(request.feed)
    if (request.end) decoder.end()
    const parts: Decoded[] = []
    let more = true
    for (let bytes = 0; more && bytes < REPLY; ) {
      const part = await decoder.next()
      more = part !== undefined
      if (part === undefined) break
      parts.push(part)
      bytes += 4 * part.channelData.length * part.channelData[0]!.length
    }
    reply(parts, more)
  } catch (error) {
    const missing = error instanceof MissingPackage
    port.postMessage({ error: error instanceof Error ? error.message : String(error), missing })
  }
})

function reply(parts: Decoded[], more: boolean): void {
  const sampleRate = parts[0]?.sampleRate ?? 0
  const channels = parts[0]?.channelData.length ?? 0
  for (const part of parts) {
    if (part.sampleRate !== sampleRate) {
      throw new Error(`expected one sample rate, got ${sampleRate} and then ${part.sampleRate} Hz`)
    }
    if (part.channelData.length !== channels) {
      throw new Error(`expected a constant number of channels, got ${channels} and then ${part.channelData.length}`)
    }
  }
  const frames = parts.reduce((sum, { channelData }) => sum + channelData[0]!.length, 0)
  const channelData = Array.from({ length: channels }, (_, channel) => {
    const whole = new Float32Array(frames)
    let at = 0
    for (const part of parts) {
      whole.set(part.channelData[channel]!, at)
      at += part.channelData[channel]!.length
    }
    return whole
  })
  port.postMessage(
    { channelData, sampleRate, more } satisfies DecoderReply,
    channelData.map(({ buffer }) => buffer as ArrayBuffer),
  )
}
