import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { loadSafetensors, Random, scope, type Tensor } from '../../../lib/index.js'
import { launch } from '../../distributed/ranks.js'
import { expectClose } from '../../helpers.js'
import { PATIENCE } from '../../patience.js'
import { start } from '../../train/trainer/child.js'
import { makeTones } from './tones.js'

// Trainings of a Voicebox in processes of their own.

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-usdm-voicebox-runs-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
beforeAll(() => makeTones(folder))
const script = fileURLToPath(new URL('./voicebox-run.mjs', import.meta.url))

const metrics = (run: string) =>
  readFileSync(join(folder, run, 'metrics.jsonl'), 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => ({ ...JSON.parse(line), speed: undefined }))

it('ends with the same bytes after SIGKILLs', { timeout: PATIENCE }, async () => {
  const run = (output: string) => start([script, folder, join(folder, output)])
  const whole = run('whole')
  expect(await whole.exit, whole.errors()).toEqual({ code: 0, signal: null })
  const done = whole.lines.at(-1)
  expect(done).toMatch(/^done /)
  const random = new Random(Date.now() % 2 ** 31)
  for (let kills = 0; kills < 3; kills += 1) {
    const child = run('killed')
    for (let more = 1 + random.below(4); more > 0; more -= 1) await child.line(/^(step|done)/)
    await sleep(random.below(40))
    child.process.kill('SIGKILL')
    await child.exit
  }
  const last = run('killed')
  expect(await last.exit, last.errors()).toEqual({ code: 0, signal: null })
  expect(last.lines.at(-1)).toBe(done)
  expect(metrics('killed')).toEqual(metrics('whole'))
  const files = readdirSync(join(folder, 'whole'), { recursive: true }) as string[]
  const same = files.filter((file) => /\.safetensors$|results\.json$|model.config\.json$/.test(file))
  expect(same.length).toBeGreaterThan(3)
  for (const file of same) {
    const equal = readFileSync(join(folder, 'killed', file)).equals(readFileSync(join(folder, 'whole', file)))
    expect(equal, `${file} is the same, byte for byte`).toBe(true)
  }
})

it('in two processes ends with the weights of one', { timeout: PATIENCE }, async () => {
  const alone = start([script, folder, join(folder, 'one'), 'alone'])
  const both = await launch(['--nproc', '2', script, folder, join(folder, 'two'), '4']).ended
  expect(await alone.exit, alone.errors()).toEqual({ code: 0, signal: null })
  expect(both.code, both.stderr).toBe(0)
  await scope(async () => {
    const [one, two] = [await loadSafetensors(join(folder, 'one/model/model.safetensors')), await loadSafetensors(join(folder, 'two/model/model.safetensors'))] // biome-ignore format: one line
    for (const [name, value] of Object.entries(one.tensors)) {
      // Of the bias of an attention's keys the gradient is rounding, of which Adam makes whole steps.
      if (!name.endsWith('k_proj.bias')) expectClose(two.tensors[name] as Tensor, value, 1e-4, name)
    }
  })
  const [a, b] = [metrics('one'), metrics('two')]
  expect(b.map(({ evalLoss }) => evalLoss).length).toBe(a.length)
})
