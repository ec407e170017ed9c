import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import {
  ConfigError,
  memoryStats,
  noGrad,
  resample,
  type Salmonn,
  scope,
  setNumThreads,
  type Tensor,
  tensor,
} from '../../../../lib/index.js'
import { overlappingWindows } from '../../../../lib/kit/audio-encoding/windows.js'
import { type SalmonnAudio, SalmonnCache } from '../../../../lib/systems/salmonn/index.js'
import { numbers, relativeError, settledTensors } from '../../../helpers.js'
import { clip, tinySalmonn } from './tiny.js'

let model: Salmonn
beforeAll(async () => {
  setNumThreads(1)
  model = await tinySalmonn()
})
afterAll(() => model.dispose())

/** Louder and softer, deeper and higher: no stretch sounds like another. */
const changing = (seconds: number): Float32Array => {
  const noise = clip(3, seconds)
  return noise.map((value, i) => {
    const t = i / 16000
    return value * (1.5 + Math.sin(5 * t + t * t)) + 0.2 * Math.sin(2 * Math.PI * (200 + 150 * Math.sin(1.7 * t)) * t)
  })
}
const rowsOf = (embeddings: Tensor): number[][] => embeddings.toArray() as number[][]
const distance = (a: number[], b: number[]): number => Math.hypot(...a.map((value, i) => value - (b[i] as number)))

describe('windows of a long clip', () => {
  const published = { most: 480_000, overlap: 2.56 * 16_000, window: 5440, stride: 5440, patch: 2560 }

  it('are 30 s, one every 27.2 s: whole tokens and whole patches, with the wanted overlap', () => {
    const windows = overlappingWindows(60 * 16_000, published)
    expect(windows.map(({ from, to }) => [from / 16_000, to / 16_000])).toEqual([
      [0, 30],
      [27.2, 57.2],
      [54.4, 60],
    ])
    // 27.2 s are 80 tokens; the middle of the shared 2.8 s lies in the fifth of them.
    expect(windows.map(({ first, end }) => [first, end])).toEqual([
      [0, 84],
      [4, 84],
      [4, null],
    ])
    expect(overlappingWindows(480_000, published)).toEqual([{ from: 0, to: 480_000, first: 0, end: null }])
  })

  it('give each token of the clip once, whole, from the window that has its surroundings', () => {
    const frame = 320
    for (const [window, stride] of [
      [17, 17],
      [17, 8],
      [20, 30],
      [1, 1],
      [40, 7],
    ] as const) {
      for (const overlap of [0, 0.1, 0.5, 1]) {
        for (let samples = 32_001; samples < 200_000; samples += 7919) {
          const most = 32_000 * (1 + (samples % 3))
          const sizes = { most, overlap: overlap * 16_000, window: window * frame, stride: stride * frame, patch: 2560 }
          const windows = overlappingWindows(samples, sizes)
          const frames = Math.ceil(samples / frame)
          const count = frames <= window ? 1 : 1 + Math.ceil((frames - window) / stride)
          const wanted = Math.min(count, 1 + Math.floor((frames - 1) / stride))
          let next = 0
          for (const { from, to, first, end } of windows) {
            expect(from % sizes.stride).toBe(0)
            expect(to - from).toBeLessThanOrEqual(most)
            expect(from / sizes.stride + first).toBe(next)
            const last = end === null ? wanted : from / sizes.stride + end
            expect(last).toBeGreaterThan(next)
            if (end !== null) expect((last - 1) * sizes.stride + sizes.window).toBeLessThanOrEqual(to)
            next = last
          }
          expect([next, windows.at(-1)?.to]).toEqual([wanted, samples])
        }
      }
    }
  })
})

