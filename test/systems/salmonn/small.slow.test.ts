import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import * as vt from 'voxtorch'
import { normalText, wordErrorRate, wordErrors } from '../../../examples/salmonn-small-words.js'
import { start } from '../../train/trainer/child.js'
import { writeChatParts } from './network/chat-parts.js'

const root = fileURLToPath(new URL('../../..', import.meta.url))
const home = mkdtempSync(join(tmpdir(), 'voxtorch-salmonn-small-'))
afterAll(() => rmSync(home, { recursive: true, force: true }))

describe('words', () => {
  it('are small letters without punctuation, numbers below a hundred in words', () => {
    expect(normalText('Press 1, then 42 — or "don’t".')).toBe("press one then forty two or don't")
    expect(normalText('  It costs 100; 3.5 more ')).toBe('it costs 100 3 5 more')
  })

  it('are counted as wrong by the least number of changes', () => {
    expect(wordErrors('a b c', 'a b c')).toBe(0)
    expect(wordErrors('', 'a b c')).toBe(3)
    expect(wordErrors('a x c d', 'a b c')).toBe(2)
    expect(wordErrors('b c', 'a b c')).toBe(1)
    const pairs = [
      { said: 'One, two.', right: '1 2' },
      { said: 'three', right: 'four five' },
    ]
    expect(wordErrorRate(pairs)).toBe(2 / 4)
  })
})

