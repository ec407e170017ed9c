import { dirname, extname, isAbsolute, relative, resolve } from 'node:path'
import { requireOneOf, requireOptions, requireString } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { didYouMean, shortened } from '../../../base/words.js'
import { jsonlDataset } from '../../../data/jsonl-dataset.js'
import { BadRecords, type OnBadRecord } from '../../../kit/records.js'
import { groupDialogs, type UsdmDialogs, type UsdmSpokenTurn } from './dialogs.js'

/** A line of data of one's own: one turn of a dialog. */
export interface UsdmRecord {
  /** What the dialog is called. */
  dialog: string | number
  /** Its place in the dialog, from 0. */
  turn: number
  speaker: string | number
  text: string
  /** A sound file in any format that `readAudio` knows, relative to the JSONL file or to `audioRoot`. */
  wav: string
}

export interface ReadUsdmJsonlOptions {
  /** What `wav` is relative to. Default: the folder of the file. */
  audioRoot?: string
  /** What a line or dialog that cannot be used does: 'stop' (default) throws; 'skip' leaves the dialog out and counts it. */
  onBadRecord?: OnBadRecord
}

export interface UsdmJsonlDialogs extends UsdmDialogs {
  badRecords: number
  badRecordErrors: DataError[]
}

const FIELDS = ['dialog', 'turn', 'speaker', 'text', 'wav'] as const

/**
 * Reads spoken dialogs of one's own: a JSON record for each turn (see {@link UsdmRecord}), in any order.
 * @throws DataError with `file` and `line` for a record that lacks a field or has an unknown one, and for a turn that is missing
 */
export async function readUsdmJsonl(file: string, options: ReadUsdmJsonlOptions = {}): Promise<UsdmJsonlDialogs> {
  const where = 'readUsdmJsonl'
  requireString(where, 'file', file)
  requireOptions(where, options, ['audioRoot', 'onBadRecord'])
  const { audioRoot = dirname(file), onBadRecord = 'stop' } = options
  requireString(where, 'audioRoot', audioRoot)
  requireOneOf(where, 'onBadRecord', onBadRecord, ['stop', 'skip'])
  const bad = new BadRecords(onBadRecord)
  const lines = await jsonlDataset(file, { onBadRecord })
  bad.addAll(lines.badRecords, [...lines.badRecordErrors])
  const turns: UsdmSpokenTurn[] = []
  const clips = new Map<string, string>()
  for (let i = 0; i < lines.length; i += 1) {
    const line = lines.index.lines[i] as number
    try {
      const turn = turnOf(await lines.get(i), { file, line }, audioRoot)
      const { path } = turn.audio
      const other = clips.get(turn.clip) ?? path
      // Their units would go by one name.
      if (other !== path) {
        throw new DataError(`${file}, line ${line}: ${path} and ${other} differ in their endings only`, { file, line })
      }
      clips.set(turn.clip, path)
      turns.push(turn)
    } catch (error) {
      bad.add(error, { file, line })
    }
  }
  if (turns.length === 0) throw new DataError(`${file} holds no usable record`, { file, badRecords: bad.count })
  return { ...groupDialogs(turns, bad), badRecords: bad.count, badRecordErrors: bad.errors }
}

function turnOf(value: unknown, place: { file: string; line: number }, audioRoot: string): UsdmSpokenTurn {
  const fault = (what: string) => new DataError(`${place.file}, line ${place.line}: ${what}`, { ...place })
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw fault('the record is no object')
  const record = value as Record<string, unknown>
  for (const name of Object.keys(record)) {
    if (!(FIELDS as readonly string[]).includes(name))
      throw fault(`unknown field '${shortened(name)}'${didYouMean(name, FIELDS)}`)
  }
  for (const name of FIELDS) if (record[name] === undefined) throw fault(`the field '${name}' is missing`)
  const { dialog, turn, speaker, text, wav } = record
  const isName = (name: unknown) => (typeof name === 'string' && name !== '') || Number.isSafeInteger(name)
  if (!isName(dialog)) throw fault("'dialog' must be a text or a whole number")
  if (!isName(speaker)) throw fault("'speaker' must be a text or a whole number")
  if (!Number.isSafeInteger(turn) || (turn as number) < 0) throw fault("'turn' must be a whole number of at least 0")
  if (typeof text !== 'string' || text.trim() === '') throw fault("'text' must be a text that says something")
  if (typeof wav !== 'string' || wav === '') throw fault("'wav' must be the path of a sound file")
  const path = resolve(audioRoot, wav)
  return {
    dialog: String(dialog),
    turn: turn as number,
    speaker: String(speaker),
    text,
    audio: { path },
    clip: clipName(path, audioRoot),
    ...place,
  }
}

/** Its path from the root without the ending; of what lies elsewhere, the whole path. */
export function clipName(path: string, root: string): string {
  const inside = relative(resolve(root), path)
  const name = inside.startsWith('..') || isAbsolute(inside) ? path.replace(/^[/\\]+/, '').replaceAll(':', '') : inside
  return name.slice(0, name.length - extname(name).length).replaceAll('\\', '/')
}
