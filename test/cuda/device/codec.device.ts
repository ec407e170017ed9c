import { describe, expect, it } from 'vitest'
import {
  Generator,
  Mimi,
  type Module,
  Moonshine,
  noGrad,
  ops,
  randint,
  randn,
  scope,
  type Tensor,
  tensor,
} from '../../../lib/index.js'
import { expectClose } from '../../helpers.js'
import { counted } from './counts.js'

// Moonshine and Mimi: numbers, gradients and tokens of the CPU, and no wait in a pass or in a stream.

const host = { device: 'cpu' } as const
const random = () => new Generator(5)

function both<M extends Module>(make: (device: 'cpu' | 'cuda') => M): [M, M] {
  const [there, here] = [make('cuda').eval(), make('cpu').eval()]
  here.loadStateDict(Object.fromEntries(Object.entries(there.stateDict()).map(([name, one]) => [name, one.to('cpu')])))
  return [there, here]
}

/** Compare the gradients of two copies; of the bias of an attention's keys the gradient is rounding. */
function expectSameGradients(there: Module, here: Module): void {
  const wanted = new Map(here.namedParameters())
  for (const [name, { grad }] of there.namedParameters()) {
    const own = wanted.get(name)?.grad
    if (grad && own && !name.endsWith('k_proj.bias')) expectClose(grad.to('cpu'), own, 1e-4, name)
    else expect(Boolean(grad), name).toBe(Boolean(own))
  }
}

describe('Moonshine on the device', () => {
  const [there, here] = both((device) =>
    Moonshine.fromConfig(
      {
        ...{
          vocabSize: 20,
          hiddenSize: 24,
          intermediateSize: 20,
          encoderNumAttentionHeads: 2,
          partialRotaryFactor: 0.5,
        },
        ...{ encoderNumHiddenLayers: 2, decoderNumHiddenLayers: 2, initializerRange: 0.2, padTokenId: 2 },
      },
      { device, seed: 3 },
    ),
  )
  const inputValues = randn([2, 3001], { ...host, generator: random() })
  const attentionMask = ops.cat([
    tensor([Array.from({ length: 3001 }, () => 1n)], host),
    tensor([Array.from({ length: 3001 }, (_, i) => (i < 2000 ? 1n : 0n))], host),
  ])
  const labels = tensor(
    [
      [4n, 5n, 6n],
      [7n, 8n, -100n],
    ],
    host,
  )
  const far = {
    inputValues: inputValues.to('cuda'),
    attentionMask: attentionMask.to('cuda'),
    labels: labels.to('cuda'),
  }

  it('gives the loss, the gradients and the tokens of the CPU', async () => {
    await scope(async () => {
      const own = await here.forward({ inputValues, attentionMask, labels })
      const out = await there.forward(far)
      expectClose((out.loss as Tensor).to('cpu'), own.loss as Tensor, 1e-5)
      await (own.loss as Tensor).backward()
      await (out.loss as Tensor).backward()
      expectSameGradients(there, here)
      const audio = { inputValues, inputValuesMask: attentionMask }
      const moved = { inputValues: far.inputValues, inputValuesMask: far.attentionMask }
      for (const config of [{ maxNewTokens: 8 }, { maxNewTokens: 6, numBeams: 2 }])
        expect((await there.generate(moved, config)).tokens).toEqual((await here.generate(audio, config)).tokens)
    })
  })

  it('waits for nothing', async () => {
    // A loss copies the number of labels to the host.
    const { labels: decoderInputIds, ...audio } = far
    const given = { ...audio, decoderInputIds: decoderInputIds.clamp(0) }
    const run = () => scope(() => noGrad(async () => void (await there.forward(given))))
    await run()
    const { waitsBy, launches } = await counted(run)
    expect(waitsBy).toEqual({})
    expect(launches).toBeLessThanOrEqual(LAUNCHES.moonshine)
  })
})

describe('Mimi on the device', () => {
  const config = {
    ...{ hiddenSize: 16, numFilters: 4, upsamplingRatios: [3, 2], codebookSize: 16, codebookDim: 8 },
    ...{ vectorQuantizationHiddenDimension: 8, numQuantizers: 4, upsampleGroups: 16, numHiddenLayers: 2 },
    ...{ intermediateSize: 20, numAttentionHeads: 2, numKeyValueHeads: 2, slidingWindow: 5, samplingRate: 1200 },
    layerScaleInitialScale: 0.5,
  }
  const [there, here] = both((device) => {
    const model = Mimi.fromConfig(config, { device, seed: 4 })
    noGrad(() => {
      for (const [name, value] of Object.entries(model.stateDict()))
        if (name.endsWith('embed_sum')) value.copy_(randn(value.shape, { ...host, generator: new Generator(6) }))
    })
    return model
  })
  const inputValues = randn([2, 1, 144], { ...host, generator: random() })
  const codes = randint(0, 16, [2, 4, 12], { ...host, generator: random() })

  it('gives the codes, the audio and the gradients of the CPU', async () => {
    await scope(async () => {
      const own = await here.encode({ inputValues })
      const out = await there.encode({ inputValues: inputValues.to('cuda') })
      expectClose(out.latents.to('cpu'), own.latents, 1e-5)
      expect(out.audioCodes.to('cpu').toArray()).toEqual(own.audioCodes.toArray())
      const audio = (await here.decode({ audioCodes: codes })).audioValues
      const sounds = (await there.decode({ audioCodes: codes.to('cuda') })).audioValues
      expectClose(sounds.to('cpu'), audio, 1e-5)
      await own.latents.square().sum().add(audio.square().sum()).backward()
      await out.latents.square().sum().add(sounds.square().sum()).backward()
      expectSameGradients(there, here)
    })
  })

  it('streams what it gives at once, from samples and codes of the host too', async () => {
    await scope(() =>
      noGrad(async () => {
        const whole = (await here.encode({ inputValues })).audioCodes
        const audio = (await here.decode({ audioCodes: codes })).audioValues
        const [encoder, decoder] = [there.encoderStream(), there.decoderStream()]
        for (let i = 0; i < 12; i += 1) {
          const found = await encoder.push(inputValues.narrow(2, 12 * i, 12))
          expect(found.device).toBe('cuda:0')
          expect(found.to('cpu').toArray()).toEqual(whole.narrow(2, i, 1).toArray())
          const sounds = await decoder.push(codes.narrow(2, i, 1))
          expectClose(sounds.to('cpu'), audio.narrow(2, 12 * i, 12), 1e-4)
        }
        encoder.dispose()
        decoder.dispose()
      }),
    )
  })

  it('waits for nothing, at once or frame by frame', async () => {
    const [encoder, decoder] = [there.encoderStream(), there.decoderStream()]
    const [samples, far] = [inputValues.narrow(2, 0, 12).to('cuda'), codes.narrow(2, 0, 1).to('cuda')]
    const whole = { inputValues: inputValues.to('cuda') }
    const frame = () =>
      scope(() => noGrad(async () => void (await Promise.all([encoder.push(samples), decoder.push(far)]))))
    const all = () => scope(() => noGrad(async () => void (await there.forward(whole))))
    for (const [run, most] of [
      [frame, LAUNCHES.frame],
      [all, LAUNCHES.mimi],
    ] as const) {
      await run()
      const { waitsBy, launches } = await counted(run)
      expect(waitsBy).toEqual({})
      expect(launches).toBeLessThanOrEqual(most)
    }
    encoder.dispose()
    decoder.dispose()
  })
})

/** Limits with a tenth more than was counted. */
const LAUNCHES = { moonshine: 305, frame: 375, mimi: 356 }
