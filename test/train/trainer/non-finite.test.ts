import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import * as vt from '../../../lib/index.js'
import { type Batch, type Classifier, newModel, newTrainer, temporary, weights } from './small.js'

const folder = temporary()
const BAD = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY] as const

/** The loss, multiplied by `factor` from its call number `from` on. */
const lossTimes = (factor: number, from: number) => {
  let calls = 0
  return (model: Classifier, batch: Batch) => {
    const loss = model.forward(batch).loss as vt.Tensor
    return ++calls >= from ? loss.mul(factor) : loss
  }
}
/** A finite loss whose gradient of the output's bias is 1 / 0 from step `from` on. */
const steepLoss = (from: number) => {
  let calls = 0
  return (model: Classifier, batch: Batch) => {
    const loss = model.forward(batch).loss as vt.Tensor
    const bias = model.out.bias as vt.Tensor
    return ++calls >= from ? loss.add(bias.sub(bias.detach()).sum().sqrt()) : loss
  }
}
const spoil = (model: Classifier, value: number) => {
  vt.noGrad(() => vt.scope(() => void (model.hidden.weight as vt.Tensor).at(0, 0).fill_(value)))
  return model
}
async function failure(trainer: { train(): Promise<unknown>; dispose(): void }): Promise<vt.NonFiniteError> {
  const error = await trainer.train().then(
    () => undefined,
    (thrown) => thrown,
  )
  trainer.dispose()
  expect(error).toBeInstanceOf(vt.NonFiniteError)
  return error
}

const warned: string[] = []
const listen = (warning: Error) => void (warning.name === 'TrainerWarning' && warned.push(warning.message))
process.on('warning', listen)
afterEach(() => void (warned.length = 0))
const settled = () => new Promise((resolve) => setImmediate(resolve))

