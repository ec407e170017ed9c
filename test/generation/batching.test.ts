import { afterEach, describe, expect, it } from 'vitest'
import {
  ConfigError,
  ContinuousBatching,
  type ContinuousBatchingOptions,
  DecoderLM,
  type DecoderLMConfig,
  type GenerationConfig,
  Generator,
  getPeftModel,
  KvCache,
  LoraConfig,
  manualSeed,
  memoryStats,
  noGrad,
  quantize,
  type Tensor,
  tensor,
} from '../../lib/index.js'
import { ROUNDING, tensorsOf } from '../helpers.js'
import { get } from '../models/decoder.js'
import { ENDS, file, inputsOf, network, PAD } from './networks.js'

const open: ContinuousBatching[] = []
const batchingOf = (model: DecoderLM, options: ContinuousBatchingOptions = {}): ContinuousBatching => {
  const batching = new ContinuousBatching(model, options)
  open.push(batching)
  return batching
}
afterEach(() => {
  for (const batching of open.splice(0)) batching.dispose()
})

const plain: GenerationConfig = { maxNewTokens: 10, eosTokenId: ENDS, padTokenId: PAD }
const alone = async (model: DecoderLM, prompt: number[], config: GenerationConfig = plain) =>
  get((await model.generate({ inputIds: tensor([prompt]) }, config)).tokens[0])
const within = async (batching: ContinuousBatching, model: DecoderLM, prompt: number[], config = plain) =>
  get((await model.generate({ inputIds: tensor([prompt]) }, config, { batching })).tokens[0])
/** Ids below 40 that look like nothing in particular. */
const idsOf = (seed: number, length: number) => Array.from({ length }, (_, i) => 6 + ((seed * 31 + i * i * 7 + i) % 33))

