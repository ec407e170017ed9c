import { execFileSync } from 'node:child_process'
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

  it('of int8, on every kind of processor: rows of inputs are rounded by their own scale', { timeout: 300_000 }, () => {
    const program = `
      import { functional, manualSeed, noGrad, quantizeDynamic, randint, Roberta, tensor } from '${new URL('../../dist/modules/index.js', import.meta.url)}'
      for (const [hiddenAct, words, dtype] of [['gelu', 43, 'float32'], ['gelu_new', 45, 'float32'], ['relu', 64, 'bfloat16']]) {
        manualSeed(2)
        const network = new Roberta({ ...${JSON.stringify(config)}, intermediateSize: 384, hiddenAct }).eval().to({ dtype })
        quantizeDynamic(network)
        const at = 'encoder.layer.0.intermediate'
        let seen
        network.get(at).registerForwardHook((_, [x], y) => { seen = [x, y].map((each) => each.float().toArray()) })
        await noGrad(() => network.forward({ inputIds: randint(5, 50, [4, words]) }))
        const state = network.stateDict()
        const part = (name) => state[at + '.dense.' + name] ?? state.get(at + '.dense.' + name)
        const x = tensor(seen[0]), top = x.abs().amax([-1], true)
        const codes = x.mul(tensor(127).div(top)).round().double()
        const sums = codes.matmul(part('weight').double().t())
        const y = sums.mul(top.double().div(127)).mul(part('weight_absmax').double().div(127)).add(part('bias').double())
        const exact = hiddenAct === 'relu' ? functional.relu(y) : functional.gelu(y, { approximate: hiddenAct === 'gelu' ? 'none' : 'tanh' })
        const error = tensor(seen[1]).double().sub(exact).abs().max().item() / exact.abs().max().item()
        if (!(error < (dtype === 'float32' ? 1e-5 : 2 ** -8))) throw new Error(hiddenAct + ' ' + error)
      }
      console.log('equal')`
    for (const env of [
      {},
      { ONEDNN_MAX_CPU_ISA: 'AVX512_CORE' },
      { ATEN_CPU_CAPABILITY: 'avx2' },
      { ATEN_CPU_CAPABILITY: 'default' },
    ]) {
      const out = execFileSync(process.execPath, ['--input-type=module', '-e', program], {
        env: { ...process.env, ...env },
        encoding: 'utf8',
      })
      expect(out, JSON.stringify(env)).toBe('equal\n')
    }
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
