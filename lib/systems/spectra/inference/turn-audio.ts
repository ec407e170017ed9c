import { resolve } from 'node:path'
import { readAudio } from '../../../audio/read.js'
import { resample } from '../../../audio/resample.js'
import { misuse, requireNumber, shown } from '../../../base/check.js'
import { ConfigError, DataError } from '../../../base/errors.js'
import { noGrad, scope, Tensor, tensor } from '../../../tensor/index.js'
import { SPECTRA_RATE } from '../pretraining/entry.js'

/**
 * Speech, as users have it: the path of a sound file; a part of one, in seconds; samples with their rate, such as
 * `readAudio` gives; or samples [samples] at 16 kHz alone. null where nobody speaks.
 */
export type SpectraTurnAudio =
  | string
  | { path: string; start?: number; end?: number }
  | { samples: Float32Array | Tensor; sampleRate: number }
  | Float32Array
  | Tensor
  | null

/**
 * The samples at 16 kHz, one channel; null for no speech.
 * @throws ConfigError for what is no audio; DataError for files that cannot be read, empty clips, NaN and infinities
 */
export async function samplesOfTurn(where: string, audio: SpectraTurnAudio | undefined): Promise<Float32Array | null> {
  if (audio === null || audio === undefined) return null
  const samples = await noGrad(() => scope(() => read(where, audio)))
  if (samples.length === 0) {
    throw new DataError(`${where}: ${named(audio)} is empty; give null where nobody speaks`)
  }
  const bad = samples.findIndex((value) => !Number.isFinite(value))
  if (bad >= 0) throw new DataError(`${where}: sample ${bad} of ${named(audio)} is ${samples[bad]}`, { sample: bad })
  return samples
}

async function read(where: string, audio: NonNullable<SpectraTurnAudio>): Promise<Float32Array> {
  if (typeof audio === 'string') return read(where, { path: audio })
  if (audio instanceof Float32Array) return audio
  if (audio instanceof Tensor) return dataOf(where, audio)
  if (typeof audio !== 'object') throw misuse(where, 'audio', 'a path, samples or null', audio)
  if ('path' in audio) {
    const { path, start = 0, end } = audio
    if (typeof path !== 'string') throw misuse(where, 'audio.path', 'a path', path)
    requireNumber(where, 'audio.start', start, { least: 0 })
    if (end !== undefined) requireNumber(where, 'audio.end', end, { least: start })
    const part = { start, ...(end !== undefined && { duration: end - start }) }
    const { samples } = await readAudio(resolve(path), { sampleRate: SPECTRA_RATE, ...part })
    return dataOf(where, samples)
  }
  const { samples, sampleRate } = audio
  if (!(samples instanceof Float32Array || samples instanceof Tensor)) {
    throw misuse(where, 'audio', 'a path, samples or null', audio)
  }
  requireNumber(where, 'audio.sampleRate', sampleRate, { least: 1 })
  if (sampleRate === SPECTRA_RATE) return read(where, samples)
  const wave = samples instanceof Tensor ? checked(where, samples) : tensor(samples)
  return dataOf(where, await resample(wave, sampleRate, SPECTRA_RATE))
}

function checked(where: string, wave: Tensor): Tensor {
  if (wave.ndim === 1 && !wave.dtype.startsWith('complex')) return wave.detach().to({ dtype: 'float32', device: 'cpu' })
  throw new ConfigError(`${where}: audio must be [samples], one channel, not ${wave.dtype} [${wave.shape}]`)
}

/** A copy, so that it lives on when the tensor does not. */
const dataOf = async (where: string, wave: Tensor): Promise<Float32Array> =>
  Float32Array.from((await checked(where, wave).data()) as Float32Array)

function named(audio: SpectraTurnAudio): string {
  if (typeof audio === 'string') return audio
  if (typeof audio === 'object' && audio !== null && 'path' in audio) return audio.path
  return 'the audio'
}

/**
 * The parts of a clip that are heard at once, in samples [start, end): the whole; or windows of full length of which each
 * has at least half in common with the next, the first at the begin and the last at the end.
 */
export function windowsOf(length: number, longest: number): [start: number, end: number][] {
  if (length <= longest) return [[0, length]]
  const steps = Math.ceil((length - longest) / (longest / 2))
  return Array.from({ length: steps + 1 }, (_, i) => {
    const start = Math.round((i * (length - longest)) / steps)
    return [start, start + longest]
  })
}

/** @throws DataError for a clip that is too long where that shall be an error */
export function refuseLong(where: string, samples: Float32Array | null, longest: number, what: string): void {
  if (samples === null || samples.length <= longest) return
  const [seconds, most] = [samples.length / SPECTRA_RATE, longest / SPECTRA_RATE].map((value) => value.toFixed(2))
  throw new DataError(
    `${where}: ${what} is ${seconds} s long, more than ${shown(Number(most))} s; longAudio can cut it`,
  )
}
