import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { makeDirectory, writeAtomicallySync } from '../../base/atomic.js'
import { ConfigError, DataError } from '../../base/errors.js'
import { type Holder, Lock, takeLock } from '../../base/lock.js'
import { jsonValue } from '../../files/json/json.js'
import type { LogEntry } from './state.js'

// A run's folder as `voxtorch runs` and the report read it. Needs Node alone: no addon, no libtorch.

export const RUN_FILE = 'run.json'
export const LOCK_FILE = '.voxtorch-lock'
export const METRICS_FILE = 'metrics.jsonl'
export const REPORT_FILE = 'report.html'

/** How fast a run was since the log before. */
export interface Speed {
  /** Seconds of training so far. */
  seconds: number
  samplesPerSecond: number
  tokensPerSecond: number
  /** Memory of the process, bytes. */
  residentBytes: number
}

/** A line of `metrics.jsonl`. What is not finite is null there. */
export interface MetricsLine extends Record<string, unknown> {
  step: number
  epoch: number
  speed?: Speed
}

/** `run.json`. */
export interface RunFile {
  name: string
  status: 'running' | 'finished' | 'stopped' | 'interrupted'
  /** ISO 8601. */
  started: string
  host: string
  pid: number
  maxSteps: number
  /** Steps done and seconds of training when it ended. A run that is going on, or was killed, has neither. */
  globalStep?: number
  seconds?: number
  arguments: Record<string, unknown>
}

/**
 * Keeps other trainings out of a folder until it is released; one that was killed keeps nobody out.
 * @throws ConfigError naming the run and the process that trains there; DataError for a folder that cannot be made
 */
export function lockRun(folder: string, name: string): Lock {
  makeDirectory(folder, DataError)
  let lock: Lock | Holder
  try {
    lock = takeLock(join(folder, LOCK_FILE), { name })
  } catch (cause) {
    throw new DataError(`${folder} cannot be written to: ${(cause as Error).message}`, { file: folder, cause })
  }
  if (lock instanceof Lock) return lock
  const { host, pid } = lock
  const who = pid === 0 ? 'another process' : `process ${pid}${host === hostname() ? '' : ` on ${host}`}`
  throw new ConfigError(
    `outputDir: ${who} is training${lock.name === '' ? '' : ` '${lock.name}'`} in ${folder}: wait until it has ended, ` +
      'or give another outputDir',
    { argument: 'outputDir', folder, pid, host, runName: lock.name },
  )
}

export function writeRun(folder: string, run: RunFile): void {
  makeDirectory(folder, DataError)
  writeAtomicallySync(join(folder, RUN_FILE), DataError, `${JSON.stringify(run, null, 2)}\n`)
}

/** @throws DataError naming the file, when it is no run's */
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

/** The lines of a metrics file; a last one that a killed process cut short is left out. */
export function readMetrics(folder: string): MetricsLine[] {
  const file = join(folder, METRICS_FILE)
  if (!existsSync(file)) return []
  const lines = readFileSync(file, 'utf8').split('\n')
  lines.pop()
  return lines.map((line, i) => {
    const value = jsonValue(line, false, file, i + 1) as MetricsLine
    if (typeof value?.step === 'number' && typeof value.epoch === 'number') return value
    throw new DataError(`${file} line ${i + 1}: it has no step or no epoch`, { file, line: i + 1 })
  })
}

/** The run folders at and below a folder, by name; three levels deep, and none inside another. */
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

/** `running` only where its process is: on this machine, and alive. */
export function statusOf(run: RunFile): RunFile['status'] {
  if (run.status !== 'running' || run.host !== hostname()) return run.status
  try {
    process.kill(run.pid, 0)
    return 'running'
  } catch (error) {
    // Another user's process is alive too.
    return (error as NodeJS.ErrnoException).code === 'EPERM' ? 'running' : 'interrupted'
  }
}

/** Steps done: as the end of the run noted, else as last logged, which may be long before. */
export const stepOf = (run: RunFile, lines: readonly MetricsLine[]): number =>
  run.globalStep ?? (run.status === 'finished' ? run.maxSteps : (lines.at(-1)?.step ?? 0))

/** A log entry as a line of the metrics file. */
export const metricsLine = (entry: LogEntry, speed?: Speed): string => `${JSON.stringify({ ...entry, speed })}\n`
