import type { AudioClip } from '../audio/clip.js'
import { isList } from '../base/check.js'
import { DataError } from '../base/errors.js'
import { MediaError, type MediaFile, withMedia } from '../datasets/features.js'
import type { ImageInput } from '../vision/image.js'

/** A clip or an image, as `readClip` and `readImage` take them. */
export type MediaValue = AudioClip | ImageInput

/**
 * Return the clip or image of a record: a path, bytes, or samples as Python's datasets decode them, `{ array, sampling_rate }`.
 * @param root folder that paths are relative to and must stay in; undefined for records in memory, whose clips are as given
 * @param name place of the clip, for errors
 */
export function mediaOf(type: 'audio' | 'image', value: unknown, root: string | undefined, name: string): MediaValue {
  const isObject = typeof value === 'object' && value !== null
  const { array, sampling_rate: rate } = (isObject ? value : {}) as { array?: unknown; sampling_rate?: unknown }
  if (type === 'audio' && array !== undefined && array !== null) {
    const samples = array instanceof Float32Array ? array : isList(array) ? Float32Array.from(array, Number) : null
    if (samples !== null && Number.isSafeInteger(rate) && (rate as number) > 0) {
      return { samples, sampleRate: rate as number }
    }
    throw new DataError(`${name}: expected array, a list of samples, with an integer sampling_rate, got others.`)
  }
  const isMedia = isObject && 'bytes' in value && value.bytes !== null
  if (root === undefined && !isMedia && value !== undefined && value !== null) return value as MediaValue
  try {
    const { bytes, path } = (withMedia(type, value ?? {}, root ?? '', name) ?? {}) as MediaFile
    return (bytes ?? path) as Uint8Array | string
  } catch (error) {
    if (error instanceof MediaError) throw new DataError(`${name}: ${error.what}.`)
    throw error
  }
}

/** Return the clip of a record. */
export const clipOf = (value: unknown, root: string | undefined, name: string): AudioClip =>
  mediaOf('audio', value, root, name) as AudioClip
