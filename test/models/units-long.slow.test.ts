import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import {
  ConfigError,
  extractUnits,
  fitUnits,
  manualSeed,
  randn,
  scope,
  type Tensor,
  UnitExtractor,
  UnitFolder,
  Wav2Vec2,
  WavLM,
  WhisperEncoder,
  writeWav,
} from '../../lib/index.js'
import type { AudioFramesInWindows } from '../../lib/models/units/unit-extractor.js'
import { fixture, tensorsOf } from '../helpers.js'
import { camelKeys, loadParameters } from './networks.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-units-long-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const file = await fixture<{ name: string; config: Record<string, unknown> }>('models/units')
const { config } = file.cases[0] as { config: Record<string, unknown> }
const kmeans = tensorsOf(file, 'units', 'in').centroids as Tensor
const network = new Wav2Vec2(camelKeys(config)).eval()
loadParameters(network, file, 'units')
const open = (windows: { windowSeconds?: number; overlapSeconds?: number } = {}) =>
  UnitExtractor.fromPretrained({ encoder: network, kmeans, layer: 2, ...windows })

manualSeed(5)
/** Five seconds, and one sample. */
const clip = randn([80_001]).mul(0.1)

describe('clips that are longer than a window', () => {
  it('are heard as a whole where none is asked for, and in a window that holds them', async () => {
    const whole = await (await open()).extract(clip)
    expect(whole).toHaveLength(249)
    const told: AudioFramesInWindows[] = []
    const wide = await open({ windowSeconds: 5.01 })
    expect(await wide.extract(clip, { onWindows: (heard) => told.push(heard) })).toEqual(whole)
    expect(told).toEqual([])
  })

  it('are put together of what each window gives, with the normalisation of the whole', async () => {
    const extractor = await open({ windowSeconds: 2, overlapSeconds: 0.4 })
    const told: AudioFramesInWindows[] = []
    const units = await extractor.extract(clip, { onWindows: (heard) => told.push(heard) })
    const { encoder } = extractor
    const parts = await scope(async () => {
      const { wave } = await encoder.prepared(clip)
      expect([wave.size(0), wave.select(0, 80_001).item<number>()]).not.toEqual([80_001, 0])
      const found: Int32Array[] = []
      // 100 units in each, of which 20 are in both; a unit is 400 samples, 320 behind the one before.
      for (const [from, length] of [
        [0, 100],
        [80, 100],
        [160, 89],
      ] as const) {
        const cut = wave.narrow(0, from * 320, Math.min((length - 1) * 320 + 400, wave.size(0) - from * 320))
        const real = from === 160 ? cut.size(0) - 1 : cut.size(0)
        const [states] = await encoder.statesOf([{ wave: cut, length: real }])
        found.push(await extractor.kmeans.assign(states as Tensor))
      }
      return found
    })
    const [a, b, c] = parts as [Int32Array, Int32Array, Int32Array]
    expect([a.length, b.length, c.length]).toEqual([100, 100, 89])
    expect([...units]).toEqual([...a.subarray(0, 90), ...b.subarray(10, 90), ...c.subarray(10)])
    const differ = (left: Int32Array, right: Int32Array) => left.filter((unit, i) => unit !== right[i]).length
    const different = differ(a.subarray(80), b.subarray(0, 20)) + differ(b.subarray(80), c.subarray(0, 20))
    expect(told).toEqual([{ clip: 0, windows: 3, units: 249, compared: 40, different }])
  })

  it('say that their units change: some do, far from the ends of windows fewer', async () => {
    const whole = await (await open()).extract(clip)
    const off = async (windows: { windowSeconds: number; overlapSeconds: number }) =>
      (await (await open(windows)).extract(clip)).filter((unit, i) => unit !== whole[i]).length
    const narrow = await off({ windowSeconds: 0.5, overlapSeconds: 0 })
    expect(narrow).toBeGreaterThan(0)
    expect(await off({ windowSeconds: 3, overlapSeconds: 1 })).toBeLessThan(narrow)
  })

  it('give the same whatever stands beside them, and however many windows go at once', async () => {
    const extractor = await open({ windowSeconds: 1 })
    const alone = await extractor.extract(clip)
    for (const batchSeconds of [0.5, 3, 60]) {
      const told: number[] = []
      const both = await extractor.extractBatch([clip.narrow(0, 0, 8000), clip, clip.narrow(0, 0, 9000)], {
        batchSeconds,
        onWindows: (heard) => told.push(heard.clip),
      })
      expect(both.map(({ length }) => length)).toEqual([24, 249, 27])
      expect(both[1]).toEqual(alone)
      expect(told).toEqual([1])
    }
    const stopped = extractor.extract(clip, { signal: AbortSignal.abort() })
    await expect(stopped).rejects.toThrow(/abort/)
  })

  it('of an encoder whose norm is over time too', async () => {
    manualSeed(4)
    const grouped = new WavLM({ ...camelKeys(config), featExtractNorm: 'group', doStableLayerNorm: false }).eval()
    const extractor = await UnitExtractor.fromPretrained({ encoder: grouped, kmeans, layer: 2, windowSeconds: 1 })
    expect(await extractor.extract(clip)).toHaveLength(249)
  })

  it('refuses windows that are none, and those of Whisper', async () => {
    await expect(open({ overlapSeconds: 1 })).rejects.toThrow(/overlapSeconds: expected windowSeconds with it/)
    await expect(open({ windowSeconds: 2, overlapSeconds: 1.1 })).rejects.toThrow(/at most half of windowSeconds/)
    await expect(open({ windowSeconds: 0 })).rejects.toThrow(ConfigError)
    await expect(open({ windowSeconds: Number.NaN })).rejects.toThrow(ConfigError)
    const size = { dModel: 16, encoderLayers: 2, encoderAttentionHeads: 2, encoderFfnDim: 24, maxSourcePositions: 25 }
    const whisper = new WhisperEncoder(size).eval()
    const asked = UnitExtractor.fromPretrained({ encoder: whisper, kmeans, layer: 2, windowSeconds: 5 })
    await expect(asked).rejects.toThrow(/expected an encoder other than Whisper/)
    await expect((await open()).extract(clip, { batchSeconds: 3 } as never)).rejects.toThrow(/batchSeconds/)
  })

  it('a folder is of one kind of windows, and names what was cut', async () => {
    const input = join(folder, 'clips')
    const { mkdirSync } = await import('node:fs')
    mkdirSync(input)
    await writeWav(join(input, 'long.wav'), clip, { sampleRate: 16_000, format: 'float32' })
    await writeWav(join(input, 'short.wav'), clip.narrow(0, 0, 8000), { sampleRate: 16_000, format: 'float32' })
    const output = join(folder, 'units')
    const told: string[] = []
    const extractor = await open({ windowSeconds: 2 })
    await extractUnits(extractor, { input, output }, { onWindows: ({ name, windows }) => told.push(`${name} ${windows}`) }) // biome-ignore format: one line
    expect(told).toEqual(['long 3'])
    expect(readFileSync(join(output, 'long_unit.txt'), 'utf8')).toBe((await extractor.extract(clip)).join(' '))
    await expect(UnitFolder.open(output, await open())).rejects.toThrow(ConfigError)
    await expect(UnitFolder.open(output, await open({ windowSeconds: 3 }))).rejects.toThrow(ConfigError)
    await UnitFolder.open(output, await open({ windowSeconds: 2 }))
  })
})

