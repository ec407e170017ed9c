import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { ConfigError, DataError, Random } from '../../../lib/index.js'
import {
  type AlignedWord,
  packUstm,
  prepareUstm,
  readUstmRows,
  type UsdmTokenizer,
  type UstmSegment,
  unitWords,
  ustmPacks,
  ustmSegments,
  ustmSequence,
  ustmSequences,
  ustmTranscript,
  wordsOfTextGrid,
  wordsOfTimes,
  writeUstmTranscripts,
} from '../../../lib/systems/usdm/index.js'
import { roundHalfEven } from '../../../lib/systems/usdm/pretraining/words.js'
import { mistral } from './mistral.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-ustm-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

let tokenizer: UsdmTokenizer
beforeAll(async () => {
  tokenizer = await mistral(50)
})

/** Words by their ends in seconds. */
const words = (...list: [string, number][]): AlignedWord[] =>
  list.map(([text, end], i) => ({ text, start: list[i - 1]?.[1] ?? 0, end }))
/** With as many units as hundredths of a second, so that times say units. */
const placed = (...list: [string, number][]) =>
  unitWords(words(...list), Math.round((list.at(-1) as [string, number])[1] * 100))?.map(({ text, start, end }) => [
    text,
    start,
    end,
  ])

describe('words and their units', () => {
  it('a pause goes to its neighbours: whole at the ends, half to each within, at two decimals', () => {
    expect(placed(['', 0.1], ['a', 0.2], ['b', 0.3], ['', 0.42], ['c', 0.5], ['', 0.6])).toEqual([
      ['a', 0, 20],
      ['b', 20, 36],
      ['c', 36, 60],
    ])
    expect(placed(['a', 0.2], ['', 0.3], ['', 0.4], ['b', 0.5], ['c', 0.6])).toEqual([
      ['a', 0, 30],
      ['b', 30, 50],
      ['c', 50, 60],
    ])
    // Python's round(0.125, 2) is 0.12, and round(0.375, 2) is 0.38.
    expect(placed(['a', 0.1], ['', 0.15], ['b', 0.25], ['', 0.5], ['c', 0.6])?.map(([, , end]) => end)).toEqual([
      12, 38, 60,
    ])
  })

  it('halves go to the even neighbour', () => {
    expect([0.5, 1.5, 2.5, 3.5, 2.4, 2.6, 7].map(roundHalfEven)).toEqual([0, 2, 2, 4, 2, 3, 7])
    // Four units in 0.8 s: the words end at 0.5, 1.5, 2.5 and 4 units.
    const found = unitWords(words(['a', 0.1], ['b', 0.3], ['c', 0.5], ['d', 0.8]), 4)
    expect(found?.map(({ text, start, end }) => [text, start, end])).toBeUndefined()
    const more = unitWords(words(['a', 0.2], ['b', 0.3], ['c', 0.5], ['d', 0.8]), 8)
    expect(more?.map(({ end }) => end)).toEqual([2, 3, 5, 8])
  })

  it('words without a unit are joined with a neighbour', () => {
    const tail: [string, number][] = [
      ['x', 0.2],
      ['y', 0.3],
      ['z', 0.4],
    ]
    // The first takes the next, the last goes to the one before.
    expect(placed(['a', 0.001], ...tail)).toEqual([
      ['a x', 0, 20],
      ['y', 20, 30],
      ['z', 30, 40],
    ])
    expect(placed(['a', 0.001], ['b', 0.002], ...tail)?.[0]).toEqual(['a b x', 0, 20])
    expect(placed(...tail, ['end', 0.4009])?.at(-1)).toEqual(['z end', 30, 40])
    // In the middle the one before takes it and the next; or it alone, where the next has no unit either.
    const longer: [string, number][] = [
      ['p', 0.1],
      ['q', 0.1001],
      ['r', 0.2],
      ['s', 0.3],
      ['t', 0.4],
    ]
    expect(placed(...longer)?.map(([text]) => text)).toEqual(['p q r', 's', 't'])
    expect(
      placed(['p', 0.1], ['q', 0.1001], ['q2', 0.1002], ['r', 0.2], ['s', 0.3], ['t', 0.4])?.map(([text]) => text),
    ).toEqual(['p q q2 r', 's', 't'])
  })

  it('leaves out fewer than three words, and refuses words that do not meet', () => {
    expect(placed(['a', 0.2], ['b', 0.4])).toBeUndefined()
    expect(unitWords([], 5)).toBeNull()
    const apart = [
      { text: 'a', start: 0, end: 1 },
      { text: 'b', start: 2, end: 3 },
      { text: 'c', start: 3, end: 4 },
    ]
    expect(() => unitWords(apart, 200)).toThrow(/expected words without gaps, got one between "a" and "b"/)
  })

  it("comes from Whisper's word times as well, with pauses between them", () => {
    const times = [
      { word: ' Hi', start: 0.5, end: 1 },
      { word: ' you', start: 0.9, end: 1.5 },
      { word: ' there.', start: 2, end: 2.5 },
    ]
    expect(wordsOfTimes(times, 3)).toEqual([
      { text: '', start: 0, end: 0.5 },
      { text: 'Hi', start: 0.5, end: 0.95 },
      { text: 'you', start: 0.95, end: 1.5 },
      { text: '', start: 1.5, end: 2 },
      { text: 'there.', start: 2, end: 2.5 },
      { text: '', start: 2.5, end: 3 },
    ])
    expect(unitWords(wordsOfTimes(times, 3), 150)?.map(({ text }) => text)).toEqual(['Hi', 'you', 'there.'])
    expect(() => wordsOfTimes([{ word: 'x', start: 5, end: 6 }], 3)).toThrow(DataError)
    expect(wordsOfTimes([], 3)).toEqual([])
  })

  it('transcripts are small letters without punctuation but the apostrophe', () => {
    expect(ustmTranscript(' "Don\'t!" he-said [Loud], 50%~ ')).toBe("don't hesaid loud 50")
  })
})

