import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { describe, expect, test } from 'vitest'
import { ConfigError, DataError, Tokenizer } from '../../lib/index.js'
import { checksum, directory, folder, fromModel, fromSpec, isHere, json, published } from './helpers.js'

interface Spec {
  model: { type: string; vocab: Record<string, number>; merges?: (string | [string, string])[] }
  added_tokens: { content: string }[]
}
const { lines: specLines, cases: specCases } = json<{ lines: string[]; cases: { name: string; spec: Spec }[] }>(
  'tokenizers',
)
const specOf = (name: string): Spec => specCases.find((one) => one.name === name)!.spec

interface Case {
  spec: string
  extra: string[]
  config: Record<string, unknown>
  ids: number[][]
  sums: number[]
  decoded: string[]
}
const { lines, cases } = json<{ lines: string[]; cases: Case[] }>('vocabularies')

/** The files that test/reference/text_vocabularies.py writes. */
function oldFiles({ spec: name, extra, config }: Pick<Case, 'spec' | 'extra' | 'config'>): Record<string, unknown> {
  const { model, added_tokens: added } = specOf(name)
  const vocab = { ...model.vocab }
  const more = [...(name === 'clip' ? added.map(({ content }) => content) : []), ...extra]
  for (const token of more) vocab[token] ??= Object.keys(vocab).length
  if (model.type === 'WordPiece') {
    const entries = Object.entries(vocab).sort(([, a], [, b]) => a - b)
    return { 'vocab.txt': `${entries.map(([token]) => token).join('\n')}\n`, 'tokenizer_config.json': config }
  }
  const merges = model.merges!.map((merge) => (typeof merge === 'string' ? merge : merge.join(' ')))
  return {
    'vocab.json': vocab,
    'merges.txt': `#version: 0.2\n${merges.join('\n')}\n`,
    'tokenizer_config.json': config,
  }
}

describe.each(cases.map((one) => [JSON.stringify(one.config), one] as const))('%s as transformers', (_name, one) => {
  test('reads its vocabulary files', async () => {
    const tokenizer = await Tokenizer.fromPretrained(directory(`old-${cases.indexOf(one)}`, oldFiles(one)))
    for (const [i, line] of lines.entries()) {
      const encoding = tokenizer.encode(line)
      expect(encoding.inputIds, JSON.stringify(line)).toEqual(one.ids[i])
      expect(checksum(encoding), `offsets and words of ${JSON.stringify(line)}`).toBe(one.sums[i])
      expect(tokenizer.decode(encoding.inputIds, { skipSpecialTokens: true })).toBe(one.decoded[i])
    }
  })
})

describe('vocabulary files', () => {
  test('of a class that is not known are refused', async () => {
    const files = oldFiles({ spec: 'gpt2 untrimmed', extra: [], config: { tokenizer_class: 'FunnyTokenizer' } })
    await expect(Tokenizer.fromPretrained(directory('funny', files))).rejects.toThrow(ConfigError)
  })

  test("CLIP's packed merges give the ids of the vocabulary that follows from them", async () => {
    // In OpenAI's file the merges begin with the second line.
    const packed = gzipSync('"bpe_simple_vocab_16e6.txt#version: 0.2\nt h\nth e</w>\na n\nan d</w>\n')
    const path = join(directory('clip', { 'bpe_simple_vocab_16e6.txt.gz': packed }), 'bpe_simple_vocab_16e6.txt.gz')
    const tokenizer = await Tokenizer.fromFile(path)
    expect(tokenizer.vocabSize).toBe(512 + 4 + 2)
    expect(tokenizer.modelMaxLength).toBe(77)
    const { inputIds } = tokenizer.encode('  THE  and\tthen')
    const tokens = ['<|startoftext|>', 'the</w>', 'and</w>', 'th', 'e', 'n</w>', '<|endoftext|>']
    expect(inputIds.map((id) => tokenizer.idToToken(id))).toEqual(tokens)
    expect(tokenizer.decode(inputIds, { skipSpecialTokens: true })).toBe('the and then')
    expect(tokenizer.encode('the '.repeat(100), { truncation: true }).length).toBe(77)
  })

  test('a packed file that is not gzip, or too big, is refused', async () => {
    const open = (content: Buffer) =>
      Tokenizer.fromFile(`${directory('bomb', { 'bpe_simple_vocab.gz': content })}/bpe_simple_vocab.gz`)
    await expect(open(Buffer.from([0x1f, 0x8b, 1, 2, 3]))).rejects.toThrow(DataError)
    await expect(open(gzipSync(Buffer.alloc(80 << 20)))).rejects.toThrow(/cannot be unpacked/)
  })
})

