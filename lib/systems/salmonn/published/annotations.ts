import { dirname, resolve } from 'node:path'
import { shown } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { type ChangesOf, settings } from '../../../base/settings.js'
import { readJson } from '../../../files/json/json.js'
import { BadRecords } from '../../../kit/records.js'
import { splitEmotions } from '../data/emotion-suffix.js'
import { BAD_ITEM_SETTINGS, type SalmonnEntry } from '../data/entry.js'

const ANNOTATION_SETTINGS = settings({
  /** Base folder of relative audio paths. Default: the folder of each annotation file. */
  audioRoot: { type: 'string' },
  /** Whether entries need an answer, as training does. */
  targets: { type: ['required', 'optional'], default: 'required' },
  ...BAD_ITEM_SETTINGS.table,
})

/** @interface */
export type ReadSalmonnAnnotationsOptions = ChangesOf<typeof ANNOTATION_SETTINGS.table>

export interface SalmonnAnnotations {
  entries: SalmonnEntry[]
  badItems: number
  badItemErrors: DataError[]
  /** Fields that occur and are ignored. */
  ignoredFields: string[]
}

/** Fields of published items: `path` with its text, or a dialog of several clips. */
const FIELDS = new Set([
  ...['path', 'text', 'task', 'Q', 'expand_wav', 'id', 'speaker'],
  ...['dialogue_id', 'input_text', 'target_text', 'audio_files', 'emotion_sequence'],
])

/**
 * Read annotation files in order, each a list or `{ "annotation": list }`. An item has either the original's format, `{ path, text, task =
 * 'asr', Q, expand_wav }`, or that of the converted challenge, `{ dialogue_id, task, input_text, target_text, audio_files, emotion_sequence }`.
 * Both can have `speaker`.
 *
 * @throws DataError naming file and item for an invalid item, unless `onBadItem` is 'skip'
 */
export async function readSalmonnAnnotations(
  files: string | readonly string[],
  options: ReadSalmonnAnnotationsOptions = {},
): Promise<SalmonnAnnotations> {
  const where = 'readSalmonnAnnotations'
  const { audioRoot, targets, onBadItem } = ANNOTATION_SETTINGS.read(where, options)
  const paths = typeof files === 'string' ? [files] : files
  requireForm(where, 'files', paths, ['string'])
  const bad = new BadRecords(onBadItem)
  const ignored = new Set<string>()
  const entries: SalmonnEntry[] = []
  for (const file of paths) {
    for (const [i, item] of itemsOf(await readJson(file), file).entries()) {
      const source = `${file}, item ${i + 1}`
      try {
        const entry = salmonnEntry(item, source, audioRoot ?? dirname(file))
        if (entry.target === '' && targets === 'required')
          throw fault(source, 'expected an answer (text or target_text) for training, got none.')
        for (const field of Object.keys(item as object)) if (!FIELDS.has(field)) ignored.add(field)
        entries.push(entry)
      } catch (error) {
        bad.add(error)
      }
    }
  }
  return { entries, badItems: bad.count, badItemErrors: bad.errors, ignoredFields: [...ignored].sort() }
}

/** @throws DataError naming the place of an invalid item, and the error */
export function salmonnEntry(item: unknown, source: string, folder: string): SalmonnEntry {
  if (typeof item !== 'object' || item === null || Array.isArray(item))
    throw fault(source, `expected a JSON object, got ${shown(item)}.`)
  const record = item as Record<string, unknown>
  const text = (field: string): string => {
    const value = record[field] ?? ''
    if (typeof value === 'string') return value
    throw fault(source, `expected ${field} to be a string, got ${shown(value)}.`)
  }
  const own = record.audio_files !== undefined
  if (own === (record.path !== undefined))
    throw fault(source, `expected either path or audio_files, got ${own ? 'both' : 'neither'}.`)
  const audio = own ? paths(record, 'audio_files', source) : [text('path'), ...paths(record, 'expand_wav', source)]
  if (audio.length === 0 || audio.includes(''))
    throw fault(source, 'expected at least one audio file, got none or an empty path.')
  const id = text(own ? 'dialogue_id' : 'id') || (own ? source : (audio[0] as string))
  return {
    id,
    task: text('task') || (own ? 'task1_emotional_trajectory' : 'asr'),
    audio: audio.map((path) => resolve(folder, path)),
    target: own ? text('target_text') : text('text'),
    question: text('Q') || text('input_text'),
    emotions: emotionsOf(record.emotion_sequence, source),
    dialog: text('dialogue_id') || id,
    speaker: text('speaker') || undefined,
    trailingGap: own,
    source,
  }
}

function itemsOf(value: unknown, file: string): unknown[] {
  const list = Array.isArray(value) ? value : (value as { annotation?: unknown } | null)?.annotation
  if (Array.isArray(list)) return list
  throw new DataError(`${file}: expected a list of items, or { "annotation": list }, got ${shown(value)}.`, { file })
}

function paths(record: Record<string, unknown>, field: string, source: string): string[] {
  const value = record[field] ?? []
  if (Array.isArray(value) && value.every((path) => typeof path === 'string')) return value
  throw fault(source, `expected ${field} to be a list of paths, got ${shown(value)}.`)
}

function emotionsOf(value: unknown, source: string): string[] | undefined {
  if (value === undefined || value === null) return undefined
  const list = typeof value === 'string' ? splitEmotions(value) : value
  if (!Array.isArray(list) || !list.every((label) => typeof label === 'string')) {
    throw fault(source, `expected emotion_sequence to be a list of labels, got ${shown(value)}.`)
  }
  return list.length > 0 ? list.map((label: string) => label.trim().toLowerCase()) : undefined
}

const fault = (source: string, what: string): DataError => new DataError(`${source}: ${what}`, { item: source })
