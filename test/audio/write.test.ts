import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import type { WavSampleFormat } from '../../lib/audio/pcm.js'
import { memoryStats, ops, readAudio, tensor, writeWav, zeros } from '../../lib/index.js'
import { fixture, settledTensors } from '../helpers.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-wav-'))
const path = join(folder, 'x.wav')
afterAll(() => rmSync(folder, { recursive: true }))

const noise = (frames: number, scale = 0.9) =>
  tensor(
    Float32Array.from({ length: 2 * frames }, (_, i) => scale * Math.sin(i * i * 0.37)),
    { shape: [2, frames] },
  )

test('what was read is written back exactly, in every format', async () => {
  for (const format of ['pcm16', 'pcm24', 'pcm32', 'float32'] as WavSampleFormat[]) {
    // More frames than are written at once.
    await writeWav(path, noise(70_001), { sampleRate: 22050, format })
    const first = readFileSync(path)
    const audio = await readAudio(path, { channels: 'all' })
    expect(audio.source).toEqual({ format: 'wav', sampleRate: 22050, channels: 2 })
    expect(audio.samples.shape).toEqual([2, 70_001])
    if (format === 'float32') expect(ops.equal(audio.samples, noise(70_001))).toBe(true)
    const most = { pcm16: 2 ** -16, pcm24: 2 ** -24, pcm32: 2 ** -25, float32: 0 }[format]
    expect(audio.samples.sub(noise(70_001)).abs().max().item()).toBeLessThanOrEqual(most)
    await writeWav(path, audio.samples, { sampleRate: 22050, format })
    expect(readFileSync(path).equals(first), format).toBe(true)
  }
})

test("libsndfile's files come back byte for byte", async () => {
  const { tensors } = await fixture('audio/wav')
  for (const [name, format] of [
    ['WAV-PCM_16', 'pcm16'],
    ['WAV-PCM_24', 'pcm24'],
    ['WAV-PCM_32', 'pcm32'],
  ] as const) {
    const bytes = tensors[`${name}/file/bytes`]!.dataSync() as Uint8Array
    const { samples } = await readAudio(bytes, { channels: 'all' })
    await writeWav(path, samples, { sampleRate: 8000, format })
    const again = await readAudio(path, { channels: 'all' })
    expect(ops.equal(again.samples, samples)).toBe(true)
    if (format === 'pcm16') expect(readFileSync(path).equals(Buffer.from(bytes))).toBe(true)
  }
})

test('one signal, other dtypes, odd lengths, the full scale', async () => {
  const values = tensor([-2, -1, -0.5, 0, 1 / 65536, 1.5 / 32768, 32767 / 32768, 1, Number.POSITIVE_INFINITY], {
    dtype: 'float64',
  })
  await writeWav(path, values, { sampleRate: 8000 })
  const wanted = [-1, -1, -0.5, 0, 1 / 32768, 2 / 32768, 32767 / 32768, 32767 / 32768, 32767 / 32768]
  expect((await readAudio(path)).samples.toArray()).toEqual(wanted)
  await writeWav(path, zeros([1, 3]), { sampleRate: 8000, format: 'pcm24' })
  expect(readFileSync(path).length).toBe(44 + 9 + 1)
  await writeWav(path, zeros([0]), { sampleRate: 8000, format: 'float32' })
  expect((await readAudio(path)).samples.shape).toEqual([0])
  await writeWav(path, noise(10).t().contiguous().t(), { sampleRate: 8000, format: 'float32' })
  expect(ops.equal((await readAudio(path, { channels: 'all' })).samples, noise(10)), 'any strides').toBe(true)
})

test('a file that cannot be written whole leaves what was there', async () => {
  writeFileSync(path, 'before')
  const broken = zeros([100_000])
  broken.setAt([99_999], Number.NaN)
  await expect(writeWav(path, broken, { sampleRate: 8000 })).rejects.toThrow(
    /sample 99999 of channel 0: expected a number for pcm16, got NaN/,
  )
  expect(readFileSync(path, 'utf8')).toBe('before')
  expect(readdirSync(folder)).toEqual(['x.wav'])
  await expect(writeWav(join(folder, 'none', 'x.wav'), zeros([1]), { sampleRate: 8000 })).rejects.toMatchObject({
    code: 'ERR_DATA',
  })
})

test('wrong arguments are typed errors', async () => {
  const good = { sampleRate: 8000 }
  for (const call of [
    () => writeWav(7 as never, zeros([1]), good),
    () => writeWav(path, [1] as never, good),
    () => writeWav(path, zeros([1]), null as never),
    () => writeWav(path, zeros([1]), {} as never),
    () => writeWav(path, zeros([1]), { sampleRate: 0.5 }),
    () => writeWav(path, zeros([1]), { sampleRate: 2 ** 33 }),
    () => writeWav(path, zeros([1]), { sampleRate: 8000, format: 'mp3' as never }),
    () => writeWav(path, zeros([]), good),
    () => writeWav(path, zeros([1, 1, 1]), good),
    () => writeWav(path, zeros([2000, 1]), good),
    () => writeWav(path, zeros([2], { dtype: 'complex64' }), good),
    () => writeWav(path, zeros([1]).expand([2 ** 31]), good),
  ]) {
    await expect(call(), String(call)).rejects.toMatchObject({ code: 'ERR_CONFIG' })
  }
})

test('no tensor is left behind', async () => {
  const samples = noise(1000)
  const before = await settledTensors()
  await writeWav(path, samples, { sampleRate: 8000 })
  await writeWav(path, zeros([3]), { sampleRate: 8000 })
  expect(memoryStats().liveTensors).toBeLessThanOrEqual(before + 1)
})