describe('audio longer than the encoder hears at once', () => {
  it('costs the tokens of its length, and a clip that fits is heard as before', async () => {
    for (const seconds of [1.9, 2, 2.1, 3.4, 5, 11.3]) {
      const [tokens] = await model.encodeAudio([clip(4, seconds)])
      expect(tokens?.size(0), `${seconds} s`).toBe(Math.ceil(Math.ceil(seconds * 50) / 17))
    }
    const short = [clip(1, 1.7)]
    const [with0, with1] = [await model.encodeAudio(short, { overlap: 0 }), await model.encodeAudio(short)]
    expect(numbers(with0[0] as Tensor)).toEqual(numbers(with1[0] as Tensor))
  })

  describe('against one window over all of it', () => {
    const seconds = 40
    const sound = changing(seconds)
    /** Windows of 16 tokens and 34 patches, so that without overlap nothing is shared. */
    const few = 5.44
    const boundaries = [1, 2, 3, 4, 5, 6, 7].map((i) => 16 * i)
    let [single, divided] = [] as unknown as [Salmonn, Salmonn]
    beforeAll(async () => {
      single = await tinySalmonn(seconds)
      divided = await tinySalmonn(few)
    })
    afterAll(() => {
      single.dispose()
      divided.dispose()
    })
    const errorsOf = async (overlap?: number): Promise<number[]> => {
      const [whole, rows] = await scope(async () => [
        rowsOf((await single.encodeAudio([sound]))[0] as Tensor),
        rowsOf((await divided.encodeAudio([sound], { overlap }))[0] as Tensor),
      ])
      expect(rows).toHaveLength(118)
      expect(whole).toHaveLength(118)
      const size = Math.hypot(...whole.flat()) / Math.sqrt(whole.length)
      return rows.map((row, i) => distance(row, whole[i] as number[]) / size)
    }
    const mean = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / values.length
    const besides = (errors: number[]) => mean(boundaries.flatMap((at) => errors.slice(at - 1, at + 1)))

    it('tokens beside a boundary come nearer with overlap', async () => {
      const [without, overlapping] = [await errorsOf(0), await errorsOf()]
      expect(besides(without)).toBeGreaterThan(0.1)
      expect(besides(overlapping)).toBeLessThan(besides(without) / 5)
      expect(mean(overlapping)).toBeLessThan(mean(without) / 1.5)
    })

    it('where no attention looks afar they are the same, each once in its place', async () => {
      for (const network of [single, divided]) {
        for (const [name, parameter] of network.namedParameters()) {
          if (/^(speech_encoder|beats)\..*out_proj/.test(name)) noGrad(() => parameter.zero_())
        }
      }
      const [without, overlapping] = [await errorsOf(0), await errorsOf()]
      expect(Math.max(...overlapping)).toBeLessThan(1e-5)
      for (const at of boundaries) expect(Math.max(...without.slice(at - 1, at + 1))).toBeGreaterThan(0.1)
    })
  })

  it('is heard as published in windows of 30 s beside each other, of which each costs as much', async () => {
    const [short] = await model.encodeAudio([clip(1, 0.4)], { compat: 'published' })
    expect((short as Tensor).shape).toEqual([5, 16])
    const long = clip(4, 5)
    const cuts = [0, 26667, 53333, 80000]
    const parts = [0, 1, 2].map((i) => long.subarray(cuts[i], cuts[i + 1]))
    const [whole] = await model.encodeAudio([long], { compat: 'published' })
    const single = await model.encodeAudio(parts, { compat: 'published' })
    expect(numbers(whole as Tensor)).toEqual(single.flatMap((part) => numbers(part)))
  })

  it('takes the overlap of the call, else that of the model', async () => {
    const long = [clip(5, 4.2)]
    const [plain] = await model.encodeAudio(long, { overlap: 0 })
    const [usual] = await model.encodeAudio(long)
    expect(relativeError(numbers(usual as Tensor), numbers(plain as Tensor))).toBeGreaterThan(1e-3)
    model.overlap = 0
    expect(numbers((await model.encodeAudio(long))[0] as Tensor)).toEqual(numbers(plain as Tensor))
    model.overlap = undefined
    expect(numbers((await model.encodeAudio(long))[0] as Tensor)).toEqual(numbers(usual as Tensor))
    await expect(model.encodeAudio(long, { overlap: 1.1 })).rejects.toThrow(/overlap: expected at most 1 s, half of/)
    await expect(model.generate([{ text: '<SpeechHere>', clips: long }], { overlap: -1 })).rejects.toThrow(ConfigError)
  })
})

