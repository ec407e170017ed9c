import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { stat } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { argumentError, defined, isList, requireOptions, requireString } from '../base/check.js'
import { ConfigError, DataError } from '../base/errors.js'
import { unopened } from '../files/byte-source.js'
import { parseJson } from '../files/json/json.js'
import { ParquetFile } from '../files/parquet/file.js'
import { requireColumns } from '../files/parquet/parquet.js'
import { chunksOf } from '../files/text.js'
import { HUB_OPTIONS, isRepository, type ResolveModelOptions, resolveDataset } from '../hub/resolve.js'
import { jsonFeatures, type MediaFeatures } from './features.js'
import { type Layout, LONGEST_CARD, layoutOf } from './layout.js'
import { expandBraces, filesBelow, isPattern, matching } from './patterns.js'
import { type RecordFile, recordFile } from './record-files.js'
import { checkStreaming, STREAMING_OPTIONS, StreamingDataset, type StreamingOptions } from './streaming-dataset.js'

export interface LoadDatasetOptions extends StreamingOptions, Omit<ResolveModelOptions, 'files'> {
  /** Name of the split. Default `'train'`, or the only one. */
  split?: string
  /** Name of the configuration in the README.md. Default: the only one, the one marked as default, or `default`. */
  config?: string
}

/**
 * Open a dataset on the disk, or of the Hugging Face Hub, as a stream of records. `source` is one of:
 *
 * - a folder in the layout of the Hub: `configs` in the front matter of its README.md name the files, or the files have the usual
 *   names, such as `data/train-00000-of-00004.parquet` or `test.jsonl`. Columns are audio or images as `dataset_info` in the
 *   README.md states, or the Parquet files themselves
 * - a dataset of the Hub, such as `'org/name'`: the files of the split are downloaded to the cache first, as `resolveModel` does
 * - a file or a list of files: `.parquet`, `.jsonl`, `.json`, `.tar`, `.tar.gz`. Names may have braces, `shard-{00000..00003}.tar`,
 *   and patterns, `data/*.parquet`
 *
 * A record is an object with a value for each column: see `readParquet`, `readJsonl`. A tar file has the layout of WebDataset: a
 * record has a field for each extension, and `__key__`; `.json` is parsed, `.txt` is a string, `.cls` a number, audio and images
 * are {@link MediaFile}s, other files bytes. Nothing is written to the disk.
 *
 * ```ts
 * const dataset = await loadDataset('org/speech', { split: 'test', columns: ['audio', 'text'] })
 * for await (const { audio, text } of dataset.iterate()) console.log(await decodeAudio(audio), text)
 * ```
 *
 * @throws DataError with `file` for a missing file or shard, and later, with the row, line or key, for a record that cannot be read
 * @throws ConfigError for a split or configuration that the dataset does not have, or invalid options
 * @throws HubError if the repository is not available
 */
export async function loadDataset<T = Record<string, unknown>>(
  source: string | readonly string[],
  options: LoadDatasetOptions = {},
): Promise<StreamingDataset<T>> {
  const where = 'loadDataset'
  requireOptions(where, options, [...STREAMING_OPTIONS, ...HUB_OPTIONS, 'split', 'config'])
  const { split, config, columns, mediaRoot } = options
  checkStreaming(where, options)
  requireColumns(where, columns)
  for (const [name, value] of Object.entries({ split, config, mediaRoot })) {
    if (value !== undefined) requireString(where, name, value)
  }
  const found = await located(where, source, options)
  if (!found.isHub && options.revision !== undefined) {
    throw new ConfigError(`${where}: expected revision with a dataset of the Hub, got it with files. Leave it out`, {
      argument: 'revision',
    })
  }
  const names = found.layout?.files.map((path) => join(found.folder as string, path)) ?? found.files
  const files = names.map((path) => readerOf(path, columns))
  const inFiles = await parquetFeatures(names[0] as string)
  const features = { ...inFiles, ...found.layout?.features, ...options.features }
  const root = mediaRoot ?? found.folder
  return new StreamingDataset<T>(files, features, options, (file) => resolve(root ?? dirname(file)), {
    files: await digestOf(names, found.layout?.files ?? names.map((path) => basename(path))),
    ...(found.layout && { split: found.layout.split }),
  })
}

/** Return a text that differs for files of other names or sizes, or in another order. */
async function digestOf(paths: readonly string[], names: readonly string[]): Promise<string> {
  const hash = createHash('sha256')
  let bytes = 0
  for (const [i, path] of paths.entries()) {
    const { size } = await stat(path).catch((cause: Error) => {
      throw new DataError(`${path} cannot be read: ${unopened(path, cause)}`, { file: path, cause })
    })
    bytes += size
    hash.update(`${names[i]}\0${size}\n`)
  }
  return `${paths.length} files of ${bytes} bytes (${hash.digest('hex').slice(0, 16)})`
}

