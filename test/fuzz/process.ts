/** Child processes that may crash, hang or eat memory. */
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, statSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const tsx = import.meta.resolve('tsx')
// Private writable memory, in KiB: what would need more must fail as an allocation.
const DATA_LIMIT = 2_000_000

/** Run a script of this folder in a child process and its own working folder, with a job as its argument. */
export function startChild(
  script: string,
  job: unknown,
  folder: string,
  stdout: 'pipe' | 'ignore',
  stderr: number | 'ignore',
): ChildProcess {
  const path = fileURLToPath(new URL(script, import.meta.url))
  const command = [process.execPath, '--import', tsx, '--no-warnings', '--expose-gc', path, JSON.stringify(job)]
  // A sanitizer's shadow memory counts, and is more than any limit.
  const most = process.env.VOXTORCH_SANITIZED ? 'unlimited' : DATA_LIMIT
  const limited = ['-c', `ulimit -d ${most} && ulimit -c 0 && exec "$@"`, 'sh', ...command]
  return spawn('sh', limited, { cwd: folder, stdio: ['ignore', stdout, stderr] })
}

export interface End {
  /** Null when all went well. */
  cause: string | null
  hung: boolean
}

/** Waits for a child; ends it when it has not written to its progress file for `patience` ms (six times that to start). */
export function watch(child: ChildProcess, progress: string, patience: number): Promise<End> {
  let last = 0
  let since = Date.now()
  let hung = false
  const timer = setInterval(() => {
    const now = existsSync(progress) ? statSync(progress).mtimeMs : 0
    if (now !== last) {
      last = now
      since = Date.now()
    } else if (Date.now() - since > (now === 0 ? 6 * patience : patience)) {
      hung = true
      child.kill('SIGKILL')
    }
  }, 500)
  return new Promise((resolve) => {
    child.once('exit', (code, signal) => {
      clearInterval(timer)
      resolve({ cause: code === 0 ? null : (signal ?? `exit code ${code}`), hung })
    })
  })
}
