import { open, readFile, rename, rm, stat, utimes } from 'node:fs/promises'
import { hostname } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { cancelIfAborted } from './http.js'

/** Its holder touches a lock more often than this, so an older one was left behind. In milliseconds. */
const STALE = 60_000
const BEAT = 10_000
const POLL = 100

/**
 * Does something while no other process that asks for the same lock does, on this machine or on one that shares the
 * folder. The lock is a file with the holder's name: Node has no flock, which Python's huggingface_hub uses. The two
 * need not wait for each other, because both publish finished files by renaming.
 */
export async function withLock<T>(path: string, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  const me = JSON.stringify({ host: hostname(), pid: process.pid, id: Math.random().toString(36).slice(2) })
  while (!(await taken(path, me))) {
    if (await abandoned(path)) continue
    await sleep(POLL, undefined, { signal }).catch(() => cancelIfAborted(signal))
  }
  const beat = setInterval(() => utimes(path, new Date(), new Date()).catch(() => {}), BEAT).unref()
  try {
    return await work()
  } finally {
    clearInterval(beat)
    if ((await contents(path)) === me) await rm(path, { force: true })
  }
}

async function taken(path: string, me: string): Promise<boolean> {
  try {
    const file = await open(path, 'wx')
    try {
      await file.write(me)
    } finally {
      await file.close()
    }
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false
    throw error
  }
}

/** Removes a lock whose holder is gone. */
async function abandoned(path: string): Promise<boolean> {
  const found = await contents(path)
  if (found === undefined) return true
  const age =
    Date.now() -
    (await stat(path)
      .then(({ mtimeMs }) => mtimeMs)
      .catch(() => Date.now()))
  if (age < STALE && !isDead(found)) return false
  // Of several that come to the same conclusion only one can rename it.
  const aside = `${path}.${process.pid}.${Math.random().toString(36).slice(2)}`
  try {
    await rename(path, aside)
  } catch {
    return true
  }
  // Somebody was quicker, and this is already the next holder's: give it back.
  if ((await contents(aside)) !== found) await rename(aside, path)
  await rm(aside, { force: true })
  return true
}

function isDead(holder: string): boolean {
  try {
    const { host, pid } = JSON.parse(holder) as { host?: unknown; pid?: unknown }
    if (host !== hostname() || !Number.isSafeInteger(pid)) return false
    process.kill(pid as number, 0)
    return false
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ESRCH'
  }
}

const contents = (path: string): Promise<string | undefined> => readFile(path, 'utf8').catch(() => undefined)
