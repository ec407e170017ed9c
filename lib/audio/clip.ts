import {
  defined,
  misuse,
  requireNumber,
  requireOneOf,
  requireOptions,
  requireSignal,
  requireWhole,
} from '../base/check.js'
import { ConfigError, DataError, type VoxtorchError } from '../base/errors.js'
import { readNpy } from '../files/npy/npy.js'
import { type Device, ops, scope, Tensor, tensor, zeros } from '../tensor/index.js'
import { upload } from '../tensor/upload.js'
import type { Channels } from './channels.js'
import { type Audio, readAudio } from './read.js'
import { RESAMPLE_QUALITIES, type ResampleQuality, resample } from './resample.js'
import type { AudioInput } from './sniff.js'
import { AudioSource } from './source.js'
import { clipWindows, type FitOptions, keptLength, LONG_AUDIO, type LongAudio, SPEECH_RATE } from './speech.js'

export { clipWindows, type FitOptions, LONG_AUDIO, type LongAudio, SPEECH_RATE }

/**
 * Speech, as callers have it: a sound file, or a part of one in seconds; the bytes of a file; samples with their rate, such
 * as `readAudio` gives; or samples [n] alone. A file whose name ends in `.npy` holds samples [n] alone.
 */
export type AudioClip =
  | AudioInput
  | { path: string; start?: number | undefined; end?: number | undefined }
  | { samples: Tensor | Float32Array; sampleRate: number }
  | Tensor
  | Float32Array

export interface ReadClipOptions extends FitOptions {
  /** In Hz. Default {@link SPEECH_RATE}; null leaves a clip at its own. Samples alone are at this rate already. */
  sampleRate?: number | null | undefined
  /** How a clip of another rate is resampled. Default 'sinc'. */
  quality?: ResampleQuality | undefined
  /** Of several: their mean (default), or one by its number. */
  channels?: 'mean' | number | undefined
  /** No more of a file is read than these. Default: all of it. */
  maxSeconds?: number | undefined
  /** As `readAudio` has it. */
  maxBytes?: number | undefined
  /** As `readAudio` has it: whether a WAV may have fewer samples than its header promises. */
  allowTruncated?: boolean | undefined
  /** Whether a clip may have no samples. Default false. */
  allowEmpty?: boolean | undefined
  /** Ends the reading of a file. */
  signal?: AbortSignal | undefined
}

/** Of a clip that was read. */
export interface ReadClip {
  /** float32 [n] */
  samples: Tensor
  sampleRate: number
  /** What a sound file has; null for what was none. */
  source: Audio['source'] | null
  /** Samples that `longAudio: 'cut'` left out. */
  lost: number
}

/** Who reads which clip, for messages. */
export interface ClipPlace {
  where: string
  /** What a message about its sound begins with. Default: `where`, and the file's path or 'the audio'. */
  subject?: string | undefined
  /** The argument that the clip was. Default 'audio'. */
  argument?: string | undefined
  /** Of a clip that has no sound in it. Default DataError. */
  Fault?: new (
    message: string,
    fields: Record<string, unknown>,
  ) => VoxtorchError
}

const OPTIONS: readonly (keyof ReadClipOptions)[] = [
  'sampleRate',
  'quality',
  'channels',
  'leastSamples',
  'mostSamples',
  'longAudio',
  'maxSeconds',
  'maxBytes',
  'allowTruncated',
  'allowEmpty',
  'signal',
]

/**
 * The samples of a clip, float32 [n] of one channel, at 16 kHz. They stay on the device of those given, and share their
 * memory where nothing has to be changed.
 *
 * ```ts
 * const samples = await readClip('call.mp3', { longAudio: 'cut', mostSamples: 10 * SPEECH_RATE })
 * ```
 *
 * @throws ConfigError for what is no clip; DataError naming the file for one that cannot be read, has no samples, holds NaN or
 * infinities, or is too long with `longAudio: 'error'`
 */
