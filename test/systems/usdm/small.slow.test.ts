import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import * as vt from 'voxtorch'
import * as usdm from 'voxtorch/usdm'
import { fixturePath } from '../../helpers.js'
import { start } from '../../train/trainer/child.js'
import { writeChatParts } from '../salmonn/network/chat-parts.js'

const root = fileURLToPath(new URL('../../..', import.meta.url))
const home = mkdtempSync(join(tmpdir(), 'voxtorch-usdm-small-'))
afterAll(() => rmSync(home, { recursive: true, force: true }))

/** Dialogs in DailyTalk's form: what is said, by turns of two speakers. */
const dialogs = (names: string, said: readonly string[]) =>
  [...names]
    .flatMap((name, d) =>
      said.map((text, turn) => `${turn}_${turn % 2}_d${name}|${turn % 2}|{AH0}|${text} ${'abcdefgh'[d]}.|none`),
    )
    .join('\n')

describe('examples/usdm-small.ts on made-up parts and recordings', () => {
  const [data, whole, killed, config] = ['data', 'whole', 'killed', 'config.json'].map((name) => join(home, name)) as [
    ...[string, string, string, string],
  ]
  const args = (out: string) => [
    ...['--import', 'tsx', 'examples/usdm-small.ts', '--out', out, '--config', config],
    ...['--dailytalk', data, '--voices', join(data, 'voices')],
  ]
  const run = (out: string) => start(args(out), { cwd: root, env: { ...process.env, OMP_NUM_THREADS: '1' } })
  const read = (...path: string[]) => readFileSync(join(...path))

  beforeAll(async () => {
    const parts = await writeChatParts(join(home, 'parts'))
    // A folder that has nothing else, as published weights stand.
    const llm = join(home, 'llm')
    mkdirSync(llm)
    renameSync(parts.llm, join(llm, 'chat.gguf'))
    for (const [i, voice] of ['cs', 'nl']
      .flatMap((language) => [0, 1, 2].map((n) => [language, n] as const))
      .entries()) {
      const [language, n] = voice
      const path = join(
        data,
        'voices/usr/share/games/fillets-ng/sound/city',
        language,
        `vit-${n % 2 ? 'm' : 'v'}-${n}.wav`,
      )
      mkdirSync(dirname(path), { recursive: true })
      const sound = Float32Array.from(
        { length: 20_000 },
        (_, t) => 0.3 * Math.sin(((200 + 40 * i) * t) / 2500 + t * t * 1e-7),
      )
      await vt.scope(() => vt.writeWav(path, vt.tensor(sound), { sampleRate: 22_050 }))
    }
    writeFileSync(
      join(data, 'train_phone.txt'),
      dialogs('1234', ['good day', 'hi there', 'how are you?', 'well, how are you there good day']),
    )
    writeFileSync(join(data, 'val_phone.txt'), dialogs('5678', ['there you are', 'good', 'hi you']))
    const given = JSON.parse(readFileSync(join(root, 'examples/usdm-small.json'), 'utf8'))
    const changed = {
      ...given,
      parts: { whisper: fixturePath('models/whisper-tiny'), llm },
      speech: {
        ...given.speech,
        speed: 450,
        vocabulary: 20,
        phrases: 4,
        drawn: 3,
        train: 6,
        valid: 2,
        test: 3,
        byHeart: 2,
      },
      voices: { ...given.voices, seconds: [0.5, 2], train: 4, test: 2 },
      units: { ...given.units, layer: 1, windowSeconds: 0.2, clusters: 6, clips: 3, epochs: 2 },
      pretraining: {
        rounds: { text: 1, units: 2 },
        recipe: { ...given.pretraining.recipe, batchSize: 5, logSteps: 1, saveSteps: 2 },
      },
      rehearsal: {
        dialogs: 5,
        recipe: { ...given.rehearsal.recipe, batchSize: 1, logSteps: 1, saveSteps: 2 },
      },
      main: { ...given.main, epochs: 4, batchSize: 2, logSteps: 1, evalSteps: 4, saveSteps: 2 },
      byHeart: { ...given.byHeart, epochs: 2, batchSize: 1, logSteps: 1, saveSteps: 2 },
      checkEpochs: 1,
      test: { listening: 3, replies: 2, maxUnits: 10 },
      voicebox: {
        ...given.voicebox,
        model: { ...given.voicebox.model, embeddingDim: 8, hiddenSize: 16, intermediateSize: 16, numHiddenLayers: 2, convposWidth: 3 }, // biome-ignore format: one line
        recipe: { ...given.voicebox.recipe, batchSize: 2, windowFrames: 40, logSteps: 1, saveSteps: 2 },
        ...{ maxSteps: 4, steps: 2, draws: 2 },
      },
    }
    writeFileSync(config, JSON.stringify(changed))
  })

  it('goes on after kills and ends with the same bytes, figures and page', async () => {
    const first = run(whole)
    expect(await first.exit, first.errors()).toEqual({ code: 0, signal: null })
    // espeak-ng draws its breath by lot: what it spoke once is the data.
    cpSync(join(whole, 'clips'), join(killed, 'clips'), { recursive: true })
    for (const name of [
      'pretraining, step 3:',
      'rehearsal, step 3:',
      'main, step 7:',
      'by heart, step 3:',
      'voicebox, step 3:',
    ]) {
      const line = new RegExp(`^${name}`)
      const child = run(killed)
      expect(await child.line(line), child.errors()).toBeDefined()
      child.process.kill('SIGKILL')
      expect(await child.exit).toEqual({ code: null, signal: 'SIGKILL' })
    }
    expect(existsSync(join(killed, 'small.json'))).toBe(false)
    const last = run(killed)
    expect(await last.exit, last.errors()).toEqual({ code: 0, signal: null })
    expect(last.lines.filter((line) => /^main, step/.test(line))).toEqual([])
    const figures = (out: string) => JSON.parse(read(out, 'small.json').toString())
    expect(figures(killed)).toEqual(figures(whole))
    const files = ['train.txt', 'kmeans.npy', 'usdm/llm/model.safetensors', 'voicebox/model/model.safetensors', 'by-heart/model/model.safetensors'] // biome-ignore format: one line
    for (const file of files) {
      expect(read(killed, file).equals(read(whole, file)), `${file} is the same, byte for byte`).toBe(true)
    }
  })

  it('tells of pairs, passes, losses and scores, and shows them on a page', () => {
    const { pairs, byHeart, listening, scores, mel, steps, hours } = JSON.parse(read(whole, 'small.json').toString())
    expect(pairs).toEqual({ train: 6, valid: 2, test: 3, 'by-heart': 2 })
    expect(steps).toEqual({ pretraining: expect.any(Number), rehearsal: 5, main: 12, byHeart: 4, voicebox: 4 })
    expect(byHeart.dialogs).toBe(2)
    expect(listening.samples).toBe(3)
    for (const loss of [listening.transcript, listening.transcriptOfOthers, listening.units, mel.units, mel.shuffled]) {
      expect(loss).toBeGreaterThan(0)
    }
    expect([scores.sttSamples, scores.replySamples]).toEqual([2, 2])
    expect(hours.synthetic).toBeGreaterThan(0)
    const page = read(whole, 'report.html').toString()
    expect(page.match(/data:audio\/wav;base64,UklGR/g)!.length).toBeGreaterThanOrEqual(6)
    expect(page.match(/<polyline/g)).toHaveLength(10)
    expect(page).toContain('<strong>What is synthetic:</strong>')
    expect(page).not.toMatch(/https?:\/\//)
  })

  it('learns words, phrases of longer turns, others that nobody says, and short turns first', async () => {
    const phrases: { kind: string; text: string }[] = []
    for await (const phrase of vt.readJsonl(join(whole, 'phrases.jsonl'))) phrases.push(phrase as (typeof phrases)[0])
    const of = (kind: string) => phrases.filter((one) => one.kind === kind).map(({ text }) => text)
    expect(of('word').every((text) => /^[a-z']+$/.test(text))).toBe(true)
    expect(of('phrase').length).toBeGreaterThan(0)
    for (const text of of('phrase')) {
      expect('how are you there good day').toContain(text.replace(/ [a-d]$/, ''))
      expect(text.split(' ').every((word) => of('word').includes(word))).toBe(true)
    }
    expect(of('drawn')).toHaveLength(3)
    for (const text of of('drawn')) {
      expect(text.split(' ').length).toBeOneOf([2, 3, 4, 5])
      expect(text.split(' ').every((word) => of('word').includes(word))).toBe(true)
    }
    expect(of('turn')).toContain('good day a.')
  })

  it('holds out dialogs, and speaks what is said twice once', async () => {
    const turns = async (part: string) => (await usdm.readUsdmJsonl(join(whole, `${part}.jsonl`))).dialogs
    const names = async (part: string) => (await turns(part)).map(({ dialog }) => dialog.split('-')[0])
    expect((await names('train')).every((name) => '1234'.includes(name!.slice(1)))).toBe(true)
    const held = [...(await names('valid')), ...(await names('test'))]
    expect(held.every((name) => '5678'.includes(name!.slice(1)))).toBe(true)
    const clips = new Map<string, string>()
    for (const { turns: said } of await turns('train')) {
      for (const { text, speaker, clip } of said) {
        expect(clips.get(`${speaker} ${text}`) ?? clip).toBe(clip)
        clips.set(`${speaker} ${text}`, clip)
      }
    }
  })

  it('leaves a USDM that answers', async () => {
    using model = await usdm.Usdm.fromPretrained(join(whole, 'usdm'))
    expect([model.speaks, model.units.units, model.units.encoder.network.config.maxSourcePositions]).toEqual([
      true,
      6,
      10,
    ])
    const { transcript } = await model.respond({ units: [1, 2, 3] }, { audio: false, maxTextTokens: 4, maxUnits: 4 })
    expect(typeof transcript).toBe('string')
  })

  it('refuses a folder of other settings', async () => {
    const other = join(home, 'other')
    mkdirSync(other)
    writeFileSync(join(other, 'dialogs.json'), '{"settings":{}}')
    const child = run(other)
    expect(await child.exit).toEqual({ code: 1, signal: null })
    expect(child.errors()).toMatch(/dialogs\.json is of other settings/)
  })
})
