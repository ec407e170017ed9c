import { type FileHandle, open, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { VoxtorchError } from '../native/errors.js'

type Failure = new (message: string, fields: Record<string, unknown>) => VoxtorchError

/** Writes all of the bytes, and is done when they can be changed again. */
export type Write = (bytes: Uint8Array) => Promise<void>

/**
 * Makes a file that appears whole or not at all: `fill` writes it under another name in the same folder, then it is
 * synced and renamed. When anything fails, what stood at `path` still stands there and nothing is left behind.
 *
 * @throws what `fill` throws, as it is; `Failure` naming the file when the file system refuses
 */
export async function writeAtomically(
  path: string,
  Failure: Failure,
  fill: (write: Write) => Promise<void>,
): Promise<void> {
  const guarded = async <T>(work: Promise<T>): Promise<T> => {
    try {
      return await work
    } catch (cause) {
      throw new Failure(`${path} cannot be written: ${(cause as Error).message}`, { file: path, cause })
    }
  }
  // Short, whatever the path: names end at 255 bytes.
  const temporary = join(dirname(path), `.voxtorch-${process.pid}-${Math.random().toString(36).slice(2)}.tmp`)
  const file = await guarded(open(temporary, 'wx'))
  try {
    try {
      await fill((bytes) => guarded(writeFully(file, bytes)))
      await guarded(file.sync())
    } finally {
      await file.close()
    }
    await guarded(rename(temporary, path))
  } catch (error) {
    await rm(temporary, { force: true })
    throw error
  }
  await guarded(syncDirectory(dirname(path)))
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
