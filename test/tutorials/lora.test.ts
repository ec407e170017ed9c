// LoRA written by hand: the linear layers of a frozen transformer encoder get trained matrices of low rank beside their weights.
// test/reference/tutorials.py ran it in PyTorch.
import { expect, it } from 'vitest'
import {
  AdamW,
  CrossEntropyLoss,
  Embedding,
  empty,
  functional,
  init,
  LayerNorm,
  Linear,
  Module,
  manualSeed,
  noGrad,
  Parameter,
  scope,
  type Tensor,
  TransformerEncoder,
  TransformerEncoderLayer,
  tensor,
  zeros,
} from '../../lib/index.js'
import { expectClose, fixture, tensorsOf } from '../helpers.js'
import { expectWeights, STEPS, TOLERANCE } from './tolerance.js'

const [VOCABULARY, CLASSES, WIDTH, RANK, ALPHA] = [12, 3, 16, 2, 4]

const file = await fixture('tutorials/lora')

class LoRALinear extends Module {
  lora_A: Parameter
  lora_B: Parameter

  constructor(readonly base: Linear) {
    super()
    this.lora_A = new Parameter(empty([RANK, base.inFeatures]))
    this.lora_B = new Parameter(zeros([base.outFeatures, RANK]))
    init.kaimingUniform_(this.lora_A, { a: Math.sqrt(5) })
  }

  override forward(x: Tensor): Tensor {
    const update = functional.linear(functional.linear(x, this.lora_A), this.lora_B)
    return this.base.forward(x).add(update.mul(ALPHA / RANK))
  }

  merge(): Linear {
    noGrad(() => scope(() => void this.base.weight.add_(this.lora_B.matmul(this.lora_A), { alpha: ALPHA / RANK })))
    return this.base
  }
}

class Classifier extends Module {
  embed = new Embedding(VOCABULARY, WIDTH, { paddingIdx: 0 })
  encoder = new TransformerEncoder(
    new TransformerEncoderLayer(WIDTH, 2, {
      dimFeedforward: 32,
      dropout: 0,
      activation: 'gelu',
      batchFirst: true,
      normFirst: true,
    }),
    2,
    { norm: new LayerNorm(WIDTH) },
  )
  head = new Linear(WIDTH, CLASSES)

  override forward(tokens: Tensor): Tensor {
    return scope(() => {
      const padding = tokens.eq(0)
      const x = this.encoder.forward(this.embed.forward(tokens), { keyPaddingMask: padding })
      const kept = padding.logicalNot().unsqueeze(-1).float()
      return this.head.forward(x.mul(kept).sum(1).div(kept.sum(1)))
    })
  }
}

it('LoRA by hand', async () => {
  const model = new Classifier()
  model.loadStateDict(tensorsOf(file, 'lora', 'param'))
  const { tokens, labels } = tensorsOf(file, 'lora', 'in')
  for (const parameter of model.parameters()) parameter.requiresGrad = false
  manualSeed(7)
  for (const [path, module] of model.namedModules()) {
    if (module instanceof Linear && path.includes('.linear')) model.setSubmodule(path, new LoRALinear(module))
  }
  const adapter = tensorsOf(file, 'lora', 'adapter')
  const adapterState = () => Object.fromEntries(Object.entries(model.stateDict()).filter(([name]) => /lora/.test(name)))
  expectWeights(adapterState(), adapter, 1e-6)
  model.loadStateDict(adapter, { strict: false })

  const trained = model.parameters().filter((parameter) => parameter.requiresGrad)
  expect(trained).toHaveLength(8)
  const optimizer = new AdamW(trained, { lr: 2e-2 })
  const criterion = new CrossEntropyLoss()
  const losses: number[] = []
  for (let step = 0; step < STEPS; step += 1) {
    await scope(async () => {
      optimizer.zeroGrad()
      const loss = criterion.forward(model.forward(tokens!), labels!)
      await loss.backward()
      await optimizer.step()
      losses.push(loss.item())
    })
  }
  const series = tensorsOf(file, 'lora', 'series')
  expectClose(tensor(losses), series.losses!, TOLERANCE, 'losses')
  expectWeights(adapterState(), tensorsOf(file, 'lora', 'out'))

  model.eval()
  const logits = noGrad(() => model.forward(tokens!))
  expectClose(logits, series.logits!, TOLERANCE, 'logits')
  for (const [path, module] of model.namedModules())
    if (module instanceof LoRALinear) model.setSubmodule(path, module.merge())
  expect(model.modules().some((module) => module instanceof LoRALinear)).toBe(false)
  expectClose(
    noGrad(() => model.forward(tokens!)),
    logits,
    1e-5,
    'merged logits',
  )
  const merged = Object.entries(model.stateDict()).filter(([name]) => /\.linear.*weight$/.test(name))
  expectWeights(Object.fromEntries(merged), tensorsOf(file, 'lora', 'merged'))
})
