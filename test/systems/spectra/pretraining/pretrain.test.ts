import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import * as vt from '../../../../lib/index.js'
import * as spectra from '../../../../lib/systems/spectra/index.js'
import { settledTensors } from '../../../helpers.js'
import { letters, sine, temporary, writeClip } from './helpers.js'

const folder = temporary()
const [VOCABULARY, MASK] = [40, 39]
const mlm = { vocabSize: VOCABULARY, maskId: MASK }

/** A small network that has what SPECTRA's has: words and sound in, four losses out. */
class StandIn extends vt.Module {
  words = new vt.Embedding(VOCABULARY, 16)
  types = new vt.Embedding(2, 16)
  sound = new vt.Conv1d(1, 16, 400, { stride: 320 })
  dropout = new vt.Dropout(0.1)
  vocabulary = new vt.Linear(16, VOCABULARY)
  frame = new vt.Linear(16, 16)
  choice = new vt.Linear(32, 2)
  times = new vt.Linear(16, 2)

  frameCounts(samples: number[]): number[] {
    return samples.map((count) => Math.max(0, Math.floor((count - 400) / 320) + 1))
  }

  override forward(batch: spectra.SpectraPretrainingBatch): Record<string, vt.Tensor> {
    return vt.scope(() => {
      const [examples, length] = batch.mlmLabels.shape as [number, number]
      const sound = this.sound.forward(batch.inputValues.unsqueeze(1)).transpose(1, 2) // [3B, F, 16]
      const zeroed = batch.mamMask.eq(1).unsqueeze(-1)
      const heard = sound.maskedFill(zeroed, 0)
      const clips = heard.mean([1]).reshape([examples, 3, 16])
      const context = clips.select(1, 0).add(clips.select(1, 1)).unsqueeze(1) // [B, 1, 16]
      const text = this.words.forward(batch.inputIds).add(this.types.forward(batch.tokenTypeIds))
      const pairs = this.dropout.forward(text).reshape([examples, 2, length, 16])
      const states = pairs.select(1, 0).add(context).tanh() // [B, L, 16]
      const mlmLoss = vt.functional.crossEntropy(
        this.vocabulary.forward(states).reshape([-1, VOCABULARY]),
        batch.mlmLabels.reshape([-1]),
      )
      const difference = this.frame.forward(heard).sub(sound.detach()).abs()
      const mamLoss = difference.mul(batch.mamMask.ne(0).unsqueeze(-1)).mean()
      const summary = vt.cat([pairs.mean([2]).select(1, 0), clips.select(1, 2)], 1)
      const answer = vt.zeros([examples], { dtype: 'int64' })
      const crsLoss = vt.functional.crossEntropy(this.choice.forward(summary), answer)
      const times = this.times.forward(states)
      const at = (mask: vt.Tensor, head: number) => times.select(-1, head).maskedSelect(mask)
      const tppLoss = vt.functional.mseLoss(
        vt.cat([at(batch.startMask, 0), at(batch.endMask, 1)]),
        vt.cat([batch.starts, batch.ends]),
      )
      return { loss: mlmLoss.add(mamLoss).add(crsLoss).add(tppLoss), mlmLoss, mamLoss, crsLoss, tppLoss }
    })
  }
}

const data = join(folder, 'data')
{
  const random = new vt.Random(2)
  const turns: spectra.SpectraDialogTurn[] = []
  for (let dialog = 0; dialog < 3; dialog++) {
    for (let turn = 0; turn < 5; turn++) {
      const wav = `${dialog}-${turn}.wav`
      await writeClip(join(folder, wav), sine(1 + 0.2 * turn, 150 + 50 * dialog + 20 * turn))
      const words = Array.from({ length: 5 }, (_, i) => ({
        word: ['abc', 'de', 'fgh', 'ij'][random.below(4)]!,
        start: i / 6,
        end: (i + 1) / 6,
      }))
      turns.push({ dialog: String(dialog), turn, wav, words })
    }
  }
  await spectra.prepareSpectraPretraining(turns, { output: data, tokenizer: letters, audioRoot: folder })
}

