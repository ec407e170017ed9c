import { describe, expect, test, vi } from 'vitest'
import { ConfigError, Tokenizer } from '../../lib/index.js'
import { checkKeys, keyUse } from '../../lib/text/config-keys.js'
import { Fields } from '../../lib/text/fields.js'
import { directory, json } from './helpers.js'

interface Case {
  name: string
  files: Record<string, unknown>
  ids: number[]
  decoded: string
  skipped: string
  maxLength: number | null
  cut: number[]
  padded: number[][]
  size: number
}
const { text, keys, cases } = json<{ text: string; keys: string[]; cases: Case[] }>('config-keys')

describe('keys of tokenizer files do what they do in transformers', () => {
  test.each(cases.map((one) => [one.name, one] as const))('%s', async (name, one) => {
    const tokenizer = await Tokenizer.fromPretrained(directory(`keys ${name}`, one.files))
    const { inputIds } = tokenizer.encode(text)
    expect(inputIds).toEqual(one.ids)
    expect(tokenizer.decode(inputIds)).toBe(one.decoded)
    expect(tokenizer.decode(inputIds, { skipSpecialTokens: true })).toBe(one.skipped)
    expect(tokenizer.modelMaxLength).toBe(one.maxLength)
    expect(tokenizer.encode(text, { truncation: true, maxLength: 3 }).inputIds).toEqual(one.cut)
    expect(tokenizer.encodeBatch(['Hello', 'Hello world'], { padding: true }).inputIds).toEqual(one.padded)
    expect(tokenizer.vocabSize).toBe(one.size)
  })
})

/** Keyword arguments of Python that no file holds: whoever writes one anyway is told that it is not used. */
const internal = [
  ...['_json_padding', '_json_truncation', '_spm_precompiled_charsmap', 'merges', 'post_processor', 'tokenizer'],
  ...['tokenizer_padding', 'tokenizer_truncation', 'unk_id', 'vocab'],
]
const refused = ['fix_mistral_regex', 'predict_timestamps', 'split_special_tokens']

describe('every key that a constructor of transformers reads', () => {
  test('is used, without effect, or refused, and no other', () => {
    for (const key of keys) {
      const expected = internal.includes(key)
        ? ['reported']
        : refused.includes(key)
          ? ['refused']
          : ['used', 'without effect']
      expect(expected, key).toContain(keyUse(key, true))
    }
  })

  test.each(refused)('%s is refused by name', (key) => {
    const fields = (value: unknown) => Fields.of({ [key]: value }, '', 'tokenizer_config.json')
    expect(() => checkKeys(fields(true))).toThrow(ConfigError)
    expect(() => checkKeys(fields(true))).toThrow(`tokenizer_config.json: ${key}: expected false, got true`)
    expect(() => checkKeys(fields(false))).not.toThrow()
  })

  test('what nothing knows is reported by name, once', async () => {
    const warn = vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const spec = { model: { type: 'WordLevel', vocab: { a: 0 }, unk_token: 'a' }, misspelt_part: 1 }
    const files = {
      'tokenizer.json': spec,
      'tokenizer_config.json': { misspelt_key: 1, unk_token: 'a' },
      'special_tokens_map.json': { misspelt_map: 'x' },
    }
    await Tokenizer.fromPretrained(directory('misspelt', files))
    await Tokenizer.fromPretrained(directory('misspelt', files))
    const said = warn.mock.calls.map(([message]) => String(message))
    warn.mockRestore()
    for (const [file, key] of [
      ['tokenizer_config.json', 'misspelt_key'],
      ['special_tokens_map.json', 'misspelt_map'],
      ['tokenizer.json', 'misspelt_part'],
    ]) {
      const found = said.filter((message) => message.includes(`"${key}"`))
      expect(found).toHaveLength(1)
      expect(found[0]).toContain(file)
    }
  })

  test("strip_accents and tokenize_chinese_chars shape BERT's vocab.txt", async () => {
    const vocab = '[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nÉ\ne\n中\n中文\n'
    const load = (name: string, config: object) =>
      Tokenizer.fromPretrained(
        directory(name, { 'vocab.txt': vocab, 'tokenizer_config.json': { do_lower_case: false, ...config } }),
      )
    const ids = (tokenizer: Tokenizer) => tokenizer.encode('É 中文', { addSpecialTokens: false }).inputIds
    expect(ids(await load('bert', {}))).toEqual([5, 7, 1])
    expect(ids(await load('bert-chinese', { tokenize_chinese_chars: false }))).toEqual([5, 8])
    expect(ids(await load('bert-accents', { strip_accents: true }))).toEqual([1, 7, 1])
  })
})
