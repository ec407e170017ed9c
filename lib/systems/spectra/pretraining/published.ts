import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { writeFolderAtomically } from '../../../base/atomic-folder.js'
import { requireString, shown } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import type { ChangesOf } from '../../../base/settings.js'
import { writeJson } from '../../../files/json/json.js'
import { writeJsonl } from '../../../files/json/jsonl.js'
import { readPickle } from '../../../files/pickle/read-pickle.js'
import { BadRecords, onBadRecordOf } from '../../../kit/records.js'
import { BAD_ITEM_SETTINGS, type SpectraEntry, type SpectraWord, withUsableWords } from './entry.js'

/** @interface */
export type PublishedSpectraOptions = ChangesOf<typeof BAD_ITEM_SETTINGS.table>

export interface PublishedSpectra {
  entries: SpectraEntry[]
  /** Number of items left out, by reason. Such entries keep their index, as links are by index, but have no words or link. */
  skipped: Record<string, number>
  /** The first hundred errors. */
  badRecordErrors: DataError[]
}

/**
 * Read the original's pre-training pickles (`transForV4.pkl`): a list of
 * `[npy_path, token_ids, word_0, …, word_n-1, prev_index]`, each word `[text, first_token, end_token, start_sample,
 * end_sample]`. For a folder, all of its files are read, sorted by name; links are within a file.
 *
 * Words without tokens or with invalid times are left out (`wordTokens`, `wordTimes`), and entries without words or with an invalid link
 * lose their link (`noWords`, `badLink`). With `onBadRecord: 'stop'` each of these is a DataError.
 * @throws DataError naming file and entry for any other structure
 */
export async function readPublishedSpectraPretraining(
  path: string,
  options: PublishedSpectraOptions = {},
): Promise<PublishedSpectra> {
  const where = 'readPublishedSpectraPretraining'
  requireString(where, 'path', path)
  const bad = new BadRecords(onBadRecordOf(where, BAD_ITEM_SETTINGS.read(where, options), 'skip'))
  const entries: SpectraEntry[] = []
  for (const file of await leaves(path)) {
    const rows = await readPickle<unknown>(file)
    if (!Array.isArray(rows)) throw new DataError(`${file}: expected a list of entries, got ${shown(rows)}`, { file })
    const offset = entries.length
    for (const [i, row] of rows.entries()) entries.push(entryOf(row, i, rows.length, offset, file, bad))
  }
  return { entries, skipped: bad.reasons, badRecordErrors: bad.errors }
}

/**
 * Convert the original's pickles to a folder for `openSpectraPretraining`, which does not load them into memory.
 * @param audioRoot folder that the paths of the .npy files are relative to
 */
export async function importPublishedSpectraPretraining(
  path: string,
  output: string,
  audioRoot: string,
  options: PublishedSpectraOptions = {},
): Promise<Omit<PublishedSpectra, 'entries'> & { entries: number }> {
  requireString('importPublishedSpectraPretraining', 'output', output)
  requireString('importPublishedSpectraPretraining', 'audioRoot', audioRoot)
  const { entries, ...left } = await readPublishedSpectraPretraining(path, options)
  await writeFolderAtomically(output, DataError, async (folder) => {
    await writeJsonl(join(folder, 'entries.jsonl'), entries)
    await writeJson(join(folder, 'info.json'), { form: 'spectra-pretraining-1', audioRoot, skipped: left.skipped })
  })
  return { entries: entries.length, ...left }
}

async function leaves(path: string): Promise<string[]> {
  const facts = await stat(path).catch((cause: Error) => {
    throw new DataError(`${path}: expected a readable file or folder: ${cause.message}`, { file: path, cause })
  })
  if (!facts.isDirectory()) return [path]
  const found = await readdir(path, { recursive: true, withFileTypes: true })
  return found
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .sort()
}

function entryOf(
  row: unknown,
  index: number,
  count: number,
  offset: number,
  file: string,
  bad: BadRecords,
): SpectraEntry {
  const place = `${file}, entry ${index}`
  const fields = { file, entry: index }
  const [audio, ids, ...rest] = Array.isArray(row) ? row : []
  const link: unknown = rest.pop()
  const isWhole = (value: unknown): value is number => Number.isSafeInteger(value)
  if (typeof audio !== 'string' || !Array.isArray(ids) || ids.length < 2 || !ids.every(isWhole) || !isWhole(link)) {
    throw new DataError(`${place}: expected [npy_path, token_ids, words..., prev_index], got ${shown(row)}`, fields)
  }
  const words = rest.map((word: unknown, i) => {
    const good = Array.isArray(word) && word.length === 5 && typeof word[0] === 'string' && word.slice(1).every(isWhole)
    if (!good) {
      throw new DataError(`${place}: word ${i}: expected [text, first, end, start, end], got ${shown(word)}`, {
        ...fields,
        word: i,
      })
    }
    return word as unknown as SpectraWord
  })
  const whole = { audio, inputIds: ids, words, previous: link < 0 ? -1 : link + offset }
  // The length of the audio is unknown until it is read.
  const entry = withUsableWords(whole, Number.POSITIVE_INFINITY, place, bad)
  if (link >= count || link === index) {
    bad.note(
      'badLink',
      `${place}: expected a link to another of ${count} entries, got ${link}. Correct the link.`,
      fields,
    )
    return { ...entry, previous: -1 }
  }
  if (entry.words.length > 0) return entry
  bad.note('noWords', `${place}: expected words, got none. Leave it out.`, fields)
  return { ...entry, previous: -1 }
}
