import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { type ReadTextGridOptions, readTextGrid, type TextGrid, writeTextGrid } from '../../lib/files/index.js'
import { DataError } from '../../lib/index.js'
import { fixture, tensorsOf } from '../helpers.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-textgrid-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

type Tier = { name: string } & (
  | { kind: 'interval'; intervals: [number, number, string][] }
  | { kind: 'point'; points: [number, string][] }
)
const made = await fixture<{ name: string; tiers: Tier[] }>('files/textgrid')

let count = 0
const read = (content: string | Buffer, options?: ReadTextGridOptions) => {
  const path = join(folder, `${count++}.TextGrid`)
  writeFileSync(path, content)
  return readTextGrid(path, options)
}
/** A file in the short form with one tier from 0 to 1. */
const short = (...intervals: (readonly [number | string, number | string, string])[]) =>
  `File type = "ooTextFile"\nObject class = "TextGrid"\n0\n1\n<exists>\n1\n"IntervalTier"\n"words"\n0\n1\n${intervals.length}\n${intervals
    .map(([from, to, text]) => `${from}\n${to}\n"${text}"\n`)
    .join('')}`
const intervals = async (content: string, options?: ReadTextGridOptions) => {
  const [tier] = (await read(content, options)).tiers
  return tier?.kind === 'interval' ? tier.intervals.map((one) => [one.minTime, one.maxTime, one.text]) : undefined
}

describe('readTextGrid', () => {
  it.each(made.cases)('reads $name as the reader of PyPI does', async ({ name, tiers }) => {
    const grid = await read(Buffer.from(tensorsOf(made, name, 'in').file?.toArray() as number[]))
    expect([grid.minTime, grid.maxTime]).toEqual([0, 10])
    const plain = grid.tiers.map((tier) =>
      tier.kind === 'interval'
        ? { ...tier, intervals: tier.intervals.map((one) => [one.minTime, one.maxTime, one.text]) }
        : { ...tier, points: tier.points.map((one) => [one.time, one.text]) },
    )
    expect(plain).toEqual(tiers.map((tier) => ({ ...tier, minTime: 0, maxTime: 10 })))
  })

  it('a quote stands twice, in names of tiers too', async () => {
    const { tiers } = await read(short([0, 1, 'a ""b""']).replace('"words"', '"a ""tier"" of words"'))
    expect(tiers).toMatchObject([{ name: 'a "tier" of words', intervals: [{ text: 'a "b"' }] }])
  })

  it('takes the form that Praat takes: what is for people may say anything', async () => {
    const text =
      '"ooTextFile"\n! a comment with "quotes" and 7\n"TextGrid" 0 1 <exists> 1 class="IntervalTier" "w" 0 1. 1 a 0 b 1e0 "x"'
    expect(await intervals(text)).toEqual([[0, 1, 'x']])
    expect((await read('"ooTextFile" "TextGrid" 0 2 <absent>')).tiers).toEqual([])
  })

  it('gaps are refused, kept or filled, as asked', async () => {
    const text = short([0.1, 0.4, 'a'], [0.5, 0.9, 'b'])
    await expect(intervals(text)).rejects.toThrow(
      /line 12: interval 1 of tier 1: expected an interval from 0 to 0\.1 s/,
    )
    const [a, b] = [
      [0.1, 0.4, 'a'],
      [0.5, 0.9, 'b'],
    ]
    expect(await intervals(text, { gaps: 'keep' })).toEqual([a, b])
    expect(await intervals(text, { gaps: 'fill' })).toEqual([[0, 0.1, ''], a, [0.4, 0.5, ''], b, [0.9, 1, '']])
    await expect(intervals(short([0, 0.9, 'a']))).rejects.toThrow(
      /the end of tier 1: expected an interval from 0\.9 to 1/,
    )
    // Two digits of one boundary that differ are no gap.
    expect(await intervals(short([0, 0.333333, 'a'], [0.333334, 1, 'b']))).toHaveLength(2)
    await expect(intervals(text, { gaps: 'leave' as never })).rejects.toThrow(/gaps/)
  })

  it.each([
    ['', /ends before the type of the file/],
    ['"ooTextFile"', /ends before the class/],
    ['"ooTextFile" "Pitch 1"', /expected a "TextGrid" in the file, got a "Pitch 1"/],
    ['"Praat chronological TextGrid text file"', /expected "ooTextFile"/],
    [short([0, 0.5, 'a'], [0.4, 1, 'b']), /line 15: expected interval 2 of tier 1 to begin at 0\.5 or later, got 0\.4/],
    [short([0, 0, 'a']), /line 13: expected interval 1 of tier 1 to end after it begins at 0, got 0/],
    [short([0, 1.5, 'a']), /within its tier, which ends at 1, got 1\.5/],
    [short([0, 1, 'a']).replace('\n1\n0\n1\n"a"', '\n2\n0\n1\n"a"'), /ends before the beginning of interval 2/],
    [
      short([0, 1, 'a']).replace('\n1\n0\n1\n"a"', '\n900000000\n0\n1\n"a"'),
      /expected a number of intervals .*, got 900000000/,
    ],
    [short([0, 1, 'a']).replace('"a"', '"a'), /expected the end of a quoted text/],
    [short([0, 1, 'a']).replace('"a"', '7'), /the text of interval 1 of tier 1 to be a text in quotes, got "7"/],
    [short(['"x"', 1, 'a']), /the beginning of interval 1 of tier 1 to be a number, got "x"/],
    [short([0, 1, 'a']).replace('IntervalTier', 'PitchTier'), /expected tier 1 to be .*, got "PitchTier"/],
    ['"ooTextFile" "TextGrid" 2 1 <exists> 0', /expected the file to end after it begins at 2, got 1/],
    [
      '"ooTextFile" "TextGrid" 0 1 <exists> 1 "TextTier" "t" 0 1 1 3 "x"',
      /expected point 1 of tier 1 within its tier .*, got 3/,
    ],
  ])('names file and line of what is wrong: %j', async (text, message) => {
    const error = await read(text).catch((error: unknown) => error)
    expect(error).toBeInstanceOf(DataError)
    expect(error).toMatchObject({ message: expect.stringMatching(message), file: expect.stringMatching(/TextGrid$/) })
    expect((error as { line: number }).line).toBeGreaterThan(0)
  })

  it('refuses what is no text, half a character, and a file that is not there', async () => {
    await expect(read(Buffer.from([0xff, 0xfe, 0x22]))).rejects.toThrow(DataError)
    await expect(read(Buffer.from([0xff, 0xfe, 0x00, 0xd8]))).rejects.toThrow(/valid UTF-16 text/)
    await expect(read(Buffer.from([0x22, 0xc3]))).rejects.toThrow(/not UTF-8/)
    await expect(readTextGrid(join(folder, 'none'))).rejects.toThrow(DataError)
  })
})

