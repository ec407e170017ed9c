// The used part of npm's node-av, and a decoder that accesses frames by index. Runs in a worker thread (video-worker.ts), so
// everything is synchronous.

import { MOST_SAMPLES, mp4Claims } from './mp4-samples.js'
import type { AudioBlock } from './video-messages.js'

/** Objects of libav, by node-av's names. */
interface Rational {
  num: number
  den: number
}
interface Stream {
  index: number
  codecpar: { codecId: number; width: number; height: number; sampleRate: number; channels: number }
  timeBase: Rational
  avgFrameRate: Rational
  rFrameRate: Rational
}
interface Packet {
  streamIndex: number
  pts: bigint
  dts: bigint
  flags: number
  alloc(): void
  unref(): void
  free(): void
}
export interface Frame {
  width: number
  height: number
  format: number
  colorTrc: number
  colorPrimaries: number
  pts: bigint
  bestEffortTimestamp: bigint
  nbSamples: number
  channels: number
  sampleRate: number
  channelLayout: unknown
  linesize: number[]
  data: Buffer[] | null
  extendedData: Buffer[] | null
  alloc(): void
  getBuffer(): number
  unref(): void
  free(): void
}
interface FormatContext {
  streams: Stream[]
  duration: bigint
  iformat: { name: string | null } | null
  openInputSync(url: string, format: null, options: unknown): number
  findStreamInfoSync(): number
  findBestStream(type: number): number
  readFrameSync(packet: Packet): number
  seekFrameSync(stream: number, timestamp: bigint, flags: number): number
  closeInputSync(): void
}
interface CodecContext {
  threadCount: number
  allocContext3(codec: unknown): void
  parametersToContext(parameters: unknown): number
  open2Sync(codec: unknown): number
  sendPacketSync(packet: Packet | null): number
  receiveFrameSync(frame: Frame): number
  flushBuffers(): void
  freeContext(): void
}
interface Scaler {
  allocContext(): void
  setOption(name: string, value: number): unknown
  scaleFrameSync(to: Frame, from: Frame): number
  freeContext(): void
}
interface Resampler {
  allocSetOpts2(
    layout: unknown,
    format: number,
    rate: number,
    fromLayout: unknown,
    from: number,
    fromRate: number,
  ): number
  init(): number
  convertSync(to: Buffer[], count: number, from: Buffer[] | null, fromCount: number): number
  free(): void
}
export interface Av {
  FormatContext: new () => FormatContext
  CodecContext: new () => CodecContext
  Codec: { findDecoder(id: number): { name: string | null } | null }
  Packet: new () => Packet
  Frame: new () => Frame
  Dictionary: { fromObject(values: Record<string, string>): unknown }
  SoftwareScaleContext: new () => Scaler
  SoftwareResampleContext: new () => Resampler
  Log: { setLevel(level: number): void }
}

// Constants of FFmpeg's ABI. Importing node-av's module of all constants takes longer than reading a short video.
const VIDEO = 0
const AUDIO = 1
const RGB24 = 2
const FLOAT_PLANES = 8
const BILINEAR = 2
const UNSPECIFIED = 2
const BACKWARD = 1
const KEY = 1
const DISCARD = 4
const NO_TIME = -(2n ** 63n)

/** Allowed containers. Playlists and subtitles are excluded: they can refer to other files, or render text as images. */
const MP4_FORMATS = 'mov,mp4,m4a,3gp,3g2,mj2'
const OTHER_FORMATS =
  'matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,ogg,asf,gif,apng,ivf,h264,hevc,obu,av1,m4v,nut,dv,rm,wtv,yuv4mpegpipe'

export interface VideoFacts {
  width: number
  height: number
  rate: number | null
  frameCount: number
  /** Seconds from the first frame to each; null if the file has no timestamps. */
  times: Float64Array | null
  seconds: number
  codec: string
  audio: { sampleRate: number; channels: number } | null
}

export interface VideoLimits {
  maxPixels: number
  threads: number
}

/** An error that the file causes. */
export class VideoFault extends Error {
  constructor(
    message: string,
    /** 'no video': the file may have audio; 'unknown': the file may have another format. */
    readonly reason?: 'no video' | 'unknown',
  ) {
    super(message)
  }
}

/** Called regularly during work: throws to stop it, and sends signs of life. */
export type Watch = () => void

export class VideoDecoder {
  readonly facts: VideoFacts
  readonly #av: Av
  readonly #path: string
  readonly #limits: VideoLimits
  readonly #formats: string
  readonly #stream: number
  /** Timestamp of each frame in presentation order; undefined if the file has none. */
  readonly #times: readonly bigint[] | undefined
  /** Keyframes, in order. */
  readonly #keys: readonly Key[]
  /** Index of the last decoded frame. */
  #last = -1
  #reading: Reading

