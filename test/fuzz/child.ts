/**
 * The process that makes the calls: it writes which call comes next before making it, so that its parent knows what
 * killed it. Arguments: one JSON object, a {@link Job}.
 */
import { appendFileSync, fstatSync, openSync, writeSync } from 'node:fs'
import { Worker } from 'node:worker_threads'
import {
  autocast,
  inferenceMode,
  memoryStats,
  noGrad,
  ops,
  scope,
  Tensor,
  VoxtorchError,
  withDevice,
} from '../../lib/index.js'
import type { Call } from './operators.js'
import { Random } from './random.js'
import { allTargets, type Finding, type Job, type Result, type Target } from './targets.js'
import { prepareFiles } from './training.js'
import { build, describe, foreignHandles, free, made, type Spec, value } from './values.js'

const contexts: ((run: () => unknown) => unknown)[] = [
  noGrad,
  inferenceMode,
  (run) => autocast({ dtype: 'bfloat16' }, run),
  (run) => withDevice('meta', run),
]

const live = (): number => memoryStats().liveTensors
const collect = async (): Promise<void> => {
  for (let i = 0; i < 5; i += 1) {
    globalThis.gc?.()
    await new Promise((resolve) => setTimeout(resolve, 1))
  }
}
const macrotask = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

/** The tensors in a result. */
function tensorsIn(it: unknown): Tensor[] {
  if (it instanceof Tensor) return [it]
  if (typeof it !== 'object' || it === null) return []
  return (Array.isArray(it) ? it : Object.values(it)).filter((entry): entry is Tensor => entry instanceof Tensor)
}

/** A result must be usable: reading it gives values or typed errors. */
function inspect(tensor: Tensor): void {
  const { shape } = tensor
  void tensor.dtype
  void tensor.device
  if (shape.reduce((product, size) => product * size, 1) > 4096 || shape.length > 40) return
  for (const read of [() => String(tensor), () => tensor.toArray(), () => tensor.strides]) {
    try {
      read()
    } catch (error) {
      if (!(error instanceof VoxtorchError)) throw error
    }
  }
}

/** A backward pass, and the pass through that pass. */
async function differentiate(result: Tensor, args: unknown[], twice: boolean): Promise<void> {
  const leaves = args
    .flatMap((it) => [it, ...tensorsIn(it)])
    .filter((it): it is Tensor => it instanceof Tensor && !it.disposed && it.requiresGrad && it.isLeaf)
  await scope(async () => {
    try {
      const real = result.dtype.startsWith('complex') ? ops.real(result) : result
      await real.sum().backward({ createGraph: twice })
      const recorded = leaves.find((leaf) => leaf.grad?.requiresGrad)
      if (recorded?.grad) await recorded.grad.sum().backward()
    } finally {
      // The gradient's graph refers to its leaf.
      for (const leaf of leaves) leaf.grad = null
    }
  })
}

interface Outcome {
  error?: unknown
  problems: [Finding['kind'], string][]
}

async function perform(target: Target, call: Call, random: Random, anyContext: boolean): Promise<Outcome> {
  const problems: Outcome['problems'] = []
  const before = live()
  let args: unknown[]
  try {
    args = call.args.map(build)
    if (call.options.length > 0) args.push(Object.fromEntries(call.options.map(([name, spec]) => [name, build(spec)])))
  } catch (error) {
    return { problems: [['harness', String((error as Error).stack)]] }
  }
  const prepared = live()
  const context = anyContext && random.chance(0.08) ? random.pick(contexts) : null
  const further = random.chance(0.3)
  let error: unknown
  let result: unknown
  const untyped = (thrown: unknown, where: string): void => {
    if (thrown instanceof VoxtorchError) return
    problems.push([
      'untyped',
      `${where}${thrown instanceof Error ? (thrown.stack ?? thrown.message).slice(0, 1500) : `threw ${String(thrown)}`}`,
    ])
  }
  try {
    const run = (): unknown => target.invoke(call.form, args)
    result = context === null ? run() : context(run)
    if (result instanceof Promise) result = await result
  } catch (thrown) {
    error = thrown
    untyped(thrown, '')
    if (live() > prepared) {
      // What a constructor made before it failed goes with the next garbage collection. An error whose stack was not
      // asked for holds the objects of its frames.
      void (thrown as Error).stack
      await collect()
      if (live() > prepared) problems.push(['leak', `${live() - prepared} tensors are left after an error`])
    }
  }
  if (error === undefined) {
    const results = tensorsIn(result)
    try {
      if (further) for (const tensor of results.slice(0, 3)) inspect(tensor)
      const recorded = results.find((tensor) => tensor.requiresGrad && !tensor.isLeaf)
      if (recorded !== undefined) await differentiate(recorded, args, further)
    } catch (thrown) {
      untyped(thrown, 'using the result: ')
    }
  }
  free(result)
  free(args)
  if (error !== undefined && live() > before) await collect()
  const after = live()
  if (after > before && problems.length === 0) problems.push(['leak', `${after - before} tensors are left`])
  return error === undefined ? { problems } : { error, problems }
}

