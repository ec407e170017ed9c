import { existsSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { requireOneOf, requireString } from '../../base/check.js'
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
 * One line of a JSONL file of one's own dialogs: an utterance. Lines of one dialog stand in its order; other dialogs may
 * stand between them.
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
  /** Default '', nobody known. */
  speaker?: string
  /** Left out where nobody knows. */
  emotion?: string
  /** A film, a folder of pictures, a sound file, relative to the folder of the JSONL file. */
  video?: string
  frames?: string
  audio?: string
  /** Seconds of these at which the utterance begins and ends. */
  start?: number
  end?: number
  /**
   * Why: utterances of the dialog, the first of which is 1; or with the words that say it, [start, end) of its words between
   * blanks, the first of which is 0.
   */
  causes?: readonly (number | { utterance: number; words: readonly [number, number] })[]
  split?: 'train' | 'valid' | 'test'
  /** Not read; for your own use. */
  meta?: unknown
}

const FIELDS: readonly (keyof EmotionJsonlRecord)[] = [
  ...(['dialog', 'text', 'speaker', 'emotion', 'video', 'frames', 'audio', 'start', 'end'] as const),
  ...(['causes', 'split', 'meta'] as const),
]

/** What a line says, with its place. */
interface Line {
  /** Of the utterance, from 1. Lines that were left out have numbers too, for causes and clips name utterances by them. */
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
  /** Of all lines. */
  count: number
}

/** The longest line in bytes, as of `jsonlDataset`. */
const LONGEST = 1 << 26

/**
 * Reads dialogs of one's own: see {@link EmotionJsonlRecord}. Emotions are all that occur, unless `emotions` says which there
 * are. Clips of lines that name none are looked for by `clips` under `dialog/utterance`. A line that is left out keeps its
 * number, so that causes and clips still mean what they say; where its dialog cannot be read, it counts as one of the dialog
 * of the line before it.
 *
 * @throws DataError with `file` and `line` for a bad line: no JSON, an unknown or missing field, an emotion that is none, a
 * clip that is not there, a cause outside the dialog, a dialog in two parts; unless it is skipped. A clip that is not there
 * is then all that its utterance lacks.
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
  if (usable.length === 0) throw new DataError(`${file} holds no usable record`, { file, badRecords: bad.count })
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
    const says = lines.some(({ record }) => record.causes !== undefined)
    return {
      ...{ id, utterances, source },
      ...(part && { part }),
      ...(says && { causes: lines.flatMap((line, effect) => causesOf(line, effect, utterances, count, bad)) }),
    }
  })
  return emotionData(dialogs, bad, clips)
}

/** What a line that cannot be used says of its dialog, as far as that can be read. */
function dialogIn(text: string): string | undefined {
  const said = /"dialog"\s*:\s*("(?:[^"\\]|\\.)*"|\d+)/.exec(text)?.[1]
  try {
    return said === undefined ? undefined : String(jsonValue(said, false, 'dialog'))
  } catch {
    return undefined
  }
}

const namesClip = ({ video, frames, audio }: EmotionJsonlRecord): boolean => (video ?? frames ?? audio) !== undefined

function checkRecord(value: unknown): EmotionJsonlRecord {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw wrong('it is no object')
  const unknown = Object.keys(value).find((key) => !(FIELDS as readonly string[]).includes(key))
  if (unknown !== undefined) {
    const near = nearest(unknown, FIELDS)
    const hint = near === undefined ? '' : `; did you mean ${near}?`
    throw wrong(`it has the unknown field ${JSON.stringify(unknown)}${hint} Put notes into meta`)
  }
  const record = value as EmotionJsonlRecord
  const { dialog, text, speaker, emotion, video, frames, audio, start, end, causes, split } = record
  if (typeof dialog !== 'string' && !Number.isSafeInteger(dialog))
    throw wrong('its dialog is neither a name nor a number')
  if (typeof text !== 'string') throw wrong('it has no text')
  if (speaker !== undefined && typeof speaker !== 'string') throw wrong('its speaker is no text')
  if (emotion !== undefined && (typeof emotion !== 'string' || emotion === '')) throw wrong('its emotion is no name')
  for (const [name, path] of Object.entries({ video, frames, audio })) {
    if (path !== undefined && (typeof path !== 'string' || path === '')) throw wrong(`its ${name} is no path`)
  }
  const time = (at: unknown) => typeof at === 'number' && Number.isFinite(at) && at >= 0
  if (start !== undefined && !time(start)) throw wrong('its start is no number of seconds')
  if (end !== undefined && !(time(end) && end > (start ?? 0))) {
    throw wrong('its end is no number of seconds behind its start')
  }
  if ((start ?? end) !== undefined && !namesClip(record)) {
    throw wrong('it has times, but neither video nor frames nor audio')
  }
  if (split !== undefined && !['train', 'valid', 'test'].includes(split)) {
    throw wrong("its split is not 'train', 'valid' or 'test'")
  }
  if (causes !== undefined && !(Array.isArray(causes) && causes.every(isCause))) {
    throw wrong('its causes are no list of numbers of utterances, or of { utterance, words: [start, end] }')
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
  const there = Object.entries({ video, frames, audio }).flatMap(([name, path]): [string, string][] => {
    if (path === undefined) return []
    const full = resolve(dirname(place.file), path)
    if (existsSync(full)) return [[name, full]]
    bad.note('no such file', `${at}: its ${name} ${path} is not there`, { ...place, clip: full })
    return []
  })
  if (there.length === 0) return undefined
  return {
    ...Object.fromEntries(there),
    ...(start !== undefined && { start }),
    ...(end !== undefined && { end }),
  }
}

function partOf(lines: readonly Line[], bad: BadRecords): Part | undefined {
  const [first, ...others] = new Set(lines.flatMap(({ record }) => record.split ?? []))
  if (others.length > 0) {
    const [{ record, at, place }] = lines as [Line]
    bad.note('parts', `${at}: dialog ${record.dialog} is said to be of ${first} and of ${others}`, {
      ...place,
      dialog: record.dialog,
    })
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
    const refuse = (reason: string, what: string) => {
      bad.note(reason, `${at}: its cause ${JSON.stringify(given)} ${what}`, { ...place, cause: given })
      return []
    }
    if (emotion === undefined) return refuse('cause', 'is that of no emotion')
    const cause = utterances.findIndex(({ id }) => id === utterance)
    const said = utterances[cause]
    if (said === undefined) {
      const isLeftOut = utterance >= 1 && utterance <= count
      if (isLeftOut) return refuse('outside', 'is an utterance that was left out')
      return refuse('outside', `is outside the dialog, which has ${count} utterances`)
    }
    if (span && !(span[0] >= 0 && span[1] > span[0] && span[1] <= splitWords(said.text).length)) {
      return refuse('span', 'has words that the utterance has not')
    }
    return [{ effect, cause, emotion, ...(span && { span }) }]
  })
}

const wrong = (what: string): DataError => new DataError(what, {})
