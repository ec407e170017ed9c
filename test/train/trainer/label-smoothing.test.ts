import { describe, expect, it } from 'vitest'
import * as vt from '../../../lib/index.js'
import type * as salmonn from '../../../lib/systems/salmonn/index.js'
import { expectClose, fixture, settledTensors, tensorsOf } from '../../helpers.js'
import { camelKeys } from '../../models/networks.js'
import { clip, tinySalmonn } from '../../systems/salmonn/network/tiny.js'
import { temporary } from './small.js'

vt.setNumThreads(1)
const folder = temporary()
let runs = 0

interface Case {
  config: Record<string, unknown>
  factor: number
  batches: number
  items: number
}
type Batch = { inputIds: vt.Tensor; attentionMask: vt.Tensor; labels: vt.Tensor }
const reference = await fixture<Case>('train/label-smoothing')
const { config, factor, batches, items } = reference.cases[0] as Case
const given = tensorsOf(reference, 'causal', 'in')
const samples = Array.from({ length: batches }, (_, i) => i)
const batchOf = ([i]: number[]): Batch => {
  const of = (name: string) => (given[`${name} ${i}`] as vt.Tensor).clone()
  return { inputIds: of('input_ids'), attentionMask: of('attention_mask'), labels: of('labels') }
}

function newModel(): vt.DecoderLM {
  const model = vt.DecoderLM.fromConfig(camelKeys(config) as vt.DecoderLMConfig)
  model.loadStateDict(tensorsOf(reference, 'causal', 'param'))
  return model
}

/** A causal language model written in TypeScript, which only gives logits. */
class Wrapper extends vt.Module {
  readonly shiftsLabels = true
  llm = newModel()
  override async forward({ inputIds, attentionMask }: Batch) {
    const { logits } = await this.llm.forward({ inputIds, attentionMask })
    return { loss: null, logits }
  }
}
/** Labels are told where they stand, as a tagger's are. */
class Tagger extends Wrapper {
  override readonly shiftsLabels = false as unknown as true
}

function newTrainer(model: vt.Module, args: Partial<vt.TrainingArguments> = {}, callbacks: vt.TrainerCallback[] = []) {
  const collate = batchOf as unknown as (samples: number[]) => Batch
  const trainDataset = samples
  return new vt.Trainer({
    model,
    trainDataset,
    evalDataset: trainDataset,
    collate,
    callbacks,
    args: {
      outputDir: folder(`run${runs++}`),
      reportTo: 'none',
      progress: false,
      saveStrategy: 'no',
      perDeviceTrainBatchSize: 1,
      perDeviceEvalBatchSize: 1,
      gradientAccumulationSteps: batches,
      maxSteps: 1,
      maxGradNorm: 0,
      learningRate: 0,
      labelSmoothingFactor: factor,
      ...args,
    },
  })
}

