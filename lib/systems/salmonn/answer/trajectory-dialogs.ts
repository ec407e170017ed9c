import { dirname } from 'node:path'
import { defined, listOf, requireString } from '../../../base/check.js'
import { ConfigError, DataError } from '../../../base/errors.js'
import { type ChangesOf, settings } from '../../../base/settings.js'
import { jsonlDataset } from '../../../data/jsonl-dataset.js'
import { readJson } from '../../../files/json/json.js'
import { BadRecords } from '../../../kit/records.js'
import { BAD_ITEM_SETTINGS, type SalmonnEntry } from '../data/entry.js'
import { DIALOG_TEXT_SETTINGS, type DialogTextOptions, trajectoryRequest } from '../data/history.js'
import { salmonnEntry } from '../published/annotations.js'
import { convertHumDial } from '../published/convert.js'
import { type HumDialDialog, humDialDialog } from '../published/humdial.js'

/** A dialog for emotion prediction: the model's input, and the speaker of each clip. */
export interface TrajectoryDialog {
  id: string
  entry: SalmonnEntry
  /** Turns, in the order of the clips. */
  turns: { speaker: string; text?: string; reference?: string }[]
  /** Dialog in the challenge's format, for a judge. */
  dialog?: HumDialDialog
}

const READ_SETTINGS = settings({
  /** Base folder of relative audio paths. Default: the folder of the file. */
  audioRoot: { type: 'string' },
  ...BAD_ITEM_SETTINGS.table,
  ...DIALOG_TEXT_SETTINGS.table,
})
const CLIP_SETTINGS = settings({ id: { type: 'string', default: 'dialog' }, ...DIALOG_TEXT_SETTINGS.table })

/** @interface */
export type ReadTrajectoryDialogsOptions = ChangesOf<typeof READ_SETTINGS.table>

export interface TrajectoryDialogs {
  dialogs: TrajectoryDialog[]
  badItems: number
  badItemErrors: DataError[]
}

/**
 * Read dialogs in the challenge's format or as written by the `convert` command. JSON Lines has one per line; JSON is one dialog, a list,
 * or `{ "annotation": list }`. In a dialog between people each turn has a `speaker`.
 *
 * @throws DataError naming file and line, or item, of an invalid dialog, unless `onBadItem` is 'skip'
 */
export async function readTrajectoryDialogs(
  file: string,
  options: ReadTrajectoryDialogsOptions = {},
): Promise<TrajectoryDialogs> {
  const where = 'readTrajectoryDialogs'
  requireString(where, 'file', file)
  const { audioRoot = dirname(file), onBadItem, ...text } = READ_SETTINGS.read(where, options)
  const bad = new BadRecords(onBadItem)
  const dialogs: TrajectoryDialog[] = []
  const known = new Map<string, string>()
  for await (const { value, source, number } of recordsOf(file, bad)) {
    try {
      const dialog = dialogOf(value, { source, number, audioRoot, text })
      const before = known.get(dialog.id)
      if (before !== undefined) {
        throw new DataError(`${source}: expected a unique id, got ${dialog.id}, which ${before} has too.`, {
          item: source,
        })
      }
      known.set(dialog.id, source)
      dialogs.push(dialog)
    } catch (error) {
      bad.add(error)
    }
  }
  return { dialogs, badItems: bad.count, badItemErrors: bad.errors }
}

/** Create a dialog from clips and their speakers, without transcripts. @throws ConfigError for an empty list */
export function dialogOfClips(
  clips: readonly { audio: string; speaker: string }[],
  options: ChangesOf<typeof CLIP_SETTINGS.table> = {},
): TrajectoryDialog {
  const where = 'dialogOfClips'
  const list = listOf(where, 'clips', clips, 'clips')
  if (list.length === 0) throw new ConfigError(`${where}.clips: expected at least one clip, got none.`, {})
  for (const [i, clip] of list.entries()) {
    requireString(where, `clips[${i}].audio`, clip?.audio)
    requireString(where, `clips[${i}].speaker`, clip.speaker)
  }
  const { id, ...text } = CLIP_SETTINGS.read(where, options)
  const turns = list.map(({ audio, speaker }) => ({ audio, speaker, text: '', emotion: '', reply: '' }))
  const item = {
    dialogue_id: id,
    input_text: trajectoryRequest({ turns }, text),
    audio_files: turns.map(({ audio }) => audio),
  }
  return { id, entry: salmonnEntry(item, id, '.'), turns: turns.map(({ speaker }) => ({ speaker })) }
}

/** Iterate over the records of a file, with the place of each. */
export async function* recordsOf(
  file: string,
  bad: BadRecords,
): AsyncGenerator<{ value: unknown; source: string; number: number }> {
  if (!/\.jsonl?$/i.test(file)) {
    throw new DataError(`${file}: expected a file name that ends in .json or .jsonl.`, { file })
  }
  if (/\.json$/i.test(file)) {
    const whole = await readJson(file)
    const wrapped = (whole as { annotation?: unknown } | null)?.annotation
    const list = Array.isArray(whole) ? whole : Array.isArray(wrapped) ? wrapped : [whole]
    for (const [i, value] of list.entries()) {
      yield { value, source: list.length === 1 ? file : `${file}, item ${i + 1}`, number: i + 1 }
    }
    return
  }
  const lines = await jsonlDataset(file, { onBadRecord: bad.policy })
  for (const error of lines.badRecordErrors) bad.add(error)
  bad.count = lines.badRecords
  for (let i = 0; i < lines.length; i += 1) {
    const number = lines.index.lines[i] as number
    yield { value: await lines.get(i), source: `${file}, line ${number}`, number }
  }
}

interface Reading {
  source: string
  number: number
  audioRoot: string
  text: DialogTextOptions
}

function dialogOf(value: unknown, { source, number, audioRoot, text }: Reading): TrajectoryDialog {
  if (typeof value === 'object' && value !== null && 'turns' in value) {
    const dialog = humDialDialog(value, source, `idx_${number}`)
    const turns = dialog.turns.map(({ text, emotion, speaker = dialog.speaker ?? 'user' }) => ({
      speaker,
      text,
      ...(emotion !== '' && { reference: emotion }),
    }))
    return { id: dialog.id, entry: salmonnEntry(convertHumDial(dialog, text), source, audioRoot), turns, dialog }
  }
  const entry = salmonnEntry(value, source, audioRoot)
  const turns = entry.audio.map((_, i) => {
    const reference = entry.emotions?.[i]
    return { speaker: entry.speaker ?? 'user', ...defined({ reference }) }
  })
  return { id: entry.id, entry, turns }
}
