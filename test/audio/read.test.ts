import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { afterAll, describe, expect, test, vi } from 'vitest'
import { mixChannels } from '../../lib/audio/channels.js'
import { FileSource } from '../../lib/files/byte-source.js'
import { memoryStats, ops, readAudio, readAudioStream, resample, scope, type Tensor, zeros } from '../../lib/index.js'
import { expectClose, fixture, settledTensors } from '../helpers.js'
import { PATIENCE } from '../patience.js'
import { chunk, formatChunk, pcm16, riff, writeSilence } from './wav-bytes.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-audio-'))
afterAll(() => rmSync(folder, { recursive: true }))

/** The quick power of two in npm's opus-decoder is wrong by up to 7.5e-5: formats.test.ts. */
const tolerance = (format: string) => (format === 'flac' ? 0 : format === 'opus' ? 7.5e-5 : 1e-5)

const numbersOf = (values: Tensor) => [...(values.dataSync() as Float32Array)]

/** What a stream gives, put together, and where its chunks begin. */
async function gathered(...args: Parameters<typeof readAudioStream>): Promise<{ samples: Tensor; starts: number[] }> {
  const parts: Tensor[] = []
  const starts: number[] = []
  for await (const { samples, start } of readAudioStream(...args)) {
    parts.push(samples.clone())
    starts.push(start)
  }
  return { samples: ops.cat(parts, -1), starts }
}

describe('files that libsndfile wrote', async () => {
  const wav = await fixture<{ name: string; sampleRate: number }>('audio/wav')
  for (const { name, sampleRate } of wav.cases) {
    test(name, async () => {
      const bytes = wav.tensors[`${name}/file/bytes`]!.dataSync() as Uint8Array
      const wanted = wav.tensors[`${name}/out/samples`]!
      const audio = await readAudio(bytes, { channels: 'all' })
      expect(audio.sampleRate).toBe(sampleRate)
      expect(audio.source).toEqual({ format: 'wav', sampleRate, channels: 2 })
      expect(audio.samples.dtype).toBe('float32')
      expect(ops.equal(audio.samples, wanted), 'bit for bit').toBe(true)
    })
  }

  const compressed = await fixture<{ name: string; sampleRate: number; format: string }>('audio/compressed')
  for (const { name, sampleRate, format } of compressed.cases) {
    test(name, async () => {
      const bytes = compressed.tensors[`${name}/file/bytes`]!.dataSync() as Uint8Array
      const wanted = compressed.tensors[`${name}/out/samples`]!
      // The name is of no account.
      const path = join(folder, `${name}.wav`)
      writeFileSync(path, bytes)
      for (const input of [path, bytes]) {
        const audio = await readAudio(input, { channels: 'all' })
        expect(audio.source).toEqual({ format, sampleRate, channels: 2 })
        expectClose(audio.samples, wanted, tolerance(format))
      }
      const { samples } = await gathered(path, { channels: 'all', chunkSeconds: 0.01 })
      expectClose(samples, wanted, tolerance(format), 'stream')
    })
  }

  test('an ID3 tag before FLAC and MP3 is passed over', async () => {
    const tag = Buffer.concat([Buffer.from('ID3\x04\x00\x00\x00\x00\x01\x00', 'latin1'), Buffer.alloc(128)])
    for (const name of ['flac16', 'mp3']) {
      const bytes = compressed.tensors[`${name}/file/bytes`]!.dataSync() as Uint8Array
      const { samples } = await readAudio(Buffer.concat([tag, bytes]), { channels: 'all' })
      expectClose(samples, compressed.tensors[`${name}/out/samples`]!, 1e-5)
    }
  })

  test('damaged compressed files are errors or less audio, never a hang', async () => {
    for (const { name } of compressed.cases) {
      const bytes = compressed.tensors[`${name}/file/bytes`]!.dataSync() as Uint8Array
      const broken = [bytes.subarray(0, bytes.length >> 1), bytes.subarray(0, 60), Buffer.from(bytes).fill(0xff, 200)]
      for (const input of broken) {
        const begin = performance.now()
        try {
          const { samples } = await readAudio(input)
          expect(samples.size(0)).toBeGreaterThan(0)
          samples.dispose()
        } catch (error) {
          expect(error).toMatchObject({ code: 'ERR_DATA', file: 'the audio in memory' })
        }
        expect(performance.now() - begin).toBeLessThan(PATIENCE)
      }
    }
    const flac = compressed.tensors['flac16/file/bytes']!.dataSync() as Uint8Array
    await expect(readAudio(flac.subarray(0, flac.length - 100))).rejects.toThrow(/expected 960 frames/)
  })

  test('what a compressed file unfolds to is bounded', async () => {
    const bytes = compressed.tensors['mp3/file/bytes']!.dataSync() as Uint8Array
    await expect(readAudio(bytes, { maxBytes: 1000 })).rejects.toThrow(/at most 1000 bytes of decoded samples/)
  })

  test('many files at once', async () => {
    const bytes = compressed.tensors['vorbis/file/bytes']!.dataSync() as Uint8Array
    const all = await Promise.all(Array.from({ length: 20 }, () => readAudio(bytes)))
    for (const { samples } of all) expect(samples.shape).toEqual([960])
  })
})

