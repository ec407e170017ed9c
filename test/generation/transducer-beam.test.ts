import { describe, expect, it } from 'vitest'
import { manualSeed, ops, randn, type Tensor, tensor, zeros } from '../../lib/index.js'
import { op } from '../../lib/native/call.js'

const beam = op('voxtorch::transducer_beam')
const greedy = op('voxtorch::transducer_greedy')

interface Found {
  tokens: number[]
  frames: number[]
  durations: number[]
  counts: number[]
  scores: number[]
}
const DIM = 4

/** A network of random weights: the arguments of the operators, and its log probabilities after some tokens. */
function network(vocabulary: number, durations: number[], seed: number, dtype: 'float32' | 'float64' = 'float64') {
  manualSeed(seed)
  const drawn = (...shape: number[]) => randn(shape, { dtype })
  const weights = {
    embedding: drawn(vocabulary, DIM),
    lstm: [drawn(4 * DIM, DIM), drawn(4 * DIM, DIM), drawn(4 * DIM), drawn(4 * DIM)],
    projection: drawn(DIM, DIM),
    head: drawn(vocabulary + durations.length, DIM).mul(1.5),
    headBias: drawn(vocabulary + durations.length),
  }
  const { embedding, lstm, projection, head, headBias } = weights
  const [toGates, fromState, inputBias, stateBias] = lstm as [Tensor, Tensor, Tensor, Tensor]
  const predict = (tokens: number[]): Tensor => {
    let [hidden, cell] = [zeros([DIM], { dtype }), zeros([DIM], { dtype })]
    for (const token of [vocabulary - 1, ...tokens]) {
      const gates = toGates.mv(embedding.select(0, token)).add(fromState.mv(hidden)).add(inputBias).add(stateBias)
      const [input, forget, candidate, output] = gates.chunk(4, 0) as [Tensor, Tensor, Tensor, Tensor]
      cell = forget.sigmoid().mul(cell).add(input.sigmoid().mul(candidate.tanh()))
      hidden = output.sigmoid().mul(cell.tanh())
    }
    return projection.mv(hidden)
  }
  const logProbs = (frame: Tensor, tokens: number[]) => {
    const logits = head.mv(ops.tanh(frame.add(predict(tokens)))).add(headBias)
    const list = (from: number, count: number) => logits.narrow(0, from, count).logSoftmax(0).toArray() as number[]
    return { tokens: list(0, vocabulary), durations: durations.length > 0 ? list(vocabulary, durations.length) : [0] }
  }
  const search = (
    run: typeof beam,
    encoder: Tensor,
    lengths: number[],
    options: { maxSymbols: number; beams?: number; lengthPenalty?: number },
  ) =>
    run(encoder, tensor(lengths.map(BigInt)), embedding, lstm, projection, null, head, headBias, {
      ...{ blank: vocabulary - 1, durations, activation: 'tanh', ...options },
    }) as unknown as Found
  return { logProbs, search }
}

/** Sum the probabilities of the paths of every token sequence, one by one. */
function bruteForce(
  encoder: Tensor,
  { logProbs }: ReturnType<typeof network>,
  { vocabulary, durations, maxSymbols }: { vocabulary: number; durations: number[]; maxSymbols: number },
): Map<string, number> {
  const frames = encoder.size(0)
  const sums = new Map<string, number>()
  const known = new Map<string, ReturnType<typeof logProbs>>()
  const walk = (t: number, symbols: number, tokens: number[], probability: number): void => {
    const name = tokens.join(' ')
    if (t >= frames) {
      sums.set(name, (sums.get(name) ?? 0) + probability)
      return
    }
    const key = `${t}: ${name}`
    const here = known.get(key) ?? logProbs(encoder.select(0, t), tokens)
    known.set(key, here)
    for (const [token, score] of here.tokens.entries()) {
      const isBlank = token === vocabulary - 1
      for (const [k, ofDuration] of here.durations.entries()) {
        const next = probability * Math.exp(score + ofDuration)
        const step = durations.length > 0 ? (durations[k] as number) : isBlank ? 1 : 0
        if (isBlank) walk(t + Math.max(step, 1), 0, tokens, next)
        else if (step === 0 && symbols + 1 < maxSymbols) walk(t, symbols + 1, [...tokens, token], next)
        else walk(t + Math.max(step, 1), 0, [...tokens, token], next)
      }
    }
  }
  walk(0, 0, [], 1)
  return sums
}

const parts = ({ tokens, frames, durations, counts, scores }: Found) => {
  let end = 0
  return counts.map((count, row) => {
    end += Number(count)
    const part = (list: number[]) => list.slice(end - Number(count), end).map(Number)
    return { tokens: part(tokens), starts: part(frames), durations: part(durations), score: scores?.[row] }
  })
}

