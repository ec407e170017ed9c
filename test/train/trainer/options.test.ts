import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, vi } from 'vitest'
import * as vt from '../../../lib/index.js'
import type { LossOutput } from '../../../lib/train/trainer/loss.js'
import type { TrainerOptimizer, TrainerScaler } from '../../../lib/train/trainer/optimizing.js'
import { expectClose } from '../../helpers.js'
import {
  accuracy,
  type Batch,
  type Classifier,
  collate,
  evalSamples,
  newModel,
  newTrainer,
  type Options,
  temporary,
  trainSamples,
  weights,
} from './small.js'

const folder = temporary()
let runs = 0
/** Trains in a folder of its own and returns the trainer, whose optimiser is freed. */
async function train(args: Partial<vt.TrainingArguments>, options: Partial<Options> = {}) {
  const trainer = newTrainer({ outputDir: folder(`run${runs++}`), saveStrategy: 'no', ...args }, options)
  await trainer.train()
  trainer.dispose()
  return trainer
}
const column = (history: vt.LogEntry[], name: string) =>
  history.filter((e) => e[name] !== undefined).map((e) => e[name]!)
const checkpoints = (path: string) =>
  readdirSync(path)
    .filter((name) => name.startsWith('checkpoint-'))
    .map((name) => Number(name.slice(11)))
    .sort((a, b) => a - b)

describe('trainable float16 parameters', () => {
  it.each([
    ['float16', 6],
    ['bfloat16', 0],
    ['float32', 0],
  ] as const)('are warned of by number and name: %s', async (dtype, count) => {
    const warnings: string[] = []
    const spy = vi.spyOn(process, 'emitWarning').mockImplementation((text) => void warnings.push(String(text)))
    const model = await newModel().to({ dtype })
    const toDtype = (samples: Parameters<typeof collate>[0]) => {
      const batch = collate(samples)
      return { ...batch, x: batch.x.to({ dtype }) }
    }
    try {
      await train({ maxSteps: 1 }, { model, collate: toDtype })
    } finally {
      spy.mockRestore()
    }
    const own = warnings.filter((text) => text.includes('float16'))
    expect(own).toHaveLength(count === 0 ? 0 : 1)
    if (count > 0) expect(own[0]).toMatch(new RegExp(`^Trainer: ${count} trainable parameters .* hidden\\.weight`))
  })
})

describe('optim', () => {
  const args = { learningRate: 0.01, weightDecay: 0.1, adamBeta1: 0.8, adamBeta2: 0.95, adamEpsilon: 1e-6 }
  const adam = { betas: [0.8, 0.95] as [number, number], eps: 1e-6 }
  const byHand: Record<
    // Muon's is in muon.test.ts.
    Exclude<NonNullable<vt.TrainingArguments['optim']>, 'muon'>,
    (groups: ReturnType<typeof vt.parameterGroups>) => object
  > = {
    adamw_torch: (groups) => new vt.AdamW(groups, { lr: 0.01, ...adam }),
    adamw_torch_fused: (groups) => new vt.AdamW(groups, { lr: 0.01, ...adam }),
    adamw_8bit: (groups) => new vt.AdamW8bit(groups, { lr: 0.01, ...adam }),
    adamw_bnb_8bit: (groups) => new vt.AdamW8bit(groups, { lr: 0.01, ...adam }),
    lion_32bit: (groups) => new vt.Lion(groups, { lr: 0.01, betas: adam.betas }),
    sgd: (groups) => new vt.SGD(groups, { lr: 0.01 }),
    adagrad: (groups) => new vt.Adagrad(groups, { lr: 0.01 }),
    rmsprop: (groups) => new vt.RMSprop(groups, { lr: 0.01 }),
    adafactor: (groups) => new vt.TransformersAdafactor(groups, { lr: 0.01, scaleParameter: false }),
  }
  it.each(Object.keys(byHand) as (keyof typeof byHand)[])('%s is the optimiser of that name', async (optim) => {
    const named = await train({ ...args, optim, maxSteps: 6 }, { model: newModel() })
    const model = newModel()
    const optimizer = byHand[optim](vt.parameterGroups(model, { weightDecay: 0.1 })) as vt.AdamW
    const own = await train({ ...args, maxSteps: 6 }, { model, optimizers: { optimizer } })
    expect(weights(named.model)).toEqual(weights(own.model))
    optimizer.dispose()
  })

  it('steps bfloat16 weights in float32 copies, unless told otherwise', async () => {
    const small = { learningRate: 1e-5, lrSchedulerType: 'constant' as const, maxSteps: 8 }
    const half = () => newModel(0).to({ dtype: 'bfloat16' })
    const halfCollate = (samples: Parameters<typeof collate>[0]) => {
      const batch = collate(samples)
      return { ...batch, x: batch.x.to('bfloat16') }
    }
    const start = weights(half())
    const without = await train({ ...small, masterWeights: false }, { model: half(), collate: halfCollate })
    const kept = await train(small, { model: half(), collate: halfCollate })
    const moved = (trainer: typeof kept) =>
      Object.entries(weights(trainer.model)).filter(
        ([name, value]) => JSON.stringify(value) !== JSON.stringify(start[name]),
      ).length
    expect(moved(kept)).toBeGreaterThan(moved(without))
  })
})

