import { describe, expect, it } from 'vitest'
import { ConfigError, DecoderLM, listGrammar, randint, Tokenizer } from '../../lib/index.js'
import { llamaModel, published } from '../text/helpers.js'

const qwen2 = await Tokenizer.fromFile(published.qwen2)
const llama = await llamaModel()
const emotions = ['joy', 'surprise', 'anger']
const pairs = (target: number, count: number) =>
  emotions.flatMap((emotion) => Array.from({ length: count }, (_, i) => `${target}_${emotion},${i + 1}`))

describe.each([
  ['Qwen2', qwen2, '<|im_end|>'],
  ['LLaMA', llama, '</s>'],
] as const)('%s', (_, tokenizer, end) => {
  const endId = tokenizer.tokenToId(end) as number

  it('every walk along its rule is an answer in the form of its tokenizer, and every answer can be reached', () => {
    const items = pairs(12, 11)
    let state = 1
    const random = (below: number) => {
      state = (state * 48271) % 2147483647
      return state % below
    }
    const seen = new Set<string>()
    for (let walk = 0; walk < 40; walk++) {
      const rule = listGrammar(tokenizer, { items, end, most: 3, empty: walk % 2 === 0 })
      const prompt = [5, 6, 7]
      const ids = [...prompt]
      for (let step = 0; step < 100 && ids.at(-1) !== endId; step++) {
        const allowed = [...rule(0, [...ids])]
        expect(allowed.length).toBeGreaterThan(0)
        // A greedy taste for going on, so that lists become long.
        const more = allowed.filter((id) => id !== endId)
        const from = more.length > 0 && random(4) > 0 ? more : allowed
        ids.push(from[random(from.length)] as number)
      }
      expect(ids.at(-1)).toBe(endId)
      const text = tokenizer.decode(ids.slice(prompt.length, -1))
      const parts = text === '' ? [] : text.split(';')
      expect(parts.every((part) => items.includes(part)) && new Set(parts).size === parts.length, text).toBe(true)
      expect(parts.length).toBeLessThanOrEqual(3)
      if (text === '') expect(walk % 2).toBe(0)
      parts.forEach((part) => void seen.add(part))
      expect([...tokenizer.encode(text, { addSpecialTokens: false }).inputIds]).toEqual(ids.slice(prompt.length, -1))
    }
    expect(seen.size).toBeGreaterThan(15)
    for (const answer of ['12_joy,1', '12_anger,11;12_joy,1', '12_joy,10;12_joy,1;12_surprise,3']) {
      const rule = listGrammar(tokenizer, { items, end })
      const wanted = [...tokenizer.encode(answer, { addSpecialTokens: false }).inputIds, endId]
      const ids: number[] = []
      for (const id of wanted) {
        expect([...rule(0, [...ids])], answer).toContain(id)
        ids.push(id)
      }
    }
  })
})

it('holds a network to it, each row of a batch by itself', async () => {
  const vocabSize = 32000
  const model = DecoderLM.fromConfig(
    { vocabSize, hiddenSize: 8, intermediateSize: 8, numHiddenLayers: 1, numAttentionHeads: 1 },
    { seed: 3 },
  ).eval()
  const rule = listGrammar(llama, { items: pairs(3, 4), end: '</s>', most: 2 })
  const { tokens } = await model.generate(
    { inputIds: randint(3, 1000, [3, 6]) },
    { prefixAllowedTokensFn: rule, maxNewTokens: 40, eosTokenId: 2, doSample: true },
  )
  for (const ids of tokens) {
    expect(ids.at(-1)).toBe(2)
    const parts = llama.decode(ids.slice(0, -1)).split(';')
    expect(
      parts.every((part) => pairs(3, 4).includes(part)),
      parts.join(';'),
    ).toBe(true)
  }
})

it('refuses lists that are none', () => {
  const refused = (options: object, message: RegExp) => {
    expect(() => listGrammar(qwen2, options as never)).toThrow(ConfigError)
    expect(() => listGrammar(qwen2, options as never)).toThrow(message)
  }
  expect(() => listGrammar({} as never, { items: ['a'] })).toThrow(/expected tokenizer to be a Tokenizer/)
  refused({ items: [] }, /items/)
  refused({ items: ['a', ''] }, /items/)
  refused({ items: ['a', 'a'] }, /got a duplicate/)
  refused({ items: ['a;b'] }, /separator/)
  refused({ items: ['a'], separator: '' }, /separator/)
  refused({ items: ['a'], end: '<|nothing|>' }, /end: expected a token of the tokenizer/)
  refused({ items: ['a'], most: 0 }, /most/)
  refused({ items: ['a'], item: 3 }, /item/)
})
