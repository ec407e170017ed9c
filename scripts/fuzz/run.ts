/** The parent: starts children, watches them, and gathers what they found. */
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { allTargets, type Finding, type Job, type Result } from './targets.js'

export interface Options {
  seed: number
  calls: number
  attempts: number
  samples: number
  /** Part of the names of the targets to run. */
  only?: RegExp
  /** Targets for each child. */
  batch: number
  /** Told after each child. */
  onProgress?: (done: number, total: number, findings: number) => void
}

export interface Report {
  results: Result[]
  findings: Finding[]
}

const child = fileURLToPath(new URL('child.ts', import.meta.url))
const HANG = 20_000
// Private writable memory, in KiB: what would need more must fail as an allocation.
const DATA_LIMIT = 2_000_000

export function start(job: Job, stderr: number | 'inherit'): ChildProcess {
  const command = [process.execPath, '--import', 'tsx', '--no-warnings', child, JSON.stringify(job)]
  return spawn('sh', ['-c', `ulimit -d ${DATA_LIMIT} && ulimit -c 0 && exec "$@"`, 'sh', ...command], { stdio: ['ignore', 'inherit', stderr] })
}

interface End {
  /** Null when all went well. */
  cause: string | null
  hung: boolean
}

/** Waits for a child; ends it when one call takes too long. */
function watch(process: ChildProcess, progress: string): Promise<End> {
  let last = ''
  let since = Date.now()
  let hung = false
  const timer = setInterval(() => {
    const now = existsSync(progress) ? readFileSync(progress, 'utf8') : ''
    if (now !== last) {
      last = now
      since = Date.now()
    } else if (Date.now() - since > HANG) {
      hung = true
      process.kill('SIGKILL')
    }
  }, 500)
  return new Promise((resolve) => {
    process.once('exit', (code, signal) => {
      clearInterval(timer)
      resolve({ cause: code === 0 ? null : (signal ?? `exit code ${code}`), hung })
    })
  })
}

export async function fuzz(options: Options): Promise<Report> {
  const targets = allTargets()
  const waiting = targets.map((_, index) => index).filter((index) => options.only?.test(targets[index]!.name) ?? true)
  const total = waiting.length
  const report: Report = { results: [], findings: [] }
  const folder = mkdtempSync(join(tmpdir(), 'voxtorch-fuzz-'))
  const { seed, calls, attempts, samples } = options
  try {
    while (waiting.length > 0) {
      const job: Job = {
        seed,
        calls,
        attempts,
        samples,
        targets: waiting.slice(0, options.batch),
        progress: join(folder, 'progress'),
        results: join(folder, `results-${waiting.length}`),
      }
      rmSync(job.progress, { force: true })
      const stderr = openSync(join(folder, 'stderr'), 'w')
      const { cause, hung } = await watch(start(job, stderr), job.progress)
      const results = existsSync(job.results) ? readFileSync(job.results, 'utf8').split('\n').slice(0, -1) : []
      report.results.push(...results.map((line) => JSON.parse(line) as Result))
      waiting.splice(0, results.length)
      if (cause !== null) {
        const tail = readFileSync(join(folder, 'stderr'), 'utf8').slice(-2000)
        if (!existsSync(job.progress)) throw new Error(`the fuzz cannot start: ${cause}\n${tail}`)
        const [index, call] = readFileSync(job.progress, 'utf8').split(' ').map(Number) as [number, number]
        const target = targets[index]!.name
        report.findings.push({ target, kind: hung ? 'hang' : 'crash', call, text: await explain(options, index, call, folder), message: hung ? 'more than 20 s' : `${cause} ${tail}` })
        waiting.splice(0, waiting.indexOf(index) + 1)
      }
      options.onProgress?.(total - waiting.length, total, report.findings.length + report.results.reduce((sum, { findings }) => sum + findings.length, 0))
    }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
  for (const { findings } of report.results) report.findings.push(...findings)
  return report
}

/** Runs one target again on its own, up to a call, to tell what that call was. */
async function explain(options: Options, index: number, call: number, folder: string): Promise<string> {
  const { seed, calls, attempts, samples } = options
  const job: Job = { seed, calls, attempts, samples, targets: [index], progress: join(folder, 'explained'), results: join(folder, 'ignored'), explain: call }
  const process = spawnCaptured(job)
  const end = await watch(process.child, job.progress)
  return `${process.output()}${end.cause === null ? ' (not when it runs alone)' : ''}`
}

function spawnCaptured(job: Job): { child: ChildProcess; output: () => string } {
  const command = [process.execPath, '--import', 'tsx', '--no-warnings', child, JSON.stringify(job)]
  const started = spawn('sh', ['-c', `ulimit -d ${DATA_LIMIT} && ulimit -c 0 && exec "$@"`, 'sh', ...command], { stdio: ['ignore', 'pipe', 'ignore'] })
  let text = ''
  started.stdout!.setEncoding('utf8').on('data', (chunk: string) => {
    if (text.length < 100_000) text += chunk
  })
  return { child: started, output: () => text.trim() }
}