describe('accumulation', () => {
  // A third of the labels do not count, so batches of one window differ in what they weigh.
  const some = trainSamples.map((sample, i) => (i % 3 === 0 ? { ...sample, labels: -100 } : sample))

  it('weighs each batch by its targets: four batches of two are one of eight', async () => {
    const whole = await train({}, { model: newModel(0), trainDataset: some })
    const parts = await train(
      { perDeviceTrainBatchSize: 2, gradientAccumulationSteps: 4 },
      { model: newModel(0), trainDataset: some },
    )
    expect(parts.state.globalStep).toBe(8)
    const [a, b] = [whole, parts].map(({ state }) => column(state.logHistory, 'loss'))
    expect(a!.length).toBe(8)
    for (const [i, loss] of a!.entries()) expect(Math.abs(b![i]! / loss - 1)).toBeLessThan(2e-6)
    for (const [name, value] of Object.entries(whole.model.stateDict())) {
      expectClose(parts.model.stateDict()[name]!, value, 1e-5, name)
    }
  })

  it('leaves out a batch without targets, and counts a step without any', async () => {
    const none = trainSamples.slice(0, 8).map((sample) => ({ ...sample, labels: -100 }))
    const before = weights(newModel(0))
    const trainer = await train({ maxSteps: 2, perDeviceTrainBatchSize: 4 }, { model: newModel(0), trainDataset: none })
    expect(column(trainer.state.logHistory, 'loss')).toEqual([0, 0])
    expect(weights(trainer.model)).toEqual(before)
  })

  it('asks countItems what a batch weighs', async () => {
    // Only the first of each two batches counts.
    let turn = 0
    const counted = await train(
      { perDeviceTrainBatchSize: 4, gradientAccumulationSteps: 2, maxSteps: 1 },
      { model: newModel(0), countItems: () => (turn++ % 2 === 0 ? 5 : 0) },
    )
    const first = await train({ perDeviceTrainBatchSize: 4, maxSteps: 1 }, { model: newModel(0) })
    expect(counted.state.logHistory).toMatchObject([{ loss: first.state.logHistory[0]!.loss }])
    expect(weights(counted.model)).toEqual(weights(first.model))
  })

  it('makes a step of what is left at the end of an epoch', async () => {
    const { state } = await train({ gradientAccumulationSteps: 3 })
    expect(state.logHistory.map(({ step, epoch }) => [step, epoch])).toEqual([
      ...[
        [1, 0.75],
        [2, 1],
        [3, 1.75],
        [4, 2],
      ],
    ])
  })
})

describe('length', () => {
  it.each([
    [{ numTrainEpochs: 1.5 }, 6, 1.5],
    [{ maxSteps: 3 }, 3, 0.75],
    [{ maxSteps: 9, numTrainEpochs: 1 }, 9, 2.25],
    [{ dataloaderDropLast: true, perDeviceTrainBatchSize: 5 }, 12, 2],
    [{ perDeviceTrainBatchSize: 5 }, 14, 2],
  ])('%j makes %d steps, %d epochs', async (args, steps, epochs) => {
    const { state } = await train(args)
    expect([state.globalStep, state.epoch]).toEqual([steps, epochs])
  })
})

