import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import {
  ConfigError,
  manualSeed,
  memoryStats,
  noGrad,
  Salmonn,
  scope,
  setNumThreads,
  type Tensor,
} from '../../../../lib/index.js'
import { SalmonnCache, type SalmonnGenerateOptions } from '../../../../lib/systems/salmonn/index.js'
import { expectClose, numbers, relativeError, settledTensors, tensorsOf } from '../../../helpers.js'
import { expectGradients } from '../../../models/networks.js'
import { clip, promptsOf, type SalmonnCase, salmonnFile, tinySalmonn } from './tiny.js'

const cases = salmonnFile.cases.slice(1) as unknown as SalmonnCase[]
const ended = (ids: number[]) => (ids.includes(2) ? ids.slice(0, ids.indexOf(2) + 1) : ids)
let model: Salmonn
beforeAll(async () => {
  setNumThreads(1)
  model = await tinySalmonn()
})
afterAll(() => model.dispose())

describe('against PyTorch, transformers and PEFT', () => {
  it.each(cases)('$name: loss and gradients', async (one) => {
    model.compat = 'published'
    model.zeroGrad()
    const prompts = promptsOf(one)
    const { loss, correct, total } = await model.forward({ prompts, targets: one.targets })
    expectClose(loss as Tensor, tensorsOf(salmonnFile, one.name, 'out').loss as Tensor, 1e-5, 'loss')
    expect({ correct, total }).toEqual({ correct: one.correct, total: one.total })
    await (loss as Tensor).backward()
    if (Object.keys(tensorsOf(salmonnFile, one.name, 'grad')).length > 0) {
      const again = async () => ((await model.forward({ prompts, targets: one.targets })).loss as Tensor).backward()
      // The front end of Whisper is float32, here and there.
      await expectGradients(model, salmonnFile, one.name, { again, exact: 1e-5 })
    }
    for (const [name, parameter] of model.namedParameters()) {
      if (!parameter.requiresGrad) expect(parameter.grad, name).toBeNull()
    }
    model.compat = undefined
  })

  it.each(cases)('$name: greedy ids', async (one) => {
    const options = { compat: 'published', maxNewTokens: 12 } as const
    const { tokens } = await model.generate(promptsOf(one), options)
    expect(tokens).toEqual(one.greedy.map(ended))
  })

  it.each(cases)('$name: ids of four beams', async (one) => {
    const options = { compat: 'published', maxNewTokens: 12, numBeams: 4 } as const
    const { tokens } = await model.generate(promptsOf(one), options)
    expect(tokens).toEqual(one.beams.map(ended))
    expect(one.beams).not.toEqual(one.greedy)
  })
})

describe('sizes', () => {
  it.each([
    ['7b', 30_186_240],
    ['13b', 33_332_992],
  ] as const)('%s trains %d numbers', (size, count) => {
    const model = Salmonn.fromConfig(size, { device: 'meta' })
    const trained = model.namedParameters().filter(([, { requiresGrad }]) => requiresGrad)
    expect(trained.reduce((sum, [, parameter]) => sum + parameter.numel(), 0)).toBe(count)
    const kinds = trained.map(([name]) => name.split('.')[0])
    expect(kinds.filter((name) => name === 'speech_Qformer')).toHaveLength(54)
    expect(kinds.filter((name) => name === 'llama_model')).toHaveLength(size === '7b' ? 128 : 160)
    expect(new Set(kinds)).toEqual(
      new Set(['speech_query_tokens', 'ln_speech', 'ln_audio', 'speech_Qformer', 'speech_llama_proj', 'llama_model']),
    )
    model.dispose()
  })
})

const ask = (text: string, ...clips: Float32Array[]) => ({ text, clips })

describe('audio', () => {
  it('costs its own tokens, whatever else is in the batch', async () => {
    const clips = [clip(1, 0.4), clip(2, 1.9), clip(3, 1.1)]
    const together = await model.encodeAudio(clips)
    expect(together.map(({ shape }) => shape[0])).toEqual([2, 6, 4])
    for (const [i, one] of clips.entries()) {
      const [alone] = await model.encodeAudio([one])
      expect(relativeError(numbers(together[i] as Tensor), numbers(alone as Tensor))).toBeLessThan(1e-5)
    }
  })

  it('encoders stay in evaluation mode while the model trains, and dropout of the Q-Former does not', async () => {
    model.train()
    expect([model.speech_encoder?.training, model.beats?.training, model.speech_Qformer.training]).toEqual([
      false,
      false,
      true,
    ])
    model.beats?.train()
    await model.encodeAudio([clip(1, 0.4)])
    expect(model.beats?.training).toBe(false)
    model.eval()
  })

  it('encoders learn where they are let', async () => {
    const other = await tinySalmonn()
    other.unfreeze(/^(speech_encoder\.layer|beats\.encoder)/)
    const batch = { prompts: [ask('<SpeechHere>', clip(1, 0.9))], targets: ['a'] }
    await ((await other.forward(batch)).loss as Tensor).backward()
    const without = other.namedParameters().filter(([, { requiresGrad, grad }]) => requiresGrad && !grad)
    expect(without.map(([name]) => name)).toEqual([])
    other.dispose()
  })
})

