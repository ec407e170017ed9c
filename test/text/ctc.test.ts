import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { ConfigError, CtcTokenizer, DataError } from '../../lib/index.js'
import { json } from './helpers.js'

type Offsets = [text: string, start: number, end: number][]
interface Case {
  name: string
  files: Record<string, string>
  size: number
  encoded: { text: string; ids: number[] }[]
  decoded: { ids: number[]; text: string; labels: string; chars: Offsets; words: Offsets }[]
}
const cases = json<Case[]>('ctc')

function folder(files: Record<string, string>): string {
  const directory = mkdtempSync(join(tmpdir(), 'voxtorch-ctc-'))
  for (const [name, content] of Object.entries(files)) writeFileSync(join(directory, name), content)
  return directory
}
const tokenizerOf = (name: string) => CtcTokenizer.fromPretrained(folder(cases.find((one) => one.name === name)!.files))

describe.each(cases)('the CTC tokenizer $name as transformers', ({ files, size, encoded, decoded }) => {
  test.each([
    ['as it was written', false],
    ['as it is saved', true],
  ])('%s', async (_, saved) => {
    const directory = folder(files)
    if (saved) (await CtcTokenizer.fromPretrained(directory)).save(directory)
    const tokenizer = await CtcTokenizer.fromPretrained(directory)
    expect(tokenizer.vocabSize).toBe(size)
    for (const { text, ids } of encoded) expect(tokenizer.encode(text), text).toEqual(ids)
    // transformers leaves offsets as the vocabulary has them.
    const lower = files['tokenizer_config.json']!.includes('"do_lower_case": true')
    const cased = (offsets: Offsets) => offsets.map(([text, ...rest]) => [lower ? text.toLowerCase() : text, ...rest])
    for (const { ids, text, labels, chars, words } of decoded) {
      const found = tokenizer.decodeWithOffsets(ids)
      expect(found.text).toBe(text)
      expect(found.chars.map((one) => [one.text, one.start, one.end])).toEqual(cased(chars))
      expect(found.words.map((one) => [one.text, one.start, one.end])).toEqual(cased(words))
      expect(tokenizer.decode(ids, { groupTokens: false })).toBe(labels)
    }
  })
})

describe('the CTC tokenizer', () => {
  test('leaves special tokens out and blanks apart, where asked', async () => {
    const tokenizer = await tokenizerOf('english')
    const ids = [1, 11, 11, 0, 11, 3, 3, 4, 5, 0, 0, 2]
    expect(tokenizer.decode(ids)).toBe('<s>HH<unk> E</s>')
    const { text, words } = tokenizer.decodeWithOffsets(ids, { skipSpecialTokens: true })
    expect(text).toBe('HH E')
    expect(words).toEqual([
      { text: 'HH', start: 1, end: 5 },
      { text: 'E', start: 8, end: 9 },
    ])
  })

  test('changes its language', async () => {
    const tokenizer = await tokenizerOf('english-of-two')
    expect([tokenizer.targetLang, tokenizer.languages]).toEqual(['eng', ['deu', 'eng']])
    tokenizer.setTargetLang('deu')
    expect(tokenizer.encode('schb')).toEqual([7, 6])
    expect(() => tokenizer.setTargetLang('fra')).toThrow(/targetLang: expected deu, eng; got "fra"/)
    expect(() => new CtcTokenizer({ vocab: { a: 0 }, targetLang: 'eng' })).toThrow(/has no languages/)
  })

  test('refuses what it cannot read, by name', async () => {
    expect(() => new CtcTokenizer({ vocab: {} })).toThrow(ConfigError)
    expect(() => new CtcTokenizer({ vocab: { a: -1 } })).toThrow(/vocab\["a"\] to be an integer/)
    expect(() => new CtcTokenizer({ vocab: { a: 0 }, padTokens: 'x' } as never)).toThrow(/did you mean 'padToken'/)
    expect(() => new CtcTokenizer({ vocab: { a: 0 } }).encode('b')).toThrow(DataError)
    expect(() => new CtcTokenizer({ vocab: { a: 0 } }).decode('a' as never)).toThrow(ConfigError)
    await expect(CtcTokenizer.fromPretrained('/nowhere')).rejects.toThrow(/found no vocab.json/)
    const broken = folder({ 'vocab.json': '{"a": "b"}' })
    await expect(CtcTokenizer.fromPretrained(broken)).rejects.toMatchObject({
      name: 'DataError',
      file: join(broken, 'vocab.json'),
    })
  })
})
