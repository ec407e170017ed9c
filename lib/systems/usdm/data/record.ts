import { dirname, extname, isAbsolute, relative, resolve } from 'node:path'
import { requireOneOf, requireOptions, requireString, shown } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { didYouMean, shortened } from '../../../base/words.js'
import { jsonlDataset } from '../../../data/jsonl-dataset.js'
import { BadRecords, type OnBadRecord } from '../../../kit/records.js'
import { groupDialogs, type UsdmDialogs, type UsdmSpokenTurn } from './dialogs.js'

/** A line of a JSON Lines file of dialogs: one turn. */
export interface UsdmRecord {
  /** Name of the dialog. */
  dialog: string | number
  /** Position in the dialog, from 0. */
  turn: number
  speaker: string | number
  text: string
  /** Audio file in any format that `readAudio` supports, relative to the JSONL file or to `audioRoot`. */
  wav: string
}

export interface ReadUsdmJsonlOptions {
  /** Folder that `wav` is relative to. Default: the folder of the file. */
  audioRoot?: string
  /** Action for a line or dialog that cannot be used: 'stop' (default) throws; 'skip' drops the dialog and counts it. */
  onBadRecord?: OnBadRecord
}

export interface UsdmJsonlDialogs extends UsdmDialogs {
  badRecords: number
  badRecordErrors: DataError[]
}

const FIELDS = ['dialog', 'turn', 'speaker', 'text', 'wav'] as const

/**
 * Read spoken dialogs from a JSON Lines file: one record per turn (see {@link UsdmRecord}), in any order.
 * @throws DataError with `file` and `line` for a missing or unknown field, and for a missing turn
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
      // Both clips would share one file of units.
      if (other !== path) {
        throw new DataError(
          `${file}, line ${line}: expected clips with different names, got ${path} and ${other}, which differ only in the extension. Rename one.`,
          { file, line },
        )
      }
      clips.set(turn.clip, path)
      turns.push(turn)
    } catch (error) {
      bad.add(error, { file, line })
    }
  }
  if (turns.length === 0) {
    throw new DataError(`${file}: expected at least one usable record, got none.`, { file, badRecords: bad.count })
  }
  return { ...groupDialogs(turns, bad), badRecords: bad.count, badRecordErrors: bad.errors }
}

function turnOf(value: unknown, place: { file: string; line: number }, audioRoot: string): UsdmSpokenTurn {
  const fault = (what: string) => new DataError(`${place.file}, line ${place.line}: ${what}`, { ...place })
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw fault(`expected a JSON object, got ${shown(value)}`)
  }
  const record = value as Record<string, unknown>
  for (const name of Object.keys(record)) {
    if (!(FIELDS as readonly string[]).includes(name))
      throw fault(`expected the fields ${FIELDS.join(', ')}, got '${shortened(name)}'${didYouMean(name, FIELDS)}`)
  }
  for (const name of FIELDS) if (record[name] === undefined) throw fault(`expected the field '${name}', got none`)
  const { dialog, turn, speaker, text, wav } = record
  const isName = (name: unknown) => (typeof name === 'string' && name !== '') || Number.isSafeInteger(name)
  if (!isName(dialog)) throw fault(`dialog: expected a non-empty string or an integer, got ${shown(dialog)}`)
  if (!isName(speaker)) throw fault(`speaker: expected a non-empty string or an integer, got ${shown(speaker)}`)
  if (!Number.isSafeInteger(turn) || (turn as number) < 0) {
    throw fault(`turn: expected an integer of at least 0, got ${shown(turn)}`)
  }
  if (typeof text !== 'string' || text.trim() === '') {
    throw fault(`text: expected a non-blank string, got ${shown(text)}`)
  }
  if (typeof wav !== 'string' || wav === '') throw fault(`wav: expected the path of an audio file, got ${shown(wav)}`)
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

/** Return the clip's path from the root, without extension. For a file outside of the root, use the whole path. */
export function clipName(path: string, root: string): string {
  const inside = relative(resolve(root), path)
  const name = inside.startsWith('..') || isAbsolute(inside) ? path.replace(/^[/\\]+/, '').replaceAll(':', '') : inside
  return name.slice(0, name.length - extname(name).length).replaceAll('\\', '/')
}
