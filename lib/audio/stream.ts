import { requireNumber } from '../base/check.js'
import { type Tensor, tensor } from '../tensor/index.js'
import { keepForever } from '../tensor/scope.js'
import { pickChannels } from './channels.js'
import { blockTensor, checkOptions, framesAsked, ofThisFile, type ReadAudioOptions } from './read.js'
import { Resampler } from './resample.js'
import type { AudioInput } from './sniff.js'
import { AudioSource } from './source.js'

/** Samples of each channel that are resampled at once. */
const MOST_RESAMPLED = 1 << 20

export interface ReadAudioStreamOptions extends Omit<ReadAudioOptions, 'maxBytes'> {
  /** Length of a chunk in seconds. Default 30. The last one may be shorter. */
  chunkSeconds?: number
}

export interface AudioChunk {
  /** float32 [frames], or [channels, frames] with `channels: 'all'`. */
  samples: Tensor
  sampleRate: number
  /** Where the chunk begins in the file, in seconds. */
  start: number
}

/**
 * Reads an audio file of any length chunk by chunk: the chunks in a row are what {@link readAudio} gives. Each chunk is
 * freed when the next is asked for or the loop is left; clone what has to live on.
 *
 * Memory: a chunk, a megabyte of the file and a few samples for the resampler. A compressed file is decoded as the loop
 * goes. The exception is an M4A file whose index comes last, which its decoder unfolds at once.
 *
 * @throws as {@link readAudio}
 */
export async function* readAudioStream(
  input: AudioInput,
  options: ReadAudioStreamOptions = {},
): AsyncGenerator<AudioChunk, void> {
  const where = 'readAudioStream'
  checkOptions(where, options, 'chunkSeconds')
  const { chunkSeconds = 30, channels = 'mean', quality, start = 0 } = options
  requireNumber(where, 'chunkSeconds', chunkSeconds, { least: 0.001, below: Number.POSITIVE_INFINITY })
  const source = await AudioSource.open(where, input, options)
  let given: Tensor | undefined
  try {
    const sampleRate = options.sampleRate ?? source.sampleRate
    const frames = Math.max(1, Math.round(chunkSeconds * sampleRate))
    let at = start
    for await (const planes of rechunked(
      resampledBlocks(source, { ...options, channels, quality }, sampleRate),
      frames,
    )) {
      given?.dispose()
      const samples = channels === 'all' ? blockTensor(planes) : tensor(planes[0]!, { shape: [planes[0]!.length] })
      given = keepForever(samples)
      yield { samples, sampleRate, start: at }
      at += planes[0]!.length / sampleRate
    }
  } finally {
    given?.dispose()
    await source.close()
  }
}

/** The wanted channels at the wanted rate, in blocks of whatever size. */
async function* resampledBlocks(
  source: AudioSource,
  options: ReadAudioOptions,
  sampleRate: number,
): AsyncGenerator<Float32Array[]> {
  const { channels = 'mean', quality } = options
  const resampler =
    sampleRate === source.sampleRate
      ? undefined
      : new Resampler(source.sampleRate, sampleRate, quality === undefined ? {} : { quality })
  // A second of a file may be many at the new rate.
  const step = Math.max(1, Math.floor((MOST_RESAMPLED * source.sampleRate) / sampleRate))
  let pushedAny = false
  try {
    for await (const block of source.blocks(...framesAsked(source.sampleRate, options))) {
      options.signal?.throwIfAborted()
      const planes = pickChannels(block, channels, (what) => source.bytes.error(what))
      if (resampler === undefined) {
        yield planes
        continue
      }
      for (let at = 0; at < planes[0]!.length; at += step) {
        pushedAny = true
        const part = blockTensor(planes.map((plane) => plane.subarray(at, at + step)))
        try {
          yield await taken(await ofThisFile(source, () => resampler.push(part)))
        } finally {
          part.dispose()
        }
      }
    }
    if (resampler !== undefined && pushedAny) yield await taken(await ofThisFile(source, () => resampler.flush()))
  } finally {
    resampler?.dispose()
  }
}

/** The rows of [channels, frames], which is freed. */
async function taken(samples: Tensor): Promise<Float32Array[]> {
  try {
    const [channels, frames] = samples.shape as [number, number]
    const values = (await samples.data()) as Float32Array
    return Array.from({ length: channels }, (_, i) => values.subarray(i * frames, (i + 1) * frames))
  } finally {
    samples.dispose()
  }
}

/** The same samples in blocks of `frames`; the last is what is left. */
async function* rechunked(blocks: AsyncGenerator<Float32Array[]>, frames: number): AsyncGenerator<Float32Array[]> {
  let parts: Float32Array[][] = []
  let filled = 0
  for await (const planes of blocks) {
    const length = planes[0]!.length
    for (let taken = 0; taken < length; ) {
      const count = Math.min(frames - filled, length - taken)
      parts.push(planes.map((plane) => plane.subarray(taken, taken + count)))
      filled += count
      taken += count
      if (filled === frames) {
        yield joined(parts, filled)
        parts = []
        filled = 0
      }
    }
  }
  if (filled > 0) yield joined(parts, filled)
}

function joined(parts: Float32Array[][], frames: number): Float32Array[] {
  return parts[0]!.map((_, channel) => {
    const whole = new Float32Array(frames)
    let at = 0
    for (const part of parts) {
      whole.set(part[channel]!, at)
      at += part[channel]!.length
    }
    return whole
  })
}
