import { describe, expect, test } from 'vitest'
import {
  memoryStats,
  ops,
  type ResampleOptions,
  Resampler,
  resample,
  scope,
  type Tensor,
  tensor,
  zeros,
} from '../../lib/index.js'
import { expectClose, fixture, relativeError, settledTensors } from '../helpers.js'
import { tone } from './helpers.js'

const numbersOf = (values: Tensor) => values.dataSync() as Float32Array

describe('against torchaudio and soxr', async () => {
  const file = await fixture<{ name: string; from: number; to: number; options: ResampleOptions }>('audio/resample')
  for (const { name, from, to, options } of file.cases) {
    test(name, async () => {
      const samples = file.tensors[`${name}/in/samples`]!
      const wanted = file.tensors[`${name}/out/samples`]!
      // soxr is 2e-4 off the exact tones itself; the tests below hold us to more.
      const tolerance = name.startsWith('soxr') ? 3e-4 : 1e-6
      expectClose(await resample(samples, from, to, options), wanted, tolerance)
      // What gradients and other devices take: the same in ATen's operators.
      expectClose(await resample(samples.to({ dtype: 'float64' }), from, to, options), wanted, tolerance)
    })
  }
})

test('parts give bit for bit what the whole gives', async () => {
  const samples = tensor(Float32Array.from({ length: 6000 }, (_, i) => Math.sin(i * i * 0.001)))
  for (const [from, to] of [
    [44100, 16000],
    [16000, 44100],
    [8000, 16000],
    [48000, 8000],
    [16000, 16000],
  ] as const) {
    for (const quality of ['sinc', 'high'] as const) {
      const whole = await resample(samples, from, to, { quality })
      for (const sizes of [[6000], [1, 2, 3, 5000], [0, 700, 0], [40, 41, 42, 43, 44]]) {
        const resampler = new Resampler(from, to, { quality })
        const parts: Tensor[] = []
        let at = 0
        for (let i = 0; at < 6000; i += 1) {
          const size = Math.min(sizes[i % sizes.length]!, 6000 - at)
          parts.push(await resampler.push(samples.narrow(0, at, size)))
          at += size
        }
        parts.push(await resampler.flush())
        expect(ops.equal(ops.cat(parts), whole), `${from} to ${to}, ${quality}, parts of ${sizes}`).toBe(true)
      }
    }
  }
})

test('a flushed resampler begins anew, and takes one call at a time', async () => {
  const resampler = new Resampler(2, 1)
  await expect(resampler.flush()).rejects.toThrow(/Call push first/)
  const first = resampler.push(zeros([2, 100]))
  await expect(resampler.push(zeros([2, 100]))).rejects.toThrow(/Await each call/)
  await first
  expect((await resampler.flush()).size(-1) + (await first).size(-1)).toBe(50)
  await resampler.push(zeros([7]))
  expect((await resampler.flush()).shape).toEqual([4])
  resampler.dispose()
})

/** The level of one frequency in the middle of a signal, by correlation under a Hann window. */
function level(samples: Float32Array, hertz: number, sampleRate: number): number {
  const begin = samples.length >> 2
  const count = samples.length >> 1
  let re = 0
  let im = 0
  let weight = 0
  for (let i = 0; i < count; i += 1) {
    const window = 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / count)
    const angle = (2 * Math.PI * hertz * i) / sampleRate
    re += window * samples[begin + i]! * Math.cos(angle)
    im -= window * samples[begin + i]! * Math.sin(angle)
    weight += window
  }
  return (2 * Math.hypot(re, im)) / weight
}

const decibels = (ratio: number) => 20 * Math.log10(ratio)

describe("the 'high' recipe", () => {
  const send = async (hertz: number, from: number, to: number, quality: 'high' | 'sinc') =>
    numbersOf(await resample(tensor(tone(hertz, 1, from, from)), from, to, { quality }))

  test('is flat to 0.913 of the lower Nyquist frequency', async () => {
    for (const [from, to] of [
      [44100, 16000],
      [16000, 44100],
    ] as const) {
      for (const part of [0.01, 0.3, 0.6, 0.8, 0.9, 0.913]) {
        const hertz = (Math.min(from, to) / 2) * part
        const ripple = Math.abs(decibels(level(await send(hertz, from, to, 'high'), hertz, to)))
        expect(ripple, `${hertz} Hz from ${from} to ${to}`).toBeLessThan(1e-4)
      }
    }
  })

  test('keeps what would fold back 120 dB down, where the default lets it through', async () => {
    for (const hertz of [8001, 8100, 9000, 12000, 15000, 21000]) {
      const rest = await send(hertz, 44100, 16000, 'high')
      const middle = rest.subarray(4000, 12000)
      const loudest = middle.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
      expect(decibels(loudest), `${hertz} Hz`).toBeLessThan(-120)
    }
    expect(decibels(level(await send(8100, 44100, 16000, 'sinc'), 7900, 16000))).toBeGreaterThan(-20)
  })

  test('makes no images when it goes up', async () => {
    const hertz = 7000
    const up = await send(hertz, 16000, 48000, 'high')
    for (const image of [16000 - hertz, 16000 + hertz]) expect(decibels(level(up, image, 48000))).toBeLessThan(-120)
  })
})

