import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { readNpy, saveNpy } from '../../lib/files/index.js'
import {
  ConfigError,
  DataError,
  extractUnits,
  fitKMeans,
  fitUnits,
  getNumThreads,
  KMeans,
  keepAlive,
  loadUnitEncoder,
  manualSeed,
  type NativeModule,
  noGrad,
  ops,
  randn,
  readUnits,
  resample,
  scope,
  setNumThreads,
  type Tensor,
  tensor,
  UnitEncoder,
  UnitExtractor,
  UnitFolder,
  Wav2Vec2,
  WavLM,
  WhisperEncoder,
  writeWav,
  zeros,
} from '../../lib/index.js'
import { parseUnits } from '../../lib/models/units/unit-folder.js'
import { difference, expectClose, fixture, fixturePath, numbers, settledTensors, tensorsOf } from '../helpers.js'
import { type As, camelKeys, expectGradients, loadParameters } from './networks.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-units-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const file = await fixture<{ name: string; config: Record<string, unknown>; lengths: number[] }>('models/units')
const given = tensorsOf(file, 'units', 'in')
const expected = tensorsOf(file, 'units', 'out')
const { lengths, config } = file.cases[0] as { lengths: number[]; config: Record<string, unknown> }
const centroids = given.centroids as Tensor
const clip = (length: number) => given[`${length}`] as Tensor
const unitsOf = (length: number, layer: number) => numbers(expected[`${length}.${layer}.units`] as Tensor).map(Number)

function whole(): Wav2Vec2 {
  const network = new Wav2Vec2(camelKeys(config)).eval()
  loadParameters(network, file, 'units')
  return network
}

/** The same weights in transformers' layout. */
const directory = join(folder, 'transformers')
beforeAll(async () => {
  using network = whole()
  await network.save(directory)
})

const sources = {
  transformers: directory,
  fairseq: fixturePath('models/units-fairseq.pt'),
  fairseq2: fixturePath('models/units-fairseq2.pt'),
}
// fairseq2's file does not say how many heads there are.
const more = (layout: string) => (layout === 'fairseq2' ? { config: { numAttentionHeads: 2 } } : {})

describe.each(Object.keys(sources) as (keyof typeof sources)[])('XLS-R in the layout of %s', (layout) => {
  it.each([1, 2])('gives the raw sum behind layer %i of the uncut network, and builds no later one', async (layer) => {
    const encoder = await loadUnitEncoder(sources[layout], { layer, ...more(layout) })
    const names = encoder.network.namedParameters().map(([name]) => name)
    expect(names.filter((name) => name.includes(`layers.${layer - 1}.`))).not.toEqual([])
    expect(names.filter((name) => name.includes(`encoder.layers.${layer}.`))).toEqual([])
    expect(names).not.toContain('masked_spec_embed')
    for (const length of lengths) {
      const [states] = await encoder.states([clip(length)])
      expectClose(states as Tensor, expected[`${length}.${layer}`] as Tensor, 1e-5, `${length} samples`)
    }
    encoder.dispose()
  })
})