describe('segments', () => {
  const many = Array.from({ length: 120 }, (_, i) => ({ text: `w${i}`, start: i * 10, end: i * 10 + 10 }))
  const units = Array.from({ length: 1200 }, (_, i) => i % 50)

  it.each([undefined, 'published'] as const)('lie between words, near every third of 1200 units (%s)', (compat) => {
    for (let seed = 0; seed < 200; seed++) {
      const segments = ustmSegments(many, units, new Random(seed), compat ? { compat } : {})
      expect(segments.length).toBeLessThanOrEqual(3)
      expect(segments.flatMap((one) => one.units)).toEqual(units)
      expect(segments.map(({ text }) => text).join(' ')).toBe(many.map(({ text }) => text).join(' '))
      for (const one of segments) expect(one.units.length).toBe(one.text.split(' ').length * 10)
    }
  })

  it('as published a place is drawn for each word that it might be, else for each boundary', () => {
    const counted = (options: object) => {
      // Two numbers make a draw that lies inside.
      const float = vi.fn(() => 0.5)
      ustmSegments(many, units, { float }, options)
      return float.mock.calls.length / 2
    }
    // Three segments have two boundaries; each may lie at one of 120 words, or behind the last.
    expect(counted({})).toBe(2)
    expect(counted({ compat: 'published' })).toBe(2 * 121)
  })

  it('follow the cut normal distribution: mean kN/S, deviation N/2S', () => {
    const ends: number[] = []
    for (let seed = 0; seed < 2000; seed++) {
      const [first] = ustmSegments(many.slice(0, 60), units, new Random(seed)) as [UstmSegment]
      ends.push(first.units.length)
    }
    // 600 units in two segments: 300, and 150 · 0.8796, the deviation of a normal distribution cut at 2.
    const mean = ends.reduce((sum, end) => sum + end, 0) / ends.length
    const deviation = Math.sqrt(ends.reduce((sum, end) => sum + (end - mean) ** 2, 0) / ends.length)
    expect(Math.abs(mean - 300)).toBeLessThan(12)
    expect(Math.abs(deviation - 150 * 0.8796)).toBeLessThan(8)
  })

  it('a short utterance is one, and words beyond the units are refused', () => {
    expect(ustmSegments(many.slice(0, 3), units, new Random(1))).toEqual([
      { text: 'w0 w1 w2', units: units.slice(0, 30) },
    ])
    expect(() => ustmSegments(many, units.slice(0, 5), new Random(1))).toThrow(
      /expected words within the 5 units, got words up to unit 1200/,
    )
  })
})

