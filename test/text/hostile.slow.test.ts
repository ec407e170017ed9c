import { mkdirSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { ConfigError, DataError, Tokenizer } from '../../lib/index.js'
import { MEMORY_SLACK, PATIENCE } from '../patience.js'
import { directory, folder, fromSpec } from './helpers.js'

const bpe = { type: 'BPE', vocab: { a: 0, b: 1, ab: 2, ' ': 3 }, merges: ['a b'] }
const words = { type: 'WordLevel', vocab: { a: 0 }, unk_token: 'a' }

/** The error of loading, which has to come soon and cost little. */
async function refusal(content: string | Buffer | object): Promise<Error> {
  const path = join(directory('hostile', { 'tokenizer.json': content }), 'tokenizer.json')
  const before = process.memoryUsage().rss
  const start = performance.now()
  const error = await Tokenizer.fromFile(path).then(
    () => expect.unreachable('it was read'),
    (thrown: Error) => thrown,
  )
  expect(performance.now() - start).toBeLessThan(PATIENCE)
  expect(process.memoryUsage().rss - before).toBeLessThan(200e6 * MEMORY_SLACK)
  expect(error).toBeInstanceOf(DataError)
  expect(error).toMatchObject({ file: path })
  expect(error.message.length).toBeLessThan(2000)
  return error
}

describe('a tokenizer.json that is refused', () => {
  test.each<[string, () => string | Buffer | object, RegExp]>([
    ['empty', () => '', /expected a JSON value/],
    ['not JSON', () => '{"model": ', /line 1, column 11: expected a value/],
    ['not UTF-8', () => Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x7d]), /byte 2 is not UTF-8/],
    ['a list', () => '[]', /expected an object, got an array of length 0/],
    ['no model', () => ({}), /model: expected an object, got undefined/],
    ['a depth bomb', () => '['.repeat(10_000_000), /line 1: nested deeper than 100 levels/],
    ['a depth bomb of objects', () => '{"a":'.repeat(5_000_000), /nested deeper/],
    ['too many values', () => `[${'0,'.repeat(10_000_000)}0]`, /at most 6000000 values/],
    ['an unknown model', () => ({ model: { type: 'GPT' } }), /model: expected BPE.* got "GPT"/],
    [
      'an unknown normaliser',
      () => ({ model: words, normalizer: { type: 'Shout' } }),
      /normalizer: expected a known type, got "Shout"/,
    ],
    ['a vocabulary of texts', () => ({ model: { ...bpe, vocab: { a: 'x' } } }), /model.vocab."a": expected an id/],
    ['an id below 0', () => ({ model: { ...bpe, vocab: { a: -1 } } }), /expected an id, got -1/],
    ['an id of 2^60', () => ({ model: { ...bpe, vocab: { a: 2 ** 60 } } }), /expected an id/],
    [
      'a merge of strangers',
      () => ({ model: { ...bpe, merges: ['x y'] } }),
      /merges: expected parts and results in the vocabulary/,
    ],
    [
      'a merge into nothing',
      () => ({ model: { ...bpe, merges: ['b a'] } }),
      /merges: expected parts and results in the vocabulary/,
    ],
    ['a merge of three', () => ({ model: { ...bpe, merges: ['a b c'] } }), /merges\[0\]: expected two strings/],
    [
      'a merge that is a number',
      () => ({ model: { ...bpe, merges: [7] } }),
      /merges\[0\]: expected two strings, got 7/,
    ],
    ['dropout', () => ({ model: { ...bpe, dropout: 0.1 } }), /would make tokens random/],
    [
      'an unknown token that is none',
      () => ({ model: { ...bpe, unk_token: 'u' } }),
      /unk_token: expected a token of the vocabulary, got "u"/,
    ],
    ['scores that are texts', () => ({ model: { type: 'Unigram', vocab: [['a', 'b']] } }), /a string and a score/],
    [
      'an endless entry',
      () => ({ model: { type: 'Unigram', vocab: [['a'.repeat(1025), 0]] } }),
      /at most 1024 characters/,
    ],
    ['a type of a megabyte', () => ({ model: { type: 'x'.repeat(1e6) } }), /model: expected BPE.* got "x+…"/],
    [
      'a merge of a megabyte',
      () => ({ model: { ...bpe, merges: ['k'.repeat(1e6)] } }),
      /expected two strings, got "k+…"/,
    ],
    [
      'unk_id outside',
      () => ({ model: { type: 'Unigram', vocab: [['a', 0]], unk_id: 9 } }),
      /unk_id: expected an id below 1.* got 9/,
    ],
    [
      'an endless added token',
      () => ({ model: words, added_tokens: [{ id: 1, content: 'x'.repeat(5000) }] }),
      /got "5000 characters"/,
    ],
    ['an empty added token', () => ({ model: words, added_tokens: [{ id: 1, content: '' }] }), /got "0 characters"/],
    [
      'a pattern that is none',
      () => ({ model: words, pre_tokenizer: { type: 'Split', pattern: { Regex: '(' }, behavior: 'Isolated' } }),
      /cannot be translated to JavaScript/,
    ],
    [
      'a pattern of a megabyte',
      () => ({
        model: words,
        pre_tokenizer: { type: 'Split', pattern: { Regex: 'a'.repeat(1e6) }, behavior: 'Removed' },
      }),
      /at most 10000 characters, got/,
    ],
    [
      'a charsmap that lies',
      () => ({
        model: words,
        normalizer: { type: 'Precompiled', precompiled_charsmap: Buffer.alloc(16, 0x7c).toString('base64') },
      }),
      /precompiled_charsmap: expected a trie within/,
    ],
  ])('%s', async (_name, content, message) => {
    expect((await refusal(content())).message).toMatch(message)
  })

  test('a file of a terabyte is not read', async () => {
    const path = join(folder, 'sparse.json')
    writeFileSync(path, '')
    truncateSync(path, 2 ** 40)
    await expect(Tokenizer.fromFile(path)).rejects.toThrow(/got 1099511627776/)
  })

  test('what is no file, or no tokenizer', async () => {
    mkdirSync(join(folder, 'd.json'), { recursive: true })
    await expect(Tokenizer.fromFile(join(folder, 'd.json'))).rejects.toThrow(DataError)
    await expect(Tokenizer.fromFile(join(folder, 'none.json'))).rejects.toThrow(DataError)
    await expect(Tokenizer.fromFile(join(folder, 'x.exe'))).rejects.toThrow(ConfigError)
    await expect(Tokenizer.fromPretrained(folder)).rejects.toThrow(/expected a tokenizer: .* found none/)
    await expect(Tokenizer.fromPretrained(7 as never)).rejects.toThrow(ConfigError)
  })
})

