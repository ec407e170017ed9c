import { setTimeout as sleep } from 'node:timers/promises'
import { Lock, takeLock } from '../base/lock.js'
import { cancelIfAborted } from './http.js'

const POLL = 100

/**
 * Does something while no other process that asks for the same lock does, on this machine or on one that shares the
 * folder. Python's huggingface_hub has locks of its own kind: the two need not wait for each other, because both publish
 * finished files by renaming.
 */
export async function withLock<T>(path: string, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  for (;;) {
    const lock = takeLock(path, { name: 'download', fromTheLiving: true })
    if (lock instanceof Lock) {
      try {
        return await work()
      } finally {
        lock.release()
      }
    }
    await sleep(POLL, undefined, { signal }).catch(() => cancelIfAborted(signal))
  }
}
