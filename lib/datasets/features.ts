import { isAbsolute, relative, resolve } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { type ReadClipOptions, readClip } from '../audio/index.js'
import { requireObject } from '../base/check.js'
import { DataError } from '../base/errors.js'
import type { Tensor } from '../tensor/index.js'
import { type ReadImageOptions, readImage } from '../vision/index.js'

/** An audio clip or an image of a record, not decoded: the bytes of a file, or its path. Plain data that workers can send. */
export interface MediaFile {
  /** Contents of the file; null if `path` leads to it. */
  bytes: Uint8Array | null
  /** Path of the file, or with bytes its name; null if it has none. */
  path: string | null
}

/** Media of a column: `'audio'`, `'image'`, or those of the fields of a struct. Lists of them are the same. */
export type MediaFeature = 'audio' | 'image' | { readonly [field: string]: MediaFeature }

/** Media columns by name. */
export type MediaFeatures = { readonly [column: string]: MediaFeature }

/**
 * Decode an audio clip of a record.
 * @param audio value of an audio column, as a {@link StreamingDataset} yields it
 * @returns samples [n] at `options.sampleRate`, by default 16,000 Hz
 * @throws DataError that names the file, if it cannot be decoded
 */
export async function decodeAudio(audio: MediaFile, options?: ReadClipOptions): Promise<Tensor> {
  return decoded('decodeAudio', audio, (input) => readClip(input, options))
}

/**
 * Decode an image of a record.
 * @returns uint8 [height, width, 3]
 * @throws DataError that names the file, if it cannot be decoded
 */
export async function decodeImage(image: MediaFile, options?: ReadImageOptions): Promise<Tensor> {
  return decoded('decodeImage', image, (input) => readImage(input, options))
}

async function decoded<T>(
  where: string,
  media: MediaFile,
  read: (input: Uint8Array | string) => Promise<T>,
): Promise<T> {
  requireObject(where, 'the media', media)
  const { bytes, path } = media
  const input = bytes ?? path
  if (input === null || input === undefined) throw new DataError(`${where}: expected bytes or a path, got neither`)
  if (typeof input === 'string') return read(input)
  try {
    return await read(input)
  } catch (cause) {
    if (!(cause instanceof DataError) || path === null) throw cause
    throw new DataError(`${path}: ${cause.message}`, { ...cause, file: path, cause })
  }
}

/** Return the media of features as the front matter of a README.md states them: `dataset_info.features`. */
export function yamlFeatures(value: unknown): MediaFeatures {
  if (!Array.isArray(value)) return {}
  return fieldsOf(value.map((entry) => [(entry as { name?: unknown } | null)?.name, yamlFeature(entry)]))
}

function yamlFeature(value: unknown): MediaFeature | undefined {
  if (value === 'audio' || value === 'image') return value
  if (Array.isArray(value)) return nested(yamlFeatures(value))
  if (typeof value !== 'object' || value === null) return undefined
  const entry = value as Record<string, unknown>
  if ('audio' in entry) return 'audio'
  if ('image' in entry) return 'image'
  return yamlFeature(entry.dtype ?? entry.struct ?? entry.list ?? entry.sequence)
}

/** Return the media of features as JSON in a Parquet file states them: `huggingface.info.features`. */
export function jsonFeatures(value: unknown): MediaFeatures {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return {}
  return fieldsOf(Object.entries(value).map(([name, feature]) => [name, jsonFeature(feature)]))
}

function jsonFeature(value: unknown): MediaFeature | undefined {
  if (Array.isArray(value)) return jsonFeature(value[0])
  if (typeof value !== 'object' || value === null) return undefined
  const { _type: type, feature } = value as Record<string, unknown>
  if (type === 'Audio') return 'audio'
  if (type === 'Image') return 'image'
  return typeof type === 'string' ? jsonFeature(feature) : nested(jsonFeatures(value))
}

function fieldsOf(entries: [unknown, MediaFeature | undefined][]): MediaFeatures {
  return Object.fromEntries(
    entries.filter((entry): entry is [string, MediaFeature] => typeof entry[0] === 'string' && entry[1] !== undefined),
  )
}

const nested = (fields: MediaFeatures): MediaFeature | undefined => (isDeepStrictEqual(fields, {}) ? undefined : fields)

/**
 * Return a column's value with its media as {@link MediaFile}s. Paths are resolved from `root`, which they must not leave.
 * Throws an Error that names the column and says what is wrong.
 */
export function withMedia(feature: MediaFeature, value: unknown, root: string, column: string): unknown {
  if (value === null || value === undefined) return null
  if (Array.isArray(value)) return value.map((item, i) => withMedia(feature, item, root, `${column}[${i}]`))
  if (feature === 'audio' || feature === 'image') return mediaFile(value, root, column)
  if (typeof value !== 'object') throw new MediaError(column, `expected an object, got a ${typeof value}`)
  const prototype = Object.getPrototypeOf(value) as object | null
  if (prototype !== null && prototype !== Object.prototype) {
    throw new MediaError(column, `expected an object with fields, got a ${prototype.constructor?.name}`)
  }
  const record = { ...value } as Record<string, unknown>
  for (const [name, inner] of Object.entries(feature)) {
    if (Object.hasOwn(record, name)) record[name] = withMedia(inner, record[name], root, `${column}.${name}`)
  }
  return record
}

/** Error of a media value in a column. */
export class MediaError extends Error {
  constructor(
    readonly column: string,
    readonly what: string,
  ) {
    super(`column '${column}': ${what}`)
  }
}

function mediaFile(value: unknown, root: string, column: string): MediaFile {
  if (typeof value === 'string') return mediaFile({ bytes: null, path: value }, root, column)
  if (value instanceof Uint8Array) return { bytes: value, path: null }
  const { bytes = null, path = null } = value as { bytes?: unknown; path?: unknown }
  if (bytes !== null && !(bytes instanceof Uint8Array))
    throw new MediaError(column, 'expected bytes, got another value')
  if (path !== null && typeof path !== 'string') throw new MediaError(column, 'expected a path, got another value')
  if (bytes !== null) return { bytes, path }
  if (path === null) throw new MediaError(column, 'expected bytes or a path, got neither')
  const full = resolve(root, path)
  const below = relative(root, full)
  if (path.includes('\0') || /^[a-z][a-z0-9+.-]+:\/\//i.test(path)) {
    throw new MediaError(column, `expected the path of a file, got ${JSON.stringify(path.slice(0, 100))}`)
  }
  if (below === '' || below === '..' || below.startsWith('../') || below.startsWith('..\\') || isAbsolute(below)) {
    throw new MediaError(
      column,
      `${JSON.stringify(path.slice(0, 100))} leads out of the dataset's folder ${root}. Set mediaRoot`,
    )
  }
  return { bytes: null, path: full }
}
