import { afterEach, describe, expect, it } from 'vitest'
import {
  ConfigError,
  DecoderLM,
  type GenerationConfig,
  Generator,
  getPeftModel,
  KvCache,
  manualSeed,
  memoryStats,
  ops,
  scope,
  setNumThreads,
  tensor,
} from '../../lib/index.js'
import { settledTensors } from '../helpers.js'
import { get } from '../models/decoder.js'
import { ENDS, inputsOf, network, PAD } from './networks.js'

setNumThreads(1)

const model = network('llama')
const inputIds = tensor([[3, 9, 27, 12, 8]])
const endless: GenerationConfig = { maxNewTokens: 10_000, eosTokenId: null }
/** Whatever was queued is over. */
const idle = () => scope(async () => void (await ops.async.zeros([1])))

afterEach(async () => {
  await idle()
  expect(memoryStats().kvCacheBytes, 'no cache is left').toBe(0)
})

describe('a stream', () => {
  it('gives what generate gives, token by token, in batches too', async () => {
    const inputs = inputsOf(8, 16)
    const config: GenerationConfig = { maxNewTokens: 10, eosTokenId: ENDS, padTokenId: PAD, outputLogprobs: true }
    const whole = await model.generate(inputs, config)
    const rows: number[][] = whole.tokens.map(() => [])
    const logprobs: number[][] = whole.tokens.map(() => [])
    let last: unknown
    for await (const { tokens, finishReasons, logprobs: mine, step } of model.stream(inputs, config)) {
      tokens.forEach((token, row) => {
        if (token === null) return
        expect(rows[row]).toHaveLength(step)
        rows[row]?.push(token)
        logprobs[row]?.push(get(mine)[row] as number)
      })
      last = finishReasons
    }
    expect(rows).toEqual(whole.tokens)
    expect(last).toEqual(whole.finishReasons)
    expect(new Set(whole.finishReasons)).toEqual(new Set(['eos', 'length']))
    const known = get(whole.logprobs).toArray() as number[][]
    expect(logprobs).toEqual(known.map((row, i) => row.slice(0, rows[i]?.length)))
  })

  it('takes turns with another', async () => {
    const order: string[] = []
    const consume = async (name: string) => {
      for await (const _ of model.stream({ inputIds }, { ...endless, maxNewTokens: 60 })) order.push(name)
    }
    await Promise.all([consume('a'), consume('b')])
    expect(order).toHaveLength(120)
    let lead = 0
    for (const name of order.slice(0, 110)) {
      lead += name === 'a' ? 1 : -1
      // Some tokens of each may be ready before the loop that reads them runs, more where other processes take its core.
      expect(Math.abs(lead)).toBeLessThanOrEqual(12)
    }
  })

  it('lets other work in between two tokens', async () => {
    let steps = 0
    for await (const { step } of model.stream({ inputIds }, endless)) {
      steps = step
      if (step < 5) continue
      await idle()
      break
    }
    expect(steps).toBe(5)
  })

  it('frees its memory when the loop is left', async () => {
    await idle()
    await settledTensors()
    const before = memoryStats()
    for await (const { step } of model.stream({ inputIds }, endless)) {
      expect(memoryStats().kvCacheBytes).toBeGreaterThan(0)
      if (step === 3) break
    }
    expect(memoryStats()).toMatchObject({
      liveTensors: before.liveTensors,
      liveBytes: before.liveBytes,
      kvCacheBytes: 0,
    })
  })

  it('refuses beams', async () => {
    await expect(model.stream({ inputIds }, { numBeams: 2 }).next()).rejects.toThrow(/beams.*generate/)
    const ids = { inputIds: [1, 2] as unknown as typeof inputIds }
    const said = 'inputIds: expected a tensor, got an array of length 2. Write tensor([ids]).'
    await expect(model.generate(ids)).rejects.toThrow(`generate: ${said}`)
    await expect(model.generate(ids)).rejects.toThrow(ConfigError)
    await expect(model.stream(ids).next()).rejects.toThrow(`generate: ${said}`)
    await expect(model.forward(ids)).rejects.toThrow(`DecoderLM.forward: ${said}`)
    for (const wrong of ['hi', inputIds, null]) {
      await expect(model.generate(wrong as never)).rejects.toThrow(
        /^generate: expected inputs to be an object of tensors/,
      )
    }
  })
})

