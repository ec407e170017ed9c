import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import {
  AudioLM,
  ContinuousBatching,
  getPeftModel,
  manualSeed,
  memoryStats,
  noGrad,
  randn,
  scope,
  type Tensor,
  tensor,
} from '../../lib/index.js'
import { fixturePath, settledTensors } from '../helpers.js'
import { get } from './decoder.js'

const NEW = { maxNewTokens: 6, outputLogprobs: true, eosTokenId: null }
const MEBI = 2 ** 20
/** Samples of a clip of the same length as any other. */
const clip = (seed: number, seconds = 0.4) =>
  Float32Array.from({ length: seconds * 16_000 }, (_, i) => 0.3 * Math.sin((i * (seed + 3)) / 40))
/** Ids of some text. */
const text = (seed: number, count = 12) => Array.from({ length: count }, (_, i) => 3 + ((i * 7 + seed * 5) % 20))
/** A prompt of token ids and clips. */
type Prompt = readonly (readonly number[] | Float32Array)[]

async function inputsOf(model: AudioLM, prompt: Prompt) {
  const clips = prompt.filter((part) => part instanceof Float32Array)
  const { audioTokens, ...features } = await model.features(clips)
  const id = model.config[model.config.audioTokenId === undefined ? 'audioTokenIndex' : 'audioTokenId'] as number
  let next = 0
  const ids = prompt.flatMap((part) =>
    part instanceof Float32Array ? Array<number>(audioTokens[next++] as number).fill(id) : [...part],
  )
  return { ids, id, inputs: { ...features, inputIds: tensor([ids], { dtype: 'int64' }) } }
}