describe('options', () => {
  const stereo = riff([formatChunk({ channels: 2 }), chunk('data', pcm16(0, 32767, 16384, 0, -16384, -16384, 8192, 0))])

  test('channels', async () => {
    const mean = [0.5 - 1 / 65536, 0.25, -0.5, 0.125]
    expect(numbersOf((await readAudio(stereo)).samples)).toEqual(mean)
    const all = await readAudio(stereo, { channels: 'all' })
    expect(all.samples.shape).toEqual([2, 4])
    expect(numbersOf(mixChannels(all.samples))).toEqual(mean)
    expect(numbersOf(mixChannels(all.samples, [1, 0]))).toEqual([0, 0.5, -0.5, 0.25])
    expect(numbersOf((await readAudio(stereo, { channels: 0 })).samples)).toEqual([0, 0.5, -0.5, 0.25])
    expect(numbersOf((await readAudio(stereo, { channels: 1 })).samples)).toEqual([32767 / 32768, 0, -0.5, 0])
    await expect(readAudio(stereo, { channels: 2 })).rejects.toThrow(/channels: expected an index from 0 to 1, got 2/)
    expect(() => mixChannels(all.samples, [1])).toThrow(/weights: expected 2 numbers/)
  })

  test('start and duration', async () => {
    const at = async (options: object) => numbersOf((await readAudio(stereo, { channels: 0, ...options })).samples)
    expect(await at({ start: 1 / 8000 })).toEqual([0.5, -0.5, 0.25])
    expect(await at({ start: 1 / 8000, duration: 2 / 8000 })).toEqual([0.5, -0.5])
    expect(await at({ duration: 0 })).toEqual([])
    expect(await at({ start: 100 })).toEqual([])
    expect(await at({ start: 3 / 8000, duration: 100 })).toEqual([0.25])
  })

  test('start and duration in a compressed file', async () => {
    const { tensors } = await fixture('audio/compressed')
    const bytes = tensors['vorbis/file/bytes']!.dataSync() as Uint8Array
    const whole = (await readAudio(bytes)).samples
    const part = await readAudio(bytes, { start: 0.01, duration: 0.02 })
    expect(ops.equal(part.samples, whole.narrow(0, 160, 320))).toBe(true)
  })

  test('sampleRate and quality', async () => {
    const noise = Array.from({ length: 3000 }, (_, i) => Math.round(20000 * Math.sin(i * i)))
    const bytes = riff([formatChunk({ sampleRate: 44100 }), chunk('data', pcm16(...noise))])
    const plain = (await readAudio(bytes)).samples
    for (const quality of ['sinc', 'high'] as const) {
      const { samples, sampleRate, source } = await readAudio(bytes, { sampleRate: 16000, quality })
      expect([sampleRate, source.sampleRate]).toEqual([16000, 44100])
      const wanted = await resample(plain, 44100, 16000, { quality })
      expect(ops.equal(samples, wanted)).toBe(true)
      const stream = await gathered(bytes, { sampleRate: 16000, quality, chunkSeconds: 0.02 })
      expect(ops.equal(stream.samples, wanted)).toBe(true)
      expect(stream.starts.slice(0, 4)).toEqual([0, 0.02, 0.04, 0.06])
    }
  })

  test('wrong ones are typed errors', async () => {
    for (const options of [
      { channels: 'left' },
      { channels: -1 },
      { sampleRate: 0 },
      { sampleRate: 16000.5 },
      { start: -1 },
      { start: Number.NaN },
      { duration: '1' },
      { quality: 'best' },
      null,
    ]) {
      await expect(readAudio(stereo, options as never), JSON.stringify(options)).rejects.toMatchObject({
        code: 'ERR_CONFIG',
      })
    }
    await expect(readAudio(7 as never)).rejects.toMatchObject({ code: 'ERR_CONFIG' })
    await expect(readAudio(join(folder, 'none.wav'))).rejects.toMatchObject({ code: 'ERR_DATA' })
    await expect(readAudio(join(folder, 'none.wav'))).rejects.toThrow(
      new RegExp(`^${join(folder, 'none.wav')}: it cannot be opened: there is no such file$`),
    )
    await expect(readAudio('https://example.org/a.mp3')).rejects.toThrow(/it is a URL\. Download the file/)
    await expect(readAudio(new Uint8Array())).rejects.toThrow(/got an empty file/)
    await expect(readAudio(folder)).rejects.toThrow(/expected a regular file, got a folder/)
    await expect(gathered(stereo, { chunkSeconds: 0 })).rejects.toMatchObject({ code: 'ERR_CONFIG' })
  })
})

