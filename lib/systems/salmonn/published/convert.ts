import { existsSync } from 'node:fs'
import { dirname } from 'node:path'
import { defined, listOf, requireString } from '../../../base/check.js'
import type { DataError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { type ChangesOf, settings } from '../../../base/settings.js'
import { writeJson } from '../../../files/json/json.js'
import { BadRecords } from '../../../kit/records.js'
import { BAD_ITEM_SETTINGS, type SalmonnEntry } from '../data/entry.js'
import { DIALOG_TEXT_SETTINGS, trajectoryRequest } from '../data/history.js'
import { SPLIT_SETTINGS, splitSalmonn } from '../data/split.js'
import { salmonnEntry } from './annotations.js'
import { type HumDialDialog, readHumDial } from './humdial.js'

/** An item of the fine-tuning data, under the published names. */
export interface ConvertedDialog {
  dialogue_id: string
  task: string
  input_text: string
  target_text: string
  audio_files: string[]
  /** Emotion of each turn; absent if one is unknown. */
  emotion_sequence?: string[]
  speaker?: string
}

const CONVERT_SETTINGS = settings({
  /** Task name of the items. */
  task: { type: 'string', help: 'task name of the items', default: 'task1_emotional_trajectory' },
  ...DIALOG_TEXT_SETTINGS.table,
})
/** Options of `convertHumDialFile`. Without a fraction or speakers to hold out, all dialogs are in one file. */
export const CONVERT_FILE_SETTINGS = settings({
  ...CONVERT_SETTINGS.table,
  ...SPLIT_SETTINGS.table,
  valid: { ...SPLIT_SETTINGS.table.valid, default: 0 },
  ...BAD_ITEM_SETTINGS.table,
})

/** @interface */
export type ConvertHumDialOptions = ChangesOf<typeof CONVERT_SETTINGS.table>

/** @interface */
export type ConvertHumDialFileOptions = ChangesOf<typeof CONVERT_FILE_SETTINGS.table>

export interface Conversion {
  dialogs: number
  /** Written files, training first. */
  files: { file: string; dialogs: number }[]
  /** Number of dialogs whose last turn lacks a reply, which cannot be used for training. */
  withoutTarget: number
  withoutEmotions: number
  badItems: number
  badItemErrors: DataError[]
  /** Audio files that do not exist relative to the new file. */
  missingAudio: { count: number; first: string | null }
}

/** Convert a dialog of the challenge to a fine-tuning item: its text, its clips in order, the last reply as the answer. */
export function convertHumDial(dialog: HumDialDialog, options: ConvertHumDialOptions = {}): ConvertedDialog {
  requireForm('convertHumDial', 'dialog', dialog, { id: 'string', turns: [{ emotion: 'string', audio: 'string' }] })
  const { task, ...text } = CONVERT_SETTINGS.read('convertHumDial', options)
  const { id, turns, speaker } = dialog
  const emotions = turns.map(({ emotion }) => emotion)
  return {
    dialogue_id: id,
    task,
    input_text: trajectoryRequest(dialog, text),
    target_text: turns.at(-1)?.reply ?? '',
    audio_files: turns.map(({ audio }) => audio),
    ...(emotions.every((emotion) => emotion !== '') && { emotion_sequence: emotions }),
    ...defined({ speaker }),
  }
}

/**
 * Convert one or several JSON Lines files of the challenge to a JSON list for `readSalmonnAnnotations`. With a fraction or speakers to hold
 * out, whole dialogs go to `OUT.valid.json` and `OUT.test.json` in the same folder, as split by {@link splitSalmonn}. Files are written
 * atomically. Audio paths do not change: write the result into the folder of the input, or set `audioRoot` when reading it.
 *
 * @throws DataError naming the line, unless `onBadItem` is 'skip'
 */
export async function convertHumDialFile(
  input: string | readonly string[],
  output: string,
  options: ConvertHumDialFileOptions = {},
): Promise<Conversion> {
  const where = 'convertHumDialFile'
  requireString(where, 'output', output)
  const read = CONVERT_FILE_SETTINGS.read(where, options)
  const { onBadItem, valid, test, validSpeakers, testSpeakers } = read
  const bad = new BadRecords(onBadItem)
  const entries: (SalmonnEntry & { item: ConvertedDialog })[] = []
  for (const file of typeof input === 'string' ? [input] : listOf(where, 'input', input, 'paths')) {
    const { dialogs, badItems, badItemErrors } = await readHumDial(file, { onBadItem })
    bad.addAll(badItems, badItemErrors)
    for (const dialog of dialogs) {
      const item = convertHumDial(dialog, CONVERT_SETTINGS.changesIn(read))
      entries.push({ ...salmonnEntry(item, dialog.source, dirname(output)), item })
    }
  }
  const divides = valid > 0 || test > 0 || validSpeakers.length > 0 || testSpeakers.length > 0
  const parts = divides
    ? splitSalmonn(entries, SPLIT_SETTINGS.changesIn(read))
    : { train: entries, valid: [], test: [] }
  const files: Conversion['files'] = []
  for (const part of ['train', 'valid', 'test'] as const) {
    if (part !== 'train' && parts[part].length === 0) continue
    const file = part === 'train' ? output : output.replace(/(\.json)?$/i, `.${part}.json`)
    const items = (parts[part] as typeof entries).map(({ item }) => item)
    await writeJson(file, items)
    files.push({ file, dialogs: items.length })
  }
  const items = entries.map(({ item }) => item)
  const missing = [...new Set(entries.flatMap(({ audio }) => audio))].filter((path) => !existsSync(path))
  return {
    dialogs: items.length,
    files,
    withoutTarget: items.filter((item) => item.target_text === '').length,
    withoutEmotions: items.filter((item) => item.emotion_sequence === undefined).length,
    badItems: bad.count,
    badItemErrors: bad.errors,
    missingAudio: { count: missing.length, first: missing[0] ?? null },
  }
}
