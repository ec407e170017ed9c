import { expect, test } from 'vitest'
import type { Segment } from '../../lib/audio/silence.js'
import { energyVad, memoryStats, splitOnSilence, tensor, zeros } from '../../lib/index.js'
import { settledTensors } from '../helpers.js'

const rate = 8000

/** Sound of a level at the given times, and a hiss 60 dB below full scale everywhere. */
function clip(seconds: number, sounds: [start: number, end: number, level?: number][]): Float32Array {
  return Float32Array.from({ length: Math.round(seconds * rate) }, (_, i) => {
    const sound = sounds.find(([start, end]) => i >= start * rate && i < end * rate)
    return (sound ? (sound[2] ?? 0.5) : 0) * Math.sin(i * 0.7) + 0.001 * Math.sin(i * i)
  })
}

const close = (got: Segment[], wanted: Segment[]) => {
  expect(got.length).toBe(wanted.length)
  got.flat().forEach((moment, i) => {
    expect(moment).toBeCloseTo(wanted.flat()[i]!, 6)
  })
}

test('sounds are found, with their padding', async () => {
  const sound = tensor(
    clip(10, [
      [1, 2],
      [4, 6, 0.05],
      [9, 10],
    ]),
  )
  close(await energyVad(sound, rate), [
    [0.9, 2.1],
    [3.9, 6.1],
    [8.9, 10],
  ])
  // 0.05 is 20 dB below the loudest.
  close(await energyVad(sound, rate, { topDb: 15, padding: 0 }), [
    [1, 2],
    [9, 10],
  ])
})

test('short pauses join, short sounds are dropped, neighbours share a pause', async () => {
  const sound = tensor(
    clip(5, [
      [1, 2],
      [2.2, 3],
      [4, 4.06],
    ]),
  )
  close(await energyVad(sound, rate), [[0.9, 3.1]])
  close(await energyVad(sound, rate, { minSilence: 0.1, minSpeech: 0.02, padding: 0.15 }), [
    [0.85, 2.1],
    [2.1, 3.15],
    [3.85, 4.21],
  ])
})

/** Noise in bursts of a level in decibels of full scale, like syllables, over a steady hiss. */
function speech(seconds: number, hiss: number, parts: [start: number, end: number, level: number][]): Float32Array {
  let state = 1
  const noise = () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.sqrt(12) * (state / 2 ** 32 - 0.5)
  }
  return Float32Array.from({ length: Math.round(seconds * rate) }, (_, i) => {
    const at = i / rate
    const part = parts.find(([start, end]) => at >= start && at < end)
    const syllable = 0.02 + Math.abs(Math.sin(Math.PI * 4 * at))
    return 10 ** (hiss / 20) * noise() + (part ? 10 ** (part[2] / 20) * syllable * noise() : 0)
  })
}
/** The seconds of `segments` within a part. */
const within = (segments: Segment[], start: number, end: number): number =>
  segments.reduce((sum, [from, to]) => sum + Math.max(0, Math.min(to, end) - Math.max(from, start)), 0)

test('a knock at full scale hides no soft speech', async () => {
  const samples = speech(12, -85, [[3, 9, -51]])
  for (let i = 1.5 * rate; i < 1.525 * rate; i += 1) samples[i] = i % 2 === 0 ? 1 : -1
  const found = await energyVad(tensor(samples), rate)
  expect(within(found, 3, 9)).toBeGreaterThan(5.9)
  expect(within(found, 0, 2.5) + within(found, 9.5, 12)).toBe(0)
})

test.each([
  [-20, -60],
  [-60, -20],
])('speech of %i dB hides none of %i dB beside it', async (first, second) => {
  for (const scale of [1, 4]) {
    const [middle, end] = [10 * scale, 20 * scale]
    const samples = speech(end + 10, -75, [
      [0.5, middle, first],
      [middle + 1, end, second],
    ])
    const found = await energyVad(tensor(samples), rate)
    expect(within(found, 0.5, middle)).toBeGreaterThan(0.98 * (middle - 0.5))
    expect(within(found, middle + 1, end)).toBeGreaterThan(0.95 * (end - middle - 1))
    expect(within(found, end + 1, end + 10)).toBe(0)
  }
})

test('steady hiss between speech is no sound, and is all that a clip of hiss alone has', async () => {
  for (const hiss of [-70, -60, -50]) {
    const samples = speech(60, hiss, [
      [1, 10, -20],
      [50, 59, -20],
    ])
    const found = await energyVad(tensor(samples), rate)
    expect(within(found, 11, 49)).toBe(0)
    expect(within(found, 1, 10) + within(found, 50, 59)).toBeGreaterThan(17.5)
  }
  close(await energyVad(tensor(speech(30, -40, [])), rate), [[0, 30]])
})

test('silence has no sounds', async () => {
  expect(await energyVad(zeros([rate]), rate)).toEqual([])
  expect(await energyVad(zeros([0]), rate)).toEqual([])
  expect(await splitOnSilence(zeros([rate]), rate)).toEqual([])
  close(await energyVad(tensor(clip(1, [])), rate, { floorDb: -50 }), [])
})

test('pieces are as long as fits, and cut in pauses', async () => {
  const sound = tensor(
    clip(20, [
      [0, 4],
      [5, 9],
      [10, 14],
      [15, 19],
    ]),
  )
  close(await splitOnSilence(sound, rate, { maxSeconds: 10, padding: 0 }), [
    [0, 9],
    [10, 19],
  ])
  close(await splitOnSilence(sound, rate, { maxSeconds: 5, padding: 0 }), [
    [0, 4],
    [5, 9],
    [10, 14],
    [15, 19],
  ])
})

test('a sound that is too long is cut where it is quietest', async () => {
  const sound = tensor(
    clip(12, [
      [0, 7.6],
      [7.6, 7.62, 0.1],
      [7.62, 12],
    ]),
  )
  const pieces = await splitOnSilence(sound, rate, { maxSeconds: 10, padding: 0 })
  close(pieces, [
    [0, 7.61],
    [7.61, 12],
  ])
  const many = await splitOnSilence(tensor(clip(12, [[0, 12]])), rate, { maxSeconds: 1 })
  expect(many[0]![0]).toBe(0)
  expect(many.at(-1)![1]).toBeCloseTo(12, 6)
  many.forEach(([start, end], i) => {
    expect(end - start).toBeLessThanOrEqual(1 + 1e-9)
    expect(end).toBeGreaterThan(start)
    if (i > 0) expect(start).toBe(many[i - 1]![1])
  })
})

test('wrong arguments are typed errors, and no tensor is left behind', async () => {
  const sound = zeros([100])
  const before = await settledTensors()
  for (const call of [
    () => energyVad([1] as never, rate),
    () => energyVad(sound.reshape([10, 10]), rate),
    () => energyVad(sound, 0),
    () => energyVad(sound, rate, { topDb: -1 }),
    () => energyVad(sound, rate, { minSilence: '1' as never }),
    () => energyVad(sound, rate, null as never),
    () => splitOnSilence(sound, rate, { maxSeconds: 0 }),
    () => splitOnSilence(sound, rate, null as never),
  ]) {
    await expect(call(), String(call)).rejects.toMatchObject({ code: 'ERR_CONFIG' })
  }
  await splitOnSilence(sound, rate)
  expect(memoryStats().liveTensors).toBeLessThanOrEqual(before + 1)
})
