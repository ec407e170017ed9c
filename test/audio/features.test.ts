import { describe, expect, test } from 'vitest'
import {
  autocast,
  Generator,
  kaldiFbank,
  logMelSpectrogram,
  melFilterBank,
  melSpectrogram,
  memoryStats,
  normalizeWav2Vec2,
  ops,
  padAudio,
  resample,
  scope,
  seamlessFeatures,
  spectrogram,
  type Tensor,
  tensor,
  zeros,
} from '../../lib/index.js'
import { BIGVGAN_MEL } from '../../lib/models/bigvgan/config.js'
import { expectClose, fixture, relativeError, settledTensors } from '../helpers.js'

const numbersOf = (values: Tensor) => values.dataSync() as Float32Array
const mean = (values: Float32Array) => values.reduce((sum, value) => sum + value, 0) / values.length

describe('against torchaudio and transformers', async () => {
  const fbank = await fixture<{ name: string; options: object }>('audio/fbank')
  for (const { name, options } of fbank.cases.slice(1)) {
    test(`kaldiFbank ${JSON.stringify(options)}`, async () => {
      const samples = fbank.tensors['shared/in/samples']!
      const wanted = fbank.tensors[`${name}/out/features`]!
      expectClose(await kaldiFbank(samples, options), wanted, 1e-5)
      // What gradients and other devices take: the same in ATen's operators.
      expectClose(await kaldiFbank(samples.to({ dtype: 'float64' }), options), wanted, 1e-5)
    })
  }

  const mel = await fixture<{ name: string; nMels?: number; melScale: 'htk'; norm: 'none'; options: object }>(
    'audio/mel',
  )
  const noise = mel.tensors['shared/in/samples']!
  for (const { name, nMels, melScale, norm, options } of mel.cases.slice(1)) {
    const wanted = mel.tensors[`${name}/out/features`]!
    if (name.startsWith('whisper')) {
      test(`logMelSpectrogram with ${nMels} bands`, async () => {
        expectClose(await logMelSpectrogram(noise, { nMels: nMels!, length: null }), wanted, 1e-6)
        const first = await logMelSpectrogram(noise.select(0, 0), { nMels: nMels!, length: null })
        expectClose(first, wanted.select(0, 0), 1e-6, 'one clip of the batch')
        const wide = noise.to({ dtype: 'float64' })
        expectClose(await logMelSpectrogram(wide, { nMels: nMels!, length: null }), wanted, 1e-6, 'in operators')
      })
    } else if (name.startsWith('filters')) {
      test(`melFilterBank ${melScale} ${norm}`, () => {
        const filters = melFilterBank(128, 12, 16000, { fMin: 50, fMax: 7600, melScale, norm })
        expectClose(filters, mel.tensors[`${name}/out/filters`]!, 1e-6)
      })
    } else if (name.startsWith('stft')) {
      test(`spectrogram ${JSON.stringify(options)}`, async () => {
        const clip = noise.select(0, 0).narrow(0, 0, 800)
        expectClose(await spectrogram(clip, options), wanted, 1e-6)
        expectClose(await spectrogram(clip.to({ dtype: 'float64' }), options), wanted, 1e-6)
      })
    }
  }

  test("a vocoder's mel spectrogram", async () => {
    const { sampleRate, ...recipe } = BIGVGAN_MEL
    const clip = noise.narrow(1, 0, 2048)
    const features = await melSpectrogram(clip, sampleRate, recipe)
    expect(features.shape).toEqual([2, 80, 8])
    expectClose(features, mel.tensors['vocoder/out/features']!, 1e-6)
    // Of a whisper what is added to each magnitude, 1e-9 below its root, is seen; of silence the floor.
    const whisper = clip.to({ dtype: 'float64' }).mul(3e-5)
    const powers = await spectrogram(whisper, { nFft: 1024, hopLength: 256, padding: 384, power: true })
    const filters = melFilterBank(1024, 80, sampleRate, { fMax: 8000 }).to({ dtype: 'float64' })
    const wanted = filters.matmul(powers.add(1e-9).sqrt()).clamp(1e-5).log()
    expectClose(await melSpectrogram(whisper, sampleRate, recipe), wanted, 1e-6)
    const silence = await melSpectrogram(zeros([1, 2048]), sampleRate, recipe)
    expectClose(silence, ops.fullLike(silence, Math.log(1e-5)), 1e-6)
  })

  const seamless = await fixture<{ name: string; nMels: number }>('audio/seamless')
  for (const { name, nMels } of seamless.cases) {
    test(`seamlessFeatures ${name}`, async () => {
      const samples = seamless.tensors[`${name}/in/samples`]!
      const wanted = seamless.tensors[`${name}/out/features`]!
      expectClose(await seamlessFeatures(samples, { nMels }), wanted, 1e-5)
      const batch = await seamlessFeatures(ops.stack([samples, samples.mul(0.5)]), { nMels })
      expectClose(batch.select(0, 0), wanted, 1e-5, 'in a batch')
    })
  }

  test('padAudio and normalizeWav2Vec2', async () => {
    const { tensors } = await fixture('audio/normalize')
    const clips = [0, 1, 2].map((i) => tensors[`padded/in/${i}`]!)
    const batch = await padAudio(clips, { normalize: true })
    expectClose(batch.inputValues, tensors['padded/out/inputValues']!, 1e-6)
    expect(batch.attentionMask.dtype).toBe('int64')
    expect(batch.attentionMask.toArray()).toEqual(tensors['padded/out/attentionMask']!.toArray())
    const alone = await normalizeWav2Vec2(clips[1]!)
    expectClose(alone, tensors['padded/out/inputValues']!.select(0, 1), 1e-6)
    const marked = await normalizeWav2Vec2(batch.inputValues, { attentionMask: batch.attentionMask, paddingValue: -7 })
    expect(marked.at(2, 499).item()).toBe(-7)

    const cut = await padAudio(clips, { length: 200 })
    expect(cut.inputValues.shape).toEqual([3, 200])
    expect(relativeError(numbersOf(cut.inputValues.select(0, 1)), numbersOf(clips[1]!.narrow(0, 0, 200)))).toBe(0)
    expect(cut.attentionMask.sum(1).toArray()).toEqual([200, 200, 120])
  })
})

