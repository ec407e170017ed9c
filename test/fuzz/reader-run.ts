/** The parent: runs each reader's target in children, and gathers what they found. */
import { existsSync, mkdirSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { startChild, watch } from './process.js'
import type { FuzzTarget } from './targets/target.js'

export interface ReaderOptions {
  seed: number
  /** Inputs for each target. */
  inputs: number
  /** Names of targets; default all. */
  targets?: readonly string[]
  /** Folder for inputs with findings; default none. */
  findings?: string
  /** Files that are run first, for each target in a folder of its name: what was found before. */
  known?: string
  /** Folder of the targets; default targets/ next to this file. */
  folder?: string
  /** Time limit of one input in ms, after which its process is killed. Default 20,000. */
  patience?: number
}

export interface ReaderFinding {
  target: string
  kind: 'untyped' | 'slow' | 'memory' | 'leak' | 'crash' | 'hang'
  message: string
  /** The input, in base64. */
  input: string
}

/** Arguments of a child process, as JSON. */
export interface ReaderJob extends ReaderOptions {
  target: string
  progress: string
  result: string
}

export interface ReaderResult {
  target: string
  inputs: number
  /** Inputs that were read without an error. */
  accepted: number
  errors: Record<string, number>
  /** Covered characters of the library's source. */
  covered: number
  /** Seeds, and inputs that reached what none before them did. */
  corpus: number
  slowest: number
  seconds: number
  findings: ReaderFinding[]
}

// After so many deaths there is enough to mend.
const MOST_CHILDREN = 5
const ownTargets = fileURLToPath(new URL('targets/', import.meta.url))

export function targetNames(folder = ownTargets): string[] {
  return readdirSync(folder)
    .filter((file) => file.endsWith('.ts') && file !== 'target.ts')
    .map((file) => file.slice(0, -3))
    .sort()
}

export async function loadTarget(name: string, folder = ownTargets): Promise<FuzzTarget> {
  const module = (await import(pathToFileURL(join(folder, `${name}.ts`)).href)) as { target: FuzzTarget }
  return module.target
}

export async function fuzzReaders(options: ReaderOptions): Promise<ReaderResult[]> {
  const results: ReaderResult[] = []
  for (const target of options.targets ?? targetNames(options.folder)) results.push(await fuzzReader(target, options))
  return results
}

async function fuzzReader(target: string, options: ReaderOptions): Promise<ReaderResult> {
  const folder = mkdtempSync(join(tmpdir(), 'voxtorch-fuzz-'))
  const total: ReaderResult = {
    target,
    inputs: 0,
    accepted: 0,
    errors: {},
    covered: 0,
    corpus: 0,
    slowest: 0,
    seconds: 0,
    findings: [],
  }
  const begin = Date.now()
  const { patience = 20_000 } = options
  const progress = join(folder, 'progress')
  const result = join(folder, 'result')
  try {
    // A child that dies is followed by another with other random numbers, for what is left to do.
    for (let child = 0; total.inputs < options.inputs && child < MOST_CHILDREN; child += 1) {
      for (const file of [progress, result]) rmSync(file, { force: true })
      const inputs = options.inputs - total.inputs
      const job: ReaderJob = { ...options, seed: options.seed + child * 1_000_003, inputs, target, progress, result }
      const stderr = openSync(join(folder, 'stderr'), 'w')
      const { cause, hung } = await watch(
        startChild('reader-child.ts', job, folder, 'ignore', stderr),
        progress,
        patience,
      )
      const tail = readFileSync(join(folder, 'stderr'), 'utf8').slice(-2000)
      if (existsSync(result)) add(total, JSON.parse(readFileSync(result, 'utf8')) as ReaderResult)
      if (cause === null) break
      if (!existsSync(progress)) throw new Error(`the fuzz of ${target} cannot start: ${cause}\n${tail}`)
      const { done, input } = readProgress(progress)
      total.inputs += done
      const message = hung ? `more than ${patience / 1000} s` : `${cause}\n${tail}`
      total.findings.push({ target, kind: hung ? 'hang' : 'crash', message, input: input.toString('base64') })
    }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
  total.seconds = (Date.now() - begin) / 1000
  if (options.findings !== undefined) keepFindings(options.findings, total.findings)
  return total
}

function add(total: ReaderResult, part: ReaderResult): void {
  total.inputs += part.inputs
  total.accepted += part.accepted
  total.covered = Math.max(total.covered, part.covered)
  total.corpus += part.corpus
  total.slowest = Math.max(total.slowest, part.slowest)
  total.findings.push(...part.findings)
  for (const [name, count] of Object.entries(part.errors)) total.errors[name] = (total.errors[name] ?? 0) + count
}

/** Read what the child wrote before its last input: inputs done, length, bytes. */
function readProgress(path: string): { done: number; input: Buffer } {
  const bytes = readFileSync(path)
  return { done: bytes.readUInt32LE(0), input: bytes.subarray(8, 8 + bytes.readUInt32LE(4)) }
}

function keepFindings(folder: string, findings: readonly ReaderFinding[]): void {
  for (const [i, { target, kind, message, input }] of findings.entries()) {
    mkdirSync(join(folder, target), { recursive: true })
    writeFileSync(join(folder, target, `${kind}-${i}`), Buffer.from(input, 'base64'))
    writeFileSync(join(folder, target, `${kind}-${i}.txt`), message)
  }
}
