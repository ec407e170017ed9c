import { existsSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { argumentError, requireFunction, requireOptions, requireString, shown } from '../../../base/check.js'
import { ConfigError, DataError } from '../../../base/errors.js'
import { jsonlDataset } from '../../../data/jsonl-dataset.js'
import { readJson } from '../../../files/json/json.js'
import { readJsonl } from '../../../files/json/jsonl.js'
import type { SpectraEntry } from './entry.js'
import { readSlice } from './source-audio.js'

/** Entries by index, and their audio. */
export interface SpectraPretrainingSource {
  readonly length: number
  /** Index of the previous turn's entry, -1 without one, per entry. */
  readonly previous: Int32Array
  get(index: number): SpectraEntry | Promise<SpectraEntry>
  /** Return the samples of an entry, at 16 kHz. */
  audio(entry: SpectraEntry): Promise<Float32Array>
}

/**
 * Open a folder that `prepareSpectraPretraining` or `importPublishedSpectraPretraining` wrote. Entries and audio stay in their files:
 * memory use is 20 bytes per entry. All entries are validated here.
 * @param options.audioRoot folder that audio paths are relative to. Default: that of `info.json`, else the folder
 * @throws DataError with the line of an invalid entry
 */
export async function openSpectraPretraining(
  directory: string,
  options: { audioRoot?: string } = {},
): Promise<SpectraPretrainingSource> {
  const where = 'openSpectraPretraining'
  requireString(where, 'directory', directory)
  requireOptions(where, options, ['audioRoot'])
  const info = join(directory, 'info.json')
  const savedRoot = existsSync(info) ? ((await readJson(info)) as { audioRoot?: unknown } | null)?.audioRoot : undefined
  const audioRoot = options.audioRoot ?? (typeof savedRoot === 'string' ? savedRoot : directory)
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
 * Return a source of entries in memory, with a function that returns their samples.
 * @throws DataError for an invalid entry
 */
export function spectraPretrainingSource(
  entries: readonly SpectraEntry[],
  audio: (entry: SpectraEntry) => Float32Array | Promise<Float32Array>,
): SpectraPretrainingSource {
  const where = 'spectraPretrainingSource'
  if (!Array.isArray(entries)) throw argumentError(where, 'entries', 'an array of entries', entries)
  requireFunction(where, 'audio', audio)
  for (const [i, entry] of entries.entries()) requireEntry(entry, i, entries.length, 'entries')
  return {
    length: entries.length,
    previous: Int32Array.from(entries, (entry) => entry.previous),
    get: (index) => entries[index] as SpectraEntry,
    audio: async (entry) => audio(entry),
  }
}

/** Return the entries that are examples: those with a previous turn. */
export function examplesOf({ length, previous }: SpectraPretrainingSource): Uint32Array {
  const examples = Uint32Array.from(previous.keys()).filter((i) => (previous[i] as number) >= 0)
  if (examples.length === 0) {
    throw new ConfigError(
      `SPECTRA pre-training: expected dialogs with at least two turns, got ${length} entries without a previous turn`,
      { length },
    )
  }
  if (length < 3) {
    throw new ConfigError(`SPECTRA pre-training: expected at least 3 entries, to draw negatives from, got ${length}`, {
      length,
    })
  }
  return examples
}

function requireEntry(row: unknown, index: number, count: number, file: string): asserts row is SpectraEntry {
  const entry = row as Partial<SpectraEntry> | null
  const isInteger = Number.isSafeInteger
  const ids = entry?.inputIds
  const wrong =
    typeof entry?.audio !== 'string'
      ? `audio: expected a path, got ${shown(entry?.audio)}`
      : !Array.isArray(ids) || ids.length < 2 || !ids.every((id) => isInteger(id) && id >= 0)
        ? `inputIds: expected token ids with <s> and </s>, got ${shown(ids)}`
        : !isInteger(entry.previous) || (entry.previous as number) >= count || entry.previous === index
          ? `previous: expected the index of another of the ${count} entries, or -1, got ${shown(entry.previous)}`
          : (entry.previous as number) < -1
            ? `previous: expected at least -1, got ${shown(entry.previous)}`
            : wrongWord(entry.words, ids.length)
  if (wrong) throw new DataError(`${file}, entry ${index}: ${wrong}`, { file, entry: index })
}

function wrongWord(words: unknown, tokens: number): string | undefined {
  if (!Array.isArray(words)) return `words: expected a list, got ${shown(words)}`
  let next = 1
  for (const [i, word] of words.entries()) {
    const [text, first, end, start, stop] = Array.isArray(word) ? word : []
    const isValid =
      typeof text === 'string' && first >= next && end > first && end < tokens && start >= 0 && stop >= start
    if (!isValid || ![first, end, start, stop].every(Number.isSafeInteger)) {
      return `words[${i}]: expected [text, firstToken, endToken, startSample, endSample], in order and within the ids, got ${shown(word)}`
    }
    next = end
  }
  return undefined
}
