import { readdirSync, readFileSync } from 'node:fs'
import { inflateRawSync } from 'node:zlib'
import { describe, expect, test } from 'vitest'
import { melFilterBank, ops, readAudio, resample, scope, splitOnSilence, type Tensor } from '../../lib/index.js'
import { relativeError } from '../helpers.js'
import { dataPath, hasData } from './helpers.js'

/** The float32 arrays of an .npz file. */
function npz(bytes: Buffer): Record<string, Float32Array> {
  const arrays: Record<string, Float32Array> = {}
  for (let at = bytes.indexOf('PK\x01\x02', 0, 'latin1'); at >= 0; at = bytes.indexOf('PK\x01\x02', at + 4, 'latin1')) {
    const name = bytes.toString('latin1', at + 46, at + 46 + bytes.readUInt16LE(at + 28))
    const local = bytes.readUInt32LE(at + 42)
    const begin = local + 30 + bytes.readUInt16LE(local + 26) + bytes.readUInt16LE(local + 28)
    const packed = bytes.subarray(begin, begin + bytes.readUInt32LE(at + 20))
    const npy = bytes.readUInt16LE(at + 10) === 8 ? inflateRawSync(packed) : packed
    const values = npy.subarray(10 + npy.readUInt16LE(8))
    arrays[name.replace('.npy', '')] = new Float32Array(Uint8Array.from(values).buffer)
  }
  return arrays
}

describe.skipIf(!hasData('whisper'))('../shared/data/whisper', () => {
  test('the mel filters are those that Whisper was published with', () => {
    const published = npz(readFileSync(dataPath('whisper/mel_filters.npz')))
    for (const bands of [80, 128]) {
      const filters = melFilterBank(400, bands, 16000).dataSync() as Float32Array
      expect(filters.length).toBe(bands * 201)
      expect(relativeError(filters, published[`mel_${bands}`]!)).toBeLessThan(1e-6)
    }
  })

  test('the clip decodes', async () => {
    const { samples, source } = await readAudio(dataPath('whisper/jfk.flac'), { sampleRate: 16000 })
    expect(source).toEqual({ format: 'flac', sampleRate: 44100, channels: 2 })
    expect(samples.shape).toEqual([176000])
    const pieces = await splitOnSilence(samples, 16000, { maxSeconds: 5 })
    expect(pieces.length).toBeGreaterThanOrEqual(3)
    for (const [start, end] of pieces) expect(end - start).toBeLessThanOrEqual(5)
  })
})

describe.skipIf(!hasData('librispeech-other'))('../shared/data/librispeech-other', () => {
  test('100 FLAC clips decode and resample', async () => {
    const root = dataPath('librispeech-other')
    const files = readdirSync(root, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.flac'))
    expect(files.length).toBe(100)
    for (const name of files) {
      await scope(async () => {
        const bytes = readFileSync(`${root}/${name}`)
        const promised = (bytes[21]! & 15) * 2 ** 32 + bytes.readUInt32BE(22)
        const { samples, sampleRate } = await readAudio(`${root}/${name}`)
        expect([samples.size(0), sampleRate], name).toEqual([promised, 16000])
        const whole = samples.mul(32768)
        expect(whole.round().equal(whole), `${name}: samples are whole numbers`).toBe(true)
        const up = await resample(samples, 16000, 22050, { quality: 'high' })
        expect(up.size(0)).toBe(Math.ceil((promised * 22050) / 16000))
        // What the recipe promises to keep, all that lies below 0.913 of 8 kHz, has the power that it had.
        const powerBelow = (clip: Tensor, rate: number) => {
          const bins = Math.floor((7300 / rate) * clip.size(0))
          const spectrum = ops
            .fftRfft(clip.to({ dtype: 'float64' }))
            .narrow(0, 0, bins)
            .abs()
            .square()
          return (spectrum.sum().item() as number) / clip.size(0) ** 2
        }
        expect(powerBelow(up, 22050) / powerBelow(samples, 16000), name).toBeCloseTo(1, 3)
      })
    }
  })
})

describe.skipIf(!hasData('emodb'))('../shared/data/emodb', () => {
  test('WAV clips are read', async () => {
    const root = dataPath('emodb')
    const files = readdirSync(root, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.wav'))
    expect(files.length).toBe(436)
    for (const name of files) {
      await scope(async () => {
        const { samples, sampleRate, source } = await readAudio(`${root}/${name}`)
        expect([sampleRate, source.channels], name).toEqual([16000, 1])
        expect(samples.abs().max().item()).toBeGreaterThan(0.01)
      })
    }
  })
})
