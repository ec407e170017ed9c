import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import {
  DecoderLM,
  fitUnits,
  getNumThreads,
  type Module,
  publishedWeights,
  readAudio,
  scope,
  setNumThreads,
  type Tensor,
  UnitEncoder,
  UnitExtractor,
  Wav2Vec2,
  Whisper,
} from '../../lib/index.js'
import { cut } from '../../lib/models/units/files.js'
import { dataPath, hasData } from '../audio/helpers.js'
import { expectClose, fixture, tensorsOf } from '../helpers.js'
import { PATIENCE } from '../patience.js'

const counted = (network: Module, but: RegExp = /^$/): number =>
  network.namedParameters().reduce((sum, [name, one]) => sum + (but.test(name) ? 0 : one.numel()), 0)

describe('published sizes', () => {
  it('XLS-R 1B has 706,686,848 parameters up to its layer 35, and 962,496,128 in all', () =>
    scope(() => {
      // The vector that masks in training is none of them.
      const whole = Wav2Vec2.fromConfig('xls-r-1b', { device: 'meta' })
      expect(counted(whole, /^masked_spec_embed$/)).toBe(962_496_128)
      expect(counted(whole, /^masked_spec_embed$|^encoder\.layer_norm\.|^encoder\.layers\.(3[5-9]|4\d)\./)).toBe(
        706_686_848,
      )
      // What the loader builds for layer 35: no later one, no vector that masks; the norm behind the last stays unused.
      const built = new Wav2Vec2(cut(whole.config, 35), { device: 'meta' })
      expect(built.namedParameters().some(([name]) => name.includes('layers.35.'))).toBe(false)
      expect(counted(built, /^encoder\.layer_norm\./)).toBe(706_686_848)
    }))

  it('Mistral with the tokens of speech has 7,323,676,672', () =>
    scope(() => {
      const { config } = DecoderLM.fromConfig('mistral-7b-v0.1', { device: 'meta' })
      expect(config.vocabSize ?? 32_000).toBe(32_000)
      expect(counted(DecoderLM.fromConfig({ ...config, vocabSize: 42_003 }, { device: 'meta' }))).toBe(7_323_676_672)
    }))
})

const file = await fixture<{ name: string; clip: string; frames: number[] }>('models/units-published')
const [{ clip, frames }] = file.cases as [(typeof file.cases)[0]]
const path = dataPath(`librispeech-other/${clip.split('-')[0]}/${clip}`)
const isHere = publishedWeights().some(({ name, present }) => name === 'whisper-base' && present)

describe.skipIf(!isHere || !hasData('librispeech-other'))('Whisper base, as published, on a LibriSpeech clip', () => {
  const threads = getNumThreads()
  let open: Whisper
  beforeAll(async () => {
    open = await Whisper.fromPretrained('whisper-base', { offline: true, dtype: 'float32' })
  })
  afterAll(() => {
    setNumThreads(threads)
    open.dispose()
  })

  it(
    'has the states of transformers at every layer',
    async () => {
      const network = open.freeze()
      const wanted = Object.entries(tensorsOf(file, 'whisper-base', 'out'))
      expect(wanted).toHaveLength(6)
      await scope(async () => {
        const samples = (await readAudio(path)).samples.flatten()
        for (const [layer, rows] of wanted) {
          const [states] = (await new UnitEncoder(network, Number(layer)).states([samples])) as [Tensor]
          expect(states.shape).toEqual([750, 512])
          const own = frames.map((frame) => states.select(0, frame))
          for (const [i, state] of own.entries())
            expectClose(state, rows.select(0, i), 1e-4, `layer ${layer}, frame ${i}`)
        }
      })
    },
    10 * PATIENCE,
  )

  it(
    'gives the same units with any number of threads, in any batch, beside longer clips',
    async () => {
      const encoder = open
      await scope(async () => {
        const samples = (await readAudio(path)).samples.flatten()
        const clips = [samples, samples.narrow(0, 16_000, 50_000), samples.narrow(0, 100_000, 8000)]
        using kmeans = await fitUnits({ encoder, layer: 4, clips: [samples], clusters: 50, epochs: 3, seed: 1 })
        const extractor = await UnitExtractor.fromPretrained({ encoder, kmeans, layer: 4 })
        const alone: Int32Array[] = []
        setNumThreads(1)
        for (const one of clips) alone.push(await extractor.extract(one))
        expect(alone.map(({ length }) => length)).toEqual([750, 156, 25])
        expect(new Set(alone[0]).size).toBeGreaterThan(20)
        for (const [count, batchSeconds] of [
          [2, 60],
          [3, 1],
        ] as const) {
          // biome-ignore format: one line
          setNumThreads(count)
          expect(await extractor.extractBatch([...clips].reverse(), { batchSeconds })).toEqual([...alone].reverse())
        }
      })
    },
    10 * PATIENCE,
  )
})

// A folder with the two files of the SeamlessM4T file host, and the clip of LJSpeech: 4 GB that nobody has by chance.
const seamless = ['xlsr2_1b_v2.pt', 'kmeans_10k.npy', 'LJ003-0001.wav'].map((name) =>
  join(process.env.VOXTORCH_SEAMLESS_UNITS ?? '', name),
)

/** What `m4t_audio_to_units LJ003-0001.wav` said first (pull request 61 of seamless_communication, its test plan). */
const LJ003_0001 = [
  ...[5884, 2411, 5280, 1803, 5932, 3421, 3992, 1867, 1867, 4783, 772, 2781, 2103, 1839, 6327, 5579, 9121, 3375],
  ...[7563, 5932, 3421, 9014, 4783, 925, 8528, 3254, 6466, 3254, 6394, 6394, 1838, 3380, 3407, 4085, 5682, 2386],
  ...[5510, 4678, 7990, 5957, 5116],
]

it.skipIf(!seamless.every((path) => existsSync(path)))(
  "XLS-R's units of LJ003-0001 are the published ones (VOXTORCH_SEAMLESS_UNITS)",
  async () => {
    const [encoder, kmeans, clip] = seamless as [string, string, string]
    using extractor = await UnitExtractor.fromPretrained({ encoder, kmeans, layer: 35 })
    const units = await extractor.extract(clip)
    expect([...units.subarray(0, LJ003_0001.length)]).toEqual(LJ003_0001)
  },
  60 * PATIENCE,
)