describe('rules that make a text longer', () => {
  const growing = Array.from({ length: 5 }, () => ({
    type: 'Replace',
    pattern: { String: 'a' },
    content: 'a'.repeat(100),
  }))
  const prepending = Array.from({ length: 100 }, () => ({ type: 'Prepend', prepend: 'b'.repeat(100_000) }))

  test.each<[string, object]>([
    ['five times a hundredfold', { type: 'Sequence', normalizers: growing }],
    [
      'each in the other',
      growing.reduce<object>((inner, step) => ({ type: 'Sequence', normalizers: [inner, step] }), growing[0]!),
    ],
    ['always more in front', { type: 'Sequence', normalizers: prepending }],
  ])('of a normaliser: %s', async (_name, normalizer) => {
    const tokenizer = await fromSpec({ model: bpe, normalizer })
    expect(() => tokenizer.encode('ab')).toThrow(/normalizer: expected at most \d+ characters for a text of 2/)
    expect(() => tokenizer.encode('ab')).toThrow(DataError)
    // In an added token too, before anything is encoded.
    const added_tokens = [{ id: 9, content: 'ab', normalized: true }]
    await expect(fromSpec({ model: bpe, normalizer, added_tokens })).rejects.toThrow(DataError)
  })

  test('of a pre-tokenizer: bytes of bytes, and steps without end', async () => {
    const sequence = (pretokenizers: object[]) => ({ model: bpe, pre_tokenizer: { type: 'Sequence', pretokenizers } })
    const bytes = await fromSpec(sequence(new Array(40).fill({ type: 'ByteLevel', use_regex: false })))
    expect(() => bytes.encode('é')).toThrow(/pre_tokenizer: expected at most \d+ characters, got more, for a text of 1/)
    const steps = await fromSpec(sequence(new Array(100_000).fill({ type: 'Whitespace' })))
    expect(() => steps.encode('ab '.repeat(3000))).toThrow(/pre_tokenizer: the time limit was exceeded/)
  })

  test('more marks over one character than can be put in order', async () => {
    const tokenizer = await fromSpec({ model: bpe, normalizer: { type: 'NFC' } })
    expect(() => tokenizer.encode(`a${'\u0301\u0323'.repeat(500_000)}`)).toThrow(DataError)
    expect(() => tokenizer.encode(`a${'\u0301\u0323'.repeat(100)}`)).not.toThrow()
  })

  test('an added token that is long once it is normalised', async () => {
    // Found by the fuzz: looked for at every place of a text that is made of it, it takes square time.
    const added_tokens = [{ id: 9, content: 'ab', normalized: true }]
    const normalizer = { type: 'Prepend', prepend: 'a'.repeat(2000) }
    await expect(fromSpec({ model: bpe, normalizer, added_tokens })).rejects.toThrow(
      /added token 9: expected at most 1024 characters after normalization, got 2002/,
    )
  })

  test('of a decoder', async () => {
    const replacing = await fromSpec({ model: bpe, decoder: { type: 'Sequence', decoders: growing } })
    expect(() => replacing.decode([0, 1])).toThrow(/decoder.*at most \d+ decoded characters/)
    expect(() => replacing.decode([0, 1])).toThrow(DataError)
    const doubling = Array.from({ length: 40 }, () => ({ type: 'BPEDecoder', suffix: '' }))
    const spreading = await fromSpec({ model: bpe, decoder: { type: 'Sequence', decoders: doubling } })
    expect(() => spreading.decode([0, 1])).toThrow(DataError)
  })

  test('as much as any published one is allowed', async () => {
    const tokenizer = await fromSpec({ model: bpe, normalizer: { type: 'NFKD' } })
    // One character that NFKD makes 18 of.
    expect(() => tokenizer.encode('\ufdfa'.repeat(100_000))).not.toThrow()
  })

  test('templates of thousands of texts, and templates of templates', async () => {
    const text = { Sequence: { id: 'A', type_id: 0 } }
    const template = (parts: number) => ({
      type: 'TemplateProcessing',
      single: Array.from({ length: parts }, () => text),
      pair: [text],
      special_tokens: {},
    })
    await expect(fromSpec({ model: bpe, post_processor: template(8000) })).rejects.toThrow(/at most 100 parts/)
    const nested = { type: 'Sequence', processors: Array.from({ length: 30 }, () => template(2)) }
    const tokenizer = await fromSpec({ model: bpe, post_processor: nested })
    expect(() => tokenizer.encode('ab '.repeat(10_000))).toThrow(/expected at most \d+ tokens/)
    const special = { single: [{ SpecialToken: { id: 'x', type_id: 0 } }], pair: [text] }
    const many = { type: 'TemplateProcessing', ...special, special_tokens: { x: { ids: new Array(1e6).fill(0) } } }
    await expect(fromSpec({ model: bpe, post_processor: many })).rejects.toThrow(/at most 100 ids/)
  })
})

