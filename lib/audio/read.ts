import { availableParallelism } from 'node:os'
import { misuse, requireNumber, requireOptions, requireWhole } from '../base/check.js'
import { OperatorError } from '../base/errors.js'
import { empty, ops, scope, type Tensor, tensor } from '../tensor/index.js'
import { type Channels, pickChannels, requireChannels } from './channels.js'
import { type ResampleQuality, Resampler, resample } from './resample.js'
import type { AudioFormat, AudioInput } from './sniff.js'
import { AudioSource } from './source.js'

export interface ReadAudioOptions {
  /** The rate to resample to, in Hz. Default: the file's own. */
  sampleRate?: number
  /** Default `'mean'`, which gives one signal; `'all'` keeps the file's channels; a number picks one. */
  channels?: Channels
  /** Where to begin, in seconds. Default 0. */
  start?: number
  /** How much to read, in seconds. Default: to the end. */
  duration?: number
  /** See {@link ResampleQuality}. Default `'sinc'`. */
  quality?: ResampleQuality
  /**
   * The most bytes of float32 samples that a file may unfold to: of all its channels when it is decoded, from its beginning,
   * and of those wanted at a new `sampleRate`. Default: 64 MiB, or 512 for each byte of the file if that is more.
   */
  maxBytes?: number
  /**
   * Whether a WAV may have fewer samples than its header promises, as of programs that count the header's 44 bytes too, and of
   * recordings that were cut off. `source.missingBytes` says how many are missing. Default false: such a file is refused.
   */
  allowTruncated?: boolean
  /** Ends the reading. */
  signal?: AbortSignal
}

export interface Audio {
  /** float32 [frames], or [channels, frames] with `channels: 'all'`; full scale is 1. */
  samples: Tensor
  /** Of `samples`, in Hz. */
  sampleRate: number
  /** What the file has. */
  source: {
    format: AudioFormat
    sampleRate: number
    channels: number
    /** Of samples that the header promises; only where some are missing, which `allowTruncated` allows. */
    missingBytes?: number
  }
}

/**
 * Reads an audio file: WAV, Wave64, AIFF, AU and CAF of every PCM and float width, A-law, µ-law and ADPCM; and, in a worker
 * thread, FLAC, MP3 (in WAV too), Ogg Vorbis and Opus, and the first audio track of WebM and Matroska (`.webm`, `.mka`), as
 * browsers record it, where it is Opus, Vorbis, FLAC, MP3 or PCM. M4A and AAC too where npm's `@audio/decode-aac` (GPL-2.0) is installed. The
 * content tells the format, not the name. Channels keep the order of the file, as with libsndfile.
 *
 * `start` and `duration` beyond the end give what there is. An uncompressed file is read from `start` on; others are
 * decoded from their beginning. Memory: the samples at the file's rate, twice where a compressed file hides their number,
 * and once more at the new rate.
 *
 * @param input a path, or the bytes of a file
 * @throws DataError with `file` and, where there is one, `byte`, for a file that cannot be read; ConfigError for options; the
 *   reason of `signal` when it is aborted
 */
export async function readAudio(input: AudioInput, options: ReadAudioOptions = {}): Promise<Audio> {
  const where = 'readAudio'
  checkOptions(where, options, 'maxBytes')
  return inTurn(() => readWhole(where, input, options))
}

const turns = { free: availableParallelism(), waiting: [] as (() => void)[] }

/** As many files at once as there are processors: each takes a thread and its memory. */
async function inTurn<T>(work: () => Promise<T>): Promise<T> {
  if (turns.free > 0) turns.free -= 1
  else await new Promise<void>((resolve) => turns.waiting.push(resolve))
  try {
    return await work()
  } finally {
    const next = turns.waiting.shift()
    if (next === undefined) turns.free += 1
    else next()
  }
}

