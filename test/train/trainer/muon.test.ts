import { expect, it } from 'vitest'
import * as vt from '../../../lib/index.js'
import { hiddenMatrices, MuonWithAdamW } from '../../../lib/train/trainer/muon-adamw.js'
import { temporary } from './small.js'

vt.setNumThreads(1)
const folder = temporary()
const decoder = (tieWordEmbeddings: boolean) =>
  vt.DecoderLM.fromConfig(
    {
      ...{ modelType: 'qwen2', vocabSize: 24, hiddenSize: 16, intermediateSize: 24, numHiddenLayers: 1 },
      ...{ numAttentionHeads: 2, numKeyValueHeads: 2, tieWordEmbeddings },
    },
    { seed: 1 },
  )
const namesOf = (model: vt.Module) => {
  const hidden = hiddenMatrices(model)
  return model.namedParameters().flatMap(([name, one]) => (hidden.has(one) ? [name] : []))
}
const HIDDEN = ['q_proj', 'k_proj', 'v_proj', 'o_proj'].map((name) => `model.layers.0.self_attn.${name}.weight`)
const MLP = ['gate_proj', 'up_proj', 'down_proj'].map((name) => `model.layers.0.mlp.${name}.weight`)

it('Muon gets the matrices of linear layers and adapters, without embeddings and output layer', () => {
  for (const tied of [true, false]) {
    const model = decoder(tied)
    expect(namesOf(model).sort()).toEqual([...HIDDEN, ...MLP].sort())
    model.dispose()
  }
  const { model } = vt.getPeftModel(decoder(false), { r: 2, targetModules: ['q_proj', 'lm_head', 'embed_tokens'] })
  const adapters = namesOf(model).filter((name) => name.includes('lora_'))
  expect(adapters).toEqual(['A', 'B'].map((part) => `model.layers.0.self_attn.q_proj.lora_${part}.default.weight`))
  model.dispose()
})

const rows = Array.from({ length: 8 }, (_, i) => [i, i + 3, 2 * i, 7])
async function train(more: Partial<vt.TrainingArguments> = {}, by?: 'hand', callbacks: vt.TrainerCallback[] = []) {
  const model = decoder(false)
  const outputDir = folder(`run${Math.random()}`)
  const hidden = hiddenMatrices(model)
  const groups = vt.parameterGroups(model, { weightDecay: 0.1 })
  const options = { lr: 1e-2, betas: [0.9, 0.999] as [number, number] }
  const optimizer = new MuonWithAdamW(model, groups, options)
  const trainer = new vt.Trainer({
    ...{ model, trainDataset: rows, callbacks },
    collate: (taken: number[][]) => ({ inputIds: vt.tensor(taken), labels: vt.tensor(taken) }),
    args: {
      ...{ outputDir, reportTo: 'none', saveStrategy: 'no', maxSteps: 6, weightDecay: 0.1, optim: 'muon' },
      ...{ perDeviceTrainBatchSize: 2, learningRate: 1e-2, ...more },
    },
    ...(by === 'hand' && { optimizers: { optimizer } }),
  })
  await trainer.train()
  const values = vt.scope(() => model.parameters().map((one) => one.detach().toArray()))
  trainer.dispose()
  optimizer.dispose()
  expect(optimizer.groups[0]?.params.every((one) => hidden.has(one))).toBe(true)
  model.dispose()
  return values
}

it("optim 'muon' is both optimizers, and resumes bit for bit", async () => {
  const whole = await train()
  expect(await train({}, 'hand')).toEqual(whole)
  const args = { outputDir: folder('killed'), saveStrategy: 'steps', saveSteps: 2 } as const
  const onStepEnd = ({ state }: vt.CallbackContext) => {
    if (state.globalStep === 3) throw new Error('killed')
  }
  await expect(train(args, undefined, [{ onStepEnd }])).rejects.toThrow('killed')
  expect(await train(args)).toEqual(whole)
})
