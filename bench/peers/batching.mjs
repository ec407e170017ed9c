import { ContinuousBatching, DecoderLM, noGrad, randint, scope } from 'voxtorch'
import { serve } from './serve.mjs'
import { LLAMA } from './weights.mjs'

const networks = new Map()
const networkOf = (dtype) => {
  if (!networks.has(dtype)) networks.set(dtype, DecoderLM.fromConfig(LLAMA, { dtype, seed: 1 }).eval().freeze())
  return networks.get(dtype)
}

/** Return the seconds of a number of clients for `tokens` tokens each, after prompts of `prompt` tokens of which `shared` are equal. */
await serve(async ({ dtype, clients, batched, tokens, prompt = 32, shared = 0 }) => {
  const network = networkOf(dtype)
  const batching = batched ? new ContinuousBatching(network, { prefixCacheBytes: shared > 0 ? 1e9 : 0 }) : undefined
  try {
    return await noGrad(() =>
      scope(async () => {
        const begin = randint(0, 32000, [1, prompt])
        const ask = async () => {
          const inputIds = begin.clone()
          inputIds.narrow(1, shared, prompt - shared).copy_(randint(0, 32000, [1, prompt - shared]))
          const { cachedTokens } = await network.generate(
            { inputIds },
            { maxNewTokens: tokens, eosTokenId: null },
            batching ? { batching } : {},
          )
          return cachedTokens
        }
        if (shared > 0) await ask()
        const start = process.hrtime.bigint()
        const cached = await Promise.all(Array.from({ length: clients }, ask))
        return { seconds: Number(process.hrtime.bigint() - start) / 1e9, cached: cached[0] ?? 0 }
      }),
    )
  } finally {
    batching?.dispose()
  }
})
