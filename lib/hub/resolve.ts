import { stat } from 'node:fs/promises'
import { resolve as absolute } from 'node:path'
import { defined, misuse, requireNumber, requireOptions, requireString, requireWhole } from '../base/check.js'
import { CheckpointError, ConfigError, HubError, VoxtorchError } from '../base/errors.js'
import { nearest } from '../base/words.js'
import type { ProgressStream } from '../data/progress.js'
import { COMMIT, type HubFile, hubFile, RepositoryCache } from './cache.js'
import { CATALOG } from './catalog.js'
import { download } from './download.js'
import { hubCache, hubEndpoint, hubOffline, hubTimeout, hubToken } from './environment.js'
import { boundedFetch, cancelIfAborted, type Wire } from './http.js'
import { progressBar, progressStream } from './progress.js'
import { matchingFiles, modelFiles } from './select.js'
import { fetchWeights, isPublishedWeights } from './weights.js'

const WEIGHTS = Object.keys(CATALOG)

export interface ResolveModelOptions {
  /** Branch, tag or commit. Default `'main'`. */
  revision?: string
  /**
   * Patterns of the files to fetch, as huggingface_hub's `allow_patterns`. Default: the configuration and tokenizer
   * files of the top folder and its weights in one form, safetensors if there are any.
   */
  files?: readonly string[]
  /** Shown to the server; false shows none. Default: `HF_TOKEN`, or what `hf auth login` stored. */
  token?: string | false
  /** Default: `HF_HUB_CACHE`, or `hub` in `HF_HOME`, or `~/.cache/huggingface/hub`. */
  cacheDir?: string
  /** Uses what the cache has and asks nobody. Default: `HF_HUB_OFFLINE`. */
  offline?: boolean
  /** Draws a bar on stderr, or on the stream given. Default: as `setDownloadProgress` says, which is false at first. */
  progress?: boolean | ProgressStream
  /** Cancels. What came so far is kept, and the next call continues from it. */
  signal?: AbortSignal
  /** Seconds without a kilobyte (or the rest) after which a request is tried again. Default: `HF_HUB_DOWNLOAD_TIMEOUT`, or 10. */
  timeout?: number
  /** Attempts after a failed one that brought nothing; the waits between them grow. Default 5. */
  retries?: number
}

/**
 * The local folder of a model: a folder is returned as it is, and a repository of the Hugging Face Hub, such as
 * `'microsoft/wavlm-base'`, is fetched into the cache that Python's huggingface_hub uses. A folder of that name wins over
 * the repository. What the cache has is not fetched again; every fetched file is checked against its hash before it
 * appears; several processes may ask for the same at once. `HF_ENDPOINT` names another server. The names of
 * `publishedWeights`, such as `'whisper-base'`, are those of {@link fetchWeights}.
 *
 * When the server cannot be reached but the cache has the revision, that is used, with a warning through
 * `process.emitWarning`.
 *
 * @returns absolute path of the folder, or `model` itself when it is one
 * @throws HubError when the repository cannot be had; its `reason` says why
 * @throws CheckpointError for a path where no folder is
 * @throws ConfigError for wrong options, and when the optional package `@huggingface/hub` is needed and not installed
 * @throws CancelledError when `signal` was aborted
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
    const what = facts === undefined ? 'there is no such folder' : 'this is not a folder'
    throw new CheckpointError(`${model}: ${what}; give a model's folder, or a repository such as 'org/name'`, {
      file: model,
    })
  }
  if (!isRepository(model)) {
    throw misuse('resolveModel', 'model', "a folder, or a repository such as 'org/name'", model)
  }
  // A misspelt name of published weights, which the Hub would be asked for in vain.
  const near = model.includes('/') ? undefined : nearest(model, WEIGHTS, Math.floor(model.length / 4))
  if (near !== undefined) {
    throw new CheckpointError(`${model}: there is no such folder and no such weights; did you mean '${near}'?`, {
      file: model,
      near,
    })
  }
  const cache = new RepositoryCache(absolute(settings.cacheDir), model)
  try {
    return await (settings.offline ? cached(cache, settings) : fetched(cache, settings))
  } catch (error) {
    if (!(error instanceof HubError) || model.includes('/')) throw error
    // A name without an owner was more likely meant as a folder or as weights of ours.
    throw new HubError(`${nothingCalled(model)}. As a repository of the Hub: ${error.message}`, {
      ...error,
      reason: error.reason,
      cause: error,
    })
  }
}

/** The beginning of a sentence about a model that is not there. */
const nothingCalled = (model: string): string =>
  model.includes('/')
    ? `${model}: there is no such folder`
    : `${model}: there is no such folder and no such weights (there are ${WEIGHTS.join(', ')})`