vt.setNumThreads(1)
const newModel = () => {
  vt.manualSeed(1)
  return new StandIn()
}
const options = (model: StandIn, outputDir: string, args: Partial<vt.TrainingArguments> = {}) => ({
  model,
  data,
  mlm,
  mam: { minSpan: 3, maxSpan: 6 },
  args: {
    outputDir,
    perDeviceTrainBatchSize: 4,
    gradientAccumulationSteps: 1,
    learningRate: 5e-3,
    numTrainEpochs: 4,
    loggingSteps: 1,
    saveStrategy: 'epoch' as const,
    reportTo: ['jsonl' as const],
    progress: false,
    ...args,
  },
})
const weights = (model: vt.Module) =>
  Object.fromEntries(model.namedParameters().map(([name, value]) => [name, value.toArray()]))
const logged = (run: string) =>
  readFileSync(join(run, 'metrics.jsonl'), 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
    .filter((row) => 'loss' in row)

describe('pretrainSpectra', () => {
  it('trains, tells the four losses, and goes on after a stop with the same weights and losses, bit for bit', async () => {
    const [straight, stopped] = [join(folder, 'straight'), join(folder, 'stopped')]
    const losses: spectra.SpectraLosses[] = []
    const whole = newModel()
    const { globalStep } = await spectra.pretrainSpectra({
      ...options(whole, straight),
      onLosses: (l) => losses.push(l),
    })
    expect(globalStep).toBe(12) // 12 examples in batches of 4, four times
    expect(losses.map(({ step }) => step)).toEqual(Array.from({ length: 12 }, (_, i) => i + 1))
    for (const { mlmLoss, mamLoss, crsLoss, tppLoss } of losses) {
      expect([mlmLoss, mamLoss, crsLoss, tppLoss].every(Number.isFinite)).toBe(true)
    }
    const rows = logged(straight)
    for (const [i, { mlmLoss, mamLoss, crsLoss, tppLoss }] of losses.entries()) {
      expect(rows[i].loss).toBeCloseTo(mlmLoss! + mamLoss! + crsLoss! + tppLoss!, 4)
    }

    const first = newModel()
    // Fails inside of the second epoch, after a checkpoint.
    const fail: vt.TrainerCallback = {
      onStepEnd: ({ state, control }) => {
        control.shouldSave = state.globalStep === 5
      },
      onStepBegin: ({ state }) => {
        if (state.globalStep === 6) throw new Error('the lamp went out')
      },
    }
    await expect(spectra.pretrainSpectra({ ...options(first, stopped), callbacks: [fail] })).rejects.toThrow(/lamp/)
    expect(logged(stopped)).toHaveLength(6)
    const second = newModel()
    await spectra.pretrainSpectra(options(second, stopped))
    expect(weights(second)).toEqual(weights(whole))
    expect(logged(stopped).map(({ step, loss }) => [step, loss])).toEqual(rows.map(({ step, loss }) => [step, loss]))
  })

  it('makes the loss fall, and leaves no tensor but the parameters', async () => {
    const model = newModel()
    const before = await settledTensors()
    const losses: spectra.SpectraLosses[] = []
    await spectra.pretrainSpectra({
      ...options(model, join(folder, 'falls'), { numTrainEpochs: 16, saveStrategy: 'no', learningRate: 2e-2 }),
      onLosses: (l) => losses.push(l),
    })
    const mean = (rows: spectra.SpectraLosses[], name: keyof spectra.SpectraLosses) =>
      rows.reduce((sum, row) => sum + (row[name] ?? 0), 0) / rows.length
    // The stand-in's frames grow with their labels, so that one loss tells nothing.
    for (const name of ['mlmLoss', 'crsLoss', 'tppLoss'] as const) {
      expect(mean(losses.slice(-12), name), name).toBeLessThan(0.8 * mean(losses.slice(0, 3), name))
    }
    for (const parameter of model.parameters()) parameter.grad?.dispose()
    expect(vt.memoryStats().liveTensors - before).toBeLessThanOrEqual(0)
  })

  it('refuses a model without frames or losses', async () => {
    const args = { outputDir: join(folder, 'no'), progress: false }
    await expect(spectra.pretrainSpectra({ model: new vt.Linear(1, 1) as never, data, args })).rejects.toThrow(
      /frameCounts/,
    )
    class NoLoss extends StandIn {
      override forward() {
        return {}
      }
    }
    await expect(spectra.pretrainSpectra({ model: new NoLoss(), data, mlm, args })).rejects.toThrow(
      /expected a loss from NoLoss\.forward\(\), got undefined/,
    )
  })
})
