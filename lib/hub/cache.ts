import { mkdir, readdir, readFile, readlink, rm, stat, symlink } from 'node:fs/promises'
import { dirname, join, relative } from 'node:path'
import { moveIntoPlace, temporaryNextTo, writeAtomically } from '../base/atomic.js'
import { defined } from '../base/check.js'
import { HubError, VoxtorchError } from '../base/errors.js'
import { shortened } from '../base/words.js'
import { parseJson, writeJson } from '../files/json/json.js'

/** A file of a repository, as in the repository's file list. */
export interface HubFile {
  path: string
  size: number
  /** Git id: SHA-1 of the blob, or of the pointer file if the content is in large file storage (LFS). */
  oid: string
  /** SHA-256 of content in LFS. */
  sha256?: string
  xetHash?: string
}

export const COMMIT = /^[0-9a-f]{40}$/
const SHA256 = /^[0-9a-f]{64}$/

/**
 * A repository in the cache, in the layout of Python's huggingface_hub, so that both share files:
 *
 *     models--org--name/blobs/<hash>                     contents
 *     models--org--name/snapshots/<commit>/<path>        relative links to them
 *     models--org--name/refs/<branch or tag>             the commit that it pointed to
 *     models--org--name/trees/<commit>.json              the file list of the commit
 *     .locks/models--org--name/<hash>.voxtorch
 *
 * A dataset's folders begin with `datasets--`.
 */
export class RepositoryCache {
  readonly folder: string
  readonly locks: string

  constructor(
    cacheDir: string,
    readonly repository: string,
    readonly kind: 'model' | 'dataset' = 'model',
  ) {
    const name = `${kind}s--${repository.replaceAll('/', '--')}`
    this.folder = join(cacheDir, name)
    this.locks = join(cacheDir, '.locks', name)
  }

  /** Path of the repository on the server. */
  get address(): string {
    return this.kind === 'model' ? this.repository : `datasets/${this.repository}`
  }

  snapshot(commit: string): string {
    return join(this.folder, 'snapshots', commit)
  }

  blob(file: HubFile): string {
    return join(this.folder, 'blobs', file.sha256 ?? file.oid)
  }

  lock(file: HubFile): string {
    return join(this.locks, `${file.sha256 ?? file.oid}.voxtorch`)
  }

  /** Return the cached commit of a branch or tag. */
  async commitOf(revision: string): Promise<string | undefined> {
    if (COMMIT.test(revision)) return revision
    const text = await readFile(join(this.folder, 'refs', revision), 'utf8').catch(() => '')
    return COMMIT.test(text.trim()) ? text.trim() : undefined
  }

  async setCommit(revision: string, commit: string): Promise<void> {
    if (revision === commit || (await this.commitOf(revision)) === commit) return
    const path = join(this.folder, 'refs', revision)
    await stored(path, async () => {
      await mkdir(dirname(path), { recursive: true })
      await writeAtomically(path, StorageError, (write) => write(Buffer.from(commit)))
    })
  }

  /** Return the cached file list of a commit; undefined if it is missing or damaged. */
  async tree(commit: string): Promise<HubFile[] | undefined> {
    try {
      const bytes = await readFile(join(this.folder, 'trees', `${commit}.json`))
      const { format_version, files } = (await parseJson([bytes], 'tree')) as Record<string, unknown>
      if (format_version !== 1) return undefined
      return Object.entries(files as Record<string, Record<string, unknown>>).map(([path, entry]) =>
        hubFile({
          path,
          size: entry.lfs_size ?? entry.size,
          oid: entry.blob_id,
          sha256: entry.lfs_sha256,
          xetHash: entry.xet_hash,
        }),
      )
    } catch {
      return undefined
    }
  }

  async setTree(commit: string, files: readonly HubFile[]): Promise<void> {
    const path = join(this.folder, 'trees', `${commit}.json`)
    const entries = [...files]
      .sort((a, b) => (a.path < b.path ? -1 : 1))
      .map(({ path, size, oid, sha256, xetHash }) => [
        path,
        {
          size,
          blob_id: oid,
          lfs_sha256: sha256,
          lfs_size: sha256 === undefined ? undefined : size,
          xet_hash: xetHash,
        },
      ])
    await stored(path, async () => {
      await mkdir(dirname(path), { recursive: true })
      await writeJson(path, { format_version: 1, files: Object.fromEntries(entries) }, { indent: 1 })
    })
  }

