import type { ChangesOf } from '../base/settings.js'
import { type Tensor, tensor } from '../tensor/index.js'
import { keepForever } from '../tensor/scope.js'
import { pickChannels } from './channels.js'
import { blockTensor, frameRange, ofThisFile, READ_SETTINGS, type ReadAudioOptions } from './read.js'
import { Resampler } from './resample.js'
import type { AudioInput } from './sniff.js'
import { AudioSource } from './source.js'

/** Samples per channel that are resampled at once. */
const MOST_RESAMPLED = 1 << 20

const SETTINGS = READ_SETTINGS.extend({
  /** Duration of a chunk in seconds; the last one may be shorter. Default 30. */
  chunkSeconds: { type: 'number', min: 0.001, default: 30 },
})

/** Options of {@link readAudioStream}. @interface */
export type ReadAudioStreamOptions = ChangesOf<typeof SETTINGS.table>

export interface AudioChunk {
  /** float32 [frames], or [channels, frames] with `channels: 'all'`. */
  samples: Tensor
  sampleRate: number
  /** Start of the chunk in the file, in seconds. */
  start: number
}

/**
 * Read an audio file of any length in chunks. The concatenated chunks equal the result of {@link readAudio}. A chunk is freed when
 * the next is requested or the loop is left; clone it to keep it.
 *
 * Memory: a chunk, 1 MB of the file and a few samples for the resampler. Compressed files are decoded incrementally, except
 * M4A files whose index is at the end, which are decoded at once.
 *
 * @throws as {@link readAudio}
 */
export async function* readAudioStream(
  input: AudioInput,
  options: ReadAudioStreamOptions = {},
): AsyncGenerator<AudioChunk, void> {
  const where = 'readAudioStream'
  const { chunkSeconds, channels = 'mean', quality, start = 0 } = SETTINGS.read(where, options)
  const source = await AudioSource.open(where, input, options)
  let current: Tensor | undefined
  try {
    const sampleRate = options.sampleRate ?? source.sampleRate
    const frames = Math.max(1, Math.round(chunkSeconds * sampleRate))
    let at = start
    for await (const planes of rechunked(
      resampledBlocks(source, { ...options, channels, quality }, sampleRate),
      frames,
    )) {
      current?.dispose()
      const samples = channels === 'all' ? blockTensor(planes) : tensor(planes[0]!, { shape: [planes[0]!.length] })
      current = keepForever(samples)
      yield { samples, sampleRate, start: at }
      at += planes[0]!.length / sampleRate
    }
  } finally {
    current?.dispose()
    await source.close()
  }
}

/** Yield the selected channels at the new rate, in blocks of any size. */
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
  // Bounds the output when the new rate is much higher.
  const step = Math.max(1, Math.floor((MOST_RESAMPLED * source.sampleRate) / sampleRate))
  let pushedAny = false
  try {
    for await (const block of source.blocks(...frameRange(source.sampleRate, options))) {
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
          yield await rowsOf(await ofThisFile(source, () => resampler.push(part)))
        } finally {
          part.dispose()
        }
      }
    }
    if (resampler !== undefined && pushedAny) yield await rowsOf(await ofThisFile(source, () => resampler.flush()))
  } finally {
    resampler?.dispose()
  }
}

/** Return the rows of [channels, frames], and free the tensor. */
async function rowsOf(samples: Tensor): Promise<Float32Array[]> {
  try {
    const [channels, frames] = samples.shape as [number, number]
    const values = (await samples.data()) as Float32Array
    return Array.from({ length: channels }, (_, i) => values.subarray(i * frames, (i + 1) * frames))
  } finally {
    samples.dispose()
  }
}

/** Regroup samples to blocks of `frames`; the last one may be shorter. */
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
