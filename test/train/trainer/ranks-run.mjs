// Small trainings that tests run in one process and in several: `node ranks-run.mjs MODE OUTPUT [JSON arguments]`. The
// batches of all ranks together are always of eight samples. Prints lines of JSON.
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import * as vt from 'voxtorch'

const [mode, output, more = '{}'] = process.argv.slice(2)
const print = (value) => console.log(JSON.stringify(value))
const BATCH = 8 / vt.getWorldSize()
vt.setNumThreads(1)

const random = new vt.Random(2)
// 41: the last batch of an epoch has one sample, so one rank has none.
const samples = Array.from({ length: 60 }, (_, i) => {
  const x = Array.from({ length: 8 }, () => random.float() - 0.5)
  return { x, labels: i % 5 === 1 ? -100 : x[0] > 0.2 ? 2 : x[1] > x[2] ? 1 : 0, length: 1 + ((i * 7) % 13) }
})
const [trainDataset, evalDataset] = [samples.slice(0, 41), samples.slice(41)]
const collate = vt.padCollate({ x: { dtype: 'float32' }, labels: {}, length: {} })

class Model extends vt.Module {
  hidden = new vt.Linear(8, 32)
  unused = new vt.Linear(2, 2)
  dropout
  out = new vt.Linear(32, 3)

  constructor(dropout) {
    super()
    this.dropout = new vt.Dropout(dropout)
  }

  forward({ x, labels }) {
    const logits = this.out.forward(this.dropout.forward(this.hidden.forward(x).tanh()))
    return { logits, loss: vt.functional.crossEntropy(logits, labels) }
  }
}

// Other weights on each rank: those of rank 0 count.
const newModel = (dropout = 0) => {
  vt.manualSeed(1 + vt.getRank())
  return new Model(dropout)
}
const right = ({ predictions, labels }) => ({
  right: predictions.argmax(1).eq(labels).to({ dtype: 'float32' }).mean().item(),
  rows: predictions.size(0),
})

function newTrainer(name, args, options = {}) {
  return new vt.Trainer({
    model: newModel(),
    trainDataset,
    evalDataset,
    collate,
    computeMetrics: right,
    ...options,
    args: {
      outputDir: `${output}/${name}`,
      reportTo: ['jsonl'],
      perDeviceTrainBatchSize: BATCH,
      perDeviceEvalBatchSize: BATCH,
      numTrainEpochs: 2,
      learningRate: 0.01,
      loggingSteps: 1,
      evalStrategy: 'epoch',
      saveStrategy: 'epoch',
      saveTotalLimit: 1,
      progress: false,
      ...args,
    },
  })
}

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc')

/** Tensors that are alive when the garbage, that of the training before included, is gone. */
async function settled() {
  for (let last = Number.NaN; ; ) {
    collect()
    await turn() // finalizers run in a later turn of the loop
    const live = vt.memoryStats().liveTensors
    if (live === last) return live
    last = live
  }
}

/** Trains, and tells what came out: the same on all ranks. */
async function report(name, args, options) {
  const trainer = newTrainer(name, args, options)
  const before = await settled()
  const { state } = await trainer.train()
  const { logHistory, samplesSeen, tokensSeen, globalStep } = state
  const { predictions } = await trainer.predict(evalDataset)
  const entries = Object.entries(trainer.model.stateDict())
  const weights = Object.fromEntries(entries.map(([key, value]) => [key, value.reshape([-1]).toArray()]))
  const result = { name, logHistory, samplesSeen, tokensSeen, globalStep, predictions: predictions.toArray(), weights }
  predictions.dispose()
  trainer.dispose()
  const left = (await settled()) - before
  trainer.model.dispose() // and so was alive until here
  return { ...result, left }
}

const ROBERTA = {
  vocabSize: 50,
  hiddenSize: 16,
  numHiddenLayers: 2,
  numAttentionHeads: 2,
  intermediateSize: 32,
  maxPositionEmbeddings: 40,
  hiddenDropoutProb: 0,
  attentionProbsDropoutProb: 0,
}
class Tagger extends vt.Module {
  encoder = vt.Roberta.fromConfig(ROBERTA)
  out = new vt.Linear(16, 3)

  async forward({ inputIds, labels }) {
    const { lastHiddenState } = await this.encoder.forward({ inputIds })
    const logits = this.out.forward(lastHiddenState.mean([1]))
    return { logits, loss: vt.functional.crossEntropy(logits, labels) }
  }
}
const roberta = () => {
  vt.manualSeed(4 + vt.getRank())
  const data = samples.map(({ labels }, i) => ({
    labels: Math.max(labels, 0),
    inputIds: Array.from({ length: 6 }, (_, j) => 3 + ((i * 11 + j * 5) % 40)),
  }))
  const ids = vt.padCollate({ inputIds: { pad: 1 }, labels: {} })
  return { model: new Tagger(), trainDataset: data.slice(0, 41), evalDataset: data.slice(41), collate: ids }
}

