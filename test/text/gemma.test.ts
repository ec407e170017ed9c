import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { Tokenizer } from '../../lib/index.js'
import { directory, folder, json } from './helpers.js'

// A tokenizer with Gemma's settings (no dummy prefix, bytes, digits apart, symbols of white space), against transformers.

const { model, config, saved, texts, ids, pieces, decoded } = json<{
  model: string
  config: object
  saved: Record<string, object>
  texts: string[]
  ids: number[][]
  pieces: number[][]
  decoded: string[]
}>('gemma')

/** Texts in which SentencePiece, which reads special tokens as text, has other ids for them. */
const special = (text: string) => /<(?:bos|eos|unk|pad)>/.test(text)
const BOS = 2

describe.each([
  [
    // transformers merges runs of white space where SentencePiece takes the longest symbol: 3 texts.
    'tokenizer.model, as sentencepiece',
    { 'tokenizer.model': Buffer.from(model, 'base64'), 'tokenizer_config.json': config },
    pieces.map((row, i) => (special(texts[i]!) ? ids[i]! : [BOS, ...row])),
  ],
  ['tokenizer.json, as transformers', saved, ids],
] as const)('%s', (name, files, expected) => {
  const place = directory(`gemma-${name.length}`, files)
  const load = async (place: string) => {
    const tokenizer = await Tokenizer.fromPretrained(place)
    const { bosTokenId, eosTokenId, padTokenId, unkTokenId } = tokenizer
    expect([bosTokenId, eosTokenId, padTokenId, unkTokenId]).toEqual([BOS, 1, 0, 3])
    for (const [i, text] of texts.entries()) {
      expect(tokenizer.encode(text).inputIds, JSON.stringify(text)).toEqual(expected[i])
    }
    return tokenizer
  }

  it('has their ids, and the texts of transformers', async () => {
    const tokenizer = await load(place)
    for (const [i, text] of texts.entries()) {
      // A symbol of the model is no special token of its own.
      if (expected !== ids && text.includes('<mask>')) continue
      expect(tokenizer.decode(ids[i]!, { skipSpecialTokens: true }), JSON.stringify(text)).toBe(decoded[i])
    }
  })

  it('has them when it was saved and loaded again', async () => {
    const to = join(folder, `gemma-again-${name.length}`)
    ;(await Tokenizer.fromPretrained(place)).saveTo(to)
    await load(to)
  })
})

it('differs between both in few texts', () => {
  const apart = texts.filter((text, i) => !special(text) && `${[BOS, ...pieces[i]!]}` !== `${ids[i]}`)
  expect(apart.length).toBe(3)
})
