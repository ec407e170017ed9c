import { requireObject, requireOneOf, shown } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { nearest } from '../../../base/words.js'
import type { SpectraTurnText } from './text.js'

/**
 * One line of a JSONL file of your own data: a turn of speech with its text.
 *
 * ```json
 * {"audio": "clips/7.wav", "text": "that's great", "label": "joy", "split": "train", "speaker": "Ann"}
 * {"audio": "clips/9.wav", "text": "no", "label": "anger", "history": ["are you", "sure"], "historyAudio": "clips/8.wav"}
 * ```
 */
export interface SpectraJsonlRecord {
  /** Audio file, relative to the folder of the JSONL file; null or left out without speech. */
  audio?: string | null
  /** Start and end of the turn in the audio file, in seconds. Default: the whole file. */
  start?: number
  end?: number
  /** The words, separated by spaces. Either `text` or `words`. */
  text?: string
  /** The words as a list. */
  words?: readonly string[]
  /** A number for a regression; the name or number of a class. */
  label: number | string
  /** Previous turns, oldest first, each as a text or a list of words. */
  history?: readonly SpectraTurnText[]
  /** Audio file of the previous turn; null without one. */
  historyAudio?: string | null
  historyStart?: number
  historyEnd?: number
  speaker?: string
  split?: 'train' | 'valid' | 'test'
  /** Ignored; for your own use. */
  id?: string | number
  dialog?: string | number
  turn?: string | number
  meta?: unknown
}

/** A validated record. */
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

/** Validate a record. @throws DataError, to which the caller adds file and line */
export function checkRecord(value: unknown): CheckedRecord {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw bad(`expected a JSON object, got ${shown(value)}`)
  }
  const unknown = Object.keys(value).find((key) => !(FIELDS as readonly string[]).includes(key))
  if (unknown !== undefined) {
    const near = nearest(unknown, FIELDS)
    throw bad(
      `expected known fields, got ${JSON.stringify(unknown)}${near ? `; did you mean ${near}?` : ''} Put notes into meta.`,
    )
  }
  const record = value as SpectraJsonlRecord
  const { audio, text, words, label, history, historyAudio, speaker, split } = record
  if ((text === undefined) === (words === undefined)) {
    throw bad(`expected either text or words, got ${text === undefined ? 'neither' : 'both'}`)
  }
  if (text !== undefined && typeof text !== 'string') throw bad(`text: expected a string, got ${shown(text)}`)
  if (words !== undefined && !isWords(words)) throw bad(`words: expected a list of strings, got ${shown(words)}`)
  if (typeof label !== 'string' && !(typeof label === 'number' && Number.isFinite(label))) {
    throw bad(`label: expected a number or a name, got ${shown(label)}`)
  }
  if (
    history !== undefined &&
    !(Array.isArray(history) && history.every((turn) => typeof turn === 'string' || isWords(turn)))
  ) {
    throw bad(`history: expected a list of turns, each a string or a list of words, got ${shown(history)}`)
  }
  if (speaker !== undefined && typeof speaker !== 'string') {
    throw bad(`speaker: expected a string, got ${shown(speaker)}`)
  }
  if (split !== undefined) {
    if (split !== 'train' && split !== 'valid' && split !== 'test')
      throw bad(`split: expected 'train', 'valid' or 'test', got ${shown(split)}`)
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
    if (start !== undefined || end !== undefined) {
      throw bad(`${name}: expected an audio file for its start and end, got none`)
    }
    return path as null | undefined
  }
  if (typeof path !== 'string' || path === '') throw bad(`${name}: expected a path, got ${shown(path)}`)
  const time = (value: unknown) => typeof value === 'number' && Number.isFinite(value) && value >= 0
  if (start !== undefined && !time(start)) {
    throw bad(`start of ${name}: expected seconds of at least 0, got ${shown(start)}`)
  }
  if (end !== undefined && !(time(end) && (end as number) > ((start as number | undefined) ?? 0))) {
    throw bad(`end of ${name}: expected seconds above the start, got ${shown(end)}`)
  }
  return { path, start: (start as number | undefined) ?? 0, end: end as number | undefined }
}

const isWords = (value: unknown): value is readonly string[] =>
  Array.isArray(value) && value.every((word) => typeof word === 'string')

const bad = (what: string): DataError => new DataError(what, {})

/** Speakers of the test and validation data, for records without a split. */
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
