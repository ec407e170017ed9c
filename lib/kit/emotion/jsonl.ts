import { existsSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { requireOneOf, requireString, shown } from '../../base/check.js'
import { DataError } from '../../base/errors.js'
import { nearest } from '../../base/words.js'
import { jsonRecord, recordDataset } from '../../data/jsonl-dataset.js'
import { jsonValue } from '../../files/json/json.js'
import { splitWords } from '../../train/metrics/values.js'
import { BadRecords } from '../records.js'
import type { Part } from '../split.js'
import { clipFinder, type EmotionClip } from './clips.js'
import {
  checkReadOptions,
  type EmotionCause,
  type EmotionData,
  type EmotionDialog,
  type EmotionUtterance,
  emotionData,
  knownEmotion,
  type ReadDialogsOptions,
} from './dialog.js'

/**
 * A line of a JSONL file of dialogs: an utterance. Lines of one dialog are in its order; lines of other dialogs may be between
 * them.
 *
 * ```json
 * {"dialog": "1", "speaker": "Ann", "text": "They took it away !", "emotion": "anger", "video": "clips/1.mp4", "causes": [1]}
 * {"dialog": "1", "speaker": "Ben", "text": "Who did ?", "emotion": "surprise", "audio": "clips/all.wav", "start": 3.2, "end": 4}
 * {"dialog": "2", "speaker": "Ann", "text": "Fine .", "frames": "clips/3/", "split": "test"}
 * ```
 */
export interface EmotionJsonlRecord {
  dialog: string | number
  text: string
  /** Default '', an unknown speaker. */
  speaker?: string
  /** Absent if the emotion is unknown. */
  emotion?: string
  /** A video, a folder of images, an audio file, relative to the folder of the JSONL file. */
  video?: string
  frames?: string
  audio?: string
  /** Begin and end of the utterance in these files, in seconds. */
  start?: number
  end?: number
  /**
   * Causes: numbers of utterances of the dialog, from 1; or objects with the span in whitespace-separated words, [start, end), from
   * 0.
   */
  causes?: readonly (number | { utterance: number; words: readonly [number, number] })[]
  split?: 'train' | 'valid' | 'test'
  /** Ignored; for notes. */
  meta?: unknown
}

const FIELDS: readonly (keyof EmotionJsonlRecord)[] = [
  ...(['dialog', 'text', 'speaker', 'emotion', 'video', 'frames', 'audio', 'start', 'end'] as const),
  ...(['causes', 'split', 'meta'] as const),
]

/** A parsed line with its position. */
interface Line {
  /** Number of the utterance in its dialog, from 1. Lines that are left out are counted, because causes and clips use the numbers. */
  id: number
  record: EmotionJsonlRecord
  at: string
  place: Place
  clip: EmotionClip | undefined
  emotion: string | undefined
}

interface Place {
  file: string
  line: number
}

/** A dialog while its lines are read. */
interface Open {
  lines: Line[]
  /** Number of lines, including those that were left out. */
  count: number
}

/** Maximum size of a line in bytes, as in `jsonlDataset`. */
const LONGEST = 1 << 26

/**
 * Read dialogs from a JSONL file; see {@link EmotionJsonlRecord}. Without `emotions`, any emotion is valid. Clips of lines that name
 * none are searched in `clips` as `dialog/utterance`. A line that is left out keeps its number, so that causes and clips still
 * match. If its dialog cannot be read, it counts as a line of the dialog before it.
 *
 * @throws DataError with `file` and `line` for a bad line, unless it is skipped: invalid JSON, an unknown or missing field, an
 * unknown emotion, a clip that does not exist, a cause outside the dialog, a dialog in two parts. With 'skip', a clip that does not
 * exist is only removed from its utterance.
 */
export async function readEmotionJsonl(file: string, options: ReadDialogsOptions = {}): Promise<EmotionData> {
  const where = 'readEmotionJsonl'
  requireString(where, 'file', file)
  checkReadOptions(where, options)
  const { onBadRecord = 'stop', clips, emotions } = options
  requireOneOf(where, 'onBadRecord', onBadRecord, ['stop', 'skip'])
  const bytes = await recordDataset(file, { parse: (own, _, line) => ({ own, line }), maxBytes: LONGEST })
  const bad = new BadRecords(onBadRecord)
  const byDialog = new Map<string, Open>()
  const opened = (name: string): Open => {
    const found = byDialog.get(name) ?? { lines: [], count: 0 }
    byDialog.set(name, found)
    found.count += 1
    return found
  }
  let last: string | undefined
  for (let i = 0; i < bytes.length; i += 1) {
    const { own, line } = await bytes.get(i, 0)
    const place = { file, line }
    let record: EmotionJsonlRecord
    try {
      record = checkRecord(jsonRecord(own, file, line))
    } catch (error) {
      bad.add(error, place)
      last = dialogIn(own.toString()) ?? last
      if (last !== undefined) opened(last)
      continue
    }
    last = String(record.dialog)
    const { lines, count } = opened(last)
    const at = `${file}, line ${line}`
    const emotion = emotions ? knownEmotion(record.emotion, emotions, at, bad, place) : record.emotion
    lines.push({ id: count, record, at, place, clip: clipAt(record, at, place, bad), emotion })
  }
  const usable = [...byDialog].filter(([, { lines }]) => lines.length > 0)
  if (usable.length === 0)
    throw new DataError(
      `${file}: expected at least one usable record, got none (${bad.count} bad records). Check the file.`,
      {
        ...{ file, badRecords: bad.count },
      },
    )
  const find = clips === undefined ? undefined : clipFinder(where, clips, 'any')
  const dialogs = usable.map(([id, { lines, count }]): EmotionDialog => {
    const utterances = lines.map(({ id: number, record, clip, emotion }): EmotionUtterance => {
      const own = namesClip(record) ? clip : find?.({ dialog: id, utterance: number, name: `${id}/${number}` })
      return {
        ...{ id: number, text: record.text, speaker: record.speaker ?? '' },
        ...(emotion !== undefined && { emotion }),
        ...(own && { clip: own }),
      }
    })
    const part = partOf(lines, bad)
    const source = `${file}, dialog ${id}`
    const hasCauses = lines.some(({ record }) => record.causes !== undefined)
    return {
      ...{ id, utterances, source },
      ...(part && { part }),
      ...(hasCauses && { causes: lines.flatMap((line, effect) => causesOf(line, effect, utterances, count, bad)) }),
    }
  })
  return emotionData(dialogs, bad, clips)
}

/** Return the dialog that an invalid line names, if it can be read. */
function dialogIn(text: string): string | undefined {
  const dialogName = /"dialog"\s*:\s*("(?:[^"\\]|\\.)*"|\d+)/.exec(text)?.[1]
  try {
    return dialogName === undefined ? undefined : String(jsonValue(dialogName, false, 'dialog'))
  } catch {
    return undefined
  }
}

