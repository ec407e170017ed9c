import { describe, expect, it } from 'vitest'
import {
  functional,
  Linear,
  manualSeed,
  noGrad,
  quantizeDynamic,
  Roberta,
  randint,
  randn,
  type Tensor,
} from '../../lib/index.js'
import { difference, expectAsExact } from '../helpers.js'

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

describe('quantizeDynamic on the CPU', () => {
  const make = () => {
    manualSeed(3)
    return new Roberta({ ...config, intermediateSize: 384 }).eval()
  }
  const inputs = () => {
    manualSeed(4)
    return { inputIds: randint(5, 50, [4, 45]) }
  }
  const run = async (network: Roberta): Promise<Tensor> =>
    (await noGrad(() => network.forward(inputs()))).lastHiddenState

  it('gives about what the network gave, and follows codes that change', async () => {
    const network = make()
    const before = await run(network)
    expect(quantizeDynamic(network)).toHaveLength(2 * 6 + 1)
    const after = await run(network)
    expect(functional.cosineSimilarity(after.flatten(), before.flatten(), { dim: 0 }).item()).toBeGreaterThan(0.999)
    expect(difference(after, before)).toBeGreaterThan(1e-6)
    const absmax = network.get('encoder.layer.1.output.dense').stateDict().weight_absmax as Tensor
    noGrad(() => absmax.mul_(2))
    expect(difference(await run(network), after)).toBeGreaterThan(1e-3)
    expect((await run(network)).equal(await run(network))).toBe(true)
  })

  it('computes gradients with the values that the codes stand for', async () => {
    const network = make()
    quantizeDynamic(network)
    const embeddings = randn([4, 45, 128]).requiresGrad_()
    const { lastHiddenState } = await network.forward({ inputsEmbeds: embeddings })
    await lastHiddenState.pow(3).sum().backward()
    expect(embeddings.grad?.isfinite().all().item()).toBe(true)
  })

  it('a row that is not finite stays so, and no other becomes so', async () => {
    const network = make()
    quantizeDynamic(network)
    const embeddings = randn([4, 45, 128])
    noGrad(() => embeddings.select(0, 1).select(0, 2).fill_(Number.POSITIVE_INFINITY))
    const { lastHiddenState } = await noGrad(() => network.forward({ inputsEmbeds: embeddings }))
    const finite = lastHiddenState.isfinite().all(-1).all(-1).toArray()
    expect(finite).toEqual([true, false, true, true])
  })

  it('names what it cannot do', () => {
    expect(() => quantizeDynamic(make(), { scheme: 'nf4' } as object)).toThrow(
      "expected the option modules, got 'scheme'",
    )
    expect(() => quantizeDynamic(new Linear(64, 64))).toThrow('written in TypeScript')
    expect(() => quantizeDynamic(null as never)).toThrow('the model')
    const twice = make()
    quantizeDynamic(twice)
    expect(() => quantizeDynamic(twice)).toThrow('quantized already')
  })
})
