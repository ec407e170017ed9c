import {
  closeSync,
  constants,
  existsSync,
  fchmodSync,
  fchownSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readlinkSync,
  renameSync,
  rmSync,
  type Stats,
  statSync,
  writeSync,
} from 'node:fs'
import { type FileHandle, open, rename, rm } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import type { VoxtorchError } from './errors.js'

/** Class of the errors about a path that cannot be written. */
export type Failure = new (message: string, fields: Record<string, unknown>) => VoxtorchError

/** Write all of the bytes; resolves when the buffer may be reused. */
export type Write = (bytes: Uint8Array) => Promise<void>

/**
 * Create a directory and its parents. Node's `recursive` option loops forever where the system refuses, as in /proc.
 * @returns the created directories, parents first
 * @throws `Failure` that names the directory
 */
export function makeDirectory(path: string, Failure: Failure): string[] {
  try {
    if (statSync(path, { throwIfNoEntry: false })?.isDirectory()) return []
    const above = dirname(path)
    const created = above !== path && !existsSync(above) ? makeDirectory(above, Failure) : []
    mkdirSync(path)
    return [...created, path]
  } catch (cause) {
    if (cause instanceof Failure) throw cause
    // Another process may have created it meanwhile.
    if ((cause as NodeJS.ErrnoException).code === 'EEXIST' && statSync(path).isDirectory()) return []
    throw new Failure(`${path} cannot be created: ${(cause as Error).message}`, { file: path, cause })
  }
}

/**
 * Write a file atomically: `fill` writes under a temporary name in the same folder, then the file is synced and renamed. If
 * anything fails, the old file stays in place and the temporary file is removed.
 *
 * A symbolic link stays a link: the file that it names is replaced. An existing file keeps its mode and, if permitted, its
 * owner. Devices and pipes are written to directly. native/core/io/file.cc does the same for tensors.
 *
 * @throws the errors of `fill` unchanged; `Failure` that names the file if the file system refuses
 */
export async function writeAtomically(
  path: string,
  Failure: Failure,
  fill: (write: Write) => Promise<void>,
): Promise<void> {
  const guarded = async <T>(work: () => T | Promise<T>): Promise<T> => {
    try {
      return await work()
    } catch (cause) {
      throw refused(path, Failure, cause)
    }
  }
  const { old, temporary, target } = await guarded(() => placeOf(path))
  const file = await guarded(() =>
    temporary === undefined ? open(target, DIRECT) : open(temporary, 'wx', old ? 0o600 : 0o666),
  )
  try {
    try {
      await fill((bytes) => guarded(() => writeFully(file, bytes)))
      if (temporary !== undefined) {
        await guarded(() => {
          if (old) takeOver(file.fd, old)
          return file.sync()
        })
      }
    } finally {
      await file.close()
    }
    if (temporary === undefined) return
    await guarded(() => rename(temporary, target))
  } catch (error) {
    if (temporary !== undefined) await rm(temporary, { force: true })
    throw error
  }
  await guarded(() => syncPath(dirname(target)))
}

/**
 * Rename a finished file, link or folder to its final path. An existing folder at that path is replaced.
 * @param aside temporary path of the replaced folder; in the same folder by default
 */
export async function moveIntoPlace(
  finished: string,
  path: string,
  aside = `${path}.${process.pid}.old`,
): Promise<void> {
  try {
    await rename(finished, path)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code !== 'ENOTEMPTY' && code !== 'EEXIST' && code !== 'ENOTDIR' && code !== 'EISDIR') throw error
    await rename(path, aside)
    await rename(finished, path)
    await rm(aside, { recursive: true, force: true })
  }
}

/** Write a small file atomically and synchronously, like {@link writeAtomically}. */
export function writeAtomicallySync(path: string, Failure: Failure, content: string | Uint8Array): void {
  const bytes = typeof content === 'string' ? Buffer.from(content) : content
  let file: number | undefined
  let left: string | undefined
  try {
    const { old, temporary, target } = placeOf(path)
    file = temporary === undefined ? openSync(target, DIRECT) : openSync(temporary, 'wx', old ? 0o600 : 0o666)
    left = temporary
    for (let done = 0; done < bytes.length; ) done += writeSync(file, bytes, done, bytes.length - done)
    if (temporary === undefined) return
    if (old) takeOver(file, old)
    fsyncSync(file)
    renameSync(temporary, target)
    left = undefined
  } catch (cause) {
    throw refused(path, Failure, cause)
  } finally {
    if (file !== undefined) closeSync(file)
    if (left !== undefined) rmSync(left, { force: true })
  }
}

/** Flags for devices and pipes: do not create, and do not become the controlling terminal. */
const DIRECT = constants.O_WRONLY | constants.O_NOCTTY

export const refused = (path: string, Failure: Failure, cause: unknown): VoxtorchError =>
  new Failure(`${path} cannot be written: ${(cause as Error).message}`, { file: path, cause })

interface Place {
  /** Path that the file is renamed to, or that is written directly. */
  target: string
  /** Temporary path; undefined for a device or a pipe. */
  temporary?: string
  /** Status of the file that is replaced. */
  old?: Stats
}

function placeOf(path: string): Place {
  const old = statSync(path, { throwIfNoEntry: false })
  if (old && !old.isFile() && !old.isDirectory()) return { target: path }
  const target = targetOf(path)
  return { target, temporary: temporaryNextTo(target), ...(old?.isFile() && { old }) }
}

/** Return whether a name is a temporary file of another process: see `temporaryNextTo` and native/core/io/file.cc. */
export const isTemporaryOfOthers = (name: string): boolean =>
  /^\.voxtorch-\d+-[\w-]+\.tmp$/.test(name) && !name.startsWith(`.voxtorch-${process.pid}-`)

/** Return a new temporary path in a file's folder. */
export function temporaryNextTo(path: string): string {
  // Independent of the path's own name: names have at most 255 bytes.
  return join(dirname(path), `.voxtorch-${process.pid}-${Math.random().toString(36).slice(2)}.tmp`)
}

/** Return the final target of a symbolic link, which need not exist, or the path itself. */
export function targetOf(path: string): string {
  let target = path
  // Linux follows at most 40 links.
  for (let followed = 0; followed < 40; followed++) {
    try {
      target = resolve(dirname(target), readlinkSync(target))
    } catch {
      break
    }
  }
  return target
}

/** Copy owner and mode. The owner comes first, since changing it clears bits of the mode. */
export function takeOver(file: number, { uid, gid, mode }: Stats): void {
  const owned = [uid, -1].some((user) => {
    try {
      fchownSync(file, user, gid)
      return true
    } catch {
      return false
    }
  })
  // If the group could not be kept, drop the group's permissions.
  fchmodSync(file, mode & (owned ? 0o7777 : 0o7707))
}

async function writeFully(file: FileHandle, bytes: Uint8Array): Promise<void> {
  let done = 0
  while (done < bytes.length) {
    done += (await file.write(bytes, done, Math.min(bytes.length - done, 1 << 30))).bytesWritten
  }
}

/** Sync a file or directory: without this, a system crash could undo a write or a rename. */
export async function syncPath(path: string): Promise<void> {
  const file = await open(path, 'r')
  try {
    await file.sync()
  } finally {
    await file.close()
  }
}