describe('writeTextGrid', () => {
  const path = join(folder, 'written.TextGrid')

  it.each(made.cases)('what it writes of $name is read as the same', async ({ name }) => {
    const grid = await read(Buffer.from(tensorsOf(made, name, 'in').file?.toArray() as number[]))
    await writeTextGrid(path, grid)
    expect(await readTextGrid(path)).toEqual(grid)
  })

  it('is the long form, as Praat writes it', async () => {
    const intervals = [{ minTime: 0, maxTime: 0.5, text: 'a "b"' }]
    const points = [{ time: 0.25, text: 'é' }]
    await writeTextGrid(path, {
      minTime: 0,
      maxTime: 1,
      tiers: [
        { kind: 'interval', name: 'words', minTime: 0, maxTime: 0.5, intervals },
        { kind: 'point', name: 'moments', minTime: 0, maxTime: 1, points },
      ],
    })
    const text = readFileSync(path, 'utf8').replaceAll(' \n', '\n')
    expect(text.startsWith('File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = 0\nxmax = 1\n')).toBe(true)
    expect(text).toContain(
      'intervals [1]:\n            xmin = 0\n            xmax = 0.5\n            text = "a ""b"""\n',
    )
    expect(text).toContain('points [1]:\n            number = 0.25\n            mark = "é"\n')
  })

  it.each([
    [{ minTime: 0, maxTime: Number.NaN, tiers: [] }, /expected ascending times of the whole, got 0 to NaN/],
    [tierOf([0, 0.6, 'a'], [0.5, 1, 'b']), /expected ascending times of interval 2 of tier 1, got 0\.5 to 1/],
    [tierOf([0, 0, 'a']), /interval 1 of tier 1/],
    [tierOf([0, 1.5, 'a']), /interval 1 of tier 1/],
    [tierOf([0, 1, '\ud800']), /expected a text, got/],
  ])('refuses %j', async (grid, message) => {
    const error = await writeTextGrid(path, grid as TextGrid).catch((error: unknown) => error)
    expect(error).toBeInstanceOf(DataError)
    expect(error).toMatchObject({ file: path, message: expect.stringMatching(message) })
  })
})

function tierOf(...list: [number, number, string][]): TextGrid {
  const intervals = list.map(([minTime, maxTime, text]) => ({ minTime, maxTime, text }))
  return { minTime: 0, maxTime: 1, tiers: [{ kind: 'interval', name: 'words', minTime: 0, maxTime: 1, intervals }] }
}
