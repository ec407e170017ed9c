import { describe, expect, it } from 'vitest'
import { DecoderLM, type DecoderLMConfig, scope, type Tensor, tensor } from '../../../lib/index.js'
import { op } from '../../../lib/native/call.js'
import { expectClose } from '../../helpers.js'
import { counted } from './counts.js'

const useFlash = op('pretended_cuda::use_flash_attention')

const CONFIG: DecoderLMConfig = {
  ...{ modelType: 'mistral', vocabSize: 97, hiddenSize: 64, intermediateSize: 96, slidingWindow: 5 },
  ...{ numHiddenLayers: 2, numAttentionHeads: 4, numKeyValueHeads: 2, initializerRange: 0.2 },
}
const LENGTHS = [7, 1, 12, 4]

/** Loss, logits and gradients of a packed row. */
async function learn(model: DecoderLM, sequenceLengths = LENGTHS) {
  const total = sequenceLengths.reduce((sum, length) => sum + length, 0)
  const ids = Array.from({ length: total }, (_, i) => (i * 31 + 7) % 97)
  const inputIds = tensor([ids], { dtype: 'int64', device: model.parameters()[0]?.device as 'cpu' })
  const { loss, logits } = await model.forward({ inputIds, labels: inputIds, sequenceLengths, logitsToKeep: 0 })
  await (loss as Tensor).backward()
  const gradients = model.parameters().map((parameter) => (parameter.grad as Tensor).to('cpu').float())
  for (const parameter of model.parameters()) parameter.grad = null
  return { logits: (logits as Tensor).to('cpu').float(), gradients }
}

describe('packed rows of a decoder', () => {
  it.each([
    ['beside each other', LENGTHS],
    ['one by one, where they are too unlike', [...Array(99).fill(1), 60]],
  ])('attend %s as on the CPU', async (_, lengths) => {
    await scope(async () => {
      const [there, here] = (['cuda', 'cpu'] as const).map((device) =>
        DecoderLM.fromConfig(CONFIG, { device, seed: 3 }),
      )
      here!.loadStateDict(
        Object.fromEntries(Object.entries(there!.stateDict()).map(([name, one]) => [name, one.to('cpu')])),
      )
      const [a, b] = [await learn(there as DecoderLM, lengths), await learn(here as DecoderLM, lengths)]
      expectClose(a.logits, b.logits, 1e-5)
      for (const [i, gradient] of a.gradients.entries()) expectClose(gradient, b.gradients[i] as Tensor, 1e-5, `${i}`)
    })
  })

  // The stand-in computes in float64 and rounds, ATen's own attention rounds in between: both are compared with float32.
  it.each([
    ['flash attention', true],
    ['attention that is spread out', false],
  ])('in bfloat16, by %s', async (_, flash) => {
    useFlash(flash)
    try {
      await scope(async () => {
        for (const windowInclusive of [false, true]) {
          const config = { ...CONFIG, windowInclusive }
          const low = DecoderLM.fromConfig(config, { device: 'cuda', dtype: 'bfloat16', seed: 3 })
          const exact = DecoderLM.fromConfig(config, { device: 'cpu' })
          exact.loadStateDict(
            Object.fromEntries(Object.entries(low.stateDict()).map(([name, one]) => [name, one.to('cpu').float()])),
          )
          let made: Awaited<ReturnType<typeof learn>> | undefined
          const { launchesBy } = await counted(async () => {
            made = await learn(low)
          })
          expect(launchesBy['aten::_flash_attention_forward'] ?? 0).toBe(flash ? 2 : 0)
          expect(launchesBy['aten::_flash_attention_backward'] ?? 0).toBe(flash ? 2 : 0)
          const wanted = await learn(exact)
          expectClose(made!.logits, wanted.logits, 0.05)
          for (const [i, gradient] of made!.gradients.entries()) {
            expectClose(gradient, wanted.gradients[i] as Tensor, 0.15, `${i}`)
          }
        }
      })
    } finally {
      useFlash(true)
    }
  })
})
