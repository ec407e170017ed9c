import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { DataError, Tokenizer } from '../../lib/index.js'
import { directory, expectedRows, folder, isHere, json, published } from './helpers.js'

// Mistral's tekken.json, against mistral_common.

interface Case {
  name: string
  file?: Record<string, unknown>
  changes?: Record<string, unknown>
  size: number
  special: string[]
  named: Record<'bos' | 'eos' | 'pad' | 'unk', number>
  texts: string[]
  ids: number[][]
  decoded: string[]
}

const cases = json<Case[]>('tekken')
const first = cases[0]!.file!
const fileOf = ({ file, changes }: Case): Record<string, unknown> => file ?? { ...first, ...changes }
let count = 0
const stored = (file: unknown, name = 'tekken.json') => directory(`tekken-${count++}`, { [name]: file })

describe.each(cases)('a file of $name', (one) => {
  // Special tokens in texts are text to mistral_common.
  const texts = [...one.texts.entries()].filter(([, text]) => !one.special.some((token) => text.includes(token)))

  it('has the ids, special tokens and texts of mistral_common', async () => {
    const place = stored(fileOf(one))
    for (const tokenizer of [
      await Tokenizer.fromPretrained(place),
      await Tokenizer.fromFile(join(place, 'tekken.json')),
    ]) {
      expect(tokenizer.vocabSize).toBe(one.size)
      expect(one.special.map((_, id) => tokenizer.idToToken(id))).toEqual(one.special)
      const { bosTokenId: bos, eosTokenId: eos, padTokenId: pad, unkTokenId: unk } = tokenizer
      expect({ bos, eos, pad, unk }).toEqual(one.named)
      expect(texts.length).toBeGreaterThan(100)
      for (const [i, text] of texts) {
        const { inputIds } = tokenizer.encode(text, { addSpecialTokens: false })
        expect(inputIds, JSON.stringify(text)).toEqual(one.ids[i])
        expect(tokenizer.encode(text).inputIds).toEqual([one.named.bos, ...inputIds])
        expect(tokenizer.decode(inputIds)).toBe(one.decoded[i])
      }
    }
  })
})

it('merges the leftmost of equal tokens, and takes a pre-token that no merge makes', async () => {
  const tokenizer = await Tokenizer.fromPretrained(stored(first))
  const pieces = (text: string) =>
    tokenizer.encode(text, { addSpecialTokens: false }).inputIds.map((id) => tokenizer.decode([id]))
  expect(pieces('zqzqzq')).toEqual(['zqzqzq'])
  expect(pieces('zqzqzqz').length).toBeGreaterThan(2)
})

it('takes special tokens in a text as such, and gives each token its place', async () => {
  const tokenizer = await Tokenizer.fromPretrained(stored(first))
  const { inputIds, offsets } = tokenizer.encode('[INST]Größe[/INST]', { addSpecialTokens: false })
  expect([inputIds[0], inputIds.at(-1)]).toEqual([3, 4])
  expect([offsets[0], offsets.at(-1)]).toEqual([
    [0, 6],
    [11, 18],
  ])
})

it('is saved as a tokenizer.json with the same ids', async () => {
  const one = cases[0]!
  const tokenizer = await Tokenizer.fromPretrained(stored(first))
  const to = join(folder, 'tekken-saved')
  tokenizer.saveTo(to)
  const again = await Tokenizer.fromPretrained(to)
  expect(again.bosToken).toBe('<s>')
  for (const [i, text] of one.texts.entries()) {
    // A tokenizer.json gives each pair a rank of its own.
    if ([...one.special, 'aba'].some((token) => text.includes(token))) continue
    expect(again.encode(text, { addSpecialTokens: false }).inputIds).toEqual(one.ids[i])
  }
})

it.skipIf(!isHere('tekken'))('the published vocabulary: 1,000 lines', async () => {
  const lines = json<string[]>('lines')
  const tokenizer = await Tokenizer.fromFile(published.tekken)
  for (const [i, { ids }] of expectedRows('tekken').entries()) {
    if (/<s>|<\/s>|<unk>|<pad>|\[\/?INST\]/.test(lines[i]!)) continue
    expect(tokenizer.encode(lines[i]!, { addSpecialTokens: false }).inputIds, JSON.stringify(lines[i])).toEqual(ids)
  }
})

describe('a file that lies is refused by its entry', () => {
  const config = first.config as Record<string, unknown>
  const vocab = first.vocab as Record<string, unknown>[]
  const withToken = (at: number, change: object) => ({
    vocab: vocab.map((token, i) => (i === at ? { ...token, ...change } : token)),
  })
  it.each<[string, object, RegExp]>([
    ['no configuration', { config: 3 }, /config: expected an object, got 3/],
    ['no pattern', { config: { ...config, pattern: undefined } }, /config\.pattern: expected a string/],
    ['a pattern that is none', { config: { ...config, pattern: '(' } }, /cannot be translated/],
    [
      'fewer than it says',
      { config: { ...config, default_vocab_size: 10_000 } },
      /config\.default_vocab_size: expected from/,
    ],
    ['no bytes', { config: { ...config, default_vocab_size: 200 } }, /config\.default_vocab_size: expected from/],
    ['special tokens without end', { config: { ...config, default_num_special_tokens: 1e9 } }, /at most 65536/],
    [
      'fewer ids than special tokens',
      { config: { ...config, default_num_special_tokens: 3, default_vocab_size: 800 } },
      /special_tokens: expected at most 3/,
    ],
    ['another order', withToken(300, { rank: 299 }), /vocab\[300\]\.rank: expected 300/],
    ['no base64', withToken(300, { token_bytes: '!!' }), /vocab\[300\]\.token_bytes: expected base64/],
    ['an empty token', withToken(300, { token_bytes: '' }), /vocab\[300\]\.token_bytes/],
    ['another byte', withToken(7, { token_bytes: 'AAAA' }), /vocab\[7\]\.token_bytes: expected byte 7/],
    ['a token twice', withToken(300, { token_bytes: vocab[299]!.token_bytes }), /vocab\[300\]\.token_bytes/],
    ['a token without end', withToken(300, { token_bytes: 'AAAA'.repeat(10_000) }), /expected shorter tokens/],
    [
      'a token that is none',
      { vocab: [...vocab.slice(0, 256), 5, ...vocab.slice(257)] },
      /vocab\[256\]: expected an object/,
    ],
    [
      'special tokens that are equal',
      {
        special_tokens: [
          { rank: 0, token_str: 'a' },
          { rank: 1, token_str: 'a' },
        ],
      },
      /got "a" twice/,
    ],
    ['special tokens in another order', { special_tokens: [{ rank: 1, token_str: 'a' }] }, /special_tokens\[0\]\.rank/],
  ])('%s', async (_, change, message) => {
    const load = Tokenizer.fromPretrained(stored({ ...first, ...change }))
    await expect(load).rejects.toThrow(DataError)
    await expect(load).rejects.toThrow(message)
  })
})
