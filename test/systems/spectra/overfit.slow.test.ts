import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import * as vt from '../../../lib/index.js'
import * as spectra from '../../../lib/systems/spectra/index.js'
import { SpectraForDst, SpectraForSequenceClassification } from '../../../lib/systems/spectra/index.js'
import { smallSpectra } from './network.js'
import { config as dstConfig, makeDialogs, makeTokenizer } from './tracking/maker.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-overfit-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
// A network this small gains nothing from a second thread.
vt.setNumThreads(1)

/** A tone over some noise: each pitch is another sound. */
function tone(hertz: number, random: vt.Random): vt.Tensor {
  return vt.tensor(
    Float32Array.from({ length: 2400 + 16 * random.below(50) }, (_, t) => {
      return 0.4 * Math.sin((2 * Math.PI * hertz * t) / 16000) + 0.02 * (random.float() - 0.5)
    }),
  )
}

const QUIET = {
  reportTo: 'none',
  progress: false,
  saveStrategy: 'no',
  loadBestModelAtEnd: false,
  evalStrategy: 'no',
} as const

type Told = 'audio' | 'text'

/** Samples of a task whose label only the voice tells, low or high; or of four words the text. */
function samplesOf(task: spectra.SpectraTask, told: Told, count: number): spectra.SpectraSample[] {
  const random = new vt.Random(11)
  return Array.from({ length: count }, (_, i) => {
    const classes = task.kind === 'regression' ? 4 : task.numLabels
    const number = i % (told === 'audio' && task.kind === 'classification' ? 2 : classes)
    const label = task.kind === 'regression' ? [-2, -1, 1, 2][number]! : number
    const heard = told === 'audio' ? 300 + 700 * number : 500
    const inputIds = [0, told === 'text' ? 10 + number : 10, 4 + random.below(5), 2]
    const context = task.name === 'iemocap' && { historyAudio: tone(500, random), turnIds: [0, 1, 1, 1] }
    return { audio: tone(heard, random), inputIds, label, source: `sample ${i}`, ...context }
  })
}

async function trained(name: string, task: spectra.SpectraTask, samples: spectra.SpectraSample[], epochs = 30) {
  vt.manualSeed(2)
  using model = SpectraForSequenceClassification.fromConfig(smallSpectra(40, { numLabels: task.numLabels }))
  const preset = { learningRate: 3e-3, batchSize: 8, epochs, patience: epochs, weightDecay: 0, warmup: 0.1 }
  const data = { task, train: samples, valid: samples, test: samples, notes: [] }
  const { trainer, dispose } = spectra.spectraTrainer({
    ...{ model, data, outputDir: join(folder, name), preset, earlyStopping: 'none' },
    args: QUIET,
  })
  try {
    await trainer.train()
    const score = async (on: spectra.SpectraSample[]) => {
      const metrics = await trainer.evaluate(on)
      return metrics[`eval${task.keyMetric.charAt(0).toUpperCase()}${task.keyMetric.slice(1)}`]!
    }
    return {
      learned: await score(samples),
      deaf: await score(
        samples.map((sample) => ({ ...sample, audio: sample.audio && zeroed(sample.audio as vt.Tensor) })),
      ),
    }
  } finally {
    dispose()
  }
}
const zeroed = (clip: vt.Tensor) => vt.zeros([clip.size(0)])

