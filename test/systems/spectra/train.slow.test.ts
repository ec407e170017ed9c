import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import * as vt from '../../../lib/index.js'
import * as spectra from '../../../lib/systems/spectra/index.js'
import { settledTensors } from '../../helpers.js'
import { StandIn } from './tiny.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-finetune-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** Turns whose label is heard: it is how loud they are; the text says nothing. */
function heard(
  task: spectra.SpectraTask,
  count: number,
  more: Partial<spectra.SpectraSample> = {},
): spectra.SpectraSample[] {
  const random = new vt.Random(5)
  return Array.from({ length: count }, (_, i) => {
    const label = task.kind === 'regression' ? (random.float() - 0.5) * 6 : i % task.numLabels
    const loud = task.kind === 'regression' ? (label + 3) / 6 : label / task.numLabels
    return {
      audio: vt.full([1800 + 10 * i], loud, { dtype: 'float32' }),
      inputIds: [0, 4 + random.below(5), 2],
      label,
      source: `sample ${i}`,
      ...more,
    }
  })
}
const two = spectra.spectraTask({ name: 'loud', kind: 'classification', labels: ['soft', 'loud'] })
function dataOf(task: spectra.SpectraTask, samples: spectra.SpectraSample[]): spectra.SpectraData {
  const cut = (from: number, to: number) =>
    samples.slice(Math.round(from * samples.length), Math.round(to * samples.length))
  return { task, train: cut(0, 0.6), valid: cut(0.6, 0.8), test: cut(0.8, 1), notes: ['made up'] }
}
const model = (task: spectra.SpectraTask) => {
  vt.manualSeed(1)
  return new StandIn({ numLabels: task.numLabels, vocabSize: 10 })
}
const quick = { learningRate: 0.03, batchSize: 8, epochs: 20, patience: 20, weightDecay: 0 }
const args = { reportTo: 'none', progress: false } as const
const run = (name: string, data: spectra.SpectraData, more: Partial<spectra.FinetuneSpectraOptions<StandIn>> = {}) =>
  spectra.finetuneSpectra({
    model: model(data.task),
    data,
    outputDir: join(folder, name),
    preset: quick,
    args,
    ...more,
  })

