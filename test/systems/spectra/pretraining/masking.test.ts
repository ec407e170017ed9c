import { describe, expect, it } from 'vitest'
import { ConfigError, Random } from '../../../../lib/index.js'
import { maskFrames, maskTokens, SPECTRA_FRAME_FATES } from '../../../../lib/systems/spectra/index.js'

describe('maskTokens', () => {
  it('predicts 15 %, of which 80 % are <mask>, 10 % anything and 10 % stay; special tokens never', () => {
    const ids = [0, ...Array.from({ length: 98 }, (_, i) => 1000 + i), 2]
    const random = new Random(11)
    let [predicted, masked, kept, other] = [0, 0, 0, 0]
    const rounds = 10_000
    for (let round = 0; round < rounds; round++) {
      const { inputIds, labels } = maskTokens(ids, random)
      expect(labels[0] === -100 && labels[99] === -100 && inputIds[0] === 0 && inputIds[99] === 2).toBe(true)
      for (let i = 1; i < 99; i++) {
        if (labels[i] === -100) {
          if (inputIds[i] !== ids[i]) throw new Error('changed without a label')
          continue
        }
        if (labels[i] !== ids[i]) throw new Error('the label is not what was there')
        predicted++
        if (inputIds[i] === 50264) masked++
        else if (inputIds[i] === ids[i]) kept++
        else other++
      }
    }
    const total = rounds * 98
    // Five standard deviations of a binomial share.
    const near = (count: number, of: number, share: number) =>
      expect(Math.abs(count / of - share)).toBeLessThan(5 * Math.sqrt((share * (1 - share)) / of))
    near(predicted, total, 0.15)
    near(masked, predicted, 0.8 + 0.1 / 50265)
    near(kept, predicted, 0.1)
    near(other, predicted, 0.1)
  })

  it('draws replacements from the whole vocabulary, leaves every special token, and repeats with its seed', () => {
    const options = { probability: 1, vocabSize: 200, maskId: 199 }
    const seen = new Set<number>()
    const random = new Random(3)
    for (let i = 0; i < 500; i++) {
      for (const id of maskTokens(new Array(100).fill(50), random, options).inputIds) seen.add(id)
    }
    expect(seen.size).toBe(200)
    expect(maskTokens([0, 1, 2, 3, 199], random, options)).toEqual({
      inputIds: [0, 1, 2, 3, 199],
      labels: [-100, -100, -100, -100, -100],
    })
    const ids = Array.from({ length: 60 }, (_, i) => i + 10)
    expect(maskTokens(ids, new Random(1, 2))).toEqual(maskTokens(ids, new Random(1, 2)))
    expect(maskTokens(ids, new Random(1, 2))).not.toEqual(maskTokens(ids, new Random(1, 3)))
    expect(() => maskTokens('text' as never, random)).toThrow(ConfigError)
  })
})

/** Beginnings and lengths of what is masked. */
function runs(mask: Int8Array): [number, number][] {
  const found: [number, number][] = []
  mask.forEach((code, i) => {
    if (code === 0) return
    const last = found.at(-1)
    if (last && last[0] + last[1] === i) last[1]++
    else found.push([i, 1])
  })
  return found
}

describe('maskFrames', () => {
  it('masks spans of one length of 20 to 50 frames, 1.2 lengths apart, each length as often', () => {
    const random = new Random(5)
    const { REPLACED } = SPECTRA_FRAME_FATES
    const [n, rounds] = [499, 10_000]
    const lengths = new Map<number, number>()
    const [fates, firsts] = [[0, 0, 0, 0], [] as number[]]
    let [gaps, chances] = [0, 0]
    for (let round = 0; round < rounds; round++) {
      const { mask, source } = maskFrames(n, random)
      const spans = runs(mask)
      const span = spans[0]![1]
      lengths.set(span, (lengths.get(span) ?? 0) + 1)
      firsts.push(spans[0]![0])
      const replaced: number[] = []
      mask.forEach((code, i) => {
        fates[code]!++
        if (code === REPLACED) replaced.push(source[i]!)
        else if (source[i] !== i) throw new Error('a frame that is not replaced has a source')
      })
      if (new Set(replaced).size !== replaced.length) throw new Error('one frame stands in for two')
      if (replaced.some((frame) => frame < 0 || frame >= n)) throw new Error('a source outside of the clip')
      for (const [k, [start, length]] of spans.entries()) {
        if (length !== span || start >= n - span) throw new Error(`a span of ${length} at ${start}, not ${span}`)
        if (k === 0) continue
        const gap = start - spans[k - 1]![0] - (Math.round(1.2 * span) + 1)
        if (gap < 0) throw new Error('spans too near')
        gaps += gap
        chances++
      }
    }
    expect([...lengths.keys()].sort((a, b) => a - b)).toEqual(Array.from({ length: 31 }, (_, i) => i + 20))
    const expected = rounds / 31
    const chiSquare = [...lengths.values()].reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0)
    expect(chiSquare).toBeLessThan(60) // 30 degrees of freedom: exceeded once in a thousand times
    const mean = firsts.reduce((sum, first) => sum + first, 0) / rounds
    expect(Math.abs(mean - 0.85 / 0.15)).toBeLessThan(0.31) // five standard errors of a geometric law
    // Gaps that the clip's end cuts off make the mean a little smaller than a geometric law's 5.67.
    expect(gaps / chances).toBeGreaterThan(4.9)
    expect(gaps / chances).toBeLessThan(5.8)
    const masked = fates[1]! + fates[2]! + fates[3]!
    for (const [code, share] of [0.8, 0.1, 0.1].entries()) {
      expect(Math.abs(fates[code + 1]! / masked - share)).toBeLessThan(0.002)
    }
  })

  it('masks nothing where no span fits, and repeats with its seed', () => {
    for (let seed = 0; seed < 200; seed++) {
      expect(maskFrames(20, new Random(seed)).mask.some(Boolean)).toBe(false)
      expect(maskFrames(0, new Random(seed)).mask).toHaveLength(0)
    }
    // One frame more than the shortest span: a span can start at frame 0 alone.
    const starts = Array.from({ length: 3000 }, (_, seed) => runs(maskFrames(21, new Random(seed)).mask))
    expect(starts.flat().every(([start, length]) => start === 0 && length === 20)).toBe(true)
    expect(starts.flat().length).toBeGreaterThan(0)
    expect(maskFrames(499, new Random(9))).toEqual(maskFrames(499, new Random(9)))
    expect(maskFrames(499, new Random(9))).not.toEqual(maskFrames(499, new Random(10)))
    expect(() => maskFrames(-1, new Random(0))).toThrow(ConfigError)
    expect(() => maskFrames(10, {} as never)).toThrow(ConfigError)
  })
})
