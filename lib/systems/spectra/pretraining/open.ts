import { existsSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { misuse, requireFunction, requireOptions, requireString } from '../../../base/check.js'
import { ConfigError, DataError } from '../../../base/errors.js'
import { jsonlDataset } from '../../../data/jsonl-dataset.js'
import { readJson } from '../../../files/json/json.js'
import { readJsonl } from '../../../files/json/jsonl.js'
import type { SpectraEntry } from './entry.js'
import { readSlice } from './source-audio.js'

/** Entries by number, and their audio. */
export interface SpectraPretrainingSource {
  readonly length: number
  /** For each entry the one of the turn before, -1 where there is none. */
  readonly previous: Int32Array
  get(index: number): SpectraEntry | Promise<SpectraEntry>
  /** The samples of an entry, 16 kHz. */
  audio(entry: SpectraEntry): Promise<Float32Array>
}

/**
 * Opens a folder that `prepareSpectraPretraining` or `importPublishedSpectraPretraining` wrote. Entries and audio stay in
 * their files: memory holds 20 bytes for each entry. Every entry is checked once, here.
 * @param options.audioRoot what the audio's paths are relative to. Default: what `info.json` says, else the folder
 * @throws DataError with the line of an entry that is not sound
 */
export async function openSpectraPretraining(
  directory: string,
  options: { audioRoot?: string } = {},
): Promise<SpectraPretrainingSource> {
  const where = 'openSpectraPretraining'
  requireString(where, 'directory', directory)
  requireOptions(where, options, ['audioRoot'])
  const info = join(directory, 'info.json')
  const said = existsSync(info) ? ((await readJson(info)) as { audioRoot?: unknown } | null)?.audioRoot : undefined
  const audioRoot = options.audioRoot ?? (typeof said === 'string' ? said : directory)
  requireString(where, 'audioRoot', audioRoot)
  const file = join(directory, 'entries.jsonl')
  const lines = await jsonlDataset<SpectraEntry>(file)
  const previous = new Int32Array(lines.length)
  let i = 0
  for await (const row of readJsonl(file, { skipBlank: true })) {
    requireEntry(row, i, lines.length, file)
    previous[i++] = row.previous
  }
  return {
    length: lines.length,
    previous,
    get: (index) => lines.get(index),
    audio: ({ audio }) => readSlice(resolve(audioRoot, audio)),
  }
}

/**
 * Entries that are in memory, with a function that gives their samples.
 * @throws DataError for an entry that is not sound
 */
export function spectraPretrainingSource(
  entries: readonly SpectraEntry[],
  audio: (entry: SpectraEntry) => Float32Array | Promise<Float32Array>,
): SpectraPretrainingSource {
  const where = 'spectraPretrainingSource'
  if (!Array.isArray(entries)) throw misuse(where, 'entries', 'an array of entries', entries)
  requireFunction(where, 'audio', audio)
  for (const [i, entry] of entries.entries()) requireEntry(entry, i, entries.length, 'entries')
  return {
    length: entries.length,
    previous: Int32Array.from(entries, (entry) => entry.previous),
    get: (index) => entries[index] as SpectraEntry,
    audio: async (entry) => audio(entry),
  }
}

/** Entries that can be trained on: those with a turn before them. */
export function examplesOf({ length, previous }: SpectraPretrainingSource): Uint32Array {
  const examples = Uint32Array.from(previous.keys()).filter((i) => (previous[i] as number) >= 0)
  if (examples.length === 0) {
    throw new ConfigError(`none of the ${length} entries has a turn before it: pre-training needs dialogs`, { length })
  }
  if (length < 3) {
    throw new ConfigError(`there are ${length} entries: negatives need one that is neither turn`, { length })
  }
  return examples
}

function requireEntry(row: unknown, index: number, count: number, file: string): asserts row is SpectraEntry {
  const entry = row as Partial<SpectraEntry> | null
  const whole = Number.isSafeInteger
  const ids = entry?.inputIds
  const wrong =
    typeof entry?.audio !== 'string'
      ? 'audio must be a path'
      : !Array.isArray(ids) || ids.length < 2 || !ids.every((id) => whole(id) && id >= 0)
        ? 'inputIds must be token ids, <s> and </s> among them'
        : !whole(entry.previous) || (entry.previous as number) >= count || entry.previous === index
          ? `previous must be another of the ${count} entries, or -1`
          : (entry.previous as number) < -1
            ? 'previous must be -1 where there is none'
            : wrongWord(entry.words, ids.length)
  if (wrong) throw new DataError(`${file}, entry ${index}: ${wrong}`, { file, entry: index })
}

function wrongWord(words: unknown, tokens: number): string | undefined {
  if (!Array.isArray(words)) return 'words must be a list'
  let next = 1
  for (const [i, word] of words.entries()) {
    const [text, first, end, start, stop] = Array.isArray(word) ? word : []
    const sound =
      typeof text === 'string' && first >= next && end > first && end < tokens && start >= 0 && stop >= start
    if (!sound || ![first, end, start, stop].every(Number.isSafeInteger)) {
      return `word ${i} must be [text, firstToken, endToken, startSample, endSample], in order and within the ids`
    }
    next = end
  }
  return undefined
}
