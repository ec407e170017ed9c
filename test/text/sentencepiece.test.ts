import { describe, expect, test } from 'vitest'
import { ConfigError, DataError, Tokenizer } from '../../lib/index.js'
import { PATIENCE } from '../patience.js'
import { directory, fromModel, json, unpacked } from './helpers.js'

interface Case {
  ids: number[][]
  decoded: string[]
  cuts: number[][]
  decodedCuts: string[]
  'legacy true'?: number[][]
  'legacy false'?: number[][]
}
const { lines, special, models } = json<{ lines: string[]; special: string[]; models: Record<string, Case> }>(
  'sentencepiece',
)

describe.each(Object.entries(models))('the model %s, as sentencepiece has it', (name, wanted) => {
  test('encodes', async () => {
    const tokenizer = await fromModel(name)
    for (const [i, line] of lines.entries()) {
      expect(tokenizer.encode(line).inputIds, JSON.stringify(line)).toEqual(wanted.ids[i])
    }
  })

  test('decodes', async () => {
    const tokenizer = await fromModel(name)
    for (const [i, ids] of wanted.ids.entries()) expect(tokenizer.decode(ids)).toBe(wanted.decoded[i])
    for (const [i, ids] of wanted.cuts.entries()) expect(tokenizer.decode(ids)).toBe(wanted.decodedCuts[i])
  })
})

describe('a directory with a tokenizer.model', () => {
  const files = (config: Record<string, unknown>) => ({
    'tokenizer.model': unpacked('bpe-bytes.model'),
    'tokenizer_config.json': { bos_token: '<s>', eos_token: '</s>', unk_token: '<unk>', ...config },
  })

  test.each([true, false])('legacy: %s cuts special tokens out as LlamaTokenizer did', async (legacy) => {
    const path = directory(`legacy-${legacy}`, files({ tokenizer_class: 'LlamaTokenizer', legacy }))
    const tokenizer = await Tokenizer.fromPretrained(path)
    const wanted = models['bpe-bytes']![`legacy ${legacy}`]!
    for (const [i, text] of special.entries()) {
      expect(tokenizer.encode(text, { addSpecialTokens: false }).inputIds, JSON.stringify(text)).toEqual(wanted[i])
    }
  })

  test('adds what its class adds, unless the configuration says otherwise', async () => {
    const ids = async (config: Record<string, unknown>) => {
      const tokenizer = await Tokenizer.fromPretrained(directory('flags', files(config)))
      const { inputIds } = tokenizer.encode('the')
      return [inputIds[0] === tokenizer.bosTokenId, inputIds.at(-1) === tokenizer.eosTokenId]
    }
    expect(await ids({ tokenizer_class: 'LlamaTokenizer' })).toEqual([true, false])
    expect(await ids({ tokenizer_class: 'T5Tokenizer' })).toEqual([false, true])
    expect(await ids({ tokenizer_class: 'LlamaTokenizer', add_bos_token: false, add_eos_token: true })).toEqual([
      false,
      true,
    ])
    await expect(ids({ tokenizer_class: 'XLMRobertaTokenizer' })).rejects.toThrow(ConfigError)
  })

  test('offsets and words follow the text through the normaliser', async () => {
    const tokenizer = await fromModel('unigram-nfkc')
    const text = '  ｔｈｅ  ﬁ of'
    const { offsets, wordIds, inputIds } = tokenizer.encode(text)
    expect(tokenizer.decode(inputIds)).toBe('the fi of')
    expect(offsets[0]![0]).toBe(2)
    expect(offsets.at(-1)![1]).toBe(text.length)
    expect(Math.max(...wordIds.map((word) => word ?? 0))).toBe(2)
    const fi = wordIds.indexOf(1)
    expect(text.slice(offsets[fi]![0], offsets[fi]![1]).trim()).toMatch(/^ﬁ?$/)
  })
})