/** What others that resolve a model take too, and hand on. */
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
  select: (paths: readonly string[]) => string[]
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
  if (!isRevision(revision)) throw misuse(where, 'revision', 'the name of a branch or tag, or a commit', revision)
  if (
    files !== undefined &&
    !(Array.isArray(files) && files.every((item) => typeof item === 'string' && item !== ''))
  ) {
    throw misuse(where, 'files', 'a list of patterns', files)
  }
  if (token !== undefined && token !== false && typeof token !== 'string') {
    throw misuse(where, 'token', 'a string or false', typeof token)
  }
  requireString(where, 'cacheDir', cacheDir)
  if (typeof offline !== 'boolean') throw misuse(where, 'offline', 'a boolean', offline)
  if (!(signal instanceof AbortSignal)) throw misuse(where, 'signal', 'an AbortSignal', signal)
  requireNumber(where, 'timeout', timeout, { least: 0.001, below: 2_000_000 })
  requireWhole(where, 'retries', retries)
  const stream = progressStream(where, progress)
  const shown = token === false ? undefined : (token ?? hubToken())
  // The message must not hold the token.
  if (shown !== undefined && !/^[\x21-\x7e]+$/.test(shown)) {
    throw new ConfigError(`${where}: the token holds characters that no token has`, { argument: 'token' })
  }
  return {
    revision,
    select: files === undefined ? modelFiles : (paths) => matchingFiles(paths, files),
    token: shown,
    cacheDir,
    offline,
    progress: stream,
    signal,
    timeout,
    retries,
  }
}

