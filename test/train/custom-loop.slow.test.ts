import { execFile } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, expect, it } from 'vitest'
import { PATIENCE } from '../patience.js'

const root = fileURLToPath(new URL('../..', import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'voxtorch-loop-'))
afterAll(() => rmSync(folder, { recursive: true }))

it('examples/custom-loop.ts beats bag-of-words logistic regression in 90 lines', async () => {
  expect(readFileSync(`${root}examples/custom-loop.ts`, 'utf8').trimEnd().split('\n').length).toBeLessThanOrEqual(90)
  const command = ['--import', 'tsx', '--import', './test/train/record-losses.mjs', 'examples/custom-loop.ts']
  const env = { ...process.env, LOSSES: join(folder, 'losses.json') }
  const { stdout } = await promisify(execFile)(process.execPath, command, { cwd: root, timeout: PATIENCE, env })
  const [, accuracy, baseline] = /held out: (\S+) \(bag-of-words logistic regression: (\S+)\)/.exec(stdout) ?? []
  expect(Number(accuracy)).toBeGreaterThanOrEqual(Number(baseline))
  expect(Number(accuracy)).toBeLessThan(0.9)
})

it('examples/trainer.ts trains the same model with the same losses', async () => {
  const output = join(folder, 'run')
  const command = ['--import', 'tsx', 'examples/trainer.ts', output]
  const { stdout, stderr } = await promisify(execFile)(process.execPath, command, { cwd: root, timeout: PATIENCE })
  expect(stdout).toMatch(/^held out: 0\.8\d+ \(bag-of-words logistic regression: 0\.8017\)\n$/)
  expect(stderr).toBe('')
  const byHand = JSON.parse(readFileSync(join(folder, 'losses.json'), 'utf8')) as number[]
  const lines = readFileSync(join(output, 'metrics.jsonl'), 'utf8').trimEnd().split('\n')
  const logged = lines.map((line) => JSON.parse(line) as { loss?: number }).filter(({ loss }) => loss !== undefined)
  expect(byHand.length).toBe(12 * 75)
  expect(logged.map(({ loss }) => loss)).toEqual(byHand)
})
