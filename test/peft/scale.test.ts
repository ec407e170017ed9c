import { expect, it } from 'vitest'
import {
  ConfigError,
  DecoderLM,
  getPeftModel,
  Linear,
  manualSeed,
  noGrad,
  randn,
  type Tensor,
  tensor,
} from '../../lib/index.js'
import { expectClose } from '../helpers.js'

it('a call with scaled adapters: in TypeScript it is the output that is scaled', () => {
  manualSeed(1)
  const net = new Linear(5, 4)
  const peft = getPeftModel(net, { r: 2, loraAlpha: 6, targetModules: 'all-linear', initLoraWeights: false })
  const x = randn([3, 5])
  noGrad(() => {
    const base = peft.disableAdapter(() => net.forward(x))
    const added = net.forward(x).sub(base)
    for (const factor of [0.5, 0, 2]) {
      expectClose(peft.scaleAdapter(factor, () => net.forward(x)).sub(base), added.mul(factor), 1e-5)
    }
    expectClose(peft.scaleAdapter(1, () => net.forward(x)).sub(base), added, 1e-6)
  })
  peft.mergeAdapter()
  expect(() => peft.scaleAdapter(0.5, () => net.forward(x))).toThrow(ConfigError)
  net.dispose()
})

it('in a native network half the scale is half of B, and nothing is left of an adapter that is deleted', async () => {
  manualSeed(2)
  const model = new DecoderLM({
    vocabSize: 9,
    hiddenSize: 8,
    intermediateSize: 8,
    numHiddenLayers: 1,
    numAttentionHeads: 2,
  })
  const peft = getPeftModel(model, { r: 2, loraAlpha: 4, targetModules: ['q_proj'], initLoraWeights: false })
  const inputIds = tensor([[1n, 2n, 3n, 4n]])
  const logits = async () => (await noGrad(() => model.forward({ inputIds }))).logits as Tensor
  const [plain, none] = [await logits(), await peft.disableAdapter(logits)]
  expectClose(await peft.scaleAdapter(0, logits), none, 1e-6)
  expectClose(await peft.scaleAdapter(1, logits), plain, 1e-6)
  const half = await peft.scaleAdapter(0.5, logits)
  expect(Number(half.sub(plain).abs().max().item())).toBeGreaterThan(1e-4)
  noGrad(() => {
    for (const [name, parameter] of model.namedParameters()) if (name.includes('lora_B')) parameter.mul_(0.5)
  })
  expectClose(await logits(), half, 1e-6)
  peft.deleteAdapter('default')
  expectClose(await peft.scaleAdapter(0.5, logits), none, 1e-6)
  model.dispose()
})