const modes = {
  async same() {
    print(await report('plain', {}))
    print(await report('accumulation', { gradientAccumulationSteps: 3 }))
    print(await report('lengths', { groupByLength: true }, { lengthOf: ({ length }) => length }))
    print(await report('dropLast', { dataloaderDropLast: true }))
    const zero = { zero: 1, lrSchedulerType: 'polynomial', lrSchedulerKwargs: { lrEnd: 1e-3, power: 2 } }
    print(await report('zero', { ...zero, warmupSteps: 2, weightDecay: 0.1 }))
    const shard = { rank: vt.getRank(), worldSize: vt.getWorldSize() }
    const loader = new vt.DataLoader(trainDataset, {
      batchSize: 8,
      shuffle: true,
      seed: 3,
      collate,
      shard,
      freeBatches: false,
    })
    print(await report('loader', { dataSeed: 3 }, { trainDataset: loader }))
  },

  async roberta() {
    const args = { evalStrategy: 'no', numTrainEpochs: 1 }
    const run = async (name, more) => {
      const { evalDataset: _, ...fresh } = roberta()
      // Adam divides by the size of gradients, and those of the keys' biases are nothing but rounding.
      const optimizer = new vt.SGD(fresh.model.parameters(), { lr: 0.5 })
      // Two ranks have gradients twice as large for each sample: at the standard scale one more step overflows.
      const scaler = more.fp16 ? new vt.GradScaler({ initScale: 1024 }) : undefined
      const trainer = newTrainer(
        name,
        { ...args, ...more },
        { ...fresh, optimizers: { optimizer, scaler }, computeMetrics: undefined },
      )
      const { state } = await trainer.train()
      const weights = Object.fromEntries(
        Object.entries(trainer.model.stateDict())
          .filter(([, value]) => /^float/.test(value.dtype))
          .map(([key, value]) => [key, value.reshape([-1]).toArray()]),
      )
      print({ name, losses: state.logHistory.map(({ loss }) => loss), weights })
    }
    await run('whole', {})
    await run('checkpointing', { gradientCheckpointing: true })
    await run('bf16', { bf16: true })
    await run('fp16', { fp16: true })
  },

  async stops() {
    const stopOn = (rank, event) => ({
      [event]: ({ state, control }) => {
        if (state.globalStep === 3 && vt.getRank() === rank) control.shouldStop = true
      },
    })
    const stop = async (name, callback, args = {}) => {
      const { state } = await newTrainer(
        name,
        { evalStrategy: 'steps', evalSteps: 3, ...args },
        { callbacks: [callback] },
      ).train()
      print([name, state.globalStep, state.stopped])
    }
    await stop('onStepEnd', stopOn(1, 'onStepEnd'))
    await stop('onLog', stopOn(1, 'onLog'))
    await stop('onEvaluate', stopOn(0, 'onEvaluate'))
    const metrics = { metricForBestModel: 'rows', earlyStoppingPatience: 1 }
    await stop('patience', {}, { ...metrics, saveStrategy: 'no' })
    const whole = new vt.DataLoader(trainDataset, { batchSize: 4, collate })
    const refused = await newTrainer('refused', {}, { trainDataset: whole }).train().catch(String)
    print(refused)
    // What rank 0 cannot do, all hear of.
    const bad = { resumeFromCheckpoint: `${output}/nowhere` }
    print(
      await newTrainer('bad', bad)
        .train()
        .catch(({ name, message }) => ({ name, message })),
    )
  },

  /** Runs until it is killed, told to stop, or done. */
  async long() {
    print({ pid: process.pid, rank: vt.getRank() })
    const { outputDir = 'long', ...args } = JSON.parse(more)
    const trainer = newTrainer(
      outputDir,
      {
        maxSteps: 40,
        saveStrategy: 'steps',
        saveSteps: 5,
        saveTotalLimit: 2,
        loggingSteps: 2,
        ddpTimeout: 20,
        zero: 1,
        ...args,
      },
      {
        model: newModel(0.2),
        callbacks: [
          {
            async onStepEnd({ state }) {
              print({ step: state.globalStep })
              await sleep(10)
            },
          },
        ],
      },
    )
    await trainer.train()
    await trainer.saveModel()
    print({ done: vt.getRank() })
  },

  /** A schedule bound to ZeRO's optimiser, and its state in a plain one. */
  async schedule() {
    await vt.initProcessGroup()
    vt.manualSeed(1)
    const model = new Model(0)
    const twin = new Model(0)
    twin.loadStateDict(model.stateDict())
    const groups = (m) => [
      { params: [m.hidden.weight, m.out.weight] },
      { params: [m.hidden.bias, m.out.bias], lr: 0.002 },
    ]
    const make = (params) => new vt.AdamW(params, { lr: 0.01 })
    const options = { numWarmupSteps: 2, numTrainingSteps: 8, schedulerSpecificOptions: { lrEnd: 0.001, power: 2 } }
    const bound = (optimizer) => ({ optimizer, scheduler: vt.getScheduler('polynomial', optimizer, options) })
    let zero = bound(new vt.ZeroRedundancyOptimizer(groups(model), make))
    let plain = bound(make(groups(twin)))
    const rates = []
    for (let step = 0; step < 8; step++) {
      for (const m of [model, twin]) for (const p of m.parameters()) p.grad = vt.ones(p.shape)
      await zero.optimizer.step()
      await plain.optimizer.step()
      zero.scheduler.step()
      plain.scheduler.step()
      rates.push([zero, plain].map(({ optimizer }) => optimizer.groups.map(({ lr }) => lr)))
      if (step !== 3) continue
      // Over files: each goes on from the other's state.
      const states = [await zero.optimizer.consolidateStateDict(), plain.optimizer.stateDict()]
      const schedules = [zero.scheduler.stateDict(), plain.scheduler.stateDict()]
      const fresh = [bound(new vt.ZeroRedundancyOptimizer(groups(model), make)), bound(make(groups(twin)))]
      fresh.forEach(({ optimizer, scheduler }, i) => {
        optimizer.loadStateDict(states[1 - i])
        scheduler.loadStateDict(schedules[1 - i])
      })
      zero = fresh[0]
      plain = fresh[1]
    }
    const flat = (m) => m.parameters().map((p) => p.reshape([-1]).toArray())
    print({ rates, same: JSON.stringify(flat(model)) === JSON.stringify(flat(twin)) })
    await vt.destroyProcessGroup()
  },
}

await modes[mode]()