// MOSEI is MOSI with other data.
describe.each(['mosi', 'iemocap', 'mintrec'] as const)('%s, with the whole network', (name) => {
  const task = spectra.publishedSpectraTask(name)

  it('reaches the maximum of its metric where the voice decides, and falls to chance without it', async () => {
    await vt.scope(async () => {
      const { learned, deaf } = await trained(`${name}-audio`, task, samplesOf(task, 'audio', 24))
      expect(learned).toBe(1)
      // Of silence it says the same every time, and half the labels are alike.
      expect(deaf).toBeLessThanOrEqual(0.5)
    })
  })

  it('reaches it where the words decide, and not with labels of others', async () => {
    await vt.scope(async () => {
      const samples = samplesOf(task, 'text', task.numLabels === 20 ? 40 : 24)
      expect((await trained(`${name}-text`, task, samples)).learned).toBe(1)
      const held = samplesOf(task, 'text', 24)
      const random = new vt.Random(7)
      const shuffled = samples.map((sample) => ({ ...sample, label: samples[random.below(samples.length)]!.label }))
      vt.manualSeed(2)
      using model = SpectraForSequenceClassification.fromConfig(smallSpectra(40, { numLabels: task.numLabels }))
      const preset = { learningRate: 3e-3, batchSize: 8, epochs: 8, weightDecay: 0 }
      const { trainer, dispose } = spectra.spectraTrainer({
        ...{ model, preset, outputDir: join(folder, `${name}-shuffled`) },
        data: { task, train: shuffled, valid: held, test: held, notes: [] },
        ...{ earlyStopping: 'none', args: QUIET },
      })
      await trainer.train()
      const metrics = await trainer.evaluate(held)
      dispose()
      // Two halves for sentiment, else one of so many classes.
      const chance = task.kind === 'regression' ? 0.5 : 1 / task.numLabels
      const key = `eval${task.keyMetric.charAt(0).toUpperCase()}${task.keyMetric.slice(1)}`
      expect(metrics[key]).toBeLessThan(chance + 0.3)
    })
  })
})

describe('state tracking, with the whole network', () => {
  it('learns a tiny set to joint goal accuracy 1, by speech too; falls with shuffled labels and without speech', async () => {
    const tokenizer = await makeTokenizer(join(folder, 'tokenizer'))
    const data = join(folder, 'dialogs')
    await makeDialogs(data, 16)
    const { features } = await spectra.loadDstSplit(data, 'train', { config: dstConfig, tokenizer })
    const dataset = new spectra.DstDataset(features)
    const train = async (on: spectra.DstDataset, name: string, numTrainEpochs: number) => {
      vt.manualSeed(1)
      const encoder = vt.Spectra.fromConfig(smallSpectra(tokenizer.vocabSize))
      const model = new SpectraForDst(encoder, { config: dstConfig, hiddenSize: 32, dropout: 0 })
      using trainer = spectra.dstTrainer({
        ...{ model, config: dstConfig, tokenizer, trainDataset: on },
        args: {
          outputDir: join(folder, name),
          ...{ perDeviceTrainBatchSize: 8, gradientAccumulationSteps: 1, numTrainEpochs, learningRate: 3e-3 },
          ...{ saveStrategy: 'no', reportTo: 'none', progress: false, seed: 5 },
        },
      })
      await trainer.train()
      return model
    }
    const score = async (model: SpectraForDst, on: spectra.DstDataset) => {
      const results = await spectra.trackDst(model, on, { config: dstConfig, tokenizer })
      return spectra.dstScores(
        results.map(({ state }, i) => ({ state, features: features[i]! })),
        dstConfig,
      )
    }
    using model = await train(dataset, 'right', 60)
    const learned = await score(model, dataset)
    expect(learned.jointGoalAccuracy).toBe(1)
    const deaf = await score(model, new spectra.DstDataset(features, { noAudio: true }))
    // Only the voice says whether there is parking.
    expect(deaf.perSlot['hotel-parking']).toBeLessThan(0.9)
    expect(deaf.perSlot['hotel-area']).toBe(1)

    // 17 has no divisor in common with 48: every turn gets another's labels.
    const others = features.map((turn, i) => {
      const { classIds, startPositions, endPositions, referIds } = features[(i * 17 + 5) % features.length]!
      return { ...turn, classIds, startPositions, endPositions, referIds }
    })
    using chance = await train(new spectra.DstDataset(others), 'shuffled', 20)
    expect((await score(chance, dataset)).jointGoalAccuracy).toBeLessThan(0.2)
  })
})
