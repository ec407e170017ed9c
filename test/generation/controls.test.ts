import { afterEach, describe, expect, it } from 'vitest'
import {
  DecoderLM,
  type GenerateOptions,
  type GenerationConfig,
  KvCache,
  manualSeed,
  memoryStats,
  noGrad,
  ops,
  scope,
  setNumThreads,
  type Tensor,
  tensor,
} from '../../lib/index.js'
import { fixture, settledTensors, tensorsOf } from '../helpers.js'
import { get } from '../models/decoder.js'
import { type Case, drawsOf, ENDS, file, inputsOf, network, PAD } from './networks.js'

setNumThreads(1)

interface Control extends Case {
  processor: boolean
  criterion: boolean
  negatives: boolean
}
const controls = await fixture<Control>('models/generation-controls')
const cases = controls.cases.filter((one) => one.case)
const negative = get(tensorsOf(controls, 'prompts', 'in').negative)

/** These two are the same functions as in the script that made the fixture. */
const favour = (inputIds: Tensor, scores: Tensor): Tensor => {
  const places = ops.arange(scores.size(1), { dtype: 'int64' }).mul(5).unsqueeze(0)
  const favoured = places
    .add(inputIds.select(1, inputIds.size(1) - 1).unsqueeze(1))
    .remainder(4)
    .eq(0)
  return scores.add(favoured.to('float32').mul(0.7))
}
const enough = (inputIds: Tensor): Tensor => {
  const last = Math.min(3, inputIds.size(1))
  return inputIds
    .narrow(1, inputIds.size(1) - last, last)
    .sum([-1])
    .remainder(7)
    .eq(0)
}

const configOf = ({ case: one }: Control): GenerationConfig => {
  const camel = (key: string) => key.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase())
  const own = Object.entries(get(one).config).map(([key, value]) => [camel(key), value])
  return { maxNewTokens: 10, eosTokenId: ENDS, padTokenId: PAD, ...Object.fromEntries(own) }
}

afterEach(async () => {
  await scope(async () => void (await ops.async.zeros([1])))
  expect(memoryStats().kvCacheBytes, 'no cache is left').toBe(0)
})

describe('limits of what is chosen, as transformers has them', () => {
  it('two beams keep the two most typical tokens, whatever typicalP', async () => {
    // TypicalLogitsWarper with min_tokens_to_keep = 2, by its definition: the least |-log p - entropy|.
    const model = network('llama')
    const inputIds = tensor([[3, 9, 27, 12, 8]])
    const { logits } = await model.forward({ inputIds })
    const logProbs = get(logits).at(0, -1).logSoftmax(-1).toArray() as number[]
    const entropy = -logProbs.reduce((sum, one) => sum + Math.exp(one) * one, 0)
    const distance = (id: number) => Math.abs(-(logProbs[id] as number) - entropy)
    const typical = [...logProbs.keys()].sort((a, b) => distance(a) - distance(b)).slice(0, 2)
    const config = { doSample: true, numBeams: 2, numReturnSequences: 2, typicalP: 0.01, eosTokenId: null }
    manualSeed(1)
    const { tokens } = await model.generate({ inputIds }, { ...config, maxNewTokens: 1 })
    expect(tokens.map(([id]) => id).sort()).toEqual(typical.sort())
  })

  it('a forced first token after a prompt of one moves the place of beginSuppressTokens by one', async () => {
    const model = network('llama')
    const { logits } = await model.forward({ inputIds: tensor([[3, 7]]) })
    const [first, second] = get(logits).at(0, -1).topk(2).indices.toArray() as number[]
    const config = { maxNewTokens: 2, eosTokenId: null, forcedBosTokenId: 7 }
    const run = async (more: GenerationConfig) =>
      (await model.generate({ inputIds: tensor([[3]]) }, { ...config, ...more })).tokens[0]
    expect(await run({})).toEqual([7, first])
    expect(await run({ beginSuppressTokens: [first as number] })).toEqual([7, second])
  })
})

describe('own functions and guidance as transformers has them', () => {
  const answers = async (one: Control, batch: number): Promise<number[][]> => {
    const rows: number[][] = []
    for (let from = 0; from < 16; from += batch) {
      const options: GenerateOptions = {
        ...drawsOf(one, from, from + batch),
        ...(one.processor ? { logitsProcessor: favour } : {}),
        ...(one.criterion ? { stoppingCriteria: [() => false, enough] } : {}),
      }
      const inputs = inputsOf(from, from + batch)
      if (one.negatives) inputs.negativePromptIds = negative.narrow(0, from, batch)
      rows.push(...(await network(get(one.model)).generate(inputs, configOf(one), options)).tokens)
    }
    return rows
  }

  it.each(cases)('$name', async (one) => {
    const expected = (tensorsOf(controls, one.name, 'out').alone as Tensor).toArray() as bigint[][]
    const width = get(expected[0]).length
    const padded = (rows: number[][]) =>
      rows.map((row) => [...row, ...Array<number>(Math.max(0, width - row.length)).fill(PAD)])
    const alone = await answers(one, 1)
    expect(padded(alone)).toEqual(expected.map((row) => row.map(Number)))
    // With beams a criterion sees no padding, so a batch is what its rows are alone.
    expect(await answers(one, 4)).toEqual(alone)
  })
})

