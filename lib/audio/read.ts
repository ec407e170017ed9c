import { availableParallelism } from 'node:os'
import { setImmediate } from 'node:timers/promises'
import { OperatorError } from '../base/errors.js'
import { type ChangesOf, checkedBy, SIGNAL, settings } from '../base/settings.js'
import { currentDevice } from '../native/context.js'
import { type Device, empty, scope, type Tensor, tensor } from '../tensor/index.js'
import { copyFloats } from '../tensor/tensor.js'
import { type Channels, pickChannels, requireChannels } from './channels.js'
import { RESAMPLE_QUALITIES, resample } from './resample.js'
import type { AudioFormat, AudioInput } from './sniff.js'
import { AudioSource } from './source.js'

/** Options of reading audio, whole or in chunks. */
export const READ_SETTINGS = settings({
  /** Sample rate to resample to, in Hz. Default: that of the file. */
  sampleRate: { type: 'integer', min: 1 },
  /** `'mean'` (default) averages the channels; `'all'` keeps them; a number selects one. */
  channels: { type: checkedBy<Channels>((where, _, value) => requireChannels(where, value)) },
  /** Start in seconds. Default 0. */
  start: { type: 'number' },
  /** Duration in seconds. Default: to the end. */
  duration: { type: 'number', infinite: true },
  /** Resampling method, see {@link ResampleQuality}. Default `'sinc'`. */
  quality: { type: RESAMPLE_QUALITIES },
  /**
   * Whether a WAV file may have fewer samples than its header declares, as in truncated recordings and files of programs that
   * count the 44 bytes of the header. `source.missingBytes` is the number of missing bytes. Default false: such files are errors.
   */
  allowTruncated: { type: 'boolean' },
  /** Aborts reading. */
  signal: { type: SIGNAL },
})

const SETTINGS = READ_SETTINGS.extend({
  /**
   * Limit on the bytes of float32 samples: of all channels decoded from the beginning of a compressed file, and of the selected
   * channels at a new `sampleRate`. Default: 64 MiB, or 512 per byte of the file if that is more.
   */
  maxBytes: { type: 'number', infinite: true },
})

/** Options of {@link readAudio}. @interface */
export type ReadAudioOptions = ChangesOf<typeof SETTINGS.table>

export interface Audio {
  /** float32 [frames], or [channels, frames] with `channels: 'all'`, from -1 to 1. */
  samples: Tensor
  /** Sample rate of `samples`, in Hz. */
  sampleRate: number
  /** Properties of the file. */
  source: {
    format: AudioFormat
    sampleRate: number
    channels: number
    /** Bytes of samples that the header declares but the file lacks. Only with `allowTruncated`, if some are missing. */
    missingBytes?: number
  }
}

/**
 * Read an audio file. Formats:
 * - WAV, Wave64, AIFF, AU and CAF with PCM and float samples of all widths, A-law, µ-law and ADPCM;
 * - in a worker thread FLAC, MP3 (also in WAV), Ogg Vorbis and Opus, and the first audio track of WebM and Matroska (`.webm`,
 *   `.mka`) with Opus, Vorbis, FLAC, MP3 or PCM;
 * - M4A and AAC, if npm's `@audio/decode-aac` (GPL-2.0) is installed.
 *
 * The format is detected from the content, not the file name. Channels keep the order of the file, as with libsndfile. The
 * result is shorter if the file ends before `start` + `duration`. Uncompressed files are read from `start`; others are decoded
 * from their beginning. Memory: the samples at the file's rate, twice for compressed files of unknown length, and once more at
 * the new rate.
 *
 * @param input a path, or the bytes of a file
 * @throws DataError with `file` and, if known, `byte`, for a file that cannot be read; ConfigError for invalid options; the
 *   reason of `signal` when it is aborted
 */
export async function readAudio(input: AudioInput, options: ReadAudioOptions = {}): Promise<Audio> {
  const where = 'readAudio'
  SETTINGS.read(where, options)
  return inTurn(() => readWhole(where, input, options))
}

const turns = { free: availableParallelism(), waiting: [] as (() => void)[] }

/** Limit concurrent reads to the number of processors: each takes a thread and its memory. */
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
        const what = `expected at most ${maxBytes} bytes of samples, got ${resampled} when resampling from ${source.sampleRate} to ${rate} Hz`
        throw source.bytes.error(`${what}. Set maxBytes to allow it.`, { maxBytes })
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

/** Run `resampling`, and report a sample rate that cannot be resampled as an error of the file. */
export async function ofThisFile(source: AudioSource, resampling: () => Promise<Tensor>): Promise<Tensor> {
  try {
    return await resampling()
  } catch (cause) {
    if (!(cause instanceof OperatorError)) throw cause
    throw source.bytes.error(`cannot resample from ${source.sampleRate} Hz: ${cause.message}`, { cause })
  }
}

/** Return the range of frames that `start` and `duration` select, at the file's rate. */
export function frameRange(rate: number, { start = 0, duration }: ReadAudioOptions): [number, number] {
  const begin = Math.round(start * rate)
  return [begin, duration === undefined ? Number.POSITIVE_INFINITY : begin + Math.round(duration * rate)]
}

/** Read the selected frames and channels: [channels, frames] at the file's rate. */
async function collect(source: AudioSource, options: ReadAudioOptions, maxBytes: number): Promise<Tensor> {
  const { channels = 'mean', signal } = options
  const [begin, end] = frameRange(source.sampleRate, options)
  const fail = (what: string) => source.bytes.error(what)
  const isKnown = source.frames !== undefined
  const allocate = (rows: number, frames: number) => empty([rows, frames], { dtype: 'float32', device: 'cpu' })
  const parts: Float32Array[][] = []
  let samples: Tensor | undefined
  let at = 0
  for await (const planes of source.blocks(begin, end, { maxBytes, reusesMemory: isKnown })) {
    signal?.throwIfAborted()
    const part = pickChannels(planes, channels, fail)
    if (isKnown) {
      samples ??= allocate(part.length, Math.min(end, source.frames!) - begin)
      copyPlanes(samples, part, at)
    } else {
      parts.push(part)
    }
    at += part[0]!.length
  }
  if (parts.length > 0) {
    samples = allocate(parts[0]!.length, at)
    at = 0
    for (const part of parts) {
      copyPlanes(samples, part, at)
      at += part[0]!.length
      // A part has some megabytes: other work may run before the next.
      await setImmediate()
    }
  }
  samples ??= allocate(channels === 'all' ? source.channels : 1, 0)
  const device = currentDevice() as Device | null
  return device === null ? samples : samples.to(device)
}

/** Copy planes to the columns of [channels, frames] from `at` on. */
function copyPlanes(samples: Tensor, planes: readonly Float32Array[], at: number): void {
  const frames = samples.size(1)
  planes.forEach((plane, row) => {
    copyFloats(samples, row * frames + at, plane)
  })
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
