import { stat } from 'node:fs/promises'
import { resolve } from 'node:path'
import { argumentError, requireNumber, requireOptions, requireSignal, shown } from '../base/check.js'
import { ConfigError, DataError } from '../base/errors.js'
import { type ChangesOf, SIGNAL, settings } from '../base/settings.js'
import { unopened } from '../files/byte-source.js'
import { empty, scope, type Tensor, tensor } from '../tensor/index.js'
import { FrameFolder } from './frame-folder.js'
import { VideoFile } from './video-file.js'

const OPEN = settings({
  /** Frames per second, for a folder of images. Default: unknown. */
  rate: { type: 'number', min: Number.MIN_VALUE, nullable: true, default: null },
  /** Most pixels of a frame. Default 178,956,970, as for images. */
  maxPixels: { type: 'integer', min: 1, default: 178_956_970 },
  /** Decoder threads for a video file. Default 2. */
  threads: { type: 'integer', min: 1, default: 2 },
  /** Aborts opening, which reads the whole file once. */
  signal: { type: SIGNAL },
})

/** Options of {@link openVideo}. @interface */
export type OpenVideoOptions = ChangesOf<typeof OPEN.table>

const FRAMES = settings({
  /** Most bytes of the frames, at 3 per pixel. Default 2 GiB. */
  maxBytes: { type: 'integer', default: 2 ** 31 },
  /** Aborts decoding. */
  signal: { type: SIGNAL },
})

/** Options of {@link Video.frames}. @interface */
export type ReadFramesOptions = ChangesOf<typeof FRAMES.table>

const AUDIO = settings({
  /** Sample rate to resample to, in Hz. Default: that of the file. */
  sampleRate: { type: 'integer', min: 1 },
  /** `'mean'` (default) averages the channels; `'all'` keeps them. */
  channels: { type: ['mean', 'all'] },
  /** Start in seconds. Default 0. */
  start: { type: 'number' },
  /** Duration in seconds; the result is shorter if the audio ends before. Default: to the end. */
  duration: { type: 'number' },
  /** Most bytes of float32 samples. Default 1 GiB: 1.5 hours of one channel at 48 kHz. */
  maxBytes: { type: 'integer' },
  /** Aborts decoding. */
  signal: { type: SIGNAL },
})

/** Options of {@link Video.audio}. @interface */
export type ReadAudioTrackOptions = ChangesOf<typeof AUDIO.table>

/** Tolerance in seconds, for timestamps that are rounded to milliseconds. */
const NEAR = 1e-3

/** Source of frames: a video file or a folder of images. */
export interface FrameSource {
  readonly file: string
  readonly width: number
  readonly height: number
  readonly rate: number | null
  readonly frameCount: number
  /** Seconds from the first frame to each; null if they follow from the rate, or are unknown. */
  readonly times: Float64Array | null
  readonly codec: string | null
  readonly audio: { sampleRate: number; channels: number } | null
  /** Yield RGB pixels of frames. @param places ascending indices without repetitions */
  frames(
    places: readonly number[],
    signal?: AbortSignal,
  ): AsyncGenerator<{ place: number; pixels: Tensor | Uint8Array }>
  decodeAudio(options: ReadAudioTrackOptions): Promise<{ samples: Tensor; sampleRate: number }>
  close(): Promise<void>
}

/**
 * An open video. Frame indices start at 0, in presentation order. A frame has the same pixels whether it is reached by seeking
 * or by sequential decoding. Calls run one at a time; further ones wait.
 */
export class Video {
  readonly #source: FrameSource
  /** Width of the stored frames in pixels, without rotation or correction of the pixel aspect ratio. */
  readonly width: number
  /** Height of the stored frames in pixels. */
  readonly height: number
  /** Frames per second, the average for a variable rate; null if unknown. */
  readonly rate: number | null
  /** Number of frames. */
  readonly frameCount: number
  /** Name of the decoder, such as `'h264'`; null for a folder of images. */
  readonly codec: string | null
  /** Format of the audio; null without audio. */
  readonly audioTrack: { readonly sampleRate: number; readonly channels: number } | null
  #last: Promise<unknown> = Promise.resolve()

