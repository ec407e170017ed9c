const bitrates = [
  [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
  [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
]
const rates = [44100, 48000, 32000]

/** Header of a frame of MPEG-1, 2 or 2.5, layer III. */
export interface Mp3Header {
  /** Whether it is MPEG-1, with two granules per frame; MPEG-2 and 2.5 have one. */
  full: boolean
  /** Whether it is MPEG-2.5, an unofficial extension. */
  quarter: boolean
  sampleRate: number
  channels: number
  /** Samples per channel. */
  samples: number
  /** Size of the whole frame. */
  bytes: number
  /** Offset of the side information: after the optional checksum. */
  side: number
  sideBytes: number
  /** Joint stereo modes: mid/side and intensity. */
  middleSide: boolean
  intensity: boolean
}

export const HEADER_BYTES = 4

/** Read a frame header; return undefined if no frame of layer III begins at `at`. */
export function readMp3Header(bytes: Uint8Array, at: number): Mp3Header | undefined {
  if (at + HEADER_BYTES > bytes.length || bytes[at] !== 0xff) return undefined
  const [b1, b2, b3] = [bytes[at + 1]!, bytes[at + 2]!, bytes[at + 3]!]
  const version = (b1 >> 3) & 3
  const rate = (b2 >> 2) & 3
  const bitrate = b2 >> 4
  if ((b1 & 0xe6) !== 0xe2 || version === 1 || rate === 3 || bitrate === 0 || bitrate === 15) return undefined
  const full = version === 3
  const sampleRate = rates[rate]! >> (full ? 0 : version === 2 ? 1 : 2)
  const mode = b3 >> 6
  const channels = mode === 3 ? 1 : 2
  const side = (b1 & 1) === 0 ? 6 : 4
  const sideBytes = full ? (channels === 1 ? 17 : 32) : channels === 1 ? 9 : 17
  const size =
    Math.floor(((full ? 144_000 : 72_000) * bitrates[full ? 0 : 1]![bitrate]!) / sampleRate) + ((b2 >> 1) & 1)
  if (size < side + sideBytes) return undefined
  return {
    full,
    quarter: version === 0,
    sampleRate,
    channels,
    samples: full ? 1152 : 576,
    bytes: size,
    side,
    sideBytes,
    middleSide: mode === 1 && (b3 & 32) !== 0,
    intensity: mode === 1 && (b3 & 16) !== 0,
  }
}

/** Whether two headers can belong to the same stream. */
export function sameStream(a: Mp3Header, b: Mp3Header): boolean {
  return a.full === b.full && a.sampleRate === b.sampleRate
}

/** Information that an encoder writes into a silent first frame: the samples that it added at both ends. */
export interface EncoderInfo {
  /** Frames of the file without this one; undefined if not stated. */
  frames: number | undefined
  /** Samples added by the encoder at the beginning and at the end. */
  delay: number | undefined
  padding: number
}

/** Read the Xing or LAME tag of a frame; return undefined for a frame with audio. */
export function readEncoderInfo(frame: Uint8Array, { side, sideBytes }: Mp3Header): EncoderInfo | undefined {
  // The tag is at the end of the side information of a frame without checksum, even if the frame has one.
  for (const begin of new Set([4 + sideBytes, side + sideBytes])) {
    const view = new DataView(frame.buffer, frame.byteOffset, frame.length)
    if (begin + 8 > frame.length) continue
    const tag = String.fromCharCode(...frame.subarray(begin, begin + 4))
    if (tag !== 'Xing' && tag !== 'Info') continue
    const flags = view.getUint32(begin + 4)
    let at = begin + 8
    let frames: number | undefined
    if ((flags & 1) !== 0) {
      if (at + 4 <= frame.length) frames = view.getUint32(at)
      at += 4
    }
    at += ((flags & 2) !== 0 ? 4 : 0) + ((flags & 4) !== 0 ? 100 : 0) + ((flags & 8) !== 0 ? 4 : 0)
    if (at + 24 > frame.length || frame[at] === 0) return { frames, delay: undefined, padding: 0 }
    const packed = (frame[at + 21]! << 16) | (frame[at + 22]! << 8) | frame[at + 23]!
    return { frames, delay: packed >> 12, padding: packed & 4095 }
  }
  return undefined
}