describe('sequences', () => {
  const segments: UstmSegment[] = [
    { text: 'i am', units: [0, 1] },
    { text: 'hi', units: [2] },
  ]
  const scripted = (...draws: number[]) => ({ float: () => draws.shift() as number })
  const [text0, text1] = [[613, 837], [12014]]

  it.each([
    // Speech alone, then text with its speech: the modality changes between them.
    [
      [0.9, 0.1, 0.1, 0.9],
      [1, 32002, 32003, 32000, ...text1!, 32001, 32004, 2],
    ],
    [
      [0.9, 0.1, 0.9, 0.1],
      [1, 32002, 32003, 32004, 2],
    ],
    // Speech with its text, after which text goes on.
    [
      [0.9, 0.9, 0.1, 0.1],
      [1, 32002, 32003, 32001, ...text0!, ...text1!, 2],
    ],
    [
      [0.9, 0.9, 0.9, 0.1],
      [1, 32002, 32003, 32001, ...text0!, 32000, 32004, 2],
    ],
    [
      [0.1, 0.1, 0.1, 0.1],
      [1, ...text0!, ...text1!, 2],
    ],
  ])('of draws %j', (draws, ids) => {
    expect(ustmSequence(tokenizer, segments, scripted(...draws))).toEqual(ids)
  })

  it('are sentences of the grammar, whatever is drawn', () => {
    const three = [...segments, { text: 'no problem', units: [3, 3] }]
    const kinds = new Set<string>()
    for (let seed = 0; seed < 10_000; seed++) {
      const ids = ustmSequence(tokenizer, three, new Random(seed))
      expect(Math.max(...ids)).toBeLessThan(tokenizer.ids.pad)
      const word = (id: number) =>
        id === 1 ? 'B' : id === 2 ? 'E' : id === 32_000 ? 'K' : id === 32_001 ? 'C' : tokenizer.isUnit(id) ? 'u' : 't'
      const form = ids.map(word).join('').replace(/u+/g, 'u').replace(/t+/g, 't')
      expect(form).toMatch(/^B(u|t)((C|K)(u|t))*E$/)
      // What stands on both sides of a token of control is never of one modality.
      expect(form).not.toMatch(/u[CK]u|t[CK]t|ut|tu/)
      kinds.add(form)
    }
    expect(kinds.size).toBeGreaterThan(20)
  })

  it('same seed, same sequences, whatever stands behind; a bad utterance is named or counted', () => {
    const said = words(['a', 1], ['b', 2], ['c', 3])
    const utterance = (name: string) => ({ name, words: said, units: new Int32Array(150).fill(4) })
    const options = { tokenizer, epochs: 2, seed: 9 }
    const one = ustmSequences([utterance('x')], options)
    const two = ustmSequences([utterance('x'), utterance('y')], options)
    expect(two.epochs.map((sequences) => sequences[0])).toEqual(one.epochs.map((sequences) => sequences[0]))
    expect(two.report).toMatchObject({ utterances: 2, sequences: 2, tooShort: 0 })
    const short = { name: 's', words: said.slice(0, 2), units: [1, 2] }
    const bad = { name: 'bad', words: [...said, { text: 'd', start: 9, end: 10 }], units: new Int32Array(150) }
    expect(() => ustmSequences([bad], options)).toThrow(/^bad: /)
    const { report } = ustmSequences([short, bad, utterance('x')], { ...options, onBadRecord: 'skip' })
    expect(report).toMatchObject({ utterances: 3, sequences: 1, tooShort: 1, badRecords: 1 })
  })
})

describe('rows', () => {
  it('take what fits, longest first, and lose nothing', () => {
    expect(ustmPacks([5, 3, 2, 8, 1, 1], 8)).toEqual([[0, 1], [2], [3], [4, 5]])
    expect(ustmPacks([3, 5], 8)).toEqual([[1, 0]])
    expect(() => ustmPacks([9], 8)).toThrow(DataError)
    const random = new Random(2)
    const lengths = Array.from({ length: 500 }, () => 1 + random.below(100))
    const rows = ustmPacks(lengths, 128)
    expect(rows.flat().sort((a, b) => a - b)).toEqual(lengths.map((_, i) => i))
    for (const row of rows) expect(row.reduce((sum, i) => sum + (lengths[i] as number), 0)).toBeLessThanOrEqual(128)
  })

  it('come from TextGrids and units, the same bytes for the same seed', async () => {
    const grids = join(folder, 'clips-textgrid/84')
    mkdirSync(grids, { recursive: true })
    mkdirSync(join(folder, 'clips/84'), { recursive: true })
    const intervals = ['', 'i', 'am', '', 'here', 'now', '']
    for (const name of ['a', 'b', 'c']) {
      const lines = intervals.map((text, i) => `${i * 0.5}\n${i * 0.5 + 0.5}\n"${text}"\n`)
      const grid = `File type = "ooTextFile"\nObject class = "TextGrid"\n0\n3.5\n<exists>\n2\n"IntervalTier"\n"phones"\n0\n3.5\n1\n0\n3.5\n"x"\n"IntervalTier"\n"words"\n0\n3.5\n7\n${lines.join('')}`
      writeFileSync(join(grids, `${name}.TextGrid`), grid)
      writeFileSync(join(folder, `clips/84/${name}_unit.txt`), new Array(175).fill(7).join(' '))
    }
    const options = { tokenizer, textGrids: join(folder, 'clips-textgrid'), output: join(folder, 'out'), epochs: 2 }
    const done = await prepareUstm(options)
    expect(done).toMatchObject({ utterances: 3, sequences: 3, tooShort: 0, tooLong: 0, rows: 1 })
    const bytes = () => done.files.concat(done.packed).map((file) => readFileSync(file, 'utf8'))
    const before = bytes()
    const lengths = JSON.parse(readFileSync(join(folder, 'out/data_epoch1.json'), 'utf8'))
    expect(before[1]?.split('\n').map((line) => line.split(' ').length)).toEqual(lengths)
    const rows: number[][] = []
    for await (const row of readUstmRows(done.packed)) rows.push(row)
    expect(rows[0]?.filter((id) => id === 1).length).toBe(6)
    await prepareUstm(options)
    expect(bytes()).toEqual(before)
    expect((await packUstm(done.files, join(folder, 'out/small.txt'), { capacity: 4 })).tooLong).toBe(6)
    await expect(prepareUstm({ ...options, textGrids: join(folder, 'clips') })).rejects.toThrow(ConfigError)
    rmSync(join(folder, 'clips/84/b_unit.txt'))
    await expect(prepareUstm(options)).rejects.toThrow(/b\.TextGrid: expected its units in .*b_unit\.txt/)
    expect(() => wordsOfTextGrid({ minTime: 0, maxTime: 1, tiers: [] })).toThrow(
      /expected an interval tier 'words', got no tiers/,
    )
  })
})