const namesClip = ({ video, frames, audio }: EmotionJsonlRecord): boolean => (video ?? frames ?? audio) !== undefined

function checkRecord(value: unknown): EmotionJsonlRecord {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw wrong('expected an object', value)
  const unknown = Object.keys(value).find((key) => !(FIELDS as readonly string[]).includes(key))
  if (unknown !== undefined) {
    const near = nearest(unknown, FIELDS)
    const hint = near === undefined ? '' : ` Did you mean ${near}?`
    throw new DataError(
      `${JSON.stringify(unknown)}: expected only known fields, got this one.${hint} Put notes into meta.`,
      {},
    )
  }
  const record = value as EmotionJsonlRecord
  const { dialog, text, speaker, emotion, video, frames, audio, start, end, causes, split } = record
  if (typeof dialog !== 'string' && !Number.isSafeInteger(dialog))
    throw wrong('dialog: expected a name or an integer', dialog)
  if (typeof text !== 'string') throw wrong('text: expected a string', text)
  if (speaker !== undefined && typeof speaker !== 'string') throw wrong('speaker: expected a string', speaker)
  if (emotion !== undefined && (typeof emotion !== 'string' || emotion === ''))
    throw wrong('emotion: expected a name', emotion)
  for (const [name, path] of Object.entries({ video, frames, audio })) {
    if (path !== undefined && (typeof path !== 'string' || path === '')) throw wrong(`${name}: expected a path`, path)
  }
  const time = (at: unknown) => typeof at === 'number' && Number.isFinite(at) && at >= 0
  if (start !== undefined && !time(start)) throw wrong('start: expected seconds', start)
  if (end !== undefined && !(time(end) && end > (start ?? 0))) {
    throw wrong(`end: expected seconds after start (${start ?? 0})`, end)
  }
  if ((start ?? end) !== undefined && !namesClip(record)) {
    throw wrong('start, end: expected video, frames or audio with them', undefined)
  }
  if (split !== undefined && !['train', 'valid', 'test'].includes(split)) {
    throw wrong("split: expected 'train', 'valid' or 'test'", split)
  }
  if (causes !== undefined && !(Array.isArray(causes) && causes.every(isCause))) {
    throw wrong('causes: expected a list of utterance numbers, or of { utterance, words: [start, end] }', causes)
  }
  return record
}

