import { describe, expect, it } from 'vitest'
import {
  ContinuousBatching,
  DecoderLM,
  type DType,
  type GenerateOptions,
  type GenerationConfig,
  manualSeed,
  randint,
  setNumThreads,
  type Tensor,
} from '../../lib/index.js'
import { ROUNDING } from '../helpers.js'
import { get } from '../models/decoder.js'

// What docs/guide/networks.md says of greedy text with guesses, shared passes and shared beginnings, dtype by dtype.

setNumThreads(1)
const NEW = 16
const SETTINGS: GenerationConfig = { maxNewTokens: NEW, eosTokenId: null, padTokenId: 0 }
const prompts: Tensor[] = []
manualSeed(5)
for (let i = 0; i < 25; i++) prompts.push(randint(1, 64, [1, 10 + (i % 5)], { dtype: 'int64' }))

const made = (dtype: DType, seed = 1, numHiddenLayers = 2): DecoderLM =>
  DecoderLM.fromConfig(
    {
      vocabSize: 64,
      hiddenSize: 64,
      intermediateSize: 96,
      numHiddenLayers,
      numAttentionHeads: 4,
      numKeyValueHeads: 2,
      maxPositionEmbeddings: 128,
      initializerRange: 0.1,
    },
    { seed, dtype },
  ).eval()

/** Texts in each way, and with what scores the network chose alone. */
async function texts(model: DecoderLM, dtype: DType) {
  const all = async (config: GenerationConfig, options?: GenerateOptions): Promise<number[][]> => {
    const results: number[][] = []
    for (const inputIds of prompts) {
      results.push(get((await model.generate({ inputIds }, { ...SETTINGS, ...config }, options)).tokens[0]))
    }
    return results
  }
  const alone: { tokens: number[]; logits: Tensor }[] = []
  for (const inputIds of prompts) {
    const { tokens, logits } = await model.generate({ inputIds }, { ...SETTINGS, outputLogits: true })
    alone.push({ tokens: get(tokens[0]), logits: get(logits).squeeze(1) })
  }
  using batching = new ContinuousBatching(model, { maxNumBatchedTokens: 24, prefixCacheBytes: 1e6 })
  const together = async () =>
    (await Promise.all(prompts.map((inputIds) => model.generate({ inputIds }, SETTINGS, { batching })))).map(
      ({ tokens }) => get(tokens[0]),
    )
  const ways = {
    assisted: await all(
      { numAssistantTokens: 5, assistantConfidenceThreshold: 0 },
      { assistantModel: made(dtype, 1, 1) },
    ),
    lookup: await all({ promptLookupNumTokens: 6, maxMatchingNgramSize: 1 }),
    batched: await together(),
    shared: await together(),
  }
  return { alone, ways }
}

describe('greedy text with guesses, shared passes and shared beginnings', () => {
  it.each(['float32', 'float64'] as const)('is the text without them in %s', async (dtype) => {
    const { alone, ways } = await texts(made(dtype), dtype)
    for (const [way, rows] of Object.entries(ways)) expect(rows, way).toEqual(alone.map(({ tokens }) => tokens))
  })

  it.each(['bfloat16', 'float16'] as const)('leaves it, in %s, only where two tokens are as good', async (dtype) => {
    const { alone, ways } = await texts(made(dtype), dtype)
    for (const [way, rows] of Object.entries(ways)) {
      for (const [i, { tokens, logits }] of alone.entries()) {
        const at = tokens.findIndex((token, step) => rows[i]?.[step] !== token)
        if (at < 0) continue
        const scores = logits.select(0, at).to('float32').toArray() as number[]
        const [chosen, other] = [scores[get(tokens[at])], scores[get(rows[i]?.[at])]] as [number, number]
        const largest = Math.max(...scores.map(Math.abs))
        expect(chosen - other, `${way}, text ${i}, token ${at}`).toBeLessThanOrEqual(16 * ROUNDING[dtype] * largest)
      }
    }
  })
})