describe('a training with numbers that are not finite', () => {
  it.each(BAD)('stops at a loss of %d, before a weight changes', async (factor) => {
    const model = newModel()
    const before: unknown[] = []
    const trainer = newTrainer(
      { outputDir: folder(`loss ${factor}`), saveSteps: 2 },
      {
        model,
        computeLoss: lossTimes(factor, 4),
        callbacks: [{ onStepEnd: () => void before.splice(0, 1, weights(model)) }],
      },
    )
    const error = await failure(trainer)
    expect(error).toMatchObject({ step: 4, code: 'ERR_NON_FINITE', tensor: expect.stringMatching(/weight|bias/) })
    expect(error.message).toMatch(
      new RegExp(
        `^Trainer, step 4: expected finite numbers, got a loss of ${factor}, gradients with (NaN|Infinity) in .* and in \\d more\\.`,
      ),
    )
    expect(weights(model)).toEqual(before[0])
    expect(existsSync(folder(`loss ${factor}/checkpoint-2`))).toBe(true)
    expect(existsSync(folder(`loss ${factor}/checkpoint-4`))).toBe(false)
  })

  it.each([0, 1])('stops at a gradient, clipped to a norm of %d', async (maxGradNorm) => {
    const outputDir = folder(`gradient ${maxGradNorm}`)
    const trainer = newTrainer({ outputDir, maxGradNorm }, { computeLoss: steepLoss(3) })
    const error = await failure(trainer)
    expect(error).toMatchObject({ step: 3, tensor: 'out.bias' })
    expect(error.message).toMatch(
      /step 3: expected finite numbers, got gradients with (NaN|Infinity) in out\.bias\. Look/,
    )
  })

  it.each(BAD)('stops at a weight of %d, and names it', async (value) => {
    const trainer = newTrainer({ outputDir: folder(`weight ${value}`) }, { model: spoil(newModel(), value) })
    const error = await failure(trainer)
    expect(error).toMatchObject({ step: 1, tensor: 'hidden.weight' })
    const shown = Number.isNaN(value) ? 'NaN' : 'Infinity'
    expect(error.message).toContain(`weights with ${shown} in hidden.weight. Load other weights.`)
  })

  it('saves no weight that took no part in the loss and is not finite', async () => {
    class Wider extends vt.Module {
      inner = newModel()
      unused = new vt.Parameter(vt.tensor([1, Number.NaN]))
      override forward(batch: Batch) {
        return this.inner.forward(batch)
      }
    }
    const outputDir = folder('unused')
    const trainer = newTrainer({ outputDir, saveSteps: 2 }, { model: new Wider() as never })
    const error = await failure(trainer)
    expect(error).toMatchObject({ step: 2, tensor: 'unused' })
    expect(error.message).toContain('expected finite weights to save, got NaN in unused. checkpoint-2 was not written.')
    expect(existsSync(join(outputDir, 'checkpoint-2'))).toBe(false)
    await expect(trainer.saveModel(folder('model'))).rejects.toThrow(/NaN in unused\. .*model was not written/)
    expect(existsSync(folder('model'))).toBe(false)
  })

  it('goes on with one warning for a series, where it is asked to, and one for each save', async () => {
    const outputDir = folder('warned')
    const trainer = newTrainer(
      { outputDir, maxSteps: 4, saveSteps: 2, onNonFinite: 'warn' },
      { computeLoss: lossTimes(Number.NaN, 2) },
    )
    const { globalStep } = await trainer.train()
    await trainer.saveModel(folder('warned model'))
    await settled()
    trainer.dispose()
    expect(globalStep).toBe(4)
    expect(warned).toEqual([
      expect.stringMatching(/^Trainer, step 2: expected finite numbers, got a loss of NaN/),
      expect.stringMatching(
        /^Trainer, step 2: expected finite weights to save, got NaN in .*checkpoint-2 holds them\.$/,
      ),
      expect.stringMatching(/^Trainer, step 4: expected finite weights to save, .*checkpoint-4 holds them\.$/),
      expect.stringMatching(/^Trainer, step 4: expected finite weights to save, .*warned model holds them\.$/),
    ])
  })

  it('leaves overflown gradients to the scaler of fp16, until the scale has fallen to 1', async () => {
    const scales: number[] = []
    const scaler = new vt.GradScaler({ initScale: 2 ** 6 })
    const steps = { overflowing: 0 }
    const trainer = (outputDir: string, last: number) =>
      newTrainer(
        { outputDir: folder(outputDir), fp16: true, saveStrategy: 'no', maxSteps: 12 },
        {
          optimizers: { scaler },
          computeLoss: (model, batch) => {
            const loss = model.forward(batch).loss as vt.Tensor
            // 1 / 0 in the gradient, of a finite loss.
            const bias = model.out.bias as vt.Tensor
            return steps.overflowing++ < last ? loss.add(bias.sub(bias.detach()).sum().sqrt()) : loss
          },
          callbacks: [{ onStepEnd: () => void scales.push(scaler.getScale()) }],
        },
      )
    const fine = trainer('scaled', 4)
    expect((await fine.train()).globalStep).toBe(12)
    fine.dispose()
    expect(scales.slice(0, 5)).toEqual([32, 16, 8, 4, 4])
    scales.length = 0
    steps.overflowing = 0
    const error = await failure(trainer('fallen', Number.POSITIVE_INFINITY))
    // 4, 2, 1, and at 1 it is none of the scale's doing.
    expect(scales).toEqual([2, 1])
    expect(error).toMatchObject({ step: 3, tensor: 'out.bias' })
  })

  it('never takes NaN for the best metric', async () => {
    let evaluations = 0
    const trainer = newTrainer(
      {
        outputDir: folder('best'),
        evalStrategy: 'epoch',
        saveStrategy: 'best',
        metricForBestModel: 'score',
        greaterIsBetter: true,
      },
      { computeMetrics: () => ({ score: [Number.NaN, 0.25][evaluations++] as number }) },
    )
    const { state } = await trainer.train()
    trainer.dispose()
    expect([state.bestMetric, state.bestStep]).toEqual([0.25, 8])
  })
})
