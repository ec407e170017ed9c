import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { clipWindows, fitSamples, openClip, stackSamples } from '../../lib/audio/clip.js'
import * as files from '../../lib/files/index.js'
import * as vt from '../../lib/index.js'
import { settledTensors } from '../helpers.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-clip-'))
const path = (name: string) => join(folder, name)
afterAll(() => rmSync(folder, { recursive: true }))

// Sixteenths are exact in every format.
const ramp = Float32Array.from({ length: 32_000 }, (_, i) => ((i % 31) - 15) / 16)
const numbers = (samples: vt.Tensor) => Array.from(samples.dataSync() as Float32Array)
const shown = async (clip: vt.AudioClip, options?: vt.ReadClipOptions) =>
  vt.scope(async () => {
    const samples = await vt.readClip(clip, options)
    expect([samples.dtype, samples.ndim]).toEqual(['float32', 1])
    return numbers(samples)
  })

beforeAll(() =>
  vt.scope(async () => {
    const mono = vt.tensor(ramp)
    await vt.writeWav(path('mono.wav'), mono, { sampleRate: 16_000, format: 'float32' })
    await vt.writeWav(path('8k.wav'), mono.narrow(0, 0, 8000), { sampleRate: 8000, format: 'float32' })
    const stereo = vt.ops.stack([mono, mono.mul(0.5)])
    await vt.writeWav(path('stereo.wav'), stereo, { sampleRate: 16_000, format: 'float32' })
    await vt.writeWav(path('empty.wav'), vt.zeros([0]), { sampleRate: 16_000 })
    const broken = vt.tensor(Float32Array.of(0, 0.5, Number.NaN, Number.POSITIVE_INFINITY))
    await files.saveNpy(path('broken.npy'), broken)
    await files.saveNpy(path('mono.npy'), mono)
    await files.saveNpy(path('wide.npy'), vt.zeros([2, 3]))
  }),
)

