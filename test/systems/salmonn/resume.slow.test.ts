import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, it } from 'vitest'
import * as vt from '../../../lib/index.js'
import * as salmonn from '../../../lib/systems/salmonn/index.js'
import { type Child, filesOf, start } from '../../train/trainer/child.js'

const home = mkdtempSync(join(tmpdir(), 'voxtorch-salmonn-resume-'))
afterAll(() => rmSync(home, { recursive: true, force: true }))
const [data, whole, killed] = ['data', 'whole', 'killed'].map((name) => join(home, name)) as [string, string, string]
const script = fileURLToPath(new URL('./resume-run.mjs', import.meta.url))
const run = (outputDir: string): Child => start([script, data, outputDir])
const KILLS = 6

/** Dialogs of one to three tones of unlike length, in the challenge's form, and words for them. */
beforeAll(async () => {
  mkdirSync(join(data, 'tokenizer'), { recursive: true })
  const random = new vt.Random(11)
  const moods = ['calm', 'angry', 'sad']
  const clips: { path: string; mood: string }[] = []
  for (let i = 0; i < 12; i += 1) {
    const [pitch, length] = [200 + 500 * (i % 3), 3000 + random.below(6000)]
    const sound = Float32Array.from({ length }, (_, t) => 0.4 * Math.sin((2 * Math.PI * pitch * t) / 16_000))
    const path = join(data, `${i}.wav`)
    await vt.scope(() => vt.writeWav(path, vt.tensor(sound), { sampleRate: 16_000 }))
    clips.push({ path, mood: moods[i % 3] as string })
  }
  const dialogs = Array.from({ length: 30 }, (_, i) => {
    const speaker = i < 24 ? 'a' : i < 27 ? 'v' : 't'
    const from = { a: 0, v: 6, t: 9 }[speaker]
    const own = clips.slice(from, from + (speaker === 'a' ? 6 : 3))
    const turns = Array.from({ length: 1 + random.below(3) }, () => own[random.below(own.length)]!)
    const emotion_sequence = turns.map(({ mood }) => mood)
    const [input_text, target_text] = ['How does it go ?', `Emotion sequence: ${emotion_sequence.join(' -> ')}`]
    return { dialogue_id: `${i}`, speaker, input_text, target_text, emotion_sequence, audio_files: turns.map(({ path }) => path) } // biome-ignore format: one line
  })
  writeFileSync(join(data, 'dialogs.json'), JSON.stringify(dialogs))
  const special = ['<unk>', '<s>', '</s>']
  const words = ['USER:', '<Speech>', '</Speech><Speech>', '</Speech>', ...'How does it go ?'.split(' '), 'ASSISTANT:', 'Emotion', 'sequence:', '->', ...moods] // biome-ignore format: one line
  const vocab = Object.fromEntries([...special, ...words].map((word, id) => [word, id]))
  const added_tokens = special.map((content, id) => ({ id, content, special: true, normalized: false }))
  const model = { type: 'WordLevel', unk_token: '<unk>', vocab }
  const tokenizer = { version: '1.0', added_tokens, pre_tokenizer: { type: 'WhitespaceSplit' }, model }
  writeFileSync(join(data, 'tokenizer/tokenizer.json'), JSON.stringify(tokenizer))
  const config = { unk_token: '<unk>', bos_token: '<s>', eos_token: '</s>' }
  writeFileSync(join(data, 'tokenizer/tokenizer_config.json'), JSON.stringify(config))
})

const metrics = (outputDir: string) =>
  readFileSync(join(outputDir, 'metrics.jsonl'), 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => ({ ...JSON.parse(line), speed: undefined }))

it(`ends with the same bytes after ${KILLS} SIGKILLs at random moments`, async () => {
  const first = run(whole)
  expect(await first.exit, first.errors()).toEqual({ code: 0, signal: null })
  const done = first.lines.at(-1)
  const steps = first.lines.filter((line) => line.startsWith('step')).length
  expect(steps).toBe(60)
  expect(done).toMatch(/^done /)

  const random = new vt.Random(Date.now() % 2 ** 31)
  const reached: number[] = []
  for (let kills = 0; kills < KILLS; kills += 1) {
    const child = run(killed)
    // The first is killed before anything is saved, one before its first step, one well after a save; the others within
    // a step or a save.
    if (kills === 1) await sleep(random.below(600))
    else {
      const steps = kills === 0 ? 1 + random.below(3) : kills === 2 ? 12 : 1 + random.below(12)
      for (let more = steps; more > 0; more -= 1) await child.line(/^step/)
      await sleep(random.below(60))
    }
    child.process.kill('SIGKILL')
    expect(await child.exit, child.errors()).toEqual({ code: null, signal: 'SIGKILL' })
    const own = child.lines.filter((line) => line.startsWith('step'))
    reached.push(Number(own.at(-1)?.slice(5) ?? 0))
  }
  expect(Math.max(...reached)).toBeGreaterThan(4)
  const last = run(killed)
  expect(await last.exit, last.errors()).toEqual({ code: 0, signal: null })
  expect(last.errors()).toBe('')
  const began = Number(last.lines.find((line) => line.startsWith('step'))?.slice(5))
  expect(began, `killed at steps ${reached}`).toBeGreaterThan(4)

  // Losses, rates, gradients' norms, evaluations and the results to the last digit;
  expect(last.lines.at(-1)).toBe(done)
  expect(metrics(killed)).toEqual(metrics(whole))
  // and all files, none of which is half written: best weights, checkpoints with optimiser and generators, whole model.
  expect(filesOf(killed)).toEqual(filesOf(whole))
  const weights = filesOf(whole).filter((file) => file.endsWith('.safetensors'))
  expect(weights.length).toBeGreaterThan(6)
  for (const file of [...weights, 'results.json']) {
    const same = readFileSync(join(killed, file)).equals(readFileSync(join(whole, file)))
    expect(same, `${file} is the same, byte for byte`).toBe(true)
  }
})

it('trained every part, but for the positions of Whisper, which are sines', async () => {
  const names = await vt.scope(async () =>
    Object.keys((await vt.loadSafetensors(join(whole, 'best/adapter.safetensors'))).tensors),
  )
  const parts = new Set(names.map(salmonn.salmonnPart))
  expect([...parts].sort()).toEqual(['beats', 'llm', 'lora', 'projection', 'qformer', 'whisper'])
  expect(names.filter((name) => name.includes('embed_positions'))).toEqual([])
  expect(names).toContain('speech_encoder.conv1.weight')
})
