import { dirname, resolve } from 'node:path'
import { requireOneOf, requireOptions } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { readJson } from '../../../files/json/json.js'
import { BadRecords, type OnBadRecord } from '../../../kit/records.js'
import { splitEmotions } from '../data/emotion-suffix.js'
import type { SalmonnEntry } from '../data/entry.js'

export interface ReadSalmonnAnnotationsOptions {
  /** The folder that audio paths are relative to. Default: that of each annotation file. */
  audioRoot?: string
  /** Whether entries need an answer: to learn from they do (default). */
  targets?: 'required' | 'optional'
  /** Default 'stop'. */
  onBadItem?: OnBadRecord
}

export interface SalmonnAnnotations {
  entries: SalmonnEntry[]
  badItems: number
  badItemErrors: DataError[]
  /** Fields that occur and are not read. */
  ignoredFields: string[]
}

/** Published items: `path` with its text, or a dialog of several clips. */
const FIELDS = new Set([
  ...['path', 'text', 'task', 'Q', 'expand_wav', 'id', 'speaker'],
  ...['dialogue_id', 'input_text', 'target_text', 'audio_files', 'emotion_sequence'],
])

/**
 * Reads annotation files, one after the other, each a list or `{ "annotation": list }`. An item is either the original's,
 * `{ path, text, task = 'asr', Q, expand_wav }`, or the challenge's after conversion, `{ dialogue_id, task, input_text,
 * target_text, audio_files, emotion_sequence }`. `speaker` may stand in both.
 *
 * @throws DataError naming file and item for one that cannot be used, unless `onBadItem` is 'skip'
 */
export async function readSalmonnAnnotations(
  files: string | readonly string[],
  options: ReadSalmonnAnnotationsOptions = {},
): Promise<SalmonnAnnotations> {
  const where = 'readSalmonnAnnotations'
  requireOptions(where, options, ['audioRoot', 'targets', 'onBadItem'])
  const { audioRoot, targets = 'required', onBadItem = 'stop' } = options
  requireOneOf(where, 'targets', targets, ['required', 'optional'])
  requireOneOf(where, 'onBadItem', onBadItem, ['stop', 'skip'])
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
        if (entry.target === '' && targets === 'required') throw fault(source, 'it has no answer to learn from')
        for (const field of Object.keys(item as object)) if (!FIELDS.has(field)) ignored.add(field)
        entries.push(entry)
      } catch (error) {
        bad.add(error)
      }
    }
  }
  return { entries, badItems: bad.count, badItemErrors: bad.errors, ignoredFields: [...ignored].sort() }
}

/** @throws DataError saying where the item stands and what is wrong with it */
export function salmonnEntry(item: unknown, source: string, folder: string): SalmonnEntry {
  if (typeof item !== 'object' || item === null || Array.isArray(item)) throw fault(source, 'it is no object')
  const record = item as Record<string, unknown>
  const text = (field: string): string => {
    const value = record[field] ?? ''
    if (typeof value === 'string') return value
    throw fault(source, `its ${field} is no text`)
  }
  const own = record.audio_files !== undefined
  if (own === (record.path !== undefined)) throw fault(source, 'it needs either path or audio_files')
  const audio = own ? paths(record, 'audio_files', source) : [text('path'), ...paths(record, 'expand_wav', source)]
  if (audio.length === 0 || audio.includes('')) throw fault(source, 'it names no sound file')
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
  throw new DataError(`${file} must hold a list of items, or { "annotation": list }`, { file })
}

function paths(record: Record<string, unknown>, field: string, source: string): string[] {
  const value = record[field] ?? []
  if (Array.isArray(value) && value.every((path) => typeof path === 'string')) return value
  throw fault(source, `its ${field} is no list of paths`)
}

function emotionsOf(value: unknown, source: string): string[] | undefined {
  if (value === undefined || value === null) return undefined
  const list = typeof value === 'string' ? splitEmotions(value) : value
  if (!Array.isArray(list) || !list.every((label) => typeof label === 'string')) {
    throw fault(source, 'its emotion_sequence is no list of labels')
  }
  return list.length > 0 ? list.map((label: string) => label.trim().toLowerCase()) : undefined
}

const fault = (source: string, what: string): DataError => new DataError(`${source}: ${what}`, { item: source })
