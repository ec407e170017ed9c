import { describe, expect, test } from 'vitest'
import { ConfigError, memoryStats, scope } from '../../lib/index.js'
import type { BatchOptions } from '../../lib/text/batch.js'
import { settledTensors } from '../helpers.js'
import { fromSpec, json } from './helpers.js'

const columns = ['inputIds', 'attentionMask', 'tokenTypeIds', 'specialTokensMask', 'wordIds', 'offsets'] as const
type Columns = Record<(typeof columns)[number], unknown>
interface Case extends Columns {
  tokenizer: string
  pad: string
  options: Record<string, string | number | boolean>
  error?: string
}
const { texts, pairs, cases } = json<{ texts: string[]; pairs: string[]; cases: Case[] }>('batches')
const specs = json<{ cases: { name: string; spec: unknown }[] }>('tokenizers').cases
const specOf = (name: string): unknown => specs.find((one) => one.name === name)!.spec

const camel = (text: string): string => text.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase())

function optionsOf(python: Case['options']): BatchOptions {
  const options = Object.entries(python).map(([name, value]) =>
    name === 'pairs' ? ['textPairs', pairs] : [camel(name), typeof value === 'string' ? camel(value) : value],
  )
  return Object.fromEntries(options) as BatchOptions
}

test.each(cases.map((one) => [one.tokenizer, JSON.stringify(one.options), one] as const))(
  '%s %s as transformers',
  async (name, _options, wanted) => {
    const tokenizer = await fromSpec(specOf(name))
    tokenizer.padToken = wanted.pad
    const encode = () => tokenizer.encodeBatch(texts, optionsOf(wanted.options))
    if (wanted.error !== undefined) expect(encode).toThrow(ConfigError)
    else for (const column of columns) expect(encode()[column], column).toEqual(wanted[column])
  },
)

describe('tensors', () => {
  test('are int64 of [batch, length], and nothing else is left', async () => {
    const tokenizer = await fromSpec(specOf('bert'))
    const arrays = tokenizer.encodeBatch(texts, { padding: true })
    const before = await settledTensors()
    scope(() => {
      const batch = tokenizer.encodeBatch(texts, { padding: true, returnTensors: true })
      expect(memoryStats().liveTensors - before).toBe(4)
      expect(batch.inputIds.dtype).toBe('int64')
      expect(batch.inputIds.shape).toEqual([texts.length, arrays.inputIds[0]!.length])
      expect((batch.inputIds.toArray() as bigint[][]).map((row) => row.map(Number))).toEqual(arrays.inputIds)
      expect((batch.attentionMask.toArray() as bigint[][]).map((row) => row.map(Number))).toEqual(arrays.attentionMask)
      expect(batch.wordIds).toEqual(arrays.wordIds)
    })
    expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
  })

  test('an empty batch has no rows', async () => {
    const tokenizer = await fromSpec(specOf('bert'))
    expect(tokenizer.encodeBatch([]).inputIds).toEqual([])
    scope(() => expect(tokenizer.encodeBatch([], { returnTensors: true }).inputIds.shape).toEqual([0, 0]))
  })

  test('unequal lengths say what to do, and leave no tensor', async () => {
    const tokenizer = await fromSpec(specOf('bert'))
    const before = await settledTensors()
    expect(() => tokenizer.encodeBatch(texts, { returnTensors: true })).toThrow(/Set padding/)
    expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
  })
})

describe('wrong arguments', () => {
  test.each<[string, (tokenizer: Awaited<ReturnType<typeof fromSpec>>) => unknown, RegExp]>([
    ['text', (t) => t.encode(7 as never), /text to be a string or a pair of strings, got 7/],
    ['texts', (t) => t.encodeBatch('abc' as never), /texts to be an array/],
    ['textPairs', (t) => t.encodeBatch(['a'], { textPairs: [] }), /textPairs to be an array of 1/],
    ['padding', (t) => t.encodeBatch(['a'], { padding: 'always' as never }), /padding to be/],
    ['paddingSide', (t) => t.encodeBatch(['a'], { padding: true, paddingSide: 'up' as never }), /paddingSide to be/],
    [
      'no length',
      (t) => t.encodeBatch(['a'], { padding: 'maxLength' }),
      /maxLength: expected a number for padding 'maxLength', got none/,
    ],
    ['truncation', (t) => t.encode('a', { truncation: 'yes' as never }), /truncation to be/],
    ['no limit', (t) => t.encode('a', { truncation: true }), /maxLength: expected a number for truncation, got none/],
    [
      'too small',
      (t) => t.encode('a', { truncation: true, maxLength: 1 }),
      /maxLength: expected at least 2, the special tokens, got 1/,
    ],
    ['maxLength', (t) => t.encode('a', { truncation: true, maxLength: -1 }), /maxLength to be an integer/],
    ['ids', (t) => t.decode([1, -1]), /ids to be integers of at least 0, got -1/],
    ['ids text', (t) => t.decode('12' as never), /ids to be a list/],
    ['stream', (t) => t.decodeStream().push(1.5), /id to be an integer/],
    ['tokens', (t) => t.addTokens('abc' as never), /tokens to be a list/],
    ['token', (t) => t.addTokens([{ content: 'a', lstrip: 1 as never }]), /lstrip to be true or false/],
    ['padToken', (t) => (t.padToken = 'no such'), /padToken: expected a token of the vocabulary, got "no such"/],
    ['messages', (t) => t.applyChatTemplate('hi' as never), /messages to be an array/],
  ])('%s', async (_name, call, message) => {
    const tokenizer = await fromSpec(specOf('bert'))
    expect(() => call(tokenizer)).toThrow(ConfigError)
    expect(() => call(tokenizer)).toThrow(message)
  })

  test('padding without a pad token says which property to set', async () => {
    const tokenizer = await fromSpec(specOf('llama always'))
    expect(() => tokenizer.encodeBatch(['a'], { padding: true })).toThrow(/Set tokenizer.padToken/)
    tokenizer.padToken = '</s>'
    expect(tokenizer.encodeBatch(['a', 'a b c d'], { padding: true }).attentionMask[0]!.at(-1)).toBe(0)
  })
})