export async function readClip(clip: AudioClip, options: ReadClipOptions = {}): Promise<Tensor> {
  return (await openClip({ where: 'readClip' }, clip, options)).samples
}

/** {@link readClip} for one who says whose clip it is, with what the file told. */
export async function openClip(place: ClipPlace, clip: AudioClip, options: ReadClipOptions = {}): Promise<ReadClip> {
  const { where } = place
  checkOptions(where, options)
  return scope(async () => {
    const found = await read(place, clip, options)
    const { Fault = DataError, subject = `${where}: ${fileOf(clip).file ?? 'the audio'}` } = place
    const fields = { argument: place.argument ?? 'audio', ...fileOf(clip) }
    const fault = (what: string, more: object = {}) => new Fault(`${subject} ${what}`, { ...fields, ...more })
    const { samples, sampleRate } = found
    if (samples.size(0) === 0 && !options.allowEmpty) throw fault('holds no sound', { reason: 'no sound' })
    const bad = firstBad(samples)
    if (bad !== undefined) throw fault(`holds NaN or infinities, the first at sample ${bad}`, { sample: bad })
    return { ...found, ...sized(samples, options, sampleRate, fault) }
  })
}

function checkOptions(where: string, options: ReadClipOptions): void {
  requireOptions(where, options, OPTIONS)
  const { sampleRate, quality, channels, longAudio, maxSeconds, allowEmpty, signal } = options
  if (sampleRate !== undefined && sampleRate !== null) requireWhole(where, 'sampleRate', sampleRate, 1)
  if (quality !== undefined) requireOneOf(where, 'quality', quality, RESAMPLE_QUALITIES)
  if (channels !== undefined && channels !== 'mean') requireWhole(where, 'channels', channels)
  for (const name of ['leastSamples', 'mostSamples'] as const) {
    if (options[name] !== undefined) requireWhole(where, name, options[name])
  }
  if (longAudio !== undefined) requireOneOf(where, 'longAudio', longAudio, LONG_AUDIO)
  if (maxSeconds !== undefined) requireNumber(where, 'maxSeconds', maxSeconds, { least: 0 })
  if (allowEmpty !== undefined && typeof allowEmpty !== 'boolean')
    throw misuse(where, 'allowEmpty', 'a boolean', allowEmpty)
  requireSignal(where, signal)
}

type Found = Omit<ReadClip, 'lost'>

async function read(place: ClipPlace, clip: AudioClip, options: ReadClipOptions): Promise<Found> {
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
    if (typeof path !== 'string') throw misuse(where, `${argument}.path`, 'a path', path)
    requireNumber(where, `${argument}.start`, start, { least: 0, below: Number.POSITIVE_INFINITY })
    if (end !== undefined) requireNumber(where, `${argument}.end`, end, { least: start })
    return readFile(place, path, { start, end }, options)
  }
  const { samples: given, sampleRate } = clip
  if (!(given instanceof Tensor || given instanceof Float32Array)) throw noClip(where, argument, clip)
  requireWhole(where, `${argument}.sampleRate`, sampleRate, 1)
  const all = given instanceof Tensor ? given : tensor(given, { device: 'cpu' })
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
): Promise<Found> {
  const asked = Math.min(
    maxSeconds ?? Number.POSITIVE_INFINITY,
    end === undefined ? Number.POSITIVE_INFINITY : end - start,
  )
  if (typeof input === 'string' && /\.npy$/i.test(input)) {
    const rate = sampleRate ?? SPEECH_RATE
    return {
      samples: await readArray(where, argument, input, start * rate, asked * rate),
      sampleRate: rate,
      source: null,
    }
  }
  const audio = await readAudio(input, {
    channels: channels as Channels,
    start,
    ...(sampleRate !== null && { sampleRate }),
    ...(asked < Number.POSITIVE_INFINITY && { duration: asked }),
    ...defined({ quality, maxBytes, allowTruncated, signal }),
  })
  return audio
}

