import { appendFileSync, mkdtempSync, readdirSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it, vi } from 'vitest'
import {
  arange,
  BusyError,
  DataError,
  full,
  noGrad,
  scope,
  stack,
  type Tensor,
  WhisperEncoder,
  writeWav,
} from '../../../../lib/index.js'
import type { EmotionDialog } from '../../../../lib/kit/emotion/dialog.js'
import { FeatureCache } from '../../../../lib/systems/emotion/data/features.js'
import { clipSource } from '../../../../lib/systems/emotion/network/encoders.js'
import { EmotionVoiceEncoder } from '../../../../lib/systems/emotion/network/voice-encoder.js'
import { settledTensors } from '../../../helpers.js'
import { PATIENCE } from '../../../patience.js'
import { start } from '../../../train/trainer/child.js'
import { dialogs, hot, TinyEncoder } from '../tiny.js'

const folder = () => mkdtempSync(join(tmpdir(), 'voxtorch-emotion-cache-'))
const data = dialogs(5, ['joy', 'fear'])
const facts = (dialog: EmotionDialog, place: number) =>
  place === 3 ? undefined : hot(8, place, Number(dialog.id) * 10 + place)
const encoder = (size = 6) => {
  const made = new TinyEncoder('text', size, facts, { encoder: 'tiny', version: 1 }, true)
  noGrad(() => made.network?.table.weight.fill_(0.25))
  noGrad(() => made.network?.table.bias?.zero_())
  return made
}

async function using<T>(where: string, work: (cache: FeatureCache) => Promise<T>): Promise<T> {
  const cache = FeatureCache.open(where)
  try {
    return await work(cache)
  } finally {
    await cache.close()
  }
}