describe.each(['qwen2_audio', 'qwen3_asr', 'granite_speech', 'glmasr', 'audioflamingo3'])(
  'prefix cache of %s by audio content',
  (family) => {
    let model: AudioLM
    let batching: ContinuousBatching
    beforeAll(async () => {
      model = await AudioLM.fromPretrained(fixturePath(`models/audio-lm-folder-${family}`))
    })
    afterAll(() => model.dispose())
    afterEach(() => {
      batching?.dispose()
      vi.restoreAllMocks()
    })
    const create = (options = {}) => {
      batching = new ContinuousBatching(model.language_model, { prefixCacheBytes: 64 * MEBI, ...options })
      return batching
    }
    /** Tokens and their log probabilities, with the numbers of positions of the prompt, and of those from the cache. */
    const answer = (prompt: Prompt, shared?: ContinuousBatching) =>
      scope(async () => {
        const { ids, id, inputs } = await inputsOf(model, prompt)
        const options = shared && { batching: shared }
        const { tokens, logprobs, cachedTokens } = await model.generate(inputs, NEW, options)
        return {
          tokens: tokens[0] as number[],
          logprobs: ((logprobs as Tensor).toArray() as number[][])[0] as number[],
          positions: ids.length,
          audioAt: ids.indexOf(id),
          cached: cachedTokens ?? 0,
        }
      })
    const close = (a: number[], b: number[]) => {
      expect(a).toHaveLength(b.length)
      for (const [i, one] of a.entries()) expect(Math.abs(one - (b[i] as number))).toBeLessThan(1e-4)
    }

    it('computes only what follows a known clip, with the answer of a call without cache', async () => {
      create()
      const encoded = vi.spyOn(model.audio_tower, 'forward')
      const first = [text(1), clip(1), text(2)]
      const turns = [...first, text(3), clip(2), text(4)]
      for (const [prompt, windows] of [
        [first, 1],
        [first, 0],
        [turns, 1],
        [turns, 0],
      ] as const) {
        const alone = await answer(prompt)
        encoded.mockClear()
        const shared = await answer(prompt, batching)
        expect(encoded).toHaveBeenCalledTimes(windows)
        expect(shared.tokens).toEqual(alone.tokens)
        close(shared.logprobs, alone.logprobs)
        if (windows === 0) expect(shared.cached).toBe(shared.positions - 1)
        else expect(shared.cached).toBe(prompt === turns ? (await answer(first)).positions : 0)
      }
      const { promptTokens, cachedTokens } = batching.stats().prefixCache
      expect(cachedTokens).toBeLessThan(promptTokens)
      expect(batching.stats().mediaCache).toMatchObject({ windows: 2, hits: 4, misses: 2 })
    })

    it('shares nothing of a clip with another of the same length', async () => {
      create()
      const base = await answer([text(1), clip(1), text(2)], batching)
      const other = [text(1), clip(5), text(2)]
      const shared = await answer(other, batching)
      const alone = await answer(other)
      expect(shared.positions).toBe(base.positions)
      expect(shared.cached).toBe(shared.audioAt)
      expect(shared.tokens).toEqual(alone.tokens)
      close(shared.logprobs, alone.logprobs)
      expect(alone.logprobs).not.toEqual(base.logprobs)
    })

    it('encodes again, and uses no key or value, after a change of the encoder', async () => {
      create()
      const prompt = [clip(1), text(2)]
      await answer(prompt, batching)
      const weight = model.audio_tower.parameters().find(({ requiresGrad }) => requiresGrad) as ReturnType<typeof randn>
      noGrad(() => weight.add_(0.5))
      const changed = await answer(prompt, batching)
      const alone = await answer(prompt)
      noGrad(() => weight.sub_(0.5))
      expect(batching.stats().mediaCache.misses).toBe(2)
      expect(changed.cached).toBe(0)
      expect(changed.tokens).toEqual(alone.tokens)
      close(changed.logprobs, alone.logprobs)
    })

    it('does not take an adapter, other data of a weight, or another PeftModel for the same weights', async () => {
      create()
      const prompt = [clip(1), text(2)]
      const differs = async (change: () => Promise<unknown> | unknown) => {
        await change()
        const changed = await answer(prompt, batching)
        const alone = await answer(prompt)
        expect(changed.tokens).toEqual(alone.tokens)
        close(changed.logprobs, alone.logprobs)
      }
      const adapt = (seed: number) => {
        manualSeed(seed)
        const settings = { r: 2, initLoraWeights: false as const }
        return get(model.trainParts({ connector: 'lora' }, settings))
      }
      const first = adapt(1)
      model.eval()
      await answer(prompt, batching)
      first.unload()
      let second = first
      await differs(() => {
        second = adapt(2)
        model.eval()
      })
      second.unload()
      const weight = get(model.multi_modal_projector.parameters()[0])
      const before = weight.detach().clone()
      await differs(() => weight.setData(before.mul(3)))
      await differs(() => weight.setData(before))
    })

    it('keeps nothing in a batching that was disposed meanwhile', async () => {
      await answer([clip(0), text(2)])
      const before = await settledTensors()
      create()
      const running = scope(async () => {
        const { inputs } = await inputsOf(model, [clip(7), text(2)])
        return model.generate(inputs, NEW, { batching })
      })
      batching.dispose()
      await expect(running).rejects.toThrow(/disposed|batching/)
      expect(await settledTensors()).toBe(before)
    })

    it('keeps so many bytes of embeddings, frees the oldest first, and all of them in the end', async () => {
      await answer([clip(0), text(2)])
      const before = await settledTensors()
      create()
      await answer([clip(1), text(2)], batching)
      const { bytes } = batching.stats().mediaCache
      batching.dispose()
      create({ mediaCacheBytes: 2 * bytes })
      for (const seed of [1, 2, 1, 3]) await answer([clip(seed), text(2)], batching)
      expect(batching.stats().mediaCache).toMatchObject({ windows: 2, bytes: 2 * bytes, hits: 1, misses: 3 })
      // Clip 2 was not used for longest.
      await answer([clip(1), text(2)], batching)
      expect(batching.stats().mediaCache).toMatchObject({ hits: 2, misses: 3 })
      expect((await answer([clip(2), text(2)], batching)).cached).toBeGreaterThan(8)
      expect(batching.stats().mediaCache).toMatchObject({ windows: 2, misses: 4 })
      batching.dispose()
      expect(await settledTensors()).toBe(before)
      expect(memoryStats().liveTensors).toBe(before)
    })
  },
)

