import { argumentError, defined, requireNumber, requireWhole } from '../base/check.js'
import { ConfigError, DataError, type VoxtorchError } from '../base/errors.js'
import { type ChangesOf, checkedBy, SIGNAL, settings, unchecked } from '../base/settings.js'
import { readNpy } from '../files/npy/npy.js'
import { type Device, ops, scope, Tensor, tensor, zeros } from '../tensor/index.js'
import { upload } from '../tensor/upload.js'
import type { Channels } from './channels.js'
import { type Audio, readAudio } from './read.js'
import { RESAMPLE_QUALITIES, resample } from './resample.js'
import type { AudioInput } from './sniff.js'
import { AudioSource } from './source.js'
import {
  clipWindows,
  FIT_SETTINGS,
  type FitOptions,
  keptLength,
  LONG_AUDIO,
  type LongAudio,
  SPEECH_RATE,
} from './speech.js'

export { clipWindows, type FitOptions, LONG_AUDIO, type LongAudio, SPEECH_RATE }

/**
 * An audio clip: the path of an audio file, or a part of one in seconds; the bytes of a file; samples with their sample rate, as
 * `readAudio` returns; or samples [n]. A `.npy` file contains samples [n].
 */
export type AudioClip =
  | AudioInput
  | { path: string; start?: number | undefined; end?: number | undefined }
  | { samples: Tensor | Float32Array; sampleRate: number }
  | Tensor
  | Float32Array

const SETTINGS = settings({
  /** Sample rate of the result in Hz. Default 16,000; null keeps the clip's rate. Samples [n] must have this rate. */
  sampleRate: { type: 'integer', min: 1, nullable: true },
  /** Resampling method. Default 'sinc'. */
  quality: { type: RESAMPLE_QUALITIES },
  /** Channel to use: the mean of all (default), or an index. */
  channels: {
    type: checkedBy<'mean' | number>((where, name, value) => {
      if (value !== 'mean') requireWhole(where, name, value)
    }),
  },
  ...FIT_SETTINGS.table,
  /** Upper bound on the seconds that are read of a file. Default: none. */
  maxSeconds: { type: 'number', infinite: true },
  /** Limit on decoded bytes, as in `readAudio`. */
  maxBytes: { type: unchecked<number>() },
  /** Whether a WAV file may have fewer samples than its header declares, as in `readAudio`. */
  allowTruncated: { type: unchecked<boolean>() },
  /** Whether a clip may have no samples. Default false. */
  allowEmpty: { type: 'boolean' },
  /** Aborts reading a file. */
  signal: { type: SIGNAL },
})

/** Options of {@link readClip}. @interface */
export type ReadClipOptions = ChangesOf<typeof SETTINGS.table>

/** A decoded clip. */
export interface ReadClip {
  /** float32 [n] */
  samples: Tensor
  sampleRate: number
  /** Format of the audio file; null for samples. */
  source: Audio['source'] | null
  /** Number of samples that `longAudio: 'cut'` dropped. */
  lost: number
}

/** Caller and name of a clip, for error messages. */
export interface ClipPlace {
  where: string
  /** Prefix of messages about the samples. Default: `where`, and the file's path or 'the audio'. */
  subject?: string | undefined
  /** Name of the argument. Default 'audio'. */
  argument?: string | undefined
  /** Error class for clips with invalid samples. Default DataError. */
  Fault?: new (
    message: string,
    fields: Record<string, unknown>,
  ) => VoxtorchError
}

/**
 * Read a clip as float32 samples [n] of one channel, at 16 kHz. Samples stay on the device of the input, and share its memory if
 * no conversion is needed.
 *
 * ```ts
 * const samples = await readClip('call.mp3', { longAudio: 'cut', mostSamples: 10 * 16_000 })
 * ```
 *
 * @throws ConfigError for a value that is not a clip; DataError naming the file for a clip that cannot be read, has no samples,
 *   contains NaN or infinities, or is too long with `longAudio: 'error'`
 */
export async function readClip(clip: AudioClip, options: ReadClipOptions = {}): Promise<Tensor> {
  return (await openClip({ where: 'readClip' }, clip, options)).samples
}