describe('readClip', () => {
  it('takes a path, bytes, an array, a tensor, samples with their rate: the same samples of each', async () => {
    const wanted = Array.from(ramp)
    const bytes = readFileSync(path('mono.wav'))
    const buffer = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength) as ArrayBuffer
    const tensor = vt.tensor(ramp)
    const forms: vt.AudioClip[] = [
      path('mono.wav'),
      bytes,
      new Uint8Array(bytes),
      buffer,
      ramp,
      tensor,
      path('mono.npy'),
    ]
    const rated = [
      { samples: tensor, sampleRate: 16_000 },
      { samples: ramp, sampleRate: 16_000 },
    ]
    for (const clip of [...forms, ...rated, { path: path('mono.wav') }]) expect(await shown(clip)).toEqual(wanted)
    expect(await shown(vt.tensor(Array.from(ramp), { dtype: 'float64' }))).toEqual(wanted)
    tensor.dispose()
  })

  it('takes a part of a file, in seconds, and no more than it is told', async () => {
    for (const file of ['mono.wav', 'mono.npy']) {
      const part = { path: path(file), start: 0.25, end: 0.5 }
      expect(await shown(part)).toEqual(Array.from(ramp.subarray(4000, 8000)))
      expect(await shown({ path: path(file), start: 1.5 })).toEqual(Array.from(ramp.subarray(24_000)))
      expect(await shown(part, { maxSeconds: 0.125 })).toEqual(Array.from(ramp.subarray(4000, 6000)))
      expect(await shown({ path: path(file), start: 9 }, { allowEmpty: true })).toEqual([])
    }
  })

  it('resamples, and leaves a clip at its own rate where it is told to', async () => {
    await vt.scope(async () => {
      const wanted = numbers(await vt.resample(vt.tensor(ramp.subarray(0, 8000)), 8000, 16_000))
      expect(wanted).toHaveLength(16_000)
      expect(await shown(path('8k.wav'))).toEqual(wanted)
      expect(await shown({ samples: ramp.subarray(0, 8000), sampleRate: 8000 })).toEqual(wanted)
      expect(await shown(path('8k.wav'), { sampleRate: null })).toEqual(Array.from(ramp.subarray(0, 8000)))
      const { samples, ...rest } = await openClip({ where: 'test' }, path('8k.wav'), { sampleRate: null })
      expect(rest).toEqual({ sampleRate: 8000, source: { format: 'wav', sampleRate: 8000, channels: 1 }, lost: 0 })
      expect(samples.shape).toEqual([8000])
    })
  })

  it('averages channels or picks one', async () => {
    const wanted = (factor: number) => Array.from(ramp, (value) => factor * value)
    const both = vt.tensor(Float32Array.from([...ramp, ...ramp.map((value) => value / 2)]), { shape: [2, 32_000] })
    for (const clip of [path('stereo.wav'), { samples: both, sampleRate: 16_000 }]) {
      expect(await shown(clip)).toEqual(wanted(0.75))
      expect(await shown(clip, { channels: 0 })).toEqual(wanted(1))
      expect(await shown(clip, { channels: 1 })).toEqual(wanted(0.5))
      await expect(vt.readClip(clip, { channels: 2 })).rejects.toThrow(/channels: expected an index from 0 to 1, got 2/)
    }
  })

  it('fills up, cuts, leaves whole or refuses', async () => {
    const short = ramp.subarray(0, 3)
    expect(await shown(short, { leastSamples: 5 })).toEqual([...short, 0, 0])
    expect(await shown(ramp, { mostSamples: 7, longAudio: 'cut' })).toEqual(Array.from(ramp.subarray(0, 7)))
    expect(await shown(ramp, { mostSamples: 7 })).toHaveLength(32_000)
    const refused = vt.readClip(path('mono.wav'), { mostSamples: 16_000, longAudio: 'error' })
    await expect(refused).rejects.toThrow(/mono\.wav has 2\.00 s, more than 1\.00 s\. Set longAudio/)
    await expect(refused).rejects.toMatchObject({ code: 'ERR_DATA', file: path('mono.wav'), seconds: 2 })
    vt.scope(() => {
      expect(fitSamples(vt.tensor(ramp), { mostSamples: 30_000, longAudio: 'cut' }).lost).toBe(2000)
      expect(() => fitSamples(vt.tensor(ramp), { mostSamples: 9, longAudio: 'error' })).toThrow(vt.DataError)
    })
  })

  it('shares memory with a tensor that is as it should be, and lets it live', async () => {
    const given = vt.tensor(ramp)
    const read = await vt.readClip(given)
    read.fill_(0.5)
    read.dispose()
    expect(given.at(7).item()).toBe(0.5)
    given.dispose()
  })

  it.each([
    ['no clip', 7, /audio to be a path, the bytes of a file, samples \[n\], or samples with their rate/, 'CONFIG'],
    ['null', null, /audio to be/, 'CONFIG'],
    ['a rate of halves', { samples: ramp, sampleRate: 0.5 }, /audio\.sampleRate to be an integer/, 'CONFIG'],
    ['samples of another kind', { samples: [1, 2], sampleRate: 8000 }, /audio to be a path/, 'CONFIG'],
    ['a path of another kind', { path: 7 }, /audio\.path to be a path/, 'CONFIG'],
    ['an end before the start', { path: 'a', start: 2, end: 1 }, /audio\.end to be a number of at least 2/, 'CONFIG'],
    ['a file that is not there', 'none.wav', /none\.wav/, 'DATA'],
    ['a file without samples', path('empty.wav'), /empty\.wav has no samples/, 'DATA'],
    ['bytes of nothing', new Uint8Array(0), /the audio in memory/, 'DATA'],
    ['no samples', new Float32Array(0), /the audio has no samples/, 'DATA'],
    ['NaN', path('broken.npy'), /broken\.npy contains NaN or infinities, the first at sample 2/, 'DATA'],
    ['an array of rows', path('wide.npy'), /wide\.npy: expected real samples \[n\], got float32 \[2,3\]/, 'DATA'],
  ])('refuses %s', async (_, clip, message, code) => {
    const before = await settledTensors()
    const error = await vt.readClip(clip as vt.AudioClip).catch((error) => error)
    expect(error.message).toMatch(message)
    expect(error.code).toBe(`ERR_${code}`)
    if (typeof clip === 'string') expect(error.file).toContain(clip)
    expect(vt.memoryStats().liveTensors).toBeLessThanOrEqual(before)
  })

  it('refuses tensors of other kinds, and options that nobody reads', async () => {
    await vt.scope(async () => {
      await expect(vt.readClip(vt.zeros([1, 9]))).rejects.toThrow(
        /expected \[samples\], one channel, got float32 \[1, 9\]/,
      )
      await expect(vt.readClip(vt.zeros([9], { dtype: 'bool' }))).rejects.toThrow(vt.ConfigError)
      await expect(vt.readClip(ramp, { rate: 8000 } as never)).rejects.toThrow(/expected a known option, got 'rate'/)
      await expect(vt.readClip(ramp, { longAudio: 'whole' as never })).rejects.toThrow(/longAudio/)
    })
  })

  it.each([
    [{ leastSamples: 1.5 }, /leastSamples to be an integer/],
    [{ leastSamples: -1 }, /leastSamples to be an integer/],
    [{ mostSamples: Number.NaN }, /mostSamples to be an integer/],
    [{ mostSamples: '9' }, /mostSamples to be an integer/],
    [{ sampleRate: 0 }, /sampleRate to be an integer/],
    [{ quality: 'best' }, /quality to be 'sinc'/],
    [{ channels: -1 }, /channels to be an integer/],
    [{ channels: 'left' }, /channels to be an integer/],
    [{ maxSeconds: -1 }, /maxSeconds to be a number of at least 0/],
    [{ allowEmpty: 1 }, /allowEmpty to be a boolean/],
    [{ signal: {} }, /signal/],
  ])('refuses the option %o', async (options, message) => {
    const error = await vt.readClip(ramp, options as never).catch((error) => error)
    expect(error).toBeInstanceOf(vt.ConfigError)
    expect(error.message).toMatch(message)
  })

  it('takes samples of any size that are numbers', async () => {
    const loud = new Float32Array(64).fill(3e38)
    expect(await shown(loud)).toEqual(Array.from(loud))
    const both = Float32Array.of(1, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY)
    await expect(vt.readClip(both)).rejects.toThrow(/the first at sample 1/)
  })

  it('ends when nobody waits any more', async () => {
    const signal = AbortSignal.abort(new Error('enough'))
    await expect(vt.readClip(path('mono.wav'), { signal })).rejects.toThrow('enough')
  })
})

