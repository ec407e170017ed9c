import { execFile, execFileSync } from 'node:child_process'
import { appendFileSync, existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { beforeAll, describe, expect, it } from 'vitest'
import * as vt from '../../../lib/index.js'
import type { Speed } from '../../../lib/train/trainer/run-files.js'
import { accuracy, newTrainer, temporary } from './small.js'

const folder = temporary()
const root = fileURLToPath(new URL('../../..', import.meta.url))
const [first, second] = [folder('runs/first'), folder('runs/deeper/second')]
const read = (path: string) => readFileSync(path, 'utf8')
const linesOf = (run: string) =>
  read(join(run, 'metrics.jsonl'))
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>)
let history: vt.LogEntry[]

beforeAll(async () => {
  const common = { evalStrategy: 'epoch', reportTo: 'all' } as const
  const one = newTrainer(
    { outputDir: first, runName: '<b>"first" & best</b>', ...common },
    { computeMetrics: accuracy },
  )
  history = (await one.train()).state.logHistory
  const two = newTrainer({ outputDir: second, learningRate: 0.001, numTrainEpochs: 3, ...common })
  await two.train()
  for (const trainer of [one, two]) trainer.dispose()
})

describe('metrics.jsonl and run.json', () => {
  it('hold what was logged, and how fast it was', () => {
    const lines = linesOf(first)
    expect(lines.map(({ speed: _, ...line }) => line)).toEqual(history)
    const speeds = lines.filter(({ loss }) => loss !== undefined).map(({ speed }) => speed as Speed)
    expect(speeds.length).toBe(8)
    let seconds = 0
    for (const speed of speeds) {
      expect(speed.seconds).toBeGreaterThan(seconds)
      seconds = speed.seconds
      expect(speed.samplesPerSecond).toBeGreaterThan(0)
      expect(speed.tokensPerSecond / speed.samplesPerSecond).toBeCloseTo(6)
      expect(speed.residentBytes).toBeGreaterThan(1e7)
    }
    const run = JSON.parse(read(join(first, 'run.json')))
    expect(run).toMatchObject({ status: 'finished', maxSteps: 8, pid: process.pid, arguments: { learningRate: 0.02 } })
  })

  it('hold null for what is not finite where training is to go on', async () => {
    const output = folder('nan')
    const trainer = newTrainer(
      { outputDir: output, maxSteps: 2, reportTo: ['jsonl', 'html'], onNonFinite: 'warn' },
      { computeLoss: (model, batch) => (model.forward(batch).loss as vt.Tensor).mul(Number.NaN) },
    )
    const { state } = await trainer.train()
    expect(state.logHistory.map(({ loss }) => loss)).toEqual([Number.NaN, Number.NaN])
    expect(linesOf(output).map(({ loss }) => loss)).toEqual([null, null])
    expect(read(join(output, 'report.html'))).toContain('not finite')
    // And the checkpoint has it as it was.
    const again = newTrainer({ outputDir: output, maxSteps: 2 })
    expect((await again.train()).state.logHistory).toEqual(state.logHistory)
    trainer.dispose()
    again.dispose()
  })
})

describe('TensorBoard events', () => {
  it('stand in one file a run', () => {
    const [name, ...more] = readdirSync(join(first, 'events'))
    expect(more).toEqual([])
    const bytes = readFileSync(join(first, 'events', name!)).toString('latin1')
    for (const tag of ['train/loss', 'train/learningRate', 'eval/loss', 'eval/accuracy', 'speed/tokensPerSecond']) {
      expect(bytes).toContain(tag)
    }
  })
})

