import { describe, expect, it } from 'vitest'
import {
  autocast,
  autograd,
  Generator,
  kaldiFbank,
  logMelSpectrogram,
  melSpectrogram,
  noGrad,
  normalizeWav2Vec2,
  padAudio,
  randn,
  resample,
  scope,
  spectrogram,
  type Tensor,
} from '../../../lib/index.js'
import { expectAsExact, expectClose } from '../../helpers.js'
import { counted } from './counts.js'

/** Clips [2, n] of speech-like loudness on the CPU, the same for every test. */
const clips = (n: number) => randn([2, n], { device: 'cpu', generator: new Generator(7) }).mul(0.1)

// What each takes at most: padding and its copy, the window, the transform, its square, the bands, the logarithm.
const FEATURES: [string, (samples: Tensor) => Promise<Tensor>, number][] = [
  ['log-mel, 30 s', (samples) => logMelSpectrogram(samples), 14],
  ['log-mel, no padding', (samples) => logMelSpectrogram(samples, { nMels: 128, length: null }), 12],
  ['mel', (samples) => melSpectrogram(samples, 16000), 6],
  [
    "a vocoder's mel",
    (samples) =>
      melSpectrogram(samples, 22050, {
        nFft: 1024,
        hopLength: 256,
        winLength: 800,
        power: false,
        magnitudeEpsilon: 1e-9,
      }),
    10,
  ],
  ['a spectrum', (samples) => spectrogram(samples, { padMode: 'constant' }), 8],
  ['fbank', (samples) => kaldiFbank(samples, { nMels: 128, log: false }), 10],
  ['log fbank', (samples) => kaldiFbank(samples.mul(32768), { nMels: 128 }), 13],
  ['fbank, energies and ends', (samples) => kaldiFbank(samples, { useEnergy: true, snipEdges: false }), 22],
  ['normalised', (samples) => normalizeWav2Vec2(samples), 7],
  ['44.1 to 16 kHz', (samples) => resample(samples, 44100, 16000), 5],
  ['16 to 22.05 kHz', (samples) => resample(samples, 16000, 22050), 5],
]

describe('features of clips on the device', () => {
  it.each(FEATURES)('%s: what the CPU gives', async (_, feature) => {
    await scope(async () => {
      const samples = clips(16000)
      const made = await feature(samples.to('cuda'))
      expect(made.device).toBe('cuda:0')
      // In float32 as on the device: where a gradient is wanted, the CPU takes the same operators, else float64 sums.
      const theirs = (await feature(samples.detach().requiresGrad_(true))).detach()
      expectAsExact(made.to('cpu'), theirs, await feature(samples.double()), 1024)
    })
  })

  it.each(FEATURES)('%s: tables are sent once, and nothing waits', async (_, feature, most) => {
    await scope(async () => {
      const samples = clips(16000).to('cuda')
      await noGrad(() => feature(samples))
      const { launches, waitsBy, bytesToDevice, bytesToHost } = await counted(() => noGrad(() => feature(samples)))
      expect(waitsBy).toEqual({})
      expect([bytesToDevice, bytesToHost]).toEqual([0, 0])
      expect(launches).toBeLessThanOrEqual(most)
    })
  })

  it.each(FEATURES)('%s: the gradients that the CPU gives', async (_, feature) => {
    const gradient = async (samples: Tensor) => {
      const leaf = samples.detach().requiresGrad_(true)
      const [grad] = await autograd.grad((await feature(leaf)).square().sum(), [leaf])
      return (grad as Tensor).to('cpu')
    }
    await scope(async () => {
      const samples = clips(3000).to({ dtype: 'float64' })
      expectClose(await gradient(samples.to('cuda')), await gradient(samples), 1e-5)
    })
  })

  it.each(FEATURES)('%s: not in the dtype of autocast', async (_, feature) => {
    await scope(async () => {
      const samples = clips(16000).to('cuda')
      const lowered = await autocast({ device: 'cuda', dtype: 'bfloat16' }, () => feature(samples))
      expect(lowered.dtype).toBe('float32')
      expect(lowered.to('cpu').equal((await feature(samples)).to('cpu'))).toBe(true)
    })
  })

  it('a batch is as many launches as a clip', async () => {
    const one = clips(16000).narrow(0, 0, 1).to('cuda')
    const launches = async (samples: Tensor) =>
      (await counted(() => scope(() => noGrad(() => logMelSpectrogram(samples))))).launches
    await launches(one)
    expect(await launches(one.expand([8, 16000]).contiguous())).toBe(await launches(one))
  })

  it('a long clip is computed in parts, and equal', async () => {
    await scope(async () => {
      const samples = clips(16000 * 460)
      const { launches } = await counted(() =>
        logMelSpectrogram(samples.narrow(1, 0, 16000).to('cuda'), { length: null }),
      )
      let made: Tensor | undefined
      const whole = await counted(async () => {
        made = await logMelSpectrogram(samples.to('cuda'), { length: null })
      })
      expect(whole.launches).toBeGreaterThan(launches)
      const [from, count] = [41943 - 200, 400] // where the first part ends
      const wanted = (await logMelSpectrogram(samples, { length: null })).narrow(-1, from, count)
      expectClose(made!.narrow(-1, from, count).to('cpu'), wanted, 1e-5)
    })
  })

  it('dithered by the same generator: the same noise', async () => {
    const dithered = (samples: Tensor, generator: Generator) =>
      kaldiFbank(samples, { dither: 1, log: false, generator })
    await scope(async () => {
      const samples = clips(8000).mul(32768)
      const wanted = await dithered(samples, new Generator(3))
      expectClose((await dithered(samples.to('cuda'), new Generator(3))).to('cpu'), wanted, 1e-5)
      const drawn = () => dithered(samples.to('cuda'), new Generator({ seed: 3, device: 'cuda' }))
      expect((await drawn()).to('cpu').equal((await drawn()).to('cpu'))).toBe(true)
    })
  })

  it('are padded and masked where the clips are', async () => {
    await scope(async () => {
      const list = [clips(900).select(0, 0), clips(400).select(0, 1)]
      const wanted = await padAudio(list, { normalize: true })
      const onDevice = list.map((clip) => clip.to('cuda'))
      let made: Awaited<ReturnType<typeof padAudio>> | undefined
      const { waitsBy } = await counted(async () => {
        made = await padAudio(onDevice, { normalize: true })
      })
      expect(waitsBy).toEqual({})
      expectClose(made!.inputValues.to('cpu'), wanted.inputValues, 1e-5)
      expect(made!.attentionMask.to('cpu').equal(wanted.attentionMask)).toBe(true)
    })
  })
})
