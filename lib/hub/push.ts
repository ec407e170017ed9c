import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { argumentError, requireString } from '../base/check.js'
import { CancelledError, CheckpointError, ConfigError, HubError, VoxtorchError } from '../base/errors.js'
import { type ChangesOf, SIGNAL, settings } from '../base/settings.js'
import { hubEndpoint, hubToken } from './environment.js'
import { isRepository, isRevision } from './resolve.js'

const SETTINGS = settings({
  /** Branch that gets the commit. Default `'main'`; another one must exist. */
  revision: { type: 'string', default: 'main' },
  /** Whether the repository is private, if it is created. Default: its owner's setting. */
  private: { type: 'boolean' },
  /** First line of the commit's message. */
  commitMessage: { type: 'string', default: 'Upload folder with voxtorch' },
  /** Access token with write access, `hf_…`. Default: `HF_TOKEN`, or the token stored by `hf auth login`. */
  token: { type: 'string' },
  /** Cancels the upload. Without the commit, the repository does not change. */
  signal: { type: SIGNAL },
})

/** Options of {@link pushToHub}. @interface */
export type PushToHubOptions = ChangesOf<typeof SETTINGS.table>

/** Most files of a folder. */
const MOST_FILES = 10_000

/**
 * Upload a folder to a repository of the Hugging Face Hub, in one commit: a model or an adapter that was saved, with all its files. The
 * repository is created if it does not exist. `HF_ENDPOINT` sets another server. Needs the optional package `@huggingface/hub`.
 *
 * ```ts
 * await model.save('my-model')
 * const { url } = await pushToHub('my-model', 'my-name/my-model', { private: true })
 * ```
 * @param repository `'owner/name'`
 * @returns the commit's hash and the URL of its page
 * @throws CheckpointError for a folder that does not exist, is empty or has other things than files; HubError if the server refuses;
 *   ConfigError for invalid options, without a token, and without the package; CancelledError when `signal` is aborted
 */
export async function pushToHub(
  folder: string,
  repository: string,
  options: PushToHubOptions = {},
): Promise<{ commit: string; url: string }> {
  const where = 'pushToHub'
  requireString(where, 'folder', folder)
  const { revision, commitMessage: commitTitle, private: isPrivate, signal, ...given } = SETTINGS.read(where, options)
  if (!isRepository(repository) || !repository.includes('/')) {
    throw argumentError(where, 'repository', "a repository such as 'owner/name'", repository)
  }
  if (!isRevision(revision)) throw argumentError(where, 'revision', 'the name of a branch', revision)
  if (commitTitle.trim() === '') throw argumentError(where, 'commitMessage', 'a text', commitTitle)
  const accessToken = given.token ?? hubToken()
  // The messages do not quote the token.
  if (accessToken === undefined || !/^hf_[\x21-\x7e]+$/.test(accessToken)) {
    const got = accessToken === undefined ? 'none' : 'another text'
    throw new ConfigError(`${where}: token: expected an access token, hf_…, got ${got}. Set HF_TOKEN.`, {
      argument: 'token',
    })
  }
  const files = await filesOf(folder)
  const hub = await import('@huggingface/hub').catch((cause) => {
    throw new ConfigError(`${where}: expected the package @huggingface/hub. Run: npm install @huggingface/hub`, {
      cause,
    })
  })
  const server = { repo: repository, accessToken, hubUrl: hubEndpoint() }
  try {
    signal?.throwIfAborted()
    if (!(await hub.repoExists(server))) {
      const visibility = isPrivate === undefined ? {} : ({ visibility: isPrivate ? 'private' : 'public' } as const)
      await hub.createRepo({ ...server, ...visibility })
    }
    const output = await hub.uploadFiles({
      ...{ ...server, files, commitTitle, branch: revision },
      ...(signal && { abortSignal: signal }),
    })
    const { oid, url } = output?.commit ?? {}
    if (typeof oid === 'string' && typeof url === 'string') return { commit: oid, url }
    throw new HubError(`${repository}: expected a commit in the response of the server, got none.`, {
      ...{ reason: 'integrity', repository },
    })
  } catch (cause) {
    if (signal?.aborted) throw new CancelledError('the upload was canceled.', { cause })
    if (cause instanceof VoxtorchError) throw cause
    throw refused(repository, cause)
  }
}

function refused(repository: string, cause: unknown): HubError {
  const { statusCode: status, message } = cause as { statusCode?: number; message: string }
  const fields = { repository, status, cause }
  if (status === 401 || status === 403) {
    return new HubError(`${repository}: the server denies access. Set HF_TOKEN to a token with write access to it.`, {
      ...fields,
      reason: 'access',
    })
  }
  if (status === 404) {
    return new HubError(`${repository}: the repository does not have this branch. Check its name.`, {
      ...fields,
      reason: 'not-found',
    })
  }
  return new HubError(`${repository}: the upload failed: ${message}. Try again.`, { ...fields, reason: 'network' })
}

/** Return the files of a folder, without those of git and of the Hub's cache. */
async function filesOf(folder: string): Promise<{ path: string; content: URL }[]> {
  const refuse = (what: string): never => {
    throw new CheckpointError(`${folder}: ${what}.`, { file: folder })
  }
  const files: { path: string; content: URL }[] = []
  const read = async (inside: string): Promise<void> => {
    const names = await readdir(join(folder, inside)).catch(() => refuse('expected a folder, got none'))
    for (const name of names.sort()) {
      const path = inside === '' ? name : `${inside}/${name}`
      if (name === '.git' || path === '.cache') continue
      const facts = await stat(join(folder, path)).catch(() => undefined)
      if (facts?.isDirectory()) await read(path)
      else if (facts?.isFile()) files.push({ path, content: pathToFileURL(join(folder, path)) })
      else refuse(`expected files and folders, got another kind: ${path}`)
      if (files.length > MOST_FILES) refuse(`expected at most ${MOST_FILES} files, got more`)
    }
  }
  await read('')
  if (files.length === 0) refuse('expected at least one file, got none')
  return files
}
