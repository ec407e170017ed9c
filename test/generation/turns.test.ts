import { describe, expect, it } from 'vitest'
import { ContinuousBatching, DecoderLM, setNumThreads, tensor } from '../../lib/index.js'

// Steps of a network so small end within the call: without turns of the event loop between them no timer fires.

setNumThreads(1)
const model = DecoderLM.fromConfig(
  { vocabSize: 8, hiddenSize: 4, intermediateSize: 4, numHiddenLayers: 1, numAttentionHeads: 2 },
  { seed: 1 },
).eval()
const inputIds = tensor([[1, 2]], { dtype: 'int64' })
const SETTINGS = { maxNewTokens: 40_000, eosTokenId: null, padTokenId: 0 }

/** Aborts from a timer. */
function late(): { signal: AbortSignal; reason: Error } {
  const controller = new AbortController()
  const reason = new Error('the timer has fired')
  setTimeout(() => controller.abort(reason), 20)
  return { signal: controller.signal, reason }
}

describe('a timer ends', () => {
  it('generate', async () => {
    const { signal, reason } = late()
    await expect(model.generate({ inputIds }, SETTINGS, { signal })).rejects.toBe(reason)
  })

  it('generate in a batching', async () => {
    using batching = new ContinuousBatching(model)
    const { signal, reason } = late()
    await expect(model.generate({ inputIds }, SETTINGS, { signal, batching })).rejects.toBe(reason)
  })

  it('stream, whoever takes its tokens without waiting', async () => {
    const { signal, reason } = late()
    let taken = 0
    const take = async () => {
      for await (const { tokens } of model.stream({ inputIds }, SETTINGS, { signal })) taken += tokens.length
    }
    await expect(take()).rejects.toBe(reason)
    expect(taken).toBeLessThan(40_000)
  })
})
