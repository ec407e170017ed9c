import { existsSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { requireOneOf, requireString } from '../../base/check.js'
import { DataError } from '../../base/errors.js'
import { nearest } from '../../base/words.js'
import { jsonlDataset } from '../../data/jsonl-dataset.js'
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
  record: EmotionJsonlRecord
  at: string
  clip: EmotionClip | undefined
  emotion: string | undefined
}

/**
 * Reads dialogs of one's own: see {@link EmotionJsonlRecord}. Emotions are all that occur, unless `emotions` says which there
 * are. Clips that a line does not name are looked for by `clips` under `dialog/utterance`.
 *
 * @throws DataError with `file` and `line` for a bad line: no JSON, an unknown or missing field, an emotion that is none, a
 * clip that is not there, a cause outside the dialog, a dialog in two parts; unless it is skipped
 */
export async function readEmotionJsonl(file: string, options: ReadDialogsOptions = {}): Promise<EmotionData> {
  const where = 'readEmotionJsonl'
  requireString(where, 'file', file)
  checkReadOptions(where, options)
  const { onBadRecord = 'stop', clips, emotions } = options
  requireOneOf(where, 'onBadRecord', onBadRecord, ['stop', 'skip'])
  const lines = await jsonlDataset(file, { onBadRecord })
  const bad = new BadRecords(onBadRecord)
  bad.addAll(lines.badRecords, lines.badRecordErrors)
  const byDialog = new Map<string, Line[]>()
  for (let i = 0; i < lines.length; i += 1) {
    const at = `${file}, line ${lines.index.lines[i]}`
    const value = await lines.get(i)
    try {
      const record = checkRecord(value)
      const clip = clipAt(record, dirname(file))
      const emotion = emotions ? knownEmotion(record.emotion, emotions, at, bad) : record.emotion
      const dialog = String(record.dialog)
      byDialog.set(dialog, [...(byDialog.get(dialog) ?? []), { record, at, clip, emotion }])
    } catch (error) {
      bad.add(error, { file, line: lines.index.lines[i] as number })
    }
  }
  if (byDialog.size === 0) throw new DataError(`${file} holds no usable record`, { file, badRecords: bad.count })
  const find = clips === undefined ? undefined : clipFinder(where, clips, 'any')
  const dialogs = [...byDialog].map(([id, all]): EmotionDialog => {
    const utterances = all.map(({ record, clip, emotion }, place): EmotionUtterance => {
      const own = clip ?? find?.({ dialog: id, utterance: place + 1, name: `${id}/${place + 1}` })
      return {
        ...{ id: place + 1, text: record.text, speaker: record.speaker ?? '' },
        ...(emotion !== undefined && { emotion }),
        ...(own && { clip: own }),
      }
    })
    const part = partOf(all, bad)
    const source = `${file}, dialog ${id}`
    const says = all.some(({ record }) => record.causes !== undefined)
    return {
      ...{ id, utterances, source },
      ...(part && { part }),
      ...(says && { causes: all.flatMap((line, effect) => causesOf(line, effect, utterances, bad)) }),
    }
  })
  return emotionData(dialogs, bad, clips)
}

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

function clipAt({ video, frames, audio, start, end }: EmotionJsonlRecord, folder: string): EmotionClip | undefined {
  if ((video ?? frames ?? audio) === undefined) {
    if (start !== undefined || end !== undefined) throw wrong('it has times, but neither video nor frames nor audio')
    return undefined
  }
  const at = (name: string, path: string | undefined) => {
    if (path === undefined) return {}
    const full = resolve(folder, path)
    if (!existsSync(full)) throw wrong(`its ${name} ${path} is not there`)
    return { [name]: full }
  }
  return {
    ...at('video', video),
    ...at('frames', frames),
    ...at('audio', audio),
    ...(start !== undefined && { start }),
    ...(end !== undefined && { end }),
  }
}

function partOf(lines: readonly Line[], bad: BadRecords): Part | undefined {
  const [first, ...others] = new Set(lines.flatMap(({ record }) => record.split ?? []))
  if (others.length > 0) {
    const [{ record, at }] = lines as [Line]
    bad.note('parts', `${at}: dialog ${record.dialog} is said to be of ${first} and of ${others}`, {
      dialog: record.dialog,
    })
  }
  return first
}

function causesOf({ record, at }: Line, effect: number, utterances: readonly EmotionUtterance[], bad: BadRecords) {
  const { causes = [], emotion } = record
  return causes.flatMap((given): EmotionCause[] => {
    const { utterance, words: span } = typeof given === 'number' ? { utterance: given, words: undefined } : given
    const refuse = (reason: string, what: string) => {
      bad.note(reason, `${at}: its cause ${JSON.stringify(given)} ${what}`, { cause: given })
      return []
    }
    if (emotion === undefined) return refuse('cause', 'is that of no emotion')
    const cause = utterance - 1
    const said = utterances[cause]
    if (said === undefined) return refuse('outside', `is outside the dialog, which has ${utterances.length} utterances`)
    if (span && !(span[0] >= 0 && span[1] > span[0] && span[1] <= splitWords(said.text).length)) {
      return refuse('span', 'has words that the utterance has not')
    }
    return [{ effect, cause, emotion, ...(span && { span }) }]
  })
}

const wrong = (what: string): DataError => new DataError(what, {})