describe('an abort', () => {
  it('ends the generation within one token', async () => {
    using cache = new KvCache()
    const controller = new AbortController()
    const running = model.generate({ inputIds, cache }, endless, { signal: controller.signal })
    while (cache.length < 40) await new Promise((resolve) => setImmediate(resolve))
    const reason = new Error('enough')
    const length = cache.length
    controller.abort(reason)
    await expect(running).rejects.toBe(reason)
    await idle()
    expect(cache.length).toBeLessThanOrEqual(length + 1)
    await idle()
    expect(cache.length).toBeLessThanOrEqual(length + 1)
  })

  it.each([7, 'stop', {}, { aborted: false }, new AbortController()])('is a signal, not %s', async (signal) => {
    const options = { signal: signal as never }
    await expect(model.generate({ inputIds }, endless, options)).rejects.toThrow(ConfigError)
    await expect(model.stream({ inputIds }, endless, options).next()).rejects.toThrow(/signal to be an AbortSignal/)
  })

  it('reaches the loop of a stream, also before it begins', async () => {
    const controller = new AbortController()
    const steps: number[] = []
    const consume = async () => {
      for await (const { step } of model.stream({ inputIds }, endless, { signal: controller.signal })) {
        steps.push(step)
        if (step === 2) controller.abort()
      }
    }
    await expect(consume()).rejects.toMatchObject({ name: 'AbortError' })
    expect(steps).toEqual([0, 1, 2])
    await expect(consume()).rejects.toMatchObject({ name: 'AbortError' })
    expect(steps).toHaveLength(3)
  })
})

describe('a constraint', () => {
  const wrong = new RangeError('thrown in the constraint')

  it.each([1, 3])('that throws reaches the caller (at step %i)', async (when) => {
    let calls = 0
    const prefixAllowedTokensFn = () => {
      calls += 1
      if (calls === when) throw wrong
      return [4, 5, 6]
    }
    await expect(model.generate({ inputIds }, { ...endless, prefixAllowedTokensFn })).rejects.toBe(wrong)
    calls = 0
    const stream = model.stream({ inputIds }, { ...endless, prefixAllowedTokensFn })
    const consume = async () => {
      for await (const _ of stream);
    }
    await expect(consume()).rejects.toBe(wrong)
  })

  it('must be synchronous, and allow something that there is', async () => {
    const refused = (prefixAllowedTokensFn: unknown, message: RegExp) =>
      expect(model.generate({ inputIds }, { prefixAllowedTokensFn } as GenerationConfig)).rejects.toThrow(message)
    await refused(async () => [1], /got a Promise\. Make the function synchronous/)
    await refused(() => undefined, /list of token ids/)
    await refused(() => [], /allow no token at step 1/)
    await refused(() => [40], /token 40, but there are 40/)
  })

  it('sees the text of its row without padding', async () => {
    const seen: [number, number[]][] = []
    const inputs = {
      inputIds: tensor([
        [PAD, 3],
        [7, 9],
      ]),
      attentionMask: tensor([
        [0, 1],
        [1, 1],
      ]),
    }
    const { tokens } = await model.generate(inputs, {
      maxNewTokens: 2,
      prefixAllowedTokensFn: (row, text) => {
        seen.push([row, text])
        return [11 + row]
      },
    })
    expect(tokens).toEqual([
      [11, 11],
      [12, 12],
    ])
    expect(seen).toEqual([
      [0, [3]],
      [1, [7, 9]],
      [0, [3, 11]],
      [1, [7, 9, 12]],
    ])
  })

  it('is met with others', async () => {
    const config = { allowedTokens: [4, 5, 6, 7], prefixAllowedTokensFn: () => new Set([6, 7, 8]), maxNewTokens: 6 }
    const { tokens } = await model.generate({ inputIds }, config)
    expect(get(tokens[0]).every((id) => id === 6 || id === 7)).toBe(true)
  })
})

