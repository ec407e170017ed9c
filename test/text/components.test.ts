import { describe, expect, test } from 'vitest'
import { checksum, fromSpec, json } from './helpers.js'

interface Case {
  name: string
  spec: unknown
  ids: number[][]
  sums: number[]
  decoded: string[]
  pair: { ids: number[]; types: number[]; mask: number[]; words: (number | null)[]; offsets: number[][] }
}
const { lines, pair, cases } = json<{ lines: string[]; pair: [string, string]; cases: Case[] }>('tokenizers')

// Between them they have every normaliser, pre-tokenizer, model, post-processor and decoder.
describe.each(cases)('the tokenizer.json $name, as tokenizers has it', ({ spec, ids, sums, decoded, pair: wanted }) => {
  test('ids, offsets and word ids', async () => {
    const tokenizer = await fromSpec(spec)
    for (const [i, line] of lines.entries()) {
      const encoding = tokenizer.encode(line)
      expect(encoding.inputIds, JSON.stringify(line)).toEqual(ids[i])
      expect(checksum(encoding), `offsets and words of ${JSON.stringify(line)}`).toBe(sums[i])
    }
  })

  test('text', async () => {
    const tokenizer = await fromSpec(spec)
    for (const [i, text] of decoded.entries()) {
      expect(tokenizer.decode(ids[i]!, { skipSpecialTokens: i % 2 === 0 })).toBe(text)
    }
  })

  test('a pair', async () => {
    const encoding = (await fromSpec(spec)).encode(pair)
    expect({
      ids: encoding.inputIds,
      types: encoding.tokenTypeIds,
      mask: encoding.specialTokensMask,
      words: encoding.wordIds,
      offsets: encoding.offsets,
    }).toEqual(wanted)
  })
})

// Such texts are cut into words before they are merged. The ids are those of tokenizers 0.23.
test.each([
  ['a b', [6, 7]],
  ['a  b', [6, 3, 1]],
  ['a   ba', [6, 4, 1, 0]],
  ['  a', [4, 0]],
  ['a    b  ', [6, 5, 1, 3]],
  ['ab   ab a b', [6, 1, 4, 8, 6, 7]],
  ['       a', [5, 5, 0]],
])('spaces that merge with each other: %j', async (text, ids) => {
  const vocab = ['a', 'b', '▁', '▁▁', '▁▁▁', '▁▁▁▁', '▁a', '▁b', 'ab', '▁▁a']
  const tokenizer = await fromSpec({
    normalizer: {
      type: 'Sequence',
      normalizers: [
        { type: 'Prepend', prepend: '▁' },
        { type: 'Replace', pattern: { String: ' ' }, content: '▁' },
      ],
    },
    model: {
      type: 'BPE',
      vocab: Object.fromEntries(vocab.map((token, id) => [token, id])),
      merges: ['▁ ▁', '▁▁ ▁▁', '▁▁ ▁', '▁ a', '▁ b', 'a b', '▁▁ a'],
    },
  })
  expect(tokenizer.encode(text).inputIds).toEqual(ids)
})
