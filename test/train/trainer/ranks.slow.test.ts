import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { type Ending, launch, start } from '../../distributed/ranks.js'
import { PATIENCE } from '../../patience.js'
import { temporary } from './small.js'

// The Trainer in two processes, started by `voxtorch launch`, beside the same in one.

const folder = temporary()
const script = fileURLToPath(new URL('./ranks-run.mjs', import.meta.url))
const root = fileURLToPath(new URL('../../../', import.meta.url))

// biome-ignore lint/suspicious/noExplicitAny: each mode prints its own.
type Printed = any

/** What each rank printed, when both ended well. */
function printed({ code, stdout, stderr }: Ending): [Printed[], Printed[]] {
  if (code !== 0) throw new Error(`ended with ${code}: ${stderr}`)
  const of = (rank: number) =>
    stdout
      .split('\n')
      .filter((line) => line.startsWith(`[${rank}] `))
      .map((line) => JSON.parse(line.slice(4)))
  return [of(0), of(1)]
}

const two = async (mode: string, ...more: string[]) =>
  printed(await launch(['--nproc', '2', script, mode, folder(`${mode}2`), ...more]).ended)
async function one(mode: string): Promise<Printed[]> {
  const { code, stderr, values } = await start(['--no-warnings', script, mode, folder(`${mode}1`)]).ended
  if (code !== 0) throw new Error(stderr)
  return values
}

/** max|a-b| / max|b| over tensors of one name, the largest. */
function distance(actual: Record<string, number[]>, expected: Record<string, number[]>): number {
  expect(Object.keys(actual)).toEqual(Object.keys(expected))
  const worst = Object.entries(expected).map(([name, values]) => {
    const scale = Math.max(...values.map(Math.abs))
    const difference = Math.max(...values.map((value, i) => Math.abs(value - (actual[name]?.[i] as number))))
    return difference / (scale || 1)
  })
  return Math.max(...worst)
}

describe('two processes', () => {
  it('train to the weights, logs and metrics of one with batches twice as large', async () => {
    const [[first, second], alone] = await Promise.all([two('same'), one('same')])
    expect(alone.map(({ name }) => name)).toEqual(['plain', 'accumulation', 'lengths', 'dropLast', 'zero', 'loader'])
    const worst: Record<string, number> = {}
    for (const [i, whole] of alone.entries()) {
      const { name, logHistory } = whole
      expect(second[i].weights, `${name}: the ranks have the same weights`).toEqual(first[i].weights)
      expect(second[i].logHistory).toEqual(first[i].logHistory)
      expect(second[i].predictions).toEqual(first[i].predictions)
      worst[name] = distance(first[i].weights, whole.weights)
      expect(distance({ p: first[i].predictions.flat() }, { p: whole.predictions.flat() })).toBeLessThan(3e-6)
      for (const key of ['globalStep', 'samplesSeen', 'tokensSeen', 'left']) expect(first[i][key], key).toBe(whole[key])
      expect(first[i].logHistory.length).toBe(logHistory.length)
      for (const [j, entry] of logHistory.entries()) {
        for (const [key, value] of Object.entries(entry as Record<string, number>)) {
          expect(Math.abs(first[i].logHistory[j][key] - value), `${name} ${key}`).toBeLessThanOrEqual(3e-6)
        }
      }
      // Rank 0 alone wrote: each line is there once.
      const lines = (side: string) => readFileSync(join(folder(side), name, 'metrics.jsonl'), 'utf8').split('\n').length
      expect(lines('same2')).toBe(lines('same1'))
    }
    for (const [name, value] of Object.entries(worst)) expect(value, name).toBeLessThanOrEqual(1e-6)
  })

  it('do so with a native network: checkpointed, in bf16 and in fp16', async () => {
    const [[first, second], alone] = await Promise.all([two('roberta'), one('roberta')])
    const limits: Record<string, number> = { whole: 1e-6, checkpointing: 1e-6, bf16: 5e-2, fp16: 2e-2 }
    for (const [i, whole] of alone.entries()) {
      expect(second[i].weights).toEqual(first[i].weights)
      const all = (weights: Record<string, number[]>) => ({ all: Object.values(weights).flat() })
      expect(distance(all(first[i].weights), all(whole.weights)), whole.name).toBeLessThanOrEqual(
        limits[whole.name] as number,
      )
    }
    expect(alone[1].weights).toEqual(alone[0].weights)
  })

  it('stop together when one of them stops, and refuse data that is not divided', async () => {
    const [first, second] = await two('stops')
    for (const rank of [first, second])
      expect(rank.slice(0, 4)).toEqual([
        ['onStepEnd', 3, true],
        ['onLog', 3, true],
        ['onEvaluate', 3, true],
        ['patience', 6, false],
      ])
    for (const rank of [first, second])
      expect(rank[4]).toMatch(/^ConfigError: Trainer\.trainDataset: expected a sharded DataLoader/)
    expect(first[5]).toMatchObject({ name: 'CheckpointError' })
    expect(second[5]).toMatchObject({ name: 'DistributedError' })
    expect(second[5].message).toMatch(/^Trainer: expected rank 0 to finish, got its error: CheckpointError: .*nowhere/)
  })

  it('a schedule bound to ZeroRedundancyOptimizer sets the rates of all groups, also after a resume', async () => {
    for (const [{ rates, same }] of await two('schedule')) {
      expect(rates.length).toBe(8)
      for (const [zero, plain] of rates) expect(zero).toEqual(plain)
      expect(rates[1][0][0]).toBeCloseTo(0.01, 12)
      expect(rates[1][0][1]).toBeCloseTo(0.002, 12)
      expect(rates[6][0][0]).toBeLessThan(0.01)
      expect(same).toBe(true)
    }
  })
})