const model = network('llama')
const inputIds = tensor([[3, 9, 27, 12, 8]])

describe('own functions', () => {
  it('see all rows in their places until the last one ends, and change scores in place too', async () => {
    const seen: number[][][] = []
    const config: GenerationConfig = { maxNewTokens: 4, eosTokenId: null, padTokenId: PAD, outputScores: true }
    const output = await model.generate(
      {
        inputIds: tensor([
          [3, 9],
          [4, 4],
        ]),
      },
      config,
      {
        logitsProcessor: [
          (ids, scores) => {
            seen.push((ids.toArray() as bigint[][]).map((row) => row.map(Number)))
            scores.fill_(0).select(1, 7).fill_(1)
            return scores
          },
          (_, scores) => scores.mul(2),
        ],
        stoppingCriteria: (ids) => [false, ids.size(1) >= 4],
      },
    )
    expect(output.tokens).toEqual([
      [7, 7, 7, 7],
      [7, 7],
    ])
    expect(output.finishReasons).toEqual(['length', 'stop'])
    expect(seen.at(-1)).toEqual([
      [3, 9, 7, 7, 7],
      [4, 4, 7, 7, PAD],
    ])
    expect(output.scores?.select(2, 7).eq(2).all().item()).toBe(true)
  })

  it('what they throw reaches the caller, and a promise is refused', async () => {
    const run = (options: object) => expect(model.generate({ inputIds }, { maxNewTokens: 3 }, options)).rejects
    const fails = () => {
      throw new RangeError('not today')
    }
    await run({ logitsProcessor: fails }).toThrow('not today')
    await run({ stoppingCriteria: fails }).toThrow('not today')
    await run({ logitsProcessor: async (_: Tensor, scores: Tensor) => scores }).toThrow(
      /got a Promise\. Make the function synchronous/,
    )
    await run({ stoppingCriteria: async () => true }).toThrow(/got a Promise\. Make the function synchronous/)
    await run({ logitsProcessor: (_: Tensor, scores: Tensor) => scores.narrow(1, 0, 3) }).toThrow(
      /must return scores \[1, 40\]/,
    )
    await run({ logitsProcessor: () => 3 }).toThrow(/returns a tensor of scores, got 3/)
    await run({ stoppingCriteria: () => [true, false] }).toThrow(/a list of 1/)
    await run({ logitsProcessor: 'no' }).toThrow(/a function or a list of them/)
    await run({ logitsProcesor: () => 1 }).toThrow(/did you mean 'logitsProcessor'/)
  })

  it('stream as well, and leave no tensors', async () => {
    const once = async () => {
      const tokens: (number | null)[] = []
      const options = { logitsProcessor: favour, stoppingCriteria: enough }
      for await (const step of model.stream({ inputIds }, { maxNewTokens: 12 }, options))
        tokens.push(get(step.tokens)[0] as number)
      return tokens
    }
    const first = await once()
    const before = await settledTensors()
    expect(await once()).toEqual(first)
    expect(await settledTensors()).toBe(before)
  })
})

