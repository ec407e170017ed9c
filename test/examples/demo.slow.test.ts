import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, describe, expect, it } from 'vitest'
import * as vt from 'voxtorch'
import { labelOf, planClips } from '../../examples/demo/clips.js'
import { SpeechTextClassifier } from '../../examples/demo/model.js'
import type { Outcome } from '../../examples/demo/outcome.js'
import { Vocabulary } from '../../examples/demo/vocabulary.js'

const root = fileURLToPath(new URL('../..', import.meta.url))
const home = mkdtempSync(join(tmpdir(), 'voxtorch-demo-'))
afterAll(() => rmSync(home, { recursive: true, force: true }))

const folder = join(home, 'clips')
const out = join(home, 'out')
const command = ['--import', 'tsx', 'examples/demo/main.ts', '--quick', '--clips', folder, '--out', out]

describe('npm run demo -- --quick', () => {
  it('is a script of at most 150 lines', () => {
    const lines = readFileSync(join(root, 'examples/demo/main.ts'), 'utf8').trimEnd().split('\n')
    expect(lines.length).toBeLessThanOrEqual(150)
  })

  it('killed while it speaks, leaves only whole clips', async () => {
    const demo: ChildProcess = spawn(process.execPath, command, { cwd: root, stdio: 'ignore' })
    while (spoken().length < 5) {
      expect(demo.exitCode).toBeNull()
      await sleep(20)
    }
    const exit = once(demo, 'exit')
    demo.kill('SIGKILL')
    await exit
    expect(spoken().length).toBeLessThan(48)
    for (const name of spoken()) {
      const { samples, sampleRate, source } = await vt.readAudio(join(folder, name))
      expect([sampleRate, source.channels, source.format]).toEqual([16000, 1, 'wav'])
      expect(samples.size(0) * 2 + 44).toBe(statSync(join(folder, name)).size)
      expect(samples.size(0)).toBeGreaterThan(8000)
      expect(Number(samples.abs().max().item())).toBeGreaterThan(0.05)
      samples.dispose()
    }
  })

  it('goes on where it was, and writes a model, events, numbers and a report', async () => {
    const [first] = spoken()
    const before = statSync(join(folder, first!)).mtimeMs
    const { stdout } = await promisify(execFile)(process.execPath, command, { cwd: root })
    expect(spoken().length).toBe(48)
    expect(statSync(join(folder, first!)).mtimeMs).toBe(before)

    const outcome = JSON.parse(readFileSync(join(out, 'demo.json'), 'utf8')) as Outcome
    expect(outcome.rows.map((row) => row.input)).toEqual([
      ...['speech and text', 'text alone', 'speech alone', 'majority class'],
    ])
    expect(outcome.clips).toEqual({ train: 36, test: 12 })
    expect(outcome.confusion.flat().reduce((sum, count) => sum + count)).toBe(12)
    const right = outcome.confusion.reduce((sum, row, i) => sum + row[i]!, 0)
    expect(outcome.rows[0]!.accuracy).toBeCloseTo(right / 12, 12)
    expect(outcome.rows[1]!.accuracy).toBeLessThanOrEqual(0.5)
    for (const { accuracy } of outcome.rows) expect(stdout).toContain(`${(100 * accuracy).toFixed(1)} %`)
    expect(stdout).toContain('The voices are synthetic')
    for (const name of Object.keys(outcome.loss))
      expect(readdirSync(join(out, 'events', name.replaceAll(' ', '-'))).length).toBe(1)

    const model = await SpeechTextClassifier.fromPretrained(join(out, 'model'))
    const vocabulary = await Vocabulary.load(join(out, 'model/vocabulary.json'))
    expect(model.config.vocabSize).toBe(vocabulary.size)
    model.dispose()
    expect(new Set(planClips({ quick: true }).test.map(labelOf)).size).toBe(4)
  })

  it('shows nothing that needs a network, and says that the voices are synthetic', () => {
    const page = readFileSync(join(out, 'report.html'), 'utf8')
    expect(page).toContain('The voices are synthetic')
    expect(page).not.toMatch(/https?:|<script|<link|@import|url\(/)
    expect(page.match(/src="(?!data:audio\/wav;base64,UklGR)/g)).toBeNull()
    expect(page.match(/<audio/g)?.length).toBe(8)
  })

  const chromium = (process.env.PATH ?? '').split(delimiter).some((path) => existsSync(join(path, 'chromium')))
  it.skipIf(!chromium)('shows in Chromium exactly the numbers of demo.json', async () => {
    const { stdout } = await promisify(execFile)(process.execPath, ['test/check-report.mjs', out], { cwd: root })
    expect(stdout).toMatch(/\d+ numbers, 3 points of 3 curves, 8 audio clips, all as in demo.json/)
  })
})

function spoken(): string[] {
  return existsSync(folder) ? readdirSync(folder).filter((name) => name.endsWith('.wav')) : []
}