describe('texts in one batching', () => {
  it.each([
    ['llama', 128],
    ['llama', 3],
    ['mistral', 5],
    ['qwen2', 1],
  ])('of %s are those of transformers, with %i tokens in a pass', async (name, maxNumBatchedTokens) => {
    const model = network(name)
    const batching = batchingOf(model, { maxNumBatchedTokens, maxNumSeqs: 5 })
    const wanted = tensorsOf(file, `greedy-${name}`, 'out').alone as Tensor
    const rows = (wanted.to('int64').toArray() as bigint[][]).map((row) => row.map(Number))
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, row) => model.generate(inputsOf(row, row + 1), plain, { batching })),
    )
    for (const [row, { tokens }] of answers.entries()) {
      const all = get(rows[row])
      const end = all.findIndex((id) => ENDS.includes(id))
      expect(tokens[0]).toEqual(end < 0 ? all.slice(0, 10) : all.slice(0, end + 1))
    }
    expect(batching.stats()).toMatchObject({ running: 0, waiting: 0 })
  })

  it('each have their own manner of choosing', async () => {
    const model = network('llama')
    const prompt = idsOf(3, 9)
    const configs: GenerationConfig[] = [
      plain,
      { ...plain, repetitionPenalty: 1.4, noRepeatNgramSize: 2 },
      {
        ...plain,
        eosTokenId: null,
        stopSequences: [[...(await alone(model, prompt, { ...plain, eosTokenId: null })).slice(3, 5)]],
      },
      { ...plain, prefixAllowedTokensFn: (_, ids) => [(get(ids.at(-1)) * 3) % 40, (get(ids.at(-1)) * 5) % 40, 5] },
      {
        ...plain,
        allowedSequences: [
          [7, 8, 9, 10],
          [11, 12],
        ],
      },
      { ...plain, maxNewTokens: 25, eosTokenId: null },
      { ...plain, numBeams: 3 },
      { ...plain, promptLookupNumTokens: 3 },
    ]
    const batching = batchingOf(model)
    const apart = []
    for (const config of configs) apart.push(await alone(model, prompt, config))
    const together = await Promise.all(configs.map((config) => within(batching, model, prompt, config)))
    expect(together).toEqual(apart)
    expect(new Set(apart.map(String)).size).toBeGreaterThan(5)
  })

  it('draw each from their own generator', async () => {
    const model = network('llama')
    const config: GenerationConfig = { ...plain, doSample: true, temperature: 1.3, eosTokenId: null }
    const run = async (seed: number, batching?: ContinuousBatching) => {
      const generator = new Generator({ seed })
      const inputs = { inputIds: tensor([idsOf(seed, 4 + seed)]) }
      const { tokens } = await model.generate(inputs, config, { generator, ...(batching && { batching }) })
      return tokens[0]
    }
    const batching = batchingOf(model, { maxNumSeqs: 4 })
    const seeds = [1, 2, 3, 4, 5, 6]
    const together = await Promise.all(seeds.map((seed) => run(seed, batching)))
    for (const [i, seed] of seeds.entries()) expect(together[i]).toEqual(await run(seed))
  })

  it('have the log probabilities and scores that they have alone, up to rounding', async () => {
    const model = network('llama')
    const batching = batchingOf(model)
    const config = { ...plain, eosTokenId: null, outputLogprobs: true, outputScores: true }
    const prompts = [idsOf(1, 5), idsOf(2, 17), idsOf(4, 2)].map((ids) => ({ inputIds: tensor([ids]) }))
    const together = await Promise.all(prompts.map((inputs) => model.generate(inputs, config, { batching })))
    for (const [i, inputs] of prompts.entries()) {
      const one = await model.generate(inputs, config)
      for (const key of ['logprobs', 'scores'] as const) {
        const [a, b] = [get(get(together[i])[key]), get(one[key])]
        const apart = a.sub(b).abs().max().item() as number
        expect(apart / (b.abs().max().item() as number)).toBeLessThan(100 * ROUNDING.float32)
      }
    }
  })

  // Lengths on both sides of a piece of attention, which has 128 keys; windows of 40 keys; adapters.
  it.each([
    ['llama, 8 texts', 8, 'llama', {}],
    ['qwen3, 5 texts', 5, 'qwen3', {}],
    [
      'gemma3_text, 3 texts',
      3,
      'gemma3_text',
      { slidingWindow: 40, layerTypes: ['sliding_attention', 'full_attention'] },
    ],
    ['llama, 12 texts, q8_0 on the CPU', 12, 'llama', { quantized: true }],
    ['llama with LoRA, 6 texts, q8_0 on the CPU', 6, 'llama', { quantized: true, adapted: true }],
  ] as const)('of unlike lengths have the scores of one pass over each: %s', async (_, count, modelType, given) => {
    const { quantized, adapted, ...more } = { quantized: false, adapted: false, ...given }
    manualSeed(7)
    const sizes = { vocabSize: 90, hiddenSize: 64, intermediateSize: 96, numHiddenLayers: 2 }
    const heads = { numAttentionHeads: 4, numKeyValueHeads: 2, headDim: 16, maxPositionEmbeddings: 512 }
    const model = DecoderLM.fromConfig({
      modelType,
      ...sizes,
      ...heads,
      ...more,
      initializerRange: 0.2,
    } as DecoderLMConfig)
    model.freeze()
    if (quantized) quantize(model, { scheme: 'q8_0' })
    if (adapted)
      getPeftModel(model, new LoraConfig({ r: 4, targetModules: ['q_proj', 'down_proj'], initLoraWeights: false }))
    model.eval()
    const batching = batchingOf(model, { maxNumSeqs: count })
    const texts = Array.from({ length: count }, (_, i) => idsOf(i, 5 + ((i * 61) % 290)))
    const config = { ...plain, eosTokenId: null, outputScores: true }
    const together = await Promise.all(
      texts.map((ids) => model.generate({ inputIds: tensor([ids]) }, config, { batching })),
    )
    for (const [i, { tokens, scores }] of together.entries()) {
      const all = [...get(texts[i]), ...get(tokens[0]).slice(0, -1)]
      const { logits } = await noGrad(() => model.forward({ inputIds: tensor([all]) }))
      const wanted = get(logits)
        .select(0, 0)
        .narrow(0, get(texts[i]).length - 1, get(tokens[0]).length)
      const off = get(scores).select(1, 0).to(wanted.device).sub(wanted)
      // Passes of 1 to 4 tokens round the inputs of quantized weights otherwise than those of more.
      const limit = quantized ? 0.02 : 100 * ROUNDING.float32
      expect(Number(off.square().sum().div(wanted.square().sum()).sqrt().item())).toBeLessThan(limit)
    }
    model.dispose()
  })

  it('may come as embeddings, and behind a cache, which has all but the last token then', async () => {
    const model = network('llama')
    const batching = batchingOf(model, { maxNumBatchedTokens: 4 })
    const prompt = idsOf(5, 11)
    const wanted = await alone(model, prompt)
    const cache = new KvCache()
    await model.forward({ inputIds: tensor([prompt.slice(0, 4)]), cache })
    const [embedded, behind] = await Promise.all([
      model.generate({ inputsEmbeds: model.embed(tensor([prompt])) }, plain, { batching }),
      model.generate({ inputIds: tensor([prompt.slice(4)]), cache }, plain, { batching }),
      within(batching, model, idsOf(6, 20)),
    ])
    expect(embedded.tokens[0]).toEqual(wanted)
    expect(behind.tokens[0]).toEqual(wanted)
    expect(cache.length).toBe(prompt.length + wanted.length - 1)
    cache.dispose()
  })
})