describe('the configuration beside a tokenizer', () => {
  const spec = { model: { type: 'WordLevel', vocab: { a: 0, '<s>': 1, '</s>': 2, '<p>': 3 }, unk_token: 'a' } }

  test('names special tokens, lengths and sides', async () => {
    const tokenizer = await Tokenizer.fromPretrained(
      directory('config', {
        'tokenizer.json': spec,
        'special_tokens_map.json': { pad_token: '<p>', bos_token: '<s>' },
        'tokenizer_config.json': {
          bos_token: { content: 'wrong', lstrip: false },
          eos_token: '</s>',
          additional_special_tokens: ['<extra>'],
          add_bos_token: true,
          add_eos_token: true,
          model_max_length: 5,
          padding_side: 'left',
          tokenizer_class: 'PreTrainedTokenizerFast',
        },
        'added_tokens.json': { '<word>': 7 },
      }),
    )
    expect([tokenizer.bosTokenId, tokenizer.eosTokenId, tokenizer.padTokenId]).toEqual([1, 2, 3])
    expect([tokenizer.padToken, tokenizer.maskToken, tokenizer.clsTokenId]).toEqual(['<p>', null, null])
    expect(tokenizer.tokenToId('<word>')).toBe(7)
    expect(tokenizer.tokenToId('<extra>')).toBe(8)
    expect(tokenizer.vocabSize).toBe(6)
    expect(tokenizer.encode('a<word>').inputIds).toEqual([1, 0, 7, 2])
    expect(tokenizer.encode(['a', 'a']).tokenTypeIds).toEqual([0, 0, 0, 1, 1, 1])
    expect(tokenizer.encode('a<word>a<extra>', { truncation: true }).length).toBe(5)
    expect(tokenizer.encodeBatch(['a', 'a<word>'], { padding: true }).inputIds).toEqual([
      [3, 1, 0, 2],
      [1, 0, 7, 2],
    ])
  })

  test('transformers writes no limit as 10^30', async () => {
    const files = { 'tokenizer.json': spec, 'tokenizer_config.json': { model_max_length: 1e30 } }
    expect((await Tokenizer.fromPretrained(directory('limit', files))).modelMaxLength).toBeNull()
  })

  test.each<[string, unknown, RegExp]>([
    ['a side that is none', { padding_side: 'up' }, /padding_side: expected "left" or "right", got "up"/],
    ['a token that is a number', { bos_token: 7 }, /bos_token: expected a string, got 7/],
    ['an endless token', { bos_token: 'x'.repeat(9999) }, /1 to 1024 characters/],
    ['an id that is none', { added_tokens_decoder: { x: { content: 'y' } } }, /expected an id as the key/],
    ['a list', [], /expected an object, got an array of length 0/],
  ])('%s is refused', async (_name, config, message) => {
    const path = directory('refused', { 'tokenizer.json': spec, 'tokenizer_config.json': config })
    const error: Error = await Tokenizer.fromPretrained(path).then(
      () => expect.unreachable(),
      (thrown) => thrown,
    )
    expect(error).toBeInstanceOf(DataError)
    expect(error.message).toMatch(message)
    expect(error).toMatchObject({ file: join(path, 'tokenizer_config.json') })
  })

  test('without one, the usual names of special tokens count', async () => {
    const tokenizer = await fromSpec({
      ...spec,
      added_tokens: [{ id: 2, content: '</s>', special: true }],
    })
    expect(tokenizer.eosToken).toBe('</s>')
    expect(tokenizer.bosToken).toBeNull()
  })
})

describe('saveTo', () => {
  test.each(specCases.map(({ name }) => name))('%s comes back, with the tokens added since', async (name) => {
    const tokenizer = await fromSpec(specOf(name))
    tokenizer.addTokens(['<new>', { content: 'strip', lstrip: true, singleWord: true }])
    tokenizer.addSpecialTokens(['<end>'])
    tokenizer.padToken = '<end>'
    tokenizer.chatTemplate = '{{ messages[0].content }}'
    const path = join(folder, 'saved')
    tokenizer.saveTo(path)
    const again = await Tokenizer.fromPretrained(path)
    for (const line of [...specLines.filter((_, i) => i % 3 === 0), 'a<new> strip<end>b']) {
      const [one, two] = [tokenizer.encode(line), again.encode(line)]
      expect(two.inputIds, JSON.stringify(line)).toEqual(one.inputIds)
      expect(two.offsets).toEqual(one.offsets)
      expect(again.decode(two.inputIds)).toBe(tokenizer.decode(one.inputIds))
    }
    expect(again.vocabSize).toBe(tokenizer.vocabSize)
    expect(again.padToken).toBe('<end>')
    expect(again.chatTemplate).toBe('{{ messages[0].content }}')
    expect(readdirSync(path).sort()).toEqual(['special_tokens_map.json', 'tokenizer.json', 'tokenizer_config.json'])
  })

  test('a SentencePiece model stays byte for byte', async () => {
    const tokenizer = await fromModel('bpe-bytes')
    const path = join(folder, 'saved-model')
    tokenizer.addTokens(['<new>'])
    tokenizer.saveTo(path)
    const again = await Tokenizer.fromPretrained(path)
    expect(again.tokenToId('<new>')).toBe(tokenizer.tokenToId('<new>'))
    expect(again.encode('the <new> of', { addSpecialTokens: false }).inputIds).toEqual(
      tokenizer.encode('the <new> of', { addSpecialTokens: false }).inputIds,
    )
  })

  test.skipIf(!isHere('qwen2'))('Qwen2 comes back whole', async () => {
    const tokenizer = await Tokenizer.fromFile(published.qwen2)
    const path = join(folder, 'saved-qwen')
    tokenizer.saveTo(path)
    const stored = JSON.parse(readFileSync(published.qwen2, 'utf8'))
    const saved = JSON.parse(readFileSync(join(path, 'tokenizer.json'), 'utf8'))
    expect(saved.model).toEqual(stored.model)
    expect(saved.added_tokens).toEqual(stored.added_tokens)
  })

  test('a directory that cannot be made', async () => {
    const tokenizer = await fromSpec(specOf('bert'))
    expect(() => tokenizer.saveTo('/proc/none')).toThrow(DataError)
  })
})
