import { expect, it } from 'vitest'
import { Random } from '../../lib/index.js'

it('gives the same numbers for ever', () => {
  const first = (random: Random) => Array.from({ length: 4 }, () => random.uint32())
  // From a separate implementation of the two papers, in Python.
  expect(first(new Random(42, 7))).toEqual([3365796402, 2612453603, 271539373, 1810955070])
  expect(first(new Random(2 ** 53 - 1))).toEqual([669190484, 110868482, 414305767, 2069542885])
  expect(new Random(1, 1).shuffle([0, 1, 2, 3, 4, 5, 6, 7])).toEqual([4, 7, 5, 2, 1, 6, 0, 3])
})

it('does not repeat itself between seeds and streams', () => {
  const starts = new Set<number>()
  for (let seed = 0; seed < 100; seed++)
    for (let stream = 0; stream < 100; stream++) starts.add(new Random(seed, stream).uint32())
  expect(starts.size).toBeGreaterThan(9_990)
  expect(new Random(1).uint32()).not.toBe(new Random(1 + 2 ** 32).uint32())
})

it('is uniform', () => {
  const random = new Random(1)
  const counts = new Array(6).fill(0)
  for (let i = 0; i < 60_000; i++) counts[random.below(6)]++
  // Chi-squared with 5 degrees of freedom: 20.5 at p = 0.001.
  expect(counts.reduce((sum, count) => sum + (count - 10_000) ** 2 / 10_000, 0)).toBeLessThan(20.5)
  const values = Array.from({ length: 10_000 }, () => random.float())
  expect(Math.min(...values)).toBeGreaterThanOrEqual(0)
  expect(Math.max(...values)).toBeLessThan(1)
  expect(values.reduce((a, b) => a + b) / 10_000).toBeCloseTo(0.5, 1)
})

it('shuffles every order alike', () => {
  const random = new Random(3)
  const counts = new Map<string, number>()
  for (let i = 0; i < 6_000; i++) {
    const key = random.shuffle([0, 1, 2]).join('')
    counts.set(key, (counts.get(key) ?? 0) + 1)
  }
  expect(counts.size).toBe(6)
  for (const count of counts.values()) expect(Math.abs(count - 1000)).toBeLessThan(150)
})
