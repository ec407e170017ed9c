import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { ConfigError, memoryStats, type Salmonn, scope, setNumThreads, type Tensor } from '../../../../lib/index.js'
import { SalmonnCache } from '../../../../lib/systems/salmonn/index.js'
import { clip, tinySalmonn } from './tiny.js'

let model: Salmonn
beforeAll(async () => {
  setNumThreads(1)
  model = await tinySalmonn()
})
afterAll(() => model.dispose())

describe('audio longer than the encoder hears at once', () => {
  it('takes memory for eight windows, however long it is', async () => {
    const encoder = model.speech_encoder as NonNullable<Salmonn['speech_encoder']>
    const [rows, bytes]: [number[], number[]] = [[], []]
    const spy = vi.spyOn(encoder, 'forward').mockImplementation(async (inputs) => {
      rows.push((inputs.inputFeatures as Tensor).size(0))
      bytes.push(memoryStats().liveBytes)
      return Object.getPrototypeOf(encoder).forward.call(encoder, inputs)
    })
    await scope(async () => {
      const [tokens] = await model.encodeAudio([clip(2, 600)])
      expect(tokens?.size(0)).toBe(Math.ceil(30_000 / 17))
    })
    spy.mockRestore()
    expect(Math.max(...rows)).toBe(8)
    expect(rows.length).toBeGreaterThan(40)
    // What grows are the tokens that were made: 16 numbers each, in parts of whole windows.
    expect(Math.max(...bytes) - (bytes[0] as number)).toBeLessThan(2 * 1765 * 16 * 4)
  })

  it('that the language model has no room for is refused, with its tokens counted', async () => {
    const prompts = [{ text: 'a<SpeechHere>', clips: [clip(1, 175)] }]
    const message = /expected at most 512 tokens, .* got 518, 515 of them audio/
    await expect(model.generate(prompts)).rejects.toThrow(ConfigError)
    await expect(model.generate([{ text: 'b', clips: [] }, ...prompts])).rejects.toThrow(/prompts\[1/)
    await expect(model.generate(prompts)).rejects.toThrow(message)
    await expect(model.forward({ prompts, targets: ['x'] })).rejects.toThrow(message)
    using cache = new SalmonnCache()
    await expect(model.stream(prompts[0] as (typeof prompts)[0], { cache }).next()).rejects.toThrow(
      /expected at most \d+ tokens, the positions of the language model, got 518/,
    )
    const short = { text: 'a<SpeechHere>', clips: [clip(1, 1)] }
    expect(await model.generate([short], { maxNewTokens: 4, cache })).toEqual(
      await model.generate([short], { maxNewTokens: 4 }),
    )
  })
})
