import { existsSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { misuse, requireObject, requireOneOf, requireOptions, requireString } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
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

export interface ReadSpectraPicklesOptions {
  /** One of the four, or one's own with data in their form. */
  task: SpectraTaskName | SpectraTask
  /** Which splits to read. Default all three, each of which must then be there. */
  splits?: readonly SpectraSplit[]
  /** Default 'auto': decided for each file from all its samples, with an error where that leaves a doubt. */
  layout?: SpectraLayout | 'auto'
  /**
   * 'tensor' (default) holds all waveforms in memory; 'lazy' leaves those of an unpacked `.pkl` in the file and reads each
   * when a batch needs it.
   */
  arrays?: 'tensor' | 'lazy'
}

export interface SpectraPickles {
  splits: Partial<Record<SpectraSplit, SpectraSample[]>>
  /** What was read, and the layout that each file has. */
  files: { split: SpectraSplit; file: string; layout: SpectraLayout }[]
}

/**
 * Reads the published fine-tuning data: `<path>/<task>/{train,valid,test}.pkl`, the same files right in `<path>`, or
 * packed in `<path>/<task>.tgz`; `path` may also be the archive (.tgz, .tar.gz, .tar, .zip), which is gone through once
 * and not unpacked to the disk. See {@link SpectraLayout} for what the files hold. Nothing in them ever runs.
 *
 * Waveforms are tensors of the current scope in the dtype that the file has; no copy is made of them.
 *
 * @throws DataError naming the file and the sample: for a file that is missing or no pickle, a layout in doubt, a field
 * that is not what it should be
 */
export async function readSpectraPickles(path: string, options: ReadSpectraPicklesOptions): Promise<SpectraPickles> {
  const where = 'readSpectraPickles'
  requireString(where, 'path', path)
  requireOptions(where, options, ['task', 'splits', 'layout', 'arrays'])
  const { splits = SPECTRA_SPLITS, layout = 'auto', arrays = 'tensor' } = options
  const task = typeof options.task === 'string' ? publishedSpectraTask(options.task) : options.task
  requireObject(where, 'task', task)
  requireOneOf(where, 'layout', layout, [...SPECTRA_LAYOUTS, 'auto'])
  requireOneOf(where, 'arrays', arrays, ['tensor', 'lazy'])
  if (!Array.isArray(splits) || splits.length === 0) throw misuse(where, 'splits', 'a list of splits', splits)
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

/** Whether a path looks like published data: a folder with such pickles, or an archive. */
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
  if (!existsSync(path)) throw fault(path, 'there is no such file or folder')
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
    throw fault(path, `it has neither ${task}/ with ${names} nor ${task}.tgz`, { task })
  }
  yield* archived(archive, task, splits)
}

/** The splits in an archive, in its order. */
async function* archived(path: string, task: string, splits: readonly SpectraSplit[]): AsyncGenerator<Found> {
  const met = new Map<SpectraSplit, string>()
  for await (const entry of readArchive(path)) {
    const split = splitOf(entry.name, task)
    if (split === undefined || !splits.includes(split)) continue
    const other = met.get(split)
    if (other !== undefined) {
      throw fault(path, `it has ${JSON.stringify(other)} and ${JSON.stringify(entry.name)}, of which one is too many`, {
        entry: entry.name,
      })
    }
    met.set(split, entry.name)
    const place = new Place(path, DataError, entry.name)
    const feed = new StreamFeed(entry.stream() as AsyncGenerator<Buffer>, place)
    const { value } = await parsePickle(feed, { encoding: 'ascii', lazy: false })
    yield { split, file: `${path}, entry ${entry.name}`, root: value }
  }
  const missing = splits.filter((split) => !met.has(split))
  if (missing.length > 0) {
    throw fault(path, `it lacks ${missing.map((split) => `${task}/${split}.pkl`).join(', ')}`, { missing })
  }
}

/** Which split an entry is, in the task's folder or in none. */
function splitOf(name: string, task: string): SpectraSplit | undefined {
  const parts = name.split('/').filter((part) => part !== '' && part !== '.')
  const file = parts.pop()
  const folder = parts.pop()
  if (folder !== undefined && isPublishedTask(folder) && folder !== task) return undefined
  return SPECTRA_SPLITS.find((split) => file === `${split}.pkl`)
}

/** Training and evaluation must feed the network alike. */
function checkTogether({ splits, files }: SpectraPickles, path: string): void {
  const kinds = files.map(({ split, file }) => {
    const sample = splits[split]![0]!
    return { file, kind: `${sample.turnIds !== undefined}, ${sample.historyAudio !== undefined}` }
  })
  const odd = kinds.find(({ kind }) => kind !== kinds[0]!.kind)
  if (odd)
    throw fault(path, `${odd.file} and ${kinds[0]!.file} differ in whether samples have turn ids and history audio`)
}