describe('what is given wrongly', () => {
  // Nothing is at these places: what is wrong is said before anything is looked for.
  const [nowhere, output] = [join(folder, 'no-textgrid'), join(folder, 'never')]

  it.each([
    [{ tokenizer: undefined }, /prepareUstm: expected tokenizer to be a UsdmTokenizer/],
    [{ tokenizer: undefined, onBadRecord: 'skip' }, /tokenizer to be a UsdmTokenizer/],
    [{ textGrids: 5 }, /textGrids to be a string/],
    [{ textGrids: undefined }, /textGrids to be a string/],
    [{ units: 5 }, /units to be a string/],
    [{ output: null }, /output to be a string/],
    [{ epocs: 2 }, /epocs.*epochs/],
    [{ epochs: 0 }, /epochs to be an integer/],
    [{ seed: 0.5 }, /seed to be an integer/],
    [{ maxLength: 0 }, /maxLength to be an integer/],
    [{ segmentUnits: 0 }, /segmentUnits to be an integer/],
    [{ compat: 'ours' }, /compat to be 'published'/],
    [{ onBadRecord: 'ask' }, /onBadRecord to be 'stop', 'skip'/],
  ])('prepareUstm refuses %j', async (change, message) => {
    const asked = prepareUstm({ tokenizer, textGrids: nowhere, output, ...change } as never)
    await expect(asked).rejects.toThrow(message)
    await expect(asked).rejects.toThrow(ConfigError)
  })

  it.each([
    [[undefined, output], /packUstm: expected files to be a list of files/],
    [['data_epoch0.txt', output], /files to be a list of files/],
    [[[5], output], /files\[0\] to be a string/],
    [[['none.txt'], undefined], /output to be a string/],
    [[['none.txt'], output, { seed: -1 }], /seed to be an integer/],
    [[['none.txt'], output, { capacity: 0 }], /capacity to be an integer/],
  ])('packUstm refuses %j', async (args, message) => {
    const asked = packUstm(...(args as never as Parameters<typeof packUstm>))
    await expect(asked).rejects.toThrow(message)
    await expect(asked).rejects.toThrow(ConfigError)
  })
})

describe('writeUstmTranscripts', () => {
  it('writes what is said beside what LibriTTS says, and refuses what is no text', async () => {
    const corpus = join(folder, 'corpus')
    mkdirSync(join(corpus, '84/1'), { recursive: true })
    writeFileSync(join(corpus, '84/1/84_1_0.normalized.txt'), 'But he wouldn\'t; "No," said she!\n')
    expect(await writeUstmTranscripts(corpus)).toBe(1)
    expect(readFileSync(join(corpus, '84/1/84_1_0.txt'), 'utf8')).toBe("but he wouldn't no said she")
    const other = join(folder, 'corpus-texts')
    await writeUstmTranscripts(corpus, other)
    expect(readFileSync(join(other, '84/1/84_1_0.txt'), 'utf8')).toBe("but he wouldn't no said she")
    await expect(writeUstmTranscripts(other)).rejects.toThrow(/expected files <name>\.normalized\.txt/)
    await expect(writeUstmTranscripts(join(folder, 'nowhere'))).rejects.toThrow(ConfigError)
    writeFileSync(join(corpus, 'b.normalized.txt'), Buffer.from([0xff, 0xfe, 0xfd]))
    await expect(writeUstmTranscripts(corpus)).rejects.toThrow(/b\.normalized\.txt/)
  })
})
