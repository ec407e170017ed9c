import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { makeDirectory, writeAtomicallySync } from '../../base/atomic.js'
import { ConfigError, DataError } from '../../base/errors.js'
import { type Holder, Lock, takeLock } from '../../base/lock.js'
import { jsonValue } from '../../files/json/json.js'
import type { LogEntry } from './state.js'

// Files of a run's folder, as `voxtorch runs` and the report read them. Needs Node alone: no addon, no libtorch.

export const RUN_FILE = 'run.json'
export const LOCK_FILE = '.voxtorch-lock'
export const METRICS_FILE = 'metrics.jsonl'
export const REPORT_FILE = 'report.html'

/** Speed of a run since the previous log. */
export interface Speed {
  /** Seconds of training so far. */
  seconds: number
  samplesPerSecond: number
  tokensPerSecond: number
  /** Resident memory of the process, in bytes. */
  residentBytes: number
}

/** Line of `metrics.jsonl`. Non-finite numbers are null. */
export interface MetricsLine extends Record<string, unknown> {
  step: number
  epoch: number
  speed?: Speed
}

/** Contents of `run.json`. */
export interface RunFile {
  name: string
  status: 'running' | 'finished' | 'stopped' | 'interrupted'
  /** ISO 8601. */
  started: string
  host: string
  pid: number
  maxSteps: number
  /** Steps done and seconds of training when it ended. Absent for a run that is running or was killed. */
  globalStep?: number
  seconds?: number
  arguments: Record<string, unknown>
}

/**
 * Lock a folder against other trainings until it is released; the lock of a killed process does not count.
 * @throws ConfigError that names the run and the process that trains there; DataError if the folder cannot be created
 */
export function lockRun(folder: string, name: string): Lock {
  makeDirectory(folder, DataError)
  let lock: Lock | Holder
  try {
    lock = takeLock(join(folder, LOCK_FILE), { name })
  } catch (cause) {
    throw new DataError(`${folder} cannot be written to: ${(cause as Error).message}`, {
      file: folder,
      cause,
    })
  }
  if (lock instanceof Lock) return lock
  const { host, pid } = lock
  const who = pid === 0 ? 'another process' : `process ${pid}${host === hostname() ? '' : ` on ${host}`}`
  throw new ConfigError(
    `TrainingArguments.outputDir: expected a folder that no other process trains in, got one where ${who} is training${lock.name === '' ? '' : ` '${lock.name}'`}: ${folder}. Wait until it has ended, ` +
      'or set another outputDir',
    { argument: 'outputDir', folder, pid, host, runName: lock.name },
  )
}

export function writeRun(folder: string, run: RunFile): void {
  makeDirectory(folder, DataError)
  writeAtomicallySync(join(folder, RUN_FILE), DataError, `${JSON.stringify(run, null, 2)}\n`)
}

/** Read `run.json` of a folder. @throws DataError that names the file if it does not describe a run */
export function readRun(folder: string): RunFile {
  const file = join(folder, RUN_FILE)
  try {
    const run = jsonValue(readFileSync(file, 'utf8'), false, file) as RunFile
    if (typeof run?.name === 'string' && typeof run.arguments === 'object' && run.arguments) return run
    throw new Error('it has no name or no arguments')
  } catch (cause) {
    throw new DataError(`${file} cannot be read as a run: ${(cause as Error).message}`, { file, cause })
  }
}

/** Read the lines of a metrics file; a last line that a killed process left incomplete is ignored. */
export function readMetrics(folder: string): MetricsLine[] {
  const file = join(folder, METRICS_FILE)
  if (!existsSync(file)) return []
  const lines = readFileSync(file, 'utf8').split('\n')
  lines.pop()
  return lines.map((line, i) => {
    const value = jsonValue(line, false, file, i + 1) as MetricsLine
    if (typeof value?.step === 'number' && typeof value.epoch === 'number') return value
    throw new DataError(`${file} line ${i + 1}: expected a step and an epoch in it`, { file, line: i + 1 })
  })
}

/** Find the run folders in a folder and below, sorted by name; three levels deep, and not inside another run. */
export function findRuns(root: string, levels = 3): string[] {
  if (existsSync(join(root, RUN_FILE))) return [root]
  if (levels === 0) return []
  let entries: import('node:fs').Dirent[]
  try {
    entries = readdirSync(root, { withFileTypes: true })
  } catch {
    return []
  }
  return entries
    .filter((entry) => entry.isDirectory() && !entry.name.startsWith('.') && entry.name !== 'node_modules')
    .map((entry) => entry.name)
    .sort()
    .flatMap((name) => findRuns(join(root, name), levels - 1))
}

/** Return the status of a run; `running` only if its process is on this machine and alive. */
export function statusOf(run: RunFile): RunFile['status'] {
  if (run.status !== 'running' || run.host !== hostname()) return run.status
  try {
    process.kill(run.pid, 0)
    return 'running'
  } catch (error) {
    // EPERM: the process of another user, which is alive.
    return (error as NodeJS.ErrnoException).code === 'EPERM' ? 'running' : 'interrupted'
  }
}

/** Return the steps done: as recorded at the end of the run, or else as last logged, which may be much earlier. */
export const stepOf = (run: RunFile, lines: readonly MetricsLine[]): number =>
  run.globalStep ?? (run.status === 'finished' ? run.maxSteps : (lines.at(-1)?.step ?? 0))

/** Format a log entry as a line of the metrics file. */
export const metricsLine = (entry: LogEntry, speed?: Speed): string => `${JSON.stringify({ ...entry, speed })}\n`
