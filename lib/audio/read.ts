import { availableParallelism } from 'node:os'
import { requireNumber, requireObject, requireWhole } from '../data/check.js'
import { DataError } from '../native/errors.js'
import { empty, ops, scope, type Tensor, tensor } from '../tensor/index.js'
import { type Channels, pickChannels, requireChannels } from './channels.js'
import type { AudioFormat, AudioInput } from './formats.js'
import { type ResampleQuality, Resampler, resample } from './resample.js'
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
   * The most bytes of decoded float32 samples that a compressed file may unfold to. Default: 64 MiB, or 512 for each byte
   * of the file if that is more.
   */
  maxBytes?: number
}

export interface Audio {
  /** float32 [frames], or [channels, frames] with `channels: 'all'`; full scale is 1. */
  samples: Tensor
  /** Of `samples`, in Hz. */
  sampleRate: number
  /** What the file has. */
  source: { format: AudioFormat; sampleRate: number; channels: number }
}

/**
 * Reads an audio file: WAV of every PCM and float width, A-law and µ-law; FLAC, MP3, Ogg Vorbis and Opus, M4A and AAC
 * through npm's `audio-decode` in a worker thread. The content tells the format, not the name.
 *
 * `start` and `duration` beyond the end give what there is. A WAV file is read from `start` on; compressed files are
 * decoded from their beginning. Memory: the samples at the file's rate, twice where a compressed file hides their number,
 * and once more at the new rate.
 *
 * @param input a path, or the bytes of a file
 * @throws DataError with `file` and, where there is one, `byte`, for a file that cannot be read; ConfigError for options
 */
export async function readAudio(input: AudioInput, options: ReadAudioOptions = {}): Promise<Audio> {
  const where = 'readAudio'
  checkOptions(where, options)
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
  const source = await AudioSource.open(where, input)
  try {
    return await scope(async () => {
      const collected = await collect(source, options)
      const rate = sampleRate ?? source.sampleRate
      const whole =
        rate === source.sampleRate
          ? collected.samples
          : await resample(collected.samples, source.sampleRate, rate, quality === undefined ? {} : { quality })
      return {
        samples: channels === 'all' ? whole : whole.select(0, 0),
        sampleRate: rate,
        source: { format: source.format, sampleRate: source.sampleRate, channels: collected.channels },
      }
    })
  } finally {
    await source.close()
  }
}

export function checkOptions(where: string, options: ReadAudioOptions): void {
  requireObject(where, 'options', options)
  const { sampleRate, channels = 'mean', start = 0, duration, maxBytes } = options
  if (sampleRate !== undefined) requireWhole(where, 'sampleRate', sampleRate, 1)
  requireChannels(where, channels)
  requireNumber(where, 'start', start, { least: 0, below: Number.POSITIVE_INFINITY })
  if (duration !== undefined) requireNumber(where, 'duration', duration, { least: 0 })
  if (maxBytes !== undefined) requireNumber(where, 'maxBytes', maxBytes, { least: 0 })
  if (options.quality !== undefined) new Resampler(1, 1, { quality: options.quality })
}

/** The frames that the options ask for, at the file's rate. */
export function framesAsked(rate: number, { start = 0, duration }: ReadAudioOptions): [number, number] {
  const begin = Math.round(start * rate)
  return [begin, duration === undefined ? Number.POSITIVE_INFINITY : begin + Math.round(duration * rate)]
}

/** [channels, frames] at the file's rate. */
async function collect(source: AudioSource, options: ReadAudioOptions): Promise<{ samples: Tensor; channels: number }> {
  const { channels = 'mean', maxBytes = Math.max(2 ** 26, 512 * source.bytes.size) } = options
  const [begin, end] = framesAsked(source.sampleRate, options)
  const fail = (what: string) => source.bytes.error(what)
  const parts: Tensor[] = []
  let target: Tensor | undefined
  let widest = source.channels
  let bytes = 0
  let at = 0
  for await (const planes of source.blocks(begin, end)) {
    widest = Math.max(widest, planes.length)
    const block = blockTensor(pickChannels(planes, channels, fail))
    const frames = block.size(1)
    if (source.frames !== undefined) {
      target ??= empty([block.size(0), Math.min(end, source.frames) - begin])
      target.narrow(1, at, frames).copy_(block)
      block.dispose()
    } else {
      bytes += block.numel() * 4
      if (bytes > maxBytes) {
        throw new DataError(
          `${source.bytes.place.file}: it unfolds to more than ${maxBytes} bytes of samples; set maxBytes to allow that`,
          { file: source.bytes.place.file, maxBytes },
        )
      }
      parts.push(block)
    }
    at += frames
  }
  const nothing = () => empty([channels === 'all' ? widest : 1, 0])
  return { samples: target ?? (parts.length > 0 ? await joined(parts) : nothing()), channels: widest }
}

/** Blocks one after the other; a decoder may give those that sound alike on both sides as one channel. */
async function joined(parts: Tensor[]): Promise<Tensor> {
  const channels = Math.max(...parts.map((part) => part.size(0)))
  return ops.async.cat(
    parts.map((part) => (part.size(0) === channels ? part : part.narrow(0, 0, 1).expand([channels, part.size(1)]))),
    1,
  )
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