function isCause(cause: unknown): boolean {
  if (typeof cause === 'number') return Number.isSafeInteger(cause)
  const { utterance, words } = (cause ?? {}) as { utterance?: unknown; words?: unknown }
  return (
    Number.isSafeInteger(utterance) && Array.isArray(words) && words.length === 2 && words.every(Number.isSafeInteger)
  )
}

function clipAt(record: EmotionJsonlRecord, at: string, place: Place, bad: BadRecords): EmotionClip | undefined {
  const { video, frames, audio, start, end } = record
  const existing = Object.entries({ video, frames, audio }).flatMap(([name, path]): [string, string][] => {
    if (path === undefined) return []
    const full = resolve(dirname(place.file), path)
    if (existsSync(full)) return [[name, full]]
    bad.note('no such file', `${at}: ${name}: expected a file or folder, got ${path}, which does not exist`, {
      ...place,
      clip: full,
    })
    return []
  })
  if (existing.length === 0) return undefined
  return {
    ...Object.fromEntries(existing),
    ...(start !== undefined && { start }),
    ...(end !== undefined && { end }),
  }
}

function partOf(lines: readonly Line[], bad: BadRecords): Part | undefined {
  const [first, ...others] = new Set(lines.flatMap(({ record }) => record.split ?? []))
  if (others.length > 0) {
    const [{ record, at, place }] = lines as [Line]
    bad.note(
      'parts',
      `${at}: split: expected one part for dialog ${record.dialog}, got ${[first, ...others].join(' and ')}`,
      {
        ...place,
        dialog: record.dialog,
      },
    )
  }
  return first
}

function causesOf(
  { record, at, place, emotion }: Line,
  effect: number,
  utterances: readonly EmotionUtterance[],
  count: number,
  bad: BadRecords,
) {
  const { causes = [] } = record
  return causes.flatMap((given): EmotionCause[] => {
    const { utterance, words: span } = typeof given === 'number' ? { utterance: given, words: undefined } : given
    const refuse = (reason: string, expected: string) => {
      bad.note(reason, `${at}: causes: expected ${expected}, got ${JSON.stringify(given)}`, { ...place, cause: given })
      return []
    }
    if (emotion === undefined) return refuse('cause', 'none without an emotion')
    const cause = utterances.findIndex(({ id }) => id === utterance)
    const causeUtterance = utterances[cause]
    if (causeUtterance === undefined) {
      const isLeftOut = utterance >= 1 && utterance <= count
      if (isLeftOut) return refuse('outside', 'an utterance that was not left out')
      return refuse('outside', `utterances from 1 to ${count}`)
    }
    if (span && !(span[0] >= 0 && span[1] > span[0] && span[1] <= splitWords(causeUtterance.text).length)) {
      return refuse('span', `words within the ${splitWords(causeUtterance.text).length} of the utterance`)
    }
    return [{ effect, cause, emotion, ...(span && { span }) }]
  })
}

const wrong = (expected: string, value: unknown): DataError =>
  new DataError(`${expected}, got ${value === undefined ? 'none' : shown(value)}. Correct the line.`, {})
