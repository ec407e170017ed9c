/** The parent: runs the readers' targets in children, and gathers what they found. */
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { startChild, watch } from './process.js'
import type { FuzzTarget } from './targets/target.js'

export interface ReaderOptions {
  seed: number
  /** Inputs for each target, or for the target of a name. */
  inputs: number | ((target: string) => number)
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
export interface ReaderJob {
  targets: { name: string; seed: number; inputs: number }[]
  folder?: string
  known?: string
  /** The file that holds the current input. */
  progress: string
  /** The file that gets one line for each target that is done, a {@link ReaderResult}. */
  results: string
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

/** Return the result of a target that has read nothing yet. */
export const emptyResult = (target: string): ReaderResult => ({
  target,
  inputs: 0,
  accepted: 0,
  errors: {},
  covered: 0,
  corpus: 0,
  slowest: 0,
  seconds: 0,
  findings: [],
})

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

/** One child runs all targets, one after the other: starting it takes longer than most of them. */
export async function fuzzReaders(options: ReaderOptions): Promise<ReaderResult[]> {
  const { patience = 20_000, seed } = options
  const inputsOf = (target: string) => (typeof options.inputs === 'number' ? options.inputs : options.inputs(target))
  const names = options.targets ?? targetNames(options.folder)
  const totals = names.map(emptyResult)
  const waiting = totals.map((total) => ({ total, children: 0 }))
  const scratch = mkdtempSync(join(tmpdir(), 'voxtorch-fuzz-'))
  const [progress, results, errors] = ['progress', 'results', 'stderr'].map((name) => join(scratch, name)) as [
    string,
    string,
    string,
  ]
  try {
    while (waiting.length > 0) {
      for (const file of [progress, results]) rmSync(file, { force: true })
      const job: ReaderJob = {
        targets: waiting.map(({ total, children }) => ({
          name: total.target,
          // A child that dies is followed by another with other random numbers, for what is left to do.
          seed: seed + children * 1_000_003,
          inputs: inputsOf(total.target) - total.inputs,
        })),
        ...(options.folder === undefined ? {} : { folder: options.folder }),
        ...(options.known === undefined ? {} : { known: options.known }),
        progress,
        results,
      }
      const stderr = openSync(errors, 'w')
      const child = startChild('reader-child.ts', job, scratch, 'ignore', stderr)
      closeSync(stderr)
      const { cause, hung } = await watch(child, progress, patience)
      const lines = existsSync(results) ? readFileSync(results, 'utf8').split('\n').slice(0, -1) : []
      for (const { total } of waiting.splice(0, lines.length)) add(total, JSON.parse(lines.shift()!) as ReaderResult)
      const current = waiting[0]
      if (current === undefined) break
      const tail = readFileSync(errors, 'utf8').slice(-2000)
      const { target } = current.total
      if (!existsSync(progress) || statSync(progress).size === 0)
        throw new Error(`the fuzz of ${target} cannot start: ${cause}\n${tail}`)
      const { done, input } = readProgress(progress)
      current.total.inputs += done + 1
      const message = hung ? `more than ${patience / 1000} s` : `${cause}\n${tail}`
      current.total.findings.push({ target, kind: hung ? 'hang' : 'crash', message, input: input.toString('base64') })
      current.children += 1
      if (current.total.inputs >= inputsOf(target) || current.children === MOST_CHILDREN) waiting.shift()
    }
  } finally {
    rmSync(scratch, { recursive: true, force: true })
  }
  if (options.findings !== undefined) for (const { findings } of totals) keepFindings(options.findings, findings)
  return totals
}

function add(total: ReaderResult, part: ReaderResult): void {
  total.inputs += part.inputs
  total.accepted += part.accepted
  total.covered = Math.max(total.covered, part.covered)
  total.corpus += part.corpus
  total.slowest = Math.max(total.slowest, part.slowest)
  total.seconds += part.seconds
  total.findings.push(...part.findings)
  for (const [name, count] of Object.entries(part.errors)) total.errors[name] = (total.errors[name] ?? 0) + count
}

/** Read what the child wrote before its last input: inputs of the target before it, length, bytes. */
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
