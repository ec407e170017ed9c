import { afterEach, describe, expect, it } from 'vitest'
import {
  type GenerationConfig,
  manualSeed,
  memoryStats,
  ops,
  scope,
  setNumThreads,
  type Tensor,
  tensor,
} from '../../lib/index.js'
import { get } from '../models/decoder.js'
import { network } from './networks.js'

setNumThreads(1)

afterEach(async () => {
  await scope(async () => void (await ops.async.zeros([1])))
  expect(memoryStats().kvCacheBytes, 'no cache is left').toBe(0)
})

const model = network('llama')
const inputIds = tensor([[3, 9, 27, 12, 8]])

describe('guesses', () => {
  it('leave the distribution of sampled tokens as it is', async () => {
    // The first two tokens of many answers, against the probabilities that the network gives them.
    const config: GenerationConfig = { doSample: true, topK: 4, temperature: 1.5, maxNewTokens: 3, eosTokenId: null }
    const output = await model.forward({ inputIds })
    const warped = (logits: Tensor) => {
      const scores = logits.div(1.5)
      const least = scores.topk(4).values.min()
      return scores.maskedFill(scores.lt(least), Number.NEGATIVE_INFINITY).softmax(-1)
    }
    const first = warped(get(output.logits).at(0, -1)).toArray() as number[]
    const pairs = new Map<string, number>()
    for (const [id, p] of first.entries()) {
      if (p === 0) continue
      const longer = await model.forward({ inputIds: tensor([[3, 9, 27, 12, 8, id]]) })
      const second = warped(get(longer.logits).at(0, -1)).toArray() as number[]
      second.forEach((q, other) => void (q > 0 && pairs.set(`${id},${other}`, p * q)))
    }
    expect(pairs.size).toBe(16)
    const draws = 1000
    for (const assistantModel of [network('mistral'), undefined]) {
      manualSeed(17)
      const counts = new Map<string, number>()
      const options = assistantModel ? { assistantModel } : {}
      const own = assistantModel ? {} : { promptLookupNumTokens: 2 }
      for (let i = 0; i < draws; i++) {
        await scope(async () => {
          const { tokens } = await model.generate({ inputIds }, { ...config, ...own }, options)
          const key = get(tokens[0]).slice(0, 2).join()
          counts.set(key, (counts.get(key) ?? 0) + 1)
        })
      }
      expect([...counts.keys()].every((key) => pairs.has(key))).toBe(true)
      const terms = [...pairs].map(([key, p]) => ((counts.get(key) ?? 0) - draws * p) ** 2 / (draws * p))
      // Pearson's statistic with 15 degrees of freedom: above 37.7 in one of a thousand.
      expect(terms.reduce((sum, one) => sum + one)).toBeLessThan(37.7)
    }
  })
})
