import { describe, expect, it } from 'vitest'
import { ctcAlign, ctcBeamSearch, manualSeed, randn, scope, tensor } from '../../lib/index.js'

/** What each text's ways through the frames add up to, and the likeliest of them, by going through all. */
function exhaustive(logProbs: number[][], blank: number) {
  const texts = new Map<string, { tokens: number[]; total: number; best: number; path: number[] }>()
  const walk = (path: number[], score: number): void => {
    if (path.length < logProbs.length) {
      logProbs[path.length]!.forEach((one, token) => void walk([...path, token], score + one))
      return
    }
    const tokens = path.filter((token, i) => token !== blank && token !== path[i - 1])
    const text = texts.get(tokens.join()) ?? { tokens, total: 0, best: Number.NEGATIVE_INFINITY, path }
    text.total += Math.exp(score)
    if (score > text.best) Object.assign(text, { best: score, path })
    texts.set(tokens.join(), text)
  }
  walk([], 0)
  return [...texts.values()].sort((a, b) => b.total - a.total)
}

/** Prefix beam search by the book, with blank 0 and probabilities as they are: texts and the logs of their scores. */
function tryAll(logProbs: number[][], width: number): [text: string, score: number][] {
  let beams = new Map([['', { blank: 1, label: 0 }]])
  const total = ({ blank, label }: { blank: number; label: number }) => blank + label
  for (const frame of logProbs) {
    const next: typeof beams = new Map()
    const at = (text: string) => next.get(text) ?? next.set(text, { blank: 0, label: 0 }).get(text)!
    for (const [text, beam] of beams) {
      const last = text === '' ? -1 : Number(text.split(',').at(-1))
      frame.forEach((score, token) => {
        const p = Math.exp(score)
        const longer = text === '' ? `${token}` : `${text},${token}`
        if (token === 0) at(text).blank += p * total(beam)
        else if (token === last) {
          at(text).label += p * beam.label
          at(longer).label += p * beam.blank
        } else at(longer).label += p * total(beam)
      })
    }
    beams = new Map([...next].sort(([, a], [, b]) => total(b) - total(a)).slice(0, width))
  }
  return [...beams].map(([text, beam]) => [text, Math.log(total(beam))])
}

const draw = (seed: number, frames: number, size: number) => {
  manualSeed(seed)
  return scope(() => randn([frames, size], { dtype: 'float64' }).mul(1.5).logSoftmax(-1))
}

describe.each([
  [6, 3, 0],
  [5, 4, 3],
  [1, 3, 1],
  [7, 2, 1],
])('%i frames of %i tokens with blank %i', (frames, size, blank) => {
  const logProbs = draw(frames * 10 + size, frames, size)
  const texts = exhaustive(logProbs.toArray() as number[][], blank)

  it('a beam that holds every text scores each as all its ways together', async () => {
    const found = await ctcBeamSearch(logProbs, { blank, beamWidth: 5000, nBest: 5000 })
    expect(found.map(({ tokens }) => tokens.join()).sort()).toEqual(texts.map(({ tokens }) => tokens.join()).sort())
    for (const [i, { score }] of found.entries()) expect(score).toBeCloseTo(Math.log(texts[i]!.total), 10)
    expect(found[0]?.tokens).toEqual(texts[0]?.tokens)
  })

  it('a text goes through the frames on its likeliest way', async () => {
    for (const { tokens, best, path } of texts) {
      const found = await ctcAlign(logProbs, tokens, { blank })
      expect(found.score).toBeCloseTo(best, 10)
      expect(found.path).toEqual(path)
    }
  })
})

describe('CTC', () => {
  it('with narrow beams finds the likeliest text of frames that are sure', async () => {
    const logits = [
      [0, 9, 0],
      [9, 0, 0],
      [0, 9, 0],
      [0, 0, 9],
    ]
    const [best] = await ctcBeamSearch(tensor(logits, { dtype: 'float32' }).logSoftmax(-1), { beamWidth: 2 })
    expect(best?.tokens).toEqual([1, 1, 2])
  })

  it('beats the likeliest token of each frame where many ways lead to one text', async () => {
    // Greedy: blank, blank (0.36). The text 1 has 0.4 · 0.4 + 2 · 0.24 = 0.64.
    const logProbs = tensor([
      [0.6, 0.4],
      [0.6, 0.4],
    ]).log()
    const [best] = await ctcBeamSearch(logProbs, { beamWidth: 4 })
    expect(best?.tokens).toEqual([1])
    expect(Math.exp(best?.score as number)).toBeCloseTo(0.64, 6)
  })

  it.each([1, 2, 3, 8])('a beam of %i has what is left when all tokens are tried', async (width) => {
    const logProbs = draw(width, 12, 9)
    const expected = tryAll(logProbs.toArray() as number[][], width)
    const found = await ctcBeamSearch(logProbs, { beamWidth: width, nBest: width })
    expect(found.map(({ tokens }) => tokens.join())).toEqual(expected.map(([text]) => text))
    for (const [i, { score }] of found.entries()) expect(score).toBeCloseTo(expected[i]![1], 10)
  })

  it('a beam of 1 takes the second token where the first would only repeat the last one', async () => {
    // After two frames the text is 1, and ends in a blank or in its token, each in half of its ways. In the third frame
    // token 1 is the most likely one, but 1,1 has only the ways with a blank (0.25), and 1 itself 0.3; 1,2 has 0.45.
    const probabilities = [
      [0.01, 0.98, 0.01],
      [0.5, 0.5, 1e-9],
      [0.05, 0.5, 0.45],
    ]
    const logProbs = tensor(probabilities, { dtype: 'float64' }).log()
    const [[text, score] = ['', 0]] = tryAll(logProbs.toArray() as number[][], 1)
    const [best] = await ctcBeamSearch(logProbs, { beamWidth: 1 })
    expect(text).toBe('1,2')
    expect(best?.tokens.join()).toBe(text)
    expect(best?.score).toBeCloseTo(score, 10)
  })

  it('has the empty text for no frames', async () => {
    const none = tensor([[0.5, 0.5]]).narrow(0, 0, 0)
    expect(await ctcBeamSearch(none)).toEqual([{ tokens: [], score: 0 }])
    expect(await ctcAlign(none, [])).toEqual({ path: [], score: 0 })
  })

  it('refuses what cannot be, by name', async () => {
    const logProbs = draw(1, 3, 4)
    await expect(ctcBeamSearch([[0]] as never)).rejects.toThrow(/ctcBeamSearch: expected logProbs to be a tensor/)
    await expect(ctcBeamSearch(logProbs, { beamWidth: 0 })).rejects.toThrow(/beamWidth to be an integer/)
    await expect(ctcBeamSearch(logProbs, { beam: 1 } as never)).rejects.toThrow(/expected a known option, got 'beam'/)
    await expect(ctcBeamSearch(logProbs, { blank: 4 })).rejects.toThrow(/blank must be one of 4/)
    await expect(ctcBeamSearch(logProbs.mul(Number.NaN))).rejects.toThrow(/not numbers/)
    await expect(ctcBeamSearch(logProbs.unsqueeze(0))).rejects.toThrow(/\[frames, vocabulary\]/)
    await expect(ctcAlign(logProbs, [1, 1, 2])).rejects.toThrow(/3 frames cannot hold these 3 tokens/)
    await expect(ctcAlign(logProbs, [0])).rejects.toThrow(/not a token of a text/)
  })
})
