import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect, it } from 'vitest'

const root = fileURLToPath(new URL('../..', import.meta.url))

it('examples/custom-loop.ts beats bag-of-words logistic regression in 80 lines', async () => {
  expect(readFileSync(`${root}examples/custom-loop.ts`, 'utf8').trimEnd().split('\n').length).toBeLessThanOrEqual(80)
  const command = ['--import', 'tsx', 'examples/custom-loop.ts']
  const { stdout } = await promisify(execFile)(process.execPath, command, { cwd: root, timeout: 110_000 })
  const [, accuracy, baseline] = /held out: (\S+) \(bag-of-words logistic regression: (\S+)\)/.exec(stdout) ?? []
  expect(Number(accuracy)).toBeGreaterThanOrEqual(Number(baseline))
  expect(Number(accuracy)).toBeLessThan(0.9)
}, 120_000)
