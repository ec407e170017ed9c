import { existsSync, readdirSync, statSync } from 'node:fs'
import { basename, extname, join } from 'node:path'
import { argumentError, shown } from '../../base/check.js'
import { DataError } from '../../base/errors.js'
import { VIDEO_EXTENSIONS } from '../../vision/video-audio.js'

/** Files of an utterance, at least one of them. */
export interface EmotionClip {
  /** A video file. */
  readonly video?: string
  /** A folder of images, one per frame. */
  readonly frames?: string
  /** An audio file. Without it, the audio of the video is used. */
  readonly audio?: string
  /** Begin and end of the utterance in these files, in seconds. Default: the whole file. */
  readonly start?: number
  readonly end?: number
}

/**
 * Clips of the data: a folder, which is searched recursively for files or folders of frames with the data's clip names
 * (`dia1utt1.mp4`, `dia0_utt0.wav`); files by clip name or by `dialog/utterance` (`{ 'dia1utt1': 'x.mp4', '1/2': 'y.wav' }`);
 * or a function that is called for each utterance.
 */
export type EmotionClips =
  | string
  | Readonly<Record<string, string | EmotionClip>>
  | ((asked: AskedClip) => string | EmotionClip | undefined)

export interface AskedClip {
  readonly dialog: string
  readonly utterance: number
  readonly name: string
}

/** Return the clip of an utterance; undefined if there is none. */
export type FindClip = (asked: AskedClip) => EmotionClip | undefined

const VIDEO = VIDEO_EXTENSIONS
const AUDIO = ['.wav', '.flac', '.mp3', '.ogg', '.opus', '.mka', '.m4a', '.aac', '.aif', '.aiff']
const PICTURE = ['.jpg', '.jpeg', '.png', '.webp', '.gif', '.tif', '.tiff', '.avif', '.bmp', '.ppm', '.pgm']

/** Convention of clip names: ECF counts from 1 and writes `dia1utt1`; MELD counts from 0 and writes `dia0_utt0`. */
export type ClipStyle = 'ecf' | 'meld' | 'any'
const STYLES = { ecf: /^dia\d+utt\d+$/, meld: /^dia\d+_utt\d+$/ }

/**
 * Return a function that finds clips.
 * @throws DataError for a folder that does not exist or has no clips, and for one with the clip names of the other data set, whose
 * numbers belong to other utterances
 */
export function clipFinder(where: string, clips: EmotionClips, style: ClipStyle): FindClip {
  if (typeof clips === 'function') {
    return (asked) => clipOf(clips(asked), `clips of ${asked.name}`)
  }
  if (typeof clips === 'string') return inFolder(clips, style)
  if (typeof clips !== 'object' || clips === null || Array.isArray(clips)) {
    throw argumentError(where, 'clips', 'a folder, an object of files by clip name, or a function', clips)
  }
  const byName = new Map(Object.entries(clips).map(([name, clip]) => [nameOf(name), clip]))
  return ({ dialog, utterance, name }) => {
    const key = byName.has(name) ? name : `${dialog}/${utterance}`
    return clipOf(byName.get(key), `clips['${key}']`)
  }
}

/** Return the clip of a path, by its extension. @param place position, for messages */
export function clipOf(clip: string | EmotionClip | undefined, place: string): EmotionClip | undefined {
  if (clip === undefined) return undefined
  if (typeof clip === 'object' && clip !== null) {
    if (clip.video ?? clip.frames ?? clip.audio) return clip
    throw new DataError(`${place}: expected video, frames or audio, got none of them. Name a file.`, { clip })
  }
  if (typeof clip !== 'string' || clip === '')
    throw new DataError(`${place}: expected a path, got ${shown(clip)}. Name a file or a folder of frames.`, { clip })
  const ending = extname(clip).toLowerCase()
  if (AUDIO.includes(ending)) return { audio: clip }
  if (VIDEO.includes(ending)) return { video: clip }
  if (existsSync(clip) && statSync(clip).isDirectory()) return { frames: clip }
  const known = [...VIDEO, ...AUDIO].join(' ')
  throw new DataError(
    `${place}: expected a folder of frames or a file with the extension ${known}, got ${clip}. Convert it, or rename it.`,
    { file: clip },
  )
}

const nameOf = (path: string) =>
  [...VIDEO, ...AUDIO].includes(extname(path).toLowerCase()) ? basename(path, extname(path)) : path

function inFolder(folder: string, style: ClipStyle): FindClip {
  if (!existsSync(folder) || !statSync(folder).isDirectory()) {
    throw new DataError(`${folder}: expected a folder of clips, got a path that is not one. Check the path.`, {
      file: folder,
    })
  }
  const found = new Map<string, { video?: string; frames?: string; audio?: string }>()
  const add = (name: string, kind: 'video' | 'frames' | 'audio', path: string) => {
    const clip = found.get(name) ?? {}
    found.set(name, clip)
    if (clip[kind] !== undefined) {
      throw new DataError(
        `${folder}: ${name}: expected one ${kind} clip with this name, got ${clip[kind]} and ${path}. Remove one of them.`,
        { file: path },
      )
    }
    clip[kind] = path
  }
  const look = (inner: string) => {
    for (const entry of readdirSync(inner, { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1))) {
      const path = join(inner, entry.name)
      // MELD's archives have hidden metadata files of macOS next to the videos.
      if (entry.name.startsWith('.')) continue
      if (entry.isDirectory()) {
        const hasImages = readdirSync(path).some((name) => PICTURE.includes(extname(name).toLowerCase()))
        if (hasImages) add(clipNameOf(entry.name), 'frames', path)
        else look(path)
        continue
      }
      const ending = extname(entry.name).toLowerCase()
      const kind = VIDEO.includes(ending) ? 'video' : AUDIO.includes(ending) ? 'audio' : undefined
      if (kind) add(clipNameOf(basename(entry.name, extname(entry.name))), kind, path)
    }
  }
  look(folder)
  if (found.size === 0)
    throw new DataError(`${folder}: expected videos, audio files or folders of frames, got none. Check the path.`, {
      file: folder,
    })
  if (style !== 'any' && ![...found.keys()].some((name) => STYLES[style].test(name))) {
    const other = style === 'ecf' ? 'meld' : 'ecf'
    const otherName = [...found.keys()].find((name) => STYLES[other].test(name))
    if (otherName !== undefined) {
      const [ownData, otherData] = style === 'ecf' ? ['ECF', 'MELD'] : ['MELD', 'ECF']
      throw new DataError(
        `${folder}: expected clips of ${ownData}, got clips of ${otherData}, such as ${otherName}, whose numbers differ. Pass files by name.`,
        { file: folder },
      )
    }
  }
  return ({ name }) => found.get(name)
}

/** Return the name of a clip without the prefix of MELD's test videos. */
const clipNameOf = (name: string): string => name.replace(/^final_videos_test(?=dia\d)/, '')