describe('a clip', () => {
  const sound = clip(6, 1.1)
  const heard = async (given: SalmonnAudio, from = model) => numbers((await from.encodeAudio([given]))[0] as Tensor)

  it('may be an array, a tensor, or what readAudio gives: at any rate, of any channels', async () => {
    const wanted = await heard(sound)
    expect(await heard(tensor(sound))).toEqual(wanted)
    expect(await heard({ samples: tensor(sound), sampleRate: 16_000 })).toEqual(wanted)
    const louder = sound.map((value) => 1.5 * value)
    const softer = sound.map((value) => 0.5 * value)
    const stereo = tensor(Float32Array.from([...louder, ...softer]), { shape: [2, sound.length] })
    expect(relativeError(await heard({ samples: stereo, sampleRate: 16_000 }), wanted)).toBeLessThan(1e-4)
    const slow = tensor(clip(6, 0.9))
    const fast = new Float32Array((await (await resample(slow, 44_100, 16_000)).data()) as Float32Array)
    expect(await heard({ samples: slow, sampleRate: 44_100 })).toEqual(await heard(fast))
    expect(fast.length).toBe(Math.ceil((0.9 * 16_000 * 16_000) / 44_100))
  })

  it('answers the same in each form, also where it was heard before', async () => {
    const text = 'USER: <SpeechHere> What?\nASSISTANT:'
    const options = { maxNewTokens: 8 }
    const wanted = await model.generate([{ text, clips: [sound] }], options)
    const [encoded] = await model.encodeAudio([sound])
    for (const given of [tensor(sound), { samples: tensor(sound), sampleRate: 16_000 }, encoded as Tensor]) {
      expect(await model.generate([{ text, clips: [given] }], options)).toEqual(wanted)
      using cache = new SalmonnCache()
      expect(await model.generate([{ text, clips: [sound] }], { ...options, cache })).toEqual(wanted)
      const read = cache.length
      expect(await model.generate([{ text, clips: [given] }], { ...options, cache })).toEqual(wanted)
      expect([cache.clips, cache.length]).toEqual([given === encoded ? 0 : 1, read])
      const { loss } = await model.forward({ prompts: [{ text, clips: [given] }], targets: ['a'] })
      expect(loss?.item()).toBeCloseTo(
        Number((await model.forward({ prompts: [{ text, clips: [sound] }], targets: ['a'] })).loss?.item()),
        5,
      )
    }
  })

  it('that cannot be heard is named by its number', async () => {
    const refused = async (given: unknown, message: RegExp) => {
      await expect(model.encodeAudio([sound, given as SalmonnAudio])).rejects.toThrow(message)
      await expect(model.encodeAudio([sound, given as SalmonnAudio])).rejects.toThrow(ConfigError)
      await expect(model.encodeAudio([sound, given as SalmonnAudio])).rejects.toThrow(/clips\[1\]/)
    }
    await refused(new Float32Array(0), /has no samples/)
    await refused(Float32Array.of(0, 1, Number.NaN), /NaN or infinities, the first at sample 2/)
    await refused(tensor([0, Number.POSITIVE_INFINITY]), /NaN or infinities, the first at sample 1/)
    await refused('a.wav', /a Float32Array or a tensor at 16 kHz, or a result of readAudio/)
    await refused(null, /to be/)
    await refused(new Float64Array(5), /to be/)
    await refused(tensor([1, 2], { dtype: 'int64' }), /expected float32 \[samples\] at 16 kHz, got int64 \[2\]/)
    await refused(tensor([[[0.5]]]), /got float32 \[1, 1, 1\]/)
    await refused(tensor([[0.1, 0.2, 0.3]]), /got float32 \[1, 3\]/)
    await refused({ samples: tensor([0.1]), sampleRate: 0.5 }, /sampleRate to be an integer/)
    await refused({ samples: tensor([[[0.5]]]), sampleRate: 16_000 }, /samples: expected \[samples\] or \[channels/)
    const prompts = [
      { text: 'a', clips: [] },
      { text: '<SpeechHere><SpeechHere>', clips: [sound, tensor([[0.1, 0.2, 0.3]])] },
    ]
    await expect(model.generate(prompts)).rejects.toThrow(
      /prompts\[1\]\.clips\[1\]: expected .*\[tokens, 16\] of encodeAudio/,
    )
    using cache = new SalmonnCache()
    await expect(model.generate([prompts[1] as (typeof prompts)[0]], { cache })).rejects.toThrow(/clips\[1\]: expected/)
  })

  it('leaves no tensors', async () => {
    const audio = { samples: tensor(sound), sampleRate: 44_100 }
    const work = async () => {
      for (const made of await model.encodeAudio([audio, audio.samples, clip(2, 5)])) made.dispose()
      await model.encodeAudio([sound, tensor(new Float32Array(0))]).catch(() => {})
    }
    await scope(work)
    const before = await settledTensors()
    await scope(work)
    expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
  })
})