describe('windows of a long clip', () => {
  it('are the whole of what is short', () => {
    expect(clipWindows(100, 100)).toEqual([{ from: 0, to: 100 }])
    expect(clipWindows(100, 100, 'half')).toEqual([{ from: 0, to: 100 }])
  })

  it('stand side by side, equally long', () => {
    const windows = clipWindows(1000, 300)
    expect(windows.map(({ from, to }) => [from, to])).toEqual([
      [0, 250],
      [250, 500],
      [500, 750],
      [750, 1000],
    ])
  })

  it('or have half in common, from the beginning to the end', () => {
    for (let samples = 301; samples < 2000; samples += 37) {
      const windows = clipWindows(samples, 300, 'half')
      expect([windows[0]?.from, windows.at(-1)?.to]).toEqual([0, samples])
      for (const [i, { from, to }] of windows.entries()) {
        expect(to - from).toBe(300)
        if (i > 0) expect((windows[i - 1]?.to as number) - from).toBeGreaterThanOrEqual(149)
      }
    }
  })
})

it('stackSamples lays clips side by side, with silence behind and in place of none', () => {
  vt.scope(() => {
    const rows = [vt.tensor(ramp.subarray(0, 3)), null, vt.tensor(ramp.subarray(0, 9)), vt.zeros([0])]
    const batch = stackSamples(rows, 5)
    const wanted = [[...ramp.subarray(0, 3), 0, 0], [0, 0, 0, 0, 0], [...ramp.subarray(0, 5)], [0, 0, 0, 0, 0]]
    expect(batch.toArray()).toEqual(wanted)
  })
})

it('clipSeconds reads the header', async () => {
  expect(await vt.clipSeconds(path('8k.wav'))).toBe(1)
  expect(await vt.clipSeconds(readFileSync(path('mono.wav')))).toBe(2)
  await expect(vt.clipSeconds(path('none.wav'))).rejects.toThrow(vt.DataError)
})