describe('a file that is not sound', () => {
  const sound = unpacked('unigram-nfkc.model')
  const open = (bytes: Uint8Array) =>
    Tokenizer.fromFile(`${directory('broken', { 'x.model': Buffer.from(bytes) })}/x.model`)
  const piece = (text: string, type = 1): number[] => {
    const name = [...Buffer.from(text)]
    return [10, name.length + 4, 10, name.length, ...name, 24, type]
  }

  test.each<[string, Uint8Array, RegExp]>([
    ['cut off', sound.subarray(0, 3000), /a length of \d+ bytes where \d+ are left at byte \d+/],
    ['empty', Buffer.alloc(0), /expected an unknown piece, got none/],
    ['another format', Buffer.from('{"a": 1}'), /expected a SentencePiece model/],
    ['a length of 2^63', Buffer.from([10, 255, 255, 255, 255, 255, 255, 255, 255, 127]), /has a length of/],
    ['a number without end', Buffer.alloc(40, 0x80), /more than ten bytes/],
    ['two unknown pieces', Buffer.from([...piece('a', 2), ...piece('b', 2)]), /expected one unknown piece, got two/],
    ['a piece twice', Buffer.from([...piece('a', 2), ...piece('b'), ...piece('b')]), /got the duplicate/],
    ['an empty piece', Buffer.from([...piece('a', 2), ...piece('')]), /piece 1: expected a non-empty text/],
    ['a type that is none', Buffer.from([...piece('a', 2), ...piece('b', 9)]), /type 9/],
    [
      'byte fallback without bytes',
      Buffer.from([...piece('a', 2), 18, 3, 0x98, 2, 1]),
      /expected 256 byte pieces for byte fallback, got 0/,
    ],
    ['text that is not UTF-8', Buffer.from([10, 4, 10, 2, 0xc3, 0x28]), /not UTF-8/],
    ['a score that is no number', Buffer.from([10, 5, 21, 0, 0, 0xc0, 0x7f]), /score is not a number/],
    ['a trie that is not there', Buffer.from([...piece('a', 2), 26, 10, 18, 8, 255, 255, 0, 0, 0, 0, 0, 0]), /trie/],
  ])('%s', async (_name, bytes, message) => {
    const error = await open(bytes).catch((thrown: unknown) => thrown)
    expect(error).toBeInstanceOf(DataError)
    expect((error as DataError).message).toMatch(message)
    expect(error).toMatchObject({ file: expect.stringMatching(/x\.model$/) })
  })

  test('rules that make a megabyte of each character, and ids that make a gigabyte, are a DataError', async () => {
    const units = Buffer.alloc(4 + 4 * 1024)
    // Darts' units: the root, the letter a below it, and its value.
    for (const [at, unit] of [
      [-1, 4 * 1024],
      [0, 1 << 10],
      [1 ^ 97, (256 << 10) | 0x100 | 97],
      [1 ^ 97 ^ 256, 0x80000000],
    ] as const) {
      units.writeUInt32LE(unit, 4 + 4 * at)
    }
    const sized = (tag: number, ...parts: Uint8Array[]): Buffer => {
      const bytes = Buffer.concat(parts)
      const size = [(bytes.length & 0x7f) | 0x80, ((bytes.length >> 7) & 0x7f) | 0x80, bytes.length >> 14]
      return Buffer.concat([Buffer.from([tag, ...size]), bytes])
    }
    const rules = sized(26, sized(18, units, Buffer.alloc(1e6, 'x'), Buffer.of(0)))
    const growing = await open(Buffer.concat([Buffer.from([...piece('<unk>', 2), ...piece('x')]), rules]))
    expect(growing.encode('b').inputIds.length).toBeGreaterThan(0)
    expect(() => growing.encode('a'.repeat(1000))).toThrow(DataError)
    const words = [sized(10, sized(10, Buffer.alloc(1e6, 'ab'))), Buffer.from([18, 2, 24, 3])]
    const long = await open(Buffer.concat([Buffer.from(piece('<unk>', 2)), ...words]))
    expect(() => long.decode(new Array(1000).fill(1))).toThrow(DataError)
  })

  test.each([
    ['of a unigram model', 1, []],
    ['a user defined symbol of a byte-pair model', 4, [18, 2, 24, 2]],
  ])('a piece of 1,025 characters, which is looked for everywhere, is refused: %s', async (_name, type, trainer) => {
    const long = (size: number): Buffer => {
      const lengths = (value: number): number[] => [(value & 0x7f) | 0x80, value >> 7]
      const head = [10, ...lengths(size + 5), 10, ...lengths(size)]
      return Buffer.concat([Buffer.from(head), Buffer.alloc(size, 'a'), Buffer.from([24, type])])
    }
    const model = (size: number) =>
      open(Buffer.concat([Buffer.from([...piece('<unk>', 2), ...piece('a')]), long(size), Buffer.from(trainer)]))
    await expect(model(1025)).rejects.toThrow(/piece 2: expected at most 1024 characters, got 1025/)
    expect((await model(1024)).encode('a'.repeat(1024), { addSpecialTokens: false }).inputIds).toContain(2)
  })

  test('more pieces than any model has are refused before memory is taken for them', async () => {
    const many = [Buffer.from(piece('<unk>', 2))]
    for (let i = 0; i < 2 ** 20; i++) many.push(Buffer.from(piece(i.toString(36))))
    await expect(open(Buffer.concat(many))).rejects.toThrow(/more than 1048576 pieces at byte \d{7}/)
  })

  test('one endless piece does not cost its square', async () => {
    const length = 1 << 20
    const sizes = (value: number): number[] => [(value & 0x7f) | 0x80, ((value >> 7) & 0x7f) | 0x80, value >> 14]
    const endless = Buffer.concat([
      Buffer.from([...piece('<unk>', 2), 10, ...sizes(length + 4), 10, ...sizes(length)]),
      Buffer.alloc(length, 'ab'),
      Buffer.from([18, 2, 24, 2]),
    ])
    const start = performance.now()
    await expect(open(endless)).rejects.toThrow(/too long for byte-pair encoding/)
    expect(performance.now() - start).toBeLessThan(PATIENCE)
  })

  test('unused pieces of a byte-pair model are refused, not guessed', async () => {
    const model = Buffer.from([...piece('a', 2), ...piece('b', 5), 18, 2, 24, 2])
    await expect(open(model)).rejects.toThrow(/without unused pieces, which are not supported/)
  })
})