const CASES = [
  { name: 'RNN-T', vocabulary: 3, durations: [], frames: 3, maxSymbols: 2 },
  { name: 'RNN-T, a token a frame', vocabulary: 4, durations: [], frames: 3, maxSymbols: 1 },
  { name: 'TDT', vocabulary: 3, durations: [0, 1, 2], frames: 3, maxSymbols: 2 },
  { name: 'TDT without 0', vocabulary: 3, durations: [1, 3], frames: 4, maxSymbols: 5 },
]

describe('transducer_beam', () => {
  it.each(CASES)('$name: a wide beam finds the most probable tokens, with the sum of all alignments', (one) => {
    for (let seed = 1; seed <= 4; seed += 1) {
      const net = network(one.vocabulary, one.durations, seed)
      const encoder = randn([1, one.frames, DIM], { dtype: 'float64' })
      const sums = bruteForce(encoder.select(0, 0), net, one)
      expect([...sums.values()].reduce((a, b) => a + b)).toBeCloseTo(1, 9)
      for (const lengthPenalty of [0, 1]) {
        const value = ([tokens, sum]: [string, number]) =>
          Math.log(sum) / ((tokens === '' ? 0 : tokens.split(' ').length) + 1) ** lengthPenalty
        const [best] = [...sums].sort((a, b) => value(b) - value(a)) as [[string, number]]
        const options = { maxSymbols: one.maxSymbols, beams: 256, lengthPenalty }
        const [found] = parts(net.search(beam, encoder, [one.frames], options))
        expect(found?.tokens.join(' ')).toBe(best[0])
        expect(found?.score).toBeCloseTo(Math.log(best[1]), 9)
        // The times are those of one of its alignments.
        expect(found?.starts.length).toBe(found?.tokens.length)
        for (const [i, start] of (found?.starts ?? []).entries()) {
          expect(start).toBeGreaterThanOrEqual(i === 0 ? 0 : (found?.starts[i - 1] as number))
          expect(start).toBeLessThan(one.frames)
          if (one.durations.length === 0) expect(found?.durations[i]).toBe(1)
          else expect(one.durations).toContain(found?.durations[i])
        }
      }
    }
  })

  it.each(CASES)('$name: one beam is the greedy search', ({ vocabulary, durations, maxSymbols }) => {
    for (let seed = 10; seed < 20; seed += 1) {
      const net = network(
        vocabulary,
        durations.filter((one) => one !== 0 || vocabulary === 0),
        seed,
      )
      const encoder = randn([3, 9, DIM], { dtype: 'float64' })
      const lengths = [9, 4, 0]
      const found = parts(net.search(beam, encoder, lengths, { maxSymbols, beams: 1 }))
      const wanted = parts(net.search(greedy, encoder, lengths, { maxSymbols }))
      expect(found.map(({ score: _, ...rest }) => rest)).toEqual(wanted.map(({ score: _, ...rest }) => rest))
    }
  })

  it.each(CASES)('$name: a batch gives what its rows give, and wider beams no worse', (one) => {
    const { vocabulary, durations, maxSymbols } = one
    for (let seed = 20; seed < 24; seed += 1) {
      const net = network(vocabulary, durations, seed)
      const encoder = randn([4, 11, DIM], { dtype: 'float64' })
      const lengths = [11, 1, 7, 0]
      for (const beams of [2, 3, 5]) {
        const all = parts(net.search(beam, encoder, lengths, { maxSymbols, beams }))
        for (const [row, length] of lengths.entries()) {
          const [alone] = parts(
            net.search(beam, encoder.narrow(0, row, 1).narrow(1, 0, Math.max(length, 1)), [length], {
              maxSymbols,
              beams,
            }),
          )
          const { score, ...rest } = all[row] as NonNullable<typeof alone>
          expect(rest).toEqual({ tokens: alone?.tokens, starts: alone?.starts, durations: alone?.durations })
          expect(score).toBeCloseTo(alone?.score as number, 9)
        }
        expect(all[3]).toEqual({ tokens: [], starts: [], durations: [], score: 0 })
      }
    }
  })

  it('survives numbers that are none, and refuses what does not fit', () => {
    const net = network(4, [0, 1], 1, 'float32')
    const encoder = randn([1, 5, DIM]).mul(Number.NaN)
    expect(parts(net.search(beam, encoder, [5], { maxSymbols: 2, beams: 3 }))).toHaveLength(1)
    const refused = (options: object) =>
      expect(() => net.search(beam, randn([1, 5, DIM]), [5], { maxSymbols: 2, beams: 3, ...options }))
    refused({ beams: 0 }).toThrow(/beams must be from 1 to 256, got 0/)
    refused({ beams: 257 }).toThrow(/got 257/)
    refused({ lengthPenalty: Number.POSITIVE_INFINITY }).toThrow(/length_penalty must be a finite number/)
    refused({ maxSymbols: 0 }).toThrow(/max_symbols must be positive/)
  })
})
