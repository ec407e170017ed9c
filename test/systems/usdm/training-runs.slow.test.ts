import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { loadSafetensors, Random, scope, type Tensor, tensor, writeWav } from '../../../lib/index.js'
import { launch } from '../../distributed/ranks.js'
import { expectClose } from '../../helpers.js'
import { type Child, filesOf, start } from '../../train/trainer/child.js'
import { byteTokenizer } from './tiny.js'

// Trainings in processes of their own: killed and started again, and in two processes beside one.

const home = mkdtempSync(join(tmpdir(), 'voxtorch-usdm-runs-'))
afterAll(() => rmSync(home, { recursive: true, force: true }))
beforeAll(() => byteTokenizer(join(home, 'tokenizer'), 6))
const script = fileURLToPath(new URL('./training-run.mjs', import.meta.url))
const preprocessing = fileURLToPath(new URL('./preprocess-run.mjs', import.meta.url))
const args = (kind: string, outputDir: string) => [script, kind, join(home, 'tokenizer'), outputDir]
const run = (kind: string, outputDir: string): Child => start(args(kind, outputDir))

const metrics = (outputDir: string) =>
  readFileSync(join(outputDir, 'metrics.jsonl'), 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => ({ ...JSON.parse(line), speed: undefined }))

it.each(['whole', 'lora', 'ustm'])('%s: ends with the same bytes after SIGKILLs at random moments', async (kind) => {
  const [whole, killed] = [join(home, `${kind}-whole`), join(home, `${kind}-killed`)]
  const first = run(kind, whole)
  expect(await first.exit, first.errors()).toEqual({ code: 0, signal: null })
  const done = first.lines.at(-1)
  expect(done).toMatch(/^done /)
  expect(first.lines.filter((line) => line.startsWith('step'))).toHaveLength(20)

  const random = new Random(Date.now() % 2 ** 31)
  for (let kills = 0; kills < 3; kills += 1) {
    const child = run(kind, killed)
    // The first before anything is saved, one well after a checkpoint, one wherever it is.
    for (let more = [1 + random.below(3), 7, 1 + random.below(6)][kills]!; more > 0; more -= 1)
      await child.line(/^step/)
    await sleep(random.below(30))
    child.process.kill('SIGKILL')
    await child.exit
  }
  const last = run(kind, killed)
  expect(await last.exit, last.errors()).toEqual({ code: 0, signal: null })
  expect(last.errors()).toBe('')
  expect(Number(last.lines.find((line) => line.startsWith('step'))?.slice(5) ?? 20)).toBeGreaterThan(4)
  expect(last.lines.at(-1)).toBe(done)
  expect(metrics(killed)).toEqual(metrics(whole))
  expect(filesOf(killed)).toEqual(filesOf(whole))
  const weights = filesOf(whole).filter((file) => file.endsWith('.safetensors'))
  expect(weights.length).toBeGreaterThan(2)
  for (const file of [...weights, 'results.json', 'model/tokenizer.json']) {
    const same = readFileSync(join(killed, file)).equals(readFileSync(join(whole, file)))
    expect(same, `${file} is the same, byte for byte`).toBe(true)
  }
})

it('preprocessing goes on after SIGKILLs: no clip is heard twice but of the batch that was ended, and the files are equal', async () => {
  const data = join(home, 'dialogs')
  await byteTokenizer(join(data, 'tokenizer'), 50)
  const records = Array.from({ length: 40 }, (_, i) => {
    const [dialog, turn] = [Math.floor(i / 4), i % 4]
    return { dialog: `d${dialog}`, turn, speaker: `${turn % 2}`, text: 'Hi.', wav: `${i}.wav` }
  })
  for (const [i, { wav }] of records.entries()) {
    const samples = Float32Array.from({ length: 1600 + 2 * i }, (_, k) => 0.3 * Math.sin(k * k * 1e-5 * (i + 1)))
    await writeWav(join(data, wav), tensor(samples), { sampleRate: 16_000, format: 'float32' })
  }
  writeFileSync(join(data, 'turns.jsonl'), records.map((record) => JSON.stringify(record)).join('\n'))
  const preprocess = (output: string) => start([preprocessing, data, join(home, output)])
  const batches = (lines: readonly string[]) =>
    lines.filter((line) => line.startsWith('batch')).map((line) => line.split(' ').slice(1).map(Number))

  const whole = preprocess('unbroken')
  expect(await whole.exit, whole.errors()).toEqual({ code: 0, signal: null })
  expect(Math.max(...batches(whole.lines).map(({ length }) => length))).toBe(2)
  const random = new Random(Date.now() % 2 ** 31)
  const heard = new Map<number, number>()
  const again = new Set<number>()
  for (let kills = 0; kills < 4; kills += 1) {
    const child = preprocess('ended')
    // In the midst of a group of four batches.
    for (let more = kills < 3 ? 2 + random.below(3) : Number.POSITIVE_INFINITY; more > 0; more -= 1) {
      if ((await child.line(/^(batch|done)/)) === undefined) break
    }
    if (kills < 3) child.process.kill('SIGKILL')
    await child.exit
    const told = batches(child.lines)
    for (const one of told.flat()) heard.set(one, (heard.get(one) ?? 0) + 1)
    for (const one of kills < 3 ? (told.at(-1) ?? []) : []) again.add(one)
    expect(child.lines.includes('done'), child.errors()).toBe(kills === 3)
  }
  expect(heard.size).toBe(40)
  expect([...heard].filter(([clip, times]) => times > (again.has(clip) ? 4 : 1))).toEqual([])
  expect(filesOf(join(home, 'ended'))).toEqual(filesOf(join(home, 'unbroken')))
  for (const file of filesOf(join(home, 'unbroken'))) {
    expect(readFileSync(join(home, 'ended', file)), file).toEqual(readFileSync(join(home, 'unbroken', file)))
  }
})

it.each(['ranks', 'lora-ranks', 'ustm-ranks'])(
  '%s: two processes, with the optimiser divided, train to the weights of one',
  async (kind) => {
    const [one, two] = [join(home, `${kind}-one`), join(home, `${kind}-two`)]
    const alone = run(kind, one)
    expect(await alone.exit, alone.errors()).toEqual({ code: 0, signal: null })
    const { code, stderr } = await launch(['--nproc', '2', ...args(kind, two)]).ended
    expect(code, stderr).toBe(0)
    await scope(async () => {
      const weights = async (folder: string) =>
        (await loadSafetensors(join(folder, `model/${kind === 'lora-ranks' ? 'adapter_model' : 'model'}.safetensors`)))
          .tensors
      const [a, b] = [await weights(two), await weights(one)]
      expect(Object.keys(a)).toEqual(Object.keys(b))
      for (const [name, value] of Object.entries(b)) expectClose(a[name] as Tensor, value, 1e-5, name)
    })
    const losses = (folder: string) => metrics(folder).flatMap(({ loss, evalLoss }) => [loss ?? evalLoss])
    const [mine, other] = [losses(two), losses(one)]
    expect(mine).toHaveLength(other.length)
    for (const [i, loss] of mine.entries()) expect(loss).toBeCloseTo(other[i], 5)
    expect(existsSync(join(two, 'model/tokenizer.json'))).toBe(true)
  },
)