describe('generation', () => {
  const prompts = [
    ask('USER: <Speech><SpeechHere></Speech> What?\nASSISTANT:', clip(1, 0.4)),
    ask('<SpeechHere>', clip(2, 1.9)),
    ask('a longer text, then <SpeechHere> and <SpeechHere> together?', clip(3, 1.1), clip(4, 0.7)),
    ask('words alone'),
  ]

  it('is the same for one prompt and in a batch', async () => {
    for (const numBeams of [1, 3]) {
      const options = { maxNewTokens: 16, numBeams }
      const { tokens, texts } = await model.generate(prompts, options)
      for (const [i, prompt] of prompts.entries()) {
        const alone = await model.generate([prompt], options)
        expect(alone.tokens[0]).toEqual(tokens[i])
        expect(alone.texts[0]).toBe(texts[i])
      }
    }
  })

  it('a row that ends early leaves the others alone, and no token comes after its end', async () => {
    const free = await model.generate(prompts, { maxNewTokens: 16 })
    const endings = prompts.map((_, row) => free.tokens[row]?.[1] as number)
    for (const eosTokenId of new Set(endings)) {
      const { tokens } = await model.generate(prompts, { maxNewTokens: 16, eosTokenId })
      const wanted = free.tokens.map((ids) => {
        const end = ids.indexOf(eosTokenId)
        return end < 0 ? ids : ids.slice(0, end + 1)
      })
      expect(tokens).toEqual(wanted)
    }
    // At least one of them ends one row at its second token and lets another go on.
    const lengths = (eosTokenId: number) => free.tokens.map((ids) => ids.indexOf(eosTokenId))
    expect(endings.some((id) => lengths(id).includes(1) && lengths(id).some((at) => at !== 1))).toBe(true)
  })

  it('options of a call are forgotten with it', async () => {
    const usual = await model.generate(prompts, { maxNewTokens: 8 })
    const others = [
      { compat: 'published' },
      { overlap: 0 },
      { loraScale: 0 },
      { doSample: true, temperature: 3, topK: 0, seed: 1 },
      { numBeams: 2 },
      { skipSpecialTokens: false, eosTokenId: 5 },
    ] as const
    for (const { seed, ...other } of others as readonly (SalmonnGenerateOptions & { seed?: number })[]) {
      if (seed !== undefined) manualSeed(seed)
      await model.generate(prompts, { maxNewTokens: 8, ...other })
      expect(await model.generate(prompts, { maxNewTokens: 8 })).toEqual(usual)
    }
    const early = model.generationConfig
    await model.generate(prompts, { maxNewTokens: 2, noRepeatNgramSize: 2 })
    expect(model.generationConfig).toBe(early)
  })

  it('repeats nothing where it must not', async () => {
    const bigrams = (ids: number[]) => ids.slice(1).map((id, i) => `${ids[i]} ${id}`)
    const repeated = (ids: number[]) => bigrams(ids).length - new Set(bigrams(ids)).size
    const loose = await model.generate(prompts, { maxNewTokens: 60 })
    expect(Math.max(...loose.tokens.map(repeated))).toBeGreaterThan(0)
    for (const numBeams of [1, 3]) {
      const strict = await model.generate(prompts, { maxNewTokens: 60, noRepeatNgramSize: 2, numBeams })
      expect(strict.tokens.map(repeated)).toEqual(prompts.map(() => 0))
    }
    const punished = await model.generate(prompts, { maxNewTokens: 60, repetitionPenalty: 1.8 })
    const sum = (tokens: number[][]) => tokens.reduce((total, ids) => total + repeated(ids), 0)
    expect(sum(punished.tokens)).toBeLessThan(sum(loose.tokens))
  })

  it('training: the loss of a batch is that of its rows', async () => {
    const targets = ['one', 'twenty-two', 'c', 'dd']
    const batch = await model.forward({ prompts, targets })
    let [sum, count] = [0, 0]
    for (const [i, prompt] of prompts.entries()) {
      const { loss, total } = await model.forward({ prompts: [prompt], targets: [targets[i] as string] })
      sum += Number((loss as Tensor).item()) * (total as number)
      count += total as number
    }
    expect(batch.total).toBe(count)
    expect(Number((batch.loss as Tensor).item())).toBeCloseTo(sum / count, 5)
  })

  it('streams what generate gives', async () => {
    const prompt = prompts[0] as (typeof prompts)[0]
    const { texts, tokens } = await model.generate([prompt], { maxNewTokens: 16 })
    let text = ''
    const ids: number[] = []
    for await (const step of model.stream(prompt, { maxNewTokens: 16 })) {
      text += step.text
      ids.push(...step.tokens)
    }
    expect(ids).toEqual(tokens[0])
    expect(text).toBe(texts[0])
    const whole: string[] = []
    for await (const step of model.stream(prompt, { maxNewTokens: 8, numBeams: 2 })) whole.push(step.text)
    expect(whole).toEqual((await model.generate([prompt], { maxNewTokens: 8, numBeams: 2 })).texts)
  })

  it('loraScale changes one call alone', async () => {
    const [prompt] = prompts as [(typeof prompts)[0]]
    const targets = ['abc']
    const loss = async (loraScale?: number) =>
      Number(((await model.forward({ prompts: [prompt], targets }, { loraScale })).loss as Tensor).item())
    const [plain, half, published, none] = [await loss(), await loss(2), await loss(4), await loss(0)]
    expect(published).toBeCloseTo(plain, 6)
    expect(Math.abs(half - plain)).toBeGreaterThan(1e-4)
    const without = await model.peft?.disableAdapter(() => loss())
    expect(none).toBeCloseTo(without as number, 5)
    // At the same time.
    expect(await Promise.all([loss(2), loss(), loss(0)])).toEqual([half, plain, none].map((x) => expect.closeTo(x, 6)))
  })

  it('a padding token that was added is never written', async () => {
    const { lm_head } = model.llm as unknown as { lm_head: { weight: Tensor } }
    const row = lm_head.weight.select(0, 40).clone()
    const size = model.tokenizer.padToken
    model.tokenizer.padToken = model.tokenizer.idToToken(40) as string
    noGrad(() => lm_head.weight.select(0, 40).mul_(100))
    const { tokens } = await model.generate(prompts, { maxNewTokens: 16 })
    expect(tokens.flat()).not.toContain(40)
    noGrad(() => lm_head.weight.select(0, 40).copy_(row))
    model.tokenizer.padToken = size
  })

  it('needs a marker for each clip', async () => {
    await expect(model.generate([ask('no marker', clip(1, 0.4))])).rejects.toThrow(
      /expected 1 times <SpeechHere> for 1 clips, got 0/,
    )
    await expect(model.forward({ prompts: [ask('<SpeechHere>')], targets: ['a'] })).rejects.toThrow(ConfigError)
    await expect(model.generate([ask('a')], { maxNewToken: 3 } as never)).rejects.toThrow(/maxNewTokens/)
  })
})

