import { describe, expect, it } from 'vitest'
import * as vt from '../../../lib/index.js'
import { expectClose, fixture, tensorsOf } from '../../helpers.js'
import { temporary } from './small.js'

vt.setNumThreads(1)
const folder = temporary()
let runs = 0

const CONFIG = { vocabSize: 24, hiddenSize: 16, intermediateSize: 24, numHiddenLayers: 1, numAttentionHeads: 2 }
const decoder = (more: object = {}) =>
  vt.DecoderLM.fromConfig({ ...CONFIG, modelType: 'llama', ...more } as vt.DecoderLMConfig, { seed: 1 })
const rows = Array.from({ length: 6 }, (_, i) => [i, i + 3, 2 * i, 7])
const collate = (taken: number[][]) => ({ inputIds: vt.tensor(taken), labels: vt.tensor(taken) })

function newTrainer(model: vt.Module, args: Partial<vt.TrainingArguments> = {}, callbacks: vt.TrainerCallback[] = []) {
  return new vt.Trainer({
    model,
    trainDataset: rows,
    evalDataset: rows,
    collate,
    callbacks,
    args: {
      ...{ outputDir: folder(`run${runs++}`), reportTo: 'none', saveStrategy: 'no', maxSteps: 4 },
      ...{ perDeviceTrainBatchSize: 2, learningRate: 1e-2, ...args },
    },
  })
}

async function weightsAfter(args: Partial<vt.TrainingArguments>, model = decoder()): Promise<number[]> {
  using trainer = newTrainer(model, args)
  await trainer.train()
  const values = vt.scope(() => vt.ops.cat(model.parameters().map((one) => one.detach().flatten())).toArray())
  model.dispose()
  return values as number[]
}

describe('neftuneNoiseAlpha', () => {
  it('adds the noise of transformers', async () => {
    const file = await fixture<{ alpha: number; seed: number }>('train/neftune')
    const { alpha, seed } = file.cases[0]!
    class Words extends vt.Module {
      words = new vt.Embedding(7, 4)
      override forward({ ids }: { ids: vt.Tensor }) {
        return { loss: this.words.forward(ids).sum() }
      }
    }
    const model = new Words()
    model.words.loadStateDict(tensorsOf(file, 'noise', 'param'))
    const seen: vt.Tensor[] = []
    model.words.registerForwardHook((_, __, output) => {
      seen.push(vt.keepForever((output as vt.Tensor).detach().clone()))
    })
    // The Trainer's hook runs after this one, which sees the embeddings without noise.
    const { ids } = tensorsOf(file, 'noise', 'in') as { ids: vt.Tensor }
    const trainer = new vt.Trainer({
      model,
      trainDataset: [ids],
      collate: ([one]: vt.Tensor[]) => ({ ids: one as vt.Tensor }),
      computeLoss: async (network) => {
        vt.manualSeed(seed)
        const output = network.words.forward(ids)
        seen.push(vt.keepForever(output.detach().clone()))
        return output.sum()
      },
      args: {
        ...{ outputDir: folder(`run${runs++}`), reportTo: 'none', saveStrategy: 'no', maxSteps: 1 },
        ...{ learningRate: 0, neftuneNoiseAlpha: alpha },
      },
    })
    await trainer.train()
    expectClose(seen[1]!, tensorsOf(file, 'noise', 'out').embeddings!, 1e-6)
    // The hook is gone after training.
    vt.scope(() => expectClose(model.words.forward(ids).detach(), seen[0]!))
  })

  it('changes training, and neither evaluation nor the model', async () => {
    const [plain, noisy, again, none] = [
      await weightsAfter({}),
      await weightsAfter({ neftuneNoiseAlpha: 5 }),
      await weightsAfter({ neftuneNoiseAlpha: 5 }),
      await weightsAfter({ neftuneNoiseAlpha: 0 }),
    ]
    expect(noisy).not.toEqual(plain)
    expect(noisy).toEqual(again)
    expect(none).toEqual(plain)
    const model = decoder()
    const losses: number[] = []
    const onStepEnd = async () => {
      for (let i = 0; i < 2; i++) losses.push((await trainer.evaluate()).evalLoss as number)
    }
    const trainer = newTrainer(model, { neftuneNoiseAlpha: 50, maxSteps: 1, learningRate: 0 }, [{ onStepEnd }])
    await trainer.train()
    losses.push((await trainer.evaluate()).evalLoss as number)
    expect(new Set(losses).size).toBe(1)
    trainer.dispose()
    model.dispose()
  })

  it('is bit-exact after a resume', async () => {
    const whole = await weightsAfter({ neftuneNoiseAlpha: 5 })
    const args = { neftuneNoiseAlpha: 5, outputDir: folder('resumed'), saveStrategy: 'steps', saveSteps: 2 } as const
    const model = decoder()
    const onSave = ({ control }: { control: vt.TrainerControl }) => {
      control.shouldStop = true
    }
    using trainer = newTrainer(model, args, [{ onSave }])
    await trainer.train()
    expect(trainer.state.globalStep).toBe(2)
    model.dispose()
    expect(await weightsAfter({ ...args, resumeFromCheckpoint: `${args.outputDir}/checkpoint-2` })).toEqual(whole)
  })

  it('is as large beside the scaled embeddings of Gemma', async () => {
    const model = decoder({ modelType: 'gemma3_text', numKeyValueHeads: 2, headDim: 8, queryPreAttnScalar: 8 })
    expect(model.embeddingScale).toBeCloseTo(4, 5)
    const shifts: number[] = []
    const embeddings = model.get('model.embed_tokens')
    let clean: vt.Tensor | undefined
    embeddings.registerForwardHook((_, __, output) => {
      clean = vt.keepForever((output as vt.Tensor).detach().clone())
    })
    const onTrainBegin = () => {
      embeddings.registerForwardHook((_, __, output) => {
        shifts.push(vt.scope(() => (output as vt.Tensor).detach().sub(clean!).abs().max().item() as number))
      })
    }
    using trainer = newTrainer(model, { neftuneNoiseAlpha: 5, maxSteps: 1 }, [{ onTrainBegin }])
    await trainer.train()
    const most = 5 / Math.sqrt(4 * 16)
    expect(Math.max(...shifts) * 4).toBeGreaterThan(0.9 * most)
    expect(Math.max(...shifts) * 4).toBeLessThanOrEqual(most * 1.0001)
    model.dispose()
  })

  it('refuses a model without token embeddings, and wrong values', () => {
    expect(() => newTrainer(new vt.Linear(2, 2), { neftuneNoiseAlpha: 5 })).toThrow(
      /^TrainingArguments.neftuneNoiseAlpha: expected a language model/,
    )
    expect(() => newTrainer(decoder(), { neftuneNoiseAlpha: -1 })).toThrow(vt.ConfigError)
  })
})