  /** @internal Use `openVideo`. */
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
   * Read frames by index, in any order and with repetitions: uint8 [count, height, width, 3]. Decoding starts at the last
   * keyframe before each requested frame.
   *
   * ```ts
   * const clip = await video.frames(sampleFrames(video.frameCount)) // [8, height, width, 3]
   * ```
   *
   * @throws ConfigError for an index out of range, and for more than `maxBytes`; DataError for a frame that cannot be
   *   decoded; the reason of `signal` when it is aborted
   */
  async frames(places: readonly number[], options: ReadFramesOptions = {}): Promise<Tensor> {
    const where = 'Video.frames'
    const { maxBytes, signal } = FRAMES.read(where, options)
    const wanted = this.#places(where, places, signal)
    const { height, width } = this
    const bytes = 3 * height * width * places.length
    if (bytes > maxBytes) {
      const what = `expected at most ${maxBytes} bytes, got ${places.length} frames of ${width} × ${height} pixels, ${bytes} bytes`
      throw new ConfigError(`${where}: ${what}. Set maxBytes to allow more, or use stream().`, { maxBytes })
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
   * Yield frames one after the other, each uint8 [height, width, 3]: all, or those with the ascending indices `places`. Up to
   * 64 MB of frames, but at least two, are decoded ahead; leaving the loop stops that.
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
      throw argumentError(where, 'places', 'ascending indices; frames() takes any order', wanted)
    }
    const done = await this.#turn(signal)
    try {
      for await (const { pixels } of this.#source.frames(ascending, signal)) yield this.#frame(pixels)
    } finally {
      done()
    }
  }

  /**
   * Return the range of frames shown between two times: the index of the first and the index after the last; at least one frame.
   * Times are in seconds from the first frame, by the timestamps of the file or the rate of a folder of images.
   *
   * ```ts
   * const [first, end] = video.framesBetween(1.5, 3)
   * const clip = await video.frames(sampleFrames(end - first).map((place) => first + place))
   * ```
   *
   * @param end default: the end of the video
   * @throws ConfigError for invalid times; DataError without timestamps and rate
   */
  framesBetween(start: number, end?: number): [first: number, end: number] {
    const where = 'Video.framesBetween'
    requireNumber(where, 'start', start, { least: 0, below: Number.POSITIVE_INFINITY })
    if (end !== undefined) requireNumber(where, 'end', end, { least: start, below: Number.POSITIVE_INFINITY })
    const { frameCount, rate } = this
    if (start === 0 && end === undefined) return [0, frameCount]
    const { file, times } = this.#source
    if (times === null && rate === null) {
      throw new DataError(`${file}: expected timestamps or a frame rate, got neither. Set rate in openVideo.`, { file })
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
   * Read the audio: float32 [samples], or [channels, samples] with `channels: 'all'`.
   * @throws DataError without audio, or if it cannot be decoded; the reason of `signal` when it is aborted
   */
  async audio(options: ReadAudioTrackOptions = {}): Promise<{ samples: Tensor; sampleRate: number }> {
    const values = AUDIO.read('Video.audio', options)
    if (this.audioTrack === null) {
      const { file } = this.#source
      throw new DataError(`${file}: expected a video with audio, got one without`, { file, reason: 'no sound' }) // language: published field value
    }
    return this.#inTurn(values.signal, () => scope(() => this.#source.decodeAudio(values)))
  }

  /** Close the file and its thread. Frames that were read stay valid. */
  async close(): Promise<void> {
    await this.#source.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  #frame(pixels: Tensor | Uint8Array): Tensor {
    return pixels instanceof Uint8Array ? tensor(pixels, { shape: [this.height, this.width, 3] }) : pixels
  }

  /** Check indices and return them sorted, without repetitions. */
  #places(where: string, places: readonly number[], signal: AbortSignal | undefined): number[] {
    requireSignal(where, signal)
    if (!Array.isArray(places)) throw argumentError(where, 'places', 'an array of frame indices', places)
    for (const place of places) {
      if (Number.isInteger(place) && place >= 0 && place < this.frameCount) continue
      throw argumentError(where, 'places', `frame indices from 0 to ${this.frameCount - 1}`, place)
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
 * Open a video. Files (H.264, HEVC, VP9, AV1 and others in MP4, Matroska, WebM, AVI and others) are decoded in a worker thread by
 * npm's `node-av`, which includes FFmpeg. A folder of images needs no package; its images are the frames, sorted by name (frame2
 * before frame10). Pixels equal those of PyAV's `to_ndarray('rgb24')`.
 *
 * A worker thread of yours that reads a video file must end by `process.exit()` or by itself: node-av aborts the process when
 * `worker.terminate()` interrupts it.
 *
 * ```ts
 * await using video = await openVideo('talk.mp4')
 * const clip = await video.frames(sampleFrames(video.frameCount))
 * const pixelValues = await preprocessVideo(clip) // [3, 8, 224, 224]
 * ```
 *
 * @throws DataError with `file` for an unreadable file, or if node-av is not installed; ConfigError for invalid options; the
 *   reason of `signal` when it is aborted
 */
export async function openVideo(path: string, options: OpenVideoOptions = {}): Promise<Video> {
  const where = 'openVideo'
  if (typeof path !== 'string') throw argumentError(where, 'path', 'a path', path)
  const { rate, maxPixels, threads, signal } = OPEN.read(where, options)
  signal?.throwIfAborted()
  const facts = await stat(path).catch((cause: Error) => {
    throw new DataError(`${path}: cannot be opened: ${unopened(path, cause)}`, { file: path, cause })
  })
  if (facts.isDirectory()) return new Video(await FrameFolder.open(path, rate, maxPixels, signal))
  if (!facts.isFile()) throw new DataError(`${path}: expected a regular file or a folder`, { file: path })
  if (rate !== null)
    throw new ConfigError(`${where}: rate: expected undefined for a file, got ${rate}. It is for folders of images.`, {
      rate,
    })
  return new Video(await VideoFile.open(path, resolve(path), { maxPixels, threads }, signal))
}