/** Read a clip as {@link readClip}, with the format of the file. @param place caller and name of the clip, for errors */
export async function openClip(place: ClipPlace, clip: AudioClip, options: ReadClipOptions = {}): Promise<ReadClip> {
  const { where } = place
  SETTINGS.read(where, options)
  return scope(async () => {
    const decoded = await read(place, clip, options)
    const { Fault = DataError, subject = `${where}: ${fileOf(clip).file ?? 'the audio'}` } = place
    const fields = { argument: place.argument ?? 'audio', ...fileOf(clip) }
    const fault = (what: string, more: object = {}) => new Fault(`${subject} ${what}`, { ...fields, ...more })
    const { samples, sampleRate } = decoded
    if (samples.size(0) === 0 && !options.allowEmpty) throw fault('has no samples', { reason: 'no sound' }) // language: published field value
    const bad = firstBad(samples)
    if (bad !== undefined) throw fault(`contains NaN or infinities, the first at sample ${bad}`, { sample: bad })
    return { ...decoded, ...sized(samples, options, sampleRate, fault) }
  })
}

type Decoded = Omit<ReadClip, 'lost'>

async function read(place: ClipPlace, clip: AudioClip, options: ReadClipOptions): Promise<Decoded> {
  const { where, argument = 'audio' } = place
  const { sampleRate: wanted = SPEECH_RATE } = options
  if (typeof clip === 'string' || clip instanceof Uint8Array || clip instanceof ArrayBuffer) {
    return readFile(place, clip, {}, options)
  }
  if (clip instanceof Tensor || clip instanceof Float32Array) {
    const alone = clip instanceof Tensor ? clip : tensor(clip, { device: 'cpu' })
    if (alone.ndim !== 1) throw wrongShape(where, argument, '[samples], one channel', alone)
    return { samples: floats(where, argument, alone), sampleRate: wanted ?? SPEECH_RATE, source: null }
  }
  if (typeof clip !== 'object' || clip === null) throw noClip(where, argument, clip)
  if ('path' in clip) {
    const { path, start = 0, end } = clip
    if (typeof path !== 'string') throw argumentError(where, `${argument}.path`, 'a path', path)
    requireNumber(where, `${argument}.start`, start, { least: 0, below: Number.POSITIVE_INFINITY })
    if (end !== undefined) requireNumber(where, `${argument}.end`, end, { least: start })
    return readFile(place, path, { start, end }, options)
  }
  const { samples, sampleRate } = clip
  if (!(samples instanceof Tensor || samples instanceof Float32Array)) throw noClip(where, argument, clip)
  requireWhole(where, `${argument}.sampleRate`, sampleRate, 1)
  const all = samples instanceof Tensor ? samples : tensor(samples, { device: 'cpu' })
  if (all.ndim !== 1 && all.ndim !== 2) {
    throw wrongShape(where, `${argument}.samples`, '[samples] or [channels, samples]', all)
  }
  const mono = oneChannel(where, floats(where, `${argument}.samples`, all), options.channels ?? 'mean')
  const rate = wanted ?? sampleRate
  return {
    samples: rate === sampleRate ? mono : await resample(mono, sampleRate, rate, defined({ quality: options.quality })),
    sampleRate: rate,
    source: null,
  }
}

async function readFile(
  { where, argument = 'audio' }: ClipPlace,
  input: AudioInput,
  { start = 0, end }: { start?: number; end?: number | undefined },
  {
    sampleRate = SPEECH_RATE,
    quality,
    channels = 'mean',
    maxSeconds,
    maxBytes,
    allowTruncated,
    signal,
  }: ReadClipOptions,
): Promise<Decoded> {
  const duration = Math.min(
    maxSeconds ?? Number.POSITIVE_INFINITY,
    end === undefined ? Number.POSITIVE_INFINITY : end - start,
  )
  if (typeof input === 'string' && /\.npy$/i.test(input)) {
    const rate = sampleRate ?? SPEECH_RATE
    return {
      samples: await readArray(where, argument, input, start * rate, duration * rate),
      sampleRate: rate,
      source: null,
    }
  }
  const audio = await readAudio(input, {
    channels: channels as Channels,
    start,
    ...(sampleRate !== null && { sampleRate }),
    ...(duration < Number.POSITIVE_INFINITY && { duration }),
    ...defined({ quality, maxBytes, allowTruncated, signal }),
  })
  return audio
}

/** Read `count` samples of a .npy file from `start`. */
async function readArray(where: string, argument: string, file: string, start: number, count: number): Promise<Tensor> {
  const value = await readNpy(file)
  if (!(value instanceof Tensor) || value.ndim !== 1 || value.dtype.startsWith('complex')) {
    const got = value instanceof Tensor ? `${value.dtype} [${value.shape}]` : 'strings'
    throw new DataError(`${file}: expected real samples [n], got ${got}. Save the clip as a 1-dimensional array.`, {
      file,
    })
  }
  const from = Math.min(value.size(0), Math.round(start))
  const to = Math.min(value.size(0), count === Number.POSITIVE_INFINITY ? count : Math.round(start + count))
  return floats(where, argument, value.narrow(0, from, Math.max(0, to - from)))
}

