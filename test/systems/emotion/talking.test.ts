import { execFile } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { homedir, tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, expect, it } from 'vitest'
import { EMOTIONS } from '../../../lib/kit/emotion/dialog.js'
import { readMeld } from '../../../lib/kit/emotion/meld.js'
import { PATIENCE } from '../../patience.js'

const shared = process.env.VOXTORCH_DATA ?? fileURLToPath(new URL('../../../../shared/data', import.meta.url))
const [speech, meld, ecf] = ['whisper/jfk.flac', 'meld/dev_sent_emo.csv', 'ecf/Subtask_2_test.json'].map((name) =>
  join(shared, name),
) as [string, string, string]
const weights = ['whisper-base', 'minilm'].map((name) => join(homedir(), '.cache/voxtorch/weights', name))
const isThere = [speech, meld, ecf, ...weights].every((path) => existsSync(path))

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-talking-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const main = fileURLToPath(new URL('../../../dist/cli/main.js', import.meta.url))
const run = (...words: string[]) =>
  promisify(execFile)(process.execPath, [main, 'emotion', ...words], { timeout: 2 * PATIENCE })

it.skipIf(!isThere)('labels what is said in a clip, and a dialog (../shared/data; published whisper-base and minilm)', async () => {
  const { dialogs } = await readMeld(meld)
  const lines = dialogs.slice(0, 6).flatMap(({ id, utterances }, i) =>
    utterances.map(({ text, speaker, emotion }) => JSON.stringify({ dialog: id, text, speaker, emotion, split: i < 5 ? 'train' : 'valid' })),
  )
  const data = join(folder, 'small.jsonl')
  writeFileSync(data, `${lines.join('\n')}\n`)
  const output = join(folder, 'run')
  await run('train', '--data', data, '--text', 'minilm', '--context-layers', '0', '--epochs', '2', '--output', output, '--no-progress')
  const one = join(folder, 'ecf.json')
  const [conversation] = JSON.parse(readFileSync(ecf, 'utf8'))
  writeFileSync(one, JSON.stringify([conversation]))
  const [labeled, report] = [join(folder, 'labels.jsonl'), join(folder, 'strip.html')]
  const { stdout } = await run(speech, one, '--model', join(output, 'best'), '--output', labeled, '--report', report)
  expect(stdout.trim()).toBe(report)
  const [heard, ...rest] = readFileSync(labeled, 'utf8').trim().split('\n').map((line) => JSON.parse(line))
  expect(heard.text.toLowerCase()).toContain('ask not what your country can do for you')
  expect(heard.start).toBeLessThan(1)
  expect(heard.end).toBeGreaterThan(5)
  const said = rest.filter(({ dialog }) => dialog !== heard.dialog)
  expect(said.map(({ text }) => text)).toEqual(conversation.conversation.map(({ text }: { text: string }) => text))
  for (const { emotion, probabilities } of [heard, ...rest]) {
    expect(Object.keys(probabilities).sort()).toEqual([...EMOTIONS].sort())
    const shares = Object.values(probabilities) as number[]
    expect(probabilities[emotion]).toBe(Math.max(...shares))
    expect(shares.reduce((sum, share) => sum + share, 0)).toBeCloseTo(1, 2)
  }
  // What was said is heard again; the dialog of a file has no sound.
  const page = readFileSync(report, 'utf8')
  expect(page.match(/data-audio="data:audio/g)).toHaveLength(1 + rest.length - said.length)
}) // biome-ignore format: long lines
