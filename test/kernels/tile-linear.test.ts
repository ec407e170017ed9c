import { describe, expect, it } from 'vitest'
import { manualSeed, noGrad, Roberta, randint } from '../../lib/index.js'
import { expectAsExact } from '../helpers.js'

const config = { vocabSize: 50, hiddenSize: 128, numHiddenLayers: 2, numAttentionHeads: 4, intermediateSize: 320 }

describe('products with a weight in tiles', () => {
  // Rows: whole squares of 32, more than half of one left, less than half of one left.
  it.each([
    ['gelu', 64],
    ['gelu_new', 45],
    ['relu', 43],
  ])('of a frozen network in bfloat16, with %s, %i words', async (hiddenAct, words) => {
    manualSeed(1)
    const network = new Roberta({ ...config, hiddenAct }).eval().to({ dtype: 'bfloat16' })
    const inputs = { inputIds: randint(5, 50, [4, words]) }
    const run = async () => (await noGrad(() => network.forward(inputs))).lastHiddenState
    const theirs = await run()
    network.freeze()
    await run()
    const ours = await run()
    network.to({ dtype: 'float64' })
    expectAsExact(ours, theirs, await run(), 320)
  })
})
