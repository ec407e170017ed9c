import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import * as vt from '../../../lib/index.js'
import * as salmonn from '../../../lib/systems/salmonn/index.js'
import { settledTensors } from '../../helpers.js'
import { StandIn } from './stand-in.js'
import { entry, writeClip } from './waves.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-salmonn-train-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
beforeAll(() =>
  vt.scope(async () => {
    for (let i = 0; i < 8; i += 1) await writeClip(join(folder, `${i}.wav`), 3000 + i, [i % 2 === 0 ? 0.1 : 0.8])
  }),
)

const entries = (count: number, name: string) =>
  Array.from({ length: count }, (_, i) =>
    entry({
      id: `${name}${i}`,
      dialog: `${name}${i}`,
      task: 'task1_emotional_trajectory',
      question: 'How?',
      audio: [join(folder, `${name === 'v' ? 4 + (i % 4) : i % 4}.wav`)],
      target: i % 2 === 0 ? 'soft' : 'loud',
      emotions: ['neutral', i % 2 === 0 ? 'sad' : 'anger'],
    }),
  )
const data = () => ({
  train: new salmonn.SalmonnDataset(entries(12, 't')),
  valid: new salmonn.SalmonnDataset(entries(4, 'v'), { drawPrompts: false }),
})
const model = () => {
  vt.manualSeed(3)
  return new StandIn()
}
const recipe = { learningRate: 0.05, warmupStartLearningRate: 0.01, minLearningRate: 0.001, warmupSteps: 4, epochs: 6, iterationsPerEpoch: null, batchSize: 4 } // biome-ignore format: one line
const args = { reportTo: 'none', progress: false } as const
const run = (name: string, more: Partial<salmonn.TrainSalmonnOptions> = {}, network = model()) =>
  salmonn.trainSalmonn(network, { ...data(), outputDir: join(folder, name), recipe, stage: 1, args, ...more })

