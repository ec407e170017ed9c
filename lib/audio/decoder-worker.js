// @ts-check
import { parentPort } from 'node:worker_threads'
import decode from 'audio-decode'

// The entry of a decoder thread; one file at a time. In: { open: format, piece, bits? }, { feed: bytes },
// { next: true }, { end: true }. Out, for each: { channelData, sampleRate, more } or { error }. A feed may unfold to far more than it is:
// it is decoded piece by piece, and what has come of it so far is handed over before the next piece is touched.

// The decoders' remarks are not the program's.
for (const name of /** @type {const} */ (['log', 'info', 'warn', 'error', 'debug'])) console[name] = () => {}

const port = /** @type {import('node:worker_threads').MessagePort} */ (parentPort)

/** Decoded bytes after which a reply is sent. */
const REPLY = 1 << 22
const FIRST_PIECE = 512
const LEAST_PIECE = 64

/** @type {Awaited<ReturnType<typeof decode.flac>> | undefined} */
let decoder
let waiting = new Uint8Array(0)
/** Bytes given to the decoder at once, and the most that they may be. */
let piece = 0
let mostPiece = 0

/** Of whole-numbered samples, or 0. */
let fullScale = 0

/** @type {(bytes: Uint8Array, length: number) => number} */
let cutAt = (_, length) => length

/** Bytes of the longest header of a FLAC frame. */
const FLAC_HEADER = 16

/**
 * Where to cut a piece of at most `length` bytes: this decoder overlooks a FLAC frame whose header lies in two pieces, so
 * what may be the beginning of one is left for the next.
 * @param {Uint8Array} bytes
 * @param {number} length
 */
function outsideFlacHeaders(bytes, length) {
  for (let i = length - 1; i >= 0 && i > length - FLAC_HEADER; i -= 1) {
    if (bytes[i] === 0xff && (i + 1 === length || /** @type {number} */ (bytes[i + 1] & 0xfe) === 0xf8)) length = i
  }
  return length
}

/** @typedef {{ channelData: Float32Array[], sampleRate: number }} Decoded */

port.on('message', async (message) => {
  try {
    if (message.open !== undefined) {
      decoder?.free()
      decoder = undefined
      cutAt = message.open === 'flac' ? outsideFlacHeaders : (_, length) => length
      waiting = new Uint8Array(0)
      mostPiece = message.piece
      piece = Math.min(FIRST_PIECE, mostPiece)
      fullScale = message.bits === undefined ? 0 : 2 ** (message.bits - 1)
      decoder = await decode[/** @type {'flac'} */ (message.open)]()
      return port.postMessage({ channelData: [], sampleRate: 0, more: false })
    }
    if (decoder === undefined) throw new Error('there is no decoder')
    if (message.end) {
      const held = waiting.length > 0 ? [await decoder(waiting)] : []
      const last = await decoder()
      decoder = undefined
      return reply([...held, last], false)
    }
    if (message.feed !== undefined) waiting = waiting.length > 0 ? Buffer.concat([waiting, message.feed]) : message.feed
    let held = false
    const parts = []
    for (let bytes = 0; waiting.length > 0 && bytes < REPLY; ) {
      const whole = Math.min(piece, waiting.length)
      const cut = cutAt(waiting, whole)
      held = cut === 0 && waiting.length < piece
      if (held) break
      const length = cut || whole
      const part = await decoder(waiting.subarray(0, length))
      waiting = waiting.subarray(length)
      parts.push(part)
      const made = part.channelData.length * (part.channelData[0]?.byteLength ?? 0)
      bytes += made
      // The next piece should not unfold to more than a reply either.
      piece = Math.max(LEAST_PIECE, Math.min(mostPiece, 2 * piece, Math.floor((REPLY * length) / Math.max(1, made))))
    }
    reply(parts, waiting.length > 0 && !held)
  } catch (error) {
    port.postMessage({ error: error instanceof Error ? error.message : String(error) })
  }
})

/**
 * @param {Decoded[]} parts
 * @param {boolean} more
 */
function reply(parts, more) {
  const made = parts.filter(({ channelData }) => (channelData[0]?.length ?? 0) > 0)
  const sampleRate = made[0]?.sampleRate ?? 0
  if (made.some((part) => part.sampleRate !== sampleRate)) throw new Error('its sample rate changes on the way')
  const channels = Math.max(0, ...made.map(({ channelData }) => channelData.length))
  const frames = made.reduce((sum, { channelData }) => sum + /** @type {Float32Array} */ (channelData[0]).length, 0)
  const channelData = Array.from({ length: channels }, (_, channel) => {
    const whole = new Float32Array(frames)
    let at = 0
    for (const part of made) {
      // The decoders give what sounds alike on both sides as one channel.
      const plane = /** @type {Float32Array} */ (part.channelData[channel] ?? part.channelData[0])
      whole.set(plane, at)
      // This decoder divides by one less, so that nothing is what it was.
      if (fullScale > 0) {
        for (let i = at; i < at + plane.length; i += 1) {
          whole[i] = Math.round(/** @type {number} */ (whole[i]) * (fullScale - 1)) / fullScale
        }
      }
      at += plane.length
    }
    return whole
  })
  port.postMessage(
    { channelData, sampleRate, more },
    channelData.map(({ buffer }) => /** @type {ArrayBuffer} */ (buffer)),
  )
}