/** The Hub's own rule for names. */
function isRepository(name: string): boolean {
  const parts = name.split('/')
  return (
    parts.length <= 2 &&
    name.length <= 200 &&
    parts.every((part) => /^[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?$/.test(part) && !/--|\.\./.test(part))
  )
}

/** It becomes a part of a path and of an address. */
function isRevision(name: string): boolean {
  return /^[A-Za-z0-9._+@/-]{1,200}$/.test(name) && name.split('/').every((part) => !/^\.*$|\.lock$/.test(part))
}

/** The files of a commit that are wanted, and those of them that the cache lacks. */
async function lacking(cache: RepositoryCache, commit: string, tree: readonly HubFile[], settings: Settings) {
  const names = new Set(settings.select(tree.map(({ path }) => path)))
  const wanted = tree.filter(({ path }) => names.has(path))
  const there = await Promise.all(wanted.map((file) => cache.has(commit, file)))
  return { wanted, missing: wanted.filter((_, i) => !there[i]) }
}

/** The snapshot in the cache, or a HubError that says what it lacks. */
async function cached(cache: RepositoryCache, settings: Settings): Promise<string> {
  const { revision } = settings
  const fail = (what: string): never => {
    throw new HubError(`${cache.repository} (${revision}) ${what} ${cache.folder}; fetch it once while online`, {
      reason: 'offline',
      repository: cache.repository,
      revision,
    })
  }
  const commit = await cache.commitOf(revision)
  if (commit === undefined) return fail('is not in')
  const tree = await cache.tree(commit)
  if (tree === undefined) {
    // Older versions of huggingface_hub kept no list: what is there is taken for all.
    return settings.select(await cache.paths(commit)).length > 0 ? cache.snapshot(commit) : fail('is not in')
  }
  const { wanted, missing } = await lacking(cache, commit, tree, settings)
  if (wanted.length === 0) return fail('has none of the files asked for in')
  if (missing.length > 0) return fail(`lacks ${missing.length} files (${missing[0]!.path}) in`)
  return cache.snapshot(commit)
}

async function fetched(cache: RepositoryCache, settings: Settings): Promise<string> {
  cancelIfAborted(settings.signal)
  const have = await cached(cache, settings).catch(() => undefined)
  // A commit never changes; without its list the cache may hold a part of it.
  if (have !== undefined && COMMIT.test(settings.revision) && (await cache.tree(settings.revision))) return have
  // With something to fall back on, one attempt is enough to learn whether there is something newer.
  const wire = { ...settings, endpoint: hubEndpoint(), retries: have === undefined ? settings.retries : 0 }
  try {
    const { commit, tree } = await listed(cache, wire)
    return await brought(cache, settings, { ...wire, retries: settings.retries }, commit, tree)
  } catch (error) {
    if (have === undefined || !(error instanceof HubError) || error.reason !== 'network') throw error
    process.emitWarning(`${cache.repository} is taken from the cache as it is: ${error.message}`)
    return have
  }
}

/** The commit that the revision stands at, and its files. */
async function listed(cache: RepositoryCache, wire: Wire & Settings): Promise<{ commit: string; tree: HubFile[] }> {
  const hub = await import('@huggingface/hub').catch((cause) => {
    throw new ConfigError(
      `${nothingCalled(cache.repository)}. To fetch a repository of that name from the Hugging Face Hub, run: npm install @huggingface/hub`,
      { cause, model: cache.repository },
    )
  })
  const server = { hubUrl: wire.endpoint, fetch: boundedFetch(wire) }
  try {
    const { sha } = COMMIT.test(wire.revision)
      ? { sha: wire.revision }
      : await hub.modelInfo({ name: cache.repository, revision: wire.revision, additionalFields: ['sha'], ...server })
    if (typeof sha !== 'string' || !COMMIT.test(sha)) throw unfit(cache, 'names no commit')
    const known = await cache.tree(sha)
    if (known !== undefined) return { commit: sha, tree: known }
    const tree: HubFile[] = []
    for await (const entry of hub.listFiles({ repo: cache.repository, revision: sha, recursive: true, ...server })) {
      if (entry?.type !== 'file') continue
      const { path, size, oid, lfs, xetHash } = entry
      tree.push(hubFile({ path, size: lfs?.size ?? size, oid, sha256: lfs?.oid, xetHash }))
      if (tree.length > MAX_FILES) throw unfit(cache, `has more than ${MAX_FILES} files`)
    }
    await cache.setTree(sha, tree)
    return { commit: sha, tree }
  } catch (cause) {
    if (cause instanceof VoxtorchError) throw cause
    // The package trusts that an answer has the form it should have.
    throw unfit(cache, `is not described as it should be (${(cause as Error).message})`, cause)
  }
}

const MAX_FILES = 100_000

function unfit(cache: RepositoryCache, what: string, cause?: unknown): HubError {
  return new HubError(`${cache.repository} ${what}; is HF_ENDPOINT a Hugging Face Hub?`, { reason: 'integrity', cause })
}

/** Files fetched at once: small ones wait more than they load. */
const AT_ONCE = 4

async function brought(
  cache: RepositoryCache,
  settings: Settings,
  wire: Wire,
  commit: string,
  tree: readonly HubFile[],
): Promise<string> {
  const { wanted, missing } = await lacking(cache, commit, tree, settings)
  if (wanted.length === 0) {
    throw new HubError(`${cache.repository} has none of the files asked for, only ${tree.length} others; give files`, {
      reason: 'not-found',
      repository: cache.repository,
    })
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
    // All come to an end before the caller hears of the first failure.
    const first = (await Promise.allSettled(workers)).find((result) => result.status === 'rejected')
    if (first !== undefined) throw failed.signal.reason
  } finally {
    bar.close()
  }
  // Not before: until then the earlier commit is the whole one.
  await cache.setCommit(settings.revision, commit)
  return cache.snapshot(commit)
}
