import { describe, expect, it } from 'vitest'
import * as vt from '../../../lib/index.js'
import { settledTensors } from '../../helpers.js'
import { accuracy, collate, newModel, newTrainer, temporary, trainSamples, weights } from './small.js'

const folder = temporary()

describe('train', () => {
  it('does what the loop by hand does, bit for bit', async () => {
    const trainer = newTrainer({
      outputDir: folder('hand'),
      seed: 5,
      warmupSteps: 2,
      weightDecay: 0.1,
      adamBeta2: 0.98,
    })
    const { globalStep, state } = await trainer.train()
    expect(globalStep).toBe(8)

    const model = newModel()
    vt.manualSeed(5)
    const named = model.namedParameters()
    const [decayed, others] = [named.filter(([, p]) => p.ndim > 1), named.filter(([, p]) => p.ndim === 1)]
    const optimizer = new vt.AdamW(
      [
        { params: decayed.map(([, p]) => p), weightDecay: 0.1 },
        { params: others.map(([, p]) => p), weightDecay: 0 },
      ],
      { lr: 0.02, betas: [0.9, 0.98] },
    )
    const schedule = vt.getLinearScheduleWithWarmup(optimizer, { numWarmupSteps: 2, numTrainingSteps: 8 })
    const loader = new vt.DataLoader(trainSamples, { batchSize: 8, shuffle: true, seed: 5, collate })
    const logged: object[] = []
    for (let epoch = 0; epoch < 2; epoch++) {
      for await (const batch of loader) {
        await vt.scope(async () => {
          const { loss } = model.forward(batch)
          await loss!.backward()
          const gradNorm = await vt.clipGradNorm(
            optimizer.groups.flatMap(({ params }) => params),
            1,
          )
          const learningRate = optimizer.groups[0]!.lr
          await optimizer.step()
          schedule.step()
          optimizer.zeroGrad()
          const step = logged.length + 1
          logged.push({ step, epoch: step / 4, loss: loss!.item(), gradNorm, learningRate })
        })
      }
    }
    expect(state.logHistory).toEqual(logged)
    expect(weights(trainer.model)).toEqual(weights(model))
    trainer.dispose()
  })

  it('leaves nothing behind, and lets other work in between', async () => {
    await settledTensors()
    const before = vt.memoryStats()
    let turns = 0
    const timer = setInterval(() => turns++, 0)
    const run = async (name: string) => {
      const trainer = newTrainer(
        {
          outputDir: folder(name),
          evalStrategy: 'steps',
          evalSteps: 2,
          saveSteps: 2,
          saveTotalLimit: 1,
          loadBestModelAtEnd: true,
          gradientAccumulationSteps: 2,
          numTrainEpochs: 4,
          labelSmoothingFactor: 0.1,
          bf16: true,
          groupByLength: true,
          reportTo: 'all',
        },
        { computeMetrics: accuracy, lengthOf: ({ x }) => x.length },
      )
      await trainer.train()
      await trainer.evaluate()
      const { predictions, labels } = await trainer.predict(trainSamples)
      predictions.dispose()
      labels!.dispose()
      trainer.dispose()
      trainer.model.dispose()
    }
    await run('leak')
    clearInterval(timer)
    expect(turns).toBeGreaterThan(8)
    expect(vt.memoryStats()).toMatchObject({
      liveTensors: before.liveTensors,
      liveScopes: before.liveScopes,
      queuedJobs: 0,
    })
    // Again, from its last checkpoint.
    await run('leak')
    expect(vt.memoryStats().liveTensors).toBe(before.liveTensors)
  })
})
