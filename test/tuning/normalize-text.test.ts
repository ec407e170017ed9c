import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { normalizeEnglish, normalizeText, readSpellings } from '../../lib/tuning/normalize-text.js'
import { fixture } from '../helpers.js'

const directory = mkdtempSync(join(tmpdir(), 'voxtorch-normalize-'))
afterAll(() => rmSync(directory, { recursive: true, force: true }))
const { cases } = await fixture<{ spellings: Record<string, string>; cases: [string, string][] }>(
  'tuning/normalize-text',
)
const [given] = cases as [(typeof cases)[0]]

describe('the English normalizer', () => {
  it('equals that of transformers', () => {
    const spellings = new Map(Object.entries(given.spellings))
    expect(given.cases.length).toBeGreaterThan(400)
    const wrong = given.cases
      .map(([text, expected]) => [text, expected, normalizeEnglish(text, spellings)])
      .filter(([, expected, found]) => found !== expected)
    expect(wrong).toEqual([])
  })

  it('takes time in proportion to long texts', () => {
    for (const text of [
      ' ',
      '1',
      "'",
      '$0.',
      'one ',
      'and a half ',
      '(',
      '.',
      '1,',
      'nine ',
      'million ',
      'two million ',
      '\ufdfa',
    ]) {
      const count = Math.ceil(50_000 / text.normalize('NFKD').length)
      const secondsOf = (repeats: number) => {
        const start = performance.now()
        expect(typeof normalizeEnglish(text.repeat(repeats))).toBe('string')
        return performance.now() - start
      }
      secondsOf(count)
      // The shortest of several, since other processes may run.
      const [short, long] = [count, 4 * count].map((n) => Math.min(...[0, 1, 2].map(() => secondsOf(n))))
      // Milliseconds that the clock and a collection of garbage may add.
      expect(long! / Math.max(short!, 30), text).toBeLessThan(10)
    }
  })

  it('and the basic one keep U+FEFF, which is no space for Python', () => {
    expect(normalizeText('\ufeffA\ufeffb \x1c c\x85')).toBe('\ufeffa\ufeffb c')
    expect(normalizeEnglish('\ufeffA\ufeffb \x1c c\x85')).toBe('\ufeffa\ufeffb c')
  })

  it('and the basic one refuse texts whose compatibility form is too long', () => {
    for (const normalize of [normalizeText, normalizeEnglish]) {
      expect(() => normalize('\ufdfa'.repeat(400_000))).toThrow(/at most 1048576 characters.*got 7200000/)
      expect(() => normalize('a'.repeat(2 ** 21))).toThrow(/got 2097152/)
    }
  })

  it('reads the spellings of a folder, and names what is wrong', async () => {
    expect(await readSpellings(directory)).toBeUndefined()
    const file = join(directory, 'normalizer.json')
    writeFileSync(file, JSON.stringify({ colour: 'color' }))
    expect(normalizeEnglish('Colour', await readSpellings(directory))).toBe('color')
    expect(normalizeEnglish('Colour', await readSpellings(file))).toBe('color')
    expect(normalizeEnglish('Colour')).toBe('colour')
    for (const text of ['[1]', '{"a": 1}', '{', 'null']) {
      writeFileSync(file, text)
      await expect(readSpellings(directory)).rejects.toThrow(/normalizer\.json/)
    }
    await expect(readSpellings(join(directory, 'none.json'))).rejects.toThrow(/none\.json/)
  })
})