describe('finetuneSpectra', () => {
  it('learns what is heard, and is at chance where labels are shuffled or clips silent', async () => {
    const samples = heard(two, 100)
    const { valid, test, samples: counts } = await run('heard', dataOf(two, samples))
    expect([valid.accuracy, test?.accuracy]).toEqual([1, 1])
    expect(counts).toEqual({ train: 60, valid: 20, test: 20 })
    const silent = samples.map((sample) => ({ ...sample, audio: null }))
    const none = await run('silent', dataOf(two, silent))
    expect(none.test?.accuracy).toBeLessThan(0.75)
    const random = new vt.Random(3)
    const shuffled = samples.map((sample) => ({ ...sample, label: random.below(2) }))
    expect((await run('shuffled', dataOf(two, shuffled))).test?.accuracy).toBeLessThan(0.75)
  })

  it.each(['mosi', 'mosei', 'iemocap', 'mintrec'] as const)(
    "reaches the maximum of %s's metric on few samples",
    async (name) => {
      const task = spectra.publishedSpectraTask(name)
      const history = name === 'iemocap' ? { historyAudio: null, turnIds: [1, 1, 1] } : {}
      // The class stands in the text too, so that this small network can tell twenty of them.
      const few = heard(task, 2 * Math.max(8, task.numLabels), history).map((sample, i) => {
        return { ...sample, inputIds: [0, 10 + (i % Math.max(8, task.numLabels)), 2] }
      })
      const labels = new Map(few.map((sample) => [sample.inputIds[1], sample.label]))
      const same = few.map((sample) => ({ ...sample, label: labels.get(sample.inputIds[1])! }))
      vt.manualSeed(1)
      const network = new StandIn({ numLabels: task.numLabels, vocabSize: 40 })
      const data = { task, train: same, valid: same, test: same, notes: [] }
      const { test } = await run(`few-${name}`, data, {
        model: network,
        preset: { ...quick, epochs: 60, patience: 60 },
      })
      expect(test?.[task.keyMetric]).toBe(1)
    },
  )

  it('saves the best of validation, tests once, and gives its results again', async () => {
    const data = dataOf(two, heard(two, 60))
    const first = await run('again', data)
    const file = join(folder, 'again/results.json')
    expect(JSON.parse(readFileSync(file, 'utf8'))).toEqual(first)
    expect(spectra.spectraReport(first)).toMatch(/accuracy +1\.0000 +1\.0000 {2}\(selects the best epoch\)/)
    const written = statSync(file).mtimeMs
    expect(await run('again', data)).toEqual(first)
    expect(statSync(file).mtimeMs).toBe(written)
    const best = await vt.loadPretrained(
      join(folder, 'again/best'),
      (config: { numLabels: number; vocabSize: number }) => new StandIn(config),
    )
    const { trainer } = spectra.spectraTrainer({
      model: best,
      data,
      outputDir: join(folder, 'other'),
      preset: quick,
      args,
    })
    const { evalLoss, evalAccuracy } = await trainer.evaluate(data.test)
    expect(evalLoss).toBeCloseTo(first.test!.loss!, 6)
    expect(evalAccuracy).toBe(first.test!.accuracy)
  })

  it.each([undefined, 'published'] as const)('resumes to the same weights and results, compat %s', async (compat) => {
    const data = dataOf(two, heard(two, 40))
    const options = {
      preset: { ...quick, epochs: 4, patience: 2 },
      ...(compat && { compat }),
      args: { ...args, saveTotalLimit: null },
    }
    const name = `whole-${compat}`
    const whole = await run(name, data, options)
    const part = `part-${compat}`
    cpSync(join(folder, name), join(folder, part), { recursive: true })
    for (const gone of ['results.json', 'best', 'checkpoint-9', 'checkpoint-12'])
      rmSync(join(folder, part, gone), { recursive: true, force: true })
    expect(existsSync(join(folder, part, 'checkpoint-6'))).toBe(true)
    const resumed = await run(part, data, options)
    expect(resumed).toEqual(whole)
    const weights = (path: string) => readFileSync(join(folder, path, 'best/model.safetensors'))
    expect(weights(part).equals(weights(name))).toBe(true)
  })

  it('leaves no tensors, and says what a network lacks', async () => {
    const data = dataOf(two, heard(two, 20))
    const network = model(two)
    const before = await settledTensors()
    await vt.scope(() => run('tensors', data, { model: network, preset: { ...quick, epochs: 1 } }))
    // Gradients stay until the next zeroGrad; the optimiser that the caller does not see is freed.
    expect(vt.memoryStats().liveTensors).toBeLessThanOrEqual(before + network.parameters().length)
    const wrong = new StandIn({ numLabels: 3, vocabSize: 10 })
    await expect(run('wrong', data, { model: wrong })).rejects.toThrow(/Create it with numLabels 2/)
  })
})