  /** Whether a file of the commit exists with the right size. */
  async has(commit: string, { path, size }: HubFile): Promise<boolean> {
    return stat(join(this.snapshot(commit), path)).then(
      (facts) => facts.isFile() && facts.size === size,
      () => false,
    )
  }

  /** Return the paths of the files of a snapshot. */
  async paths(commit: string): Promise<string[]> {
    const folder = this.snapshot(commit)
    const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => [])
    return entries
      .filter((entry) => !entry.isDirectory())
      .map((entry) => relative(folder, join(entry.parentPath ?? entry.path, entry.name)))
  }

  /** Link a complete blob into a snapshot. */
  async link(commit: string, file: HubFile): Promise<void> {
    const pointer = join(this.snapshot(commit), file.path)
    const target = relative(dirname(pointer), this.blob(file))
    if ((await readlink(pointer).catch(() => '')) === target) return
    await stored(pointer, async () => {
      await mkdir(dirname(pointer), { recursive: true })
      const temporary = temporaryNextTo(pointer)
      await symlink(target, temporary)
      try {
        await moveIntoPlace(temporary, pointer)
      } catch (error) {
        await rm(temporary, { force: true })
        throw error
      }
    })
  }
}

class StorageError extends HubError {
  constructor(message: string, fields: Record<string, unknown>) {
    super(message, { ...fields, reason: 'storage' })
    this.name = 'HubError'
  }
}

/**
 * Run work on files of the cache, and convert errors of the file system to HubError.
 * @param variable environment variable that sets the folder of the cache
 */
export async function stored<T>(path: string, work: () => Promise<T>, variable = 'HF_HUB_CACHE'): Promise<T> {
  try {
    return await work()
  } catch (cause) {
    if (cause instanceof HubError) throw cause
    if (cause instanceof VoxtorchError && !('file' in cause)) throw cause
    if (!(cause instanceof VoxtorchError) && (cause as NodeJS.ErrnoException).code === undefined) throw cause
    const full = (cause as NodeJS.ErrnoException).code === 'ENOSPC'
    throw new StorageError(
      full
        ? `${path}: cannot be written, the disk is full. Free space and try again; the part downloaded so far is kept.`
        : `the cache cannot be used: ${(cause as Error).message}. ${writableFolder(variable)}`,
      { file: path, cause },
    )
  }
}

/** Return what to do about a cache that cannot be written. */
function writableFolder(variable: string): string {
  const now = process.env[variable]
  return now ? `Set ${variable} to a writable folder; it is now ${now}.` : `Set ${variable} to a writable folder.`
}

/**
 * Check an entry of a file list from a server or a cached file. Its names are used as paths.
 * @throws HubError with the reason `integrity`
 */
export function hubFile(entry: Record<keyof HubFile, unknown>): HubFile {
  const { path, size, oid, sha256, xetHash } = entry
  const bad = (expected: string): never => {
    const name = typeof path === 'string' ? JSON.stringify(shortened(path)) : typeof path
    throw new HubError(`file list, entry ${name}: expected ${expected}. Do not use this repository.`, {
      reason: 'integrity',
      entry: path,
    })
  }
  if (typeof path !== 'string' || path.length > 4096) return bad('a path of at most 4096 characters')
  if (
    path.split('/').some((part) => part === '' || part === '.' || part === '..') ||
    /[\p{Cc}\p{Surrogate}]/u.test(path)
  ) {
    return bad('a path within the repository')
  }
  if (!Number.isSafeInteger(size) || (size as number) < 0) return bad('a size in bytes')
  if (typeof oid !== 'string' || !COMMIT.test(oid)) return bad('a git id of 40 hexadecimal digits')
  if (sha256 !== undefined && (typeof sha256 !== 'string' || !SHA256.test(sha256))) return bad('a SHA-256')
  const xet = typeof xetHash === 'string' && SHA256.test(xetHash) ? xetHash : undefined
  return defined({ path, size: size as number, oid, sha256, xetHash: xet })
}