/** Samples of a .npy file, from one to before another. */
async function readArray(where: string, argument: string, file: string, start: number, asked: number): Promise<Tensor> {
  const value = await readNpy(file)
  if (!(value instanceof Tensor) || value.ndim !== 1 || value.dtype.startsWith('complex')) {
    const found = value instanceof Tensor ? `${value.dtype} [${value.shape}]` : 'texts'
    throw new DataError(`${file} holds ${found}, not the samples of a clip: save them as [samples]`, { file })
  }
  const from = Math.min(value.size(0), Math.round(start))
  const to = Math.min(value.size(0), asked === Number.POSITIVE_INFINITY ? asked : Math.round(start + asked))
  return floats(where, argument, value.narrow(0, from, Math.max(0, to - from)))
}

function oneChannel(where: string, samples: Tensor, channels: 'mean' | number): Tensor {
  if (samples.ndim === 1) return samples
  if (channels === 'mean') return samples.mean(0)
  if (channels < samples.size(0)) return samples.select(0, channels)
  throw new ConfigError(`${where}: channel ${channels} was asked for, the audio has ${samples.size(0)}`, { channels })
}

/** As float32, in a handle of its own. */
function floats(where: string, argument: string, samples: Tensor): Tensor {
  if (samples.dtype.startsWith('complex') || samples.dtype === 'bool') {
    throw wrongShape(where, argument, 'samples from -1 to 1', samples)
  }
  return samples.dtype === 'float32' ? samples.view(samples.shape) : samples.to({ dtype: 'float32' })
}

const noClip = (where: string, argument: string, clip: unknown): ConfigError =>
  misuse(where, argument, 'a path, the bytes of a file, samples [n], or samples with their rate', clip)

const wrongShape = (where: string, argument: string, expected: string, { dtype, shape }: Tensor): ConfigError =>
  new ConfigError(`${where}: ${argument} must be ${expected}, not ${dtype} [${shape.join(', ')}]`, { argument, shape })

/** Where samples are no numbers for the first time. */
function firstBad(samples: Tensor): number | undefined {
  if (samples.size(0) === 0) return undefined
  return scope(() => {
    // A sum is one pass, and is finite only where all are; that it overflows proves nothing.
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
 * Samples [n] of the length that is wanted.
 * @returns `lost`: samples that were cut off
 * @throws DataError for a clip that is too long, with `longAudio: 'error'`
 */
export function fitSamples(samples: Tensor, options: FitOptions = {}): { samples: Tensor; lost: number } {
  return sized(samples, options, SPEECH_RATE, audioFault)
}

const audioFault = (what: string, fields: object) => new DataError(`the audio ${what}`, { ...fields })

/** What becomes of so many samples at 16 kHz: how many are kept, and how many of silence follow. @throws as {@link fitSamples} */
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
 * How long a sound file is, in seconds, by its header alone; undefined where that does not tell.
 * @param input a path, or the bytes of a file
 * @throws DataError where there is no such file or it is no sound
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
 * Samples [n] as one batch, float32 [rows, length], each from the beginning of its row and with zeros behind: the values go
 * from tensor to tensor. Rows that are null are silent.
 * @param length of each row; a longer clip loses its end
 */
export function stackSamples(rows: readonly (Tensor | null)[], length: number, device?: Device): Tensor {
  return scope(() => {
    const place = device ?? rows.find((row) => row !== null)?.device ?? 'cpu'
    // One copy to a device, which nobody waits for, in place of one for each.
    const onHost = rows.some((row) => row !== null) && rows.every((row) => row === null || row.device === 'cpu')
    const batch = zeros([rows.length, length], { device: onHost ? 'cpu' : place, dtype: 'float32' })
    for (const [i, row] of rows.entries()) {
      const own = Math.min(length, row?.size(0) ?? 0)
      if (row === null || own === 0) continue
      batch
        .select(0, i)
        .narrow(0, 0, own)
        .copy_(row.narrow(0, 0, own))
    }
    return upload(batch, place)
  })
}