test('autocast lowers no feature', async () => {
  const samples = ops.sin(ops.arange(0, 4000).div(9)).mul(0.3).requiresGrad_(true)
  const features = [
    logMelSpectrogram,
    (clip: Tensor) => kaldiFbank(clip),
    (clip: Tensor) => resample(clip, 16000, 22050),
  ]
  for (const feature of features) {
    await scope(async () => {
      const lowered = await autocast({ device: 'cpu', dtype: 'bfloat16' }, () => feature(samples))
      expect(lowered.equal(await feature(samples))).toBe(true)
    })
  }
})

// The vectors of the SALMONN description, sections 2.1, 2.3 and 9: 440 Hz at half scale for a second. The tone was computed
// in float32, whose rounding is all that the quiet bands of the fbank hear.
describe('the vectors of SALMONN', () => {
  const sound = () =>
    tensor(
      Float32Array.from({ length: 16000 }, (_, i) => {
        const phase = Math.fround(Math.fround(2 * Math.PI * 440) * Math.fround(i / 16000))
        return 0.5 * Math.fround(Math.sin(phase))
      }),
    )

  test("Whisper's mel filters", () => {
    const filters = numbersOf(melFilterBank(400, 80, 16000))
    expect(filters.reduce((sum, value) => sum + value, 0)).toBeCloseTo(1.9990241, 6)
    expect(Math.max(...filters)).toBeCloseTo(0.0258807, 7)
  })

  test('log-mel of a tone and of silence', async () => {
    const features = await logMelSpectrogram(sound())
    expect(features.shape).toEqual([80, 3000])
    const values = numbersOf(features)
    expect(values.reduce((a, b) => Math.max(a, b))).toBeCloseTo(1.438204, 5)
    expect(values.reduce((a, b) => Math.min(a, b))).toBeCloseTo(-0.561796, 5)
    expect(mean(values)).toBeCloseTo(-0.557661, 5)
    expect(features.select(1, 50).argmax().item()).toBe(11)
    expect(new Set(numbersOf(await logMelSpectrogram(zeros([16000]))))).toEqual(new Set([-1.5]))
  })

  test('fbank of a tone and of silence, as BEATs normalises it', async () => {
    const beats = async (samples: Tensor) =>
      (await kaldiFbank(samples.mul(32768), { nMels: 128 })).sub(15.41663).div(2 * 6.55582)
    const features = await beats(sound())
    expect(features.shape).toEqual([98, 128])
    const values = numbersOf(features)
    expect(Math.max(...values)).toBeCloseTo(0.717607, 5)
    expect(Math.min(...values)).toBeCloseTo(-2.391693, 5)
    expect(mean(values)).toBeCloseTo(-0.610935, 5)
    expect(features.select(0, 50).argmax().item()).toBe(23)
    for (const value of numbersOf(await beats(zeros([16000])))) expect(value).toBeCloseTo(-2.391693, 6)
  })

  test('lengths: frames are 1 + (n - 400) / 160, and 3000 for Whisper', async () => {
    for (const [seconds, frames] of [
      [1, 98],
      [2, 198],
      [5, 498],
      [10, 998],
      [30, 2998],
    ]) {
      const samples = zeros([seconds! * 16000])
      expect((await kaldiFbank(samples, { nMels: 128 })).shape).toEqual([frames, 128])
      expect((await logMelSpectrogram(samples)).shape).toEqual([80, 3000])
    }
  })
})

