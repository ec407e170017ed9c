import { stat } from 'node:fs/promises'
import { resolve as absolute, basename } from 'node:path'
import { argumentError, defined, requireNumber, requireOptions, requireString, requireWhole } from '../base/check.js'
import { CheckpointError, ConfigError, HubError, VoxtorchError } from '../base/errors.js'
import type { ProgressStream } from '../data/progress.js'
import { COMMIT, type HubFile, hubFile, RepositoryCache } from './cache.js'
import { CATALOG } from './catalog.js'
import { download } from './download.js'
import { hubCache, hubEndpoint, hubOffline, hubTimeout, hubToken } from './environment.js'
import { boundedFetch, cancelIfAborted, type Wire } from './http.js'
import { progressBar, progressStream } from './progress.js'
import { matchingFiles, modelFiles } from './select.js'
import { fetchWeights, isPublishedWeights, nearWeights } from './weights.js'

const WEIGHTS = Object.keys(CATALOG)

export interface ResolveModelOptions {
  /** Branch, tag or commit. Default `'main'`. */
  revision?: string
  /**
   * Patterns of the files to download, as huggingface_hub's `allow_patterns`. Default: the configuration and tokenizer files of
   * the top folder, and its weights in one format, safetensors if available.
   */
  files?: readonly string[]
  /** Access token; false sends none. Default: `HF_TOKEN`, or the token stored by `hf auth login`. */
  token?: string | false
  /** Cache folder. Default: `HF_HUB_CACHE`, or `hub` in `HF_HOME`, or `~/.cache/huggingface/hub`. */
  cacheDir?: string
  /** Whether to use only the cache, without network access. Default: `HF_HUB_OFFLINE`. */
  offline?: boolean
  /** Whether to show a progress bar on stderr, or a stream for it. Default: that of `setDownloadProgress`, initially false. */
  progress?: boolean | ProgressStream
  /** Cancels the download. The part downloaded so far is kept, and the next call continues it. */
  signal?: AbortSignal
  /** Seconds within which 1 kB, or the rest, must arrive before a retry. Default: `HF_HUB_DOWNLOAD_TIMEOUT`, or 10. */
  timeout?: number
  /** Retries after an attempt without progress, with increasing delays. Default 5. */
  retries?: number
}

/**
 * Return the local folder of a model. `model` is one of:
 * - the path of a folder, which is returned unchanged and has precedence;
 * - the name of {@link publishedWeights}, such as `'whisper-base'`, which {@link fetchWeights} downloads;
 * - a repository of the Hugging Face Hub, such as `'microsoft/wavlm-base'`, which is downloaded to the cache of Python's
 *   huggingface_hub. `HF_ENDPOINT` sets another server.
 *
 * Cached files are not downloaded again. Each file is checked against its hash before it appears. Several processes may download
 * the same model at once. If the server is not reachable and the cache has the revision, the cache is used, with a warning
 * through `process.emitWarning`.
 *
 * @returns absolute path of the folder, or `model` itself if it is a folder
 * @throws HubError if the repository is not available; its `reason` says why
 * @throws CheckpointError for a path that is not a folder
 * @throws ConfigError for invalid options, and if the optional package `@huggingface/hub` is needed but not installed
 * @throws CancelledError when `signal` is aborted
 */
