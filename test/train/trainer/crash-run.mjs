// A small training that the tests kill: `node crash-run.mjs OUTPUT`. Prints "step N" after each step, "saved N" after
// each checkpoint. Everything that a resume must bring back takes part: dropout, a generator of its own, a shuffled order,
// accumulation, a schedule, evaluation, the best model, state of the caller's own.
import { setTimeout as sleep } from 'node:timers/promises'
import * as vt from 'voxtorch'

const [outputDir, threads = '2'] = process.argv.slice(2)
vt.setNumThreads(Number(threads))
vt.manualSeed(1)

class Model extends vt.Module {
  hidden = new vt.Linear(8, 64)
  dropout = new vt.Dropout(0.2)
  out = new vt.Linear(64, 3)

  forward({ x, labels }) {
    const logits = this.out.forward(this.dropout.forward(this.hidden.forward(x).tanh()))
    return { logits, loss: vt.functional.crossEntropy(logits, labels) }
  }
}

const random = new vt.Random(2)
const sample = () => {
  const x = Array.from({ length: 8 }, () => random.float() - 0.5)
  return { x, labels: x[0] > 0.2 ? 2 : x[1] > x[2] ? 1 : 0 }
}
const [trainDataset, evalDataset] = [Array.from({ length: 93 }, sample), Array.from({ length: 20 }, sample)]

const noise = new vt.Random(9)
const pad = vt.padCollate({ x: { dtype: 'float32' }, labels: {} })
const collate = (samples) => pad(samples.map(({ x, labels }) => ({ x: x.map((v) => v + 0.1 * noise.float()), labels })))
const average = {
  value: vt.zeros([64]),
  stateDict: () => ({ value: average.value }),
  loadStateDict: ({ value }) => average.value.copy_(value),
}

const model = new Model()
const trainer = new vt.Trainer({
  model,
  trainDataset,
  evalDataset,
  collate,
  generators: { noise },
  extraState: { average },
  computeMetrics: ({ predictions, labels }) => ({ right: predictions.argmax(1).eq(labels).sum().item() / 20 }),
  callbacks: [
    {
      async onStepEnd({ state }) {
        vt.noGrad(() => average.value.lerp_(model.hidden.bias.detach(), 0.1))
        console.log(`step ${state.globalStep}`)
        await sleep(3)
      },
      onSave: ({ state }) => console.log(`saved ${state.globalStep}`),
    },
  ],
  args: {
    outputDir,
    perDeviceTrainBatchSize: 8,
    gradientAccumulationSteps: 2,
    maxSteps: 150,
    learningRate: 0.01,
    warmupSteps: 10,
    lrSchedulerType: 'cosine',
    loggingSteps: 3,
    evalStrategy: 'steps',
    evalSteps: 4,
    saveSteps: 4,
    saveTotalLimit: 2,
    loadBestModelAtEnd: true,
    metricForBestModel: 'right',
    reportTo: ['jsonl', 'html'],
  },
})
const { trainingLoss } = await trainer.train()
await trainer.saveModel()
await vt.saveSafetensors(`${outputDir}/average.safetensors`, { average: average.value })
console.log(`done ${trainingLoss}`)