describe('XLS-R as far as a layer', () => {
  it("has the gradients of transformers' uncut network, whose loss is on the states behind that layer", async () => {
    const wanted = await fixture('models/units-gradients')
    const { wave, mask } = tensorsOf(wanted, 'units', 'in') as { wave: Tensor; mask: Tensor }
    const cotangent = tensorsOf(wanted, 'units', 'cotangent').states as Tensor
    const { network } = await loadUnitEncoder(sources.fairseq, { layer: 2 })
    let states: Tensor | undefined
    network.get<NativeModule>('encoder.layers.1').registerForwardHook((_, __, output) => {
      states = keepAlive(output as Tensor)
    })
    const back = (as: As, inputValues = as(wave)) =>
      scope(async () => {
        await (network as Wav2Vec2).forward({ inputValues, attentionMask: mask })
        await (states as Tensor).mul(as(cotangent)).sum().backward()
      })
    const leaf = wave.clone()
    leaf.requiresGrad = true
    await back((one) => one, leaf)
    expectClose(
      leaf.grad as Tensor,
      tensorsOf(wanted, 'units', 'input_grad').wave as Tensor,
      1e-5,
      'gradient of the clip',
    )
    await expectGradients(network, wanted, 'units', { again: back })
    network.dispose()
  })

  it("has the published number of heads where a file of fairseq2's does not say: 16 of XLS-R 1B", async () => {
    const encoder = await loadUnitEncoder(fixturePath('models/units-wide-fairseq2.pt'), { layer: 1 })
    expect(encoder.network.config).toMatchObject({
      ...{ hiddenSize: 1280, numAttentionHeads: 16, intermediateSize: 5120, numHiddenLayers: 1 },
      ...{ numConvPosEmbeddings: 128, numConvPosEmbeddingGroups: 16, convDim: new Array(7).fill(512) },
    })
    encoder.dispose()
  })

  it.each([128, 16])('gives a frame for each frame with %i positions, whose last falls off', async (positions) => {
    const sized = { ...camelKeys(config), numConvPosEmbeddings: positions }
    using network = Wav2Vec2.fromConfig(sized, { seed: 3 }).eval()
    const encoder = new UnitEncoder(network, 1)
    for (const length of [400, 2401, 16_000]) {
      const [states] = await encoder.states([clip(2400).narrow(0, 0, 400).repeat([41]).narrow(0, 0, length)])
      expect(states?.shape).toEqual([encoder.unitsOf(length), 16])
    }
  })

  it('adds 1e-5 to the variance of a clip, of which one that is quiet is seen', async () => {
    using network = whole()
    const quiet = clip(2400).mul(0.01) // a variance of 1e-6
    const { wave } = await scope(() => new UnitEncoder(network, 1).prepared(quiet).then(keepAlive))
    const double = quiet.double()
    const centred = double.sub(double.mean())
    const wanted = (epsilon: number) => centred.div(centred.square().mean().add(epsilon).sqrt())
    expectClose(wave, wanted(1e-5), 1e-6)
    // As transformers' feature extractor has it.
    expect(difference(wave.double(), wanted(1e-7))).toBeGreaterThan(0.5)
  })
})