test('has gradients', async () => {
  const samples = tensor(tone(1, 1, 20, 40), { dtype: 'float64', requiresGrad: true })
  const slow = tensor(tone(1, 1, 20, 40), { requiresGrad: true })
  const made = await resample(slow, 3, 2)
  expectClose(made.detach(), await resample(slow.detach(), 3, 2), 1e-6)
  await made.sum().backward()
  expect(slow.grad!.shape).toEqual([40])
  const wide = await resample(samples, 3, 2)
  await wide.square().sum().backward()
  // The derivative of a sum of squares along the signal itself is twice the sum.
  const along = samples.grad!.mul(samples.detach()).sum().item() as number
  const total = wide.detach().square().sum().item() as number
  expect(Math.abs(along - 2 * total)).toBeLessThan(1e-9 * total)
})

test('edges: nothing, one sample, the same rate, a batch', async () => {
  expect((await resample(zeros([0]), 44100, 16000)).shape).toEqual([0])
  expect((await resample(zeros([1]), 44100, 16000)).shape).toEqual([1])
  expect((await resample(zeros([0, 5]), 2, 1)).shape).toEqual([0, 3])
  const samples = tensor([1, 2, 3], { dtype: 'float32' })
  const same = await resample(samples, 5, 5)
  expect(same.toArray()).toEqual([1, 2, 3])
  same.fill_(0)
  expect(samples.toArray(), 'the result is a copy').toEqual([1, 2, 3])
  const batch = tensor(tone(440, 1, 8000, 600), { shape: [2, 300] })
  const both = await resample(batch, 8000, 16000)
  expect(relativeError(numbersOf(both.select(0, 1)), numbersOf(await resample(batch.select(0, 1), 8000, 16000)))).toBe(
    0,
  )
})

// One convolution for all phases would be mostly zeros here: the operators sum over taps instead.
test('rates with hardly a common factor', async () => {
  const sound = tensor(tone(440, 1, 44100, 3000), { dtype: 'float64' })
  const narrow = sound.to({ dtype: 'float32' })
  expectClose(
    await resample(narrow, 44100, 16001),
    (await resample(sound, 44100, 16001)).to({ dtype: 'float32' }),
    1e-6,
  )
})

test('wrong arguments are typed errors', async () => {
  const samples = zeros([100])
  for (const rate of [0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, '8000' as never]) {
    await expect(resample(samples, rate, 8000)).rejects.toMatchObject({ code: 'ERR_CONFIG' })
    expect(() => new Resampler(8000, rate)).toThrow(/integer/)
  }
  await expect(resample(samples, 4294967291, 16000)).rejects.toThrow(/rates must be between/)
  await expect(resample(samples, 2147483647, 16000)).rejects.toThrow(/too big/)
  await expect(resample(samples, 2, 1, { quality: 'best' as never })).rejects.toMatchObject({ code: 'ERR_CONFIG' })
  await expect(resample(samples, 2, 1, { rolloff: 2 })).rejects.toThrow(/rolloff/)
  await expect(resample(samples, 2, 1, { lowpassFilterWidth: 0 })).rejects.toThrow(/lowpass_filter_width/)
  await expect(resample([1, 2] as never, 2, 1)).rejects.toMatchObject({ code: 'ERR_CONFIG' })
  await expect(resample(zeros([10], { dtype: 'int64' }), 2, 1)).rejects.toThrow(/floating point/)
})

test('no tensor is left behind', async () => {
  const samples = zeros([2, 5000])
  const before = await settledTensors()
  await scope(async () => {
    await resample(samples, 3, 2)
    const resampler = new Resampler(3, 2)
    await resampler.push(samples)
    await resampler.push(samples)
    await resampler.flush()
    resampler.dispose()
  })
  expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
})
