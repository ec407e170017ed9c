import { extname } from 'node:path'
import type { AudioClip } from '../audio/clip.js'
import { sniffAudio } from '../audio/sniff.js'
import { requireNumber, requireOptions, requireSignal } from '../base/check.js'
import { DataError } from '../base/errors.js'
import { FileSource } from '../files/byte-source.js'
import { openVideo } from './video.js'

/** How the names of films end. */
export const FILM_ENDINGS: readonly string[] = ['.mp4', '.m4v', '.mkv', '.webm', '.mov', '.avi']
/** Those whose sound may be read without npm's node-av. */
const READ_ALONE = ['.mp4', '.m4v', '.mov', '.webm', '.mkv']

/** Whether a file's name is that of a film. */
export const isFilm = (path: string): boolean => FILM_ENDINGS.includes(extname(path).toLowerCase())

/**
 * A clip as `readClip` and `openClip` take it: of a film its sound, float32 [channels, samples] at its own rate, by npm's
 * `node-av`; everything else as it is. Without node-av an MP4, WebM or Matroska file goes on to `readAudio`, which reads AAC in an
 * MP4 where npm's `@audio/decode-aac` is there, and Opus, Vorbis, FLAC, MP3 and PCM in the others.
 *
 * ```ts
 * const samples = await readClip(await filmSound({ path: 'talk.mkv', start: 2, end: 5 }))
 * ```
 * @param options `maxSeconds`: no more of it is read
 * @throws ConfigError for options that are none; DataError with `file` for a film without sound or with one that cannot be decoded, and where it takes node-av and
 *   that is missing; the reason of `signal` when it is aborted
 */
export async function filmSound(
  clip: AudioClip,
  options: { maxSeconds?: number; signal?: AbortSignal | undefined } = {},
): Promise<AudioClip> {
  const where = 'filmSound'
  requireOptions(where, options, ['maxSeconds', 'signal'])
  const { maxSeconds, signal } = options
  if (maxSeconds !== undefined) requireNumber(where, 'maxSeconds', maxSeconds, { least: 0 })
  requireSignal(where, signal)
  const place = typeof clip === 'string' ? { path: clip } : clip
  if (typeof place !== 'object' || place === null || !('path' in place)) return clip
  const { path, start = 0, end }: { path: string; start?: number | undefined; end?: number | undefined } = place
  if (typeof path !== 'string' || !isFilm(path)) return clip
  const duration = Math.min(maxSeconds ?? Number.POSITIVE_INFINITY, (end ?? Number.POSITIVE_INFINITY) - start)
  try {
    await using video = await openVideo(path, { ...(signal && { signal }), threads: 1 })
    const part = { start, ...(duration < Number.POSITIVE_INFINITY && { duration: Math.max(0, duration) }) }
    return await video.audio({ channels: 'all', ...part, ...(signal && { signal }) })
  } catch (error) {
    if (!(error instanceof DataError)) throw error
    const { missing, reason } = error as { missing?: string; reason?: string }
    // Sound alone in a film's container, and what is no film but is called one, is read as any sound file is.
    if (reason === 'no video' || (reason === 'unknown' && (await isSoundFile(path)))) return clip
    if (missing !== undefined && READ_ALONE.includes(extname(path).toLowerCase())) return clip
    throw error
  }
}

/** Whether a file's first bytes are of a format of sound alone. */
async function isSoundFile(path: string): Promise<boolean> {
  const source = await FileSource.open(path)
  try {
    return (await sniffAudio(source)).format !== 'm4a'
  } catch (error) {
    if (error instanceof DataError) return false
    throw error
  } finally {
    await source.close()
  }
}
