import { dirname } from 'node:path'
import { requireOneOf, requireOptions } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { jsonlDataset } from '../../../data/jsonl-dataset.js'
import type { OnBadRecord } from '../../../kit/records.js'
import { BadRecords } from '../../../kit/records.js'

/** A turn: what the user says, and what the system replies. */
export interface HumDialTurn {
  /** The transcript, with tags such as [laughter]. */
  text: string
  /** In lower case; '' where it is not told. */
  emotion: string
  /** The sound of the user's turn, as the file names it. */
  audio: string
  /** '' where there is none. */
  reply: string
  /** Where each turn has a speaker of its own. */
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
  /** The folder of the file, which its audio paths are relative to. */
  folder: string
}

/**
 * Reads the challenge's JSON Lines: `{ dialogue_id, turns: [{ turn_id, text, emotion, split_audio_file, response_txt }] }`,
 * three to five turns or any other number. The reply is `response_txt`, as in the training files, or `response_text`, as in
 * the scoring scripts. Turns come in the order of `turn_id`. Blank lines do not count. In a dialog between people each turn
 * has a `speaker`, and needs neither words nor a reply.
 *
 * @throws DataError with file and line for a dialog that cannot be used, unless `onBadItem` is 'skip'
 */
export async function readHumDial(file: string, options: { onBadItem?: OnBadRecord } = {}): Promise<HumDialData> {
  requireOptions('readHumDial', options, ['onBadItem'])
  const { onBadItem = 'stop' } = options
  requireOneOf('readHumDial', 'onBadItem', onBadItem, ['stop', 'skip'])
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
 * A dialog of the challenge. @param number what it is called where it has no id
 * @throws DataError naming `source`, and the turn that cannot be used
 */
export function humDialDialog(value: unknown, source: string, number: string): HumDialDialog {
  const record = (value ?? {}) as Record<string, unknown>
  const { dialogue_id: id = number, turns, speaker } = record
  if (typeof value !== 'object' || Array.isArray(value)) throw fault(source, 'it is no object')
  if (typeof id !== 'string') throw fault(source, 'its dialogue_id is no text')
  if (!Array.isArray(turns) || turns.length === 0) throw fault(source, 'it has no turns')
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
  if (typeof value !== 'object' || value === null) throw fault(source, 'it is no object')
  const record = value as Record<string, unknown>
  const text = (field: string): string | undefined => {
    const found = record[field]
    if (found === undefined || found === null) return undefined
    if (typeof found === 'string') return found
    throw fault(source, `its ${field} is no text`)
  }
  const needed = (field: string): string => {
    const found = text(field)
    if (found) return found
    throw fault(source, `it has no ${field}`)
  }
  const reply = text('response_txt') ?? text('response_text')
  const speaker = text('speaker')
  if (!reply && !speaker && index < count - 1) throw fault(source, 'it has neither response_txt nor response_text')
  const number = record.turn_id ?? index + 1
  if (typeof number !== 'number') throw fault(source, 'its turn_id is no number')
  const emotion = (text('emotion') ?? '').trim().toLowerCase()
  const words = speaker ? (text('text') ?? '') : needed('text')
  const turn = { text: words, emotion, audio: needed('split_audio_file'), reply: reply ?? '' }
  return { turn: { ...turn, ...(speaker && { speaker }) }, number }
}

const fault = (source: string, what: string): DataError => new DataError(`${source}: ${what}`, { item: source })
