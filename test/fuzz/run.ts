/** The parent: starts children, watches them, and gathers what they found. */
import { existsSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startChild, watch } from './process.js'
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
  /** Told after each child what it found. */
  onProgress?: (done: number, total: number, found: readonly Finding[]) => void
}

export interface Report {
  results: Result[]
  findings: Finding[]
}

const HANG = 20_000

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
      const { cause, hung } = await watch(startChild('child.ts', job, folder, 'ignore', stderr), job.progress, HANG)
      const results = existsSync(job.results) ? readFileSync(job.results, 'utf8').split('\n').slice(0, -1) : []
      const finished = results.map((line) => JSON.parse(line) as Result)
      const found = finished.flatMap(({ findings }) => findings)
      report.results.push(...finished)
      waiting.splice(0, results.length)
      if (cause !== null) {
        const tail = readFileSync(join(folder, 'stderr'), 'utf8').slice(-2000)
        if (!existsSync(job.progress)) throw new Error(`the fuzz cannot start: ${cause}\n${tail}`)
        const [index, call] = readFileSync(job.progress, 'utf8').split(' ').map(Number) as [number, number]
        const target = targets[index]!.name
        found.push({
          target,
          kind: hung ? 'hang' : 'crash',
          call,
          text: await explain(options, index, call, folder),
          message: hung ? 'more than 20 s' : `${cause} ${tail}`,
        })
        waiting.splice(0, waiting.indexOf(index) + 1)
      }
      report.findings.push(...found)
      options.onProgress?.(total - waiting.length, total, found)
    }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
  return report
}

/** Runs one target again on its own, up to a call, to tell what that call was. */
async function explain(options: Options, index: number, call: number, folder: string): Promise<string> {
  const { seed, calls, attempts, samples } = options
  const job: Job = {
    seed,
    calls,
    attempts,
    samples,
    targets: [index],
    progress: join(folder, 'explained'),
    results: join(folder, 'ignored'),
    explain: call,
  }
  const started = startChild('child.ts', job, folder, 'pipe', 'ignore')
  let text = ''
  started.stdout!.setEncoding('utf8').on('data', (chunk: string) => {
    if (text.length < 100_000) text += chunk
  })
  const { cause } = await watch(started, job.progress, HANG)
  return `${text.trim()}${cause === null ? ' (not when it runs alone)' : ''}`
}
