import { readFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import {
  CheckpointError,
  ConfigError,
  memoryStats,
  noGrad,
  publishedWeights,
  randn,
  readAudio,
  SileroVad,
  type SileroVadConfig,
  splitOnSilence,
  type Tensor,
  zeros,
} from '../../lib/index.js'
import { dataPath, hasData } from '../audio/helpers.js'
import { expectClose, fixture, fixturePath, tensorsOf } from '../helpers.js'
import { get } from './decoder.js'

const file = await fixture<{ name: string; config: SileroVadConfig }>('models/silero-vad')
const small = () => {
  const { name, config } = get(file.cases[0])
  const vad = new SileroVad(config).eval()
  vad.loadStateDict(tensorsOf(file, name, 'param') as Record<string, Tensor>)
  return {
    vad,
    samples: get(tensorsOf(file, name, 'in').samples),
    expected: get(tensorsOf(file, name, 'out').probabilities),
  }
}

interface Published {
  clip: string
  settings: { threshold?: number; min_silence_duration_ms?: number; speech_pad_ms?: number }
  segments: [number, number][]
  probabilities: number[]
}
const isHere = publishedWeights().some(({ name, present }) => name === 'silero-vad' && present)
const published: Published[] = JSON.parse(readFileSync(fixturePath('models/silero-vad-published.json'), 'utf8'))

describe('SileroVad', () => {
  test('gives the probabilities of PyTorch, frame by frame', async () => {
    const { vad, samples, expected } = small()
    const likely = await noGrad(() => vad.forward(samples))
    expectClose(likely, expected, 1e-5)
    expect((await vad.forward(zeros([0]))).shape).toEqual([0])
  })

  test('goes on where a piece of the convolutions ends', async () => {
    const { vad, samples } = small()
    const long = (await import('../../lib/index.js')).ops.cat(Array.from({ length: 250 }, () => samples))
    const whole = await noGrad(() => vad.forward(long))
    expect(whole.size(0)).toBe(Math.ceil(long.size(0) / 32))
    // What lies 500 frames back no longer matters.
    const from = 2100
    const part = await noGrad(() => vad.forward(long.narrow(0, (from - 500) * 32, 700 * 32)))
    expectClose(whole.narrow(0, from, 200), part.narrow(0, 500, 200), 1e-5)
  })

  test('saves and loads, and says what is wrong', async () => {
    const { vad, samples } = small()
    const folder = await mkdtemp(join(tmpdir(), 'silero-'))
    try {
      await expect(SileroVad.fromPretrained(folder)).rejects.toThrow(CheckpointError)
      await vad.save(folder)
      const again = await SileroVad.fromPretrained(folder)
      expect((await again.forward(samples)).equal(await vad.forward(samples))).toBe(true)
    } finally {
      await rm(folder, { recursive: true })
    }
    expect(() => new SileroVad({ frame: 100 })).toThrow(/expected frame = 2 nFft/)
    expect(() => new SileroVad({ size: 3 } as object)).toThrow(ConfigError)
    await expect(vad.segments(samples, 16_000, { threshold: 0.2, endThreshold: 0.3 })).rejects.toThrow(/endThreshold/)
    await expect(vad.segments(samples, 16_000, { speed: 1 } as object)).rejects.toThrow(ConfigError)
    await expect(vad.forward(randn([2, 600]))).rejects.toThrow(/one signal/)
    await expect(splitOnSilence(samples, 16_000, { vad: async () => [[1, 0]] })).rejects.toThrow(
      /vad: expected segments in order/,
    )
  })

  test('leaves no tensors behind', async () => {
    const { vad, samples } = small()
    await vad.segments(samples, 16_000)
    const before = memoryStats().liveTensors
    await vad.segments(samples, 16_000)
    await vad.segments(samples, 8_000)
    expect(memoryStats().liveTensors).toBe(before)
  })
})

describe.skipIf(!isHere || !hasData('librispeech-other'))('silero-vad, the published safetensors', () => {
  test.each(published)(
    '$clip, $settings: probabilities of PyTorch, segments of its own package',
    async ({ clip, settings, segments, probabilities }) => {
      const vad = await SileroVad.fromPretrained('silero-vad', { offline: true })
      const { samples } = await readAudio(dataPath(`librispeech-other/${clip}`))
      const likely = (await noGrad(() => vad.forward(samples))).toArray() as number[]
      expect(likely.length).toBe(probabilities.length)
      const most = Math.max(...likely.map((one, i) => Math.abs(one - (probabilities[i] as number))))
      expect(most / Math.max(...probabilities)).toBeLessThan(1e-5)
      const { threshold = 0.5, min_silence_duration_ms: pause = 100, speech_pad_ms: pad = 30 } = settings
      const found = await vad.segments(samples, 16_000, { threshold, minSilence: pause / 1000, padding: pad / 1000 })
      expect(found.length).toBe(segments.length)
      // Theirs are whole samples.
      for (const [i, [start, end]] of found.entries()) {
        expect(start).toBeCloseTo(get(segments[i])[0], 3)
        expect(end).toBeCloseTo(get(segments[i])[1], 3)
      }
    },
  )
})