describe('the learning rate', () => {
  const rates = async (args: Partial<vt.TrainingArguments>) =>
    column((await train({ learningRate: 1, maxGradNorm: 0, ...args })).state.logHistory, 'learningRate')
  it('follows each schedule', async () => {
    expect(await rates({})).toEqual([8, 7, 6, 5, 4, 3, 2, 1].map((left) => left / 8))
    expect(await rates({ lrSchedulerType: 'constant' })).toEqual(Array(8).fill(1))
    expect(await rates({ lrSchedulerType: 'constant_with_warmup', warmupSteps: 2 })).toEqual([
      0,
      0.5,
      ...Array(6).fill(1),
    ])
    expect(await rates({ warmupRatio: 0.5, warmupSteps: 0 })).toEqual([0, 0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25])
    const cosine = await rates({ lrSchedulerType: 'cosine' })
    for (const [i, rate] of cosine.entries()) expect(rate).toBeCloseTo(0.5 * (1 + Math.cos((Math.PI * i) / 8)), 12)
  })

  it('is that of an optimiser and a schedule of the caller', async () => {
    const model = newModel()
    const optimizer = new vt.SGD(model.parameters(), { lr: 0.5 })
    const scheduler = new vt.LRScheduler(optimizer, (step) => 1 / (1 + step))
    const { state } = await train({ maxSteps: 3 }, { model, optimizers: { optimizer, scheduler } })
    expect(column(state.logHistory, 'learningRate')).toEqual([0.5, 0.25, 0.5 / 3])
  })
})

describe('logging, evaluating, saving', () => {
  it('come when their strategies say', async () => {
    const outputDir = folder('when')
    const { state } = await train(
      {
        outputDir,
        loggingSteps: 3,
        loggingFirstStep: true,
        evalStrategy: 'steps',
        evalSteps: 0.5,
        saveStrategy: 'epoch',
      },
      { computeMetrics: accuracy },
    )
    expect(state.logHistory.map(({ step, ...values }) => [step, Object.keys(values).slice(1)])).toEqual([
      [1, ['loss', 'gradNorm', 'learningRate']],
      [3, ['loss', 'gradNorm', 'learningRate']],
      [4, ['evalLoss', 'evalAccuracy']],
      [6, ['loss', 'gradNorm', 'learningRate']],
      [8, ['evalLoss', 'evalAccuracy']],
    ])
    expect(checkpoints(outputDir)).toEqual([4, 8])
  })

  it('give the mean of the losses since the log before, and of all', async () => {
    const each = column((await train({})).state.logHistory, 'loss')
    const trainer = newTrainer({ outputDir: folder('mean'), saveStrategy: 'no', loggingStrategy: 'epoch' })
    const { trainingLoss, state } = await trainer.train()
    const mean = (list: number[]) => list.reduce((sum, value) => sum + value) / list.length
    const logged = column(state.logHistory, 'loss')
    expect(logged.length).toBe(2)
    for (const [i, loss] of logged.entries()) expect(loss).toBeCloseTo(mean(each.slice(4 * i, 4 * i + 4)), 12)
    expect(trainingLoss).toBeCloseTo(mean(each), 12)
    trainer.dispose()
  })

  it('keeps saveTotalLimit checkpoints, the last one among them', async () => {
    const outputDir = folder('limit')
    await train({ outputDir, saveStrategy: 'steps', saveSteps: 3, saveTotalLimit: 2 })
    expect(checkpoints(outputDir)).toEqual([6, 8])
  })

  const worsening = () => {
    // Evaluation is best at step 4.
    const values = [0.5, 0.8, 0.6, 0.7, 0.6, 0.5, 0.4, 0.3]
    return { computeMetrics: () => ({ score: values.shift()! }) }
  }
  const best = { evalStrategy: 'steps', evalSteps: 2, metricForBestModel: 'score' } as const

  it('keeps the best beside a limit of one, and puts its weights back', async () => {
    const outputDir = folder('best')
    const { model, state } = await train(
      { outputDir, ...best, saveStrategy: 'steps', saveSteps: 2, saveTotalLimit: 1, loadBestModelAtEnd: true },
      worsening(),
    )
    expect(checkpoints(outputDir)).toEqual([4, 8])
    expect(state).toMatchObject({ bestMetric: 0.8, bestStep: 4, bestCheckpoint: 'checkpoint-4', globalStep: 8 })
    const { tensors } = await vt.loadSafetensors(join(outputDir, 'checkpoint-4/model.safetensors'))
    for (const [name, value] of Object.entries(model.stateDict())) expectClose(value, tensors[name]!, 0, name)
  })

  it("saves only what is better than all before with 'best'", async () => {
    const outputDir = folder('onlybest')
    await train({ outputDir, ...best, saveStrategy: 'best' }, worsening())
    expect(checkpoints(outputDir)).toEqual([2, 4])
  })

  it('stops when nothing was better for too long, and goes on when given more patience', async () => {
    const outputDir = folder('patience')
    const args = { outputDir, ...best, saveStrategy: 'steps', saveSteps: 2, numTrainEpochs: 4 } as const
    const { state } = await train({ ...args, earlyStoppingPatience: 2 }, worsening())
    expect(state).toMatchObject({ globalStep: 8, maxSteps: 16, stopped: true })
    expect((await train({ ...args, earlyStoppingPatience: 2 }, worsening())).state.globalStep).toBe(8)
    expect((await train({ ...args, earlyStoppingPatience: 9 }, worsening())).state.globalStep).toBe(16)
    const slow = {
      computeMetrics: (() => {
        let x = 0
        return () => ({ score: (x += 0.01) })
      })(),
    }
    const few = await train({ ...best, numTrainEpochs: 4, earlyStoppingPatience: 3, earlyStoppingThreshold: 0.1 }, slow)
    expect(few.state.globalStep).toBe(8)
  })

  it('names the metrics that there are', async () => {
    await expect(train({ ...best, saveStrategy: 'best' })).rejects.toThrow(
      "metricForBestModel: expected one of evalLoss, got 'score'",
    )
    await expect(train(best, { computeMetrics: () => ({ score: '1' }) as never })).rejects.toThrow(
      /score to be a number/,
    )
  })
})

