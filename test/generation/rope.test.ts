import { describe, expect, it } from 'vitest'
import {
  ContinuousBatching,
  DecoderLM,
  type GenerateInputs,
  type GenerateOptions,
  type GenerationConfig,
  KvCache,
  manualSeed,
  ops,
  setNumThreads,
  type Tensor,
  tensor,
} from '../../lib/index.js'
import { expectClose, fixture, tensorsOf } from '../helpers.js'
import { atReal, get, open } from '../models/decoder.js'
import { camelKeys, expectGradients, loadParameters } from '../models/networks.js'

// RoPE angles that depend on the length of the text, across the length at which they change: texts of transformers' generate.

setNumThreads(1)
const file = await fixture<{ name: string; config: Record<string, unknown> }>('models/generation-rope')
const NAMES = file.cases.map(({ name }) => name)
const NEW = 18
/** The length at which the angles change. */
const BORDER = 12

function network(name: string): DecoderLM {
  const { config } = get(file.cases.find((one) => one.name === name))
  const model = new DecoderLM(camelKeys(config)).eval()
  loadParameters(model, file, name)
  return model
}

const rowsOf = (rows: Tensor): number[][] => (rows.to('int64').toArray() as bigint[][]).map((row) => row.map(Number))
const promptsOf = (name: string): number[][] =>
  rowsOf(get(tensorsOf(file, name, 'in').prompts)).map((row) => row.filter((id) => id >= 0))
const expectedOf = (name: string, key: 'alone' | 'beams'): number[][] => rowsOf(get(tensorsOf(file, name, 'out')[key]))
const idsOf = (ids: number[]): Tensor => tensor([ids], { dtype: 'int64' })
const SETTINGS: GenerationConfig = { maxNewTokens: NEW, eosTokenId: null, padTokenId: 0 }

async function texts(name: string, config: GenerationConfig, options: GenerateOptions = {}): Promise<number[][]> {
  const model = network(name)
  const results: number[][] = []
  for (const ids of promptsOf(name)) {
    const { tokens } = await model.generate({ inputIds: idsOf(ids) }, { ...SETTINGS, ...config }, options)
    results.push(get(tokens[0]))
  }
  return results
}

/** The most likely token again and again, each from a pass over the whole text. */
async function uncached(model: DecoderLM, prompt: number[], count = NEW): Promise<number[]> {
  const text = [...prompt]
  for (let i = 0; i < count; i++) {
    const { logits } = await model.forward({ inputIds: idsOf(text), logitsToKeep: 1 })
    text.push(Number(get(logits).flatten().argmax().item()))
  }
  return text.slice(prompt.length)
}

describe.each(NAMES)('%s', (name) => {
  it('generates the texts of transformers, also with beams', async () => {
    expect(await texts(name, {})).toEqual(expectedOf(name, 'alone'))
    expect(await texts(name, { numBeams: 3 })).toEqual(expectedOf(name, 'beams'))
  })

  it('guesses change no text', async () => {
    const plain = expectedOf(name, 'alone')
    expect(await texts(name, { promptLookupNumTokens: 5 })).toEqual(plain)
    expect(await texts(name, { promptLookupNumTokens: 7, maxMatchingNgramSize: 1 })).toEqual(plain)
    // One that guesses as the network does, and one whose guesses are wrong.
    const assistants = [network(name), network(name)]
    manualSeed(3)
    assistants[1]?.initialize(Object.keys(get(assistants[1]).stateDict()))
    for (const assistantModel of assistants) {
      expect(await texts(name, { numAssistantTokens: 4, assistantConfidenceThreshold: 0 }, { assistantModel })).toEqual(
        plain,
      )
    }
  })

  it.each([0, 1e6])(
    'texts that share passes, and beginnings of %d bytes, stay as they are',
    async (prefixCacheBytes) => {
      const model = network(name)
      using batching = new ContinuousBatching(model, { maxNumBatchedTokens: 5, prefixCacheBytes })
      const prompts = promptsOf(name)
      const ask = (ids: number[]) => model.generate({ inputIds: idsOf(ids) }, SETTINGS, { batching })
      // The second time every prompt is there already, written on beyond the border.
      for (const _ of [1, 2]) {
        const answers = await Promise.all(prompts.map(ask))
        expect(answers.map(({ tokens }) => tokens[0])).toEqual(expectedOf(name, 'alone'))
      }
      // A prompt that ends beyond the border, and begins as one that does not.
      const [short = []] = prompts.filter(({ length }) => length >= 9 && length < BORDER)
      const long = [...short, 3, 1, 4, 1, 5, 9]
      const [alone] = (await model.generate({ inputIds: idsOf(long) }, SETTINGS)).tokens
      expect((await ask(long)).tokens[0]).toEqual(alone)
      expect((await ask([...long, 2])).tokens[0]).toEqual(
        (await model.generate({ inputIds: idsOf([...long, 2]) }, SETTINGS)).tokens[0],
      )
    },
  )

  it('a cache of a conversation that grows beyond the border, and back, gives the text of the whole prompt', async () => {
    const model = network(name)
    for (const prompt of promptsOf(name).slice(0, 5)) {
      using cache = new KvCache()
      const settings = { ...SETTINGS, maxNewTokens: 6 }
      const text = [...prompt]
      for (let turn = 0; turn < 3; turn++) {
        const inputIds = idsOf(text.slice(cache.length))
        const { tokens } = await model.generate({ inputIds, cache }, settings)
        const whole = await model.generate({ inputIds: idsOf(text) }, settings)
        expect(tokens[0], `turn ${turn}`).toEqual(whole.tokens[0])
        text.push(...get(tokens[0]), 7, 2 + turn)
      }
      expect(cache.length).toBeGreaterThan(BORDER)
      await cache.crop(3)
      const rest = [...text.slice(0, 3), 8, 9]
      const { tokens } = await model.generate({ inputIds: idsOf([8, 9]), cache }, settings)
      expect(tokens[0]).toEqual((await model.generate({ inputIds: idsOf(rest) }, settings)).tokens[0])
    }
  })
})

