import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const PREFIX = 'voxtorch-bench-'
const made = new Set<string>()

/**
 * Create a folder for a benchmark's files, some of gigabytes. It is removed by `removeScratch`, at the end of the process, and after a
 * kill at the start of the next benchmark.
 */
export function scratchFolder(): string {
  removeStale()
  if (made.size === 0) watchSignals()
  const folder = mkdtempSync(join(tmpdir(), `${PREFIX}${process.pid}-`))
  made.add(folder)
  return folder
}

export function removeScratch(folder: string): void {
  rmSync(folder, { recursive: true, force: true, maxRetries: 3 })
  made.delete(folder)
}

const removeAll = () => {
  for (const folder of made) removeScratch(folder)
}

function watchSignals() {
  process.on('exit', removeAll)
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.once(signal, () => {
      removeAll()
      // Once more, without a listener: whoever waits for this process learns how it ended.
      process.kill(process.pid, signal)
    })
  }
}

/** Those of processes that are gone. */
function removeStale() {
  for (const name of readdirSync(tmpdir())) {
    const pid = new RegExp(`^${PREFIX}(\\d+)-`).exec(name)?.[1]
    if (pid === undefined || isAlive(Number(pid))) continue
    try {
      rmSync(join(tmpdir(), name), { recursive: true, force: true })
    } catch {
      // Another user's.
    }
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ESRCH'
  }
}
