import { dirname } from 'node:path'
import { defined, listOf, requireOneOf, requireOptions, requireString } from '../../../base/check.js'
import { ConfigError, DataError } from '../../../base/errors.js'
import { jsonlDataset } from '../../../data/jsonl-dataset.js'
import { readJson } from '../../../files/json/json.js'
import { BadRecords, type OnBadRecord } from '../../../kit/records.js'
import type { SalmonnEntry } from '../data/entry.js'
import { type DialogTextOptions, trajectoryRequest } from '../data/history.js'
import { salmonnEntry } from '../published/annotations.js'
import { convertHumDial } from '../published/convert.js'
import { type HumDialDialog, humDialDialog } from '../published/humdial.js'

/** A dialog whose emotions are to be told: what the model is asked, and who says what in each clip. */
export interface TrajectoryDialog {
  id: string
  entry: SalmonnEntry
  /** In the order of the clips. */
  turns: { speaker: string; text?: string; reference?: string }[]
  /** As the challenge has it; a judge reads that. */
  dialog?: HumDialDialog
}

export interface ReadTrajectoryDialogsOptions extends DialogTextOptions {
  /** The folder that sound files are relative to. Default: that of the file. */
  audioRoot?: string
  /** Default 'stop'. */
  onBadItem?: OnBadRecord
}

export interface TrajectoryDialogs {
  dialogs: TrajectoryDialog[]
  badItems: number
  badItemErrors: DataError[]
}

/**
 * Reads dialogs: the challenge's, or what the `convert` step made of them. JSON Lines has one on each line; JSON is one, a
 * list, or `{ "annotation": list }`. In a dialog between people each turn has a `speaker`.
 *
 * @throws DataError naming file and line, or item, of one that cannot be used, unless `onBadItem` is 'skip'
 */
export async function readTrajectoryDialogs(
  file: string,
  options: ReadTrajectoryDialogsOptions = {},
): Promise<TrajectoryDialogs> {
  const where = 'readTrajectoryDialogs'
  requireString(where, 'file', file)
  requireOptions(where, options, ['audioRoot', 'onBadItem', 'language', 'style'])
  const { audioRoot = dirname(file), onBadItem = 'stop', ...text } = options
  requireOneOf(where, 'onBadItem', onBadItem, ['stop', 'skip'])
  const bad = new BadRecords(onBadItem)
  const dialogs: TrajectoryDialog[] = []
  const known = new Map<string, string>()
  for await (const { value, source, number } of recordsOf(file, bad)) {
    try {
      const dialog = dialogOf(value, { source, number, audioRoot, text })
      const before = known.get(dialog.id)
      if (before !== undefined) {
        throw new DataError(`${source}: ${before} has the same id, ${dialog.id}`, { item: source })
      }
      known.set(dialog.id, source)
      dialogs.push(dialog)
    } catch (error) {
      bad.add(error)
    }
  }
  return { dialogs, badItems: bad.count, badItemErrors: bad.errors }
}

/** Clips and who speaks in each as a dialog; words are not known. @throws ConfigError for none */
export function dialogOfClips(
  clips: readonly { audio: string; speaker: string }[],
  options: DialogTextOptions & { id?: string } = {},
): TrajectoryDialog {
  const where = 'dialogOfClips'
  const list = listOf(where, 'clips', clips, 'clips')
  if (list.length === 0) throw new ConfigError(`${where} was given no clips`, {})
  for (const [i, clip] of list.entries()) {
    requireString(where, `clips[${i}].audio`, clip?.audio)
    requireString(where, `clips[${i}].speaker`, clip.speaker)
  }
  requireOptions(where, options, ['language', 'style', 'id'])
  const { id = 'dialog', ...text } = options
  const turns = list.map(({ audio, speaker }) => ({ audio, speaker, text: '', emotion: '', reply: '' }))
  const item = {
    dialogue_id: id,
    input_text: trajectoryRequest({ turns }, text),
    audio_files: turns.map(({ audio }) => audio),
  }
  return { id, entry: salmonnEntry(item, id, '.'), turns: turns.map(({ speaker }) => ({ speaker })) }
}

/** What a file holds, one after the other, and where each stands. */
export async function* recordsOf(
  file: string,
  bad: BadRecords,
): AsyncGenerator<{ value: unknown; source: string; number: number }> {
  if (!/\.jsonl?$/i.test(file)) {
    throw new DataError(`${file} must end in .json or .jsonl`, { file })
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
