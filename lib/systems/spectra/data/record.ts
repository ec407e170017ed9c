import { requireObject, requireOneOf } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { nearest } from '../../../base/words.js'
import type { SpectraTurnText } from './text.js'

/**
 * One line of a JSONL file of one's own data: a turn of speech with its text.
 *
 * ```json
 * {"audio": "clips/7.wav", "text": "that's great", "label": "joy", "split": "train", "speaker": "Ann"}
 * {"audio": "clips/9.wav", "text": "no", "label": "anger", "history": ["are you", "sure"], "historyAudio": "clips/8.wav"}
 * ```
 */
export interface SpectraJsonlRecord {
  /** A sound file, relative to the folder of the JSONL file; null or left out where nobody speaks. */
  audio?: string | null
  /** Seconds of the sound file at which the turn begins and ends. Default: the whole file. */
  start?: number
  end?: number
  /** The words, separated by blanks; */
  text?: string
  /** or as a list. */
  words?: readonly string[]
  /** A number for a regression; the name or the number of a class. */
  label: number | string
  /** Turns before this one, oldest first, each as a text or as its words. */
  history?: readonly SpectraTurnText[]
  /** The sound file of the turn before; null where there is none. */
  historyAudio?: string | null
  historyStart?: number
  historyEnd?: number
  speaker?: string
  split?: 'train' | 'valid' | 'test'
  /** Not read; for your own use. */
  id?: string | number
  dialog?: string | number
  turn?: string | number
  meta?: unknown
}

/** A record whose fields are what they should be. */
export interface CheckedRecord {
  audio: Clip | null
  text: SpectraTurnText
  label: number | string
  history: readonly SpectraTurnText[] | undefined
  historyAudio: Clip | null | undefined
  speaker: string | undefined
  split: 'train' | 'valid' | 'test' | undefined
}

export interface Clip {
  path: string
  start: number
  end: number | undefined
}

const FIELDS: readonly (keyof SpectraJsonlRecord)[] = [
  'audio',
  'start',
  'end',
  'text',
  'words',
  'label',
  'history',
  'historyAudio',
  'historyStart',
  'historyEnd',
  'speaker',
  'split',
  'id',
  'dialog',
  'turn',
  'meta',
]

/** @throws DataError saying what is wrong; the caller adds file and line */
export function checkRecord(value: unknown): CheckedRecord {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw bad('it is no object')
  const unknown = Object.keys(value).find((key) => !(FIELDS as readonly string[]).includes(key))
  if (unknown !== undefined) {
    const near = nearest(unknown, FIELDS)
    throw bad(
      `it has the unknown field ${JSON.stringify(unknown)}${near ? `; did you mean ${near}?` : ''} Put notes into meta`,
    )
  }
  const record = value as SpectraJsonlRecord
  const { audio, text, words, label, history, historyAudio, speaker, split } = record
  if ((text === undefined) === (words === undefined)) throw bad('it needs either text or words')
  if (text !== undefined && typeof text !== 'string') throw bad('its text is no text')
  if (words !== undefined && !isWords(words)) throw bad('its words are no list of texts')
  if (typeof label !== 'string' && !(typeof label === 'number' && Number.isFinite(label))) {
    throw bad(label === undefined ? 'it has no label' : 'its label is neither a number nor a name')
  }
  if (
    history !== undefined &&
    !(Array.isArray(history) && history.every((turn) => typeof turn === 'string' || isWords(turn)))
  ) {
    throw bad('its history is no list of turns, each a text or a list of words')
  }
  if (speaker !== undefined && typeof speaker !== 'string') throw bad('its speaker is no text')
  if (split !== undefined) {
    if (split !== 'train' && split !== 'valid' && split !== 'test')
      throw bad("its split is not 'train', 'valid' or 'test'")
  }
  return {
    audio: clipOf('audio', audio, record.start, record.end) ?? null,
    text: (text ?? words)!,
    label,
    history,
    historyAudio: clipOf('historyAudio', historyAudio, record.historyStart, record.historyEnd),
    speaker,
    split,
  }
}

function clipOf(name: string, path: unknown, start: unknown, end: unknown): Clip | null | undefined {
  if (path === undefined || path === null) {
    if (start !== undefined || end !== undefined) throw bad(`it has times of ${name}, but no ${name}`)
    return path as null | undefined
  }
  if (typeof path !== 'string' || path === '') throw bad(`its ${name} is no path`)
  const time = (value: unknown) => typeof value === 'number' && Number.isFinite(value) && value >= 0
  if (start !== undefined && !time(start)) throw bad(`the start of its ${name} is no number of seconds`)
  if (end !== undefined && !(time(end) && (end as number) > ((start as number | undefined) ?? 0))) {
    throw bad(`the end of its ${name} is no number of seconds behind the start`)
  }
  return { path, start: (start as number | undefined) ?? 0, end: end as number | undefined }
}

const isWords = (value: unknown): value is readonly string[] =>
  Array.isArray(value) && value.every((word) => typeof word === 'string')

const bad = (what: string): DataError => new DataError(what, {})

/** Which records are for testing and validation where they do not say it themselves: those of some speakers. */
export interface SpectraHeldOutSpeakers {
  test?: readonly string[]
  valid?: readonly string[]
}

/** @throws ConfigError unless both are lists of names */
export function checkHeldOut(where: string, heldOut: SpectraHeldOutSpeakers): void {
  requireObject(where, 'speakers', heldOut)
  for (const [split, names] of Object.entries(heldOut)) {
    requireOneOf(where, 'a split of speakers', split, ['test', 'valid'])
    if (names !== undefined && !isWords(names)) requireObject(where, `speakers.${split}`, null)
  }
}
