import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ParakeetForTDT, scope, tensor, writeWav } from '../../lib/index.js'
import { start } from '../train/trainer/child.js'

const root = fileURLToPath(new URL('../..', import.meta.url))
const home = mkdtempSync(join(tmpdir(), 'voxtorch-parakeet-small-'))
afterAll(() => rmSync(home, { recursive: true, force: true }))

const STEPS = 12
const DIGITS = 'zero one two three four five six seven eight nine'.split(' ')
const TEXTS: Record<string, string> = {
  ...Object.fromEntries(DIGITS.map((text, i) => [`digits/${i}`, text])),
  'letters/a': 'A',
  'press-one': 'Press 1.',
  'press-two': 'Press two',
  'dial-one.wav': 'dial one',
  'dial-two': 'Dial 2 two',
  beep: '[a beep]',
  join: '<beep ascending>',
  'silence/1': '(1 second of silence)',
  large: 'dial 500',
  absent: 'nobody recorded this',
}

describe('examples/parakeet-small.ts on made-up recordings', () => {
  const [asterisk, transcripts, whole, killed, config] = [
    ...['asterisk', 'transcripts.txt', 'whole', 'killed', 'config.json'].map((name) => join(home, name)),
  ] as [string, string, string, string, string]
  const run = (out: string) =>
    start(
      [
        ...['--import', 'tsx', 'examples/parakeet-small.ts', '--out', out, '--config', config],
        ...['--asterisk', asterisk, '--transcripts', transcripts],
      ],
      { cwd: root, env: { ...process.env, OMP_NUM_THREADS: '1' } },
    )

  beforeAll(async () => {
    for (const [i, name] of Object.keys(TEXTS).entries()) {
      if (name === 'absent') continue
      const path = join(asterisk, `${name.replace('.wav', '')}.wav`)
      mkdirSync(dirname(path), { recursive: true })
      const tone = Float32Array.from({ length: 4000 }, (_, t) => 0.3 * Math.sin(((300 + 90 * i) * t) / 1300))
      await scope(() => writeWav(path, tensor(tone), { sampleRate: 8000 }))
    }
    writeFileSync(
      transcripts,
      `; a comment\n\n${Object.entries(TEXTS)
        .map((row) => row.join(': '))
        .join('\n')}\n`,
    )
    const published = JSON.parse(readFileSync(join(root, 'examples/parakeet-small.json'), 'utf8'))
    const encoder = { hiddenSize: 16, numHiddenLayers: 1, numAttentionHeads: 2, intermediateSize: 32, subsamplingConvChannels: 8 } // biome-ignore format: one line
    const stages = [{ steps: 2, from: 'symbols', most: 1 }, { steps: 4, from: 'short', most: 2 }] // biome-ignore format: one line
    const changed = {
      ...{ ...published, whisper: null },
      model: { ...published.model, encoderConfig: { ...published.model.encoderConfig, ...encoder }, decoderHiddenSize: 16 },
      data: { ...published.data, heldOut: 2, sequences: 3, heldOutWords: 2, merges: 4, stages },
      training: { ...published.training, maxSteps: STEPS, perDeviceTrainBatchSize: 4, warmupSteps: 3, loggingSteps: 1, saveSteps: 3 },
    } // biome-ignore format: one line
    writeFileSync(config, JSON.stringify(changed))
  })

  it('continues after a kill and ends with the same bytes and figures', async () => {
    const first = run(whole)
    expect(await first.exit, first.errors()).toEqual({ code: 0, signal: null })
    const child = run(killed)
    expect(await child.line(/^step 5:/), child.errors()).toBeDefined()
    child.process.kill('SIGKILL')
    expect(await child.exit).toEqual({ code: null, signal: 'SIGKILL' })
    const last = run(killed)
    expect(await last.exit, last.errors()).toEqual({ code: 0, signal: null })
    const [steps, resumed] = [first, last].map(({ lines }) => lines.filter((line) => line.startsWith('step '))) as [
      string[],
      string[],
    ]
    expect(steps).toHaveLength(STEPS)
    expect(resumed.length).toBeGreaterThan(0)
    expect(resumed.length).toBeLessThanOrEqual(STEPS - 3)
    expect(resumed).toEqual(steps.slice(-resumed.length))
    for (const file of ['model/model.safetensors', 'small.json', 'sequences/2.wav']) {
      const same = readFileSync(join(killed, file)).equals(readFileSync(join(whole, file)))
      expect(same, `${file} is the same, byte for byte`).toBe(true)
    }
  })

  it('holds out prompts of known words and sequences of digits and letters', () => {
    const answers = JSON.parse(readFileSync(join(whole, 'answers.json'), 'utf8'))
    const right = (name: string): string[] => answers[name].map((one: { right: string }) => one.right)
    // Holding out one prompt with 'press' leaves that word in a single one.
    expect(
      right('prompts')
        .map((text) => text.split(' ')[0])
        .sort(),
    ).toEqual(['dial', 'press'])
    const symbols = [...DIGITS, 'a']
    for (const text of right('sequences')) {
      const words = text.split(' ')
      expect(words.length).toBeGreaterThanOrEqual(3)
      expect(words.every((word) => symbols.includes(word))).toBe(true)
    }
    const figures = JSON.parse(readFileSync(join(whole, 'small.json'), 'utf8'))
    expect(Object.keys(figures)).toEqual(['steps', 'prompts, parakeet', 'sequences, parakeet'])
    expect(figures.steps).toBe(STEPS)
  })

  it('saves a folder that answers again', async () => {
    const answers = JSON.parse(readFileSync(join(whole, 'answers.json'), 'utf8'))
    const model = await ParakeetForTDT.fromPretrained(join(whole, 'model'))
    expect(model.features).toMatchObject({ samplingRate: 8000, hopLength: 80, winLength: 200, featureSize: 40 })
    for (const { path, parakeet } of answers.sequences) expect((await model.transcribe(path)).text).toBe(parakeet)
    const tokens = (text: string) => model.tokenizer?.encode(text).inputIds ?? []
    expect(model.tokenizer?.decode(tokens("four o'clock")).trim()).toBe("four o'clock")
    // Merges join letters of the most frequent words; each word begins with ▁.
    expect(tokens('two press').length).toBeLessThan('▁two▁press'.length)
    expect(tokens('x x')).toHaveLength(4)
    expect(model.config).toMatchObject({ vocabSize: 2 + 28 + 4 + 1, blankTokenId: 34, padTokenId: 1 })
  })

  it('refuses a folder of other settings', async () => {
    writeFileSync(join(killed, 'config.json'), '{}')
    const child = run(killed)
    expect(await child.exit).toEqual({ code: 1, signal: null })
    expect(child.errors()).toMatch(/killed is of other settings/)
  })
})