async function readWhole(where: string, input: AudioInput, options: ReadAudioOptions): Promise<Audio> {
  const { sampleRate, channels = 'mean', quality } = options
  const source = await AudioSource.open(where, input, options)
  try {
    return await scope(async () => {
      const maxBytes = options.maxBytes ?? Math.max(2 ** 26, 512 * source.bytes.size)
      const collected = await collect(source, options, maxBytes)
      const rate = sampleRate ?? source.sampleRate
      const resampled = 4 * collected.size(0) * Math.ceil((collected.size(1) * rate) / source.sampleRate)
      if (rate !== source.sampleRate && resampled > maxBytes) {
        const what = `its samples at ${source.sampleRate} Hz become ${resampled} bytes at ${rate} Hz, more than ${maxBytes}`
        throw source.bytes.error(`${what}; set maxBytes to allow that`, { maxBytes })
      }
      options.signal?.throwIfAborted()
      const whole =
        rate === source.sampleRate
          ? collected
          : await ofThisFile(source, () =>
              resample(collected, source.sampleRate, rate, quality === undefined ? {} : { quality }),
            )
      return {
        samples: channels === 'all' ? whole : whole.select(0, 0),
        sampleRate: rate,
        source: {
          format: source.format,
          sampleRate: source.sampleRate,
          channels: source.channels,
          ...(source.missingBytes > 0 && { missingBytes: source.missingBytes }),
        },
      }
    })
  } finally {
    await source.close()
  }
}

/** A rate that cannot be resampled is the file's fault. */
export async function ofThisFile(source: AudioSource, resampling: () => Promise<Tensor>): Promise<Tensor> {
  try {
    return await resampling()
  } catch (cause) {
    if (!(cause instanceof OperatorError)) throw cause
    throw source.bytes.error(`its ${source.sampleRate} Hz are no rate to resample from: ${cause.message}`, { cause })
  }
}

const OPTIONS: readonly (keyof ReadAudioOptions)[] = [
  'sampleRate',
  'channels',
  'start',
  'duration',
  'quality',
  'allowTruncated',
  'signal',
]

export function checkOptions(where: string, options: ReadAudioOptions, own: string): void {
  requireOptions(where, options, [...OPTIONS, own])
  const { sampleRate, channels = 'mean', start = 0, duration, maxBytes, allowTruncated = false } = options
  if (typeof allowTruncated !== 'boolean') throw misuse(where, 'allowTruncated', 'a boolean', allowTruncated)
  if (sampleRate !== undefined) requireWhole(where, 'sampleRate', sampleRate, 1)
  requireChannels(where, channels)
  requireNumber(where, 'start', start, { least: 0, below: Number.POSITIVE_INFINITY })
  if (duration !== undefined) requireNumber(where, 'duration', duration, { least: 0 })
  if (maxBytes !== undefined) requireNumber(where, 'maxBytes', maxBytes, { least: 0 })
  if (options.signal !== undefined && !(options.signal instanceof AbortSignal)) {
    throw misuse(where, 'signal', 'an AbortSignal', options.signal)
  }
  if (options.quality !== undefined) new Resampler(1, 1, { quality: options.quality })
}

/** The frames that the options ask for, at the file's rate. */
export function framesAsked(rate: number, { start = 0, duration }: ReadAudioOptions): [number, number] {
  const begin = Math.round(start * rate)
  return [begin, duration === undefined ? Number.POSITIVE_INFINITY : begin + Math.round(duration * rate)]
}

/** [channels, frames] at the file's rate. */
async function collect(source: AudioSource, options: ReadAudioOptions, maxBytes: number): Promise<Tensor> {
  const { channels = 'mean', signal } = options
  const [begin, end] = framesAsked(source.sampleRate, options)
  const fail = (what: string) => source.bytes.error(what)
  const parts: Tensor[] = []
  let target: Tensor | undefined
  let at = 0
  for await (const planes of source.blocks(begin, end, maxBytes)) {
    signal?.throwIfAborted()
    const block = blockTensor(pickChannels(planes, channels, fail))
    const frames = block.size(1)
    if (source.frames !== undefined) {
      target ??= empty([block.size(0), Math.min(end, source.frames) - begin])
      target.narrow(1, at, frames).copy_(block)
      block.dispose()
    } else {
      parts.push(block)
    }
    at += frames
  }
  const nothing = () => empty([channels === 'all' ? source.channels : 1, 0])
  const samples = target ?? (parts.length > 0 ? await ops.async.cat(parts, 1) : nothing())
  return samples
}

export function blockTensor(planes: Float32Array[]): Tensor {
  const frames = planes[0]!.length
  if (planes.length === 1) return tensor(planes[0]!, { shape: [1, frames] })
  const flat = new Float32Array(planes.length * frames)
  planes.forEach((plane, channel) => {
    flat.set(plane, channel * frames)
  })
  return tensor(flat, { shape: [planes.length, frames] })
}
