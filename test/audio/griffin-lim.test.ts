import { describe, expect, it } from 'vitest'
import {
  ConfigError,
  griffinLim,
  inverseMelSpectrogram,
  melFilterBank,
  melSpectrogram,
  ops,
  randn,
  ShapeError,
  spectrogram,
  type Tensor,
} from '../../lib/index.js'
import { difference, expectClose, fixture, settledTensors, tensorsOf } from '../helpers.js'

interface Case {
  name: string
  n_fft?: number
  hop: number
  win?: number
  pad?: 'reflect' | 'constant'
  iterations: number
  momentum: number
}
const file = await fixture<Case>('audio/griffin-lim')

/** A few tones whose loudness changes. */
const sound = (samples: number, rate: number): Tensor => {
  const time = ops.arange(samples).div(rate)
  const tone = (hz: number, beat: number) =>
    time
      .mul(2 * Math.PI * hz)
      .sin()
      .mul(
        time
          .mul(2 * Math.PI * beat)
          .cos()
          .add(1.5),
      )
  return tone(220, 3).add(tone(470, 5)).add(tone(1230, 2)).mul(0.1)
}

describe('griffinLim', () => {
  it.each(file.cases.filter(({ n_fft }) => n_fft))(
    '$name, as librosa',
    async ({ name, n_fft: nFft, hop, win, pad, ...rest }) => {
      const { iterations, momentum } = rest
      const magnitudes = tensorsOf(file, name, 'in').magnitudes as Tensor
      const options = { nFft: nFft as number, hopLength: hop, winLength: win ?? (nFft as number), iterations, momentum }
      const settings = { ...options, init: 'zero' as const, padMode: pad ?? ('reflect' as const) }
      const wanted = tensorsOf(file, name, 'out').samples as Tensor
      expectClose((await griffinLim(magnitudes.double(), settings)).float(), wanted, 1e-6, 'float64')
      expectClose(await griffinLim(magnitudes, settings), wanted, 1e-4, 'float32')
      const batch = await griffinLim(ops.stack([magnitudes.mul(2), magnitudes]).double(), settings)
      expectClose(batch.select(0, 1).float(), wanted, 1e-6, 'in a batch')
    },
  )

  it('the spectrogram of what it makes comes near to what was asked for, also between frames as vocoders cut them', async () => {
    const samples = sound(22050, 22050)
    const options = { nFft: 1024, hopLength: 256, padding: 384 }
    const wanted = await spectrogram(samples.narrow(0, 0, 256 * 80), { ...options, power: false })
    const off = async (iterations: number) => {
      const made = await griffinLim(wanted, { ...options, iterations, seed: 3 })
      expect(made.shape).toEqual([256 * 80])
      const again = await spectrogram(made, { ...options, power: false })
      return again.sub(wanted).square().sum().div(wanted.square().sum()).sqrt().item() as number
    }
    const [first, later] = [await off(0), await off(60)]
    expect(later).toBeLessThan(0.15)
    expect(later).toBeLessThan(first / 3)
  })

  it('a seed fixes it, and nothing is left behind', async () => {
    const magnitudes = randn([17, 9]).abs()
    const before = await settledTensors()
    const [a, b, c] = await Promise.all([1, 1, 2].map((seed) => griffinLim(magnitudes, { seed, iterations: 3 })))
    expect(a?.equal(b as Tensor)).toBe(true)
    expect(a?.equal(c as Tensor)).toBe(false)
    for (const one of [a, b, c]) one?.dispose()
    expect(await settledTensors()).toBe(before)
  })

  it.each<[object, RegExp]>([
    [{ nFft: 30 }, /bins/],
    [{ hopLength: 40 }, /hopLength/],
    [{ momentum: 1 }, /momentum/],
    [{ init: 'noise' }, /init/],
    [{ padding: 0 }, /cover all samples/],
    [{ padding: 900 }, /padding/],
    [{ length: 3 }, /length/],
  ])('refuses %o', async (options, sentence) => {
    await expect(griffinLim(randn([17, 9]).abs(), options)).rejects.toThrow(sentence)
  })

  it('refuses what is no spectrogram', async () => {
    await expect(griffinLim(randn([17]))).rejects.toThrow(ShapeError)
    await expect(griffinLim(randn([17, 0]))).rejects.toThrow(ShapeError)
    await expect(griffinLim(3 as never)).rejects.toThrow(ConfigError)
  })
})

describe('inverseMelSpectrogram', () => {
  it('leaves as little as non-negative least squares do', async () => {
    const mel = tensorsOf(file, 'mel', 'in').mel as Tensor
    const left = tensorsOf(file, 'mel', 'out').left as Tensor
    const found = await inverseMelSpectrogram(mel.double(), 8000, { nFft: 64, iterations: 3000 })
    expect(found.shape).toEqual([33, 5])
    expect(found.min().item()).toBeGreaterThanOrEqual(0)
    const bands = melFilterBank(64, 12, 8000).double().matmul(found)
    const rest = bands.sub(mel.double()).square().sum([0]).sqrt().float()
    const scale = mel.square().sum([0]).sqrt()
    expect(rest.sub(left).div(scale).max().item()).toBeLessThan(2e-3)
  })

  it('undoes the logarithm, and with griffinLim makes sound with these bands', async () => {
    const recipe = { nFft: 1024, hopLength: 256, padding: 384 }
    const bands = { ...recipe, power: false, magnitudeEpsilon: 1e-9, fMax: 8000, log: 'ln', floor: 1e-5 } as const
    const samples = sound(256 * 60, 22050)
    const mel = await melSpectrogram(samples, 22050, bands)
    const magnitudes = await inverseMelSpectrogram(mel, 22050, { nFft: 1024, fMax: 8000, log: 'ln' })
    const made = await griffinLim(magnitudes, { ...recipe, iterations: 60, seed: 1 })
    expect(made.shape).toEqual(samples.shape)
    const again = await melSpectrogram(made, 22050, bands)
    expect(difference(again.exp(), mel.exp())).toBeLessThan(0.3)
    const power = await inverseMelSpectrogram(mel.exp().square().log10(), 22050, {
      nFft: 1024,
      fMax: 8000,
      log: 'log10',
      power: true,
    })
    expect(power.isnan().any().item()).toBe(false)
  })

  it('refuses what does not fit', async () => {
    await expect(inverseMelSpectrogram(randn([80]), 22050, { nFft: 1024 })).rejects.toThrow(ShapeError)
    await expect(
      inverseMelSpectrogram(randn([80, 2]).abs(), 22050, { nFft: 1024, log: 'log2' as never }),
    ).rejects.toThrow(/log/)
    await expect(inverseMelSpectrogram(randn([80, 2]).abs(), 22050, {} as never)).rejects.toThrow(/nFft/)
  })
})
