import { existsSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { argumentError, requireObject, requireOneOf, requireString } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { type ChangesOf, settings, unchecked } from '../../../base/settings.js'
import { readArchive } from '../../../files/archive.js'
import { Place } from '../../../files/byte-source.js'
import { StreamFeed } from '../../../files/pickle/feed.js'
import { parsePickle, readPickle } from '../../../files/pickle/read-pickle.js'
import { scope } from '../../../tensor/index.js'
import type { SpectraSample } from '../data/sample.js'
import { isPublishedTask, publishedSpectraTask, type SpectraTask, type SpectraTaskName } from '../evaluation/task.js'
import { fault, SPECTRA_LAYOUTS, type SpectraLayout } from './layouts.js'
import { publishedSamples } from './samples.js'

export const SPECTRA_SPLITS = ['train', 'valid', 'test'] as const
export type SpectraSplit = (typeof SPECTRA_SPLITS)[number]

const PICKLE_SETTINGS = settings({
  /** One of the four tasks, or your own with data in their format. */
  task: { type: unchecked<SpectraTaskName | SpectraTask>(), required: true },
  /** Splits to read. All of them must exist. */
  splits: { type: unchecked<readonly SpectraSplit[]>(), default: SPECTRA_SPLITS },
  /** 'auto': detected per file from all its samples, with an error if it is ambiguous. */
  layout: { type: [...SPECTRA_LAYOUTS, 'auto'], default: 'auto' },
  /**
   * 'tensor' keeps all waveforms in memory; 'lazy' leaves those of an uncompressed `.pkl` in the file, and reads each one when a batch
   * needs it.
   */
  arrays: { type: ['tensor', 'lazy'], default: 'tensor' },
})

/** @interface */
export type ReadSpectraPicklesOptions = ChangesOf<typeof PICKLE_SETTINGS.table>

export interface SpectraPickles {
  splits: Partial<Record<SpectraSplit, SpectraSample[]>>
  /** Files read, with the layout of each. */
  files: { split: SpectraSplit; file: string; layout: SpectraLayout }[]
}

/**
 * Read the published fine-tuning data: `<path>/<task>/{train,valid,test}.pkl`, the same files in `<path>`, or in the archive
 * `<path>/<task>.tgz`; `path` may also be an archive (.tgz, .tar.gz, .tar, .zip), which is read once and not extracted to the disk. See
 * {@link SpectraLayout} for the format. No code in the pickles is run.
 *
 * Waveforms are tensors of the current scope in the dtype of the file, without a copy.
 *
 * @throws DataError naming the file and the sample: for a missing file, an invalid pickle, an ambiguous layout, or an invalid field
 */
export async function readSpectraPickles(path: string, options: ReadSpectraPicklesOptions): Promise<SpectraPickles> {
  const where = 'readSpectraPickles'
  requireString(where, 'path', path)
  const { splits, layout, arrays } = PICKLE_SETTINGS.read(where, options)
  const task = typeof options.task === 'string' ? publishedSpectraTask(options.task) : options.task
  requireObject(where, 'task', task)
  if (!Array.isArray(splits) || splits.length === 0) throw argumentError(where, 'splits', 'a list of splits', splits)
  for (const split of splits) requireOneOf(where, 'a split', split, SPECTRA_SPLITS)
  const found: SpectraPickles = { splits: {}, files: [] }
  await scope(async () => {
    for await (const { split, file, root } of pickles(path, task.name, splits, arrays === 'lazy')) {
      const read = await publishedSamples(root, file, task, layout)
      found.splits[split] = read.samples
      found.files.push({ split, file, layout: read.layout })
    }
    return Object.values(found.splits).flatMap((samples) =>
      samples.flatMap(({ audio, historyAudio }) => [audio, historyAudio]),
    )
  })
  checkTogether(found, path)
  return found
}

/** Return whether a path is published data: a folder with such pickles, or an archive. */
export function isPublishedData(path: string, task: string): boolean {
  if (ARCHIVE.test(path)) return true
  const hasPickles = foldersOf(path, task).some((folder) => existsSync(join(folder, 'train.pkl')))
  return hasPickles || archiveIn(path, task) !== undefined
}

const ARCHIVE = /\.(tgz|tar\.gz|tar|zip)$/i
const foldersOf = (path: string, task: string): string[] => [join(path, task), path]
const archiveIn = (path: string, task: string): string | undefined =>
  ['.tgz', '.tar.gz', '.tar', '.zip'].map((end) => join(path, `${task}${end}`)).find((file) => existsSync(file))

interface Found {
  split: SpectraSplit
  file: string
  root: unknown
}

async function* pickles(
  path: string,
  task: string,
  splits: readonly SpectraSplit[],
  lazy: boolean,
): AsyncGenerator<Found> {
  if (!existsSync(path)) throw fault(path, 'expected a file or folder, which does not exist')
  if (!statSync(path).isDirectory()) {
    yield* archived(path, task, splits)
    return
  }
  const folder = foldersOf(path, task).find((one) => splits.every((split) => existsSync(join(one, `${split}.pkl`))))
  if (folder !== undefined) {
    for (const split of splits) {
      const file = join(folder, `${split}.pkl`)
      yield { split, file, root: await readPickle(file, { arrays: lazy ? 'lazy' : 'tensor' }) }
    }
    return
  }
  const archive = archiveIn(path, task)
  if (archive === undefined) {
    const names = splits.map((split) => `${split}.pkl`).join(', ')
    throw fault(path, `expected ${task}/ with ${names}, or ${task}.tgz, got neither`, { task })
  }
  yield* archived(archive, task, splits)
}

/** Read the splits of an archive, in its order. */
async function* archived(path: string, task: string, splits: readonly SpectraSplit[]): AsyncGenerator<Found> {
  const entryNames = new Map<SpectraSplit, string>()
  for await (const entry of readArchive(path)) {
    const split = splitOf(entry.name, task)
    if (split === undefined || !splits.includes(split)) continue
    const other = entryNames.get(split)
    if (other !== undefined) {
      throw fault(
        path,
        `expected one entry per split, got ${JSON.stringify(other)} and ${JSON.stringify(entry.name)}`,
        { entry: entry.name },
      )
    }
    entryNames.set(split, entry.name)
    const place = new Place(path, DataError, entry.name)
    const feed = new StreamFeed(entry.stream() as AsyncGenerator<Buffer>, place)
    const { value } = await parsePickle(feed, { encoding: 'ascii', lazy: false })
    yield { split, file: `${path}, entry ${entry.name}`, root: value }
  }
  const missing = splits.filter((split) => !entryNames.has(split))
  if (missing.length > 0) {
    throw fault(path, `expected ${missing.map((split) => `${task}/${split}.pkl`).join(', ')}, got an archive without`, {
      missing,
    })
  }
}

/** Return the split of an archive entry in the task's folder, or in no folder. */
function splitOf(name: string, task: string): SpectraSplit | undefined {
  const parts = name.split('/').filter((part) => part !== '' && part !== '.')
  const file = parts.pop()
  const folder = parts.pop()
  if (folder !== undefined && isPublishedTask(folder) && folder !== task) return undefined
  return SPECTRA_SPLITS.find((split) => file === `${split}.pkl`)
}

/** Check that all splits have the same kinds of fields, so that training and evaluation match. */
function checkTogether({ splits, files }: SpectraPickles, path: string): void {
  const kinds = files.map(({ split, file }) => {
    const sample = splits[split]![0]!
    return { file, kind: `${sample.turnIds !== undefined}, ${sample.historyAudio !== undefined}` }
  })
  const odd = kinds.find(({ kind }) => kind !== kinds[0]!.kind)
  if (odd)
    throw fault(
      path,
      `expected turn ids and history audio in all files or in none, got a difference between ${odd.file} and ${kinds[0]!.file}`,
    )
}
