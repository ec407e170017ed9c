import { writeFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import * as vt from '../../../lib/index.js'
import { settledTensors } from '../../helpers.js'
import { temporary } from './small.js'

// The Trainer's options with a native network.

const folder = temporary()
vt.setNumThreads(1)
let runs = 0
const CONFIG = {
  vocabSize: 50,
  hiddenSize: 16,
  numHiddenLayers: 2,
  numAttentionHeads: 2,
  intermediateSize: 32,
  maxPositionEmbeddings: 40,
  hiddenDropoutProb: 0.1,
  attentionProbsDropoutProb: 0.1,
}
const sample = (i: number) => ({
  inputIds: Array.from({ length: 4 + (i % 3) }, (_, j) => 3 + ((i * 11 + j * 5) % 40)),
  labels: i % 2,
})
const samples = Array.from({ length: 32 }, (_, i) => sample(i))
const collate = vt.padCollate({ inputIds: { pad: 1 }, labels: {} })

class Tagger extends vt.Module {
  encoder = vt.Roberta.fromConfig(CONFIG)
  out = new vt.Linear(16, 2)
  dtypes = new Set<string>()

  override async forward({ inputIds, labels }: { inputIds: vt.Tensor; labels: vt.Tensor }) {
    const { lastHiddenState } = await this.encoder.forward({ inputIds })
    const logits = this.out.forward(lastHiddenState.mean([1]))
    this.dtypes.add(logits.dtype)
    return { logits, loss: vt.functional.crossEntropy(logits.to({ dtype: 'float32' }), labels) }
  }
}

async function train(args: Partial<vt.TrainingArguments>, trainDataset: typeof samples | URL = samples) {
  vt.manualSeed(6)
  const model = new Tagger()
  const before = await settledTensors()
  const trainer = new vt.Trainer({
    model,
    trainDataset: trainDataset as typeof samples,
    collate,
    args: {
      outputDir: folder(`run${runs++}`),
      reportTo: 'none',
      progress: false,
      saveStrategy: 'no',
      perDeviceTrainBatchSize: 8,
      numTrainEpochs: 6,
      learningRate: 0.005,
      loggingSteps: 1,
      ...args,
    },
  })
  await trainer.train()
  trainer.dispose()
  const losses = trainer.state.logHistory.map(({ loss }) => loss as number)
  const weights = Object.fromEntries(Object.entries(model.stateDict()).map(([name, value]) => [name, value.toArray()]))
  return { losses, weights, dtypes: [...model.dtypes], left: vt.memoryStats().liveTensors - before }
}
const mean = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / values.length

describe('a native network', () => {
  it('learns, also in bf16 and fp16, with float32 weights', async () => {
    const plain = await train({})
    for (const [name, dtype] of [
      ['bf16', 'bfloat16'],
      ['fp16', 'float16'],
    ] as const) {
      const half = await train({ [name]: true })
      expect(half.dtypes).toEqual([dtype])
      expect(half.losses.length).toBe(24)
      // Another precision, but not another training.
      expect(half.losses).not.toEqual(plain.losses)
      expect(Math.abs((half.losses[0] as number) - (plain.losses[0] as number))).toBeLessThan(0.02)
      expect(mean(half.losses.slice(-4))).toBeLessThan(0.9 * mean(half.losses.slice(0, 4)))
      expect(half.left).toBe(plain.left)
    }
    expect(mean(plain.losses.slice(-4))).toBeLessThan(0.9 * mean(plain.losses.slice(0, 4)))
  })

  it('trains to the same bits with gradientCheckpointing, dropout included', async () => {
    const short = { numTrainEpochs: 2 }
    const [plain, checkpointed] = [await train(short), await train({ ...short, gradientCheckpointing: true })]
    expect(checkpointed.losses).toEqual(plain.losses)
    expect(checkpointed.weights).toEqual(plain.weights)
  })

  it('trains to the same bits whether workers read its data or not', async () => {
    const file = folder('dataset.mjs')
    writeFileSync(file, `const sample = ${sample.toString()}\nexport default { length: 32, get: (i) => sample(i) }\n`)
    const url = new URL(`file://${file}`)
    const short = { numTrainEpochs: 2 }
    const [here, workers] = [await train(short), await train({ ...short, dataloaderNumWorkers: 2 }, url)]
    expect(workers.losses).toEqual(here.losses)
    expect(workers.weights).toEqual(here.weights)
  })
})