describe('FeatureCache', () => {
  it('computes each utterance once, whoever asks', async () => {
    const where = folder()
    const first = encoder()
    const found = await using(where, (cache) => cache.vectors(first, data, { batchSize: 4 }))
    expect(found.map((rows) => rows.map((row) => row?.length))).toEqual(data.map(() => [6, 6, 6, undefined]))
    expect([first.encoded, first.reads]).toEqual([15, 15])
    const row = facts(data[1]!, 2) as number[]
    const wanted = row.reduce((sum, value) => sum + 0.25 * value, 0)
    for (const value of (found[1] as Float32Array[])[2] as Float32Array) expect(value).toBeCloseTo(wanted, 5)
    const second = encoder()
    const states: number[][] = []
    const again = await using(where, (cache) =>
      cache.vectors(second, data, { onProgress: ({ done, total, hits }) => void states.push([done, total, hits]) }),
    )
    expect(again).toEqual(found)
    expect(second.reads).toBe(0)
    expect(states).toEqual([[20, 20, 15]])
    // The same words in another dialog are the same words.
    const copied = [...data, { ...data[0]!, source: 'elsewhere' }]
    expect((await using(folder(), (cache) => cache.vectors(encoder(), copied)))[5]).toEqual(found[0])
  })

  it(
    'reads a second epoch from the disk alone, and says how much sooner it is there',
    async () => {
      const sound = join(folder(), 'long.wav')
      await scope(() =>
        writeWav(
          sound,
          arange(60 * 16000)
            .mul(0.3)
            .sin()
            .mul(0.4),
          { sampleRate: 16000 },
        ),
      )
      const network = WhisperEncoder.fromConfig({
        ...{ dModel: 256, encoderLayers: 4, encoderAttentionHeads: 4, encoderFfnDim: 1024, numMelBins: 80 },
        maxSourcePositions: 100,
      })
      const listener = new EmotionVoiceEncoder(network.eval(), { maxSeconds: 2 })
      const clips = Array.from({ length: 150 }, (_, i) => ({
        ...{ id: String(i), source: `made ${i}` },
        utterances: [{ id: 1, text: '', speaker: 'A', clip: { audio: sound, start: 0.38 * i, end: 0.38 * i + 2 } }],
      }))
      const [encode, read] = [vi.spyOn(listener, 'encode'), vi.spyOn(listener, 'read')]
      const where = folder()
      const epoch = async () => {
        const [began, asked, clipsBefore] = [process.cpuUsage(), encode.mock.calls.length, read.mock.calls.length]
        const vectors = await using(where, (cache) => cache.vectors(listener as never, clips))
        const { user, system } = process.cpuUsage(began)
        return {
          vectors,
          seconds: (user + system) / 1e6,
          encoded: encode.mock.calls.length - asked,
          clips: read.mock.calls.length - clipsBefore,
        }
      }
      const [first, second] = [await epoch(), await epoch()]
      // Of the work of the first nothing is left: no clip is read, no network runs.
      expect([first.encoded, first.clips]).toEqual([10, 150])
      expect([second.encoded, second.clips]).toEqual([0, 0])
      expect(second.vectors).toEqual(first.vectors)
      const times = Math.round(first.seconds / second.seconds)
      console.log(
        `features of 150 clips: ${first.seconds.toFixed(2)} s of processor time, then ${second.seconds.toFixed(2)} s: ${times} times as fast`,
      )
    },
    PATIENCE,
  )

  it('misses where the input, the recipe, the configuration, the weights, the dtype or the size is another', async () => {
    const where = folder()
    await using(where, (cache) => cache.vectors(encoder(), data))
    const encoded = async (made: TinyEncoder, some = data) => {
      await using(where, (cache) => cache.vectors(made, some))
      return made.encoded
    }
    expect(await encoded(encoder())).toBe(0)
    expect(
      await encoded(
        new TinyEncoder(
          'text',
          6,
          (dialog, place) => facts(dialog, place)?.map((v, i) => (i === 0 && place === 0 ? v + 1 : v)),
          { encoder: 'tiny', version: 1 },
          true,
        ),
      ),
    ).toBe(15)
    const changed = new TinyEncoder(
      'text',
      6,
      (dialog, place) => facts(dialog, place)?.map((v) => (place === 0 ? v + 1 : v)),
      { encoder: 'tiny', version: 1 },
      true,
    )
    changed.network?.loadStateDict(encoder().network!.stateDict())
    expect(await encoded(changed)).toBe(5)
    const recipe = new TinyEncoder('text', 6, facts, { encoder: 'tiny', version: 2 }, true)
    recipe.network?.loadStateDict(encoder().network!.stateDict())
    expect(await encoded(recipe)).toBe(15)
    const weights = encoder()
    noGrad(() => weights.network?.table.weight.select(0, 5).select(0, 7).fill_(0.2500001))
    expect(await encoded(weights)).toBe(15)
    expect(await encoded(encoder(5))).toBe(15)
    // The same weights under another activation.
    const made = (config: object) => {
      const one = encoder()
      Object.assign(one.network!, { config })
      return one
    }
    expect(await encoded(made({ hiddenAct: 'gelu', layers: 1 }))).toBe(15)
    expect(await encoded(made({ layers: 1, hiddenAct: 'gelu' }))).toBe(0)
    expect(await encoded(made({ hiddenAct: 'quick_gelu', layers: 1 }))).toBe(15)
    const half = encoder()
    half.network?.to({ dtype: 'float64' })
    expect(await FeatureCache.keyOf(half)).not.toBe(await FeatureCache.keyOf(encoder()))
  })

  it('goes on behind what a kill left, and cuts off what is half written or damaged', async () => {
    const where = folder()
    const found = await using(where, (cache) => cache.vectors(encoder(), data, { batchSize: 5 }))
    const file = join(where, readdirSync(where).find((name) => name.endsWith('.vectors')) as string)
    const { size } = statSync(file)
    const record = size / 15
    truncateSync(file, Math.floor(record * 7.5))
    const after = encoder()
    expect(await using(where, (cache) => cache.vectors(after, data))).toEqual(found)
    expect(after.encoded).toBe(8)
    expect(statSync(file).size).toBe(size)
    appendFileSync(file, Buffer.alloc(3 * record, 7))
    const third = encoder()
    expect(await using(where, (cache) => cache.vectors(third, data))).toEqual(found)
    expect([third.encoded, statSync(file).size]).toEqual([0, size])
    // What was aborted is as what was killed.
    const other = folder()
    const stop = new AbortController()
    const cut = encoder()
    const aborted = using(other, (cache) =>
      cache.vectors(cut, data, {
        batchSize: 2,
        signal: stop.signal,
        onProgress: ({ done }) => done > 8 && stop.abort(),
      }),
    )
    await expect(aborted).rejects.toThrow()
    const rest = encoder()
    expect(await using(other, (cache) => cache.vectors(rest, data))).toEqual(found)
    expect(cut.encoded + rest.encoded).toBe(15)
  })

  it(
    'has after SIGKILLs what it has without them, and computes nothing that was there',
    async () => {
      const script = fileURLToPath(new URL('cache-run.mjs', import.meta.url))
      const run = (where: string) => start([script, where])
      const whole = run(folder())
      expect(await whole.exit, whole.errors()).toEqual({ code: 0, signal: null })
      expect(whole.lines.at(-2)).toBe('computed 120')
      const where = folder()
      let there = 0
      for (const batches of [2, 7]) {
        const child = run(where)
        for (let i = 0; i < batches; i += 1) await child.line(/^done/)
        child.process.kill('SIGKILL')
        expect((await child.exit).signal).toBe('SIGKILL')
        const begun = Number(child.lines.find((line) => line.startsWith('done'))?.slice(5))
        // What an earlier one had computed is there.
        expect(begun).toBeGreaterThanOrEqual(there)
        there = Math.max(...child.lines.flatMap((line) => (line.startsWith('done') ? [Number(line.slice(5))] : [])))
      }
      const last = run(where)
      expect(await last.exit, last.errors()).toEqual({ code: 0, signal: null })
      expect(last.lines.at(-1)).toBe(whole.lines.at(-1))
      expect(Number(last.lines.at(-2)?.slice(9))).toBeLessThanOrEqual(120 - there)
      const after = run(where)
      expect(await after.exit, after.errors()).toEqual({ code: 0, signal: null })
      expect(after.lines.slice(-3)).toEqual(['done 120', 'computed 0', whole.lines.at(-1)])
    },
    PATIENCE,
  )

  it(
    'reads 10,000 clips without keeping them',
    async () => {
      const many = Array.from({ length: 1000 }, (_, d) => ({
        ...{ id: String(d), source: `made ${d}` },
        utterances: Array.from({ length: 10 }, (_, u) => ({ id: u, text: '', speaker: '' })),
      }))
      const BYTES = 1 << 18
      const clips = {
        ...{ modality: 'video' as const, size: 8, network: null, recipe: { encoder: 'clips' }, reads: 0 },
        source: async ({ id }: EmotionDialog, place: number) => `${id} ${place}`,
        async read({ id }: EmotionDialog, place: number) {
          this.reads += 1
          return full([BYTES], (Number(id) + place) % 256, { dtype: 'uint8' })
        },
        encode: async (inputs: readonly Tensor[]) =>
          scope(() => stack(inputs.map((clip) => clip.slice(0, 0, 8).to({ dtype: 'float32' })))),
      }
      const where = folder()
      const warm = await using(where, (cache) => cache.vectors(clips, many.slice(0, 50)))
      const [before, live] = [process.memoryUsage().rss, await settledTensors()]
      const found = await using(where, (cache) => cache.vectors(clips, many))
      // All clips together are 2.6 GB; their vectors and keys are a few MB.
      expect(process.memoryUsage().rss - before).toBeLessThan(400 * 2 ** 20)
      expect([clips.reads, (await settledTensors()) - live]).toEqual([10_000, 0])
      expect([found.flat().length, found[999]?.[9]?.[0], warm[3]]).toEqual([10_000, (999 + 9) % 256, found[3]])
      await using(where, (cache) => cache.vectors(clips, many))
      expect(clips.reads).toBe(10_000)
    },
    PATIENCE,
  )

  it('has one writer, and refuses vectors that are no numbers', async () => {
    const where = folder()
    const cache = FeatureCache.open(where)
    expect(() => FeatureCache.open(where)).toThrow(BusyError)
    const broken = new TinyEncoder('text', 8, () => hot(8, 0, 0).map((v, i) => (i === 2 ? Number.NaN : v)))
    await expect(cache.vectors(broken, data)).rejects.toThrow(/text: expected a finite vector .* got NaN/)
    await cache.close()
    await FeatureCache.open(where).close()
  })

  it('knows clips by their bytes and times', async () => {
    const file = join(folder(), 'a.wav')
    writeFileSync(file, 'one')
    const one = await clipSource(file)
    expect(await clipSource(file, { start: 1 })).not.toBe(one)
    writeFileSync(file, 'other')
    expect(await clipSource(file)).not.toBe(one)
    const frames = folder()
    writeFileSync(join(frames, '1.png'), 'a')
    expect(await clipSource(frames)).toMatch(/^[0-9a-f]{64} /)
    await expect(clipSource('/no/such.wav')).rejects.toThrow(DataError)
  })
})