describe('hyper-parameters', () => {
  const { mosi, iemocap, mintrec } = spectra.SPECTRA_TASKS

  it('are those of the published scripts', () => {
    const common = {
      epochs: 5,
      batchSize: 24,
      accumulation: 1,
      learningRate: 2e-5,
      warmup: 0.01,
      weightDecay: 0.01,
      maxGradNorm: 1,
      patience: 5,
      seed: 42,
    }
    expect(mosi.preset).toEqual({ ...common, historyAudio: false, turnIds: false })
    expect(mintrec.preset).toEqual(mosi.preset)
    expect(iemocap.preset).toEqual({ ...common, historyAudio: true, turnIds: true })
    const { trainer } = spectra.spectraTrainer({
      model: model(two),
      data: { ...dataOf(two, heard(two, 20)), task: { ...mosi, numLabels: 1 } },
      outputDir: folder,
      compat: 'published',
      args,
    })
    expect(trainer.args).toMatchObject({
      numTrainEpochs: 5,
      perDeviceTrainBatchSize: 24,
      learningRate: 2e-5,
      lrSchedulerType: 'cosine',
      seed: 42,
      earlyStoppingPatience: null,
    })
  })

  it('make the published schedule: warm-up rounded down, a cosine where none is left', () => {
    expect(spectra.spectraSteps(1284, { epochs: 5, batchSize: 24 })).toBe(270)
    expect(spectra.spectraSteps(1284, { epochs: 5, batchSize: 24, accumulation: 4, worldSize: 2 })).toBe(35)
    expect(spectra.spectraSchedule(270, 0.01, 'published')).toEqual({ lrSchedulerType: 'linear', warmupSteps: 2 })
    expect(spectra.spectraSchedule(99, 0.01, 'published')).toEqual({ lrSchedulerType: 'cosine', warmupSteps: 0 })
    expect(spectra.spectraSchedule(99, 0.01)).toEqual({ lrSchedulerType: 'linear', warmupRatio: 0.01 })
  })

  it('group parameters as published, or as was meant', () => {
    class Named extends vt.Module {
      layer_norm = new vt.LayerNorm([4])
      LayerNorm = new vt.LayerNorm([4])
      dense = new vt.Linear(4, 4)
      audio_sep = new vt.Parameter(vt.ones([4]))
      weight_g = new vt.Parameter(vt.ones([1, 1, 4]))
      frozen = new vt.Parameter(vt.ones([4, 4]))
    }
    const named = new Named()
    named.frozen.requiresGrad_(false)
    const names = (mode: spectra.SpectraOptimizerMode) => {
      const all = [...named.namedParameters()]
      return spectra.spectraParameterGroups(named, { weightDecay: 0.01, mode }).map(({ params, weightDecay }) => {
        return [weightDecay, params.map((param) => all.find(([, other]) => other === param)![0]).sort()]
      })
    }
    expect(names('published')).toEqual([
      [0.01, ['audio_sep', 'dense.weight', 'layer_norm.weight', 'weight_g']],
      [0, ['LayerNorm.bias', 'LayerNorm.weight', 'dense.bias', 'layer_norm.bias']],
    ])
    expect(names('sane')[0]).toEqual([0.01, ['dense.weight']])
  })

  it('step as AdamW without the correction of the first steps', async () => {
    const start = [0.5, -2, 3]
    const param = new vt.Parameter(vt.tensor(start, { dtype: 'float32' }))
    const [lr, weightDecay] = [0.01, 0.1]
    const optimizer = new spectra.SpectraAdamW([param], { lr, weightDecay })
    const w = [...start]
    const [m, v] = [[0, 0, 0], [0, 0, 0]] // biome-ignore format: two rows
    for (let step = 0; step < 5; step += 1) {
      const grads = w.map((_, i) => Math.sin(step + i) + 0.2)
      param.grad = vt.tensor(grads, { dtype: 'float32' })
      await optimizer.step()
      for (const [i, g] of grads.entries()) {
        m[i] = 0.9 * m[i]! + 0.1 * g
        v[i] = 0.999 * v[i]! + 0.001 * g * g
        w[i] = w[i]! - lr * (m[i]! / (Math.sqrt(v[i]!) + 1e-8) + weightDecay * w[i]!)
      }
    }
    const found = param.toArray() as number[]
    for (const [i, value] of w.entries()) expect(Math.abs(found[i]! - value) / 3).toBeLessThan(1e-6)
    // The first step is sqrt(0.001) / 0.1 times as long as AdamW's: the two are told apart.
    expect(() => new spectra.SpectraAdamW([param], { betas: [0.9, 0.99999] })).toThrow(vt.ConfigError)
  })
})

describe("the original's early stopping", () => {
  const observed = (task: spectra.SpectraTask, patience: number, epochs: [loss: number, ...metrics: number[]][]) => {
    const stopping = new spectra.SpectraEarlyStopping(task, patience)
    return epochs.map(([loss, a, b]) => stopping.observe(loss, { accuracy: a!, accA7: a!, accA2Non0: b!, acc20: a! }))
  }
  const { mosi, iemocap } = spectra.SPECTRA_TASKS

  it('goes on while any criterion comes up to its best', () => {
    // loss falls; accuracy ties; 5 a - l rises; then nothing for two epochs
    expect(observed(iemocap, 2, [[1, 0.5], [0.9, 0.4], [0.95, 0.5], [1, 0.4], [1, 0.4]])).toEqual([false, false, false, false, true]) // biome-ignore format: epochs
    expect(observed(mosi, 1, [[1, 0.5, 0.5], [2, 0.4, 0.6], [2, 0.4, 0.5]])).toEqual([false, false, true]) // biome-ignore format: epochs
  })

  it('gives up after three epochs without any of the last criterion', () => {
    expect(observed(iemocap, 9, [[3, 0.1], [2.9, 0.1], [2.8, 0.1], [2.7, 0.1]])).toEqual([false, false, true, false]) // biome-ignore format: epochs
  })

  it('goes on counting from its state', () => {
    const first = new spectra.SpectraEarlyStopping(iemocap, 2)
    first.observe(1, { accuracy: 0.5 })
    first.observe(2, { evalAccuracy: 0.1 })
    const second = new spectra.SpectraEarlyStopping(iemocap, 2)
    second.loadStateDict(JSON.parse(JSON.stringify(first.stateDict())) as never)
    expect([second.bestEpoch, second.observe(2, { accuracy: 0.1 })]).toEqual([0, true])
    expect(() => second.observe(1, { other: 1 })).toThrow(/expected the metric accuracy/)
  })
})