describe('turns of a conversation', () => {
  const first = ask('USER: <SpeechHere> What?\nASSISTANT:', clip(1, 1.2))

  it('read only what is new, and answer the same', async () => {
    using cache = new SalmonnCache()
    const one = await model.generate([first], { maxNewTokens: 8, cache })
    expect(one).toEqual(await model.generate([first], { maxNewTokens: 8 }))
    const read = cache.length
    expect(read).toBeGreaterThan(20)
    const second = ask(`${first.text}and?\nUSER: <SpeechHere>?\nASSISTANT:`, ...first.clips, clip(2, 0.6))
    let text = ''
    for await (const step of model.stream(second, { maxNewTokens: 8, cache })) text += step.text
    expect(text).toBe((await model.generate([second], { maxNewTokens: 8 })).texts[0])
    expect(cache.clips).toBe(2)
    const beams = { maxNewTokens: 6, numBeams: 3 }
    expect(await model.generate([second], { ...beams, cache })).toEqual(await model.generate([second], beams))
  })

  it('an answer that is left or aborted leaves the cache as it should be', async () => {
    using cache = new SalmonnCache()
    for await (const step of model.stream(first, { maxNewTokens: 30, cache })) {
      void step
      if (cache.kv.length > 25) break
    }
    const controller = new AbortController()
    const aborted = async () => {
      for await (const step of model.stream(first, { maxNewTokens: 30, cache, signal: controller.signal })) {
        void step
        controller.abort()
      }
    }
    await expect(aborted()).rejects.toThrow(/abort/i)
    expect(await model.generate([first], { maxNewTokens: 8, cache })).toEqual(
      await model.generate([first], { maxNewTokens: 8 }),
    )
  })
})

it('frees the encoders, and goes on with what was heard', async () => {
  const other = await tinySalmonn()
  const sound = clip(1, 1.2)
  const [heard] = await other.encodeAudio([sound])
  const before = await other.generate([ask('<SpeechHere>?', sound)], { maxNewTokens: 6 })
  other.releaseEncoders()
  const after = await other.generate([{ text: '<SpeechHere>?', clips: [heard as Tensor] }], { maxNewTokens: 6 })
  expect(after).toEqual(before)
  await expect(other.generate([ask('<SpeechHere>?', sound)])).rejects.toThrow(/were freed/)
  other.dispose()
})

it('leaves no tensors', async () => {
  manualSeed(0)
  const work = async () =>
    scope(async () => {
      const prompts = [ask('<SpeechHere>?', clip(1, 0.5)), ask('a <SpeechHere>', clip(2, 1))]
      const { loss } = await model.forward({ prompts, targets: ['a', 'b'] })
      await (loss as Tensor).backward()
      model.zeroGrad()
      await model.generate(prompts, { maxNewTokens: 4 })
      for await (const step of model.stream(prompts[0] as (typeof prompts)[0], { maxNewTokens: 4 })) void step
      const cache = new SalmonnCache()
      for await (const step of model.stream(prompts[0] as (typeof prompts)[0], { maxNewTokens: 4, cache })) void step
      cache.dispose()
    })
  await work()
  const before = await settledTensors()
  for (let i = 0; i < 3; i += 1) await work()
  expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
})