  constructor(av: Av, path: string, limits: VideoLimits, watch: Watch) {
    this.#av = av
    this.#path = path
    this.#limits = limits
    av.Log.setLevel(-8)
    const { isMp4, fault } = mp4Claims(path)
    if (fault !== undefined) throw new VideoFault(fault)
    this.#formats = isMp4 ? MP4_FORMATS : OTHER_FORMATS
    const format = openFormat(av, path, this.#formats)
    try {
      const stream = bestStream(format, VIDEO)
      if (stream === undefined)
        throw new VideoFault('expected a file with video, got one without a video stream', 'no video')
      const { width, height, codecId } = stream.codecpar
      if (!(width >= 1 && height >= 1)) throw new VideoFault(`expected frames with pixels, got ${width} × ${height}`)
      if (width * height > limits.maxPixels) {
        const what = `expected frames of at most ${limits.maxPixels} pixels, got ${width} × ${height}`
        throw new VideoFault(`${what}. Set maxPixels to allow more.`)
      }
      const codec = av.Codec.findDecoder(codecId)
      if (codec === null) throw new VideoFault(`unsupported video codec: FFmpeg has no decoder for id ${codecId}`)
      const index = indexOf(av, format, stream.index, watch)
      if (index.count === 0) throw new VideoFault('expected a video with frames, got none')
      const audio = bestStream(format, AUDIO)
      const rates = [stream.avgFrameRate, stream.rFrameRate].map(({ num, den }) => num / den)
      this.facts = {
        width,
        height,
        rate: rates.find((rate) => Number.isFinite(rate) && rate > 0) ?? null,
        frameCount: index.count,
        times: secondsOf(index.times, stream.timeBase),
        seconds: format.duration > 0n ? Number(format.duration) / 1e6 : 0,
        codec: codec.name ?? 'unknown',
        audio:
          audio === undefined ? null : { sampleRate: audio.codecpar.sampleRate, channels: audio.codecpar.channels },
      }
      this.#stream = stream.index
      this.#times = index.times
      this.#keys = index.keys
    } finally {
      format.closeInputSync()
    }
    this.#reading = new Reading(av, path, this.#formats, this.#stream, limits.threads)
  }

  /** Yield RGB pixels of frames. @param places ascending indices */
  *frames(places: readonly number[], watch: Watch): Generator<{ place: number; pixels: Uint8Array }> {
    for (const { place, frame } of this.shown(places, watch)) yield { place, pixels: this.#reading.rgb(frame) }
  }

  /** Yield frames as decoded, each valid until the next one is requested. @param places ascending indices */
  *shown(places: readonly number[], watch: Watch): Generator<{ place: number; frame: Frame }> {
    for (const place of places) {
      const frame = this.#frame(place, watch)
      if (frame === undefined) throw new VideoFault(`frame ${place} of ${this.facts.frameCount} cannot be decoded`)
      const { width, height } = this.facts
      if (frame.width !== width || frame.height !== height) {
        throw new VideoFault(
          `frame ${place}: expected ${width} × ${height} pixels, got ${frame.width} × ${frame.height}`,
        )
      }
      yield { place, frame }
    }
  }

  #frame(place: number, watch: Watch): Frame | undefined {
    const time = this.#times?.[place]
    if (time === undefined) return this.#counted(place, watch)
    const key = lastAtMost(this.#keys, place)
    const next = this.#last + 1
    if (place < next || (key !== undefined && key.place > next + NEAR)) {
      if (key === undefined || !this.#reading.seek(key.entry)) this.#restart()
    }
    let frame = this.#until(time, watch)
    if (frame === undefined) {
      // The file's index may be wrong, so search from the beginning.
      this.#restart()
      frame = this.#until(time, watch)
    }
    this.#last = frame === undefined ? Number.POSITIVE_INFINITY : place
    return frame
  }

  #until(time: bigint, watch: Watch): Frame | undefined {
    for (;;) {
      const frame = this.#reading.next(watch)
      const shown = frame === undefined ? undefined : this.#reading.shown
      if (frame === undefined || shown === undefined || shown > time) return undefined
      if (shown === time) return frame
    }
  }

  /** Find a frame by counting from the beginning, in files without timestamps. */
  #counted(place: number, watch: Watch): Frame | undefined {
    if (this.#reading.count > place) this.#restart()
    for (;;) {
      const frame = this.#reading.next(watch)
      if (frame === undefined || this.#reading.count === place + 1) return frame
    }
  }

  #restart(): void {
    this.#reading.close()
    this.#reading = new Reading(this.#av, this.#path, this.#formats, this.#stream, this.#limits.threads)
  }

  /** Yield float32 samples of all channels in blocks. */
  *audio(watch: Watch): Generator<AudioBlock> {
    const format = openFormat(this.#av, this.#path, this.#formats)
    const index = bestStream(format, AUDIO)?.index
    format.closeInputSync()
    if (index === undefined) throw new VideoFault('expected a video with audio, got one without an audio stream')
    const reading = new Reading(this.#av, this.#path, this.#formats, index, 1)
    try {
      for (let frame = reading.next(watch); frame !== undefined; frame = reading.next(watch)) {
        if (frame.nbSamples > 0) yield { channelData: reading.planes(frame), sampleRate: frame.sampleRate }
      }
    } finally {
      reading.close()
    }
  }

  close(): void {
    this.#reading.close()
  }
}

function openFormat(av: Av, path: string, formats: string): FormatContext {
  const format = new av.FormatContext()
  // Neither the path nor the content may refer to other files or protocols.
  const options = av.Dictionary.fromObject({ protocol_whitelist: 'file', format_whitelist: formats })
  if (format.openInputSync(`file:${path}`, null, options) < 0) {
    throw new VideoFault(
      'expected a video file, got an unknown format, or a file truncated before its index',
      'unknown',
    )
  }
  if (format.findStreamInfoSync() >= 0) return format
  format.closeInputSync()
  throw new VideoFault('FFmpeg found no streams in the file')
}

function bestStream(format: FormatContext, type: number): Stream | undefined {
  const index = format.findBestStream(type)
  return index < 0 ? undefined : format.streams[index]
}

/** A keyframe: its index, and the timestamp to seek to. */
interface Key {
  place: number
  entry: bigint
}

/** Seeking flushes the decoder, so frames up to this distance are reached by decoding. */
const NEAR = 16

function lastAtMost(keys: readonly Key[], place: number): Key | undefined {
  let [from, to] = [0, keys.length]
  while (from < to) {
    const middle = (from + to) >> 1
    if (keys[middle]!.place <= place) from = middle + 1
    else to = middle
  }
  return keys[from - 1]
}

interface Index {
  count: number
  times: bigint[] | undefined
  keys: Key[]
}

/** Read the timestamps of all packets without decoding. */
function indexOf(av: Av, format: FormatContext, stream: number, watch: Watch): Index {
  const packet = new av.Packet()
  packet.alloc()
  const times: bigint[] = []
  const entries = new Map<bigint, bigint>()
  let hasTimes = true
  try {
    while (format.readFrameSync(packet) >= 0) {
      if (packet.streamIndex === stream && (packet.flags & DISCARD) === 0) {
        const { pts, dts, flags } = packet
        hasTimes &&= pts !== NO_TIME
        times.push(pts)
        if (times.length > MOST_SAMPLES) throw new VideoFault(`expected at most ${MOST_SAMPLES} frames, got more`)
        if ((flags & KEY) !== 0) entries.set(pts, dts === NO_TIME ? pts : dts)
      }
      packet.unref()
      watch()
    }
  } finally {
    packet.free()
  }
  times.sort((a, b) => (a < b ? -1 : a > b ? 1 : 0))
  if (!hasTimes || times.some((time, i) => i > 0 && time === times[i - 1]))
    return { count: times.length, times: undefined, keys: [] }
  const keys = times.flatMap((time, place) => {
    const entry = entries.get(time)
    return entry === undefined ? [] : [{ place, entry }]
  })
  return { count: times.length, times, keys }
}

function secondsOf(times: readonly bigint[] | undefined, { num, den }: Rational): Float64Array | null {
  const first = times?.[0]
  if (times === undefined || first === undefined) return null
  return Float64Array.from(times, (time) => (Number(time - first) * num) / den)
}

/** A sequential decoder of one stream. */
class Reading {
  /** Number of frames decoded since the beginning or the last seek. */
  count = 0
  /** Timestamp of the last frame. */
  shown: bigint | undefined
  readonly #av: Av
  readonly #format: FormatContext
  readonly #decoder: CodecContext
  readonly #stream: number
  readonly #packet: Packet
  readonly #frame: Frame
  #scaler: { make: Scaler; target: Frame } | undefined
  #resampler: { make: Resampler; key: string } | undefined
  #ended = false
  #closed = false

  constructor(av: Av, path: string, formats: string, stream: number, threads: number) {
    this.#av = av
    this.#format = openFormat(av, path, formats)
    this.#stream = stream
    const parameters = this.#format.streams[stream]!.codecpar
    const codec = av.Codec.findDecoder(parameters.codecId)
    this.#decoder = new av.CodecContext()
    this.#decoder.allocContext3(codec)
    this.#decoder.threadCount = threads
    this.#packet = new av.Packet()
    this.#packet.alloc()
    this.#frame = new av.Frame()
    this.#frame.alloc()
    if (codec === null || this.#decoder.parametersToContext(parameters) < 0 || this.#decoder.open2Sync(codec) < 0) {
      this.close()
      throw new VideoFault(`FFmpeg's decoder ${codec?.name ?? ''} does not support this stream`)
    }
  }

  /** Return the next frame, which is valid until the next call; undefined after the last one. */
  next(watch: Watch): Frame | undefined {
    for (;;) {
      this.#frame.unref()
      if (this.#decoder.receiveFrameSync(this.#frame) >= 0) {
        this.count += 1
        const { bestEffortTimestamp, pts } = this.#frame
        this.shown = bestEffortTimestamp !== NO_TIME ? bestEffortTimestamp : pts
        return this.#frame
      }
      if (this.#ended) return undefined
      watch()
      if (this.#format.readFrameSync(this.#packet) < 0) {
        this.#ended = true
        this.#decoder.sendPacketSync(null)
        continue
      }
      // Errors are ignored: a damaged packet loses only its own frames.
      if (this.#packet.streamIndex === this.#stream) this.#decoder.sendPacketSync(this.#packet)
      this.#packet.unref()
    }
  }

  /** Continue at a keyframe. Return false if the file cannot seek there. */
  seek(entry: bigint): boolean {
    if (this.#format.seekFrameSync(this.#stream, entry, BACKWARD) < 0) return false
    this.#decoder.flushBuffers()
    this.#ended = false
    this.count = 0
    this.shown = undefined
    return true
  }

  /** Convert a frame to RGB, width × height × 3 bytes, with the color matrix and range of the frame. */
  rgb(frame: Frame): Uint8Array {
    const { width, height } = frame
    // As in PyAV, colors are converted to RGB without adapting transfer curve and primaries to a display.
    frame.colorTrc = UNSPECIFIED
    frame.colorPrimaries = UNSPECIFIED
    this.#scaler ??= this.#makeScaler(width, height)
    const { make, target } = this.#scaler
    const done = make.scaleFrameSync(target, frame)
    const rows = target.data?.[0]
    const stride = target.linesize[0]
    if (done < 0 || rows === undefined || stride === undefined) {
      throw new VideoFault(`cannot convert pixel format ${frame.format} to RGB`)
    }
    const pixels = new Uint8Array(3 * width * height)
    for (let y = 0; y < height; y++) pixels.set(rows.subarray(y * stride, y * stride + 3 * width), 3 * width * y)
    return pixels
  }

  #makeScaler(width: number, height: number): { make: Scaler; target: Frame } {
    const make = new this.#av.SoftwareScaleContext()
    make.allocContext()
    make.setOption('sws_flags', BILINEAR)
    const target = new this.#av.Frame()
    target.alloc()
    Object.assign(target, { width, height, format: RGB24 })
    if (target.getBuffer() >= 0) return { make, target }
    target.free()
    make.freeContext()
    throw new VideoFault(`not enough memory for frames of ${width} × ${height} pixels`)
  }

  /** Return float32 samples of each channel. */
  planes(frame: Frame): Float32Array[] {
    const { nbSamples: count, channels, format, sampleRate } = frame
    const source = frame.extendedData ?? frame.data
    if (source === null) throw new VideoFault('the audio cannot be decoded')
    const planes = Array.from({ length: channels }, () => new Float32Array(count))
    const bytes = planes.map(({ buffer }) => Buffer.from(buffer))
    if (format === FLOAT_PLANES) {
      for (const [channel, plane] of bytes.entries()) plane.set(source[channel]!.subarray(0, 4 * count))
      return planes
    }
    const key = `${format} ${sampleRate} ${channels}`
    if (this.#resampler?.key !== key) {
      this.#resampler?.make.free()
      const make = new this.#av.SoftwareResampleContext()
      const { channelLayout: layout } = frame
      if (make.allocSetOpts2(layout, FLOAT_PLANES, sampleRate, layout, format, sampleRate) < 0 || make.init() < 0) {
        throw new VideoFault(`cannot convert audio sample format ${format} to float32`)
      }
      this.#resampler = { make, key }
    }
    if (this.#resampler.make.convertSync(bytes, count, source, count) !== count) {
      throw new VideoFault('cannot convert the audio to float32')
    }
    return planes
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#scaler?.target.free()
    this.#scaler?.make.freeContext()
    this.#resampler?.make.free()
    this.#frame.free()
    this.#packet.free()
    this.#decoder.freeContext()
    this.#format.closeInputSync()
  }
}