describe('UnitExtractor', () => {
  const open = (layer = 2) => UnitExtractor.fromPretrained({ encoder: directory, kmeans: centroids, layer })

  it("gives the reference's units, also of the frame that only an added sample makes", async () => {
    for (const layer of [1, 2]) {
      using extractor = await open(layer)
      expect(extractor.units).toBe(40)
      for (const length of lengths) {
        const units = await extractor.extract(clip(length))
        expect(units).toBeInstanceOf(Int32Array)
        expect([...units], `${length} samples`).toEqual(unitsOf(length, layer))
        expect(extractor.unitCount(length)).toBe(units.length)
      }
    }
  })

  it('counts frames as the convolutions do, of odd clips with one sample more', async () => {
    using extractor = await open()
    for (const length of [399, 400, 401, 719, 720, 721, 1359, 16_000, 32_000, 48_000, 50_000]) {
      const even = length + (length % 2)
      expect(extractor.unitCount(length)).toBe(even < 400 ? 0 : Math.floor((even - 400) / 320) + 1)
    }
    expect([16_000, 32_000, 48_000].map((length) => extractor.unitCount(length))).toEqual([49, 99, 149])
    const convolutions = [[10, 5], ...new Array(4).fill([3, 2]), ...new Array(2).fill([2, 2])]
    const wrong: number[] = []
    for (let length = 400; length <= 50_000; length++) {
      const even = length + (length % 2)
      const frames = convolutions.reduce((left, [width, step]) => Math.floor((left - width) / step) + 1, even)
      if (extractor.unitCount(length) !== frames || frames !== Math.floor((even - 400) / 320) + 1) wrong.push(length)
    }
    expect(wrong).toEqual([])
    expect(extractor.unitCount(398)).toBe(0)
  })

  it('gives the same whatever the batch, the padding, the order and the number of threads', async () => {
    using extractor = await open()
    const threads = getNumThreads()
    try {
      for (const count of [1, 3]) {
        setNumThreads(count)
        for (const batchSeconds of [0.01, 0.2, 60]) {
          for (const order of [lengths, [...lengths].reverse()]) {
            const units = await extractor.extractBatch(order.map(clip), { batchSeconds })
            expect(units.map((one) => [...one])).toEqual(order.map((length) => unitsOf(length, 2)))
          }
        }
      }
    } finally {
      setNumThreads(threads)
    }
  })

  it('several calls at once do not disturb each other', async () => {
    using extractor = await open()
    const units = await Promise.all(lengths.map((length) => extractor.extract(clip(length))))
    expect(units.map((one) => [...one])).toEqual(lengths.map((length) => unitsOf(length, 2)))
  })

  it('does not join units that repeat', async () => {
    using extractor = await open()
    const units = await extractor.extract(zeros([16_000]))
    expect(units.length).toBe(49)
    expect(new Set(units).size).toBeLessThan(10)
  })

  it('refuses what gives no unit, by a typed error', async () => {
    using extractor = await open()
    await expect(extractor.extract(zeros([398]))).rejects.toThrow(
      /expected at least 399 samples at 16 kHz, one unit, got 398/,
    )
    await expect(extractor.extract(zeros([0]))).rejects.toThrow(DataError)
    const broken = zeros([800])
    broken.select(0, 700).fill_(Number.NaN)
    await expect(extractor.extract(broken)).rejects.toThrow(/NaN/)
    await expect(extractor.extract(join(folder, 'none.wav'))).rejects.toThrow(DataError)
    await expect(extractor.extractBatch('x.wav' as never)).rejects.toThrow(ConfigError)
    // Stereo and other rates are converted.
    expect((await extractor.extract({ samples: zeros([2, 8000]), sampleRate: 8000 })).length).toBe(49)
    expect((await extractor.extract({ samples: zeros([48_000]), sampleRate: 48_000 })).length).toBe(49)
  })

  it('refuses a layer that is not there, and centroids of another width', async () => {
    await expect(open(4)).rejects.toThrow(/layer: expected 1 to 3, .*, got 4/)
    await expect(
      UnitExtractor.fromPretrained({ encoder: sources.fairseq, kmeans: centroids, layer: 4 }),
    ).rejects.toThrow(/layer: expected 1 to 3, the encoder's number of layers, got 4/)
    const kmeans = join(folder, 'transposed.npy')
    await saveNpy(kmeans, centroids.t().contiguous())
    await expect(UnitExtractor.fromPretrained({ encoder: directory, kmeans, layer: 1 })).rejects.toThrow(
      /transposed\.npy: expected centroids \[clusters, 16\], .*, got \[16,40\]\. Transpose them/,
    )
    await expect(UnitExtractor.fromPretrained({ encoder: directory, kmeans: 7 as never, layer: 1 })).rejects.toThrow(
      ConfigError,
    )
  })

  it('frees what it loaded, and not what it was given', async () => {
    using network = whole()
    using kmeans = new KMeans(centroids)
    const before = await settledTensors()
    const own = await open()
    await own.extract(clip(720))
    own.dispose()
    const borrowed = await UnitExtractor.fromPretrained({ encoder: network, kmeans, layer: 2 })
    expect([...(await borrowed.extract(clip(720)))]).toEqual(unitsOf(720, 2))
    borrowed.dispose()
    expect(await settledTensors()).toBe(before)
    expect(await borrowed.fingerprint()).toBe(await (await open()).fingerprint())
    expect(await borrowed.fingerprint()).not.toBe(await (await open(1)).fingerprint())
  })
})

describe('a clip of 44.1 kHz', () => {
  const RATE = 44_100
  let noise: Tensor
  beforeAll(() => {
    manualSeed(4)
    // White, so that there is much above 8 kHz for a resampler to drop.
    noise = randn([RATE]).mul(0.1)
  })
  const open = () => UnitExtractor.fromPretrained({ encoder: directory, kmeans: centroids, layer: 2 })
  const differing = (a: Int32Array, b: Int32Array) => a.filter((unit, i) => unit !== b[i]).length

  it("has the units of its twin at 16 kHz by soxr's HQ recipe, and not of one by torchaudio's", async () => {
    using extractor = await open()
    const path = join(folder, 'noise.wav')
    await writeWav(path, noise, { sampleRate: RATE, format: 'float32' })
    const high = await extractor.extract(await resample(noise, RATE, 16_000, { quality: 'high' }))
    const sinc = await extractor.extract(await resample(noise, RATE, 16_000))
    expect(differing(sinc, high)).toBeGreaterThan(0)
    expect(await extractor.extract({ samples: noise, sampleRate: RATE })).toEqual(high)
    const windows = await UnitExtractor.fromPretrained({
      ...{ encoder: directory, kmeans: centroids, layer: 2, windowSeconds: 2 },
    })
    for (const one of [extractor, windows]) {
      expect(await one.extract(path)).toEqual(high)
      expect(await one.extractBatch([path, clip(720)])).toEqual([high, await extractor.extract(clip(720))])
    }
    windows.dispose()
    const output = join(folder, 'noise-units')
    const opened = await UnitFolder.open(output, extractor)
    await opened.fill(extractor, [{ name: 'noise', audio: path }])
    expect(await opened.read('noise')).toEqual(high)
  })

  it('gives centroids of what is heard then', async () => {
    using network = whole()
    const fit = { encoder: network, layer: 2, clusters: 4, epochs: 2, seed: 1 }
    using kmeans = await fitUnits({ ...fit, clips: [{ samples: noise, sampleRate: RATE }] })
    using high = await fitUnits({ ...fit, clips: [await resample(noise, RATE, 16_000, { quality: 'high' })] })
    using sinc = await fitUnits({ ...fit, clips: [await resample(noise, RATE, 16_000)] })
    expect(kmeans.centroids.toArray()).toEqual(high.centroids.toArray())
    expect(kmeans.centroids.toArray()).not.toEqual(sinc.centroids.toArray())
  })

  it('a folder of units made with another resampler is refused', async () => {
    using extractor = await open()
    const { network, layer } = extractor.encoder
    const bytes = (value: Tensor) => new Uint8Array(Float32Array.from(numbers(value), Number).buffer)
    const restated = (resampler: string) => {
      const hash = createHash('sha256')
      for (const [name, value] of network.namedParameters()) {
        if (/masked_spec_embed|encoder\.layer_norm/.test(name)) continue
        hash.update(`${name} ${value.dtype} ${value.shape.join()}\n`).update(bytes(value))
      }
      hash.update(resampler).update(`layer ${layer} of ${extractor.units}\n`)
      return hash.update(bytes(centroids)).digest('hex')
    }
    expect(await extractor.fingerprint()).toBe(restated('resampled: high\n'))
    const output = join(folder, 'of-sinc')
    mkdirSync(output)
    const index = { fingerprint: restated(''), layer, units: extractor.units }
    writeFileSync(join(output, 'units.json'), JSON.stringify(index))
    await expect(UnitFolder.open(output, extractor)).rejects.toThrow(/or resampler/)
  })
})

describe('other encoders', () => {
  it.each(['layer', 'group'] as const)('WavLM, with a norm of kind %s', async (featExtractNorm) => {
    manualSeed(4)
    const network = new WavLM({ ...camelKeys(config), featExtractNorm, doStableLayerNorm: featExtractNorm === 'layer' })
    const encoder = new UnitEncoder(network.eval(), 2)
    expect(encoder.takesPadding).toBe(featExtractNorm === 'layer')
    const kmeans = new KMeans(centroids)
    const extractor = await UnitExtractor.fromPretrained({ encoder: network, kmeans, layer: 2 })
    const together = await extractor.extractBatch(lengths.map(clip))
    for (const [i, length] of lengths.entries()) expect(await extractor.extract(clip(length))).toEqual(together[i])
    if (featExtractNorm === 'layer') return
    const { hiddenStates } = await noGrad(() =>
      network.forward({ inputValues: clip(2400).unsqueeze(0), outputHiddenStates: true }),
    )
    const [states] = await encoder.states([clip(2400)])
    expectClose(states as Tensor, (hiddenStates[2] as Tensor).select(0, 0))
  })

  it("centroids are fitted to WavLM's states", async () => {
    manualSeed(4)
    const network = new WavLM({ ...camelKeys(config), featExtractNorm: 'group', doStableLayerNorm: false }).eval()
    // An odd one gets a sample more, which the network alone does not.
    const clips = lengths.filter((length) => length % 2 === 0).map(clip)
    const states = await noGrad(() =>
      Promise.all(
        clips.map(async (one) => {
          const { hiddenStates } = await network.forward({ inputValues: one.unsqueeze(0), outputHiddenStates: true })
          return (hiddenStates[2] as Tensor).select(0, 0)
        }),
      ),
    )
    const fit = { clusters: 4, epochs: 3, seed: 1 }
    using wanted = await fitKMeans(ops.cat(states), fit)
    using found = await fitUnits({ ...fit, encoder: network, layer: 2, clips })
    expectClose(found.centroids, wanted.centroids, 1e-4)
    using other = await fitUnits({ ...fit, encoder: network, layer: 1, clips })
    expect(other.centroids.allclose(wanted.centroids)).toBe(false)
  })

  it("Whisper's encoder, in windows of which each has silence behind it", async () => {
    manualSeed(4)
    const size = { dModel: 16, encoderLayers: 3, encoderAttentionHeads: 2, encoderFfnDim: 24, maxSourcePositions: 25 }
    const network = new WhisperEncoder({ ...size, decoderLayers: 1, decoderAttentionHeads: 2, decoderFfnDim: 8 }).eval()
    const encoder = new UnitEncoder(network, 2)
    // A window is half a second here.
    const long = randn([12_345]).mul(0.1)
    const [all, alone] = (await encoder.states([long, long.narrow(0, 0, 8000)])) as [Tensor, Tensor]
    expect([all.shape, alone.shape]).toEqual([
      [38, 16],
      [25, 16],
    ])
    expectClose(all.narrow(0, 0, 25), alone)
    const path = join(folder, 'whisper')
    await network.save(path)
    const loaded = await loadUnitEncoder(path, { layer: 2 })
    expect(loaded.network.namedParameters().filter(([name]) => /layers\.2\./.test(name))).toEqual([])
    expectClose((await loaded.states([long]))[0] as Tensor, all)
    await expect(encoder.states([zeros([319])])).rejects.toThrow(/expected a clip of at least 320 samples/)
  })
})

describe('KMeans', () => {
  it('chooses the nearest as distances in float64 do, in blocks as well', async () => {
    manualSeed(2)
    const points = randn([3000, 64])
    const places = randn([50, 64])
    using kmeans = new KMeans(places)
    const exact = ops.cdist(points.double(), places.double()).argmin(1)
    expect([...(await kmeans.assign(points))]).toEqual(numbers(exact).map(Number))
    expect([...(await kmeans.assign(places))]).toEqual(Array.from({ length: 50 }, (_, i) => i))
    const far = ops.cdist(points.double(), places.double()).min(1).values
    expect(await kmeans.distortion(points)).toBeCloseTo(far.mul(far).mean().item() as number, 2)
    // More clusters than a block has room for rows.
    using many = new KMeans(randn([9000, 8]))
    const some = randn([2000, 8])
    const nearest = ops.cdist(some.double(), many.centroids.double()).argmin(1)
    expect([...(await many.assign(some))]).toEqual(numbers(nearest).map(Number))
  })

  it('takes no more memory for more frames', async () => {
    using kmeans = new KMeans(randn([2000, 16]))
    const frames = randn([60_000, 16])
    await kmeans.assign(frames.narrow(0, 0, 5000))
    const before = process.memoryUsage.rss()
    let most = 0
    const timer = setInterval(() => (most = Math.max(most, process.memoryUsage.rss() - before)), 1)
    const units = await kmeans.assign(frames)
    clearInterval(timer)
    expect(units).toHaveLength(60_000)
    // All distances at once would be 480 MB.
    expect(most).toBeLessThan(150e6)
  })

  it('takes the lowest of several that are as near', async () => {
    const rows = (...values: number[]) => tensor(Float32Array.from(values)).view([values.length / 2, 2])
    using kmeans = new KMeans(rows(5, 5, 1, 0, 1, 0, -1, 0, 1, 0))
    expect([...(await kmeans.assign(rows(1, 0, 0, 0, -9, 0, 4, 4)))]).toEqual([1, 1, 3, 0])
  })

  it('reads float32 and float64 .npy, writes float32, and names what is wrong', async () => {
    const path = join(folder, 'centroids.npy')
    await saveNpy(path, centroids.double())
    using kmeans = await KMeans.fromFile(path)
    expect([kmeans.clusters, kmeans.dim, kmeans.centroids.dtype]).toEqual([40, 16, 'float32'])
    await kmeans.save(path)
    expect(((await readNpy(path)) as Tensor).equal(centroids)).toBe(true)
    for (const [name, value, message] of [
      ['flat', zeros([16]), /expected centroids, .*, got float32 \[16\]/],
      ['whole', zeros([4, 4], { dtype: 'int64' }), /int64 \[4, 4\]/],
      ['none', zeros([0, 4]), /none\.npy: /],
      ['nan', tensor([[Number.NaN, 1]]), /nan\.npy: .*expected finite values, got NaN/],
    ] as const) {
      const bad = join(folder, `${name}.npy`)
      await saveNpy(bad, value)
      await expect(KMeans.fromFile(bad)).rejects.toThrow(message)
      await expect(KMeans.fromFile(bad)).rejects.toThrow(DataError)
    }
    await expect(kmeans.assign(zeros([3, 15]))).rejects.toThrow(/\[n, 16\]/)
  })

  it('finds clusters that stand apart, the same for the same seed', async () => {
    manualSeed(6)
    const middles = randn([8, 5]).mul(20)
    const points = ops.cat(Array.from({ length: 60 }, () => middles.add(randn([8, 5]).mul(0.1))))
    using kmeans = await fitKMeans(points, { clusters: 8, batchFrames: 100, epochs: 5, seed: 3 })
    const found = await kmeans.assign(middles)
    expect(new Set(found).size).toBe(8)
    expectClose(kmeans.centroids.indexSelect(0, tensor([...found].map(BigInt), { dtype: 'int64' })), middles, 0.01)
    using again = await fitKMeans(points, { clusters: 8, batchFrames: 100, epochs: 5, seed: 3 })
    expect(again.centroids.equal(kmeans.centroids)).toBe(true)
    await expect(fitKMeans(points, { clusters: 481 })).rejects.toThrow(/expected at least 481.*, got 480/)
    // Frames that are all alike leave no cluster without a place.
    using same = await fitKMeans(zeros([20, 3]), { clusters: 4, epochs: 2 })
    expect(same.clusters).toBe(4)
  })

  it('fits the units of an encoder to clips', async () => {
    using network = whole()
    const clips = lengths.map(clip)
    const heard: number[] = []
    const source = { encoder: network, layer: 2, clips, clusters: 3, epochs: 3, seed: 1 }
    using kmeans = await fitUnits({ ...source, onClip: ({ frames }) => heard.push(frames) })
    expect([kmeans.clusters, kmeans.dim]).toEqual([3, 16])
    expect(heard.at(-1)).toBe(lengths.reduce((sum, length) => sum + unitsOf(length, 2).length, 0))
    using fewer = await fitUnits({ ...source, maxFrames: 10 })
    expect(fewer.clusters).toBe(3)
    await expect(fitUnits({ ...source, clusters: 200 })).rejects.toThrow(ConfigError)
  })
})

describe('a folder of units', () => {
  const make = () => UnitExtractor.fromPretrained({ encoder: directory, kmeans: centroids, layer: 2 })
  const input = join(folder, 'clips')
  beforeAll(async () => {
    for (const [i, length] of [2400, 720, 2401, 400].entries()) {
      const path = join(input, i % 2 === 0 ? 'a' : 'b/c', `${i}.wav`)
      mkdirSync(dirname(path), { recursive: true })
      await writeWav(path, clip(length), { sampleRate: 16_000, format: 'float32' })
    }
  })
  const times = (output: string) => readdirSync(output, { recursive: true, encoding: 'utf8' }).sort()

  it('goes on where it was, and extracts no clip twice', async () => {
    using extractor = await make()
    const output = join(folder, 'units')
    let written = 0
    const stopped = new AbortController()
    const progress = {
      write(text: string) {
        if (/[1-4]\/4/.test(text) && ++written === 1) stopped.abort()
        return true
      },
    }
    const options = { progress, batchSeconds: 0.01, signal: stopped.signal }
    await extractUnits(extractor, { input, output }, options).catch(() => {})
    const before = times(output).filter((name) => name.endsWith('_unit.txt'))
    const done = await extractUnits(extractor, { input, output })
    expect(done.clips).toBe(4)
    expect(done.extracted).toBe(4 - before.length)
    expect(times(output).filter((name) => name.endsWith('.txt'))).toEqual([
      'a/0_unit.txt',
      'a/2_unit.txt',
      'b/c/1_unit.txt',
      'b/c/3_unit.txt',
    ])
    expect(readFileSync(join(output, 'a/0_unit.txt'), 'utf8')).toBe(unitsOf(2400, 2).join(' '))
    expect([...(await readUnits(join(output, 'b/c/3_unit.txt')))]).toEqual(unitsOf(400, 2))
    const stamp = statSync(join(output, 'a/0_unit.txt')).mtimeMs
    expect(await extractUnits(extractor, { input, output })).toEqual({ clips: 4, extracted: 0 })
    expect(statSync(join(output, 'a/0_unit.txt')).mtimeMs).toBe(stamp)
    // Units of another layer do not mix with these.
    using other = await UnitExtractor.fromPretrained({ encoder: directory, kmeans: centroids, layer: 1 })
    await expect(extractUnits(other, { input, output })).rejects.toThrow(
      /units of another encoder, layer, centroids or resampler/,
    )
  })

  it('has each batch as soon as it is done: given up between two, none is extracted again', async () => {
    using extractor = await make()
    const clips = Array.from({ length: 8 }, (_, i) => join(folder, 'group', `${i}.wav`))
    mkdirSync(join(folder, 'group'))
    for (const path of clips) await writeWav(path, clip(2400), { sampleRate: 16_000, format: 'float32' })
    const output = join(folder, 'group-units')
    const states = vi.spyOn(extractor.encoder, 'states')
    const stopped = new AbortController()
    const opened = await UnitFolder.open(output, extractor)
    const write = opened.write.bind(opened)
    // While the first of a group's four batches of two is written.
    vi.spyOn(opened, 'write').mockImplementation((name, units) => {
      write(name, units)
      stopped.abort(new Error('given up'))
    })
    const named = clips.map((audio, i) => ({ name: `${i}`, audio }))
    const filled = opened.fill(extractor, named, { batchSeconds: 0.3, signal: stopped.signal })
    await expect(filled).rejects.toThrow('given up')
    expect(named.map(({ name }) => opened.has(name))).toEqual([true, true, ...new Array(6).fill(false)])
    expect(await opened.fill(extractor, named, { batchSeconds: 0.3 })).toEqual({ clips: 8, extracted: 6 })
    expect(states.mock.calls.map(([batch]) => batch.length)).toEqual([2, 2, 2, 2])
    const told: number[] = []
    await extractor.extractBatch(clips.slice(0, 3), { batchSeconds: 0.3, onUnits: (_, i) => told.push(i) })
    expect(told.sort()).toEqual([0, 1, 2])
  })

  it('names the clip that cannot be used', async () => {
    using extractor = await make()
    const output = join(folder, 'broken')
    const bad = join(input, '../bad')
    mkdirSync(bad, { recursive: true })
    await writeWav(join(bad, 'good.wav'), clip(720), { sampleRate: 16_000 })
    await writeWav(join(bad, 'short.wav'), zeros([100]), { sampleRate: 16_000 })
    await expect(extractUnits(extractor, { input: bad, output })).rejects.toThrow(/short\.wav: .*got 100$/)
    writeFileSync(join(bad, 'good.flac'), '')
    await expect(extractUnits(extractor, { input: bad, output })).rejects.toThrow(/good with two extensions/)
    await expect(extractUnits(extractor, { input: join(folder, 'nowhere'), output })).rejects.toThrow(
      /expected a folder of audio files/,
    )
    const opened = await UnitFolder.open(output, extractor)
    for (const name of ['', '../x', '/x', 'a/../../x']) expect(() => opened.pathOf(name)).toThrow(ConfigError)
    expect(existsSync(join(output, 'units.json'))).toBe(true)
  })

  it.each([
    ['', /expected units, got none/],
    ['1 2 x', /number 3: .*got "x"/],
    ['1 -2', /number 2: .*got "-2"/],
    ['1 40', /number 2: expected a unit from 0 to 39, got "40"/],
    ['1.5', /number 1/],
    ['\u0000', /number 1/],
  ])('refuses a file of %j', (text, message) => {
    expect(() => parseUnits(Buffer.from(text), 'x_unit.txt', 40)).toThrow(message)
    expect(() => parseUnits(Buffer.from(text), 'x_unit.txt', 40)).toThrow(DataError)
  })
})
