import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import * as vt from '../../../lib/index.js'
import * as salmonn from '../../../lib/systems/salmonn/index.js'
import { dataPath, hasData } from '../../audio/helpers.js'
import { start } from '../../train/trainer/child.js'

const root = fileURLToPath(new URL('../../..', import.meta.url))
const home = mkdtempSync(join(tmpdir(), 'voxtorch-salmonn-emodb-'))
afterAll(() => rmSync(home, { recursive: true, force: true }))

const example = (...args: string[]) =>
  start(['--import', 'tsx', 'examples/salmonn-emodb.ts', ...args], {
    cwd: root,
    env: { ...process.env, OMP_NUM_THREADS: '1' },
  })

interface Figures {
  turnAccuracy: number
  shuffledTurnAccuracy: number
  mostFrequent: number
  parsed: number
  accuracyAt: number[]
  actors: Record<string, number>
  validTurnAccuracy: number
  bestStep: number
  dialogs: Record<'train' | 'valid' | 'test', number>
}
const figuresOf = (out: string): Figures => JSON.parse(readFileSync(join(out, 'emodb.json'), 'utf8'))

describe('the example on recordings that were made up', () => {
  const [data, out, config] = [join(home, 'made'), join(home, 'out'), join(home, 'config.json')]

  /** Five actors, whose voices differ a little; a low tone, a high one, or noise is what they feel. */
  beforeAll(async () => {
    mkdirSync(join(data, 'wav'), { recursive: true })
    const random = new vt.Random(4)
    const rows = ['file,actor,sex,emotion']
    for (const [a, actor] of ['p', 'q', 'r', 's', 't'].entries()) {
      for (let i = 0; i < 12; i += 1) {
        const emotion = ['calm', 'joy', 'rage'][i % 3] as string
        const pitch = (emotion === 'joy' ? 1600 : 250) * (1 + 0.05 * a)
        const sound = Float32Array.from({ length: 3200 + random.below(2400) }, (_, t) =>
          emotion === 'rage' ? 0.4 * (random.float() - 0.5) : 0.3 * Math.sin((2 * Math.PI * pitch * t) / 16_000),
        )
        const file = `wav/${actor}${i}.wav`
        await vt.scope(() => vt.writeWav(join(data, file), vt.tensor(sound), { sampleRate: 16_000 }))
        rows.push(`${file},${actor},f,${emotion}`)
      }
    }
    writeFileSync(join(data, 'labels.csv'), `${rows.join('\n')}\n`)
    const given = JSON.parse(readFileSync(join(root, 'examples/salmonn-emodb.json'), 'utf8'))
    const { whisper, beats, qformer, llm } = given.model
    const small = {
      model: {
        ...given.model,
        whisper: { ...whisper, dModel: 32, encoderLayers: 1, encoderFfnDim: 32, dropout: 0 },
        beats: { ...beats, embedDim: 32, encoderLayers: 1, encoderEmbedDim: 32, encoderFfnEmbedDim: 32, dropout: 0 },
        qformer: { ...qformer, hiddenSize: 32, intermediateSize: 32, hiddenDropoutProb: 0 },
        llm: { ...llm, hiddenSize: 32, intermediateSize: 64 },
      },
      dialogs: {
        ...given.dialogs,
        validSpeakers: ['p'],
        testSpeakers: ['q', 'r'],
        turns: 2,
        passes: 10,
        speeds: [0.95, 1],
      },
      recipe: { ...given.recipe, learningRate: 3e-3, warmupSteps: 20, epochs: 12, iterationsPerEpoch: 20, batchSize: 8, logSteps: 10 }, // biome-ignore format: one line
    }
    writeFileSync(config, JSON.stringify(small))
  })

  it('hears what actors feel whom it never heard, and guesses where the sound is of another dialog', async () => {
    const args = ['--data', data, '--out', out, '--config', config]
    const first = example(...args)
    const reached = await first.line(/^step \d+: validation/)
    expect(reached, first.errors()).toBeDefined()
    first.process.kill('SIGKILL')
    await first.exit
    expect(existsSync(join(out, 'emodb.json'))).toBe(false)

    const second = example(...args)
    expect(await second.exit, second.errors()).toEqual({ code: 0, signal: null })
    const numbers = second.lines.flatMap((line) => /^step (\d+)/.exec(line)?.[1] ?? []).map(Number)
    expect(numbers.length, second.lines.join('\n')).toBeGreaterThan(3)
    expect(numbers.at(-1)).toBe(240)
    const figures = figuresOf(out)
    // 24 clips of two actors in pairs, four times; 12 of one; 24 of two in dialogs of one or two, ten times.
    expect(figures.dialogs).toMatchObject({ valid: 24, test: 48 })
    expect(figures.dialogs.train).toBeGreaterThan(120)
    expect(figures.dialogs.train).toBeLessThan(240)
    expect(figures.turnAccuracy, JSON.stringify(figures)).toBeGreaterThan(0.8)
    expect(figures.shuffledTurnAccuracy).toBeLessThan(0.6)
    expect(figures.turnAccuracy - figures.shuffledTurnAccuracy).toBeGreaterThan(0.3)
    expect(figures.mostFrequent).toBeCloseTo(1 / 3, 12)
    expect(Object.keys(figures.actors)).toEqual(['q', 'r'])
    expect(figures.accuracyAt).toHaveLength(2)

    const split = (name: string) =>
      (JSON.parse(readFileSync(join(out, `data/${name}.json`), 'utf8')) as { annotation: { audio_files: string[] }[] })
        .annotation
    const voices = (name: string) =>
      [
        ...new Set(split(name).flatMap(({ audio_files }) => audio_files.map((file) => /wav\/(.)/.exec(file)?.[1]))),
      ].sort()
    expect([voices('train'), voices('valid'), voices('test')]).toEqual([['s', 't'], ['p'], ['q', 'r']])

    // What it saved answers by itself.
    using model = await vt.Salmonn.fromPretrained(join(out, 'model'), { dtype: 'float32' })
    const form = { clips: 'separate', emotionSuffix: false } as const
    const { entries } = await salmonn.readSalmonnAnnotations(join(out, 'data/test.json'))
    const { scores } = await salmonn.scoreSalmonn(model, new salmonn.SalmonnDataset(entries, form), {
      generation: { numBeams: 1, maxNewTokens: 8 },
      batchSize: 16,
    })
    expect(scores.positionAccuracy).toBeCloseTo(figures.turnAccuracy, 12)
  })

  it('refuses a folder that holds dialogs of other settings', async () => {
    const other = join(home, 'other.json')
    const given = JSON.parse(readFileSync(config, 'utf8'))
    writeFileSync(other, JSON.stringify({ ...given, dialogs: { ...given.dialogs, seed: 9 } }))
    const child = example('--data', data, '--out', out, '--config', other)
    expect(await child.exit).toEqual({ code: 1, signal: null })
    expect(child.errors()).toMatch(/dialogs of other settings/)
  })
})

// Five to eight minutes on a core: VOXTORCH_SALMONN_EMODB=1 asks for it.
const wanted = process.env.VOXTORCH_SALMONN_EMODB === '1' && hasData('emodb')
it.skipIf(!wanted)(
  'Emo-DB (VOXTORCH_SALMONN_EMODB=1, ../shared/data/emodb): hears the emotions of two held-out actors',
  async () => {
    const out = join(home, 'emodb')
    const child = example('--data', dataPath('emodb'), '--out', out)
    expect(await child.exit, child.errors()).toEqual({ code: 0, signal: null })
    const { turnAccuracy, shuffledTurnAccuracy, actors } = figuresOf(out)
    console.log(JSON.stringify(figuresOf(out)))
    expect(Object.keys(actors)).toEqual(['03', '16'])
    expect(turnAccuracy).toBeGreaterThanOrEqual(0.4)
    expect(turnAccuracy - shuffledTurnAccuracy).toBeGreaterThanOrEqual(0.15)
  },
  3_600_000,
)
