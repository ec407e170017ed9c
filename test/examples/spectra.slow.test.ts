import { execFile } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, expect, it } from 'vitest'
import * as vt from 'voxtorch'
import { smallSpectra } from '../systems/spectra/network.js'
import { tinyTokenizer } from '../systems/spectra/tiny.js'

const root = fileURLToPath(new URL('../..', import.meta.url))
const home = mkdtempSync(join(tmpdir(), 'voxtorch-spectra-'))
afterAll(() => rmSync(home, { recursive: true, force: true }))

async function node(...command: string[]): Promise<{ stdout: string; stderr: string }> {
  const env = { ...process.env, OMP_NUM_THREADS: '1' }
  return await promisify(execFile)(process.execPath, command, { cwd: root, env })
}
const spectra = (...words: string[]) => node('dist/cli/main.js', 'spectra', ...words)
const lines = (file: string) =>
  readFileSync(file, 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))

it('brings recordings into form, learns a high from a low voice of speakers it never heard, and answers', async () => {
  const data = join(home, 'made')
  mkdirSync(data)
  await tinyTokenizer(join(home, 'tokenizer'))
  const rows = ['file,actor,text,emotion']
  for (const [a, actor] of ['x', 'y', 'z'].entries()) {
    for (let i = 0; i < 16; i++) {
      const pitch = (i % 2 === 0 ? 300 : 1200) + 20 * a + i
      const sound = Float32Array.from({ length: 3200 }, (_, t) => 0.4 * Math.sin((2 * Math.PI * pitch * t) / 16000))
      await vt.scope(() => vt.writeWav(join(data, `${actor}${i}.wav`), vt.tensor(sound), { sampleRate: 16000 }))
      rows.push(`${actor}${i}.wav,${actor},a b c,${i % 2 === 0 ? 'low' : 'high'}`)
    }
  }
  writeFileSync(join(data, 'labels.csv'), `${rows.join('\n')}\n`)
  const { vocabSize: _, ...textConfig } = smallSpectra(10).textConfig
  writeFileSync(join(home, 'config.json'), JSON.stringify({ ...smallSpectra(10), textConfig }))

  const turns = join(home, 'turns.jsonl')
  expect((await spectra('data', 'emodb', '--data', data, '--out', turns)).stdout).toContain('48 turns')
  expect(lines(turns)[0]).toEqual({ audio: join(data, 'x0.wav'), text: 'a b c', label: 'low', speaker: 'x' })
  const output = join(home, 'output')
  const { stdout: report, stderr } = await spectra(
    'finetune',
    ...['--task', 'voice', '--kind', 'classification', '--key-metric', 'uar', '--data', turns, '--test-speakers', 'z'],
    ...['--tokenizer', join(home, 'tokenizer'), '--config', join(home, 'config.json'), '--output', output],
    ...['--epochs', '20', '--patience', '20', '--batch-size', '8', '--lr', '3e-3', '--save_interval', '9'],
  )
  expect(stderr).toContain('--save-epochs has no effect: each epoch is saved')
  expect(report).toMatch(/29 training, 3 validation and 16 test samples/)
  expect(Number(/uar +\S+ +(\S+)/.exec(report)?.[1])).toBeGreaterThan(0.9)

  const { stdout: answers } = await spectra('predict', turns, '--model', join(output, 'best'))
  const said = answers
    .trim()
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line))
  expect(said).toHaveLength(48)
  expect(said.slice(32).filter(({ label }, i) => label === (i % 2 === 0 ? 'low' : 'high')).length).toBeGreaterThan(14)
})

it('does the same by the library', async () => {
  const script = join(root, 'examples/spectra-finetune.ts')
  const { stdout } = await node(
    '--import',
    'tsx',
    script,
    join(home, 'turns.jsonl'),
    join(home, 'tokenizer'),
    join(home, 'mood'),
  )
  expect(stdout).toMatch(/mood: 29 training, 3 validation and 16 test samples/)
  expect(stdout).toMatch(/^a b c \(.*x0\.wav\): \{.*"label":"(low|high)"/m)
})

it('brings MELD into form: who says it, and what was said before', async () => {
  const data = join(home, 'meld')
  mkdirSync(data)
  const rows = [
    'Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID',
    '1,"Well, hi",Ann,joy,positive,0,0',
    '2,Oh,Bob,fear,negative,0,1',
    '3,What?,Ann,surprise,negative,0,2',
    '4,So,Cid,neutral,neutral,1,0',
  ]
  for (const split of ['train', 'dev', 'test'])
    writeFileSync(join(data, `${split}_sent_emo.csv`), `${rows.join('\n')}\n`)
  await spectra('data', 'meld', '--data', data, '--output', join(home, 'meld-form'), '--turns', '1')
  const turns = lines(join(home, 'meld-form/valid.jsonl'))
  expect(turns).toHaveLength(4)
  expect(turns[2]).toEqual({ text: 'Ann: What?', history: ['Bob: Oh'], label: 'surprise', speaker: 'Ann' })
  expect(turns[3].history).toEqual([])
})