describe.each(NAMES.filter((name) => name !== 'dynamic'))('%s, computed again at the border', (name) => {
  it('is the text without a cache', async () => {
    const model = network(name)
    const results: number[][] = []
    for (const ids of promptsOf(name)) results.push(await uncached(model, ids))
    expect(results).toEqual(expectedOf(name, 'alone'))
  })

  it('forward with a cache has the logits of one pass, in every split', async () => {
    const model = network(name)
    const text = [...get(promptsOf(name)[0]), ...get(expectedOf(name, 'alone')[0])]
    for (const sizes of [
      [4, 4, 4, 4, 4],
      [11, 1, 1, 1, 1, 1],
      [3, 12, 5],
    ]) {
      using cache = new KvCache()
      let read = 0
      for (const size of sizes) {
        const part = idsOf(text.slice(read, read + size))
        read += size
        const { logits } = await model.forward({ inputIds: part, cache, logitsToKeep: 0 })
        const whole = await model.forward({ inputIds: idsOf(text.slice(0, read)), logitsToKeep: size })
        expectClose(get(logits), get(whole.logits), 1e-5, `${sizes} at ${read}`)
      }
    }
  })

  it('rows with padding on the left cross where the longest one does', async () => {
    const model = network(name)
    const prompts = promptsOf(name).filter(({ length }) => length < BORDER)
    const longest = Math.max(...prompts.map(({ length }) => length))
    // No row without padding: columns and positions differ.
    const padded = prompts.map((ids) => [...Array<number>(longest + 2 - ids.length).fill(0), ...ids])
    const inputIds = tensor(padded, { dtype: 'int64' })
    const attentionMask = inputIds.ne(0).to({ dtype: 'int64' })
    const inputs: GenerateInputs = { inputIds, attentionMask }
    const { tokens } = await model.generate(inputs, SETTINGS)
    let text = inputIds
    let mask = attentionMask
    for (let step = 0; step < NEW; step++) {
      const { logits } = await model.forward({ inputIds: text, attentionMask: mask, logitsToKeep: 1 })
      const next = get(logits).select(1, 0).argmax(-1).unsqueeze(1)
      expect(rowsOf(next).flat(), `step ${step}`).toEqual(tokens.map((row) => row[step]))
      text = ops.cat([text, next], 1)
      mask = ops.cat([mask, next.mul(0).add(1)], 1)
    }
  })
})

describe('partialRotaryFactor, as transformers computes with it', () => {
  it.each(['phi3-partial', 'phi3-partial-short', 'phi3-partial-long'])('%s', async (name) => {
    const partial = await fixture<{ name: string; config: Record<string, unknown> }>('models/decoder-partial')
    const { model, real, inputs, expected } = open(name, partial)
    const output = await model.forward({ ...inputs, logitsToKeep: 0 })
    const logits = get(output.logits)
    expectClose(atReal(logits, real, 1), get(expected.logits), 1e-5, 'logits')
    expectClose(get(output.loss), get(expected.loss), 1e-5, 'loss')
    if (name !== 'phi3-partial') return
    await get(output.loss)
      .add(logits.mul(get(tensorsOf(partial, name, 'cotangent').logits)).sum())
      .backward()
    await expectGradients(model, partial, name)
  })

  it('is for Phi-3, and rotates an even number of dimensions', () => {
    const config = { vocabSize: 9, hiddenSize: 16, intermediateSize: 8, numHiddenLayers: 1, numAttentionHeads: 2 }
    const make = (more: object) => () => new DecoderLM({ ...config, ...more })
    expect(make({ modelType: 'llama', partialRotaryFactor: 0.5 })).toThrow(
      /partial_rotary_factor: expected 1, got 0\.5/,
    )
    for (const partialRotaryFactor of [0, -1, 1.5, 0.4, 0.1]) {
      expect(make({ modelType: 'phi3', partialRotaryFactor }), String(partialRotaryFactor)).toThrow(
        /partial_rotary_factor: expected/,
      )
    }
  })
})