describe('prefixKeys', () => {
  it('share embeddings with equal numbers, and are checked', async () => {
    const model = await AudioLM.fromPretrained(fixturePath('models/audio-lm-folder-qwen2_audio'))
    const llm = model.language_model
    using batching = new ContinuousBatching(llm, { prefixCacheBytes: MEBI })
    const inputsEmbeds = randn([1, 12, llm.config.hiddenSize as number])
    const keys = tensor([Array.from({ length: 12 }, (_, i) => -1 - i)], { dtype: 'int64' })
    const ask = (more: object) => llm.generate({ inputsEmbeds, ...more }, NEW, { batching })
    const alone = await llm.generate({ inputsEmbeds }, NEW)
    await expect(llm.generate({ inputsEmbeds, prefixKeys: keys }, NEW)).rejects.toThrow(
      /prefixKeys: expected them with a batching/,
    )
    expect((await ask({ prefixKeys: keys })).cachedTokens).toBe(0)
    const again = await ask({ prefixKeys: keys })
    expect(again.cachedTokens).toBe(11)
    expect(again.tokens).toEqual(alone.tokens)
    expect((await ask({})).cachedTokens).toBe(0)
    await expect(ask({ prefixKeys: keys.narrow(1, 0, 4) })).rejects.toThrow(/prefix_keys must be \[1, 12\]/)
    const ids = tensor([[1, 2, 3]], { dtype: 'int64' })
    await expect(llm.generate({ inputIds: ids, prefixKeys: ids }, NEW, { batching })).rejects.toThrow(/inputs_embeds/)
    expect(() => new ContinuousBatching(llm, { mediaCacheBytes: 5 })).toThrow(/prefixCacheBytes/)
    model.dispose()
  })
  it('does not use the embeddings of other adapters', async () => {
    const model = await AudioLM.fromPretrained(fixturePath('models/audio-lm-folder-qwen2_audio'))
    using batching = new ContinuousBatching(model.language_model, { prefixCacheBytes: MEBI })
    const { inputs } = await inputsOf(model, [clip(1), text(2)])
    await model.generate(inputs, NEW, { batching })
    const peft = getPeftModel(model, { r: 2, targetModules: ['q_proj'], initLoraWeights: false })
    expect((await model.generate(inputs, NEW, { batching })).cachedTokens).toBe(0)
    expect(batching.stats().mediaCache.misses).toBe(2)
    await peft.disableAdapter(() => model.generate(inputs, NEW, { batching }))
    expect(batching.stats().mediaCache.misses).toBe(3)
    model.dispose()
  })
})

describe('Ultravox, whose last token of a clip reads the padding of a call', () => {
  it('answers as without a cache, whatever the batching has seen', async () => {
    const folder = (name: string) => fixturePath(`models/audio-lm-folder-ultravox/${name}`)
    const parts = { audioModelId: folder('whisper'), textModelId: folder('llama') }
    const model = await AudioLM.fromPretrained(folder('v05'), { config: parts })
    using batching = new ContinuousBatching(model.language_model, { prefixCacheBytes: MEBI })
    const ask = (prompt: Prompt, options = {}) =>
      scope(async () => {
        const { inputs } = await inputsOf(model, prompt)
        const { logprobs, cachedTokens = 0 } = await model.generate(inputs, NEW, options)
        return { logprobs: ((logprobs as Tensor).toArray() as number[][])[0] as number[], cachedTokens }
      })
    const [short, long] = [clip(1, 0.21), clip(2, 0.48)]
    for (const prompt of [
      [short, text(1)],
      [short, text(1), long, text(2)],
      [short, text(1)],
    ]) {
      const [alone, shared] = [await ask(prompt), await ask(prompt, { batching })]
      for (const [i, one] of alone.logprobs.entries()) expect(Math.abs(one - shared.logprobs[i]!)).toBeLessThan(1e-4)
    }
    expect((await ask([short, text(1)], { batching })).cachedTokens).toBeGreaterThan(8)
    model.dispose()
  })
})