describe('precision and loss', () => {
  it('runs the model under autocast with bf16', async () => {
    const dtypes = new Set<string>()
    const computeLoss = (model: Classifier, batch: Batch) => {
      dtypes.add(model.hidden.forward(batch.x).dtype)
      return model.forward(batch) as LossOutput
    }
    const half = await train({ bf16: true, evalStrategy: 'epoch' }, { computeLoss })
    expect([...dtypes]).toEqual(['bfloat16'])
    expect(half.model.hidden.weight.dtype).toBe('float32')
    await train({}, { computeLoss })
    expect([...dtypes]).toEqual(['bfloat16', 'float32'])
  })

  it('uses a scaler for fp16, and leaves the schedule where a step was skipped', async () => {
    const calls: string[] = []
    const scaler: TrainerScaler & { scale(loss: vt.Tensor): vt.Tensor } = {
      scale(loss) {
        calls.push('scale')
        return loss.mul(4)
      },
      unscale: (optimizer: TrainerOptimizer) => {
        calls.push('unscale')
        for (const { params } of optimizer.groups) for (const param of params) param.grad?.div_(4)
      },
      async step(optimizer: TrainerOptimizer) {
        const skipped = calls.length < 6
        calls.push(skipped ? 'skip' : 'step')
        if (!skipped) await optimizer.step()
        return !skipped
      },
      update: () => calls.push('update'),
      stateDict: () => ({ calls: calls.length }),
      loadStateDict: () => {},
    }
    const outputDir = folder('fp16')
    const { state } = await train(
      { outputDir, fp16: true, maxSteps: 4, saveStrategy: 'steps' },
      { optimizers: { scaler } },
    )
    expect(calls.slice(0, 8)).toEqual(['scale', 'unscale', 'skip', 'update', 'scale', 'unscale', 'step', 'update'])
    expect(column(state.logHistory, 'learningRate')).toEqual([0.02, 0.02, 0.015, 0.01])
    const saved = JSON.parse(readFileSync(join(outputDir, 'checkpoint-4/training.json'), 'utf8'))
    expect(saved.scaler).toEqual({ calls: 16 })
  })

  it('makes a scaler of its own for fp16, and keeps its state', async () => {
    const outputDir = folder('fp16-own')
    const { state } = await train({ outputDir, fp16: true, maxSteps: 4, saveStrategy: 'steps' })
    const losses = column(state.logHistory, 'loss').filter((loss) => loss !== undefined) as number[]
    expect(losses.every(Number.isFinite)).toBe(true)
    const saved = JSON.parse(readFileSync(join(outputDir, 'checkpoint-4/training.json'), 'utf8'))
    expect(saved.scaler).toMatchObject({ growth_interval: 2000, scale: expect.any(Number) })
  })

  it('takes every schedule of getScheduler, with its options', async () => {
    const { state } = await train({
      lrSchedulerType: 'cosine_with_min_lr',
      lrSchedulerKwargs: { minLrRate: 0.5 },
      maxSteps: 4,
    })
    const rates = column(state.logHistory, 'learningRate') as number[]
    expect(rates.at(-1)).toBeGreaterThanOrEqual(0.5 * rates[0]!)
    await expect(train({ lrSchedulerKwargs: { minLrRate: 0.5 }, maxSteps: 1 })).rejects.toThrow(
      /expected an option of the schedule 'linear' .*, got 'minLrRate'/,
    )
  })

  it('turns gradient checkpointing on in native networks, wherever they are in a model', () => {
    class Wrapped extends vt.Module {
      encoder = new vt.Roberta({
        vocabSize: 20,
        hiddenSize: 8,
        numHiddenLayers: 1,
        numAttentionHeads: 2,
        intermediateSize: 8,
      })
    }
    const turn = vi.spyOn(vt.Roberta.prototype, 'gradientCheckpointing')
    const model = new Wrapped()
    newTrainer({ outputDir: folder('native'), gradientCheckpointing: true }, { model: model as never })
    expect(turn.mock.contexts).toEqual([model.encoder])
    expect(turn.mock.calls).toEqual([[true]])
    turn.mockClear()
    newTrainer({ outputDir: folder('native') }, { model: model as never })
    expect(turn).not.toHaveBeenCalled()
    turn.mockRestore()
  })

  it('turns gradient checkpointing on', () => {
    const model = newModel() as Classifier & { gradientCheckpointingEnable?: () => void }
    let on = 0
    Object.defineProperty(model, 'gradientCheckpointingEnable', { value: () => on++ })
    newTrainer({ outputDir: folder('x'), gradientCheckpointing: true }, { model })
    expect(on).toBe(1)
  })

  it('smooths labels as the loss function does', async () => {
    const smoothed = await train({ labelSmoothingFactor: 0.2 })
    const byHand = await train(
      {},
      {
        computeLoss(model, batch) {
          const { logits } = model.forward(batch)
          return vt.functional.crossEntropy(logits, batch.labels, { labelSmoothing: 0.2 })
        },
      },
    )
    expect(smoothed.state.logHistory).toEqual(byHand.state.logHistory)
  })

  it('clips by maxGradNorm, and not at all with 0', async () => {
    const sizes: number[] = []
    const callbacks: vt.TrainerCallback[] = [{ onOptimizerStep: ({ model }) => void sizes.push(norm(model)) }]
    const clipped = await train({ maxGradNorm: 0.01 }, { callbacks })
    for (const size of sizes.splice(0)) expect(size).toBeLessThan(0.010001)
    for (const size of column(clipped.state.logHistory, 'gradNorm')) expect(size).toBeGreaterThan(0.05)
    const free = await train({ maxGradNorm: 0 }, { callbacks })
    for (const size of sizes) expect(size).toBeGreaterThan(0.05)
    expect(column(free.state.logHistory, 'gradNorm')).toEqual([])
  })
})

