import { describe, expect, it } from 'vitest'
import {
  ConfigError,
  DataError,
  manualSeed,
  rand,
  retrievalMetrics,
  ShapeError,
  tensor,
  zeros,
} from '../../lib/index.js'

describe('retrievalMetrics', () => {
  it('counts how many candidates stand before the right one', () => {
    const scores = [
      [0.9, 0.1, 0.2, 0.3],
      [0.5, 0.4, 0.6, 0.1],
      [0.1, 0.2, 0.8, 0.7],
    ]
    // Ranks 1, 3 and 1.
    const found = retrievalMetrics(scores, { at: [1, 2, 3] })
    expect(found.recall).toEqual({ 1: 2 / 3, 2: 2 / 3, 3: 1 })
    expect([found.medianRank, found.meanRank]).toEqual([1, 5 / 3])
    expect(found.meanReciprocalRank).toBeCloseTo((1 + 1 / 3 + 1) / 3, 12)
    expect(retrievalMetrics(tensor(scores), { targets: [3, 2, 3] }).meanRank).toBeCloseTo((2 + 1 + 2) / 3, 12)
  })

  it('is what sorting gives', () => {
    manualSeed(4)
    const scores = rand([60, 60])
    const rows = scores.toArray() as number[][]
    const ranks = rows.map(
      (row, i) => [...row.keys()].sort((a, b) => (row[b] as number) - (row[a] as number)).indexOf(i) + 1,
    )
    const { recall, medianRank } = retrievalMetrics(scores)
    for (const k of [1, 5, 10]) expect(recall[k]).toBeCloseTo(ranks.filter((rank) => rank <= k).length / 60, 12)
    const sorted = ranks.sort((a, b) => a - b)
    expect(medianRank).toBe(((sorted[29] as number) + (sorted[30] as number)) / 2)
  })

  it('gives a constant no credit', () => {
    expect(retrievalMetrics(zeros([8, 8])).recall).toEqual({ 1: 0, 5: 0, 10: 1 })
  })

  it('refuses what it cannot rank', () => {
    expect(() => retrievalMetrics(zeros([8]))).toThrow(ShapeError)
    expect(() => retrievalMetrics([])).toThrow(DataError)
    expect(() => retrievalMetrics([[1, Number.NaN]])).toThrow(/candidate 1, got NaN/)
    expect(() => retrievalMetrics([[1, 2]], { targets: [2] })).toThrow(/one of 2 candidates, got 2/)
    expect(() => retrievalMetrics([[1, 2]], { targets: [] })).toThrow(ConfigError)
    expect(() => retrievalMetrics([[1, 2], [1]])).toThrow(ShapeError)
    expect(() => retrievalMetrics([[1, 2]], { at: [0] })).toThrow(ConfigError)
    expect(() => retrievalMetrics([[1, 2]], { k: 1 } as never)).toThrow(/expected a known option, got 'k'/)
  })
})