describe('draws', () => {
  const config: GenerationConfig = { doSample: true, maxNewTokens: 20, numReturnSequences: 3 }

  it('follow the seed', async () => {
    const once = (seed: number) => model.generate({ inputIds }, config, { generator: new Generator({ seed }) })
    const first = await once(7)
    expect((await once(7)).tokens).toEqual(first.tokens)
    expect((await once(8)).tokens).not.toEqual(first.tokens)
    expect(new Set(first.tokens.map(String)).size, 'the three answers differ').toBe(3)
    manualSeed(5)
    const { tokens } = await model.generate({ inputIds }, config)
    expect((await model.generate({ inputIds }, config)).tokens).not.toEqual(tokens)
    manualSeed(5)
    expect((await model.generate({ inputIds }, config)).tokens).toEqual(tokens)
  })

  it('come with the frequencies of the distribution', async () => {
    const { logits } = await model.forward({ inputIds, logitsToKeep: 1 })
    const expected = get(logits).div(1.5).softmax(-1).flatten().toArray() as number[]
    const many = 4000
    const inputs = { inputIds: inputIds.repeat([many, 1]) }
    const sample = { doSample: true, temperature: 1.5, topK: 0, maxNewTokens: 1 }
    const { tokens } = await model.generate(inputs, sample, { generator: new Generator({ seed: 1 }) })
    const counts = Array<number>(40).fill(0)
    for (const [id] of tokens) counts[get(id)]! += 1
    counts.forEach((count, id) => {
      const p = get(expected[id])
      expect(Math.abs(count - many * p)).toBeLessThan(4.5 * Math.sqrt(many * p * (1 - p)) + 1)
    })
  })

  it('that are given must suffice', async () => {
    const uniforms = tensor([[0.5, 0.5, 0.5]])
    await expect(model.generate({ inputIds }, config, { uniforms })).rejects.toThrow(/no number for step 1/)
    await expect(model.generate({ inputIds }, config, { uniforms: tensor([[0.1, 1, 0]]) })).rejects.toThrow(/below 1/)
  })
})

describe('a cache', () => {
  const config: GenerationConfig = { maxNewTokens: 12, eosTokenId: null }

  it('of the prompt’s beginning stands for it', async () => {
    for (const more of [config, { ...config, numBeams: 3 }, { ...config, doSample: true, numReturnSequences: 2 }]) {
      const draw = () => ({ generator: new Generator({ seed: 3 }) })
      const whole = await model.generate({ inputIds }, more, draw())
      using cache = new KvCache()
      await model.forward({ inputIds: inputIds.narrow(1, 0, 3), cache })
      const rest = { inputIds: inputIds.narrow(1, 3, 2), cache }
      expect((await model.generate(rest, more, draw())).tokens).toEqual(whole.tokens)
      expect(cache.length).toBe(more === config ? 5 + 11 : 3)
    }
  })

  it('goes from turn to turn', async () => {
    // As texts are: on the CPU, wherever the network is.
    const question = tensor([[21, 22]], { device: 'cpu' })
    using cache = new KvCache()
    const first = await model.generate({ inputIds, cache }, config)
    const last = tensor([[get(first.tokens[0]).at(-1) as number]], { device: 'cpu' })
    const second = await model.generate({ inputIds: ops.cat([last, question], 1), cache }, config)
    const text = ops.cat([first.sequences, question], 1)
    expect(second.tokens).toEqual((await model.generate({ inputIds: text }, config)).tokens)
    const penalised = { ...config, repetitionPenalty: 1.8, noRepeatNgramSize: 2 }
    await cache.crop(text.shape[1]! - 3)
    const behind = { inputIds: ops.cat([last, question], 1), contextIds: text.narrow(1, 0, text.shape[1]! - 3), cache }
    expect((await model.generate(behind, penalised)).tokens).toEqual(
      (await model.generate({ inputIds: text }, penalised)).tokens,
    )
  })

  it('of a padded batch whose rows end at different times tells what of it is real', async () => {
    const inputs = inputsOf(8, 16)
    const ends = { maxNewTokens: 10, eosTokenId: ENDS, padTokenId: PAD }
    using cache = new KvCache()
    const first = await model.generate({ ...inputs, cache }, ends)
    expect(new Set(first.tokens.map((row) => row.length)).size).toBeGreaterThan(1)
    const mask = get(first.attentionMask)
    expect(mask.shape).toEqual([8, cache.length])
    const question = tensor([20, 21, 22, 23, 24, 25, 26, 27], { device: 'cpu' }).unsqueeze(1)
    const behind = { inputIds: question, attentionMask: ops.cat([mask, ops.onesLike(question)], 1), cache }
    const { tokens } = await model.generate(behind, config)
    for (let row = 0; row < 8; row++) {
      const alone = inputsOf(8 + row, 9 + row)
      // The last token of a row that reached the limit was never read.
      const answer = get(first.tokens[row])
      const read = answer.slice(0, Math.min(answer.length, 9))
      const text = ops.cat([get(alone.inputIds), tensor([[...read, 20 + row]])], 1)
      expect(tokens[row]).toEqual((await model.generate({ inputIds: text }, config)).tokens[0])
    }
  })
})