const norm = (model: vt.Module) =>
  Math.hypot(...model.parameters().map((p) => vt.scope(() => Number(p.grad!.linalgVectorNorm().item()))))

describe('data', () => {
  it('is read in batches of like length with groupByLength', async () => {
    const rows = Array.from({ length: 64 }, (_, i) => ({ inputIds: Array(1 + ((i * 7) % 16)).fill(1), labels: i % 2 }))
    class Bag extends vt.Module {
      words = new vt.Embedding(2, 2)
      override forward({ inputIds, labels }: Record<string, vt.Tensor>) {
        return { loss: vt.functional.crossEntropy(this.words.forward(inputIds!).sum([1]), labels!) }
      }
    }
    const waste = async (groupByLength: boolean) => {
      let padded = 0
      const pad = vt.padCollate({ inputIds: { pad: 0 }, labels: {} })
      const trainer = new vt.Trainer({
        model: new Bag(),
        trainDataset: rows,
        collate(samples: typeof rows) {
          padded += samples.length * Math.max(...samples.map((s) => s.inputIds.length))
          return pad(samples)
        },
        args: {
          outputDir: folder(`group${groupByLength}`),
          maxSteps: 8,
          saveStrategy: 'no',
          reportTo: 'none',
          groupByLength,
        },
      })
      await trainer.train()
      trainer.dispose()
      return padded / rows.reduce((sum, { inputIds }) => sum + inputIds.length, 0)
    }
    expect(await waste(false)).toBeGreaterThan(1.5)
    expect(await waste(true)).toBeLessThan(1.1)
  })

  it('may be a DataLoader, and may be of unknown length', async () => {
    const options = { batchSize: 8, shuffle: true, seed: 42, collate, freeBatches: false }
    const same = await train({ gradientAccumulationSteps: 2 })
    const loader = new vt.DataLoader(trainSamples, options)
    const own = await train({ gradientAccumulationSteps: 2 }, { trainDataset: loader })
    expect(own.state.logHistory).toEqual(same.state.logHistory)
    const sampler = function* () {
      for (let i = 0; i < 16; i++) yield i
    }
    const unknown = new vt.DataLoader(trainSamples, { batchSize: 8, collate, sampler })
    await expect(train({}, { trainDataset: unknown })).rejects.toThrow(/maxSteps: expected a number of steps/)
    expect((await train({ maxSteps: 5 }, { trainDataset: unknown })).state).toMatchObject({
      globalStep: 5,
      epochIndex: 2,
    })
  })
})