describe('a batching', () => {
  it('lets a text join while others are written, and goes on with those while it reads a long prompt', async () => {
    const model = network('llama')
    const batching = batchingOf(model, { maxNumBatchedTokens: 8 })
    const order: string[] = []
    const write = async (name: string, prompt: number[], maxNewTokens: number, after?: Promise<void>) => {
      await after
      const config = { maxNewTokens, eosTokenId: null }
      const steps = model.stream({ inputIds: tensor([prompt]) }, config, { batching })
      const tokens: number[] = []
      for await (const step of steps) {
        order.push(name)
        tokens.push(step.tokens[0] as number)
        started()
      }
      expect(tokens).toEqual(await alone(model, prompt, config))
    }
    let started = () => {}
    const first = new Promise<void>((resolve) => {
      started = resolve
    })
    await Promise.all([write('first', idsOf(1, 4), 60, undefined), write('long', idsOf(2, 90), 4, first)])
    // The long prompt takes 13 passes of 7 tokens, and each gives the first text a token.
    const joined = order.indexOf('long')
    expect(joined).toBeGreaterThan(12)
    expect(joined).toBeLessThan(order.lastIndexOf('first'))
    expect(order.lastIndexOf('long')).toBeLessThan(order.length - 1)
  })

  it('lets texts in by turns, no more than its limits', async () => {
    const model = network('llama')
    const { hiddenSize = 0, numHiddenLayers = 0, numAttentionHeads = 1, numKeyValueHeads } = model.config
    const headDim = hiddenSize / numAttentionHeads
    const perToken = 2 * numHiddenLayers * (numKeyValueHeads ?? numAttentionHeads) * headDim * 4
    // Room for two texts of 5 and 10 tokens.
    const batching = batchingOf(model, { maxNumSeqs: 3, maxCacheBytes: 31 * perToken })
    const ends: number[] = []
    let most = 0
    const answers = Array.from({ length: 9 }, async (_, i) => {
      const steps = model.stream(
        { inputIds: tensor([idsOf(i, 5)]) },
        { maxNewTokens: 10, eosTokenId: null },
        { batching },
      )
      for await (const _ of steps) most = Math.max(most, batching.stats().running)
      ends.push(i)
    })
    await Promise.all(answers)
    expect(most).toBe(2)
    expect(ends).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8])
    const large = within(batching, model, idsOf(1, 5), { maxNewTokens: 40 })
    await expect(large).rejects.toThrow(/maxCacheBytes of the batching.* for 45 tokens, prompt and new ones/)
    await expect(large).rejects.toBeInstanceOf(ConfigError)
  })

  it('gives the place of a text that is given up to the next, and frees its memory', async () => {
    const model = network('llama')
    const before = memoryStats()
    const batching = batchingOf(model, { maxNumSeqs: 1 })
    const given = new AbortController()
    const inputIds = tensor([idsOf(1, 6)])
    const endless = { maxNewTokens: 5000, eosTokenId: null }
    const left = (async () => {
      for await (const { step } of model.stream({ inputIds }, endless, { batching })) if (step === 3) break
    })()
    const aborted = model.generate({ inputIds }, endless, { batching, signal: given.signal })
    const waiting = model.generate({ inputIds }, endless, { batching, signal: given.signal })
    const last = within(batching, model, idsOf(2, 5))
    await left
    given.abort(new Error('enough'))
    await expect(aborted).rejects.toThrow('enough')
    await expect(waiting).rejects.toThrow('enough')
    expect(await last).toEqual(await alone(model, idsOf(2, 5)))
    expect(batching.stats()).toMatchObject({ running: 0, waiting: 0 })
    inputIds.dispose()
    await expect.poll(() => memoryStats().kvCacheBytes).toBe(before.kvCacheBytes)
  })

  it('writes no more than a little ahead of whoever takes a text, and goes on with the others', async () => {
    const model = network('llama')
    const batching = batchingOf(model)
    const cache = new KvCache()
    const slow = model.stream(
      { inputIds: tensor([idsOf(1, 5)]), cache },
      { maxNewTokens: 100, eosTokenId: null },
      { batching },
    )
    await slow.next()
    const config = { maxNewTokens: 60, eosTokenId: null }
    expect(await within(batching, model, idsOf(2, 5), config)).toEqual(await alone(model, idsOf(2, 5), config))
    expect(cache.length).toBeLessThan(5 + 20)
    let count = 1
    for await (const _ of slow) count += 1
    expect(count).toBe(100)
    cache.dispose()
  })

  it('leaves all others as they are where one fails', async () => {
    const model = network('llama')
    const batching = batchingOf(model)
    const run = (inputIds: Tensor, config: GenerationConfig = plain, options = {}) =>
      model.generate({ inputIds }, config, { ...options, batching })
    const good = [1, 2, 3].map((seed) => within(batching, model, idsOf(seed, 7)))
    const foreign = new KvCache()
    const other = new DecoderLM({ ...model.config, numHiddenLayers: 1 }).eval()
    await other.forward({ inputIds: tensor([[1, 2]]), cache: foreign })
    const bad = [
      expect(run(tensor([[3, 4000]]))).rejects.toThrow(/range|index/),
      expect(model.generate({ inputIds: tensor([[3]]), cache: foreign }, plain, { batching })).rejects.toThrow(/cache/),
      expect(
        run(tensor([[3, 4]]), plain, {
          logitsProcessor: () => {
            throw new TypeError('mine')
          },
        }),
      ).rejects.toThrow('mine'),
      expect(
        run(tensor([[3, 4]]), {
          ...plain,
          prefixAllowedTokensFn: () => {
            throw new TypeError('own')
          },
        }),
      ).rejects.toThrow('own'),
      expect(
        run(tensor([[3, 4]]), { ...plain, doSample: true }, { uniforms: tensor([[0.5]], { dtype: 'float64' }) }),
      ).rejects.toThrow(/uniforms/),
      expect(
        model.generate({ inputIds: tensor([[3, 4]]), attentionMask: tensor([[0, 1]]) }, plain, { batching }),
      ).rejects.toThrow(/no padding/),
    ]
    await Promise.all(bad)
    for (const [i, tokens] of (await Promise.all(good)).entries()) {
      expect(tokens).toEqual(await alone(model, idsOf(i + 1, 7)))
    }
    expect(batching.stats()).toMatchObject({ running: 0, waiting: 0 })
    foreign.dispose()
  })

  it('refuses what it does not know, and another network', async () => {
    const model = network('llama')
    expect(() => new ContinuousBatching(model, { maxNumSeq: 3 } as object)).toThrow(/maxNumSeqs/)
    expect(() => new ContinuousBatching(model, { maxNumSeqs: 0 })).toThrow(/at least 1/)
    expect(() => new ContinuousBatching({} as DecoderLM)).toThrow(/language model/)
    const batching = batchingOf(model)
    const inputIds = tensor([[3]])
    await expect(network('qwen2').generate({ inputIds }, plain, { batching })).rejects.toThrow(
      /created for this network/,
    )
    await expect(model.generate({ inputIds }, plain, { batching: {} as ContinuousBatching })).rejects.toThrow(
      /ContinuousBatching/,
    )
    const running = model.generate({ inputIds }, { maxNewTokens: 5000, eosTokenId: null }, { batching })
    await new Promise((resolve) => setTimeout(resolve, 20))
    batching.dispose()
    await expect(running).rejects.toThrow(/disposed/)
    await expect(model.generate({ inputIds }, plain, { batching })).rejects.toThrow(/disposed/)
    expect(() => batching.stats()).toThrow(/disposed/)
  })
})