export async function resolveModel(model: string, options: ResolveModelOptions = {}): Promise<string> {
  const settings = checked(model, options)
  const facts = await stat(model).catch(() => undefined)
  if (facts?.isDirectory()) return model
  if (facts === undefined && isPublishedWeights(model)) {
    const { offline, progress, signal, timeout, retries } = options
    return fetchWeights(model, defined({ offline, progress, signal, timeout, retries }))
  }
  if (facts !== undefined || /^(?:[./~\\]|$)|^[A-Za-z]:[\\/]/.test(model)) {
    const what = facts === undefined ? 'there is no such folder' : 'expected a folder, got a file'
    throw new CheckpointError(`${model}: ${what}. Use the folder of a model, or a repository such as 'org/name'.`, {
      file: model,
    })
  }
  if (!isRepository(model)) {
    throw argumentError('resolveModel', 'model', "a folder, or a repository such as 'org/name'", model)
  }
  // Detect a misspelled name of published weights without a request to the Hub.
  const near = model.includes('/') ? undefined : nearWeights(model)
  if (near !== undefined) {
    throw new CheckpointError(`${model}: there is no such folder and no such weights. Did you mean '${near}'?`, {
      file: model,
      near,
    })
  }
  const cache = new RepositoryCache(absolute(settings.cacheDir), model)
  try {
    return await (settings.offline ? cached(cache, settings) : fetched(cache, settings))
  } catch (error) {
    if (!(error instanceof HubError) || model.includes('/')) throw error
    // A name without an owner more likely means a folder or published weights.
    throw new HubError(`${nothingCalled(model)}. As a repository of the Hub: ${error.message}`, {
      ...error,
      reason: error.reason,
      cause: error,
    })
  }
}

/**
 * Download files of a dataset of the Hugging Face Hub to the cache of Python's huggingface_hub.
 * @param select returns the wanted ones of all paths of the repository
 * @returns the folder of the snapshot, and its commit
 * @throws HubError, ConfigError and CancelledError as {@link resolveModel}. @internal
 */
export async function resolveDataset(
  dataset: string,
  options: Omit<ResolveModelOptions, 'files'>,
  select: (paths: readonly string[]) => Promise<string[]>,
): Promise<{ folder: string; commit: string }> {
  const settings = { ...checked(dataset, options), select }
  const cache = new RepositoryCache(absolute(settings.cacheDir), dataset, 'dataset')
  const folder = await (settings.offline ? cached(cache, settings) : fetched(cache, settings))
  return { folder, commit: basename(folder) }
}

/** Return the start of a message about a missing model. */
const nothingCalled = (model: string): string =>
  model.includes('/')
    ? `${model}: there is no such folder`
    : `${model}: there is no such folder and no such weights (there are ${WEIGHTS.join(', ')})`

/** Options that other functions pass on to `resolveModel`. */
export const HUB_OPTIONS: readonly Exclude<keyof ResolveModelOptions, 'files'>[] = [
  'revision',
  'token',
  'cacheDir',
  'offline',
  'progress',
  'signal',
  'timeout',
  'retries',
]

type Settings = Required<Omit<ResolveModelOptions, 'files' | 'progress' | 'token' | 'signal'>> & {
  select: (paths: readonly string[]) => string[] | Promise<string[]>
  token: string | undefined
  progress: ProgressStream | undefined
  signal: AbortSignal
}

function checked(model: string, options: ResolveModelOptions): Settings {
  const where = 'resolveModel'
  requireString(where, 'model', model)
  requireOptions(where, options, [...HUB_OPTIONS, 'files'])
  const { revision = 'main', files, token, cacheDir = hubCache(), offline = hubOffline() } = options
  const { progress, signal = new AbortController().signal, timeout = hubTimeout(), retries = 5 } = options
  requireString(where, 'revision', revision)
  if (!isRevision(revision))
    throw argumentError(where, 'revision', 'the name of a branch or tag, or a commit', revision)
  if (
    files !== undefined &&
    !(Array.isArray(files) && files.every((item) => typeof item === 'string' && item !== ''))
  ) {
    throw argumentError(where, 'files', 'a list of patterns', files)
  }
  if (token !== undefined && token !== false && typeof token !== 'string') {
    throw argumentError(where, 'token', 'a string or false', typeof token)
  }
  requireString(where, 'cacheDir', cacheDir)
  if (typeof offline !== 'boolean') throw argumentError(where, 'offline', 'a boolean', offline)
  if (!(signal instanceof AbortSignal)) throw argumentError(where, 'signal', 'an AbortSignal', signal)
  requireNumber(where, 'timeout', timeout, { least: 0.001, below: 2_000_000 })
  requireWhole(where, 'retries', retries)
  const stream = progressStream(where, progress)
  const accessToken = token === false ? undefined : (token ?? hubToken())
  // The message does not quote the token.
  if (accessToken !== undefined && !/^[\x21-\x7e]+$/.test(accessToken)) {
    throw new ConfigError(`${where}: token: expected printable ASCII characters, got others.`, { argument: 'token' })
  }
  return {
    revision,
    select: files === undefined ? modelFiles : (paths) => matchingFiles(paths, files),
    token: accessToken,
    cacheDir,
    offline,
    progress: stream,
    signal,
    timeout,
    retries,
  }
}