describe('evaluate and predict', () => {
  it('weigh by targets, in evaluation mode, and leave the mode as it was', async () => {
    const model = newModel(0.5)
    model.train()
    model.norm.eval()
    const trainer = newTrainer(
      { outputDir: folder('x'), perDeviceEvalBatchSize: 5 },
      { model, computeMetrics: accuracy },
    )
    const metrics = await trainer.evaluate()
    expect([model.training, model.norm.training, model.dropout.training]).toEqual([true, false, true])
    model.eval()
    const { logits, loss } = vt.noGrad(() => model.forward(collate(evalSamples)))
    expect(metrics.evalLoss).toBeCloseTo(Number(loss!.item()), 6)
    const guesses = logits.argmax(1).toArray() as number[]
    expect(metrics.evalAccuracy).toBe(
      vt.accuracy(
        evalSamples.map(({ labels }) => labels),
        guesses,
      ),
    )
    const { predictions, labels, metrics: same } = await trainer.predict(evalSamples)
    expectClose(predictions, logits, 1e-6)
    expect(labels!.toArray()).toEqual(evalSamples.map(({ labels }) => labels))
    expect(same).toEqual(metrics)
    const short = newTrainer({ outputDir: folder('x') }, { model, preprocessLogits: (logits) => logits.argmax(1) })
    expect((await short.predict(evalSamples)).predictions.toArray()).toEqual(guesses)
  })

  it('takes data without labels, and rows of any length', async () => {
    class Tagger extends vt.Module {
      words = new vt.Embedding(10, 3)
      override forward({ ids }: { ids: vt.Tensor }) {
        return this.words.forward(ids) // [batch, length, 3]
      }
    }
    const model = new Tagger()
    const trainDataset = [[1, 2, 3], [4], [5, 6]].map((ids) => ({ ids }))
    const trainer = new vt.Trainer({
      model,
      trainDataset,
      collate: vt.padCollate({ ids: { pad: 0 } }),
      args: { outputDir: folder('x'), perDeviceEvalBatchSize: 1 },
    })
    const { predictions, labels, metrics } = await trainer.predict(trainDataset)
    expect([predictions.shape, labels, metrics]).toEqual([[3, 3, 3], null, {}])
    const row = (i: number) => (predictions.toArray() as number[][][])[i]!
    expect(row(1).slice(1)).toEqual([
      [-100, -100, -100],
      [-100, -100, -100],
    ])
    expect(row(2)[1]).toEqual(vt.scope(() => model.words.weight.select(0, 6).toArray()))
  })

  it('saves the model for fromPretrained', async () => {
    const trainer = newTrainer({ outputDir: folder('saved') })
    await trainer.saveModel()
    const loaded = await vt.loadPretrained(folder('saved'), () => newModel())
    expect(weights(loaded)).toEqual(weights(trainer.model))
    const own = Object.assign(newModel(), { save: async (path: string) => void saved.push(path) })
    const saved: string[] = []
    await newTrainer({ outputDir: folder('x') }, { model: own as Classifier }).saveModel('somewhere')
    expect(saved).toEqual(['somewhere'])
  })
})

