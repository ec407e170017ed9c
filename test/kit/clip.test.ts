import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { ConfigError, DataError, memoryStats, scope, type Tensor, tensor, writeWav } from '../../lib/index.js'
import { ClipReader, joinSamples } from '../../lib/kit/clip.js'
import { settledTensors } from '../helpers.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-kit-clip-'))
afterAll(() => rmSync(folder, { recursive: true }))
const ramp = Float32Array.from({ length: 1600 }, (_, i) => ((i % 31) - 15) / 16)
const numbers = (samples: Tensor) => Array.from(samples.dataSync() as Float32Array)

beforeAll(() =>
  scope(async () => {
    await writeWav(join(folder, 'a.wav'), tensor(ramp), { sampleRate: 16_000, format: 'float32' })
    await writeWav(join(folder, '8k.wav'), tensor(ramp), { sampleRate: 8000, format: 'float32' })
  }),
)

it('reads what records name, from their folder', () =>
  scope(async () => {
    const reader = new ClipReader({ audioRoot: folder, leastSamples: 1000 })
    expect(numbers(await reader.read({ path: 'a.wav' }))).toEqual(Array.from(ramp))
    const part = numbers(await reader.read({ path: 'a.wav', start: 0.05, end: 0.09 }))
    expect(part).toEqual([...ramp.subarray(800, 1440), ...new Array(360).fill(0)])
    expect((await reader.read({ path: join(folder, '8k.wav') })).shape).toEqual([3200])
  }))

it('names the record and the file, also where other audio is refused', async () => {
  const before = await settledTensors()
  const reader = new ClipReader({ audioRoot: folder, otherAudio: 'refuse' })
  const owner = { record: 'data.jsonl, line 3', field: 'speech', fields: { item: 7 } }
  const fault = (path: string, more = {}) => reader.read({ path, ...more }, owner).catch((error) => error)
  const wrong = await fault('8k.wav')
  expect(wrong).toBeInstanceOf(DataError)
  expect(wrong.message).toMatch(
    /^data\.jsonl, line 3: its speech 8k\.wav: expected 1 channel of 16000 Hz, got 1 channels of 8000 Hz/,
  )
  expect(wrong).toMatchObject({ item: 7, file: join(folder, '8k.wav') })
  expect((await fault('none.wav')).message).toMatch(/^data\.jsonl, line 3: .*none\.wav/)
  expect((await fault('a.wav', { start: 9 })).message).toBe('data.jsonl, line 3: its speech a.wav has no samples')
  expect(await fault('a\0.wav')).toBeInstanceOf(DataError)
  // A fault of the program is not the record's: nothing may skip it as a bad record.
  const broken = { path: 'a.wav', get start(): number { throw new RangeError('a fault') } } // biome-ignore format: one line
  await expect(reader.read(broken, owner)).rejects.toThrow(RangeError)
  // Whoever catches it says which record.
  expect((await reader.read({ path: 'a.wav', start: 9 }).catch((error) => error)).message).toBe(
    'its audio a.wav has no samples',
  )
  expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
})

it('joins clips with silence between them', () =>
  scope(() => {
    const clips = [tensor([1, 2], { dtype: 'float32' }), tensor([3], { dtype: 'float32' })]
    expect(joinSamples(clips, 2, true).toArray()).toEqual([1, 2, 0, 0, 3, 0, 0])
    expect(joinSamples(clips, 1, false).toArray()).toEqual([1, 2, 0, 3])
    expect(joinSamples(clips, 0, true).toArray()).toEqual([1, 2, 3])
    expect(() => joinSamples([], 1, true)).toThrow(ConfigError)
  }))
