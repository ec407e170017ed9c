import { describe, expect, it } from 'vitest'
import { scope, setNumThreads, type Tensor, tensor } from '../../lib/index.js'
import { expectClose, numbers, tensorsOf } from '../helpers.js'
import { get } from '../models/decoder.js'
import { type Case, cases, configOf, drawsOf, file, inputsOf, network, PAD } from './networks.js'

// Networks so small are quickest with one.
setNumThreads(1)

const BATCH = 8
/** Where transformers takes padding for text; ours is then that of the prompts alone. */
const PADDING_COUNTS = new Set(['ngrams-1-qwen2', 'beam-processors-mistral'])

const padded = (tokens: number[], length: number): number[] => [
  ...tokens,
  ...Array<number>(Math.max(0, length - tokens.length)).fill(PAD),
]

async function answers(one: Case, batch: number, length: number) {
  const model = network(get(one.model))
  const rows: number[][] = []
  const scores: number[] = []
  for (let from = 0; from < get(one.count); from += batch) {
    const to = Math.min(from + batch, get(one.count))
    await scope(async () => {
      const result = await model.generate(inputsOf(from, to), configOf(one), drawsOf(one, from, to))
      rows.push(...result.tokens.map((tokens) => padded(tokens, length)))
      if (result.sequencesScores) scores.push(...(numbers(result.sequencesScores) as number[]))
    })
  }
  return { rows, scores }
}

const rowsOf = (tensor: Tensor): number[][] =>
  (tensor.to('int64').toArray() as bigint[][]).map((row) => row.map(Number))

describe('50 prompts as transformers generates from them', () => {
  it.each(cases)('$name', async (one) => {
    const expected = tensorsOf(file, one.name, 'out')
    const alone = rowsOf(get(expected.alone))
    const { rows, scores } = await answers(one, 1, get(alone[0]).length)
    expect(rows).toEqual(alone)
    if (expected.sequences_scores) {
      const known = numbers(expected.sequences_scores) as number[]
      // The reference's float32 is up to 5e-6 from the same in float64; other orders of summation are as far, elsewhere.
      scores.forEach((score, i) => {
        expect(Math.abs(score - get(known[i])), `score ${i}`).toBeLessThan(2e-5 * Math.max(1, Math.abs(score)))
      })
    }
    const counts = expected.batched && PADDING_COUNTS.has(one.name)
    const together = expected.batched && !counts ? rowsOf(expected.batched) : alone
    expect((await answers(one, BATCH, get(together[0]).length)).rows, 'in batches').toEqual(together)
  })
})

describe('scores', () => {
  it.each(['greedy-llama', 'all-mistral'])('%s: log probabilities are those of the processed scores', async (name) => {
    const one = get(cases.find((other) => other.name === name))
    const expected = tensorsOf(file, name, 'out')
    for (let row = 0; row < 4; row++) {
      const config = { ...configOf(one), outputLogprobs: true }
      const { logprobs } = await network(get(one.model)).generate(
        inputsOf(row, row + 1),
        config,
        drawsOf(one, row, row + 1),
      )
      expectClose(get(logprobs), get(expected[`logprobs.${row}`]).unsqueeze(0), 1e-5, `row ${row}`)
    }
  })

  it('of every step, before and after processing', async () => {
    const one = get(cases.find((other) => other.name === 'greedy-llama'))
    const model = network('llama')
    const expected = get(tensorsOf(file, one.name, 'out').scores).to('cpu')
    const plain = await model.generate(inputsOf(0, 1), configOf(one))
    const other = get(Array.from({ length: 40 }, (_, id) => id).find((id) => !plain.tokens[0]?.includes(id)))
    const config = { ...configOf(one), outputScores: true, outputLogits: true, suppressTokens: [other] }
    const { scores, logits, tokens } = await model.generate(inputsOf(0, 1), config)
    expect(tokens).toEqual(plain.tokens)
    expectClose(get(logits), expected, 1e-5)
    expect(get(scores).select(2, other).eq(Number.NEGATIVE_INFINITY).all().item()).toBe(true)
    const rest = [...Array(40).keys()].filter((id) => id !== other)
    const places = tensor(rest, { dtype: 'int64', device: 'cpu' })
    expectClose(get(scores).indexSelect(2, places), expected.indexSelect(2, places), 1e-5)
  })
})
