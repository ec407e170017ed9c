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
import { expectClose } from '../helpers.js'

const root = fileURLToPath(new URL('../..', import.meta.url))
const home = mkdtempSync(join(tmpdir(), 'voxtorch-demo-'))
afterAll(() => rmSync(home, { recursive: true, force: true }))

describe('the plan', () => {
  const clips = planClips()
  const words = (text: string) => (text.toLowerCase().match(/[a-z']+/g) ?? []).join(' ')

  it('keeps every sentence and every voice of the test out of training', () => {
    const heard = new Set(clips.train.map((clip) => words(clip.text)))
    expect(clips.test.filter((clip) => heard.has(words(clip.text)))).toEqual([])
    const variants = (part: typeof clips.train) => new Set(part.map((clip) => clip.voice.split('+')[1]))
    const [training, testing] = [variants(clips.train), variants(clips.test)]
    expect([...testing].filter((variant) => training.has(variant))).toEqual([])
    expect(training.size).toBeGreaterThanOrEqual(8)
    expect(testing.size).toBe(4)
    expect(clips.train.length + clips.test.length).toBeGreaterThanOrEqual(1800)
  })

  it('says each test sentence once in each tone, so that words tell nothing about it', () => {
    const tones = new Map<string, number[]>()
    for (const { text, tone } of clips.test) tones.set(text, [...(tones.get(text) ?? []), tone].sort())
    expect([...tones.values()].filter((list) => list.join() !== '0,1')).toEqual([])
  })

  it('draws tones in training by lot', () => {
    // 1,800 fair draws: 4 standard deviations are 5 %.
    const share = (list: typeof clips.train) => list.filter((clip) => clip.tone === 1).length / list.length
    for (const kind of [0, 1]) {
      const own = clips.train.filter((clip) => clip.words === kind)
      expect(Math.abs(share(own) - 0.5)).toBeLessThan(0.067)
    }
    // Nothing but the range differs between the tones.
    const mean = (tone: number, what: 'pitch' | 'speed') => {
      const own = clips.train.filter((clip) => clip.tone === tone).map((clip) => clip[what])
      return own.reduce((sum, value) => sum + value, 0) / own.length
    }
    expect(Math.abs(mean(0, 'pitch') - mean(1, 'pitch'))).toBeLessThan(1.7)
    expect(Math.abs(mean(0, 'speed') - mean(1, 'speed'))).toBeLessThan(2.8)
  })

  it('is the same each time, and another for another seed', () => {
    expect(planClips()).toEqual(clips)
    expect(planClips({ seed: 1 })).not.toEqual(clips)
  })
})

describe('the model', () => {
  const [bands, vocabSize] = [16, 50]
  const config = { vocabSize, bands, classes: 4, dim: 16, heads: 2, dropout: 0.1, text: true, speech: true }
  const collate = vt.padCollate({
    text: { pad: 0, dtype: 'int64', elementShape: [Vocabulary.perWord], mask: 'textMask' },
    speech: { pad: 0, elementShape: [bands], mask: 'speechMask' },
  })
  const random = new vt.Random(3)
  const sample = (words: number, frames: number) => ({
    text: Int32Array.from({ length: words * Vocabulary.perWord }, () => random.below(vocabSize)),
    speech: Float32Array.from({ length: frames * bands }, () => random.float() - 0.5),
  })

  it('gives a clip in a padded batch what it gives the clip alone', async () => {
    vt.manualSeed(0)
    using model = new SpeechTextClassifier(config).eval()
    const samples = [sample(3, 37), sample(9, 90), sample(5, 51)]
    const together = await model.forward(collate(samples))
    for (const [i, one] of samples.entries())
      expectClose(await model.forward(collate([one])), together.narrow(0, i, 1), 1e-5, `clip ${i}`)
  })

  it('that has only text takes nothing from the speech, not even its length', async () => {
    using model = new SpeechTextClassifier({ ...config, speech: false }).eval()
    const [short, long] = [sample(4, 20), sample(4, 200)]
    const logits = await model.forward(collate([short]))
    expectClose(await model.forward(collate([{ ...long, text: short.text }])), logits, 0)
    expect(model.namedParameters().filter(([name]) => name.startsWith('speech'))).toEqual([])
  })
})

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