const describeCall = (target: Target, call: Call): string => {
  const options =
    call.options.length === 0
      ? ''
      : `, { ${call.options.map(([name, spec]) => `${name}: ${describe(spec)}`).join(', ')} }`
  return `${target.name} ${call.form}(${call.args.map(describe).join(', ')}${options})`
}

async function fuzz(job: Job, index: number, target: Target, progress: number): Promise<Result> {
  const result: Result = {
    name: target.name,
    index,
    calls: 0,
    succeeded: 0,
    validCalls: 0,
    samples: 0,
    errors: {},
    findings: [],
    milliseconds: 0,
    slowest: 0,
  }
  const begin = performance.now()
  let number = 0
  const found = (kind: Finding['kind'], call: Call, message: string): void => {
    if (result.findings.filter((finding) => finding.kind === kind).length >= 5) return
    result.findings.push({ target: target.name, kind, call: number, text: describeCall(target, call), message })
  }
  const one = async (call: Call, random: Random, role: 'valid' | 'plausible' | 'hostile'): Promise<Outcome> => {
    number += 1
    writeSync(progress, `${index} ${number} `.padEnd(32), 0)
    if (job.explain === number) writeSync(1, `${describeCall(target, call)}\n`)
    const started = performance.now()
    const written = fstatSync(2).size
    const outcome = await perform(target, call, random, role === 'hostile')
    result.slowest = Math.max(result.slowest, performance.now() - started)
    for (const [kind, message] of outcome.problems) found(kind, call, message)
    if (role === 'valid' && outcome.error !== undefined) found('valid failed', call, String(outcome.error))
    const noise = fstatSync(2).size - written
    if (noise > 0) found('noise', call, `${noise} bytes were written to the standard error`)
    if (job.explain === number) writeSync(1, `=> ${outcome.error ?? 'ok'} ${outcome.problems.join('; ')}\n`)
    if (number % 16 === 0) await macrotask()
    return outcome
  }

  const samples: Call[] = []
  for (let attempt = 0; attempt < job.attempts && samples.length < job.samples; attempt += 1) {
    const call = target.plausible(new Random(job.seed, target.name, 'plausible', attempt), attempt)
    const outcome = await one(call, new Random(job.seed, target.name, 'context', 0), 'plausible')
    if (outcome.error === undefined && outcome.problems.length === 0) samples.push(call)
  }
  result.samples = samples.length
  for (const call of target.optionsLast ? samples : []) {
    const last = call.args.at(-1)
    if (call.args.length < 2 || last?.is !== 'object') continue
    const misspelt: Spec = { ...last, entries: [...last.entries, ['unreadOption', value(1)]] }
    const more = { ...call, args: [...call.args.slice(0, -1), misspelt] }
    const { error } = await one(more, new Random(job.seed, target.name, 'options'), 'plausible')
    if (error === undefined) found('unread option', more, 'unreadOption is ignored without an error')
    const other = { ...call, args: [...call.args.slice(0, -1), made('new Map()', () => new Map())] }
    const outcome = await one(other, new Random(job.seed, target.name, 'options'), 'plausible')
    if (outcome.error === undefined) found('unread option', other, 'an object without options passes for options')
  }
  for (let i = 0; i < job.calls; i += 1) {
    const random = new Random(job.seed, target.name, i)
    const valid = samples.length > 0 && i % 5 === 0
    const call = valid
      ? samples[(i / 5) % samples.length]!
      : target.hostile(random, samples.length > 0 ? random.pick(samples) : null)
    const outcome = await one(call, random, valid ? 'valid' : 'hostile')
    result.calls += 1
    if (valid) result.validCalls += 1
    if (outcome.error === undefined) result.succeeded += 1
    else {
      const name = outcome.error instanceof Error ? outcome.error.constructor.name : typeof outcome.error
      result.errors[name] = (result.errors[name] ?? 0) + 1
    }
  }
  result.milliseconds = Math.round(performance.now() - begin)
  return result
}

async function main(): Promise<void> {
  const job = JSON.parse(process.argv[2]!) as Job
  process.on('warning', () => {})
  // Handles of tensors that live in another thread, for as long as that thread does.
  const worker = new Worker(new URL('./foreign.mjs', import.meta.url))
  foreignHandles.push(
    ...(await new Promise<number[]>((resolve, reject) => {
      worker.once('message', resolve)
      worker.once('error', reject)
    })),
  )
  worker.unref()
  const targets = allTargets()
  await prepareFiles()
  const progress = openSync(job.progress, 'w')
  for (const index of job.targets) {
    const result = await fuzz(job, index, targets[index]!, progress)
    const rss = process.resourceUsage().maxRSS / 1024
    if (rss > 2048)
      result.findings.push({
        target: result.name,
        kind: 'memory',
        call: 0,
        text: '',
        message: `${Math.round(rss)} MiB were resident`,
      })
    appendFileSync(job.results, `${JSON.stringify(result)}\n`)
  }
  await worker.terminate()
}

await main()