function oneChannel(where: string, samples: Tensor, channels: 'mean' | number): Tensor {
  if (samples.ndim === 1) return samples
  if (channels === 'mean') return samples.mean(0)
  if (channels < samples.size(0)) return samples.select(0, channels)
  const count = samples.size(0)
  throw new ConfigError(`${where}: channels: expected an index from 0 to ${count - 1}, got ${channels}.`, { channels })
}

/** Return a new handle of samples as float32. */
function floats(where: string, argument: string, samples: Tensor): Tensor {
  if (samples.dtype.startsWith('complex') || samples.dtype === 'bool') {
    throw wrongShape(where, argument, 'samples from -1 to 1', samples)
  }
  return samples.dtype === 'float32' ? samples.view(samples.shape) : samples.to({ dtype: 'float32' })
}

const noClip = (where: string, argument: string, clip: unknown): ConfigError =>
  argumentError(where, argument, 'a path, the bytes of a file, samples [n], or samples with their rate', clip)

const wrongShape = (where: string, argument: string, expected: string, { dtype, shape }: Tensor): ConfigError =>
  new ConfigError(`${where}: ${argument}: expected ${expected}, got ${dtype} [${shape.join(', ')}]`, {
    argument,
    shape,
  })

/** Return the index of the first NaN or infinite sample. */
function firstBad(samples: Tensor): number | undefined {
  if (samples.size(0) === 0) return undefined
  return scope(() => {
    // One pass for the usual case. A finite sum proves that all samples are finite; an infinite one can be an overflow.
    if (Number.isFinite(samples.sum().item())) return undefined
    const finite = samples.isfinite()
    if (finite.all().item<boolean>()) return undefined
    return Number(finite.logicalNot().to({ dtype: 'uint8' }).argmax().item())
  })
}

const fileOf = (clip: AudioClip): { file?: string } => {
  const path = typeof clip === 'object' && clip !== null && 'path' in clip ? clip.path : clip
  return typeof path === 'string' ? { file: path } : {}
}

/**
 * Cut or pad samples [n] to the lengths that `options` allow.
 * @returns `lost`: number of samples that were dropped
 * @throws DataError for a clip that is too long, with `longAudio: 'error'`
 */
export function fitSamples(samples: Tensor, options: FitOptions = {}): { samples: Tensor; lost: number } {
  return sized(samples, options, SPEECH_RATE, audioFault)
}

const audioFault = (what: string, fields: object) => new DataError(`the audio ${what}`, { ...fields })

/** Return how many of `length` samples at 16 kHz are kept, and how many zeros follow. @throws as {@link fitSamples} */
export const fitLength = (length: number, options: FitOptions): { kept: number; silence: number } =>
  keptLength(length, options, SPEECH_RATE, audioFault)

function sized(
  samples: Tensor,
  options: FitOptions,
  rate: number,
  fault: (what: string, fields: object) => VoxtorchError,
): { samples: Tensor; lost: number } {
  const { kept, silence } = keptLength(samples.size(0), options, rate, fault)
  const lost = samples.size(0) - kept
  if (lost > 0) return { samples: samples.narrow(0, 0, kept), lost }
  if (silence === 0) return { samples, lost }
  return { samples: scope(() => ops.cat([samples, samples.newZeros([silence])])), lost }
}

/**
 * Read the duration of an audio file from its header, in seconds; undefined if the header does not state it.
 * @param input a path, or the bytes of a file
 * @throws DataError for a missing file, or one that is not audio
 */
export async function clipSeconds(input: AudioInput): Promise<number | undefined> {
  const source = await AudioSource.open('clipSeconds', input)
  try {
    return source.frames === undefined ? undefined : source.frames / source.sampleRate
  } finally {
    await source.close()
  }
}

/**
 * Stack samples [n] to a batch, float32 [rows, length], padded with zeros at the end. Null rows are silent.
 * @param length length of each row; longer clips are cut
 */
export function stackSamples(rows: readonly (Tensor | null)[], length: number, device?: Device): Tensor {
  return scope(() => {
    const place = device ?? rows.find((row) => row !== null)?.device ?? 'cpu'
    // One asynchronous copy to the device instead of one per row.
    const onHost = rows.some((row) => row !== null) && rows.every((row) => row === null || row.device === 'cpu')
    const batch = zeros([rows.length, length], { device: onHost ? 'cpu' : place, dtype: 'float32' })
    for (const [i, row] of rows.entries()) {
      const count = Math.min(length, row?.size(0) ?? 0)
      if (row === null || count === 0) continue
      batch
        .select(0, i)
        .narrow(0, 0, count)
        .copy_(row.narrow(0, 0, count))
    }
    return upload(batch, place)
  })
}