describe('two processes of which one is killed', () => {
  const files = ['model.safetensors', 'optimizer.safetensors', 'optimizer.json', 'training.safetensors']
  const last = (output: string) => files.map((file) => readFileSync(join(output, 'long/checkpoint-40', file)))
  const metrics = (output: string) =>
    readFileSync(join(output, 'long/metrics.jsonl'), 'utf8')
      .trimEnd()
      .split('\n')
      .map((line) => ({ ...JSON.parse(line), speed: undefined }))

  /** Runs until rank 0 says it is at a step, does something to a rank by its own number, and waits for the end. */
  async function until(output: string, step: number, act: (pids: number[]) => void) {
    const pids: number[] = []
    let done = false
    let since = 0
    const ending = await launch(['--nproc', '2', script, 'long', output], {
      onLine: (line) => {
        const [, rank, text] = /^\[(\d)\] (\{.*\})$/.exec(line) ?? []
        if (text === undefined) return
        const value = JSON.parse(text)
        if (value.pid) pids[Number(rank)] = value.pid
        if (done || rank !== '0' || value.step !== step) return
        done = true
        since = performance.now()
        act(pids)
      },
    }).ended
    return { ...ending, ms: performance.now() - since }
  }

  it('end at once with a clear error; the same command goes on and ends with the same bytes', async () => {
    const [whole, killed, ended] = [folder('whole'), folder('killed'), folder('ended')]
    const run = (output: string) => launch(['--nproc', '2', script, 'long', output]).ended
    const straight = await run(whole)
    expect([straight.code, straight.stderr]).toEqual([0, ''])

    const broken = await until(killed, 13, (pids) => process.kill(pids[1] as number, 'SIGKILL'))
    expect(broken.code).toBe(128 + 9)
    expect(broken.stderr).toMatch(/\[0\] .*DistributedError: .* on rank 0 of 2 failed/)
    expect(broken.stderr).toMatch(/rank 1 \(process \d+\) was ended by SIGKILL/)
    // Not after the timeout of a collective.
    expect(broken.ms).toBeLessThan(PATIENCE / 2)
    expect(readdirSync(join(killed, 'long')).filter((name) => /^checkpoint/.test(name))).toEqual(
      expect.arrayContaining(['checkpoint-10']),
    )
    expect(JSON.parse(readFileSync(join(killed, 'long/run.json'), 'utf8')).status).toBe('interrupted')
    const resumed = await run(killed)
    expect([resumed.code, /\[1\] \{"step":(\d+)/.exec(resumed.stdout)?.[1]]).toEqual([0, '11'])
    expect(last(killed).every((bytes, i) => bytes.equals(last(whole)[i] as Buffer))).toBe(true)
    expect(metrics(killed)).toEqual(metrics(whole))

    // A signal that only rank 1 hears: both save at the same step, and end by it.
    const told = await until(ended, 12, (pids) => process.kill(pids[1] as number, 'SIGTERM'))
    expect(told.code).toBe(128 + 15)
    expect(told.stderr).not.toMatch(/Error/)
    const saved = readdirSync(join(ended, 'long')).map((name) => Number(/^checkpoint-(\d+)$/.exec(name)?.[1] ?? 0))
    expect(Math.max(...saved)).toBeGreaterThan(11)
    expect(Math.max(...saved)).toBeLessThan(18)
    expect((await run(ended)).code).toBe(0)
    expect(last(ended).every((bytes, i) => bytes.equals(last(whole)[i] as Buffer))).toBe(true)
  })

  it('a checkpoint of two, with ZeRO, is gone on with by one', async () => {
    const output = folder('fewer')
    const args = (more: object) => JSON.stringify({ numTrainEpochs: 2, ...more })
    await launch(['--nproc', '2', script, 'long', output, args({ maxSteps: 10 })]).ended
    const alone = await start([script, 'long', output, args({ maxSteps: 12 })]).ended
    expect(alone.code).toBe(0)
    expect(alone.stderr).toMatch(/expected 2 processes, as when it was written, got 1/)
    expect(alone.values.map(({ step }) => step).filter(Boolean)).toEqual([11, 12])
    const again = await launch(['--nproc', '2', script, 'long', output, args({ maxSteps: 14 })]).ended
    expect(again.code).toBe(0)
    expect(again.stderr).toMatch(/expected 1 processes, as when it was written, got 2/)
    expect(existsSync(join(output, 'long/checkpoint-14'))).toBe(true)
  })
})

it('examples/trainer.ts runs unchanged in two processes', async () => {
  // Sixty sentences of each file, so that it takes seconds.
  const less = folder('less.mjs')
  writeFileSync(
    less,
    `import module from 'node:module'
const json = module._extensions['.json']
module._extensions['.json'] = (m, file) => {
  json(m, file)
  if (/sentiment.test.fixtures/.test(file)) m.exports = m.exports.slice(0, 60)
}`,
  )
  const output = folder('example')
  const cli = join(root, 'dist/cli/main.js')
  const example = join(root, 'examples/trainer.ts')
  const { code, stdout, stderr } = await start(['--import', less, cli, 'launch', '--nproc', '2', example, output]).ended
  expect([code, stderr]).toEqual([0, ''])
  const said = [0, 1].map((rank) => new RegExp(`^\\[${rank}\\] held out: (0\\.\\d+) `, 'm').exec(stdout)?.[1])
  expect(said[0]).toBeDefined()
  expect(said[1]).toBe(said[0])
  const lines = readFileSync(join(output, 'metrics.jsonl'), 'utf8').trimEnd().split('\n')
  const losses = lines.map((line) => JSON.parse(line).loss).filter((loss) => loss !== undefined)
  // 144 sentences in batches of 2 · 32, twelve times.
  expect(losses.length).toBe(12 * 3)
  expect(losses.at(-1)).toBeLessThan(0.8 * losses[0])
})
