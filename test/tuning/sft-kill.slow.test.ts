import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { afterAll, expect, it } from 'vitest'
import * as vt from '../../lib/index.js'
import { fixturePath } from '../helpers.js'
import { filesOf, start } from '../train/trainer/child.js'

const home = mkdtempSync(join(tmpdir(), 'voxtorch-sft-kill-'))
afterAll(() => rmSync(home, { recursive: true, force: true }))
const [data, whole, killed] = ['data.jsonl', 'whole', 'killed'].map((name) => join(home, name)) as [
  string,
  string,
  string,
]
const script = fileURLToPath(new URL('./sft-run.mjs', import.meta.url))
const run = (outputDir: string) => start([script, fixturePath('models/audio-lm-folder-qwen2_audio'), data, outputDir])

it('trainSft ends with the same bytes after three SIGKILLs', async () => {
  const records: object[] = []
  for (let i = 0; i < 8; i++) {
    const tone = Float32Array.from({ length: 3000 + 700 * i }, (_, t) => 0.4 * Math.sin((t * (i + 1)) / 40))
    await vt.scope(() => vt.writeWav(join(home, `${i}.wav`), vt.tensor(tone), { sampleRate: 16_000 }))
    const content = [
      { type: 'audio', audio: `${i}.wav` },
      { type: 'text', text: 'which?' },
    ]
    records.push({
      messages: [
        { role: 'user', content },
        { role: 'assistant', content: `tone ${i}` },
      ],
    })
  }
  writeFileSync(data, records.map((one) => JSON.stringify(one)).join('\n'))
  const first = run(whole)
  expect(await first.exit, first.errors()).toEqual({ code: 0, signal: null })
  const done = first.lines.at(-1)
  expect(done).toMatch(/^done /)
  const random = new vt.Random(Date.now() % 2 ** 31)
  const reached: number[] = []
  for (const steps of [4, 1, 6]) {
    const child = run(killed)
    for (let more = steps; more > 0; more--) await child.line(/^step/)
    await sleep(random.below(40))
    child.process.kill('SIGKILL')
    expect(await child.exit, child.errors()).toEqual({ code: null, signal: 'SIGKILL' })
    reached.push(
      Number(
        child.lines
          .filter((line) => line.startsWith('step'))
          .at(-1)
          ?.slice(5),
      ),
    )
  }
  const last = run(killed)
  expect(await last.exit, last.errors()).toEqual({ code: 0, signal: null })
  const began = Number(last.lines.find((line) => line.startsWith('step'))?.slice(5))
  expect(began, `killed at steps ${reached}`).toBeGreaterThan(3)
  expect(last.lines.at(-1)).toBe(done)
  expect(filesOf(killed)).toEqual(filesOf(whole))
  const weights = filesOf(whole).filter((file) => file.endsWith('.safetensors'))
  expect(weights.length).toBeGreaterThan(2)
  for (const file of [...weights, 'results.json']) {
    expect(readFileSync(join(killed, file)).equals(readFileSync(join(whole, file))), file).toBe(true)
  }
})
