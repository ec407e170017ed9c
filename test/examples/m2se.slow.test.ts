import { execFile } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, expect, it } from 'vitest'
import { serve } from '../../lib/serve/index.js'
import { EMOTION_LABELS, emoverseData } from '../../lib/systems/emoverse/index.js'
import { Watcher } from '../serve/models.mjs'
import { drawing, FACE_LABELS, face } from '../systems/emoverse/faces.js'
import { asked, seeingEmoVerse, tinyEmoVerse } from '../systems/emoverse/tiny.js'

const root = fileURLToPath(new URL('../..', import.meta.url))
const home = mkdtempSync(join(tmpdir(), 'voxtorch-m2se-'))
afterAll(() => rmSync(home, { recursive: true, force: true }))

it('m2se-infer asks about each photograph of a folder, and nothing else in it', async () => {
  const [folder, photos] = [join(home, 'model'), join(home, 'photos')]
  mkdirSync(photos)
  for (const [i, label] of FACE_LABELS.slice(0, 2).entries()) writeFileSync(join(photos, `${i}.ppm`), face(label, drawing(i)))
  writeFileSync(join(photos, 'readme.txt'), 'no picture')
  using model = await seeingEmoVerse({ initializerRange: 0.2 })
  await model.save(folder)
  const command = ['--import', 'tsx', 'examples/m2se-infer.ts', '--model', folder, '--images', photos, '--words', 'Hey!']
  const { stdout } = await promisify(execFile)(process.execPath, command, { cwd: root })
  const found = [...stdout.matchAll(/^(\S+): (\w+\.) (\d+\.\d) %$/gm)].map(([, file, label, share]) => ({ file, label, share: Number(share) }))
  expect(found.map(({ file }) => file)).toEqual(['0.ppm', '1.ppm'])
  for (const { label, share } of found) {
    expect(EMOTION_LABELS.mosei).toContain(label)
    // The likeliest of seven.
    expect(share).toBeGreaterThan(14)
  }
  await expect(promisify(execFile)(process.execPath, command.slice(0, 5), { cwd: root })).rejects.toThrow(/expected --model DIR and --images DIR/)
}) // biome-ignore format: long lines

it('m2se trains stages, or the later ones alone, and scores what it answers', async () => {
  const [base, output] = [join(home, 'base'), join(home, 'stages')]
  using model = await tinyEmoVerse({ seed: 3 })
  await model.save(base)
  const stages = ['first', 'second'].map((name) => {
    const [data, stage] = [join(home, `${name}.json`), join(home, `${name}.yaml`)]
    writeFileSync(data, JSON.stringify(asked(8)))
    writeFileSync(stage, `name: ${name}\ndata: ${data}\nrecipe: { epochs: 1, accumulation: 4, validationShare: 0 }\n`)
    return stage
  })
  const test = join(home, 'test.json')
  writeFileSync(test, JSON.stringify([{ query: "'a' <sentiment>", response: 'Positive.' }, { query: "'x' <emotion>", response: 'Joy.' }]))
  const command = ['--import', 'tsx', 'examples/m2se.ts', '--stages', ...stages, '--model', base, '--media', 'ignore']
  const run = (...more: string[]) => promisify(execFile)(process.execPath, [...command, ...more], { cwd: root })
  await run('--output', output)
  for (const name of ['first', 'second']) expect(existsSync(join(output, name, 'results.json')), name).toBe(true)
  const late = join(home, 'late')
  const { stdout } = await run('--output', late, '--start-at', '2', '--test', test)
  expect([existsSync(join(late, 'first')), existsSync(join(late, 'second/results.json'))]).toEqual([false, true])
  const scores = JSON.parse(stdout.slice(stdout.indexOf('\n{\n') + 1))
  expect(scores).toMatchObject({ records: 2, tasks: { sentiment: { records: 1 }, emotion: { records: 1 } } })
  await expect(run('--output', late, '--media', 'look')).rejects.toThrow(/media to be 'read', 'ignore'/)
}) // biome-ignore format: long lines

it('m2se-reasons lets a chat model that is served say why, and asks for what is missing alone', async () => {
  const [clips, output, picture] = ['clips.jsonl', 'reasons.jsonl', 'face.ppm'].map((name) => join(home, name)) as [string, string, string]
  writeFileSync(picture, face(FACE_LABELS[0] as (typeof FACE_LABELS)[number], drawing(1)))
  const lines = [{ id: '1/0', text: 'Oh no!', emotion: 'fear' }, { id: '1/1', text: 'Hey!' }, { id: '1/2', text: 'See?', emotion: 'joy', image: picture }]
  writeFileSync(clips, lines.slice(0, 2).map((line) => `${JSON.stringify(line)}\n`).join(''))
  const watcher = new Watcher()
  const served = await serve(watcher)
  const command = ['--import', 'tsx', 'examples/m2se-reasons.ts', '--clips', clips, '--output', output, '--url', served.url]
  const run = () => promisify(execFile)(process.execPath, command, { cwd: root })
  try {
    await run()
    writeFileSync(clips, lines.map((line) => `${JSON.stringify(line)}\n`).join(''))
    await run()
    expect(watcher.begun).toBe(3)
    const said = readFileSync(output, 'utf8').trim().split('\n').map((line) => JSON.parse(line) as { id: string; text: string })
    expect(said.map(({ id }) => id)).toEqual(['1/0', '1/1', '1/2'])
    expect(said[0]?.text).toContain('A person says: "Oh no!" Explain fear in one or two sentences, by the words.')
    // What the model saw of the last.
    expect(said[2]?.text).toContain('28 × 28')
    const mosei = lines.map(({ id, text }) => ({ id, text }))
    const { records } = await emoverseData({ mosei, reasons: output }, { weights: { MSA: 0, MER: 0 } })
    expect([...records].map(({ response }) => response).sort()).toEqual(said.map(({ text }) => text).sort())
  } finally {
    await served.close({ now: true })
  }
}) // biome-ignore format: long lines
