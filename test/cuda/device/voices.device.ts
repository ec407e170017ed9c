import { describe, expect, it } from 'vitest'
import {
  BigVGAN,
  Generator,
  type Module,
  noGrad,
  randint,
  randn,
  scope,
  type Tensor,
  UnitVoicebox,
} from '../../../lib/index.js'
import { expectClose } from '../../helpers.js'
import { counted } from './counts.js'

const host = { device: 'cpu' } as const
const random = () => new Generator(5)
const VOCODER = {
  ...{ numMels: 5, upsampleRates: [4, 2], upsampleKernelSizes: [8, 4], upsampleInitialChannel: 8 },
  ...{ resblockKernelSizes: [3, 7], resblockDilationSizes: [[1, 3], [1, 5]], weightNorm: false }, // biome-ignore format: one line
}
const VOICEBOX = {
  ...{ nFeats: 5, nTokens: 11, embeddingDim: 6, hiddenSize: 32, intermediateSize: 48, numAttentionHeads: 4 },
  ...{ numHiddenLayers: 4, convposWidth: 5, convposGroups: 4 },
}

function both<M extends Module>(make: (device: 'cpu' | 'cuda') => M): [M, M] {
  const [there, here] = [make('cuda').eval(), make('cpu').eval()]
  here.loadStateDict(Object.fromEntries(Object.entries(there.stateDict()).map(([name, one]) => [name, one.to('cpu')])))
  return [there, here]
}

describe('BigVGAN on the device', () => {
  const [there, here] = both((device) => BigVGAN.fromConfig(VOCODER, { device }))
  const mel = randn([2, 5, 30], { ...host, generator: random() })

  it('gives what the CPU gives, whole and in pieces', async () => {
    await scope(() =>
      noGrad(async () => {
        const { waveform } = await here.forward({ mel })
        expectClose((await there.forward({ mel: mel.to('cuda') })).waveform.to('cpu'), waveform, 1e-5)
        let at = 0
        for await (const piece of there.stream(mel.select(0, 1).to('cuda'), { chunkFrames: 8 })) {
          expectClose(piece.to('cpu'), waveform.select(0, 1).narrow(0, at, piece.size(0)), 1e-4)
          at += piece.size(0)
          piece.dispose()
        }
        expect(at).toBe(240)
      }),
    )
  })

  it('waits for nothing', async () => {
    const given = { mel: mel.to('cuda') }
    const run = () => scope(() => noGrad(async () => void (await there.forward(given))))
    await run()
    const { waitsBy, launches } = await counted(run)
    expect(waitsBy).toEqual({})
    expect(launches).toBeLessThanOrEqual(LAUNCHES.vocoder)
  })
})

describe('UnitVoicebox on the device', () => {
  const [there, here] = both((device) => UnitVoicebox.fromConfig(VOICEBOX, { device }))
  const units = randint(0, 12, [2, 13], { ...host, generator: random() })
  const noise = randn([2, 5, 13], { ...host, generator: random() })
  const prompt = randn([2, 5, 4], { ...host, generator: random() })
  const given = {
    units,
    noise,
    prompt,
    promptLengths: [4, 2],
    lengths: [13, 9],
    promptNoise: 'fixed',
    steps: 5,
  } as const
  const away = { ...given, units: units.to('cuda'), noise: noise.to('cuda'), prompt: prompt.to('cuda') }

  it('gives what the CPU gives: a spectrogram, and the loss with its gradients', async () => {
    await scope(async () => {
      expectClose((await there.generate(away)).to('cpu'), await here.generate(given), 1e-5)
      const mel = randn([2, 5, 13], { ...host, generator: random() })
      const time = mel.select(1, 0).select(1, 0).sigmoid()
      const own = await here.loss({ units, mel, noise, time, lengths: [13, 9] })
      const far = await there.loss({
        ...{ units: away.units, mel: mel.to('cuda'), noise: away.noise, time: time.to('cuda'), lengths: [13, 9] },
      })
      expectClose(far.loss.to('cpu'), own.loss, 1e-5)
      await own.loss.backward()
      await far.loss.backward()
      const wanted = new Map(here.namedParameters())
      for (const [name, { grad }] of there.namedParameters()) {
        // Of the bias of an attention's keys the gradient is rounding.
        if (!name.endsWith('k_proj.bias'))
          expectClose((grad as Tensor).to('cpu'), wanted.get(name)?.grad as Tensor, 1e-4, name)
      }
    })
  })

  it('draws the noise of a seed as the CPU does, under the prompt too', async () => {
    await scope(async () => {
      const { noise: _, promptNoise: __, ...drawn } = given
      const far = { ...drawn, units: away.units, prompt: away.prompt, seed: 9 }
      expectClose((await there.generate(far)).to('cpu'), await here.generate({ ...drawn, seed: 9 }), 1e-5)
    })
  })

  it('waits for nothing, however many steps it takes', async () => {
    const run = (steps: number) => scope(async () => void (await there.generate({ ...away, steps })))
    await run(3)
    const [few, many] = [await counted(() => run(3)), await counted(() => run(9))]
    expect(many.waitsBy).toEqual({})
    expect(few.waitsBy).toEqual({})
    // Each two more are a step of Heun's method.
    expect((many.launches - few.launches) / 3).toBeLessThanOrEqual(LAUNCHES.step)
  })
})

/** With some room for what another version of libtorch does. */
const LAUNCHES = { vocoder: 130, step: 310 }
