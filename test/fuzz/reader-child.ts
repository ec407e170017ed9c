/**
 * The process that reads: mutates files, keeps those that reach new code, and writes each input down before reading it,
 * so that its parent knows what killed it. Argument: one JSON object, a {@link ReaderJob}.
 */
import {
  appendFileSync,
  existsSync,
  ftruncateSync,
  openSync,
  readdirSync,
  readFileSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { memoryStats, VoxtorchError } from '../../lib/index.js'
import { Coverage } from './coverage.js'
import { mutate } from './mutate.js'
import { Random } from './random.js'
import { emptyResult, loadTarget, type ReaderFinding, type ReaderJob, type ReaderResult } from './reader-run.js'
import type { FuzzTarget } from './targets/target.js'

const SLOW = 1000 // ms
const MUCH = 200 * 1024 // KiB
// Coverage costs about as much as some tens of inputs.
const BATCH = 64
const MOST_OF_A_KIND = 5

class Reader {
  readonly result: ReaderResult
  readonly #head = Buffer.alloc(8)

  constructor(
    readonly target: FuzzTarget,
    readonly progress: number,
  ) {
    this.result = emptyResult(target.name)
  }

  async read(input: Uint8Array): Promise<void> {
    const { result } = this
    this.#head.writeUInt32LE(result.inputs, 0)
    this.#head.writeUInt32LE(input.length, 4)
    writeSync(this.progress, Buffer.concat([this.#head, input]), 0, 8 + input.length, 0)
    result.inputs += 1
    const live = memoryStats().liveTensors
    const resident = process.resourceUsage().maxRSS
    const begin = performance.now()
    const error = await this.#outcome(input)
    const taken = performance.now() - begin
    result.slowest = Math.max(result.slowest, taken)
    if (error === null) result.accepted += 1
    else {
      const name = error instanceof Error ? error.constructor.name : typeof error
      result.errors[name] = (result.errors[name] ?? 0) + 1
      if (!(error instanceof VoxtorchError)) this.#found('untyped', input, String((error as Error)?.stack ?? error))
    }
    if (taken > SLOW) await this.#confirmSlow(input, taken)
    const grown = process.resourceUsage().maxRSS - resident
    if (grown > MUCH) this.#found('memory', input, `${Math.round(grown / 1024)} MiB more were resident`)
    const left = memoryStats().liveTensors - live
    if (left !== 0) this.#found('leak', input, `${left} tensors are left`)
  }

  async #outcome(input: Uint8Array): Promise<unknown> {
    try {
      // A copy: a reader must not change what it reads, and could.
      await this.target.run(Uint8Array.from(input))
      return null
    } catch (error) {
      return error
    }
  }

  /** The machine may have been busy. */
  async #confirmSlow(input: Uint8Array, first: number): Promise<void> {
    const begin = performance.now()
    await this.#outcome(input)
    const second = performance.now() - begin
    if (second > SLOW) this.#found('slow', input, `${Math.round(first)} ms, then ${Math.round(second)} ms`)
  }

  #found(kind: ReaderFinding['kind'], input: Uint8Array, message: string): void {
    const { findings } = this.result
    if (findings.filter((finding) => finding.kind === kind).length >= MOST_OF_A_KIND) return
    findings.push({ target: this.target.name, kind, message, input: Buffer.from(input).toString('base64') })
  }
}

function knownInputs(folder: string): Uint8Array[] {
  return existsSync(folder) ? readdirSync(folder).map((file) => readFileSync(join(folder, file))) : []
}

/** Linux keeps the largest resident memory of a process until it is told to forget it. */
function forgetPeak(): void {
  if (existsSync('/proc/self/clear_refs')) writeFileSync('/proc/self/clear_refs', '5')
}

async function main(): Promise<void> {
  const job = JSON.parse(process.argv[2]!) as ReaderJob
  process.on('warning', () => {})
  const progress = openSync(job.progress, 'w')
  for (const each of job.targets) {
    ftruncateSync(progress)
    const result = await readTarget(each, job, progress)
    appendFileSync(job.results, `${JSON.stringify(result)}\n`)
  }
}

async function readTarget(
  { name, seed, inputs: wanted }: ReaderJob['targets'][number],
  job: ReaderJob,
  progress: number,
): Promise<ReaderResult> {
  const begin = performance.now()
  const target = await loadTarget(name, job.folder)
  const reader = new Reader(target, progress)
  const coverage = new Coverage()
  await coverage.start()
  const corpus = [...target.seeds(), ...(job.known === undefined ? [] : knownInputs(join(job.known, name)))]
  globalThis.gc?.()
  // A reader that takes much memory must not hide that another does.
  forgetPeak()
  for (const input of corpus) await reader.read(input)
  await coverage.fresh(true)
  for (let batch = 0; reader.result.inputs < wanted; batch += 1) {
    const random = new Random(seed, target.name, batch)
    const inputs = Array.from({ length: Math.min(BATCH, wanted - reader.result.inputs) }, () =>
      target.generate !== undefined && random.chance(0.2)
        ? target.generate(random)
        : mutate(random.pick(corpus), random, corpus, target.words),
    )
    for (const input of inputs) await reader.read(input)
    if (await coverage.fresh(false)) corpus.push(...(await reaching(inputs, target, coverage)))
    if (batch % 64 === 0) await new Promise((resolve) => setImmediate(resolve))
  }
  await coverage.stop()
  reader.result.covered = coverage.characters
  reader.result.corpus = corpus.length
  reader.result.seconds = (performance.now() - begin) / 1000
  return reader.result
}

/** Those of a batch that reach something that nothing before them does. */
async function reaching(inputs: readonly Uint8Array[], target: FuzzTarget, coverage: Coverage): Promise<Uint8Array[]> {
  const found: Uint8Array[] = []
  for (const input of inputs) {
    try {
      await target.run(Uint8Array.from(input))
    } catch {}
    if (await coverage.fresh(true)) found.push(input)
  }
  return found
}

await main()