describe('examples/salmonn-small.ts on made-up parts and recordings', () => {
  const [data, whole, killed, config] = ['data', 'whole', 'killed', 'config.json'].map((name) => join(home, name)) as [
    ...[string, string, string, string],
  ]
  const args = (out: string) => [
    ...['--import', 'tsx', 'examples/salmonn-small.ts', '--out', out, '--config', config],
    ...['--asterisk', join(data, 'asterisk'), '--transcripts', join(data, 'transcripts.txt')],
    ...['--librispeech', join(data, 'readers'), '--emodb', join(data, 'emodb')],
  ]
  const run = (out: string) => start(args(out), { cwd: root, env: { ...process.env, OMP_NUM_THREADS: '1' } })

  beforeAll(async () => {
    const parts = await writeChatParts(join(home, 'parts'))
    const tone = async (path: string, pitch: number, seconds = 0.6) => {
      mkdirSync(dirname(path), { recursive: true })
      const sound = Float32Array.from({ length: 16_000 * seconds }, (_, t) => 0.3 * Math.sin((pitch * t) / 2500))
      await vt.scope(() => vt.writeWav(path, vt.tensor(sound), { sampleRate: 16_000 }))
    }
    const names = 'one two three four five six seven eight nine ten'.split(' ')
    for (const [i, name] of names.entries()) await tone(join(data, `asterisk/${name}.wav`), 200 + 90 * i)
    const lines = [...names.map((name) => `${name}: ${name}`), 'beep: [a beep]', '', 'absent: nobody recorded this']
    writeFileSync(join(data, 'transcripts.txt'), lines.join('\n'))
    const labels: Record<string, object> = {}
    for (const reader of ['p', 'q', 'r']) {
      // Files are known by what they hold.
      await tone(join(data, `readers/${reader}/${reader}-0.flac`), 300, 2)
      const words = ['It', 'rains', 'all', 'day'].map((text, i) => ({
        text: ` ${text}`,
        start: i / 2,
        end: i / 2 + 0.4,
      }))
      labels[`${reader}/${reader}-0.flac`] = { words, seconds: 2 }
    }
    const rows = ['file,actor,sex,emotion']
    for (const [a, actor] of ['x', 'y', 'z'].entries()) {
      for (const [e, emotion] of ['joy', 'anger'].entries()) {
        await tone(join(data, `emodb/${actor}${e}.wav`), 250 + 800 * e + 20 * a)
        rows.push(`${actor}${e}.wav,${actor},${a === 1 ? 'm' : 'f'},${emotion}`)
      }
    }
    writeFileSync(join(data, 'emodb/labels.csv'), `${rows.join('\n')}\n`)
    for (const out of [whole, killed]) {
      mkdirSync(join(out, 'data'), { recursive: true })
      // Whisper's words are there already: a random one has none.
      writeFileSync(join(out, 'data/whisper-labels.json'), JSON.stringify(labels))
    }
    const given = JSON.parse(readFileSync(join(root, 'examples/salmonn-small.json'), 'utf8'))
    const changed = {
      ...given,
      parts: { ...parts, labels: 'nobody asks for it' },
      model: {
        ...given.model,
        qformer: {
          ...given.model.qformer,
          hiddenSize: 16,
          numHiddenLayers: 1,
          numAttentionHeads: 2,
          intermediateSize: 32,
        },
        lora: { r: 2, loraAlpha: 4, loraDropout: 0.1 },
      },
      data: { ...given.data, validReaders: ['p'], testReaders: ['q'], validActors: ['x'], testActors: ['y'], validShare: 0.2, testShare: 0.2, cuts: 2, words: [1, 3], rows: 4, speeds: [1, 1.1] }, // biome-ignore format: one line
      recipe: { ...given.recipe, learningRate: 3e-3, warmupSteps: 3, epochs: 4, iterationsPerEpoch: 4, batchSize: 4, logSteps: 1 }, // biome-ignore format: one line
    }
    writeFileSync(config, JSON.stringify(changed))
  })

  it('goes on after a kill and ends with the same bytes, figures and page', async () => {
    const first = run(whole)
    expect(await first.exit, first.errors()).toEqual({ code: 0, signal: null })
    const child = run(killed)
    for (const step of [5, 7]) expect(await child.line(new RegExp(`^step ${step}:`)), child.errors()).toBeDefined()
    child.process.kill('SIGKILL')
    expect(await child.exit).toEqual({ code: null, signal: 'SIGKILL' })
    expect(existsSync(join(killed, 'small.json'))).toBe(false)
    const last = run(killed)
    expect(await last.exit, last.errors()).toEqual({ code: 0, signal: null })
    const steps = last.lines.flatMap((line) => /^step (\d+): loss/.exec(line)?.[1] ?? []).map(Number)
    expect(steps[0]).toBeGreaterThan(4)
    expect(steps.at(-1)).toBe(16)
    for (const file of ['model/adapter.safetensors', 'small.json']) {
      const same = readFileSync(join(killed, file)).equals(readFileSync(join(whole, file)))
      expect(same, `${file} is the same, byte for byte`).toBe(true)
    }
  })

  it('answers with the last weights, not those that were best on a few words', async () => {
    const [saved, last] = await Promise.all(
      ['model/adapter.safetensors', 'training/checkpoint-16/model.safetensors'].map(async (file) => {
        const { tensors } = await vt.loadSafetensors(join(whole, file))
        return new Map(Object.entries(tensors))
      }),
    )
    const names = [...saved!.keys()].filter((name) => name.includes('lora_B'))
    expect(names.length).toBeGreaterThan(0)
    for (const name of names) expect(saved!.get(name)?.equal(last!.get(name)!), name).toBe(true)
  })

  it('holds out prompts, readers and actors, and asks once more with the sound of others', () => {
    const read = (file: string) => JSON.parse(readFileSync(join(whole, file), 'utf8'))
    const items = (split: string): { id: string; task: string; text: string; speaker: string }[] =>
      read(`data/${split}.json`).annotation
    const speakers = (split: string) => [...new Set(items(split).map(({ speaker }) => speaker))].sort()
    expect([speakers('train'), speakers('valid'), speakers('test')]).toEqual([
      ['allison', 'r', 'z'],
      ['allison', 'p', 'x'],
      ['allison', 'q', 'y'],
    ])
    const prompts = (split: string) => items(split).filter(({ id }) => id.startsWith('asterisk')).flatMap(({ text }) => text.split(' ')) // biome-ignore format: one line
    const learnt = new Set(prompts('train'))
    expect(learnt.size).toBe(6)
    expect([...prompts('valid'), ...prompts('test')].filter((word) => learnt.has(word))).toEqual([])
    const { asteriskWords, emotion, sex, steps } = read('small.json')
    expect([asteriskWords.count, emotion.count, sex.count, steps]).toEqual([2, 2, 2, 16])
    const { heard, others } = read('answers.json') as Record<string, { id: string; task: string; audio: string }[]>
    expect(others!.map(({ id }) => id)).toEqual(heard!.map(({ id }) => id))
    const same = heard!.filter(({ audio }, i) => audio === others![i]!.audio)
    expect(same).toEqual([])
    const page = readFileSync(join(whole, 'report.html'), 'utf8')
    expect(page).toContain('<audio controls preload="metadata" src="data:audio/wav;base64,UklGR')
    expect(page.match(/<polyline/g)).toHaveLength(2)
    expect(page).not.toMatch(/https?:\/\/(?!www\.w3\.org)/)
  })

  it('answers again by what it saved', async () => {
    using model = await vt.Salmonn.fromPretrained(join(whole, 'model'))
    const [first] = JSON.parse(readFileSync(join(whole, 'answers.json'), 'utf8')).heard
    const samples = await vt.readClip(first.audio)
    const { texts } = await model.generate([{ text: first.prompt, clips: [samples] }], { numBeams: 1, maxNewTokens: 1 })
    expect(first.prediction.startsWith(texts[0]!.replace('\ufffd', ''))).toBe(true)
  })

  it('refuses a folder that holds data of other settings', async () => {
    const other = join(home, 'other')
    cpSync(join(whole, 'data'), join(other, 'data'), { recursive: true })
    writeFileSync(join(other, 'data/data.json'), '{}')
    const child = run(other)
    expect(await child.exit).toEqual({ code: 1, signal: null })
    expect(child.errors()).toMatch(/data of other settings/)
  })
})