test('dither is noise of the given size, the same for the same seed', async () => {
  const samples = zeros([16000])
  const noisy = (seed: number) => kaldiFbank(samples, { dither: 1, generator: new Generator({ seed }) })
  const [one, same, other] = [await noisy(1), await noisy(1), await noisy(2)]
  expect(ops.equal(one, same)).toBe(true)
  expect(ops.equal(one, other)).toBe(false)
  // Noise of deviation 2 has four times the power.
  const louder = await kaldiFbank(samples, { dither: 2, generator: new Generator({ seed: 1 }) })
  expect(numbersOf(louder.sub(one).mean())[0]).toBeCloseTo(Math.log(4), 4)
})

test('features have gradients', async () => {
  const noise = Float64Array.from({ length: 800 }, (_, i) => 0.3 * Math.sin(i * i))
  const clip = () => tensor(noise, { requiresGrad: true })
  for (const feature of [
    (x: Tensor) => kaldiFbank(x),
    (x: Tensor) => logMelSpectrogram(x, { length: null }),
    (x: Tensor) => normalizeWav2Vec2(x),
  ]) {
    const samples = clip()
    const weights = (await feature(samples.detach())).mul(0).add(1).cumsum(-1)
    const loss = async (x: Tensor) => (await feature(x)).mul(weights).sum()
    await (await loss(samples)).backward()
    const slope = samples.grad!.at(300).item() as number
    const step = 1e-6
    const moved = (by: number) => {
      const copy = samples.detach().clone()
      copy.setAt([300], (copy.at(300).item() as number) + by)
      return copy
    }
    const difference = ((await loss(moved(step))).item() as number) - ((await loss(moved(-step))).item() as number)
    expect(slope).not.toBe(0)
    expect(Math.abs(difference / (2 * step) - slope)).toBeLessThan(1e-4 * Math.abs(slope))
  }
})

