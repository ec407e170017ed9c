import { existsSync, readdirSync, statSync } from 'node:fs'
import { basename, extname, join } from 'node:path'
import { misuse } from '../../base/check.js'
import { DataError } from '../../base/errors.js'
import { FILM_ENDINGS } from '../../vision/film-sound.js'

/** The files of an utterance; at least one is there. */
export interface EmotionClip {
  /** A film. */
  readonly video?: string
  /** A folder of pictures, one for each frame. */
  readonly frames?: string
  /** A sound file; where there is none, the film's sound is heard. */
  readonly audio?: string
  /** Seconds of these files at which the utterance begins and ends. Default: all of them. */
  readonly start?: number
  readonly end?: number
}

/**
 * Where clips are: a folder, with those below it, whose files and folders of frames have the names of the data
 * (`dia1utt1.mp4`, `dia0_utt0.wav`); files by clip name or by `dialog/utterance` (`{ 'dia1utt1': 'x.mp4', '1/2': 'y.wav' }`);
 * or a function that is asked for each utterance.
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

/** Finds the clip of an utterance. */
export type FindClip = (asked: AskedClip) => EmotionClip | undefined

const VIDEO = FILM_ENDINGS
const AUDIO = ['.wav', '.flac', '.mp3', '.ogg', '.opus', '.mka', '.m4a', '.aac', '.aif', '.aiff']
const PICTURE = ['.jpg', '.jpeg', '.png', '.webp', '.gif', '.tif', '.tiff', '.avif', '.bmp', '.ppm', '.pgm']

/** ECF counts from 1 and writes `dia1utt1`; MELD counts from 0 and writes `dia0_utt0`. */
export type ClipStyle = 'ecf' | 'meld' | 'any'
const STYLES = { ecf: /^dia\d+utt\d+$/, meld: /^dia\d+_utt\d+$/ }

/**
 * @throws DataError for a folder that is not there, that has no clip at all, or whose clips have the other data's numbers:
 * those count otherwise, and would belong to other utterances
 */
export function clipFinder(where: string, clips: EmotionClips, style: ClipStyle): FindClip {
  if (typeof clips === 'function') {
    return (asked) => clipOf(clips(asked), `clips of ${asked.name}`)
  }
  if (typeof clips === 'string') return inFolder(clips, style)
  if (typeof clips !== 'object' || clips === null || Array.isArray(clips)) {
    throw misuse(where, 'clips', 'a folder, files by name, or a function', clips)
  }
  const byName = new Map(Object.entries(clips).map(([name, clip]) => [nameOf(name), clip]))
  return ({ dialog, utterance, name }) => {
    const key = byName.has(name) ? name : `${dialog}/${utterance}`
    return clipOf(byName.get(key), `clips['${key}']`)
  }
}

/** A path as what it is. @param place for messages */
export function clipOf(clip: string | EmotionClip | undefined, place: string): EmotionClip | undefined {
  if (clip === undefined) return undefined
  if (typeof clip === 'object' && clip !== null) {
    if (clip.video ?? clip.frames ?? clip.audio) return clip
    throw new DataError(`${place} names neither video nor frames nor audio`, { clip })
  }
  if (typeof clip !== 'string' || clip === '') throw new DataError(`${place} is no path`, { clip })
  const ending = extname(clip).toLowerCase()
  if (AUDIO.includes(ending)) return { audio: clip }
  if (VIDEO.includes(ending)) return { video: clip }
  if (existsSync(clip) && statSync(clip).isDirectory()) return { frames: clip }
  const known = [...VIDEO, ...AUDIO].join(' ')
  throw new DataError(`${place}: ${clip} is no folder of frames, and its ending is none of ${known}`, { file: clip })
}

const nameOf = (path: string) =>
  [...VIDEO, ...AUDIO].includes(extname(path).toLowerCase()) ? basename(path, extname(path)) : path

function inFolder(folder: string, style: ClipStyle): FindClip {
  if (!existsSync(folder) || !statSync(folder).isDirectory()) {
    throw new DataError(`${folder}: there is no such folder of clips`, { file: folder })
  }
  const found = new Map<string, { video?: string; frames?: string; audio?: string }>()
  const add = (name: string, kind: 'video' | 'frames' | 'audio', path: string) => {
    const clip = found.get(name) ?? {}
    found.set(name, clip)
    if (clip[kind] !== undefined) {
      throw new DataError(`${folder} has two clips called ${name}: ${clip[kind]} and ${path}`, { file: path })
    }
    clip[kind] = path
  }
  const look = (inner: string) => {
    for (const entry of readdirSync(inner, { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1))) {
      const path = join(inner, entry.name)
      // MELD's archives have files of that kind beside the films, which are macOS's notes.
      if (entry.name.startsWith('.')) continue
      if (entry.isDirectory()) {
        const pictures = readdirSync(path).some((name) => PICTURE.includes(extname(name).toLowerCase()))
        if (pictures) add(clipNameOf(entry.name), 'frames', path)
        else look(path)
        continue
      }
      const ending = extname(entry.name).toLowerCase()
      const kind = VIDEO.includes(ending) ? 'video' : AUDIO.includes(ending) ? 'audio' : undefined
      if (kind) add(clipNameOf(basename(entry.name, extname(entry.name))), kind, path)
    }
  }
  look(folder)
  if (found.size === 0) throw new DataError(`${folder} has neither films nor sound files nor frames`, { file: folder })
  if (style !== 'any' && ![...found.keys()].some((name) => STYLES[style].test(name))) {
    const other = style === 'ecf' ? 'meld' : 'ecf'
    const foreign = [...found.keys()].find((name) => STYLES[other].test(name))
    if (foreign !== undefined) {
      const [own, theirs] = style === 'ecf' ? ['ECF', 'MELD'] : ['MELD', 'ECF']
      throw new DataError(
        `${folder} has clips of ${theirs}, such as ${foreign}, whose numbers are others than ${own}'s: give files by name`,
        { file: folder },
      )
    }
  }
  return ({ name }) => found.get(name)
}

/** Without what MELD's test films have before their numbers. */
const clipNameOf = (name: string): string => name.replace(/^final_videos_test(?=dia\d)/, '')
