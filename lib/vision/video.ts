import { stat } from 'node:fs/promises'
import { resolve } from 'node:path'
import { misuse, requireNumber, requireOptions, requireSignal, requireWhole, shown } from '../base/check.js'
import { ConfigError, DataError } from '../base/errors.js'
import { empty, scope, type Tensor, tensor } from '../tensor/index.js'
import { FrameFolder } from './frame-folder.js'
import { VideoFile } from './video-file.js'

export interface OpenVideoOptions {
  /** Frames in a second, of a folder of pictures, which does not say. Default: not known. */
  rate?: number | undefined
  /** The most pixels that a frame may have. Default 178,956,970, as of pictures. */
  maxPixels?: number | undefined
  /** Threads that a video file is decoded with. Default 2. */
  threads?: number | undefined
  /** Ends the opening, for which a file is read through once. */
  signal?: AbortSignal | undefined
}

export interface ReadFramesOptions {
  /** The most bytes that the frames may take, 3 for each pixel. Default 2 GiB. */
  maxBytes?: number | undefined
  /** Ends the decoding. */
  signal?: AbortSignal | undefined
}

export interface ReadSoundOptions {
  /** To resample to, in Hz. Default: the video's own. */
  sampleRate?: number | undefined
  /** Default `'mean'`, which gives one signal; `'all'` keeps the channels. */
  channels?: 'mean' | 'all' | undefined
  /** Seconds of it at which to begin [0], and how many to read; beyond its end there is what there is. Default: all of it. */
  start?: number | undefined
  duration?: number | undefined
  /** The most bytes of float32 samples. Default 1 GiB, which of one channel at 48 kHz is an hour and a half. */
  maxBytes?: number | undefined
  /** Ends the decoding. */
  signal?: AbortSignal | undefined
}

/** In seconds: what is written to the millisecond may lie so far off a frame. */
const NEAR = 1e-3

/** Where frames come from: a file, or a folder of pictures. */
export interface FrameSource {
  readonly file: string
  readonly width: number
  readonly height: number
  readonly rate: number | null
  readonly frameCount: number
  /** Seconds from the first frame to each; null where only the rate says it, if anything does. */
  readonly times: Float64Array | null
  readonly codec: string | null
  readonly audio: { sampleRate: number; channels: number } | null
  /** RGB of frames by their numbers, which ascend without repeating. */
  frames(
    places: readonly number[],
    signal?: AbortSignal,
  ): AsyncGenerator<{ place: number; pixels: Tensor | Uint8Array }>
  sound(options: ReadSoundOptions): Promise<{ samples: Tensor; sampleRate: number }>
  close(): Promise<void>
}

/**
 * An open video. Its frames have numbers from 0, in the order in which they are shown, and each is the same whether it is
 * reached by a leap or in sequence. One thing at a time is read; further calls wait for their turn.
 */
export class Video {
  readonly #source: FrameSource
  /** In pixels, as stored: nothing is rotated, and no pixel is made square. */
  readonly width: number
  readonly height: number
  /** Frames in a second, of a variable rate their mean; null where nothing says it. */
  readonly rate: number | null
  /** How many frames there are. */
  readonly frameCount: number
  /** The decoder's name, such as `'h264'`; null of a folder of pictures. */
  readonly codec: string | null
  /** Of its sound; null where it has none. */
  readonly audioTrack: { readonly sampleRate: number; readonly channels: number } | null
  #last: Promise<unknown> = Promise.resolve()

  /** @internal Take one from `openVideo`. */
  constructor(source: FrameSource) {
    if (typeof source !== 'object' || source === null || typeof source.frames !== 'function') {
      throw new ConfigError(`Video: expected the source of openVideo, got ${shown(source)}. Call openVideo(path).`)
    }
    this.#source = source
    this.width = source.width
    this.height = source.height
    this.rate = source.rate
    this.frameCount = source.frameCount
    this.codec = source.codec
    this.audioTrack = source.audio
  }