describe('a long file', () => {
  const seconds = 3600
  const path = join(folder, 'long.wav')
  test('a part of it is read from where it is', async () => {
    writeSilence(path, seconds)
    const { samples } = await readAudio(path, { start: seconds - 1 })
    expect(samples.shape).toEqual([16000])
  })
})

test('leaving a stream frees its chunk, closes the file and stops its decoder', async () => {
  const bytes = riff([formatChunk(), chunk('data', Buffer.alloc(8000))])
  const before = await settledTensors()
  let kept: Tensor | undefined
  for await (const { samples } of readAudioStream(bytes, { chunkSeconds: 0.1, sampleRate: 16000 })) {
    kept = samples
    break
  }
  expect(kept!.disposed).toBe(true)
  const { tensors } = await fixture('audio/compressed')
  const flac = Buffer.from(tensors['flac16/file/bytes']!.dataSync() as Uint8Array)
  for (const made of Object.values(tensors)) made.dispose()
  const path = join(folder, 'left.flac')
  writeFileSync(path, flac)
  const close = vi.spyOn(FileSource.prototype, 'close')
  // Threads that were sent this file: other threads of the process may end meanwhile.
  const terminate = vi.spyOn(Worker.prototype, 'terminate')
  const send = vi.spyOn(Worker.prototype, 'postMessage')
  const ended = () => terminate.mock.contexts.filter((worker) => send.mock.contexts.includes(worker)).length
  for await (const _ of readAudioStream(path, { chunkSeconds: 0.01 })) break
  expect([close.mock.calls.length, ended()]).toEqual([1, 1])
  // A file that was read to its end leaves its decoder to the next one.
  for (let i = 0; i < 2; i += 1) (await readAudio(path)).samples.dispose()
  expect([close.mock.calls.length, ended()]).toEqual([3, 1])
  vi.restoreAllMocks()
  expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
})

test('no tensor is left behind', async () => {
  const bytes = riff([formatChunk({ channels: 2 }), chunk('data', Buffer.alloc(8000))])
  const samples = zeros([2, 10])
  const before = await settledTensors()
  await scope(async () => {
    await readAudio(bytes, { sampleRate: 16000 })
    mixChannels(samples, [1, 2])
    for await (const _ of readAudioStream(bytes, { chunkSeconds: 0.1, sampleRate: 16000 }));
  })
  expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
  const audio = await readAudio(bytes, { sampleRate: 16000 })
  expect(memoryStats().liveTensors).toBe(before + 1)
  audio.samples.dispose()
  await expect(readAudio(bytes.subarray(0, 50))).rejects.toThrow(
    /expected 8000 bytes of samples, as the header declares, got 6/,
  )
  expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
})
