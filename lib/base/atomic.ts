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

type Failure = new (message: string, fields: Record<string, unknown>) => VoxtorchError

/** Writes all of the bytes, and is done when they can be changed again. */
export type Write = (bytes: Uint8Array) => Promise<void>

/**
 * Makes a directory and those above it. Node's own recursion never ends where the system refuses, as in /proc.
 * @throws `Failure` naming the directory
 */
export function makeDirectory(path: string, Failure: Failure): void {
  try {
    if (statSync(path, { throwIfNoEntry: false })?.isDirectory()) return
    const above = dirname(path)
    if (above !== path && !existsSync(above)) makeDirectory(above, Failure)
    mkdirSync(path)
  } catch (cause) {
    if (cause instanceof Failure) throw cause
    // Another process may have been faster.
    if ((cause as NodeJS.ErrnoException).code === 'EEXIST' && statSync(path).isDirectory()) return
    throw new Failure(`${path} cannot be made: ${(cause as Error).message}`, { file: path, cause })
  }
}

/**
 * Makes a file that appears whole or not at all: `fill` writes it under another name in the same folder, then it is
 * synced and renamed. When anything fails, what stood at `path` still stands there and nothing is left behind.
 *
 * A symbolic link stays one: the file that it names is replaced. A file that is there keeps its mode and, where that is
 * allowed, its owner. What is no regular file (a device, a pipe) is written to as it is. native/core/io/file.cc does the
 * same for tensors.
 *
 * @throws what `fill` throws, as it is; `Failure` naming the file when the file system refuses
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
  await guarded(() => syncDirectory(dirname(target)))
}

/**
 * Renames a file, link or folder that was made under another name to where it belongs. A folder that stands there gives way.
 * @param aside where that goes until it is removed; beside it by default
 */
export async function moveIntoPlace(made: string, path: string, aside = `${path}.${process.pid}.old`): Promise<void> {
  try {
    await rename(made, path)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code !== 'ENOTEMPTY' && code !== 'EEXIST' && code !== 'ENOTDIR' && code !== 'EISDIR') throw error
    await rename(path, aside)
    await rename(made, path)
    await rm(aside, { recursive: true, force: true })
  }
}

/** {@link writeAtomically} for a small file and a caller that cannot wait. */
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

/** Not created, and no terminal of this process's. */
const DIRECT = constants.O_WRONLY | constants.O_NOCTTY

const refused = (path: string, Failure: Failure, cause: unknown): VoxtorchError =>
  new Failure(`${path} cannot be written: ${(cause as Error).message}`, { file: path, cause })

interface Place {
  /** What is renamed to, or written to as it is. */
  target: string
  /** Under what name the file is written first; undefined for what is no regular file. */
  temporary?: string
  /** The file that is replaced. */
  old?: Stats
}

function placeOf(path: string): Place {
  const old = statSync(path, { throwIfNoEntry: false })
  if (old && !old.isFile() && !old.isDirectory()) return { target: path }
  const target = targetOf(path)
  return { target, temporary: temporaryBeside(target), ...(old?.isFile() && { old }) }
}

/** What another process has written of a file: see `temporaryBeside`, and native/core/io/file.cc, which names them alike. */
export const isTemporaryOfOthers = (name: string): boolean =>
  /^\.voxtorch-\d+-[\w-]+\.tmp$/.test(name) && !name.startsWith(`.voxtorch-${process.pid}-`)

/** A new name in a file's folder. */
export function temporaryBeside(path: string): string {
  // Short, whatever the path: names end at 255 bytes.
  return join(dirname(path), `.voxtorch-${process.pid}-${Math.random().toString(36).slice(2)}.tmp`)
}

/** The path, or where the symbolic link that it is leads in the end; that file need not be there. */
function targetOf(path: string): string {
  let target = path
  // As many as Linux follows itself.
  for (let followed = 0; followed < 40; followed++) {
    try {
      target = resolve(dirname(target), readlinkSync(target))
    } catch {
      break
    }
  }
  return target
}

/** The owner first: to change it takes bits of the mode away. */
function takeOver(file: number, { uid, gid, mode }: Stats): void {
  const owned = [uid, -1].some((user) => {
    try {
      fchownSync(file, user, gid)
      return true
    } catch {
      return false
    }
  })
  // Of a group that is not the file's, nobody gets what the group may.
  fchmodSync(file, mode & (owned ? 0o7777 : 0o7707))
}

async function writeFully(file: FileHandle, bytes: Uint8Array): Promise<void> {
  let done = 0
  while (done < bytes.length) {
    done += (await file.write(bytes, done, Math.min(bytes.length - done, 1 << 30))).bytesWritten
  }
}

/** Without it a crash of the machine could take the rename back. */
async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r')
  try {
    await directory.sync()
  } finally {
    await directory.close()
  }
}