describe('beginnings that were read before', () => {
  const system = idsOf(9, 40)
  const answer = async (batching: ContinuousBatching, model: DecoderLM, prompt: number[]) => {
    const { tokens, cachedTokens } = await model.generate({ inputIds: tensor([prompt]) }, plain, { batching })
    return { tokens: tokens[0], cachedTokens }
  }

  it('are not read again, by texts one after the other and at the same time', async () => {
    const model = network('llama')
    const batching = batchingOf(model, { prefixCacheBytes: 1e8, maxNumBatchedTokens: 16 })
    const prompts = [1, 2, 3, 4].map((seed) => [...system, ...idsOf(seed, 5)])
    const together = await Promise.all(prompts.map((prompt) => answer(batching, model, prompt)))
    const shared = (a: number[], b: number[]) => a.findIndex((id, i) => id !== b[i])
    expect(together[0]).toEqual({ tokens: await alone(model, get(prompts[0])), cachedTokens: 0 })
    for (const [i, prompt] of prompts.entries()) {
      expect(together[i]?.tokens).toEqual(await alone(model, prompt))
      if (i > 0) expect(together[i]?.cachedTokens).toBeGreaterThanOrEqual(shared(get(prompts[0]), prompt))
    }
    // The next turn of a conversation begins with prompt and answer.
    const [first] = prompts as [number[]]
    const next = [...first, ...get(get(together[0]).tokens), ...idsOf(7, 6)]
    const turn = await answer(batching, model, next)
    expect(turn).toEqual({
      tokens: await alone(model, next),
      cachedTokens: first.length + get(get(together[0]).tokens).length - 1,
    })
    const { prefixCache } = batching.stats()
    expect(prefixCache.promptTokens).toBe(4 * 45 + next.length)
    expect(prefixCache.cachedTokens).toBe([...together, turn].reduce((sum, one) => sum + (one.cachedTokens ?? 0), 0))
    expect(prefixCache.texts).toBe(4)
  })

  it('take no more memory than they may; what was not used for longest goes', async () => {
    const model = network('llama')
    const one = batchingOf(model, { prefixCacheBytes: 1e9 })
    await answer(one, model, idsOf(1, 30))
    const { bytes } = one.stats().prefixCache
    const batching = batchingOf(model, { prefixCacheBytes: Math.ceil(2.5 * bytes) })
    const ask = async (seed: number) => (await answer(batching, model, idsOf(seed, 30))).cachedTokens
    expect(await ask(1)).toBe(0)
    expect(await ask(2)).toBe(0)
    expect(await ask(1)).toBe(29)
    expect(await ask(3)).toBe(0)
    expect(batching.stats().prefixCache.bytes).toBeLessThanOrEqual(2.5 * bytes)
    expect(await ask(1)).toBe(29)
    expect(await ask(2)).toBe(0)
  })

  it('stay within their bytes over 300 requests, and are all that is kept', async () => {
    const model = network('llama')
    const before = memoryStats().kvCacheBytes
    const prefixCacheBytes = 20_000
    const batching = batchingOf(model, { prefixCacheBytes })
    let most = 0
    for (let request = 0; request < 300; request++) {
      await within(batching, model, idsOf(request, 12 + (request % 9)), { ...plain, maxNewTokens: 3, eosTokenId: null })
      const { bytes, texts } = batching.stats().prefixCache
      expect(bytes).toBeLessThanOrEqual(prefixCacheBytes)
      // Of each text the ids count too, eight bytes a token.
      const held = memoryStats().kvCacheBytes - before
      expect(held).toBeLessThan(bytes)
      expect(bytes - held).toBeLessThanOrEqual(texts * 23 * 8)
      most = Math.max(most, bytes)
    }
    expect(most).toBeGreaterThan(prefixCacheBytes / 2)
    expect(batching.stats()).toMatchObject({ running: 0, waiting: 0 })
    batching.dispose()
    expect(memoryStats().kvCacheBytes).toBe(before)
  })

  it('are forgotten when weights or adapters change', async () => {
    manualSeed(3)
    const model = new DecoderLM(network('llama').config).eval()
    const batching = batchingOf(model, { prefixCacheBytes: 1e8 })
    const prompt = idsOf(2, 30)
    const ask = () => answer(batching, model, prompt)
    await ask()
    expect((await ask()).cachedTokens).toBe(29)
    noGrad(() => get(model.parameters()[1]).mul_(1.5))
    expect(await ask()).toEqual({ tokens: await alone(model, prompt), cachedTokens: 0 })
    expect((await ask()).cachedTokens).toBe(29)
    const peft = getPeftModel(model, new LoraConfig({ r: 2, targetModules: ['v_proj'], initLoraWeights: false }))
    expect(await ask()).toEqual({ tokens: await alone(model, prompt), cachedTokens: 0 })
    // A call with other adapters is no part of the batching.
    const { cachedTokens } = await peft.disableAdapter(() => ask())
    expect(cachedTokens).toBeUndefined()
    expect((await ask()).cachedTokens).toBe(29)
  })
})
