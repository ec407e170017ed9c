import { existsSync } from 'node:fs'
import { mkdtemp, open, readdir, rm } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { isTemporaryOfOthers, makeDirectory, moveIntoPlace } from '../../base/atomic.js'
import { CheckpointError, VoxtorchError } from '../../base/errors.js'

// A checkpoint's folder has its final name only while it is complete: it is filled and removed under another name.

const TEMPORARY = '.voxtorch-checkpoint-'
const CHECKPOINT = /^checkpoint-(\d+)$/

/**
 * Write a folder atomically: `fill` writes its files under a temporary name, all is synced, then it is renamed. An existing
 * folder at `path` is replaced.
 */
export async function writeFolder(path: string, fill: (folder: string) => Promise<void>): Promise<void> {
  const parent = dirname(path)
  await guarded(path, async () => {
    makeDirectory(parent, CheckpointError)
    const temporary = await newTemporary(parent)
    try {
      await fill(temporary)
      for (const name of await readdir(temporary)) await sync(join(temporary, name))
      await sync(temporary)
      if (existsSync(path)) await removeFolder(path)
      await moveIntoPlace(temporary, path)
      await sync(parent)
    } catch (error) {
      await rm(temporary, { recursive: true, force: true })
      throw error
    }
  })
}

/** Remove a folder so that a process killed half way leaves no part of it under its name. */
export async function removeFolder(path: string): Promise<void> {
  await guarded(path, async () => {
    const temporary = await newTemporary(dirname(path))
    const gone = join(temporary, basename(path))
    await moveIntoPlace(path, gone)
    await rm(temporary, { recursive: true, force: true })
  })
}

/** Remove the leftovers of killed processes. Hold the folder's lock: leftovers of a live process are removed too. */
export async function removeLeftovers(parent: string): Promise<void> {
  if (!existsSync(parent)) return
  await guarded(parent, async () => {
    for (const name of await readdir(parent)) {
      if (name.startsWith(TEMPORARY) || isTemporaryOfOthers(name))
        await rm(join(parent, name), { recursive: true, force: true })
    }
  })
}

/** List the complete checkpoints in a folder, oldest first. */
export async function listCheckpoints(parent: string): Promise<{ path: string; name: string; step: number }[]> {
  if (!existsSync(parent)) return []
  const names = await guarded(parent, () => readdir(parent))
  return names
    .flatMap((name) => {
      const step = CHECKPOINT.exec(name)?.[1]
      return step === undefined ? [] : [{ path: join(parent, name), name, step: Number(step) }]
    })
    .sort((a, b) => a.step - b.step)
}

export const isCheckpointName = (name: string): boolean => CHECKPOINT.test(name)

export const checkpointName = (step: number): string => `checkpoint-${step}`

const newTemporary = (parent: string): Promise<string> => mkdtemp(join(parent, TEMPORARY))

async function sync(path: string): Promise<void> {
  const file = await open(path, 'r')
  try {
    await file.sync()
  } finally {
    await file.close()
  }
}

async function guarded<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (cause) {
    if (cause instanceof VoxtorchError) throw cause
    throw new CheckpointError(`${path}: ${(cause as Error).message}`, { file: path, cause })
  }
}