describe('guidance', () => {
  it('is for prompts of language models, by name', async () => {
    const config = { maxNewTokens: 3, guidanceScale: 2 }
    const inputsEmbeds = model.embed(inputIds)
    await expect(model.generate({ inputsEmbeds }, config)).rejects.toThrow(/negative_prompt_ids/)
    const two = tensor([[1], [2]])
    await expect(model.generate({ inputIds, negativePromptIds: two }, config)).rejects.toThrow(
      /negative_prompt_ids must be \[1/,
    )
  })

  it('with beams and answers of each prompt leads each away from its own prompt', async () => {
    const negativePromptIds = negative.narrow(0, 0, 2)
    const config = { maxNewTokens: 6, eosTokenId: null, guidanceScale: 2, numBeams: 3 }
    const inputs = {
      inputIds: tensor([
        [3, 9, 27],
        [12, 8, 30],
      ]),
      negativePromptIds,
    }
    const both = await model.generate(inputs, config)
    for (const row of [0, 1]) {
      const one = (ids: Tensor) => ids.narrow(0, row, 1)
      const alone = await model.generate(
        { inputIds: one(inputs.inputIds), negativePromptIds: one(negativePromptIds) },
        config,
      )
      expect(both.tokens[row]).toEqual(alone.tokens[0])
    }
  })

  it('padding on the left of a negative prompt changes nothing', async () => {
    const config = { maxNewTokens: 6, eosTokenId: null, guidanceScale: 2 }
    const negativePromptIds = tensor([[5, 6]])
    const plain = await model.generate({ inputIds, negativePromptIds }, config)
    const padded = await model.generate(
      {
        inputIds,
        negativePromptIds: tensor([[PAD, PAD, 5, 6]]),
        negativePromptAttentionMask: tensor([[0, 0, 1, 1]]),
      },
      config,
    )
    expect(padded.tokens).toEqual(plain.tokens)
  })
})

describe('guesses', () => {
  const greedy = tensorsOf(file, 'greedy-llama', 'out').alone as Tensor
  const rows = (greedy.to('int64').toArray() as bigint[][]).map((row) => row.map(Number))
  const trimmed = (row: number[]) => {
    const end = row.findIndex((id) => ENDS.includes(id))
    return end < 0 ? row : row.slice(0, end + 1)
  }
  const ways: [string, () => GenerateOptions, GenerationConfig][] = [
    ['another network', () => ({ assistantModel: network('mistral') }), {}],
    ['itself, which is always right', () => ({ assistantModel: model }), { assistantConfidenceThreshold: 0 }],
    ['the text itself', () => ({}), { promptLookupNumTokens: 3 }],
    ['one token at a time', () => ({ assistantModel: network('qwen2') }), { numAssistantTokens: 1 }],
  ]

  it.each(ways)('of %s leave a greedy text as it is without', async (_, options, config) => {
    for (let row = 0; row < 20; row++) {
      const whole = { maxNewTokens: 10, eosTokenId: ENDS, padTokenId: PAD, ...config }
      const { tokens, guesses } = await model.generate(inputsOf(row, row + 1), whole, options())
      expect(tokens[0]).toEqual(trimmed(get(rows[row])).slice(0, 10))
      expect(get(guesses).accepted).toBeLessThanOrEqual(get(guesses).drafted)
    }
  })

  /** Tokens before the first that another rounding to bfloat16 of what is kept of a text, a share of 2⁻⁶, may change. */
  const clear = ({ logits }: { logits: Tensor | null }): number =>
    scope(() => {
      const sorted = get(logits).to('float32').select(1, 0).sort(1, true).values.toArray() as number[][]
      const at = sorted.findIndex((row) => {
        const most = Math.max(Math.abs(get(row[0])), Math.abs(get(row.at(-1))))
        return get(row[0]) - get(row[1]) <= 2 ** -6 * most
      })
      return at < 0 ? sorted.length : at
    })

  it('leave it to a pass over one token where two are as likely as each other', async () => {
    // Each row of the head is there twice, at places that a product of several rows may add up in another order; and
    // with half precision many choices are near ties.
    const { vocabSize = 0 } = model.config
    for (const dtype of ['float32', 'bfloat16'] as const) {
      const doubled = new DecoderLM(
        { ...model.config, vocabSize: 2 * vocabSize + 1, tieWordEmbeddings: false },
        { dtype },
      )
      doubled.eval()
      const state = model.stateDict()
      noGrad(() => {
        for (const [name, own] of Object.entries(doubled.stateDict())) {
          const given = get(state[name] ?? state['model.embed_tokens.weight'])
          if (given.size(0) === own.size(0)) own.copy_(given)
          else {
            own.narrow(0, 0, vocabSize).copy_(given)
            own.narrow(0, vocabSize, vocabSize).copy_(given)
          }
        }
        get(doubled.stateDict()['lm_head.weight'])
          .narrow(0, 2 * vocabSize, 1)
          .fill_(-1)
      })
      const config: GenerationConfig = { maxNewTokens: 24, eosTokenId: null, padTokenId: PAD }
      const guesses: GenerateOptions[] = [{ assistantModel: doubled }, {}]
      for (let row = 0; row < 8; row++) {
        const plain = await doubled.generate(inputsOf(row, row + 1), { ...config, outputLogits: true })
        for (const options of guesses) {
          const more = options.assistantModel
            ? { numAssistantTokens: 9, assistantConfidenceThreshold: 0 }
            : { promptLookupNumTokens: 11 }
          const guessed = await doubled.generate(inputsOf(row, row + 1), { ...config, ...more }, options)
          const surely = dtype === 'float32' ? 24 : clear(plain)
          expect(get(guessed.tokens[0]).slice(0, surely)).toEqual(get(plain.tokens[0]).slice(0, surely))
          const scored = { ...config, ...more, repetitionPenalty: 1.1, outputLogits: true }
          const penalised = await doubled.generate(inputsOf(row, row + 1), scored, options)
          if (dtype === 'float32') {
            const alone = await doubled.generate(inputsOf(row, row + 1), { ...config, repetitionPenalty: 1.1 })
            expect(penalised.tokens).toEqual(alone.tokens)
          }
          expect(get(penalised.logits).shape[0]).toBe(24)
        }
      }
      doubled.dispose()
    }
  })

  it('of the network itself are all taken', async () => {
    const config = { maxNewTokens: 16, eosTokenId: null, numAssistantTokens: 5, assistantConfidenceThreshold: 0 }
    const { guesses } = await model.generate({ inputIds }, config, { assistantModel: model })
    // 16 tokens: one behind the prompt, then five, five and two guesses, each with the token behind them.
    expect(guesses).toEqual({ drafted: 12, accepted: 12 })
  })

  it('go with processors, stop sequences, streams and log probabilities', async () => {
    const config: GenerationConfig = {
      maxNewTokens: 14,
      eosTokenId: null,
      repetitionPenalty: 1.4,
      noRepeatNgramSize: 3,
      outputLogprobs: true,
      outputScores: true,
    }
    const functions = { logitsProcessor: favour }
    const plain = await model.generate({ inputIds }, config, functions)
    for (const assistantModel of [model, network('mistral')]) {
      const guessed = await model.generate({ inputIds }, config, { ...functions, assistantModel })
      expect(guessed.tokens).toEqual(plain.tokens)
      const apart = (a: Tensor, b: Tensor) => a.sub(b).nanToNum().abs().max().item()
      expect(apart(get(guessed.logprobs), get(plain.logprobs))).toBeLessThan(1e-5)
      expect(apart(get(guessed.scores), get(plain.scores))).toBeLessThan(1e-4)
    }
    const stop = [get(plain.tokens[0]).slice(5, 7)]
    const stopped = await model.generate({ inputIds }, { ...config, stopSequences: stop }, functions)
    const steps: (number | null)[] = []
    const options = { ...functions, assistantModel: model }
    for await (const { tokens } of model.stream({ inputIds }, { ...config, stopSequences: stop }, options)) {
      steps.push(get(tokens)[0] as number)
    }
    expect(steps).toEqual(stopped.tokens[0])
  })

  it('leave a cache as it is without: all but the last token', async () => {
    const config = { maxNewTokens: 9, eosTokenId: null, numAssistantTokens: 4, assistantConfidenceThreshold: 0 }
    const lengths: number[] = []
    for (const options of [{}, { assistantModel: model }, { assistantModel: network('mistral') }]) {
      const cache = new KvCache()
      const first = await model.generate({ inputIds, cache }, config, options)
      lengths.push(cache.length)
      const next = tensor([[get(first.tokens[0]).at(-1) as number, 7]])
      const { tokens } = await model.generate({ inputIds: next, cache }, { maxNewTokens: 5, eosTokenId: null })
      const whole = tensor([[...[3, 9, 27, 12, 8], ...get(first.tokens[0]), 7]])
      expect(tokens).toEqual((await model.generate({ inputIds: whole }, { maxNewTokens: 5, eosTokenId: null })).tokens)
      cache.dispose()
    }
    expect(new Set(lengths)).toEqual(new Set([13]))
  })

  it('are refused where they cannot be, by name', async () => {
    const run = (inputs: object, config: GenerationConfig, options: object = { assistantModel: network('mistral') }) =>
      expect(model.generate({ inputIds, ...inputs }, { maxNewTokens: 3, ...config }, options)).rejects
    await run({ inputIds: tensor([[1], [2]]) }, {}).toThrow(/for one row, without beams; there are 2/)
    await run({}, { numBeams: 2 }).toThrow(/without beams/)
    await run({}, { guidanceScale: 2 }).toThrow(/guidance_scale/)
    await run({}, { promptLookupNumTokens: 2 }).toThrow(/either an assistant or prompt_lookup/)
    await run({}, {}, { assistantModel: {} }).toThrow(/a network that generates/)
    manualSeed(1)
    const { config } = get(file.cases.find((one) => one.name === 'llama'))
    const other = new DecoderLM({
      hiddenSize: 8,
      numHiddenLayers: 1,
      numAttentionHeads: 2,
      intermediateSize: 8,
      vocabSize: 9,
    })
    expect(config?.vocab_size).toBe(40)
    await run({}, {}, { assistantModel: other }).toThrow(/the assistant has 9 tokens, but the network 40/)
    await run({ inputIds: null, inputsEmbeds: model.embed(inputIds) }, {}).toThrow(/reads input_ids/)
    await run({}, { numAssistantTokens: 0 }).toThrow(/numAssistantTokens: expected/)
  })
})
