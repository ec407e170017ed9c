import { parentPort } from 'node:worker_threads'
import { AacDecoder, MissingPackage } from './codecs/aac.js'
import { type Decoded, type Decoder, joined } from './codecs/decoder.js'
import { MatroskaDecoder } from './codecs/matroska.js'
import { OggFlacDecoder, StreamDecoder, VorbisDecoder } from './codecs/native.js'
import { OggDecoder, type PacketDecoder } from './codecs/ogg.js'
import { OpusDecoder } from './codecs/opus.js'
import type { DecoderReply, DecoderRequest } from './decoder.js'

// Entry point of the decoder thread. Decodes one file at a time. A small input may decode to a large output, so frames are
// decoded one by one, and replies have a bounded size.

// Suppress the console output of decoder packages.
for (const name of ['log', 'info', 'warn', 'error', 'debug'] as const) console[name] = () => {}

const port = parentPort!

/** Decoded bytes after which a reply is sent. */
const REPLY = 1 << 22

let decoder: Decoder | undefined
let ended = false

const begins = (packet: Uint8Array, text: string) =>
  packet.length >= text.length && String.fromCharCode(...packet.subarray(0, text.length)) === text

const streams: Record<'vorbis' | 'opus' | 'ogg-flac', (first: Uint8Array) => Promise<PacketDecoder | undefined>> = {
  vorbis: async (first) => (begins(first, '\x01vorbis') ? new VorbisDecoder(first) : undefined),
  opus: async (first) => (begins(first, 'OpusHead') ? OpusDecoder.open(first) : undefined),
  'ogg-flac': async (first) => (begins(first, '\x7fFLAC') ? new OggFlacDecoder() : undefined),
}

async function open(format: NonNullable<DecoderRequest['open']>, size: number): Promise<Decoder> {
  if (format === 'flac' || format === 'mp3') return new StreamDecoder(format)
  if (format === 'matroska') return new MatroskaDecoder()
  if (format === 'aac' || format === 'm4a') return AacDecoder.open(format === 'm4a' ? size : 0)
  return new OggDecoder(streams[format])
}

port.on('message', async (request: DecoderRequest) => {
  try {
    if (request.open !== undefined) {
      decoder?.free?.()
      decoder = undefined
      ended = false
      decoder = await open(request.open, request.size ?? 0)
      return port.postMessage({ channelData: [], sampleRate: 0, more: false } satisfies DecoderReply)
    }
    if (decoder === undefined) throw new Error('no file is open in the decoder thread')
    if (request.feed !== undefined) decoder.feed(request.feed)
    if (request.end) {
      decoder.end()
      ended = true
    }
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
    // An idle thread keeps no memory of a file.
    if (ended && !more) {
      decoder.free?.()
      decoder = undefined
    }
  } catch (error) {
    const missing = error instanceof MissingPackage
    port.postMessage({ error: error instanceof Error ? error.message : String(error), missing })
  }
})

function reply(parts: readonly Decoded[], more: boolean): void {
  const { channelData, sampleRate } = joined(parts) ?? { channelData: [], sampleRate: 0 }
  // A view is copied, or the rest of its memory would be sent too, which the decoder may still use.
  const planes = channelData.map((plane) => (plane.byteLength === plane.buffer.byteLength ? plane : plane.slice()))
  port.postMessage(
    { channelData: planes, sampleRate, more } satisfies DecoderReply,
    planes.map(({ buffer }) => buffer as ArrayBuffer),
  )
}