describe('callbacks', () => {
  it('see every event in its order, and are awaited', async () => {
    const events: string[] = []
    const names =
      'onTrainBegin onEpochBegin onStepBegin onPreOptimizerStep onOptimizerStep onStepEnd onLog onEvaluate onSave onEpochEnd onTrainEnd'
    const callback = Object.fromEntries(
      names.split(' ').map((name) => [
        name,
        async ({ state }: vt.CallbackContext) => {
          await new Promise((resolve) => setTimeout(resolve, 1))
          events.push(`${name.slice(2)} ${state.globalStep}`)
        },
      ]),
    ) as vt.TrainerCallback
    await train({ maxSteps: 2, evalStrategy: 'steps', saveStrategy: 'steps', evalSteps: 2 }, { callbacks: [callback] })
    expect(events).toEqual(
      `TrainBegin 0,EpochBegin 0,StepBegin 0,PreOptimizerStep 0,OptimizerStep 0,StepEnd 1,Log 1,StepBegin 1,PreOptimizerStep 1,OptimizerStep 1,StepEnd 2,Log 2,Log 2,Evaluate 2,Save 2,EpochEnd 2,TrainEnd 2`.split(
        ',',
      ),
    )
  })

  it('may stop, end an epoch, log, evaluate and save', async () => {
    const outputDir = folder('control')
    const callbacks: vt.TrainerCallback[] = [
      {
        onStepEnd({ state, control }) {
          if (state.globalStep === 2) control.shouldEpochStop = true
          if (state.globalStep === 3) control.shouldSave = control.shouldLog = true
          if (state.globalStep === 4) control.shouldEvaluate = true
          if (state.globalStep === 5) control.shouldStop = true
        },
      },
    ]
    const { state } = await train({ outputDir, loggingStrategy: 'no' }, { callbacks })
    expect(state).toMatchObject({ globalStep: 5, epochIndex: 1, batchInEpoch: 3 })
    expect(state.logHistory.map((entry) => [entry.step, Object.keys(entry)[2]])).toEqual([
      [3, 'loss'],
      [4, 'evalLoss'],
    ])
    expect(checkpoints(outputDir)).toEqual([3])
  })

  it('end the training with what they throw, and leave no half checkpoint', async () => {
    const outputDir = folder('throws')
    const broken = { stateDict: () => ({ f: () => 1 }), loadStateDict: () => {} }
    const options = { extraState: { broken } }
    await expect(train({ outputDir, saveStrategy: 'steps' }, options)).rejects.toThrow(vt.DataError)
    expect(existsSync(outputDir) ? readdirSync(outputDir) : []).toEqual([])
    const callbacks = [{ onStepEnd: () => Promise.reject(new RangeError('mine')) }]
    await expect(train({}, { callbacks })).rejects.toThrow(RangeError)
    expect(process.listenerCount('SIGTERM')).toBe(0)
  })
})
