import { dirname } from 'node:path'
import { shown } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import type { ChangesOf } from '../../../base/settings.js'
import { jsonlDataset } from '../../../data/jsonl-dataset.js'
import { BadRecords } from '../../../kit/records.js'
import { BAD_ITEM_SETTINGS } from '../data/entry.js'

/** A turn of the user, with the system's reply. */
export interface HumDialTurn {
  /** Transcript, with tags such as [laughter]. */
  text: string
  /** Emotion in lower case; '' if it is unknown. */
  emotion: string
  /** Path of the user's audio, as in the file. */
  audio: string
  /** Reply of the system; '' if there is none. */
  reply: string
  /** Speaker of the turn, in a dialog between people. */
  speaker?: string
}

export interface HumDialDialog {
  id: string
  speaker: string | undefined
  turns: HumDialTurn[]
  source: string
}

export interface HumDialData {
  dialogs: HumDialDialog[]
  badItems: number
  badItemErrors: DataError[]
  /** Folder of the file, to which audio paths are relative. */
  folder: string
}

/**
 * Read the challenge's JSON Lines: `{ dialogue_id, turns: [{ turn_id, text, emotion, split_audio_file, response_txt }] }`, with any number of
 * turns. The reply is `response_txt`, as in the training files, or `response_text`, as in the scoring scripts. Turns are sorted by `turn_id`.
 * Blank lines are skipped. In a dialog between people each turn has a `speaker`, and text and reply are optional.
 *
 * @throws DataError with file and line for an invalid dialog, unless `onBadItem` is 'skip'
 */
export async function readHumDial(
  file: string,
  options: ChangesOf<typeof BAD_ITEM_SETTINGS.table> = {},
): Promise<HumDialData> {
  const { onBadItem } = BAD_ITEM_SETTINGS.read('readHumDial', options)
  const lines = await jsonlDataset(file, { onBadRecord: onBadItem })
  const bad = new BadRecords(onBadItem)
  bad.addAll(lines.badRecords, lines.badRecordErrors)
  const dialogs: HumDialDialog[] = []
  for (let i = 0; i < lines.length; i += 1) {
    const line = lines.index.lines[i] as number
    try {
      dialogs.push(humDialDialog(await lines.get(i), `${file}, line ${line}`, `idx_${line}`))
    } catch (error) {
      bad.add(error)
    }
  }
  return { dialogs, badItems: bad.count, badItemErrors: bad.errors, folder: dirname(file) }
}

/**
 * Parse a dialog of the challenge. @param number default id of a dialog without one
 * @throws DataError naming `source`, and the invalid turn
 */
export function humDialDialog(value: unknown, source: string, number: string): HumDialDialog {
  const record = (value ?? {}) as Record<string, unknown>
  const { dialogue_id: id = number, turns, speaker } = record
  if (typeof value !== 'object' || Array.isArray(value))
    throw fault(source, `expected a JSON object, got ${shown(value)}.`)
  if (typeof id !== 'string') throw fault(source, `expected dialogue_id to be a string, got ${shown(id)}.`)
  if (!Array.isArray(turns) || turns.length === 0)
    throw fault(source, `expected a non-empty list of turns, got ${shown(turns)}.`)
  const read = turns.map((turn, i) => turnOf(turn, `${source} (${id}), turn ${i + 1}`, i, turns.length))
  read.sort((a, b) => a.number - b.number)
  return {
    id,
    speaker: typeof speaker === 'string' ? speaker : undefined,
    turns: read.map(({ turn }) => turn),
    source,
  }
}

function turnOf(value: unknown, source: string, index: number, count: number): { turn: HumDialTurn; number: number } {
  if (typeof value !== 'object' || value === null) throw fault(source, `expected a JSON object, got ${shown(value)}.`)
  const record = value as Record<string, unknown>
  const text = (field: string): string | undefined => {
    const found = record[field]
    if (found === undefined || found === null) return undefined
    if (typeof found === 'string') return found
    throw fault(source, `expected ${field} to be a string, got ${shown(found)}.`)
  }
  const needed = (field: string): string => {
    const found = text(field)
    if (found) return found
    throw fault(source, `expected ${field} to be a non-empty string, got ${shown(found)}.`)
  }
  const reply = text('response_txt') ?? text('response_text')
  const speaker = text('speaker')
  if (!reply && !speaker && index < count - 1)
    throw fault(source, 'expected response_txt or response_text, got neither.')
  const number = record.turn_id ?? index + 1
  if (typeof number !== 'number') throw fault(source, `expected turn_id to be a number, got ${shown(number)}.`)
  const emotion = (text('emotion') ?? '').trim().toLowerCase()
  const words = speaker ? (text('text') ?? '') : needed('text')
  const turn = { text: words, emotion, audio: needed('split_audio_file'), reply: reply ?? '' }
  return { turn: { ...turn, ...(speaker && { speaker }) }, number }
}

const fault = (source: string, what: string): DataError => new DataError(`${source}: ${what}`, { item: source })