describe('generate', () => {
  it('goes on from embeddings as from their ids', async () => {
    const config = { maxNewTokens: 8, repetitionPenalty: 1.5 }
    const whole = await model.generate({ inputIds }, config)
    const both = await model.generate({ inputIds, inputsEmbeds: model.embed(inputIds) }, config)
    expect(both.sequences.equal(whole.sequences)).toBe(true)
    const plain = await model.generate({ inputsEmbeds: model.embed(inputIds) }, { maxNewTokens: 8 })
    const known = await model.generate({ inputIds }, { maxNewTokens: 8 })
    expect(plain.tokens).toEqual(known.tokens)
    expect(plain.sequences.toArray()).toEqual(known.sequences.narrow(1, 5, 8).toArray())
  })

  it('limits each row for itself', async () => {
    const inputs = { inputIds: inputIds.repeat([3, 1]) }
    const { tokens, finishReasons } = await model.generate(
      inputs,
      { maxNewTokens: 7, eosTokenId: null },
      { maxNewTokensPerRow: [2, 9, 5] },
    )
    expect(tokens.map((row) => row.length)).toEqual([2, 7, 5])
    expect(tokens[0]).toEqual(tokens[1]?.slice(0, 2))
    expect(finishReasons).toEqual(['length', 'length', 'length'])
  })

  it('leaves no tensors but its results', async () => {
    for (const config of [{}, { doSample: true }, { numBeams: 3 }]) {
      const before = await settledTensors()
      const result = await model.generate({ inputIds }, { ...config, outputScores: true, outputLogprobs: true })
      const tensors = Object.values(result).filter((value) => value !== null && 'dtype' in value)
      expect(memoryStats().liveTensors - before).toBe(tensors.length)
      for (const one of tensors) (one as typeof inputIds).dispose()
      expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
    }
  })

  it('runs the adapters that are there', async () => {
    const other = new DecoderLM(model.config).eval()
    other.loadStateDict(model.stateDict())
    const plain = await other.generate({ inputIds }, { maxNewTokens: 8 })
    const peft = getPeftModel(other, {
      r: 2,
      targetModules: ['q_proj', 'v_proj'],
      initLoraWeights: false,
      loraAlpha: 64,
    })
    const adapted = await other.generate({ inputIds }, { maxNewTokens: 8 })
    expect(adapted.tokens).not.toEqual(plain.tokens)
    expect(peft.activeAdapters).toEqual(['default'])
  })

  it('computes in bfloat16', async () => {
    const half = new DecoderLM(model.config, { dtype: 'bfloat16' }).eval()
    half.loadStateDict(model.stateDict())
    const { tokens, scores } = await half.generate({ inputIds }, { maxNewTokens: 8, outputScores: true })
    const { logits } = await half.forward({ inputIds, logitsToKeep: 1 })
    expect(tokens[0]?.[0]).toBe(get(logits).argmax(-1).item())
    expect(get(scores).dtype).toBe('float32')
  })

  it('refuses what does not fit', async () => {
    const refused = (inputs: object, config: object, options: object, message: RegExp) =>
      expect(model.generate(inputs, config, options)).rejects.toThrow(message)
    await refused({}, {}, {}, /input_ids or inputs_embeds/)
    await refused({ inputIds, attentionMask: tensor([[1]]) }, {}, {}, /attention_mask/)
    await refused({ inputIds: tensor([0.5]) }, {}, {}, /int64/)
    await refused({ inputIds: tensor([[99]]) }, {}, {}, /range|index/)
    await refused({ inputIds }, { eosTokenId: 40 }, {}, /eos_token_id has the token 40/)
    await refused({ inputIds }, { maxLength: 5 }, {}, /max_length is 5/)
    await refused({ inputIds }, {}, { maxNewTokensPerRow: [1, 2] }, /each of 1 rows/)
    await refused({ inputIds, encoderHiddenStates: inputIds }, {}, {}, /cross-attention/)
    await refused({ inputId: inputIds }, {}, {}, /did you mean 'inputIds'/)
    await refused({ inputIds }, {}, { seed: 3 }, /expected known options, got 'seed'/)
    using cache = new KvCache()
    await model.forward({ inputIds: inputIds.repeat([2, 1]), cache })
    await refused({ inputIds, cache }, {}, {}, /2 rows/)
    await expect(model.generate({ inputIds }, { eosTokenId: 40 })).rejects.toBeInstanceOf(Error)
    expect(() => new KvCache().dispose()).not.toThrow(ConfigError)
  })
})
