import { mkdir, readdir, readFile, readlink, rm, stat, symlink } from 'node:fs/promises'
import { dirname, join, relative } from 'node:path'
import { moveIntoPlace, temporaryBeside, writeAtomically } from '../base/atomic.js'
import { defined } from '../base/check.js'
import { HubError, VoxtorchError } from '../base/errors.js'
import { parseJson, writeJson } from '../files/json/json.js'

/** A file of a repository as its list names it. */
export interface HubFile {
  path: string
  size: number
  /** Its git id: sha1 of the blob, or of the pointer file when the content lies in large file storage. */
  oid: string
  /** sha256 of a content in large file storage. */
  sha256?: string
  xetHash?: string
}

export const COMMIT = /^[0-9a-f]{40}$/
const SHA256 = /^[0-9a-f]{64}$/

/**
 * One repository in the cache, laid out as Python's huggingface_hub does, so that both use the same files:
 *
 *     models--org--name/blobs/<hash>                     contents
 *     models--org--name/snapshots/<commit>/<path>        relative links to them
 *     models--org--name/refs/<branch or tag>             the commit it stood at
 *     models--org--name/trees/<commit>.json              the list of the commit's files
 *     .locks/models--org--name/<hash>.voxtorch
 */
export class RepositoryCache {
  readonly folder: string
  readonly locks: string

  constructor(
    cacheDir: string,
    readonly repository: string,
  ) {
    const name = `models--${repository.replaceAll('/', '--')}`
    this.folder = join(cacheDir, name)
    this.locks = join(cacheDir, '.locks', name)
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

  /** The commit at which a branch or tag stood when it was last seen. */
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

  /** The list of a commit's files, if it was stored; a damaged one counts as none. */
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

  /** Whether a file of the commit is there and has its size. */
  async has(commit: string, { path, size }: HubFile): Promise<boolean> {
    return stat(join(this.snapshot(commit), path)).then(
      (facts) => facts.isFile() && facts.size === size,
      () => false,
    )
  }

  /** Paths of what a snapshot holds. */
  async paths(commit: string): Promise<string[]> {
    const folder = this.snapshot(commit)
    const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => [])
    return entries
      .filter((entry) => !entry.isDirectory())
      .map((entry) => relative(folder, join(entry.parentPath ?? entry.path, entry.name)))
  }

  /** Shows a finished blob in a snapshot. */
  async link(commit: string, file: HubFile): Promise<void> {
    const pointer = join(this.snapshot(commit), file.path)
    const target = relative(dirname(pointer), this.blob(file))
    if ((await readlink(pointer).catch(() => '')) === target) return
    await stored(pointer, async () => {
      await mkdir(dirname(pointer), { recursive: true })
      const temporary = temporaryBeside(pointer)
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

/** Work on the cache's files, whose failures say what the file system said. */
export async function stored<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (cause) {
    if (cause instanceof HubError) throw cause
    if (cause instanceof VoxtorchError && !('file' in cause)) throw cause
    if (!(cause instanceof VoxtorchError) && (cause as NodeJS.ErrnoException).code === undefined) throw cause
    const full = (cause as NodeJS.ErrnoException).code === 'ENOSPC'
    throw new StorageError(
      full
        ? `the disk is full: ${path} cannot be written; make room and try again, what came so far is kept`
        : `the cache cannot be used: ${(cause as Error).message}; set HF_HUB_CACHE to a folder that you may write`,
      { file: path, cause },
    )
  }
}

/**
 * Checks one entry of a list that a server or an old file gave: its names become paths.
 * @throws HubError with the reason `integrity`
 */
export function hubFile(entry: Record<keyof HubFile, unknown>): HubFile {
  const { path, size, oid, sha256, xetHash } = entry
  const bad = (what: string): never => {
    throw new HubError(`the list of files names ${JSON.stringify(path)} with ${what}; do not use this repository`, {
      reason: 'integrity',
      entry: path,
    })
  }
  if (typeof path !== 'string' || path.length > 4096) return bad('no path')
  if (
    path.split('/').some((part) => part === '' || part === '.' || part === '..') ||
    /[\p{Cc}\p{Surrogate}]/u.test(path)
  ) {
    return bad('a path that leaves its folder')
  }
  if (!Number.isSafeInteger(size) || (size as number) < 0) return bad('no size')
  if (typeof oid !== 'string' || !COMMIT.test(oid)) return bad('no git id')
  if (sha256 !== undefined && (typeof sha256 !== 'string' || !SHA256.test(sha256))) return bad('no sha256')
  const xet = typeof xetHash === 'string' && SHA256.test(xetHash) ? xetHash : undefined
  return defined({ path, size: size as number, oid, sha256, xetHash: xet })
}