  /**
   * Frames by their numbers, in any order and as often as wanted: uint8 [count, height, width, 3]. Only what is wanted is
   * decoded, from the last frame before it that needs no other.
   *
   * ```ts
   * const clip = await video.frames(sampleFrames(video.frameCount)) // [8, height, width, 3]
   * ```
   *
   * @throws ConfigError for a number that no frame has, and for more than `maxBytes`; DataError for a frame that cannot be
   *   decoded; the reason of `signal` when it is aborted
   */
  async frames(places: readonly number[], options: ReadFramesOptions = {}): Promise<Tensor> {
    const where = 'Video.frames'
    requireOptions(where, options, ['maxBytes', 'signal'])
    const { maxBytes = 2 ** 31, signal } = options
    requireWhole(where, 'maxBytes', maxBytes)
    const wanted = this.#places(where, places, signal)
    const { height, width } = this
    const bytes = 3 * height * width * places.length
    if (bytes > maxBytes) {
      const what = `${places.length} frames of ${width} × ${height} pixels are ${bytes} bytes, more than ${maxBytes}`
      throw new ConfigError(`${where}: ${what}; set maxBytes to allow that, or take them from stream()`, { maxBytes })
    }
    return this.#inTurn(signal, () =>
      scope(async () => {
        const clip = empty([places.length, height, width, 3], { dtype: 'uint8', device: 'cpu' })
        for await (const { place, pixels } of this.#source.frames(wanted, signal)) {
          scope(() => {
            const frame = this.#frame(pixels)
            for (const [i, other] of places.entries()) if (other === place) clip.select(0, i).copy_(frame)
          })
        }
        return clip
      }),
    )
  }

  /**
   * Frames one after the other, each uint8 [height, width, 3]: all, or those with these numbers, which must ascend. A few are
   * decoded ahead, no more than 64 MB or two of them; leaving the loop ends that.
   */
  async *stream(
    places?: readonly number[],
    options: { signal?: AbortSignal | undefined } = {},
  ): AsyncGenerator<Tensor> {
    const where = 'Video.stream'
    requireOptions(where, options, ['signal'])
    const { signal } = options
    const wanted = places ?? Array.from({ length: this.frameCount }, (_, i) => i)
    const ascending = this.#places(where, wanted, signal)
    if (ascending.length !== wanted.length || ascending.some((place, i) => place !== wanted[i])) {
      throw misuse(where, 'places', 'numbers that ascend; frames() takes others', wanted)
    }
    const done = await this.#turn(signal)
    try {
      for await (const { pixels } of this.#source.frames(ascending, signal)) yield this.#frame(pixels)
    } finally {
      done()
    }
  }

  /**
   * Which frames are shown between two seconds of it: the number of the first, and that behind the last; one at least. Seconds
   * count from the first frame. They are the file's own times, of a folder of pictures they follow from its rate.
   *
   * ```ts
   * const [first, end] = video.framesBetween(1.5, 3)
   * const clip = await video.frames(sampleFrames(end - first).map((place) => first + place))
   * ```
   *
   * @param end default: to its end
   * @throws ConfigError for what are no such seconds; DataError where nothing says when a frame is shown
   */
  framesBetween(start: number, end?: number): [first: number, end: number] {
    const where = 'Video.framesBetween'
    requireNumber(where, 'start', start, { least: 0, below: Number.POSITIVE_INFINITY })
    if (end !== undefined) requireNumber(where, 'end', end, { least: start, below: Number.POSITIVE_INFINITY })
    const { frameCount, rate } = this
    if (start === 0 && end === undefined) return [0, frameCount]
    const { file, times } = this.#source
    if (times === null && rate === null) {
      throw new DataError(`${file}: nothing says when a frame is shown, and seconds of it were asked for`, { file })
    }
    const timeOf = (place: number) => times?.[place] ?? place / (rate as number)
    const before = (seconds: number) => {
      let place = 0
      while (place < frameCount && timeOf(place) < seconds) place += 1
      return place
    }
    const first = Math.max(0, before(start + NEAR) - 1)
    return [first, end === undefined ? frameCount : Math.max(first + 1, before(end - NEAR))]
  }

  /**
   * The sound: float32 [frames], or [channels, frames] with `channels: 'all'`.
   * @throws DataError where there is none, or it cannot be decoded; the reason of `signal` when it is aborted
   */
  async audio(options: ReadSoundOptions = {}): Promise<{ samples: Tensor; sampleRate: number }> {
    const where = 'Video.audio'
    requireOptions(where, options, ['sampleRate', 'channels', 'start', 'duration', 'maxBytes', 'signal'])
    const { sampleRate, channels = 'mean', start, duration, maxBytes, signal } = options
    for (const [name, value] of Object.entries({ start, duration })) {
      if (value !== undefined) requireNumber(where, name, value, { least: 0, below: Number.POSITIVE_INFINITY })
    }
    if (sampleRate !== undefined) requireWhole(where, 'sampleRate', sampleRate, 1)
    if (channels !== 'mean' && channels !== 'all') throw misuse(where, 'channels', "'mean' or 'all'", channels)
    if (maxBytes !== undefined) requireWhole(where, 'maxBytes', maxBytes)
    requireSignal(where, signal)
    if (this.audioTrack === null) {
      throw new DataError(`${this.#source.file}: it has no sound`, { file: this.#source.file, reason: 'no sound' })
    }
    return this.#inTurn(signal, () => scope(() => this.#source.sound(options)))
  }

  /** Ends its thread. Frames that were read stay. */
  async close(): Promise<void> {
    await this.#source.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  #frame(pixels: Tensor | Uint8Array): Tensor {
    return pixels instanceof Uint8Array ? tensor(pixels, { shape: [this.height, this.width, 3] }) : pixels
  }

  /** Checked, in order and each once. */
  #places(where: string, places: readonly number[], signal: AbortSignal | undefined): number[] {
    requireSignal(where, signal)
    if (!Array.isArray(places)) throw misuse(where, 'places', 'an array of numbers of frames', places)
    for (const place of places) {
      if (Number.isInteger(place) && place >= 0 && place < this.frameCount) continue
      throw misuse(where, 'places', `numbers of frames, from 0 to ${this.frameCount - 1}`, place)
    }
    return [...new Set<number>(places)].sort((a, b) => a - b)
  }

  async #turn(signal: AbortSignal | undefined): Promise<() => void> {
    const before = this.#last
    let done!: () => void
    this.#last = new Promise<void>((resolve) => {
      done = resolve
    })
    await before
    if (signal?.aborted) {
      done()
      throw signal.reason
    }
    return done
  }

  async #inTurn<T>(signal: AbortSignal | undefined, work: () => Promise<T>): Promise<T> {
    const done = await this.#turn(signal)
    try {
      return await work()
    } finally {
      done()
    }
  }
}

