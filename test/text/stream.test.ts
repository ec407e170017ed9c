import { describe, expect, test } from 'vitest'
import { Tokenizer } from '../../lib/index.js'
import { PATIENCE } from '../patience.js'
import { fromModel, fromSpec, json, published } from './helpers.js'

const lines = json<string[]>('lines').filter((line) => line.length < 400)
const specs = json<{ cases: { name: string; spec: unknown }[] }>('tokenizers').cases
const named = (name: string) => fromSpec(specs.find((one) => one.name === name)!.spec)

const sources: [string, () => Promise<Tokenizer>][] = [
  ['qwen2', () => Tokenizer.fromFile(published.qwen2)],
  ['mistral', () => Tokenizer.fromFile(published['mistral-json'])],
  ['bpe with bytes', () => fromModel('bpe-bytes')],
  ['unigram', () => named('unigram precompiled')],
  ['bert', () => named('bert')],
]

describe.each(sources)('decodeStream of %s', (_name, load) => {
  test('its texts, joined, are what decode gives', async () => {
    const tokenizer = await load()
    for (const line of lines.filter((_, i) => i % 4 === 0)) {
      const { inputIds } = tokenizer.encode(line)
      const stream = tokenizer.decodeStream()
      const texts = inputIds.map((id) => stream.push(id))
      texts.push(stream.end())
      expect(texts.join('')).toBe(tokenizer.decode(inputIds))
    }
  })
})

describe('decodeStream', () => {
  test('holds the bytes of a character back until it is whole', async () => {
    const tokenizer = await Tokenizer.fromFile(published['mistral-json'])
    const ids = ['<0xF0>', '<0x9F>', '<0xA6>', '<0x84>', '▁a'].map((token) => tokenizer.tokenToId(token)!)
    const stream = tokenizer.decodeStream()
    expect(ids.map((id) => stream.push(id))).toEqual(['', '', '', '🦄', ' a'])
    expect(stream.end()).toBe('')
  })

  test('gives bytes that never become a character as U+FFFD, at the latest at the end', async () => {
    const tokenizer = await Tokenizer.fromFile(published['mistral-json'])
    const stream = tokenizer.decodeStream()
    expect(stream.push(tokenizer.tokenToId('<0xF0>')!)).toBe('')
    expect(stream.end()).toBe('\ufffd')
    const broken = Array.from({ length: 50 }, () => stream.push(tokenizer.tokenToId('<0xFF>')!))
    expect(broken.join('') + stream.end()).toBe('\ufffd'.repeat(50))
  })

  test('skips special tokens, and remembers few tokens', async () => {
    const tokenizer = await Tokenizer.fromFile(published.qwen2)
    const stream = tokenizer.decodeStream({ skipSpecialTokens: true })
    const word = tokenizer.encode(' word').inputIds
    const end = tokenizer.tokenToId('<|im_end|>')!
    const start = performance.now()
    let text = ''
    for (let i = 0; i < 20_000; i++) text += stream.push(i % 10 === 0 ? end : word[0]!)
    expect(text + stream.end()).toBe(' word'.repeat(18_000))
    // Decoding everything again for each token would take minutes.
    expect(performance.now() - start).toBeLessThan(PATIENCE)
  })
})

interface Streams {
  name: string
  spec: unknown
  cases: { ids: number[]; texts: string[]; skip: boolean }[]
}

describe("decodeStream gives what tokenizers' DecodeStream gives, token by token", () => {
  for (const { name, spec, cases } of json<Streams[]>('streams')) {
    test(name, async () => {
      const tokenizer = await fromSpec(spec)
      expect(cases.filter(({ texts }) => texts.some((text) => text !== '')).length).toBeGreaterThan(200)
      for (const { ids, texts, skip } of cases) {
        const stream = tokenizer.decodeStream({ skipSpecialTokens: skip })
        expect(
          ids.map((id) => stream.push(id)),
          ids.join(),
        ).toEqual(texts)
      }
    })
  }

  test('a model that only makes halves of characters does not take ever longer', async () => {
    const tokenizer = await Tokenizer.fromFile(published['mistral-json'])
    const half = tokenizer.tokenToId('<0xF0>')!
    const stream = tokenizer.decodeStream()
    let text = ''
    for (let i = 0; i < 5000; i++) text += stream.push(half)
    expect(text + stream.end()).toBe('\ufffd'.repeat(5000))
  })
})