function readerOf(path: string, columns: readonly string[] | undefined): RecordFile {
  const file = recordFile(path, columns)
  if (file !== undefined) return file
  throw new DataError(`${path}: expected a file with the extension .parquet, .jsonl, .json, .tar, .tar.gz or .tgz`, {
    file: path,
  })
}

interface Located {
  isHub?: boolean
  folder?: string
  layout?: Layout
  files: string[]
}

async function located(
  where: string,
  source: string | readonly string[],
  options: LoadDatasetOptions,
): Promise<Located> {
  const expected = 'a folder, files, or a dataset of the Hub'
  if (isList(source)) {
    if (source.length === 0) throw argumentError(where, 'source', expected, source)
    const files: string[] = []
    for (const one of source as readonly string[]) {
      requireString(where, 'source', one)
      for (const file of await filesOf(one)) files.push(file)
    }
    return withoutSplit(where, files, options)
  }
  requireString(where, 'source', source)
  const facts = await stat(source as string).catch(() => undefined)
  const name = source as string
  if (facts?.isDirectory()) {
    const readme = await readCard(join(name, 'README.md'))
    return { folder: name, layout: await layoutOf(name, await filesBelow(name), readme, options), files: [] }
  }
  const looksLocal =
    facts !== undefined || isPattern(name) || name.includes('{') || recordFile(name, undefined) !== undefined
  if (looksLocal) return withoutSplit(where, await filesOf(name), options)
  if (!isRepository(name) || !name.includes('/')) {
    throw new DataError(`${name}: expected ${expected}, got a path that does not exist`, { file: name })
  }
  return ofHub(name, options)
}

function withoutSplit(where: string, files: string[], { split, config }: LoadDatasetOptions): Located {
  const own = split === undefined ? (config === undefined ? undefined : 'config') : 'split'
  if (own === undefined) return { files }
  throw new ConfigError(
    `${where}: expected ${own} with a folder or a dataset of the Hub, got it with files. Leave it out`,
    {
      argument: own,
    },
  )
}

/** Return the files that a path with braces and patterns names. */
async function filesOf(source: string): Promise<string[]> {
  const files: string[] = []
  for (const path of expandBraces(source)) {
    if (!isPattern(path) || (await stat(path).catch(() => undefined))?.isFile()) {
      files.push(path)
      continue
    }
    const parts = path.split('/')
    const first = parts.findIndex(isPattern)
    const folder = parts.slice(0, first).join('/') || (path.startsWith('/') ? '/' : '.')
    const found = matching(await filesBelow(folder), parts.slice(first).join('/'))
    if (found.length === 0) throw new DataError(`${path}: expected files that match, got none`, { file: path })
    for (const one of found) files.push(join(folder, one))
  }
  for (const file of files) {
    if ((await stat(file).catch(() => undefined)) === undefined) {
      throw new DataError(`${file}: expected a file, got a path that does not exist`, { file })
    }
  }
  return files
}

/** Return the beginning of a README.md, which is all that is parsed of it; undefined if there is none. */
async function readCard(file: string): Promise<Buffer | undefined> {
  if (!existsSync(file)) return undefined
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of chunksOf(file)) {
    chunks.push(chunk)
    size += chunk.length
    if (size >= LONGEST_CARD) break
  }
  return Buffer.concat(chunks).subarray(0, LONGEST_CARD)
}

/** Download the files of a split: the README.md first, which says which they are. */
async function ofHub(name: string, options: LoadDatasetOptions): Promise<Located> {
  const hub = defined(Object.fromEntries(HUB_OPTIONS.map((key) => [key, options[key]]))) as ResolveModelOptions
  let paths: readonly string[] = []
  const first = await resolveDataset(name, hub, async (all) => {
    paths = all
    return all.includes('README.md') ? ['README.md'] : (await layoutOf(name, all, undefined, options)).files
  })
  const readme = paths.includes('README.md') ? await readCard(join(first.folder, 'README.md')) : undefined
  const layout = await layoutOf(name, paths, readme, options)
  if (readme === undefined) return { isHub: true, folder: first.folder, layout, files: [] }
  // The commit of the README.md, whatever the branch points to by now.
  const { folder } = await resolveDataset(name, { ...hub, revision: first.commit }, async () => [
    'README.md',
    ...layout.files,
  ])
  return { isHub: true, folder, layout, files: [] }
}

/** Return the media that a Parquet file states, as Python's datasets writes them. */
async function parquetFeatures(path: string): Promise<MediaFeatures> {
  if (!path.toLowerCase().endsWith('.parquet')) return {}
  const file = await ParquetFile.open(path)
  await file.close()
  const text = file.metadata.get('huggingface')
  if (text === undefined) return {}
  const value = await parseJson([Buffer.from(text)], `${path}, huggingface`)
  const { info } = (value ?? {}) as { info?: { features?: unknown } | null }
  return jsonFeatures(info?.features)
}
