import { describe, expect, it } from 'vitest'
import {
  AdamW,
  DecoderLM,
  type DecoderLMConfig,
  GradScaler,
  noGrad,
  quantize,
  RNN,
  randint,
  randn,
  scope,
  type Tensor,
  tensor,
  Whisper,
} from '../../../lib/index.js'
import { op } from '../../../lib/native/call.js'
import { onDevice } from '../../../lib/train/trainer/loss.js'
import { decodeRng, encodeRng } from '../../../lib/train/trainer/rng.js'
import { expectClose, fixturePath } from '../../helpers.js'
import { counted } from './counts.js'

const CONFIG: DecoderLMConfig = {
  ...{ modelType: 'llama', vocabSize: 97, hiddenSize: 64, intermediateSize: 96 },
  ...{ numHiddenLayers: 2, numAttentionHeads: 4 },
}
const language = (layers = 2, device = 'cuda') =>
  DecoderLM.fromConfig({ ...CONFIG, numHiddenLayers: layers }, { device: device as 'cuda', seed: 3 }).eval()
const ids = tensor(
  [
    [3, 14, 15, 92, 65],
    [35, 89, 79, 32, 38],
  ],
  { dtype: 'int64', device: 'cpu' },
)
const padded = tensor(
  [
    [0, 0, 1, 1, 1],
    [1, 1, 1, 1, 1],
  ],
  { dtype: 'int64', device: 'cpu' },
)

describe('where inputs are', () => {
  it('does not matter to what a language model writes', async () => {
    const write = async (device: 'cpu' | 'cuda', inputIds: Tensor, attentionMask?: Tensor) =>
      (await language(2, device).generate({ inputIds, attentionMask }, { maxNewTokens: 6 })).tokens
    const plain = await write('cpu', ids)
    expect(await write('cuda', ids)).toEqual(plain)
    expect(await write('cuda', ids.to('cuda'))).toEqual(plain)
    const masked = await write('cpu', ids, padded)
    expect(await write('cuda', ids.to('cuda'), padded)).toEqual(masked)
    expect(await write('cuda', ids, padded.to('cuda'))).toEqual(masked)
  })

  it('does not matter to what Whisper writes', async () => {
    const write = async (device: 'cpu' | 'cuda') => {
      const model = (await Whisper.fromPretrained(fixturePath('models/whisper-tiny'), { device })).eval()
      const frames = 2 * (model.config.maxSourcePositions ?? 1500)
      const inputFeatures = randn([1, model.config.numMelBins ?? 80, frames], { device: 'cpu' })
        .mul(0)
        .add(0.3)
      const { tokens } = await noGrad(() =>
        model.generate({ inputFeatures: inputFeatures.to(device) }, { maxNewTokens: 5 }),
      )
      return tokens
    }
    expect(await write('cuda')).toEqual(await write('cpu'))
  })

  it('does not matter to the lengths of a recurrent layer', () => {
    const layer = new RNN(4, 5, { batchFirst: true })
    const input = randn([2, 6, 4])
    expect(layer.parameters()[0]?.device).toBe('cuda:0')
    const { output } = layer.forward(input, null, { lengths: [3, 6] })
    const { output: alone } = layer.forward(input.narrow(0, 0, 1).narrow(1, 0, 3))
    expectClose(output.narrow(0, 0, 1).narrow(1, 0, 3).to('cpu'), alone.to('cpu'))
  })

  it('does not matter to the states of random numbers', () => {
    const state = randint(0, 256, [16], { dtype: 'uint8', device: 'cpu' })
    const back = decodeRng(JSON.parse(JSON.stringify(encodeRng({ cuda: [state] })))) as { cuda: Tensor[] }
    expect(back.cuda[0]?.device).toBe('cpu')
    expect(back.cuda[0]?.toArray()).toEqual(state.toArray())
  })

  it('does not matter to the temperatures of a transcription', async () => {
    const model = (await Whisper.fromPretrained(fixturePath('models/whisper-tiny'), { device: 'cuda' })).eval()
    const wave = Float32Array.from({ length: 48000 }, (_, i) => 0.2 * Math.sin(i / 9) * Math.sin(i / 2000))
    const unlikely = { logprobThreshold: 0.5, compressionRatioThreshold: 0.1, language: 'en' }
    expect((await model.transcribe(wave, { ...unlikely, temperature: [0, 0.4] })).text).toBeTypeOf('string')
  })
})

/** What one more token costs, by runs of 10 and of 20. */
async function perToken(model: DecoderLM, config = {}) {
  const inputIds = ids.narrow(0, 0, 1).to('cuda')
  const write = (count: number) =>
    counted(() => model.generate({ inputIds }, { maxNewTokens: count, eosTokenId: [], ...config }))
  await write(2)
  const [less, more] = [await write(10), await write(20)]
  return { launches: (more.launches - less.launches) / 10, waits: (more.waits - less.waits) / 10 }
}

describe('attention', () => {
  it("is not cuDNN's, which plans anew for each length of the keys", () => {
    tensor([1], { device: 'cuda' })
    expect(op('pretended_cuda::uses_cudnn_attention')()).toBe(false)
  })
})

describe('waits for the device', () => {
  it('are no more with NF4', async () => {
    const model = language()
    const plain = await perToken(model)
    await quantize(model, { scheme: 'nf4' })
    expect((await perToken(model)).waits).toBe(plain.waits)
  })

  it('of a token are as many with more layers', async () => {
    expect((await perToken(language(4))).waits).toBe((await perToken(language(1))).waits)
  })

  it('of a token of beams are as many with more layers', async () => {
    const beams = { numBeams: 3 }
    const [one, four] = [language(1), language(4)]
    // Two networks choose other beams, so that the rows of one may stay where those of the other move: the most is compared.
    const moved = async (model: DecoderLM) => (await perToken(model, beams)).waits
    expect(await moved(four)).toBeLessThanOrEqual((await moved(one)) + 1)
  })

  it('are none in a forward pass over what is there', async () => {
    const model = language()
    const inputIds = ids.to('cuda')
    await model.forward({ inputIds })
    const { waitsBy } = await counted(() => noGrad(() => model.forward({ inputIds })))
    expect(waitsBy).toEqual({})
  })

  it('are none for a tensor that is made of numbers', async () => {
    let made: Tensor | undefined
    const { waitsBy } = await counted(() => {
      made = tensor([1, 2, 3], { dtype: 'float32', device: 'cuda' }).add(1)
    })
    expect(waitsBy).toEqual({})
    expect(made?.toArray()).toEqual([2, 3, 4])
  })

  it('never stop the event loop for a batch of the Trainer', async () => {
    const { waitsBy, mainThreadWaits } = await counted(async () => {
      const batch = await onDevice({ inputIds: ids, rows: [padded], name: 'one' }, 'cuda:0')
      expect([batch.inputIds.device, batch.rows[0]?.device, batch.name]).toEqual(['cuda:0', 'cuda:0', 'one'])
    })
    expect(waitsBy).toEqual({})
    expect(mainThreadWaits).toBe(0)
  })

  it('never stop the event loop in a step with a GradScaler', async () => {
    const weight = randn([20, 30], { requiresGrad: true })
    const optimizer = new AdamW([weight], { lr: 0.1 })
    const scaler = new GradScaler()
    const step = () =>
      scope(async () => {
        await scaler.scale(weight.square().sum()).backward()
        await scaler.step(optimizer)
        scaler.update()
        optimizer.zeroGrad()
      })
    await step()
    const { mainThreadWaitsBy } = await counted(step)
    expect(mainThreadWaitsBy).toEqual({})
  })
})