describe('report.html', () => {
  it('needs nothing from elsewhere, and runs nothing', () => {
    const page = read(join(first, 'report.html'))
    expect(page).not.toMatch(/https?:|<script|<link|@import|url\(|<b>/)
    expect(page).toContain('&lt;b&gt;&quot;first&quot; &amp; best&lt;/b&gt;')
    expect(page).toContain('Finished after')
  })

  const chromium = (process.env.PATH ?? '').split(delimiter).some((path) => existsSync(join(path, 'chromium')))
  it.skipIf(!chromium)('shows in Chromium exactly the numbers of metrics.jsonl', async () => {
    const command = ['test/check-training-report.mjs', first]
    const { stdout } = await promisify(execFile)(process.execPath, command, { cwd: root })
    // 8 lines of five values and 2 of four; 8 points of three curves and 2 of two.
    expect(stdout).toMatch(/: 48 numbers, 28 points of 5 curves, all as in metrics.jsonl/)
  })
})

describe('voxtorch runs', () => {
  const run = (...args: string[]) =>
    execFileSync(process.execPath, [`${root}dist/cli/main.js`, 'runs', ...args], { encoding: 'utf8' })

  it('lists what runs reached, and in what they differ', () => {
    const [head, one, two, gap, names, ...values] = run(folder('runs')).trimEnd().split('\n')
    expect(head).toMatch(/^run +status +step +time +loss +evalLoss +evalAccuracy$/)
    const lines = linesOf(second)
    const loss = lines.filter((line) => line.loss !== undefined).at(-1)!.loss as number
    expect(one).toMatch(new RegExp(`^deeper/second +finished +12/12 +0:00:0\\d +${loss.toPrecision(4)} `))
    expect(two).toMatch(/^first +finished +8\/8 /)
    expect(gap).toBe('')
    expect(names).toMatch(/^run +numTrainEpochs +learningRate$/)
    expect(values).toEqual([
      expect.stringMatching(/^deeper\/second +3 +0.001$/),
      expect.stringMatching(/^first +2 +0.02$/),
    ])
  })

  it('counts the steps of a run that ended before its first log', async () => {
    const output = folder('unlogged')
    const trainer = newTrainer({ outputDir: output, loggingSteps: 500, reportTo: ['jsonl'], saveStrategy: 'no' })
    await trainer.train()
    trainer.dispose()
    expect(run(output)).toMatch(/ finished +8\/8 +0:00:0\d/)
    // One that an older version wrote, which did not note where the run ended.
    const file = join(output, 'run.json')
    const { globalStep: _, seconds: __, ...older } = JSON.parse(read(file))
    writeFileSync(file, JSON.stringify(older))
    expect(run(output)).toMatch(/ finished +8\/8/)
  })

  it('says which were killed, and reads a line that was cut short', () => {
    const file = join(first, 'run.json')
    const whole = read(file)
    writeFileSync(
      file,
      JSON.stringify({ ...JSON.parse(whole), globalStep: undefined, status: 'running', pid: 2 ** 22 + 1 }),
    )
    appendFileSync(join(first, 'metrics.jsonl'), '{"step": 9, "epo')
    expect(run(first)).toMatch(/ interrupted +8\/8 /)
    writeFileSync(file, whole)
  })

  it('says where there is none, and which file is broken', () => {
    expect(run(folder('none'))).toMatch(/No runs found in .*none\. A Trainer writes run.json/)
    writeFileSync(join(second, 'run.json'), '{"name": 3}')
    expect(() => run(second)).toThrow(/second\/run\.json cannot be read as a run: it has no name or no arguments/)
  })
})

describe('other loggers', () => {
  it('get what W&B wants, and a bar in lines where there is no terminal', async () => {
    const logged: Record<string, number>[] = []
    const written: string[] = []
    const stream = { write: (text: string) => written.push(text) }
    const wandb = new vt.WandbLogger({ log: (values) => logged.push(values) })
    const trainer = newTrainer(
      { outputDir: folder('loggers'), loggingSteps: 4, evalStrategy: 'epoch', saveStrategy: 'no', runName: 'small' },
      { loggers: [wandb, new vt.ProgressLogger(stream)] },
    )
    const { state } = await trainer.train()
    trainer.dispose()
    expect(logged.length).toBe(4)
    expect(logged[0]).toMatchObject({ 'train/globalStep': 4, 'train/loss': state.logHistory[0]!.loss })
    expect(logged[1]).toMatchObject({ 'train/globalStep': 4, 'eval/loss': state.logHistory[1]!.evalLoss })
    const text = written.join('')
    expect(text).not.toContain('\r')
    expect(text).toMatch(/^step 4 {2}epoch 1\.00 {2}evalLoss 0\.\d+$/m)
    expect(text).toMatch(
      /^small 100% {2}8\/8 .* steps\/s .*loss 0\.\d+ .*lr 0\.002500 .*samples\/s \d.*tokens\/s \d.*memory \d\.\d+ GiB/m,
    )
    expect(readdirSync(folder('.')).includes('loggers')).toBe(false)
  })
})