/**
 * Opens a video: a file of H.264, HEVC, VP9, AV1 and others in MP4, Matroska, WebM, AVI and others, by npm's `node-av`, which
 * brings an FFmpeg of its own, where that is installed; or without it a folder of pictures, which are its frames in the
 * order of their names (frame2 before frame10). Files are decoded in a thread. Pixels are those of PyAV's `to_ndarray('rgb24')`.
 *
 * ```ts
 * await using video = await openVideo('talk.mp4')
 * const clip = await video.frames(sampleFrames(video.frameCount))
 * const pixelValues = await preprocessVideo(clip) // [3, 8, 224, 224]
 * ```
 *
 * @throws DataError with `file` for what cannot be read, or where node-av is missing; ConfigError for options; the reason of
 *   `signal` when it is aborted
 */
export async function openVideo(path: string, options: OpenVideoOptions = {}): Promise<Video> {
  const where = 'openVideo'
  if (typeof path !== 'string') throw misuse(where, 'path', 'a path', path)
  requireOptions(where, options, ['rate', 'maxPixels', 'threads', 'signal'])
  const { rate = null, maxPixels = 178_956_970, threads = 2, signal } = options
  if (rate !== null) requireNumber(where, 'rate', rate, { least: Number.MIN_VALUE, below: Number.POSITIVE_INFINITY })
  requireWhole(where, 'maxPixels', maxPixels, 1)
  requireWhole(where, 'threads', threads, 1)
  requireSignal(where, signal)
  signal?.throwIfAborted()
  const facts = await stat(path).catch((cause: Error) => {
    throw new DataError(`${path}: it cannot be opened: ${cause.message}`, { file: path, cause })
  })
  if (facts.isDirectory()) return new Video(await FrameFolder.open(path, rate, maxPixels, signal))
  if (!facts.isFile()) throw new DataError(`${path}: it is not a regular file`, { file: path })
  if (rate !== null)
    throw new ConfigError(`${where}: a file says its rate itself; rate is for folders of pictures`, { rate })
  return new Video(await VideoFile.open(path, resolve(path), { maxPixels, threads }, signal))
}