describe('label smoothing of a causal language model', () => {
  it.each([
    ['DecoderLM', newModel, ''],
    ['a DecoderLM with an adapter of its head', () => withHead(newModel()), ''],
    ['one that says shiftsLabels', () => new Wrapper(), 'llm.'],
  ])('has the loss and gradients of transformers: %s', async (_name, make, prefix) => {
    const model = make()
    const live = await settledTensors()
    const grads = new Map<string, vt.Tensor>()
    const onPreOptimizerStep = () => {
      for (const [name, { grad }] of model.namedParameters()) if (grad) grads.set(name, vt.keepAlive(grad.clone()))
    }
    const trainer = newTrainer(model, {}, [{ onPreOptimizerStep }])
    const losses = tensorsOf(reference, 'causal', 'out')
    const { trainingLoss } = await trainer.train()
    for (const [name, wanted] of Object.entries(tensorsOf(reference, 'causal', 'grad'))) {
      expectClose(grads.get(prefix + name) as vt.Tensor, wanted, 1e-5, name)
    }
    const each = samples.map((i) => {
      const labels = (given[`labels ${i}`] as vt.Tensor).toArray() as number[][]
      return labels.flatMap((row) => row.slice(1)).filter((label) => label !== -100).length
    })
    expect(each.reduce((a, b) => a + b)).toBe(items)
    const mean =
      samples.reduce((sum, i) => sum + (losses[`loss ${i}`]?.item() as number) * (each[i] as number), 0) / items
    expect(Math.abs(trainingLoss - mean) / mean).toBeLessThan(1e-5)
    const { evalLoss } = await trainer.evaluate()
    expect(Math.abs((evalLoss as number) - mean) / mean).toBeLessThan(1e-5)
    trainer.dispose()
    for (const grad of grads.values()) grad.dispose()
    model.zeroGrad()
    expect(vt.memoryStats().liveTensors).toBeLessThanOrEqual(live)
    model.dispose()
  })

  it('does not shift where the model does not', async () => {
    const model = new Tagger()
    const trainer = newTrainer(model, { gradientAccumulationSteps: 1 })
    const { trainingLoss } = await trainer.train()
    const losses = samples.map((i) => tensorsOf(reference, 'causal', 'out')[`unshifted ${i}`]?.item() as number)
    expect(Math.min(...losses.map((loss) => Math.abs(loss - trainingLoss) / loss))).toBeLessThan(1e-5)
    trainer.dispose()
    model.dispose()
  })

  it('counts the labels that are learnt without smoothing too', async () => {
    const model = newModel()
    const trainer = newTrainer(model, { labelSmoothingFactor: 0 })
    const { evalLoss } = await trainer.evaluate()
    let [sum, count] = [0, 0]
    for (const i of samples) {
      const batch = batchOf([i])
      const { logits } = await model.forward({ ...batch, labels: null })
      const before = (logits as vt.Tensor).slice(1, 0, -1).flatten(0, 1)
      const options = { reduction: 'sum' } as const
      sum += vt.functional.crossEntropy(before, batch.labels.slice(1, 1).flatten(), options).item() as number
      count += Number(batch.labels.slice(1, 1).ne(-100).sum().item())
    }
    expect(Math.abs((evalLoss as number) - sum / count)).toBeLessThan(1e-5)
    trainer.dispose()
    model.dispose()
  })

  it('refuses a factor that is none', async () => {
    const model = newModel()
    const batch = batchOf([0])
    for (const labelSmoothing of [-0.1, 1.5, Number.NaN]) {
      await expect(model.forward({ ...batch, labelSmoothing })).rejects.toThrow(/label_smoothing must be from 0 to 1/)
    }
    model.dispose()
  })
})

describe('label smoothing of Salmonn', () => {
  it('smooths the tokens of the answers', async () => {
    const model = await tinySalmonn()
    const sample = { prompts: [{ text: 'Say <SpeechHere> now', clips: [clip(1, 0.9)] }], targets: ['yes'] }
    const plain = await model.forward(sample)
    const trainer = new vt.Trainer({
      model,
      evalDataset: [sample],
      collate: ([one]) => one as typeof sample,
      args: {
        outputDir: folder('salmonn'),
        reportTo: 'none',
        progress: false,
        perDeviceEvalBatchSize: 1,
        labelSmoothingFactor: factor,
      },
    })
    const { evalLoss } = await trainer.evaluate()
    // The same by hand, from all that the language model says of the prompt and its answer.
    const [audio] = await model.encodeAudio(sample.prompts[0]?.clips as Float32Array[])
    const segments = await model.segments(sample.prompts[0] as salmonn.SalmonnQuestion)
    const answer = model.tokenizer.encode(`yes${model.config.endSymbol}`, { addSpecialTokens: false }).inputIds
    const [left, right] = [
      [...model.begin(), ...(segments[0] as number[])],
      [...(segments[1] as number[]), ...answer],
    ]
    const embed = (ids: number[]) => model.llm.embed(vt.tensor(ids, { dtype: 'int64' }))
    const inputsEmbeds = vt.cat([embed(left), audio as vt.Tensor, embed(right)], 0).unsqueeze(0)
    const { logits } = await model.llm.forward({ inputsEmbeds })
    const rows = (logits as vt.Tensor).select(0, 0)
    const before = rows.slice(0, rows.size(0) - answer.length - 1, -1)
    const wanted = (labelSmoothing: number) =>
      vt.functional.crossEntropy(before, vt.tensor(answer, { dtype: 'int64' }), { labelSmoothing }).item() as number
    expect(Math.abs((plain.loss?.item() as number) - wanted(0)) / wanted(0)).toBeLessThan(1e-5)
    expect(Math.abs((evalLoss as number) - wanted(factor)) / wanted(factor)).toBeLessThan(1e-5)
    expect(Math.abs(wanted(factor) - wanted(0))).toBeGreaterThan(1e-3)
    trainer.dispose()
    model.dispose()
  })
})

/** An adapter that adds nothing yet: the head is no plain matrix any more, and its loss goes through logits. */
function withHead(model: vt.DecoderLM): vt.DecoderLM {
  vt.getPeftModel(model, { r: 2, loraAlpha: 4, targetModules: ['lm_head'] })
  for (const [, parameter] of model.namedParameters()) parameter.requiresGrad = true
  return model
}