describe('a tokenizer.json that is read', () => {
  test('has entries called __proto__', async () => {
    const spec = '{"model":{"type":"WordLevel","vocab":{"__proto__":0,"constructor":1},"unk_token":"__proto__"}}'
    const tokenizer = await fromSpec(spec)
    expect(tokenizer.encode('constructor').inputIds).toEqual([1])
    expect(tokenizer.encode('__proto__').inputIds).toEqual([0])
    expect(tokenizer.vocabSize).toBe(2)
    expect(({} as Record<string, unknown>).a).toBeUndefined()
  })

  test('a pattern that backtracks without end is ended, and the process goes on', async () => {
    const pattern = { Regex: '(a+)+b|(a|aa)+$' }
    const tokenizer = await fromSpec({ model: bpe, pre_tokenizer: { type: 'Split', pattern, behavior: 'Isolated' } })
    expect(tokenizer.encode('aaab').inputIds).toEqual([0, 0, 2])
    const start = performance.now()
    expect(() => tokenizer.encode(`${'a'.repeat(60)}c`)).toThrow(DataError)
    expect(performance.now() - start).toBeLessThan(PATIENCE)
    expect(tokenizer.encode('ab').inputIds).toEqual([2])
  })

  test('a pattern that takes long for each of many pieces is ended once for all', async () => {
    const slow = { type: 'Split', pattern: { Regex: '(a+)+b|(a|aa)+$' }, behavior: 'Isolated' }
    const cut = { type: 'CharDelimiterSplit', delimiter: ' ' }
    const pre_tokenizer = { type: 'Sequence', pretokenizers: [cut, slow] }
    const tokenizer = await fromSpec({ model: bpe, pre_tokenizer })
    // Half a second each, a thousand times: none of them is ended by itself.
    const length = [...Array(60).keys()].find((n) => {
      const start = performance.now()
      try {
        tokenizer.encode(`${'a'.repeat(n)}c`)
      } catch {
        return true
      }
      return performance.now() - start > 200
    })!
    expect(() => tokenizer.encode(`${'a'.repeat(length)}c `.repeat(1000))).toThrow(DataError)
  })

  test('merges that feed each other end', async () => {
    const vocab = { a: 0, aa: 1, aaa: 2, aaaa: 3 }
    const merges = ['a a', 'aa a', 'a aa', 'aa aa', 'aaa a', 'a aaa']
    const tokenizer = await fromSpec({ model: { type: 'BPE', vocab, merges } })
    expect(tokenizer.encode('a'.repeat(9)).inputIds).toEqual([3, 1, 2])
  })

  test('a million characters without a break take n log n', async () => {
    const tokenizer = await fromSpec({ model: bpe })
    const start = performance.now()
    expect(tokenizer.encode('ab'.repeat(500_000)).inputIds.length).toBe(500_000)
    expect(performance.now() - start).toBeLessThan(PATIENCE)
  })

  test('words of equal content merge alike, long or short', async () => {
    // Few symbols are merged by looking through all, many with a heap.
    const vocab = { a: 0, b: 1, ab: 2, ba: 3, aba: 4, abab: 5 }
    const merges = ['b a', 'a b', 'a ba', 'ab ab']
    const tokenizer = await fromSpec({ model: { type: 'BPE', vocab, merges } })
    const short = tokenizer.encode('abba'.repeat(12)).inputIds
    const long = tokenizer.encode('abba'.repeat(13)).inputIds
    expect(long.slice(0, short.length - 4)).toEqual(short.slice(0, -4))
  })
})
