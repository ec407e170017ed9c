import { describe, expect, test } from 'vitest'
import { Tokenizer } from '../../lib/index.js'
import { harmlessText } from '../../lib/kit/harmless-text.js'
import { AddedTokens } from '../../lib/text/added-tokens.js'
import { drained } from '../../lib/text/steps.js'
import { fromSpec, json, published } from './helpers.js'

const plain = { special: false, singleWord: false, lstrip: false, rstrip: false, normalized: false }

/** Steps that the search takes over a text, with so many tokens to look for. */
function steps(tokens: number, text: string): number {
  const added = new AddedTokens(null)
  for (let i = 0; i < tokens; i++) added.add(i, { ...plain, content: `<|token_${i}|>` })
  const before = added.steps
  drained(added.splitRaw(text))
  return added.steps - before
}

describe('the cost of added tokens, in steps', () => {
  const text = 'some <|words|> and <|token_7|> <|token_x|> more. '

  test('does not grow with their number', () => {
    const few = steps(10, text.repeat(100))
    expect(steps(10_000, text.repeat(100))).toBe(few)
  })

  test('is linear in the text', () => {
    const once = steps(10_000, text.repeat(50))
    expect(steps(10_000, text.repeat(100))).toBe(2 * once)
    expect(once).toBeLessThan(3 * text.length * 50)
  })

  test('has a bound where tokens are made to be slow', () => {
    const added = new AddedTokens(null)
    added.add(0, { ...plain, content: 'a'.repeat(1024) })
    drained(added.splitRaw('a'.repeat(1023).concat('b').repeat(20)))
    expect(added.steps).toBeLessThan(1024 * 1024 * 20)
    expect(() => added.add(1, { ...plain, content: 'a'.repeat(1025) })).toThrow(/at most 1024/)
  })
})

interface Spelled {
  name: string
  spec: { added_tokens: { id: number; special: boolean }[] }
  tokens: string[]
  ids: (number | null)[]
  encoded: number[]
  decoded: string
  skipped: string
  each: string[]
  stream: string[]
}
const spelled = json<{ text: string; cases: Spelled[] }>('added')

describe('added tokens under a normalizer are spelled as tokenizers spells them', () => {
  test.each(spelled.cases.map((one) => [one.name, one] as const))('%s', async (_name, one) => {
    const tokenizer = await fromSpec(one.spec)
    const ids = one.tokens.map((_, id) => id)
    expect(ids.map((id) => tokenizer.idToToken(id))).toEqual(one.tokens)
    expect(['FooBar', 'foobar', '<S>', '<s>'].map((token) => tokenizer.tokenToId(token) ?? null)).toEqual(one.ids)
    expect(tokenizer.encode(spelled.text).inputIds).toEqual(one.encoded)
    expect(tokenizer.decode(ids)).toBe(one.decoded)
    expect(tokenizer.decode(ids, { skipSpecialTokens: true })).toBe(one.skipped)
    expect(ids.map((id) => tokenizer.decode([id]))).toEqual(one.each)
    const stream = tokenizer.decodeStream()
    expect(ids.map((id) => stream.push(id))).toEqual(one.stream)
    // In whichever spelling a text holds a special token, it can be made harmless.
    const harmless = tokenizer.encode(harmlessText(tokenizer, spelled.text)).inputIds
    expect(harmless.filter((id) => one.spec.added_tokens.some((token) => token.special && token.id === id))).toEqual([])
  })
})

describe('10,000 added tokens', () => {
  test('are found, the longest first, and come back', async () => {
    const tokenizer = await Tokenizer.fromFile(published.qwen2)
    const size = tokenizer.vocabSize
    const tokens = Array.from({ length: 10_000 }, (_, i) => `<extra_${i}>`)
    expect(tokenizer.addTokens(tokens)).toBe(10_000)
    expect(tokenizer.addTokens(tokens)).toBe(0)
    expect(tokenizer.vocabSize).toBe(size + 10_000)
    const { inputIds } = tokenizer.encode('a<extra_1><extra_10><extra_9999>b')
    expect(inputIds.slice(1, -1).map((id) => tokenizer.idToToken(id))).toEqual([
      '<extra_1>',
      '<extra_10>',
      '<extra_9999>',
    ])
    expect(tokenizer.decode(inputIds)).toBe('a<extra_1><extra_10><extra_9999>b')
    expect(tokenizer.tokenToId('<extra_0>')).toBe(size)
  })

  test('special ones are left out on request, ordinary ones are not', async () => {
    const tokenizer = await Tokenizer.fromFile(published.qwen2)
    tokenizer.addSpecialTokens(['<audio>', { content: '<speech>', rstrip: true }])
    tokenizer.addTokens(['<word>'])
    const { inputIds, offsets } = tokenizer.encode('<audio>x<speech>  y<word>')
    expect(tokenizer.decode(inputIds, { skipSpecialTokens: true })).toBe('xy<word>')
    expect(tokenizer.isSpecial(tokenizer.tokenToId('<audio>')!)).toBe(true)
    expect(tokenizer.isSpecial(tokenizer.tokenToId('<word>')!)).toBe(false)
    expect(offsets[2]).toEqual([8, 18])
  })

  test('a token of the vocabulary keeps its id', async () => {
    const tokenizer = await Tokenizer.fromFile(published.qwen2)
    const id = tokenizer.tokenToId('hello')!
    expect(tokenizer.addTokens(['hello'])).toBe(0)
    expect(tokenizer.tokenToId('hello')).toBe(id)
    expect(tokenizer.encode('shellohello').inputIds.filter((one) => one === id).length).toBe(2)
  })

  test('names like __proto__ are names', async () => {
    const tokenizer = await Tokenizer.fromFile(published.qwen2)
    const names = ['__proto__', 'constructor', 'toString', 'hasOwnProperty']
    expect(tokenizer.tokenToId('__proto__')).toBeUndefined()
    tokenizer.addTokens(names)
    const { inputIds } = tokenizer.encode('__proto__')
    expect(inputIds).toEqual([tokenizer.tokenToId('__proto__')])
    expect(tokenizer.decode(inputIds)).toBe('__proto__')
  })
})
