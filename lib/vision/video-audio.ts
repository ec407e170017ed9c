import { extname } from 'node:path'
import type { AudioClip } from '../audio/clip.js'
import { sniffAudio } from '../audio/sniff.js'
import { requireNumber, requireOptions, requireSignal } from '../base/check.js'
import { DataError } from '../base/errors.js'
import { FileSource } from '../files/byte-source.js'
import { openVideo } from './video.js'

/** File extensions of videos. */
export const VIDEO_EXTENSIONS: readonly string[] = ['.mp4', '.m4v', '.mkv', '.webm', '.mov', '.avi']
/** Video formats whose audio can be read without npm's node-av. */
const READABLE_WITHOUT_NODE_AV = ['.mp4', '.m4v', '.mov', '.webm', '.mkv']

/** Whether a file name has the extension of a video. */
export const isVideoFile = (path: string): boolean => VIDEO_EXTENSIONS.includes(extname(path).toLowerCase())

/**
 * Return a clip for `readClip` and `openClip`. For a video file it is the decoded audio track, float32 [channels, samples] at
 * the file's sample rate, read with npm's `node-av`; other inputs are returned unchanged. Without node-av, MP4, WebM and
 * Matroska files are returned unchanged too, because `readAudio` supports them: AAC in MP4 with npm's `@audio/decode-aac`, and
 * Opus, Vorbis, FLAC, MP3 and PCM in the others.
 *
 * ```ts
 * const samples = await readClip(await videoAudio({ path: 'talk.mkv', start: 2, end: 5 }))
 * ```
 * @param options `maxSeconds`: upper bound on the duration that is read
 * @throws ConfigError for invalid options; DataError with `file` for a video without audio, audio that cannot be decoded, and
 *   a format that needs node-av when it is not installed; the reason of `signal` when it is aborted
 */
export async function videoAudio(
  clip: AudioClip,
  options: { maxSeconds?: number; signal?: AbortSignal | undefined } = {},
): Promise<AudioClip> {
  const where = 'videoAudio'
  requireOptions(where, options, ['maxSeconds', 'signal'])
  const { maxSeconds, signal } = options
  if (maxSeconds !== undefined) requireNumber(where, 'maxSeconds', maxSeconds, { least: 0 })
  requireSignal(where, signal)
  const place = typeof clip === 'string' ? { path: clip } : clip
  if (typeof place !== 'object' || place === null || !('path' in place)) return clip
  const { path, start = 0, end }: { path: string; start?: number | undefined; end?: number | undefined } = place
  if (typeof path !== 'string' || !isVideoFile(path)) return clip
  const duration = Math.min(maxSeconds ?? Number.POSITIVE_INFINITY, (end ?? Number.POSITIVE_INFINITY) - start)
  try {
    await using video = await openVideo(path, { ...(signal && { signal }), threads: 1 })
    const part = { start, ...(duration < Number.POSITIVE_INFINITY && { duration: Math.max(0, duration) }) }
    return await video.audio({ channels: 'all', ...part, ...(signal && { signal }) })
  } catch (error) {
    if (!(error instanceof DataError)) throw error
    const { missing, reason } = error as { missing?: string; reason?: string }
    // Audio-only files in a video container, and audio files with a video's extension, are read as audio files.
    if (reason === 'no video' || (reason === 'unknown' && (await isAudioFile(path)))) return clip
    if (missing !== undefined && READABLE_WITHOUT_NODE_AV.includes(extname(path).toLowerCase())) return clip
    throw error
  }
}

/** Whether the first bytes of a file are those of an audio-only format. */
async function isAudioFile(path: string): Promise<boolean> {
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