it('an hour in windows takes no more memory than its samples and a batch of windows', async () => {
  const minute = randn([16_000 * 60]).mul(0.1)
  const hour = scope(() => minute.repeat([60]))
  minute.dispose()
  const extractor = await open({ windowSeconds: 20, overlapSeconds: 1 })
  const before = process.memoryUsage.rss()
  let [most, heard] = [0, undefined as AudioFramesInWindows | undefined]
  const timer = setInterval(() => (most = Math.max(most, process.memoryUsage.rss() - before)), 5)
  const units = await extractor.extract(hour, { onWindows: (one) => (heard = one) })
  clearInterval(timer)
  expect(units).toHaveLength(179_999)
  expect(heard).toMatchObject({ windows: 190, units: 179_999, compared: 189 * 50 })
  // Its samples a few times: checked, normalised. As a whole, the first convolution alone would make three times as many of them.
  expect(most).toBeLessThan(6 * 4 * 57_600_000)
})

// An odd one gets a sample and with it a mask; at 79 the frame that this makes is hidden from the others.
it.each([
  [0, 9999],
  [1, 9999],
  [79, 10_000],
])(
  'heard as a whole, a long clip and %i samples take memory by its length, and not by its square',
  async (more, count) => {
    const clip = scope(() =>
      randn([16_000 * 20])
        .mul(0.1)
        .repeat([11])
        .narrow(0, 0, 16_000 * 200 + more)
        .clone(),
    )
    const extractor = await open()
    const before = process.memoryUsage.rss()
    let most = 0
    const timer = setInterval(() => (most = Math.max(most, process.memoryUsage.rss() - before)), 5)
    const units = await extractor.extract(clip)
    clearInterval(timer)
    expect(units).toHaveLength(count)
    // Scores of each head and pair of frames alone would be 800 MB.
    expect(extractor.encoder.network.config.numAttentionHeads).toBe(2)
    expect(most).toBeLessThan(300e6)
  },
)

it('fitUnits takes the device and type of an encoder that it loads, and only of such', async () => {
  const directory = join(folder, 'encoder')
  await network.save(directory)
  const source = { layer: 2, clips: [clip], clusters: 3, epochs: 2, seed: 1 }
  using own = await fitUnits({ ...source, encoder: directory, device: 'cpu', dtype: 'float32' })
  using given = await fitUnits({ ...source, encoder: network })
  expect(own.centroids.equal(given.centroids)).toBe(true)
  using half = await fitUnits({ ...source, encoder: directory, dtype: 'bfloat16' })
  expect(half.centroids.equal(given.centroids)).toBe(false)
  expect(half.centroids.dtype).toBe('float32')
  await expect(fitUnits({ ...source, encoder: network, dtype: 'bfloat16' })).rejects.toThrow(/dtype: expected it only with an encoder that is loaded/) // biome-ignore format: one line
  await expect(fitUnits({ ...source, encoder: directory, device: 'cuda' })).rejects.toThrow(/[Cc][Uu][Dd][Aa]/)
})