describe('every feature refuses by its own name', () => {
  const features: Record<string, (samples: Tensor, options?: object) => Promise<Tensor>> = {
    logMelSpectrogram,
    spectrogram,
    melSpectrogram: (samples, options) => melSpectrogram(samples, 16000, options),
    kaldiFbank,
  }
  test.each(Object.entries(features))('%s', async (name, feature) => {
    const refused = (message: string) => ({ name: 'ConfigError', message: expect.stringContaining(message) })
    for (const samples of ['x', [0.5], null, undefined]) {
      await expect(feature(samples as never)).rejects.toMatchObject(refused(`${name}: expected samples to be a tensor`))
    }
    await expect(feature(zeros([1000]), { bands: 3 })).rejects.toMatchObject(
      refused(`${name}: expected a known option, got 'bands'`),
    )
  })

  test('melFilterBank', () => {
    expect(() => melFilterBank(1, 80, 16000)).toThrow(/melFilterBank: expected nFft to be an integer of at least 2/)
    expect(() => melFilterBank(400, 0, 16000)).toThrow(/melFilterBank: expected nMels to be an integer of at least 1/)
    expect(() => melFilterBank(400, 80, '16000' as never)).toThrow(/melFilterBank: expected sampleRate to be a/)
    expect(() => melFilterBank(400, 80, 16000, { bands: 3 } as never)).toThrow(
      /melFilterBank: expected a known option, got 'bands'/,
    )
  })
})

test('wrong arguments are typed errors', async () => {
  const samples = zeros([1000])
  await expect(logMelSpectrogram(zeros([100]), { length: null })).rejects.toThrow(/at least 400 samples/)
  await expect(kaldiFbank(zeros([399]))).rejects.toThrow(/at least the 400 samples of a frame/)
  await expect(kaldiFbank(samples, { window: 'triangle' as never })).rejects.toThrow(/window must be 'hann'/)
  await expect(kaldiFbank(samples, { fMin: 9000 })).rejects.toThrow(/band must lie within/)
  await expect(kaldiFbank(samples, { nMels: 2 ** 40 })).rejects.toThrow(/n_mels must be between/)
  await expect(kaldiFbank(samples, { bands: 3 } as never)).rejects.toMatchObject({
    code: expect.stringMatching(/^ERR_/),
  })
  await expect(kaldiFbank(zeros([1000], { dtype: 'int64' }))).rejects.toThrow(/floating point/)
  await expect(spectrogram(samples, { nFft: 4096 })).rejects.toThrow(/pad the clip first/)
  await expect(spectrogram(samples, { hopLength: 0 })).rejects.toThrow(/hop_length/)
  expect(() => melFilterBank(400, 80, 16000, { fMax: 9000 })).toThrow(/band must lie within/)
  await expect(padAudio([])).rejects.toThrow(/expected at least one clip/)
  await expect(padAudio([zeros([2, 2])])).rejects.toThrow(/shape \[samples\]/)
  expect((await kaldiFbank(zeros([1000]), { minDuration: 1 })).shape).toEqual([0, 23])
  expect((await kaldiFbank(zeros([0, 1000]))).shape).toEqual([0, 4, 23])
})

test('the energy of silence is the logarithm of energyFloor, as torchaudio has it', async () => {
  // torchaudio.compliance.kaldi: max(log(max(energy, epsilon of float32)), log(energy_floor)), without the last at 0.
  const energy = async (options: object) =>
    (await kaldiFbank(zeros([400]), { useEnergy: true, ...options })).select(1, 0).toArray() as number[]
  expect(await energy({})).toEqual([0])
  expect((await energy({ energyFloor: 0.5 }))[0]).toBeCloseTo(Math.log(0.5), 6)
  expect((await energy({ energyFloor: 0 }))[0]).toBeCloseTo(Math.log(2 ** -23), 5)
})

test('no tensor is left behind', async () => {
  const samples = zeros([2, 1600])
  const before = await settledTensors()
  await scope(async () => {
    await kaldiFbank(samples, { useEnergy: true })
    await logMelSpectrogram(samples)
    await melSpectrogram(samples, 16000)
    await padAudio([samples.select(0, 0)], { normalize: true })
  })
  expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
  const features = await logMelSpectrogram(samples)
  const { inputValues, attentionMask } = await padAudio([features.select(0, 0).select(0, 0)])
  expect(memoryStats().liveTensors - before).toBeLessThanOrEqual(5)
  for (const made of [features, inputValues, attentionMask]) made.dispose()
})