describe('trainSalmonn', () => {
  it('learns what is heard, and scores the answers', async () => {
    const network = model()
    const frozen = network.beats.weight.toArray()
    const results = await run('learn', { score: {}, test: new salmonn.SalmonnDataset(entries(4, 'v')) }, network)
    expect(results).toMatchObject({
      globalStep: 18,
      skippedSteps: 0,
      valid: { accuracy: 1, answers: { pairs: 4, exactSequence: 1, positionAccuracy: 1, labelSetF1: 1, rougeL: 1 } },
      test: { accuracy: 1 },
      samples: { train: 12, valid: 4, test: 4 },
      cut: { count: 0, seconds: 0 },
    })
    expect(results.valid.loss).toBeLessThan(0.5)
    expect(JSON.parse(readFileSync(join(folder, 'learn/results.json'), 'utf8'))).toEqual(results)
    expect(await run('learn', { score: {}, test: new salmonn.SalmonnDataset(entries(4, 'v')) })).toEqual(results)
    expect(network.beats.weight.toArray()).toEqual(frozen)
    // Where all clips sound alike, nothing tells the answers apart.
    const alike = (of: salmonn.SalmonnDataset, clip: string) =>
      new salmonn.SalmonnDataset(of.entries.map((one) => ({ ...one, audio: [join(folder, clip)] })))
    const { train, valid } = data()
    expect((await run('deaf', { train: alike(train, '0.wav'), valid: alike(valid, '4.wav') })).valid.accuracy).toBe(0.5)
  })

  it('writes what trains and nothing else', async () => {
    await run('small', { recipe: { ...recipe, epochs: 1 } })
    const names = async (file: string) =>
      Object.keys((await vt.loadSafetensors(join(folder, 'small', file))).tensors).sort()
    const trained = ['ln_speech.bias', 'ln_speech.weight', 'speech_Qformer.bias', 'speech_Qformer.weight', 'speech_llama_proj.bias', 'speech_llama_proj.weight', 'speech_query_tokens'] // biome-ignore format: one line
    await vt.scope(async () => {
      expect(await names('best/adapter.safetensors')).toEqual(trained)
      expect(await names('checkpoint-3/model.safetensors')).toEqual(trained)
    })
  })

  it.each([undefined, 'published'] as const)('resumes to the same weights, compat %s', async (compat) => {
    const options = { recipe: { ...recipe, epochs: 4, accumulation: 2 }, args: { ...args, saveTotalLimit: null }, ...(compat && { compat }) } // biome-ignore format: one line
    const [whole, part] = [`whole-${compat}`, `part-${compat}`]
    const first = await run(whole, options)
    cpSync(join(folder, whole), join(folder, part), { recursive: true })
    for (const gone of ['results.json', 'best', 'checkpoint-6', 'checkpoint-8']) {
      rmSync(join(folder, part, gone), { recursive: true, force: true })
    }
    expect(existsSync(join(folder, part, 'checkpoint-4'))).toBe(true)
    // Its weights differ until the checkpoint is read; what is frozen is made again.
    expect(await run(part, options)).toEqual(first)
    const weights = (name: string) => readFileSync(join(folder, name, 'best/adapter.safetensors'))
    expect(weights(part).equals(weights(whole))).toBe(true)
  })

  it('leaves out a step with a loss that is not finite', async () => {
    const network = model()
    network.badCall = 2
    const before: number[][] = []
    const weights = () => Array.from(network.speech_Qformer.weight.flatten().toArray() as number[])
    const seen = { onStepEnd: () => void before.push(vt.scope(weights)) }
    const logs: number[] = []
    const results = await run('skip', { recipe: { ...recipe, epochs: 1, logSteps: 1 }, callbacks: [seen, { onLog: ({ logs: log }) => void (log.loss !== undefined && logs.push(log.loss)) }] }, network) // biome-ignore format: one line
    expect(results.skippedSteps).toBe(1)
    expect(before[1]).toEqual(before[0])
    expect(before[2]).not.toEqual(before[1])
    expect(logs[1]).toBe(0)
    expect(logs.every(Number.isFinite)).toBe(true)
  })

  it('averages gradients of accumulated batches, and adds them up as published', async () => {
    const norms = async (compat?: 'published') => {
      const found: number[] = []
      const seen = {
        onStepEnd: ({ state }: { state: { gradNorm: number | null } }) => void found.push(state.gradNorm as number),
      }
      const options = {
        recipe: { ...recipe, epochs: 1, accumulation: 3 },
        callbacks: [seen],
        ...(compat && { compat }),
      }
      await run(`norm-${compat}`, options)
      return found[0] as number
    }
    const [mean, sum] = [await norms(), await norms('published')]
    expect(sum / mean).toBeCloseTo(3, 4)
  })

  it('groups samples of like length, and keeps validation apart', async () => {
    const { train, valid } = data()
    await run('grouped', { recipe: { ...recipe, epochs: 1 }, args: { ...args, groupByLength: true } })
    await expect(run('shared', { valid: train })).rejects.toThrow(
      /expected validation data without dialogs of the training data, got 12 of them/,
    )
    await expect(run('shared', { test: new salmonn.SalmonnDataset(train.entries) })).rejects.toThrow(vt.ConfigError)
    await expect(run('x', { recipe: { learnRate: 1 } as never })).rejects.toThrow(
      /got 'learnRate'; did you mean 'learningRate'/,
    )
    await expect(run('x', { stage: 3 as never })).rejects.toThrow(vt.ConfigError)
    await expect(salmonn.scoreSalmonn(new vt.Linear(1, 1), valid)).rejects.toThrow(
      /expected a model with generate\(prompts, options\), got Linear without it/,
    )
  })

  it('plans epochs of the data, and published epochs of a set number of batches where it is asked for them', () => {
    const plan = (recipe: object) => {
      const { trainer, dispose } = salmonn.salmonnTrainer(model(), { ...data(), outputDir: folder, stage: 1, args, recipe }) // biome-ignore format: one line
      dispose()
      return trainer.args
    }
    expect(plan({ epochs: 1 })).toMatchObject({ numTrainEpochs: 1, maxSteps: -1, evalStrategy: 'epoch', saveStrategy: 'epoch' }) // biome-ignore format: one line
    for (const name of ['itersPerEpoch', 'iterationsPerEpoch']) {
      expect(plan({ epochs: 1, [name]: 3000 })).toMatchObject({ maxSteps: 3000, evalSteps: 3000, saveSteps: 3000 })
    }
    expect(() => plan({ itersPerEpoch: 3000, iterationsPerEpoch: 20 })).toThrow(
      /expected itersPerEpoch or its alias iterationsPerEpoch, got both/,
    )
    expect(() => plan({ itersPerEpoch: 0 })).toThrow(/iterationsPerEpoch to be an integer of at least 1/)
    const { trainer, dispose } = salmonn.salmonnTrainer(model(), { ...data(), outputDir: folder, stage: 1, args, recipe: { accumulation: 2, itersPerEpoch: 3000 } }) // biome-ignore format: one line
    expect(trainer.args).toMatchObject({ maxSteps: 45_000, evalSteps: 1500, saveSteps: 1500, learningRate: 3e-5, maxGradNorm: 1, metricForBestModel: 'accuracy', fp16: false }) // biome-ignore format: one line
    dispose()
  })

  it('warms up over a tenth of all batches where 3000 are more', async () => {
    const rates: number[] = []
    const callbacks = [
      { onStepEnd: ({ state }: { state: { learningRate: number } }) => void rates.push(state.learningRate) },
    ]
    const { warmupSteps: _, ...short } = recipe
    await run('warm', { recipe: short, callbacks })
    // 12 samples in batches of 4, six times: 18 batches, of which 2.
    const rate = salmonn.salmonnLearningRate({ ...short, warmupSteps: 2, iterationsPerEpoch: 3 })
    const expected = Array.from({ length: 18 }, (_, i) => rate(Math.floor(i / 3), i % 3))
    for (const [i, value] of rates.entries()) expect(value).toBeCloseTo(expected[i] as number, 12)
    expect(rates).toHaveLength(18)
    expect(rates[1]).toBeGreaterThan(rates[0] as number)
    expect(rates[3]).toBeLessThan(rates[2] as number)
  })

  it('tells how far it is without a terminal too', async () => {
    const { trainer, dispose } = salmonn.salmonnTrainer(model(), {
      ...data(),
      outputDir: folder,
      args: { reportTo: 'none' },
    })
    expect(process.stderr.isTTY ?? false).toBe(false)
    expect(trainer.args.progress).toBe(true)
    dispose()
    const written: string[] = []
    const { write } = process.stderr
    process.stderr.write = ((text: string) => written.push(String(text)) > 0) as never
    try {
      await run('told', { recipe: { ...recipe, epochs: 2 }, args: { reportTo: 'none' } })
    } finally {
      process.stderr.write = write
    }
    const lines = written.join('').trimEnd().split('\n')
    // One for each evaluation, and the last.
    expect(lines.filter((line) => /^step \d+ +epoch [12]\.00 +evalLoss .*evalAccuracy/.test(line))).toHaveLength(2)
    expect(lines.at(-1)).toMatch(/100% +\d+\/\d+ .*loss/)
  })

  it('leaves no tensors', async () => {
    const network = model()
    const before = await settledTensors()
    await vt.scope(() => run('tensors', { recipe: { ...recipe, epochs: 1 }, score: {} }, network))
    expect(vt.memoryStats().liveTensors).toBeLessThanOrEqual(before + network.parameters().length)
  })
})