/** Return whether a name is valid for a repository of the Hub. @internal */
export function isRepository(name: string): boolean {
  const parts = name.split('/')
  return (
    parts.length <= 2 &&
    name.length <= 200 &&
    parts.every((part) => /^[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?$/.test(part) && !/--|\.\./.test(part))
  )
}

/** Whether a name is valid for a revision, which becomes part of a path and of a URL. @internal */
export function isRevision(name: string): boolean {
  return /^[A-Za-z0-9._+@/-]{1,200}$/.test(name) && name.split('/').every((part) => !/^\.*$|\.lock$/.test(part))
}

/** Return the selected files of a commit, and those of them that are not cached. */
async function selectFiles(cache: RepositoryCache, commit: string, tree: readonly HubFile[], settings: Settings) {
  const names = new Set(await settings.select(tree.map(({ path }) => path)))
  const wanted = tree.filter(({ path }) => names.has(path))
  const there = await Promise.all(wanted.map((file) => cache.has(commit, file)))
  return { wanted, missing: wanted.filter((_, i) => !there[i]) }
}

/** Return the cached snapshot. @throws HubError if it is incomplete */
async function cached(cache: RepositoryCache, settings: Settings): Promise<string> {
  const { revision } = settings
  const fail = (what: string): never => {
    throw new HubError(`${cache.repository} (${revision}): ${what} ${cache.folder}. Download it once while online.`, {
      reason: 'offline',
      repository: cache.repository,
      revision,
    })
  }
  const commit = await cache.commitOf(revision)
  if (commit === undefined) return fail('not found in')
  const tree = await cache.tree(commit)
  if (tree === undefined) {
    // Older versions of huggingface_hub stored no file list, so the snapshot is assumed to be complete.
    return (await settings.select(await cache.paths(commit))).length > 0 ? cache.snapshot(commit) : fail('not found in')
  }
  const { wanted, missing } = await selectFiles(cache, commit, tree, settings)
  if (wanted.length === 0) return fail('none of the requested files are in')
  if (missing.length > 0) return fail(`${missing.length} files (first: ${missing[0]!.path}) are missing in`)
  return cache.snapshot(commit)
}

async function fetched(cache: RepositoryCache, settings: Settings): Promise<string> {
  cancelIfAborted(settings.signal)
  const have = await cached(cache, settings).catch(() => undefined)
  // A commit never changes, but without its file list the cache may be incomplete.
  if (have !== undefined && COMMIT.test(settings.revision) && (await cache.tree(settings.revision))) return have
  // With a cached snapshot as fallback, one attempt to find a newer one is enough.
  const wire = { ...settings, endpoint: hubEndpoint(), retries: have === undefined ? settings.retries : 0 }
  try {
    const { commit, tree } = await listed(cache, wire)
    return await downloadMissing(cache, settings, { ...wire, retries: settings.retries }, commit, tree)
  } catch (error) {
    if (have === undefined || !(error instanceof HubError) || error.reason !== 'network') throw error
    process.emitWarning(
      `${cache.repository}: using the cached version, because the server is not reachable: ${error.message}`,
    )
    return have
  }
}

/** Return the commit of the revision, and its file list. */
async function listed(cache: RepositoryCache, wire: Wire & Settings): Promise<{ commit: string; tree: HubFile[] }> {
  const hub = await import('@huggingface/hub').catch((cause) => {
    throw new ConfigError(
      `${nothingCalled(cache.repository)}. To fetch a repository of that name from the Hugging Face Hub, run: npm install @huggingface/hub`,
      { cause, model: cache.repository },
    )
  })
  const server = { hubUrl: wire.endpoint, fetch: boundedFetch(wire) }
  try {
    const asked = { name: cache.repository, revision: wire.revision, additionalFields: ['sha' as const], ...server }
    const { sha } = COMMIT.test(wire.revision)
      ? { sha: wire.revision }
      : await (cache.kind === 'model' ? hub.modelInfo(asked) : hub.datasetInfo(asked))
    if (typeof sha !== 'string' || !COMMIT.test(sha)) throw unfit(cache, 'expected a commit hash in the response')
    const known = await cache.tree(sha)
    if (known !== undefined) return { commit: sha, tree: known }
    const tree: HubFile[] = []
    for await (const entry of hub.listFiles({
      repo: { type: cache.kind, name: cache.repository },
      revision: sha,
      recursive: true,
      ...server,
    })) {
      if (entry?.type !== 'file') continue
      const { path, size, oid, lfs, xetHash } = entry
      tree.push(hubFile({ path, size: lfs?.size ?? size, oid, sha256: lfs?.oid, xetHash }))
      if (tree.length > MAX_FILES) throw unfit(cache, `expected at most ${MAX_FILES} files, got more`)
    }
    await cache.setTree(sha, tree)
    return { commit: sha, tree }
  } catch (cause) {
    if (cause instanceof VoxtorchError) throw cause
    // The package does not check the format of responses.
    throw unfit(cache, `expected a response of the Hub's API (${(cause as Error).message})`, cause)
  }
}

const MAX_FILES = 100_000

function unfit(cache: RepositoryCache, what: string, cause?: unknown): HubError {
  const advice = 'Check that HF_ENDPOINT is a Hugging Face Hub.'
  return new HubError(`${cache.repository}: ${what}. ${advice}`, { reason: 'integrity', cause })
}

/** Concurrent downloads: small files are dominated by latency. */
const AT_ONCE = 4

async function downloadMissing(
  cache: RepositoryCache,
  settings: Settings,
  wire: Wire,
  commit: string,
  tree: readonly HubFile[],
): Promise<string> {
  const { wanted, missing } = await selectFiles(cache, commit, tree, settings)
  if (wanted.length === 0) {
    throw new HubError(
      `${cache.repository}: none of its ${tree.length} files match. Set files to the patterns to download.`,
      {
        reason: 'not-found',
        repository: cache.repository,
      },
    )
  }
  const failed = new AbortController()
  const queue = [...missing]
  const signal = AbortSignal.any([wire.signal, failed.signal])
  const bar = progressBar(cache.repository, missing, settings.progress)
  const worker = async (): Promise<void> => {
    for (let file = queue.shift(); file !== undefined; file = queue.shift()) {
      await download({ ...wire, signal }, cache, commit, file, bar.counter())
    }
  }
  try {
    const workers = Array.from({ length: AT_ONCE }, () =>
      worker().catch((error) => {
        failed.abort(error)
        throw error
      }),
    )
    // Wait for all downloads to end before the first failure is thrown.
    const first = (await Promise.allSettled(workers)).find((result) => result.status === 'rejected')
    if (first !== undefined) throw failed.signal.reason
  } finally {
    bar.close()
  }
  // Only now, because until here the previous commit is the complete one.
  await cache.setCommit(settings.revision, commit)
  return cache.snapshot(commit)
}
